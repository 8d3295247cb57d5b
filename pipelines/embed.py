"""The target embed: the code of every image as a row of Parquet, to search, cluster and compare images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pyarrow as pa
import torch
from pydantic import Field

from genray.models.autoencoder import Autoencoder
from genray.settings.base import Settings
from pipelines.engine.target import Bulk
from pipelines.steps.autoencoder import AutoencoderStep, AutoencoderStepSettings
from pipelines.steps.base import StepInput, StepResult


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
    faiss, lance and DuckDB read directly."""

    settings_class = EmbedSettings
    table = "embeddings"
    writes_images = False
    decodes = False

    def schema(self) -> pa.Schema:
        """See `Step`."""
        kind = pa.float16() if self.settings.embed.dtype == "float16" else pa.float32()
        return pa.schema([("vector", pa.list_(kind, self._latent_size()))])

    def process(self, inputs: Sequence[StepInput]) -> Sequence[StepResult]:
        """See `Step`."""
        vectors = self.encode(self.network_batch(inputs))
        if self.settings.embed.normalize:
            vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        vectors = vectors.astype(self.settings.embed.dtype)
        return [StepResult(row={"vector": vector}) for vector in vectors]

    def _latent_size(self) -> int:
        with torch.device("meta"):
            network = self.manifest.spec.build()
        assert isinstance(network, Autoencoder)
        return network.latent


TARGET = Bulk(Embed)
