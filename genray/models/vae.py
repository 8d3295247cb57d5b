"""The variational autoencoder (Kingma & Welling 2014, "Auto-Encoding Variational Bayes")."""

from __future__ import annotations

from typing import Literal, overload

import torch
from pydantic import Field
from torch import nn

from genray.models.autoencoder import (
    Autoencoder,
    Filters,
    Shape,
    conv_decoder,
    conv_encoder,
    conv_image,
    filters_for,
)
from genray.settings.base import Settings

_LOGVAR_RANGE = (-20.0, 20.0)


class VAESettings(Settings):
    """Settings of the variational autoencoder and of the weight of its KL divergence."""

    kind: Literal["vae"] = Field(
        "vae",
        description="variational autoencoder: codes are distributions, from which new images can be drawn",
    )
    latent: int = Field(32, ge=1, le=16384, description="length of a code")
    filters: Filters = None
    beta: float = Field(
        1.0,
        ge=0,
        description="weight of the KL divergence beside the loss summed over an image (1 gives the ELBO)",
    )
    kl_warmup: float = Field(
        0.1,
        ge=0,
        le=1,
        description="share of the training over which the weight of the KL divergence rises from zero",
    )


class VariationalAutoencoder(Autoencoder):
    """Encodes an image as a normal distribution of codes, N(mu, exp(logvar)), diagonal.

    Shapes: (N, C, H, W) in [0, 1] -> (N, latent) -> (N, C, H, W) in [0, 1]. The layers are those of
    `ConvAutoencoder`, the last of its encoder twice as wide, for mu and logvar.

    In training an image is reconstructed from a code drawn from its distribution, in evaluation from mu.

    Args:
        shape: channels, height and width of the images.
        settings: channels of the layers and length of the code.
    """

    classes = 0
    """Number of classes that images can be drawn of: none."""

    def __init__(self, shape: Shape, settings: VAESettings) -> None:
        filters = settings.filters or filters_for(shape)
        super().__init__(shape, settings.latent, 2 ** len(filters))
        self.encoder = conv_encoder(self.padded, filters, 2 * settings.latent)
        features = conv_decoder(self.padded, filters, settings.latent)
        self.decoder = nn.Sequential(*features, conv_image(filters[0], shape[0]), nn.Sigmoid())

    def distribution(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mu and logvar of the codes of `images`, each (N, latent)."""
        mu, logvar = self.encoder(self._pad(images)).chunk(2, dim=1)
        return mu, logvar.clamp(*_LOGVAR_RANGE)  # limits logvar, as exp() of a huge one would be infinite

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Encode (N, C, H, W) to mu, (N, latent)."""
        return self.distribution(images)[0]

    @overload
    def forward(self, images: torch.Tensor, *, parts: Literal[False] = False) -> torch.Tensor: ...

    @overload
    def forward(
        self, images: torch.Tensor, *, parts: Literal[True]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]: ...

    def forward(
        self, images: torch.Tensor, *, parts: bool = False
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the reconstruction of `images`; with `parts` also mu and logvar, which the loss needs and
        which must be outputs of this call if the network is wrapped for several workers."""
        mu, logvar = self.distribution(images)
        # The noise is drawn independently of the parameters, so that gradients reach them (section 2.4).
        codes = mu + torch.randn_like(mu) * torch.exp(0.5 * logvar) if self.training else mu
        result = self.decode(codes)
        return (result, mu, logvar) if parts else result

    def sample(self, count: int, generator: torch.Generator | None = None) -> torch.Tensor:
        """Return images (count, C, H, W) of codes drawn from the prior N(0, 1)."""
        weight = next(self.parameters())
        where = generator.device if generator is not None else weight.device
        codes = torch.randn(count, self.latent, generator=generator, device=where, dtype=weight.dtype)
        return self.decode(codes.to(weight.device))

    def draw(self, codes: torch.Tensor, classes: torch.Tensor | None = None) -> torch.Tensor:
        """Return the images (N, C, H, W) in [0, 1] of codes (N, latent) of the prior; see
        `genray.models.generator.ImageDrawer`."""
        return self.decode(codes)

    def interpolate(self, first: torch.Tensor, second: torch.Tensor, steps: int) -> torch.Tensor:
        """Interpolate from `first` to `second`, each (N, C, H, W), along the straight line between their
        codes: (N, steps, C, H, W), whose first and last images are the reconstructions of the two."""
        start, end = self.encode(first), self.encode(second)
        share = torch.linspace(0.0, 1.0, steps, device=start.device, dtype=start.dtype)[None, :, None]
        codes = torch.lerp(start[:, None], end[:, None], share)
        return self.decode(codes.flatten(0, 1)).reshape(len(first), steps, *self.shape)


def kl_divergence(mu: torch.Tensor, logvar: torch.Tensor) -> torch.Tensor:
    """Return KL(N(mu, exp(logvar)) || N(0, 1)) in nats, from two (N, latent) to (N,), in float32 or better.

    Source: Kingma & Welling 2014, appendix B: -1/2 sum(1 + logvar - mu^2 - exp(logvar)).
    """
    if mu.dtype in (torch.float16, torch.bfloat16):
        mu, logvar = mu.float(), logvar.float()
    return -0.5 * (1.0 + logvar - mu.square() - logvar.exp()).sum(dim=1)


def kl_weight(done: float, settings: VAESettings) -> float:
    """Return the weight of the KL divergence after the share `done` (0 to 1) of the training. It rises
    linearly from 0 to beta, so that codes carry information before they are regularised (Bowman et al.
    2016)."""
    return settings.beta * (min(1.0, done / settings.kl_warmup) if settings.kl_warmup else 1.0)
