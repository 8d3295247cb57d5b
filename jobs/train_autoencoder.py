"""The target train-autoencoder: images to short codes and back (Hinton & Salakhutdinov 2006; Kingma &
Welling 2014)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from genray.images.pixels import Pixels
from genray.images.tensors import to_pixels
from genray.report.charts import draw_distributions
from genray.report.pictures import draw_reconstructions, draw_tiles
from jobs.recipes.autoencoding import Autoencoding, AutoencodingSettings
from jobs.recipes.images import UNIT
from jobs.recipes.latent_space import latent_pictures, spread_indices
from jobs.runs.samples import RunPicture
from jobs.training.recipe import Conclusion, EvaluationContext, SampleScores
from jobs.training.target import Training


class TrainAutoencoderSettings(AutoencodingSettings):
    """Settings of train-autoencoder."""


class TrainAutoencoder(Autoencoding[TrainAutoencoderSettings]):
    """Trains an autoencoder, and compares its reconstructions with those of principal components."""

    settings_class = TrainAutoencoderSettings

    def conclude(self, context: EvaluationContext, scores: Sequence[SampleScores]) -> Conclusion:
        """Return pictures of reconstructions, of the latent space and of the errors; of a VAE also its
        samples."""
        held_out = self.held_out[context.part]
        chosen = spread_indices(len(held_out.samples), self.settings.loop.samples)
        originals = [held_out.samples[i][0] for i in chosen]
        errors = {sample.index: sample.metrics["mse"] for sample in scores}
        pictures = [
            RunPicture(
                "reconstructions",
                "Reconstructions",
                draw_reconstructions(
                    originals,
                    self.reconstruct(context, originals),
                    [f"MSE {errors[i]:.4f}" for i in chosen],
                ),
                "Original, reconstruction, and their difference.",
            ),
            RunPicture(
                "errors",
                "Errors",
                draw_distributions({"held out": np.array(list(errors.values()))}, xlabel="MSE of an image"),
                "Histogram of the mean squared errors of the held-out images.",
            ),
        ]
        pictures += self._generated_pictures(context, originals)
        encoded = spread_indices(len(held_out.samples), 2000)
        pictures += latent_pictures(
            self.encode(context, [held_out.samples[i][0] for i in encoded]),
            None if held_out.labels is None else held_out.labels[encoded],
            self.classes,
            self.settings.eval.projection,
            self.settings.seed,
        )
        return Conclusion(pictures=pictures)

    def _generated_pictures(
        self, context: EvaluationContext, originals: Sequence[Pixels]
    ) -> list[RunPicture]:
        """Draw a VAE's samples from the prior, and interpolations between images."""
        network = self.as_vae(context.networks)
        if network is None:
            return []
        generator = torch.Generator().manual_seed(self.settings.seed)
        samples = to_pixels(network.sample(min(64, self.images_at_once), generator), UNIT)
        pictures = [
            RunPicture(
                "samples",
                "Samples",
                draw_tiles(list(samples)),
                "Images decoded from codes that were drawn from the prior.",
            )
        ]
        originals = originals[: 1 + self.images_at_once // 10]
        if len(originals) > 1:
            first = context.place(np.stack(originals[:-1]))
            second = context.place(np.stack(originals[1:]))
            steps = to_pixels(network.interpolate(first, second, 10).flatten(0, 1), UNIT)
            pictures.append(
                RunPicture(
                    "interpolations",
                    "Interpolations",
                    draw_tiles(list(steps), columns=10),
                    "Interpolation from one image to the next, in equal steps between their codes.",
                )
            )
        return pictures


TARGET = Training(TrainAutoencoder)
