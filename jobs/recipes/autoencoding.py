"""Training of autoencoders for any purpose: architectures, step, and metrics beside those of trivial
predictors of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import nn
from torch.optim import Optimizer

from genray.datasets.loader import WorkerShare, held_out_batches
from genray.images.metrics import image_metrics
from genray.images.pixels import Pixels, grid
from genray.images.tensors import to_pixels
from genray.models.autoencoder import LINEAR_SIDE, Autoencoder, ConvSettings, DenseSettings, filters_for
from genray.models.improved import ImprovedSettings
from genray.models.numpy_dense import NumpyAdam, NumpySettings
from genray.models.parts.losses import ReconstructionSettings, reconstruction_loss
from genray.models.registry import NetworkSpec
from genray.models.vae import VAESettings, VariationalAutoencoder, kl_divergence, kl_weight
from jobs.recipes.images import UNIT, ImageRecipe, ImageTrainSettings
from jobs.training.optimisation.optimizer import WidthScaledAdamSettings
from jobs.training.recipe import (
    EvaluationContext,
    Losses,
    Networks,
    Probe,
    SampleScores,
    TensorBatch,
    Updater,
)
from jobs.training.settings import EvalSettings

_AT_ONCE = 64  # images that are shrunk at once
_PROBED = 32  # images on which the health of a network is measured

Model = Annotated[
    DenseSettings | ConvSettings | ImprovedSettings | VAESettings | NumpySettings,
    Field(discriminator="kind"),
]


class AutoencodingEvalSettings(EvalSettings):
    """Settings of the evaluation."""

    baselines: tuple[Literal["pca", "mean"], ...] = Field(
        ("pca",),
        description=(
            "methods to compare with (pca: principal components, as many as the code has numbers; the "
            "mean training image, mean, is always compared with)"
        ),
    )
    projection: Literal["tsne", "none"] = Field(
        "tsne",
        description="projection of the codes to two dimensions, shown beside their principal components",
    )


class AutoencodingSettings(ImageTrainSettings):
    """Settings of every training of an autoencoder."""

    model: Model = Field(DenseSettings(), description="network architecture; each kind has its own settings")
    optimizer: WidthScaledAdamSettings = Field(
        WidthScaledAdamSettings(), description="optimizer of the network"
    )
    loss: ReconstructionSettings = Field(ReconstructionSettings(), description="loss that training minimises")
    eval: AutoencodingEvalSettings = Field(
        AutoencodingEvalSettings(), description="evaluation of the final weights"
    )

    @model_validator(mode="after")
    def _model_can_be_trained(self) -> Self:
        if self.model.kind == "numpy" and self.device.gpu is True:
            raise ValueError("device.gpu: model.kind=numpy trains on the CPU; set device.gpu=false")
        if self.model.kind == "improved" and self.loop.batch_size < 2:
            raise ValueError("loop.batch_size: the norms of model.kind=improved need batches of at least 2")
        return self


A = TypeVar("A", bound=AutoencodingSettings)


class Autoencoding(ImageRecipe[A]):
    """Trains an autoencoder of any architecture, on images of one size."""

    name = "autoencoder"
    averaged = (name,)
    kind = "autoencoder"
    compared_by: ClassVar[Sequence[str]] = ("mse",)
    trivial: ClassVar[Mapping[str, str]] = {
        "mean": "the mean training image",
        "constant": "one constant colour",
    }

    @property
    def metric(self) -> str:
        # By its MSE, a VAE's best weights would be from before the divergence gained its weight.
        return "objective" if self.settings.model.kind == "vae" else "mse"

    @property
    def can_use_gpu(self) -> bool:
        return self.settings.model.kind != "numpy"

    @property
    def title(self) -> str:
        model = self.settings.model
        return f"{self.kind}, {model.kind}, {model.latent} numbers for an image of {np.prod(self.shape)}"

    def network_spec(self) -> NetworkSpec:
        model = self.settings.model
        # A bundle names what was chosen, whatever a later version would choose.
        if isinstance(model, ConvSettings | VAESettings) and model.filters is None:
            model = model.model_copy(update={"filters": filters_for(self.shape)})
        if isinstance(model, ConvSettings) and model.linear_side is None:
            model = model.model_copy(update={"linear_side": LINEAR_SIDE})
        arguments = {"shape": list(self.shape), "settings": model.model_dump(mode="json")}
        return NetworkSpec(f"autoencoder-{model.kind}", arguments)

    def example_inputs(self, samples: int) -> Mapping[str, Sequence[torch.Tensor]]:
        # NumPy needs values to compute with.
        return super().example_inputs(samples) if self.settings.model.kind != "numpy" else {}

    def initialise(self, networks: Networks) -> None:
        network = networks[self.name]
        if isinstance(network, Autoencoder) and network.starts_from_images:
            images = self._known_images()
            chunks = (np.stack(images[i : i + _AT_ONCE]) for i in range(0, len(images), _AT_ONCE))
            network.start_from(self.place(chunk, torch.device("cpu")) for chunk in chunks)

    def make_optimizer(self, name: str, network: nn.Module) -> Optimizer:
        """Return the optimizer; the network in NumPy has its own in NumPy."""
        if self.settings.model.kind != "numpy":
            return super().make_optimizer(name, network)
        chosen = self.settings.optimizer
        return NumpyAdam(
            chosen.groups(network),
            lr=chosen.learning_rate,
            betas=(chosen.beta1, chosen.beta2),
            weight_decay=chosen.weight_decay,
            decoupled=chosen.kind == "adamw",
        )

    def step(self, networks: Networks, batch: TensorBatch, updater: Updater) -> Losses:
        """Take one step. Returns `loss`; for a VAE also `reconstruction` and `kl` (nats per image).

        A VAE's loss is the negative ELBO per pixel value, so that its scale is that of the others: with bce
        it is the bound on the log-likelihood of Kingma & Welling 2014 divided by the number of values.
        """
        (images,) = batch
        network = networks[self.name]
        model = self.settings.model
        if not isinstance(model, VAESettings):
            loss = reconstruction_loss(network(images), images, self.settings.loss).mean()
            updater.update(self.name, loss)
            return {"loss": loss.detach()}
        output, mu, logvar = network(images, parts=True)
        reconstruction = reconstruction_loss(output, images, self.settings.loss).mean()
        divergence = kl_divergence(mu, logvar).mean()
        loss = reconstruction + kl_weight(updater.progress, model) * divergence / images[0].numel()
        updater.update(self.name, loss)
        return {"loss": loss.detach(), "reconstruction": reconstruction.detach(), "kl": divergence.detach()}

    def validate(self, context: EvaluationContext, share: WorkerShare) -> list[SampleScores]:
        """Return MSE, L1 (MAE), PSNR and SSIM of the reconstructions, with values from 0 to 1; of a VAE also
        `objective`, its negative ELBO per value at the full weight of the divergence."""
        scores: list[SampleScores] = []
        samples = self.held_out[context.part].samples
        for indices, (images,) in held_out_batches(samples, self.images_at_once, share):
            originals = context.place(images)
            reconstructions = context.networks[self.name](originals).float()
            metrics = image_metrics(reconstructions, originals)
            if (vae := self.as_vae(context.networks)) and isinstance(self.settings.model, VAESettings):
                loss = reconstruction_loss(reconstructions, originals, self.settings.loss)
                divergence = kl_divergence(*vae.distribution(originals))
                metrics["objective"] = loss + self.settings.model.beta * divergence / originals[0].numel()
            columns = {name: values.tolist() for name, values in metrics.items()}
            for i, index in enumerate(indices):
                scores.append(SampleScores(int(index), {name: values[i] for name, values in columns.items()}))
        return scores

    def probe(self, context: EvaluationContext) -> Probe:
        samples = self.held_out[context.part].samples[: min(_PROBED, self.images_at_once)]
        originals = context.place(np.stack([sample[0] for sample in samples]))
        return Probe(context.networks[self.name](originals), originals, UNIT)

    @property
    def images_at_once(self) -> int:
        """Return the batch size of an evaluation: enough to fill a GPU, small enough for a laptop."""
        return max(1, 2_000_000 // int(np.prod(self.shape)))

    def picture(self, context: EvaluationContext, indices: Sequence[int], title: str) -> NDArray[np.uint8]:
        """Draw rows of original | reconstruction."""
        samples = self.held_out[context.part].samples
        originals = [samples[i][0] for i in indices]
        pairs = zip(originals, self.reconstruct(context, originals), strict=True)
        factor = max(1, 96 // self.shape[1])
        rows = [[_enlarged(image, factor) for image in pair] for pair in pairs]
        return grid(rows, [f"{title}original", "reconstruction"])

    def reconstruct(self, context: EvaluationContext, images: Sequence[Pixels]) -> list[Pixels]:
        """Return the reconstructions of `images`, as pixels."""
        return list(to_pixels(context.networks[self.name](context.place(np.stack(images))), UNIT))

    def encode(self, context: EvaluationContext, images: Sequence[Pixels]) -> NDArray[Any]:
        """Return the codes of `images`, (N, latent) float32."""
        network = context.networks[self.name]
        assert isinstance(network, Autoencoder)
        count = self.images_at_once
        chunks = [np.stack(images[i : i + count]) for i in range(0, len(images), count)]
        return np.concatenate(
            [network.encode(context.place(chunk)).float().cpu().numpy() for chunk in chunks]
        )

    def baselines(self) -> dict[str, dict[str, float]]:
        """Return the MSE of the mean training image, of one constant colour, and of principal components, on
        the judging samples."""
        return {name: {"mse": float(errors.mean())} for name, errors in self.baseline_errors().items()}

    def baseline_errors(self) -> dict[str, NDArray[np.float64]]:
        """Return the MSE of each judging sample, by baseline."""
        judged = [sample[0] for sample in self.held_out[self.judging_part].samples]
        training = self._known_images()
        errors = {
            "mean": mean_image_errors(training, judged),
            "constant": constant_errors(training, judged),
        }
        if "pca" in self.settings.eval.baselines:
            errors["pca"] = pca_errors(training, judged, self.settings.model.latent)
        return errors

    def _known_images(self) -> list[Pixels]:
        """Return the training images that components are computed from, at most a gigabyte of floats: more
        change them little."""
        return self.sample_training_images(max(2, 2**28 // int(np.prod(self.shape))))

    def as_vae(self, networks: Networks) -> VariationalAutoencoder | None:
        """Return the network if it is a variational autoencoder, else None."""
        network = networks[self.name]
        return network if isinstance(network, VariationalAutoencoder) else None


def _enlarged(image: Pixels, factor: int) -> Pixels:
    return image.repeat(factor, axis=0).repeat(factor, axis=1)


def pca_errors(training: Sequence[Pixels], judged: Sequence[Pixels], components: int) -> NDArray[np.float64]:
    """Return the mean squared error of each judged image after projection on the principal components of the
    training images, (N,), with values from 0 to 1: the optimum of a linear autoencoder with a code of that
    length (Baldi & Hornik 1989)."""
    from sklearn.decomposition import PCA

    values = training[0].size
    if len(training) < 2:
        return mean_image_errors(training, judged)  # one image has no directions
    matrix = _matrix(training)
    components = min(components, values, len(matrix) - 1)
    # A small covariance matrix is as exact and far faster; larger ones use random projections.
    solver = "covariance_eigh" if values <= 2048 else "randomized"
    pca = PCA(components, svd_solver=solver, random_state=0).fit(matrix)
    errors = []
    for i in range(0, len(judged), 1024):
        flat = _matrix(judged[i : i + 1024])
        errors.append(
            np.square(pca.inverse_transform(pca.transform(flat)) - flat).mean(axis=1, dtype=np.float64)
        )
    return np.concatenate(errors)


def mean_image_errors(training: Sequence[Pixels], judged: Sequence[Pixels]) -> NDArray[np.float64]:
    """Return the mean squared error of each judged image against the mean training image, (N,)."""
    mean = sum(image.astype(np.float64) for image in training) / len(training)
    return np.array([np.square((image - mean) / 255.0).mean() for image in judged])


def constant_errors(training: Sequence[Pixels], judged: Sequence[Pixels]) -> NDArray[np.float64]:
    """Return the mean squared error of each judged image against the mean colour of the training images,
    (N,)."""
    colour = sum(image.mean(axis=(0, 1)) for image in training) / len(training)
    return np.array([np.square((image - colour) / 255.0).mean() for image in judged])


def _matrix(images: Sequence[Pixels]) -> NDArray[np.float32]:
    flat: NDArray[np.float32] = np.stack([image.ravel() for image in images]).astype(np.float32) / 255.0
    return flat
