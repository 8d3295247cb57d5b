import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from genray.bundle import load_bundle, summarise
from genray.errors import DataError, GenrayError, Interrupted, SettingsError
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
    "dcgan": ("model.filters=4",),
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


@pytest.mark.parametrize("kind", SMALL)
def test_every_kind_trains_and_its_bundle_draws_what_the_run_showed(
    submit: Submit, images: Path, kind: str
) -> None:
    more = ("model.conditional=true", "model.spectral_norm=true", "augment.noise=0.1")
    outcome = submit("train-gan", kind, *small(images, kind, *more, "augment.policy=[colour,cutout]"))
    wanted = {"modes", "coverage", "density", "kl", "duplicates", "frechet", "frechet_floor"}
    assert wanted <= outcome["metrics"].keys()
    assert outcome["metrics"]["baselines"].keys() == {"gaussian"}
    bundle = load_bundle(outcome["bundle"])
    manifest = bundle.manifest
    assert (manifest.kind, manifest.network) == ("gan", f"gan-{kind}")
    assert manifest.preprocessing.size == (16, 18)
    gan = bundle.network
    assert isinstance(gan, Gan)
    assert (gan.shape, gan.classes, gan.latent) == ((1, 16, 18), 2, 4)
    with torch.inference_mode():
        codes = torch.randn(32, 4, generator=torch.Generator().manual_seed(0))[:2]
        drawn = gan.draw(codes, torch.tensor([0, 1]))
    shown = np.asarray(Image.open(Path(outcome["run"]) / "samples" / "validation.png").convert("L"))
    tile = (drawn[0, 0] * 255).round().numpy().repeat(4, axis=0).repeat(4, axis=1)
    places = np.lib.stride_tricks.sliding_window_view(shown[:80, :80], tile.shape)
    assert np.abs(places.astype(float) - tile).mean(axis=(2, 3)).min() < 1.5
    layers = {layer.name.split(".")[0] for layer in summarise(Path(outcome["bundle"])).layers}
    assert {"generator", "discriminator"} <= layers


def test_the_film_the_grids_and_the_measures_inside_epochs_are_kept(submit: Submit, images: Path) -> None:
    outcome = submit("train-gan", "a", *small(images, "mlp", "loop.epochs=2", "loop.validate_steps=2"))
    folder = Path(outcome["run"]) / "samples"
    grids = sorted(file.name for file in folder.glob("epoch_*.png"))
    steps = ["0000_step_00000002", "0001", "0001_step_00000006", "0002"]
    assert grids == sorted(f"epoch_{name}.png" for name in [*steps, "0001_step_00000008"][: len(grids)])
    with Image.open(folder / "film.webp") as film:
        assert getattr(film, "n_frames", 1) == len(grids)
    assert "data:image/webp;base64," in (Path(outcome["run"]) / "report.html").read_text()
    rows = history(outcome)
    assert [row["step"] for row in rows[0]["validations"]] == [2]
    for row in (*rows, *rows[0]["validations"]):
        assert row["quality"]["modes_total"] == 2
        assert row["val_coverage"] == row["quality"]["coverage"]


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
    ("kind", "more"),
    [
        ("residual", ("augment.policy=[translation]", "augment.noise=0.2", "loss.penalty_every=2")),
        ("dcgan", ("loss.kind=wgan-gp", "loss.critic_steps=2", "model.conditional=true")),
        ("mlp", ("loss.kind=bce", "model.spectral_norm=true", "loop.ema=0")),
    ],
)
def test_a_training_stopped_inside_an_epoch_ends_like_an_undisturbed_one(
    images: Path, tmp_path: Path, kind: str, more: tuple[str, ...]
) -> None:
    from dataclasses import replace

    sure = (
        f"runs={tmp_path}",
        "device.gpu=false",
        "device.threads=1",
        "loop.epochs=2",
        "loop.validate_steps=3",
    )
    chosen = load(TrainGanSettings, target="train-gan", sets=small(images, kind, *more, *sure))

    def train(name: str, stop_at: int = 0) -> Any:
        prepared = TARGET.prepare(chosen, "train-gan", name, lambda text: None)
        prepared = replace(prepared, tick_seconds=0.0)
        display: Any = StopAt(stop_at, prepared.training_run.request_stop)
        return prepared.run(display, Resources(2, 0), attached=False)

    whole = train("whole")
    for step in (2, 6):
        with pytest.raises(Interrupted):
            train("parts", step)
    parts = train("parts")
    files = [tmp_path / name / "checkpoints" / "last.safetensors" for name in ("whole", "parts")]
    assert same(*map(load_file, files))  # type: ignore[arg-type]
    assert parts.metrics.values == whole.metrics.values
    first, second = (history(outcome.as_json()) for outcome in (whole, parts))
    for row in (*first, *second):
        row.pop("seconds"), row.pop("images_per_second")
    assert first == second


def test_a_generator_that_draws_one_image_is_told_and_can_end_the_training(
    submit: Submit, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Weights as they were drawn: such a generator draws one gray image, whatever its code.
    sets = small(images, "dcgan", "optimizer.learning_rate=1e-12", "loop.validate_steps=1", "loop.epochs=4")
    outcome = submit("train-gan", "a", *sets)
    words = "of the samples have a near-identical other one"
    assert any(words in warning for warning in outcome["warnings"])
    rows = history(outcome)
    assert words in rows[-1]["concern"]
    assert "concern" not in rows[0]["validations"][0], "the first measures are of noise"
    assert words in capsys.readouterr().err
    assert words in (Path(outcome["run"]) / "report.html").read_text()
    events = b"".join(file.read_bytes() for file in (Path(outcome["run"]) / "tensorboard").iterdir())
    assert words.encode() in events
    ended = submit("train-gan", "b", *sets, "loop.stop_on_collapse=true")
    assert len(history(ended)) == 2


def test_stacked_images_are_drawn_in_three_channels(submit: Submit, images: Path) -> None:
    outcome = submit("train-gan", "a", *small(images, "mlp", "data.stack=3"))
    manifest = load_bundle(outcome["bundle"]).manifest
    assert manifest.preprocessing.output.channels == 3
    assert history(outcome)[0]["quality"]["modes_total"] == 8, "two classes in each of three channels"
    assert "3 images of a part stacked" in manifest.data["split"]


def test_drawn_images_and_sets_without_classes_are_learned_from(submit: Submit, tmp_path: Path) -> None:
    more = ("data.drawn=1", "data.size=16", "data.drawn_images=60")
    outcome = submit("train-gan", "a", *small(tmp_path, "mlp", *more))
    assert outcome["metrics"]["coverage"] >= 0


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
        from contextlib import nullcontext

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
