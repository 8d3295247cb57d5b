"""Autoencoders: images to short codes and back (Hinton & Salakhutdinov 2006; Kingma & Welling 2014)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from genray.images.tensors import to_pixels
from genray.report.charts import draw_distributions
from genray.report.pictures import draw_reconstructions, draw_tiles
from jobs.recipes.autoencoding import Autoencoding, AutoencodingSettings
from jobs.recipes.images import UNIT
from jobs.recipes.latent_space import latent_pictures, spread
from jobs.runs.samples import RunPicture
from jobs.training.recipe import Conclusion, Part, Scored, ToDevice
from jobs.training.target import Training


class TrainAutoencoderSettings(AutoencodingSettings):
    """Settings of train-autoencoder."""


class TrainAutoencoder(Autoencoding[TrainAutoencoderSettings]):
    """An autoencoder, judged by how close its reconstructions are, beside principal components."""

    settings_class = TrainAutoencoderSettings

    def conclude(
        self, networks: Mapping[str, nn.Module], part: Part, scored: Sequence[Scored], place: ToDevice
    ) -> Conclusion:
        """Pictures of reconstructions, of the latent space and of the errors; a VAE's own images too."""
        samples, labels = self.held_out[part], self.labels[part]
        chosen = spread(len(samples), self.settings.loop.samples)
        originals = [samples[i][0] for i in chosen]
        errors = {index: metrics["mse"] for index, metrics in scored}
        pictures = [
            RunPicture(
                "reconstructions",
                "Reconstructions",
                draw_reconstructions(
                    originals,
                    self.reconstructed(networks, originals, place),
                    [f"MSE {errors[i]:.4f}" for i in chosen],
                ),
                "Original, reconstruction, and where and how much they differ.",
            ),
            RunPicture(
                "errors",
                "Errors",
                draw_distributions({"held out": np.array(list(errors.values()))}, xlabel="MSE of an image"),
                "How often each mean squared error occurs among the held-out images.",
            ),
        ]
        pictures += self._drawn_from_codes(networks, originals, place)
        some = spread(len(samples), 2000)
        codes = self.codes(networks, [samples[i][0] for i in some], place)
        pictures += latent_pictures(
            codes,
            None if labels is None else labels[some],
            self.classes,
            self.settings.eval.projection,
            self.settings.seed,
        )
        return Conclusion(pictures=pictures)

    def _drawn_from_codes(
        self, networks: Mapping[str, nn.Module], originals: Sequence[NDArray[np.uint8]], place: ToDevice
    ) -> list[RunPicture]:
        """A VAE's samples from the prior, and its ways from one image to another."""
        network = self.as_vae(networks)
        if network is None:
            return []
        generator = torch.Generator().manual_seed(self.settings.seed)
        drawn = to_pixels(network.sample(min(64, self.batch), generator), UNIT)
        pictures = [
            RunPicture("samples", "Samples", draw_tiles(list(drawn)), "Images of codes drawn from the prior.")
        ]
        originals = originals[: 1 + self.batch // 10]
        if len(originals) > 1:
            first, second = (place(np.stack(list(part))) for part in (originals[:-1], originals[1:]))
            steps = to_pixels(network.interpolate(first, second, 10).flatten(0, 1), UNIT)
            pictures.append(
                RunPicture(
                    "interpolations",
                    "Interpolations",
                    draw_tiles(list(steps), columns=10),
                    "From one image to the next in equal steps between their codes.",
                )
            )
        return pictures


TARGET = Training(TrainAutoencoder)
