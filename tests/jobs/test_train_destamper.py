from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genray.bundle import load_bundle
from genray.images.damage.stamps import StampSettings
from genray.settings.load import load
from jobs.train_destamper import StampedPatch, TrainDestamperSettings
from tests.conftest import write_images

Submit = Callable[..., dict[str, Any]]
SMALL = ("model.widths=[8,16]", "model.blocks=1", "model.middle=1", "data.patch=32", "loop.batch_size=4")


def settings(*sets: str) -> TrainDestamperSettings:
    return load(TrainDestamperSettings, target="train-destamper", sets=sets)


def test_training_restores_what_lies_under_the_stamp_and_leaves_the_rest(
    submit: Submit, tmp_path: Path
) -> None:
    write_images(tmp_path / "photos", 16, size=(48, 64), gray=False)
    more = (
        f"data.path={tmp_path / 'photos'}",
        'stamps.texts=["September 11, 2023"]',
        "stamps.opacity=[1,1]",
        'stamps.colors=["#ff0000"]',
    )
    outcome = submit(
        "train-destamper",
        "a",
        *more,
        *SMALL,
        "data.patches=20",
        "loop.epochs=12",
        "optimizer.learning_rate=0.004",
    )
    metrics = outcome["metrics"]
    assert metrics["psnr_inside"] > metrics["psnr_inside_before"] + 5
    assert metrics["psnr_outside"] > 30
    assert metrics["baselines"]["stamped"]["psnr"] == pytest.approx(metrics["psnr_before"], abs=1e-3)
    assert outcome["quality"] == "better-than-trivial"
    assert load_bundle(outcome["bundle"]).manifest.kind == "destamper"


def test_a_preset_is_a_network_and_a_training_under_what_is_given() -> None:
    fast, quality = settings(), settings("preset=quality")
    assert quality.model.model_dump()["blocks"] > fast.model.model_dump()["blocks"]
    assert quality.loop.epochs > fast.loop.epochs
    assert fast.loop.patience is not None, "it stops early"
    assert settings("preset=quality", "loop.epochs=7").loop.epochs == 7
    assert settings("model.kind=nafnet").model == settings("model.kind=nafnet", "preset=quality").model


def test_settings_survive_being_written_and_read() -> None:
    for sets in ([], ["preset=quality"], ["preset=quality", "model.kind=conv", "loop.epochs=3"]):
        chosen = settings(*sets)
        assert TrainDestamperSettings.model_validate(chosen.model_dump(mode="json")) == chosen


def test_a_patch_shows_some_of_the_stamp() -> None:
    image = np.full((90, 70, 3), 128, np.uint8)
    variant = StampedPatch(32, "mirror", StampSettings(), clean_share=0.0)
    pairs = [variant(image, (0, 0, i)) for i in range(40)]
    assert all(stamped.shape == clean.shape == (32, 32, 3) for stamped, clean in pairs)
    assert all((clean == 128).all() for _, clean in pairs)
    assert all((stamped != clean).any() for stamped, clean in pairs)
    again = variant(image, (0, 0, 7))
    assert all(np.array_equal(a, b) for a, b in zip(pairs[7], again, strict=True))


@pytest.mark.parametrize("flips", ["none", "mirror", "all"])
def test_some_patches_are_left_clean(flips: Any) -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 1), np.uint8)
    variant = StampedPatch(32, flips, StampSettings(), clean_share=0.5)
    clean = sum(np.array_equal(*variant(image, (1, i))) for i in range(60))
    assert 15 < clean < 45
