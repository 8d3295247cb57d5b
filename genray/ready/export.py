"""Bundles of half the size: float16 weights, checked against the float32 ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import nn

from genray.bundle import Bundle, load_bundle, save_bundle
from genray.datasets.drawn.scenes import draw_scene
from genray.errors import BundleMismatch, SettingsError
from genray.inference.accuracy import ImageDifference, VectorDifference, compare
from genray.models.beats import BeatAutoencoder
from genray.models.rhythm import RhythmNetwork
from genray.settings.problems import stored_problems

_CHECKED = 4  # samples that both networks are run on
_SIDE = 192  # height and width of checked images in pixels, for networks of any size
_MOST_ABOUT = 2**20  # bytes


class About(BaseModel):
    """What a bundle tells about its model, beside what its training wrote: origin, licence and figures."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    purpose: str = Field(min_length=1, max_length=200, description="what the model is for, in a line")
    licence: str = Field(min_length=1, max_length=2000, description="licence of the weights")
    trained_on: str = Field(
        min_length=1, max_length=8000, description="training data, with authors and licences"
    )
    cost: str = Field(min_length=1, max_length=2000, description="what the training took")
    made_for: Literal["photographs", "pages"] | None = Field(
        None,
        description=(
            "images that a denoiser is for; denoise copies others unchanged (photographs, or pages of text "
            "and line art; null: all images)"
        ),
    )
    figures: dict[str, float] = Field(
        default_factory=dict, max_length=100, description="what was measured, by name with its unit"
    )


def read_about(file: Path) -> About:
    """Read what a bundle is to tell about its model, a JSON object.

    Raises:
        SettingsError: it cannot be read, or a value is missing, unknown or wrong.
    """
    try:
        if file.stat().st_size > _MOST_ABOUT:
            raise SettingsError(f"{file} is larger than {_MOST_ABOUT} bytes", where="--about")
        return About.model_validate_json(file.read_bytes())
    except OSError as error:
        raise SettingsError(
            f"{file} cannot be read: {error.strerror}", where="--about", hint="give a JSON file"
        ) from error
    except ValidationError as error:
        raise SettingsError(
            f"{file}: {stored_problems(error)}",
            where="--about",
            hint=f"give a JSON object with {', '.join(About.model_fields)}",
        ) from None


def about_of(bundle_data: dict[str, Any]) -> About | None:
    """Return what the data of a manifest tells about the model; None: nothing that can be read."""
    try:
        return About.model_validate(bundle_data.get("about"))
    except ValidationError:
        return None


def shrink(
    source: str | Path, output: Path, about: About | None = None
) -> ImageDifference | VectorDifference:
    """Write a bundle of `source` with float16 weights to the folder `output`.

    Args:
        source: folder or URI of a bundle, or a name as ready:photo.
        output: folder of the new bundle.
        about: what it tells about its model (None: what `source` tells).

    Returns:
        The difference of its results from those of `source`, on made-up samples.

    Raises:
        BundleError: `source` cannot be read.
        BundleMismatch: the results differ by more than one level of 255 (images) or a hundredth of the
            largest value (beats, rhythms).
    """
    bundle = load_bundle(source)
    manifest = bundle.manifest
    exact = bundle.network
    halved = manifest.spec.build()
    halved.load_state_dict({name: _halved(tensor) for name, tensor in exact.state_dict().items()})
    difference = _difference(bundle, halved.eval())
    is_close = difference.levels <= 1 if isinstance(difference, ImageDifference) else difference.error <= 0.01
    if not is_close:
        raise BundleMismatch(
            f"with float16 weights the results differ by {difference}",
            where=str(source),
            hint="use the bundle as it is: float16 is too coarse for its weights",
        )
    save_bundle(
        output,
        halved,
        manifest.spec,
        kind=manifest.kind,
        preprocessing=manifest.stored,
        metrics=manifest.metrics,
        seed=manifest.seed,
        data={**manifest.data, **({"about": about.model_dump()} if about else {})},
        calibration=manifest.calibration,
        quality=manifest.quality,
        verdict=manifest.verdict,
        behind=manifest.behind,
        halved=True,
    )
    return difference


def _halved(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.half().float() if tensor.dtype == torch.float32 else tensor


def _difference(bundle: Bundle, halved: nn.Module) -> ImageDifference | VectorDifference:
    network = bundle.network
    rng = np.random.default_rng(0)
    if isinstance(network, BeatAutoencoder):
        beats = torch.from_numpy(rng.standard_normal((64, 1, network.samples), np.float32))
        with torch.inference_mode():
            results = [each(beats).squeeze(1).numpy() for each in (network, halved)]
        return compare(*results)
    if isinstance(network, RhythmNetwork):
        features = [torch.from_numpy(rng.standard_normal((64, n), np.float32)) for n in network.features]
        with torch.inference_mode():
            logits = [torch.cat(each(*features), dim=1).numpy() for each in (network, halved)]
        return compare(*logits)
    preprocessing = bundle.manifest.preprocessing
    height, width = preprocessing.size if preprocessing.fixed else (_SIDE, _SIDE)
    images = np.stack([draw_scene(height, width, (key,)) for key in range(_CHECKED)])
    noisy = (images + rng.normal(0, 10, images.shape)).clip(0, 255).round()
    channels = preprocessing.input.channels
    low, high = preprocessing.input.range
    pixels = torch.from_numpy(noisy.astype(np.float32)).permute(0, 3, 1, 2)
    pixels = pixels.mean(dim=1, keepdim=True).expand(-1, channels, -1, -1) if channels != 3 else pixels
    pixels = pixels / 255 * (high - low) + low
    with torch.inference_mode():
        results = [_levels(each(pixels), preprocessing.output.range) for each in (network, halved)]
    return compare(*results)


def _levels(result: torch.Tensor, span: tuple[float, float]) -> np.ndarray[Any, np.dtype[np.uint16]]:
    """Return images of values in `span` as levels of 16 bits, so that differences below a level show."""
    scaled = (result - span[0]) / (span[1] - span[0])
    levels = scaled.clamp(0.0, 1.0).mul(65535.0).round().permute(0, 2, 3, 1).numpy()
    return levels.astype(np.uint16)
