from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from genray.bundle import load_bundle
from genray.errors import DataError, SettingsError, TrainingError
from genray.settings.load import load
from jobs.recipes.restoring import DamagedImages
from jobs.train_denoiser import TrainDenoiser, TrainDenoiserSettings
from tests.conftest import write_images

Submit = Callable[..., dict[str, Any]]
SMALL = {
    "conv": ["model.filters=[4,4]"],
    "unet": ["model.widths=[4,8]", "model.blocks=1", "model.middle=1"],
    "nafnet": ["model.widths=[4,8]", "model.blocks=1", "model.middle=1"],
}
QUICK = ("data.patch=16", "data.patches=2", "loop.epochs=1", "loop.batch_size=4")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Images of two sizes, both odd."""
    write_images(tmp_path / "photos" / "train" / "a", 5, size=(33, 41))
    write_images(tmp_path / "photos" / "train" / "b", 5, size=(27, 30))
    write_images(tmp_path / "photos" / "test", 3, size=(35, 21))
    return tmp_path / "photos"


def settings(*sets: str) -> TrainDenoiserSettings:
    return load(TrainDenoiserSettings, target="train-denoiser", sets=sets)


@pytest.mark.parametrize("kind", SMALL)
@pytest.mark.parametrize("gray", [True, False])
def test_every_kind_trains_and_its_bundle_restores_any_size(
    submit: Submit, tmp_path: Path, kind: str, gray: bool
) -> None:
    write_images(tmp_path / "some", 6, size=(33, 41), gray=gray)
    outcome = submit(
        "train-denoiser", "a", f"data.path={tmp_path / 'some'}", f"model.kind={kind}", *SMALL[kind], *QUICK
    )
    bundle = load_bundle(outcome["bundle"])
    channels = 1 if gray else 3
    assert bundle.network(torch.rand(1, channels, 7, 50)).shape == (1, channels, 7, 50)
    assert bundle.manifest.network == f"restorer-{kind}"
    assert not bundle.manifest.preprocessing.fixed
    assert bundle.manifest.calibration["noise"]["refine"] in (0, 0.5, 1)
    assert {"psnr", "psnr_before", "ssim", "parameters", "macs_per_pixel", "seconds_per_megapixel"} <= set(
        outcome["metrics"]
    )
    assert np.asarray(Image.open(Path(outcome["run"]) / "samples" / "restorations.png")).std() > 5


def test_held_out_images_of_mixed_sizes_and_channels_are_judged_and_drawn(
    submit: Submit, tmp_path: Path
) -> None:
    write_images(tmp_path / "mixed" / "train", 4, size=(33, 41))
    for number, (height, width) in enumerate([(60, 52), (24, 25), (35, 90), (44, 30)]):
        folder = tmp_path / "mixed" / "test" / str(number)
        write_images(folder, 1, size=(height, width), gray=number % 2 == 1)
    outcome = submit(
        "train-denoiser", "a", f"data.path={tmp_path / 'mixed'}", "model.kind=unet", *SMALL["unet"], *QUICK
    )
    for name in ("validation", "restorations"):
        picture = np.asarray(Image.open(Path(outcome["run"]) / "samples" / f"{name}.png"))
        assert picture.std() > 5


def test_training_takes_noise_away(submit: Submit, photos: Path) -> None:
    more = ("model.kind=unet", *SMALL["unet"], "noise.sigma=40", "data.patch=16", "data.patches=30")
    outcome = submit(
        "train-denoiser", "a", f"data.path={photos}", *more, "loop.epochs=10", "optimizer.learning_rate=0.005"
    )
    metrics = outcome["metrics"]
    assert metrics["psnr"] > metrics["psnr_before"] + 4
    assert metrics["psnr_before"] == pytest.approx(metrics["baselines"]["noisy"]["psnr"], abs=1e-3)
    assert outcome["quality"] == load_bundle(outcome["bundle"]).manifest.quality == "better-than-trivial"


def test_a_model_that_harms_says_so_and_ends_with_an_error_if_that_is_asked_for(
    submit: Submit, photos: Path
) -> None:
    # Almost no noise, and a network whose last layer is drawn: it can only do harm in so few steps.
    more = (f"data.path={photos}", "model.kind=conv", *SMALL["conv"], *QUICK, "noise.sigma=0.01")
    more += ("optimizer.learning_rate=0.5",)
    outcome = submit("train-denoiser", "a", *more)
    manifest = load_bundle(outcome["bundle"]).manifest
    assert outcome["quality"] == manifest.quality == "worse-than-trivial"
    assert outcome["verdict"].startswith("worse than leaving the images unchanged: psnr ")
    assert outcome["verdict"] == manifest.verdict
    with pytest.raises(TrainingError, match="worse than leaving the images unchanged"):
        submit("train-denoiser", "a", *more, "eval.require_better=true")


def test_it_learns_four_images_by_heart(submit: Submit, tmp_path: Path) -> None:
    write_images(tmp_path / "four" / "train", 4, size=(16, 16))
    more = (
        "model.kind=unet",
        "model.widths=[16,32]",
        "noise.sigma=100",
        "data.patches=50",
        "data.flips=none",
        "data.allow_shared=true",
    )
    more += (f"data.path={tmp_path / 'four'}", f"data.test={tmp_path / 'four' / 'train'}", "data.patch=16")
    outcome = submit("train-denoiser", "a", *more, "loop.epochs=16", "loop.batch_size=4", "loop.weights=last")
    assert outcome["metrics"]["psnr"] > outcome["metrics"]["psnr_before"] + 8


def test_judging_can_use_other_noise_than_training(submit: Submit, photos: Path) -> None:
    more = ("model.kind=conv", *SMALL["conv"], "noise.sigma=[0,50]", "eval.noise.sigma=5")
    metrics = submit("train-denoiser", "a", f"data.path={photos}", *QUICK, *more)["metrics"]
    assert metrics["psnr_before"] == pytest.approx(20 * np.log10(255 / 5), abs=0.7)


def test_the_noise_of_validation_is_the_same_in_every_epoch(photos: Path) -> None:
    recipe = TrainDenoiser(settings(f"data.path={photos}", "data.patch=16"))
    recipe.open(lambda text: None)
    batch = [torch.rand(1, 1, 20, 20)]
    first, again = (recipe.judged_images("test", [1], batch).damaged for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, recipe.judged_images("test", [2], batch).damaged)
    assert not torch.equal(recipe.training_images(batch).damaged, recipe.training_images(batch).damaged)


def test_an_image_that_holds_no_patch_is_set_aside(submit: Submit, photos: Path) -> None:
    with pytest.raises(DataError, match=r"4 of 13 samples are broken") as caught:
        submit("train-denoiser", "a", f"data.path={photos}", "data.patch=32", "loop.epochs=1")
    assert "30x27 is smaller than 32 pixels" in str(caught.value)


def test_bm3d_is_scored_on_the_same_noise(submit: Submit, photos: Path) -> None:
    more = ("model.kind=conv", *SMALL["conv"], "noise.sigma=40", "eval.baselines=[bm3d]")
    metrics = submit("train-denoiser", "a", f"data.path={photos}", *QUICK, *more)["metrics"]
    noisy, bm3d = metrics["baselines"]["noisy"], metrics["baselines"]["bm3d"]
    assert bm3d["psnr"] > noisy["psnr"] + 4
    assert metrics["psnr_before"] == pytest.approx(noisy["psnr"], abs=1e-3)


def test_bm3d_needs_noise_of_one_known_strength() -> None:
    with pytest.raises(SettingsError, match="bm3d needs the strength of the noise"):
        settings("eval.baselines=[bm3d]", "noise.sigma=[0,50]")
    with pytest.raises(SettingsError, match="white"):
        settings("eval.baselines=[bm3d]", "noise.sigma=25", "noise.correlation=1")


def test_large_held_out_images_are_kept_as_their_middle_alone(tmp_path: Path) -> None:
    write_images(tmp_path / "large", 4, size=(400, 300))
    recipe = TrainDenoiser(settings(f"data.path={tmp_path / 'large'}", "data.patch=16", "data.judged=32"))
    recipe.open(lambda text: None)
    (image,) = recipe.held_out["val"].samples[0]
    assert image.shape == (32, 32, 1)
    assert image.base is None or image.base.nbytes == image.nbytes, "the rest is not kept"


def test_images_that_are_mostly_smaller_than_the_patch_are_told_what_would_fit(tmp_path: Path) -> None:
    write_images(tmp_path / "digits", 8, size=(28, 28))
    with pytest.raises(DataError, match="images of 28 pixels are too small for patches of 64") as caught:
        TrainDenoiser(settings(f"data.path={tmp_path / 'digits'}")).open(lambda text: None)
    assert (caught.value.where, caught.value.hint) == ("data.patch", "set data.patch=28")


def test_a_loss_that_the_network_cannot_have_is_refused() -> None:
    with pytest.raises(SettingsError, match="bce needs values between 0 and 1"):
        settings("loss.kind=bce")
    assert settings("loss.kind=bce", "model.kind=conv").loss.kind == "bce"
    assert settings("loss.ssim_share=0.5").loss.kind == "mae", "one setting of a group leaves the others"


def test_drawn_images_train_a_denoiser_of_camera_noise_without_a_folder(submit: Submit) -> None:
    outcome = submit(
        "train-denoiser",
        "drawn",
        "data.path=missing",
        "data.drawn=1",
        "data.drawn_images=10",
        "data.drawn_size=32",
        "noise.kind=camera",
        *SMALL["unet"],
        *QUICK,
    )
    manifest = load_bundle(outcome["bundle"]).manifest
    assert manifest.preprocessing.input.channels == 3
    assert "drawn" in manifest.data["split"]


def test_a_share_of_drawn_images_is_mixed_with_those_of_a_folder(submit: Submit, photos: Path) -> None:
    outcome = submit(
        "train-denoiser", "mixed", f"data.path={photos}", "data.drawn=0.5", *SMALL["unet"], *QUICK
    )
    assert "50% of the training images are drawn" in load_bundle(outcome["bundle"]).manifest.data["split"]


def test_with_balance_an_image_counts_less_the_stronger_its_noise_is() -> None:
    clean = torch.full((3, 3, 8, 8), 0.5)
    damaged = clean + torch.tensor([0.0, 2.0, 38.0])[:, None, None, None] / 255
    images = DamagedImages(damaged, clean)
    restored = clean + 0.1
    plain = TrainDenoiser(settings("data.path=x")).losses(images, restored)
    balanced = TrainDenoiser(settings("data.path=x", "balance=2")).losses(images, restored)
    torch.testing.assert_close(balanced / plain, torch.tensor([1.0, 0.5, 0.05]))


def test_drawn_images_beside_images_of_other_channels_are_refused(submit: Submit, photos: Path) -> None:
    with pytest.raises(SettingsError, match="gray or RGB, and the images have 4 channels"):
        submit("train-denoiser", "a", f"data.path={photos}", "data.channels=4", "data.drawn=0.5", *QUICK)
