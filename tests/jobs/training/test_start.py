from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from genray.bundle import load_bundle
from genray.errors import Interrupted, SettingsError
from genray.progress import LineDisplay, Tick
from jobs.runs.run import Run
from jobs.training.start import WeightsFit
from tests.conftest import write_images

Submit = Callable[..., dict[str, Any]]
Train = Callable[..., dict[str, Any]]
CONV = ("model.kind=conv", "model.filters=[4,4]", "data.patch=16", "data.patches=2", "loop.epochs=1")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    write_images(tmp_path / "photos", 8, size=(33, 41))
    return tmp_path / "photos"


def state_of(outcome: dict[str, Any]) -> dict[str, torch.Tensor]:
    return load_bundle(outcome["bundle"]).network.state_dict()


def test_what_fits_by_name_and_shape_is_taken_and_the_rest_is_listed() -> None:
    network = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4))
    weights = dict(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 5), nn.Linear(5, 1)).state_dict())
    fit = WeightsFit.of(network, weights)
    assert fit.taken == ["0.weight", "0.bias"]
    assert fit.text == (
        "2 of 4 tensors taken; random: 1.weight ([4, 3], in the bundle [5, 3]), 1.bias ([4], in the bundle "
        "[5]); not used: 2.weight, 2.bias"
    )


def test_a_training_starts_from_a_bundle(submit: Submit, photos: Path) -> None:
    first = submit("train-denoiser", "first", f"data.path={photos}", *CONV)
    start = (f"init.bundle={first['bundle']}", "optimizer.learning_rate=1e-9")
    second = submit("train-denoiser", "second", f"data.path={photos}", *CONV, *start)
    for name, tensor in state_of(first).items():
        assert torch.allclose(state_of(second)[name], tensor, atol=1e-5), name
    recorded = load_bundle(second["bundle"]).manifest.data["started_from"]
    assert recorded["weights_sha256"] == load_bundle(first["bundle"]).manifest.weights_sha256
    assert recorded["tensors_taken"] == recorded["tensors"]


def test_frozen_modules_keep_the_weights_of_the_bundle_and_the_rest_learns(
    submit: Submit, photos: Path
) -> None:
    first = submit("train-denoiser", "first", f"data.path={photos}", *CONV)
    module = next(name for name, _ in load_bundle(first["bundle"]).network.named_children())
    more = (f"init.bundle={first['bundle']}", f"init.freeze=[{module}.0]", "optimizer.learning_rate=0.01")
    second = submit("train-denoiser", "second", f"data.path={photos}", *CONV, *more)
    before, after = state_of(first), state_of(second)
    frozen = {name for name in before if name.startswith(f"{module}.0.")}
    assert frozen
    assert all(torch.equal(before[name], after[name]) for name in frozen)
    assert any(not torch.equal(before[name], after[name]) for name in before.keys() - frozen)


def test_a_run_resumes_when_the_bundle_that_it_started_from_is_gone(train: Train, tmp_path: Path) -> None:
    class Stop(LineDisplay):
        def tick(self, tick: Tick) -> None:
            Run(tmp_path / "runs" / "second").request_stop()

    first = train("first", "loop.epochs=1")
    more = (f"init.bundle={first['bundle']}", "loop.epochs=1")
    with pytest.raises(Interrupted):
        train("second", *more, display=Stop())
    Path(first["bundle"]).rename(tmp_path / "moved")
    second = train("second", *more)
    assert load_bundle(second["bundle"]).manifest.data["started_from"]["kind"] == "pix2pix"


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (("init.freeze=[encoder]",), "freeze needs bundle"),
        (("init.bundle={bundle}", "init.freeze=[encodre]"), "no module 'encodre'"),
        (("init.bundle={bundle}", "init.freeze=[{every}]"), "nothing would be trained"),
    ],
)
def test_what_cannot_be_frozen_is_found_before_the_training(
    submit: Submit, photos: Path, sets: tuple[str, ...], message: str
) -> None:
    first = submit("train-denoiser", "first", f"data.path={photos}", *CONV)
    every = ",".join(dict(load_bundle(first["bundle"]).network.named_children()))
    values = [value.format(bundle=first["bundle"], every=every) for value in sets]
    with pytest.raises(SettingsError, match=message):
        submit("train-denoiser", "second", f"data.path={photos}", *CONV, *values)


def test_a_bundle_of_which_nothing_fits_is_refused_with_the_shapes(submit: Submit, photos: Path) -> None:
    first = submit("train-denoiser", "first", f"data.path={photos}", *CONV)
    other = ("model.kind=unet", "model.widths=[4,8]", "model.blocks=1", "model.middle=1")
    with pytest.raises(SettingsError, match="no weight of the bundle"):
        submit(
            "train-denoiser",
            "second",
            f"data.path={photos}",
            *CONV[2:],
            *other,
            f"init.bundle={first['bundle']}",
        )
