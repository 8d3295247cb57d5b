"""Settings of train-gan."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from genray.datasets.image_set import ImageSetSettings
from genray.models.gan.augment import AugmentSettings
from genray.models.gan.dcgan import DcganSettings
from genray.models.gan.losses import GanLoss, RelativisticSettings, WganGpSettings
from genray.models.gan.pair import GanModel
from genray.settings.base import Settings
from jobs.recipes.images import ImageTrainSettings
from jobs.training.optimisation.optimizer import AdamSettings
from jobs.training.settings import LoopSettings


class GanDataSettings(ImageSetSettings):
    """Settings of the images that a generator learns to draw."""

    stack: int = Field(
        1,
        ge=1,
        le=3,
        description="gray images that become the channels of one, drawn by the seed (3: Stacked MNIST, whose "
        "1,000 classes show how many modes a generator draws; 1: images as they are)",
    )

    @model_validator(mode="after")
    def _stacked_channels(self) -> Self:
        if self.stack == 2:
            raise ValueError("stack=2 gives images that no picture shows; stack 3, or 1 for none")
        if self.stack > 1 and self.channels not in (None, self.stack):
            raise ValueError(f"channels={self.channels} contradicts stack={self.stack}: leave it null")
        if self.stack > 1 and self.drawn:
            raise ValueError("stack takes stored images; set drawn=0")
        return self


class GanLoopSettings(LoopSettings):
    """Settings of the training loop of a GAN."""

    batch_size: int = Field(64, ge=1, description="samples per worker and batch")
    stop_on_collapse: bool = Field(
        False,
        description="end the training at the end of an epoch in which the measures show a collapse; with "
        "weights=best the bundle gets the weights from before it",
    )


class GanAdamSettings(AdamSettings):
    """Settings of the optimizer of generator and discriminator."""

    learning_rate: float = Field(
        1e-3, gt=0, description="step size of the optimizer, before warm-up and decay"
    )
    beta1: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="decay of the mean of the gradient (0: Karras et al. 2018, 0.5: Radford et al. 2016)",
    )
    beta2: float = Field(0.99, ge=0, lt=1, description="decay of the mean of the squared gradient")


class MeasureSettings(Settings):
    """Settings of the measures of drawn images."""

    samples: int = Field(
        4000,
        ge=16,
        le=100_000,
        description="images that are drawn and measured at each validation (Stacked MNIST: 26000, so that "
        "each of its classes has some)",
    )
    compared: int = Field(
        20_000,
        ge=16,
        le=200_000,
        description="largest number of training images that the drawn ones are compared with",
    )


class TrainGanSettings(ImageTrainSettings):
    """Settings of train-gan."""

    data: GanDataSettings = Field(GanDataSettings(), description="images to train on")
    model: GanModel = Field(
        DcganSettings(), description="generator and discriminator; each kind has its own settings"
    )
    loss: GanLoss = Field(
        RelativisticSettings(), description="loss of both networks; each kind has its own settings"
    )
    augment: AugmentSettings = Field(
        AugmentSettings(), description="variations of and noise on the images that the discriminator sees"
    )
    measure: MeasureSettings = Field(MeasureSettings(), description="measures of the drawn images")
    loop: GanLoopSettings = Field(GanLoopSettings(), description="the training loop")
    optimizer: GanAdamSettings = Field(GanAdamSettings(), description="optimizer of both networks")

    @property
    def has_penalty(self) -> bool:
        """Whether the loss has a penalty on the discriminator's gradient."""
        return bool(self.loss.r1 or self.loss.r2) or isinstance(self.loss, WganGpSettings)

    @model_validator(mode="after")
    def _can_be_trained(self) -> Self:
        part = self.loop.batch_size // self.loss.critic_steps
        if part < 2:
            raise ValueError(
                f"loop.batch_size: {self.loop.batch_size} images are too few for loss.critic_steps="
                f"{self.loss.critic_steps}: at least {2 * self.loss.critic_steps}"
            )
        if self.loss.critic_steps > 1 and self.loop.accumulate > 1:
            raise ValueError(
                "loop.accumulate: several updates of the discriminator in a step (loss.critic_steps) cannot "
                "be accumulated; set one of them to 1"
            )
        if self.has_penalty and self.device.compile != "none":
            raise ValueError(
                "device.compile: torch.compile does not differentiate twice, as penalties on the gradient "
                "need; set device.compile=none, or loss.r1=0 and loss.r2=0 with another loss than wgan-gp"
            )
        return self
