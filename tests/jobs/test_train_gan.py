import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from genray.bundle import load_bundle, summarise
from genray.errors import DataError, GenrayError, Interrupted, SettingsError
from genray.images.tensors import to_pixels
from genray.models.gan.pair import Gan
from genray.progress import LineDisplay, Tick
from genray.settings.load import load
from genray.targets import Resources
from jobs.train_gan import TARGET, TrainGan, TrainGanSettings
from tests.conftest import write_images
from tests.jobs.conftest import same

Submit = Callable[..., dict[str, Any]]
SMALL = {
    "mlp": ("model.hidden=[16]", "model.judging=[16]"),
    "dcgan": ("model.filters=4", "model.hidden=8"),
    "residual": ("model.filters=16", "model.widest=16"),
}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of gray images, 16 x 18 pixels."""
    root = tmp_path_factory.mktemp("gan") / "images"
    for name in ("large", "s"):
        write_images(root / name, 20, size=(16, 18))
    return root


def small(images: Path, kind: str, *more: str) -> list[str]:
    quick = ["loop.epochs=1", "loop.batch_size=8", "model.latent=4", "measure.samples=32", "loop.samples=4"]
    return [f"data.path={images}", f"model.kind={kind}", *SMALL[kind], *quick, *more]


def history(outcome: dict[str, Any]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(outcome["run"]) / "history.jsonl").read_text().splitlines()]


def recipe_of(*sets: str) -> TrainGan:
    recipe = TrainGan(load(TrainGanSettings, target="train-gan", sets=list(sets)))
    recipe.open(lambda text: None)
    return recipe


@pytest.mark.parametrize(
    ("kind", "more", "channels", "classes", "modes"),
    [
        ("residual", ("model.conditional=true", "augment.policy=[colour,cutout]"), 1, 2, 2),
        ("dcgan", ("data.stack=3", "augment.noise=0.1"), 3, 0, 8),
        ("mlp", ("data.drawn=1", "data.size=16", "data.drawn_images=60"), 3, 0, 10),
    ],
    ids=["of two classes", "of stacked images", "of drawn images"],
)
def test_every_kind_trains_and_its_bundle_draws_what_the_run_showed(
    submit: Submit, images: Path, kind: str, more: tuple[str, ...], channels: int, classes: int, modes: int
) -> None:
    outcome = submit("train-gan", kind, *small(images, kind, *more))
    wanted = {"modes", "coverage", "density", "kl", "duplicates", "frechet", "frechet_floor"}
    assert wanted | ({"as_asked"} if classes else set()) <= outcome["metrics"].keys()
    assert outcome["metrics"]["baselines"].keys() == {"gaussian"}
    assert history(outcome)[0]["quality"]["modes_total"] == modes
    bundle = load_bundle(outcome["bundle"])
    assert (bundle.manifest.kind, bundle.manifest.network) == ("gan", f"gan-{kind}")
    gan = bundle.network
    assert isinstance(gan, Gan)
    assert (gan.shape[0], gan.classes, gan.latent) == (channels, classes, 4)
    assert bundle.manifest.preprocessing.size == tuple(gan.shape[1:])
    with torch.inference_mode():
        codes = torch.randn(32, 4, generator=torch.Generator().manual_seed(0))
        drawn = gan.draw(codes, torch.arange(32) % classes if classes else None)
    factor = 84 // max(gan.shape[1:])
    tile = to_pixels(drawn[:1], (0.0, 1.0))[0].repeat(factor, axis=0).repeat(factor, axis=1)
    shown = np.asarray(Image.open(Path(outcome["run"]) / "samples" / "validation.png"))
    rows, columns = (min(30, shown.shape[axis] - tile.shape[axis] + 1) for axis in (0, 1))
    found = [
        np.abs(shown[top:, left:][: tile.shape[0], : tile.shape[1]] - tile.astype(float)).mean()
        for top in range(rows)
        for left in range(columns)
    ]
    assert min(found) < 1
    layers = {layer.name.split(".")[0] for layer in summarise(Path(outcome["bundle"])).layers}
    assert {"generator", "discriminator"} <= layers


class StopAt:
    """Display that asks a run to stop after a step."""

    def __init__(self, step: int, stop: Callable[[], None]) -> None:
        self._step = step
        self._stop = stop
        self._lines = LineDisplay()

    def tick(self, tick: Tick) -> None:
        if tick.step == self._step:
            self._stop()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lines, name)


@pytest.mark.parametrize(
    ("kind", "stop_at", "more"),
    [
        ("mlp", 2, ("loss.kind=bce", "loss.smoothing=0.1", "loop.ema=0.9")),
        (
            "dcgan",
            6,  # inside the second epoch, where a validation is due
            (
                *("loop.epochs=2", "loop.validate_steps=2", "model.conditional=true", "augment.noise=0.2"),
                *("loss.kind=wgan-gp", "loss.critic_steps=2", "loss.penalty_every=2"),
                *("model.spectral_norm=true", "augment.policy=[translation]"),
            ),
        ),
        ("residual", 2, ("loss.penalty_every=2",)),
    ],
    ids=["mlp", "dcgan", "residual"],
)
def test_a_training_stopped_inside_an_epoch_ends_like_an_undisturbed_one(
    images: Path, tmp_path: Path, kind: str, stop_at: int, more: tuple[str, ...]
) -> None:
    sure = (f"runs={tmp_path}", "device.gpu=false", "device.threads=1")
    chosen = load(TrainGanSettings, target="train-gan", sets=small(images, kind, *more, *sure))

    def train(name: str, stop_at: int = 0) -> Any:
        prepared = TARGET.prepare(chosen, "train-gan", name, lambda text: None)
        prepared = replace(prepared, tick_seconds=0.0)
        display: Any = StopAt(stop_at, prepared.training_run.request_stop)
        return prepared.run(display, Resources(2, 0), attached=False)

    whole = train("whole")
    with pytest.raises(Interrupted):
        train("parts", stop_at)
    parts = train("parts")
    files = [tmp_path / name / "checkpoints" / "last.safetensors" for name in ("whole", "parts")]
    assert same(*map(load_file, files))  # type: ignore[arg-type]
    assert parts.metrics.values == whole.metrics.values
    first, second = (history(outcome.as_json()) for outcome in (whole, parts))
    for row in (*first, *second):
        row.pop("seconds"), row.pop("images_per_second")
    assert first == second


def test_a_generator_that_draws_one_image_is_told_everywhere_and_can_end_the_training(
    submit: Submit, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Weights as they were drawn: such a generator draws one gray image, whatever its code.
    sets = small(images, "dcgan", "optimizer.learning_rate=1e-12", "loop.validate_steps=1", "loop.epochs=3")
    outcome = submit("train-gan", "a", *sets, "loop.stop_on_collapse=true")
    words = "of the samples have a near-identical other one"
    assert any(words in warning for warning in outcome["warnings"])
    rows = history(outcome)
    assert words in rows[-1]["concern"]
    assert [row["step"] for row in rows[0]["validations"]] == [1, 2, 3]
    assert "concern" not in rows[0]["validations"][0], "the first measures are of noise"
    assert words in capsys.readouterr().err
    folder = Path(outcome["run"])
    report = (folder / "report.html").read_text()
    assert words in report
    assert "data:image/webp;base64," in report
    events = b"".join(file.read_bytes() for file in (folder / "tensorboard").iterdir())
    assert words.encode() in events
    grids = sorted(file.stem for file in (folder / "samples").glob("epoch_*.png"))
    assert grids[:5] == [*(f"epoch_0000_step_0000000{n}" for n in (1, 2, 3)), "epoch_0001", grids[4]]
    with (
        Image.open(folder / "samples" / "film.webp") as film,
        Image.open(folder / "samples/epoch_0001.png") as grid,
    ):
        assert film.size == grid.size
    assert len(rows) == 2, "it ended after the epoch in which it collapsed"


def test_the_bundle_has_the_weights_that_were_measured_best(submit: Submit, images: Path) -> None:
    # So large a learning rate spoils what the first steps learn.
    spoiling = ("optimizer.learning_rate=0.1", "loop.decay=constant", "loop.ema=0")
    sets = small(images, "mlp", *spoiling, "loop.epochs=3", "loop.validate_steps=1")
    outcome = submit("train-gan", "best", *sets)
    measured = [part for row in history(outcome) for part in (*row["validations"], row)]
    best = min(measured, key=lambda part: float(part["val_objective"]))
    assert best["val_objective"] < measured[-1]["val_objective"]
    recipe = recipe_of(*sets, f"runs={Path(outcome['run']).parent}")
    gan = load_bundle(outcome["bundle"]).network
    assert isinstance(gan, Gan)
    with torch.inference_mode():
        drawn = gan.draw(torch.randn(32, 4, generator=torch.Generator().manual_seed(0)))
    quality = recipe.measures().measure(drawn)
    for name in ("coverage", "frechet"):
        assert best[f"val_{name}"] == outcome["metrics"][name] == pytest.approx(getattr(quality, name), 1e-4)


class Updates:
    """Updates nothing, and remembers of which network it was asked to."""

    def __init__(self, step: int = 0) -> None:
        self.step = step
        self.progress = 0.0
        self.updated: list[str] = []

    def update(self, network: str, loss: torch.Tensor) -> None:
        assert loss.requires_grad
        self.updated.append(network)

    def frozen(self, network: str) -> Any:
        return nullcontext(self.networks[network])

    networks: dict[str, torch.nn.Module]


def test_the_discriminator_is_updated_as_often_and_punished_as_seldom_as_asked(images: Path) -> None:
    recipe = recipe_of(
        *small(images, "mlp", "loss.kind=wgan-gp", "loss.critic_steps=3", "loss.penalty_every=4")
    )
    networks = recipe.networks()
    batch = [torch.rand(8, 1, 16, 18) * 2 - 1]
    penalties = []
    for step in range(5):
        updates = Updates(step)
        updates.networks = networks
        losses = recipe.step(networks, batch, updates)  # type: ignore[arg-type]
        assert updates.updated == ["discriminator"] * 3 + ["generator"]
        penalties.append(float(losses["penalty"]))
    assert [penalty > 0 for penalty in penalties] == [True, False, False, False, True]


@pytest.mark.parametrize(
    ("sets", "where", "words"),
    [
        (["loss.smoothing=0.1"], "loss.smoothing", "belongs to loss.kind=bce"),
        (["model.kind=dgan"], "model.kind", "dcgan"),
        (["data.stack=2"], "data", "stack 3, or 1"),
        (["loss.critic_steps=5"], "", "at least 10"),
        (["device.compile=default"], "", "does not differentiate twice"),
        (["augment.policy=[color]"], "augment.policy", "colour"),
        (["data.size=12"], "data.size", "set data.size=64"),
        (["data.channels=2"], "data.channels", "set data.channels"),
    ],
)
def test_what_cannot_be_trained_is_refused_with_what_to_do(
    images: Path, sets: list[str], where: str, words: str
) -> None:
    with pytest.raises(GenrayError) as caught:
        recipe_of(*small(images, "residual", *sets))
    assert words in str(caught.value)
    assert where in str(caught.value)


def test_classes_are_needed_to_be_asked_for(tmp_path: Path) -> None:
    write_images(tmp_path / "plain", 20)
    with pytest.raises(SettingsError, match="the data has no classes"):
        recipe_of(*small(tmp_path / "plain", "mlp", "model.conditional=true"))
    with pytest.raises(DataError, match="too few to measure"):
        recipe_of(*small(tmp_path / "plain", "mlp", "data.val_share=0.5"))
