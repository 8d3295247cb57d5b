"""The target embed: the code of every image as a row of Parquet, to search, cluster and compare images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import torch
from pydantic import Field
from torch import nn

from genray.models.autoencoder import Autoencoder
from genray.models.gan.pair import Gan
from genray.settings.base import Settings
from pipelines.engine.target import Bulk
from pipelines.steps.autoencoder import AutoencoderStep, AutoencoderStepSettings
from pipelines.steps.base import StepInput, StepPlace, StepResult


class EmbeddingSettings(Settings):
    """Settings of the vectors."""

    dtype: Literal["float32", "float16"] = Field("float32", description="number format of the vectors")
    normalize: bool = Field(
        False, description="scale vectors to length 1, so that a dot product is a cosine similarity"
    )


class EmbedSettings(AutoencoderStepSettings):
    """Settings of embed."""

    embed: EmbeddingSettings = Field(EmbeddingSettings(), description="format of the vectors")


class Embed(AutoencoderStep[EmbedSettings]):
    """Writes `embeddings/part-*.parquet` with the columns `path` and `vector`, a list of fixed size, which
    faiss, lance and DuckDB read directly. The vector is the code of an autoencoder, or the features of a
    GAN's discriminator (Radford et al. 2016, section 5.1)."""

    settings_class = EmbedSettings
    bundle_kinds: ClassVar[tuple[str, ...]] = (*AutoencoderStep.bundle_kinds, "gan")
    table = "embeddings"
    writes_images = False
    decodes = False

    def schema(self) -> pa.Schema:
        """See `Step`."""
        kind = pa.float16() if self.settings.embed.dtype == "float16" else pa.float32()
        return pa.schema([("vector", pa.list_(kind, self._vector_size()))])

    def open_network(
        self, network: nn.Module, place: StepPlace, prepared: Mapping[str, Any]
    ) -> Sequence[str]:
        """See `BundleStep`."""
        if not isinstance(network, Gan):
            return super().open_network(network, place, prepared)
        return self.open_encoder(DiscriminatorFeatures(network), place)

    def process(self, inputs: Sequence[StepInput]) -> Sequence[StepResult]:
        """See `Step`."""
        vectors = self.encode(self.network_batch(inputs))
        if self.settings.embed.normalize:
            vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        vectors = vectors.astype(self.settings.embed.dtype)
        return [StepResult(row={"vector": vector}) for vector in vectors]

    def _vector_size(self) -> int:
        with torch.device("meta"):
            network = self.manifest.spec.build()
        if isinstance(network, Gan):
            return network.discriminator.width
        assert isinstance(network, Autoencoder)
        return network.latent


class DiscriminatorFeatures(nn.Module):
    """Discriminator of a GAN up to its last features, as a network."""

    def __init__(self, network: Gan) -> None:
        super().__init__()
        self.discriminator = network.discriminator

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the features of images."""
        return self.discriminator.features(images)


TARGET = Bulk(Embed)
