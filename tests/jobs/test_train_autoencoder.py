import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from genray.bundle import load_bundle
from genray.errors import DataError, SettingsError
from genray.images.tensors import to_network
from genray.settings.load import load
from jobs.train_autoencoder import TrainAutoencoder, TrainAutoencoderSettings
from tests.conftest import write_images

Submit = Callable[..., dict[str, Any]]
SMALL = {
    "dense": "model.hidden=[16]",
    "conv": "model.filters=[4,4]",
    "improved": "model.filters=[4,4]",
    "vae": "model.filters=[4,4]",
    "numpy": "model.hidden=[16]",
}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two classes of gray images, 21 x 24 pixels, split."""
    for split, count in (("train", 12), ("test", 5)):
        for name in ("left", "right"):
            write_images(tmp_path / "images" / split / name, count, size=(21, 24))
    return tmp_path / "images"


def small(images: Path, kind: str, *more: str) -> list[str]:
    quick = ["loop.epochs=1", "loop.batch_size=8", "model.latent=4", "eval.projection=none"]
    return [f"data.path={images}", f"model.kind={kind}", SMALL[kind], *quick, *more]


@pytest.mark.parametrize("kind", SMALL)
def test_every_kind_trains_and_its_bundle_gives_the_same(
    submit: Submit, images: Path, tmp_path: Path, kind: str
) -> None:
    outcome = submit("train-autoencoder", "a", *small(images, kind))
    bundle = load_bundle(outcome["bundle"])
    files = sorted((images / "test").rglob("*.png"))
    pixels = np.stack([np.asarray(Image.open(file))[..., None] for file in files])
    with torch.inference_mode():
        batch = to_network(pixels, span=bundle.manifest.preprocessing.input.range)
        reconstructions = bundle.network(batch)
    assert reconstructions.shape == (10, 1, 21, 24)
    # Both in float32, of one forward pass of a few layers: right to some 1e-6.
    mse = float((reconstructions - batch).square().mean())
    assert mse == pytest.approx(outcome["metrics"]["mse"], rel=1e-4)
    manifest = bundle.manifest
    assert (manifest.kind, manifest.network) == ("autoencoder", f"autoencoder-{kind}")
    assert manifest.preprocessing.size == (21, 24)
    assert manifest.data["split"].startswith("0.1 of each class held out by seed 0")
    assert {"train": 22, "val": 2, "test": 10}.items() <= manifest.data.items()


def test_the_pictures_of_the_report_are_drawn(submit: Submit, images: Path) -> None:
    outcome = submit("train-autoencoder", "a", *small(images, "vae", "eval.projection=tsne"))
    folder = Path(outcome["run"]) / "samples"
    files = [picture["file"] for picture in json.loads((folder / "pictures.json").read_text())]
    wanted = "validation reconstructions errors samples interpolations latent classes"
    assert files == [f"{name}.png" for name in wanted.split()]
    for file in files:
        assert np.asarray(Image.open(folder / file)).std() > 5, file
    report = (Path(outcome["run"]) / "report.html").read_text()
    assert report.count("data:image/png;base64,") >= len(files)


def test_it_learns_four_images_by_heart(submit: Submit, tmp_path: Path) -> None:
    write_images(tmp_path / "four" / "train", 4)
    write_images(tmp_path / "four" / "val", 4)
    more = (f"data.path={tmp_path / 'four'}", "model.latent=8", "loop.epochs=150", "loop.batch_size=4")
    more += ("loop.validate_every=150", "loop.checkpoint_every=150")
    outcome = submit("train-autoencoder", "a", *more, "eval.baselines=[mean]")
    train = submit(
        "train-autoencoder",
        "b",
        *more,
        f"data.test={tmp_path}/four/train",
        "data.allow_shared=true",
    )
    assert train["metrics"]["mse"] < 1e-3
    assert outcome["metrics"]["baselines"]["mean"]["mse"] > 5e-3


@pytest.mark.usefixtures("in_double")
def test_the_networks_in_numpy_and_torch_learn_the_same(submit: Submit, images: Path) -> None:
    more = ("model.activation=relu", "loop.epochs=3", "loop.weights=last")
    results = [submit("train-autoencoder", kind, *small(images, kind, *more)) for kind in ("dense", "numpy")]
    first, second = (result["metrics"] for result in results)
    assert first["mse"] == pytest.approx(second["mse"], rel=1e-10), "to rounding, as Adam passes it on"


@pytest.mark.parametrize("loss", ["mae", "bce", "ssim"])
def test_any_loss_and_optimizer_train(submit: Submit, images: Path, loss: str) -> None:
    more = ("optimizer.kind=adamw", "optimizer.weight_decay=0.01", f"loss.kind={loss}", "loop.patience=1")
    assert submit("train-autoencoder", "a", *small(images, "conv", *more))["metrics"]["mse"] < 0.5


def test_a_streamed_run_learns_what_one_in_memory_does(
    submit: Submit, images: Path, embedded_ray: None
) -> None:
    results = [
        submit("train-autoencoder", loader, *small(images, "dense", f"data.loader={loader}"))
        for loader in ("memory", "stream")
    ]
    assert results[0]["metrics"] == results[1]["metrics"]


def test_colour_images_of_any_size_are_brought_to_one(submit: Submit, tmp_path: Path) -> None:
    write_images(tmp_path / "mixed" / "a", 6, size=(30, 40), gray=False)
    write_images(tmp_path / "mixed" / "b", 6, size=(26, 18), gray=False)
    path = f"data.path={tmp_path / 'mixed'}"
    with pytest.raises(DataError, match=r"several sizes \(18x26, 40x30, \.\.\.\)") as caught:
        submit("train-autoencoder", "a", path)
    assert caught.value.where == "data.size"
    outcome = submit("train-autoencoder", "b", path, "data.size=16", "loop.epochs=1", "loop.batch_size=4")
    preprocessing = load_bundle(outcome["bundle"]).manifest.preprocessing
    assert (preprocessing.size, preprocessing.fit, preprocessing.input.channels) == ((16, 16), "crop", 3)


def test_what_an_architecture_does_not_have_is_refused_by_name() -> None:
    with pytest.raises(
        SettingsError, match=r"model\.filters: belongs to model\.kind=conv or .*, not to dense"
    ):
        load(TrainAutoencoderSettings, target="train-autoencoder", sets=["model.filters=[8]"])
    with pytest.raises(SettingsError, match=r"model\.kind: should be dense, conv, .*, not 'cnv'"):
        load(TrainAutoencoderSettings, target="train-autoencoder", sets=["model.kind=cnv"])


def test_the_weight_of_the_divergence_warms_up(images: Path) -> None:
    sets = small(images, "vae", "model.kl_warmup=0.5", "model.beta=1000")
    recipe = TrainAutoencoder(load(TrainAutoencoderSettings, target="train-autoencoder", sets=sets))
    recipe.open(lambda text: None)
    networks = recipe.networks()
    batch = [torch.rand(2, 1, 21, 24)]

    class Progress:
        """Updates nothing at some share of a training."""

        def __init__(self, progress: float) -> None:
            self.progress = progress

        def update(self, network: str, loss: torch.Tensor) -> None:
            pass

    begin, middle, end = (
        recipe.step(networks, batch, Progress(progress))  # type: ignore[arg-type]
        for progress in (0.0, 0.5, 1.0)
    )
    assert float(begin["loss"]) == pytest.approx(float(begin["reconstruction"]))
    assert float(middle["loss"]) > float(middle["reconstruction"])
    assert float(end["loss"] - end["reconstruction"]) == pytest.approx(
        float(end["kl"]) * 1000 / (21 * 24), rel=1e-3
    )


@pytest.mark.parametrize("kind", SMALL)
def test_a_run_of_any_kind_goes_on_and_is_known_when_finished(
    submit: Submit, images: Path, kind: str
) -> None:
    sets = small(images, kind, "loop.weights=last", "eval.baselines=[]")
    whole = submit("train-autoencoder", "whole", *sets, "loop.epochs=2", "loop.decay=constant")
    submit("train-autoencoder", "parts", *sets, "loop.decay=constant")
    parts = submit("train-autoencoder", "parts", *sets, "loop.epochs=2", "loop.decay=constant")
    assert parts["metrics"] == whole["metrics"]
    again = submit("train-autoencoder", "parts", *sets, "loop.epochs=2", "loop.decay=constant")
    assert again["seconds"] == parts["seconds"], "it was not trained again"


def test_a_finished_run_can_be_judged_anew(submit: Submit, images: Path) -> None:
    first = submit("train-autoencoder", "a", *small(images, "conv", "eval.baselines=[]"))
    second = submit("train-autoencoder", "a", *small(images, "conv", "eval.baselines=[mean,pca]"))
    assert set(first["metrics"]["baselines"]) == {"mean", "constant"}, "trivial ones are always computed"
    assert set(second["metrics"]["baselines"]) == {"mean", "constant", "pca"}
    assert second["metrics"]["mse"] == first["metrics"]["mse"]


def test_a_vaes_best_weights_are_those_of_the_whole_objective(submit: Submit, images: Path) -> None:
    outcome = submit("train-autoencoder", "a", *small(images, "vae", "loop.epochs=3", "model.beta=50"))
    rows = [json.loads(line) for line in (Path(outcome["run"]) / "history.jsonl").read_text().splitlines()]
    best = min(rows, key=lambda row: row["val_objective"])
    assert outcome["metrics"]["epoch"] == best["epoch"]
    assert best["val_objective"] > best["val_mse"]


def test_a_test_part_that_is_all_broken_is_no_test_part(submit: Submit, images: Path) -> None:
    for file in (images / "test").rglob("*.png"):
        file.write_bytes(b"broken")
    with pytest.raises(DataError, match="every test image is broken"):
        submit("train-autoencoder", "a", *small(images, "dense", "data.max_bad_share=1"))


def test_what_is_not_read_is_named_and_more_of_it_stops_no_run(submit: Submit, images: Path) -> None:
    for name in ("a.psd", "train/b.psd", "c.txt"):
        (images / name).write_bytes(b"something")
    outcome = submit("train-autoencoder", "a", *small(images, "dense"))
    said = "2 .psd are not read (Photoshop), nor 1 .txt"
    assert outcome["not_read"] == said
    assert load_bundle(outcome["bundle"]).manifest.data["not_read"] == said
    assert said in (Path(outcome["run"]) / "report.html").read_text()
    (images / "d.txt").write_bytes(b"something")
    assert submit("train-autoencoder", "a", *small(images, "dense", "loop.epochs=2"))["epochs"] == 2
    settings = load(TrainAutoencoderSettings, target="train-autoencoder", sets=[f"data.path={images}"])
    assert (
        TrainAutoencoder(settings)
        .open(lambda text: None)
        .lines[0]
        .endswith("; 2 .psd are not read (Photoshop), nor 2 .txt")
    )


def test_a_network_that_steps_too_large_have_broken_is_told_of(submit: Submit, images: Path) -> None:
    more = ("optimizer.learning_rate=5", "loop.epochs=3", "loop.loss_limit=1e9")
    outcome = submit("train-autoencoder", "a", *small(images, "conv", *more))
    assert any("do not learn" in warning for warning in outcome["warnings"])
    assert "optimizer.learning_rate (now 5)" in outcome["warnings"][0]


def test_the_depth_follows_from_the_image_size_and_is_in_the_bundle(submit: Submit, tmp_path: Path) -> None:
    write_images(tmp_path / "large", 12, size=(64, 40))
    quick = ("loop.epochs=1", "loop.batch_size=4", "model.latent=4", "eval.projection=none")
    outcome = submit("train-autoencoder", "a", f"data.path={tmp_path / 'large'}", "model.kind=conv", *quick)
    bundle = load_bundle(outcome["bundle"])
    assert bundle.manifest.arguments["settings"]["filters"] == [32, 64, 128]
    assert bundle.manifest.arguments["settings"]["linear_side"] == 64


def test_a_few_images_are_reconstructed_better_than_by_their_principal_components(
    submit: Submit, tmp_path: Path
) -> None:
    write_images(tmp_path / "few", 40, size=(32, 32), gray=False)
    sets = (f"data.path={tmp_path / 'few'}", "data.val_share=0.4", "model.kind=conv", "model.latent=20")
    quick = ("loop.epochs=2", "loop.batch_size=8", "eval.projection=none")
    outcome = submit("train-autoencoder", "few", *sets, *quick)
    assert outcome["metrics"]["mse"] < outcome["metrics"]["baselines"]["pca"]["mse"]
    assert outcome["behind"] == []


def test_the_components_of_the_bundle_that_a_training_starts_from_are_kept(
    submit: Submit, images: Path
) -> None:
    quick = ("eval.baselines=[]", "loop.weights=last")
    first = submit("train-autoencoder", "a", *small(images, "conv", *quick))
    others = images / "train" / "left"
    start = (f"init.bundle={first['bundle']}", f"data.path={others}")
    second = submit("train-autoencoder", "b", *small(images, "conv", *quick), *start)
    before, after = (load_bundle(run["bundle"]).network.state_dict() for run in (first, second))
    components = "encoder.linear.project.weight"
    assert torch.equal(before[components], after[components])
    assert not torch.equal(before["encoder.layers.0.weight"], after["encoder.layers.0.weight"])
