"""Images drawn from nothing: the same ones by any worker, in any run."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from genray.bundle import ImageSpec, Preprocessing, load_bundle, save_bundle
from genray.errors import RunError, SettingsError
from genray.models.generator import code_of
from genray.models.registry import NetworkSpec
from tests.pipelines.bulk_runs import outputs_of, submit
from tests.pipelines.conftest import Bulk, rows_of

UNIT = ImageSpec(channels=3, range=(0, 1))


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of a variational autoencoder with drawn weights."""
    spec = NetworkSpec(
        "autoencoder-vae", {"shape": [3, 24, 20], "settings": {"latent": 6, "filters": [4, 8]}}
    )
    torch.manual_seed(0)
    return save_bundle(
        tmp_path_factory.mktemp("bundles") / "vae",
        spec.build(),
        spec,
        kind="autoencoder",
        preprocessing=Preprocessing(input=UNIT, output=UNIT, size=(24, 20), fixed=True, fit="crop"),
        metrics={},
        calibration={},
        seed=0,
        data={},
    )


def images_of(out: Path) -> dict[str, bytes]:
    return outputs_of(out, "files")


def test_an_image_is_that_of_the_code_of_its_number(bulk: Bulk, vae: Path, tmp_path: Path) -> None:
    outcome = bulk("generate", f"bundle={vae}", "generate.count=5", "generate.seed=3")
    assert outcome["done"] == 5
    codes = np.stack([code_of(6, 3, index) for index in range(5)])
    with torch.inference_mode():
        expected = load_bundle(vae).network.draw(torch.from_numpy(codes), None)
    for index, image in enumerate(expected.permute(0, 2, 3, 1).numpy() * 255):
        written = np.asarray(Image.open(tmp_path / "out" / f"{index:08}.png"))
        assert written.shape == (24, 20, 3)
        assert np.abs(written - image).max() <= 1


def test_a_second_run_draws_what_is_missing_and_nothing_else(bulk: Bulk, vae: Path, tmp_path: Path) -> None:
    bulk("generate", f"bundle={vae}", "generate.count=30")
    whole = images_of(tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "whole")
    bulk("generate", f"bundle={vae}", "generate.count=7")
    again = bulk("generate", f"bundle={vae}", "generate.count=30")
    assert again["this_pass"]["images"] == 23
    assert images_of(tmp_path / "out") == whole
    assert len({*whole.values()}) == 30
    assert [row["path"] for row in rows_of(tmp_path / "out")] == [f"{index:08}" for index in range(30)]


def test_another_seed_needs_another_output(bulk: Bulk, vae: Path) -> None:
    bulk("generate", f"bundle={vae}", "generate.count=3")
    with pytest.raises(RunError, match=r"generate\.seed"):
        bulk("generate", f"bundle={vae}", "generate.count=3", "generate.seed=1")


@pytest.mark.parametrize("container", ["parquet", "webdataset"])
def test_images_go_into_any_container(bulk: Bulk, vae: Path, tmp_path: Path, container: str) -> None:
    bulk("generate", f"bundle={vae}", "generate.count=12")
    files = images_of(tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "files")
    bulk("generate", f"bundle={vae}", "generate.count=12", f"write.container={container}")
    assert sorted(outputs_of(tmp_path / "out", container).values()) == sorted(files.values())


def test_the_report_has_the_images_and_the_film(vae: Path, tmp_path: Path) -> None:
    film = ("generate.film.stops=2", "generate.film.frames=3", "generate.film.images=4")
    outcome = submit("generate", f"bundle={vae}", f"output={tmp_path / 'out'}", "generate.count=9", *film)
    assert outcome.exit_code == 0, outcome.output
    assert "film: _genray/film.webp in the output" in outcome.stderr
    with Image.open(io.BytesIO((tmp_path / "out" / "_genray" / "film.webp").read_bytes())) as frames:
        assert frames.n_frames == 6
    report = (tmp_path / "out" / "_genray" / "report.html").read_text()
    assert "data:image/webp" in report
    assert "Film" in report


def test_images_of_each_class_lie_in_its_folder(bulk: Bulk, tmp_path: Path) -> None:
    settings = {"kind": "mlp", "latent": 5, "conditional": True, "hidden": [16], "judging": [8]}
    spec = NetworkSpec("gan-mlp", {"shape": [1, 16, 16], "classes": 4, "settings": settings})
    torch.manual_seed(0)
    gray = ImageSpec(channels=1, range=(-1, 1))
    bundle = save_bundle(
        tmp_path / "gan",
        spec.build(),
        spec,
        kind="gan",
        preprocessing=Preprocessing(input=gray, output=gray, size=(16, 16), fixed=True, fit="crop"),
        metrics={},
        calibration={},
        seed=0,
        data={},
    )
    bulk("generate", f"bundle={bundle}", "generate.count=5", "generate.classes=[3,1]")
    images = images_of(tmp_path / "out")
    assert sorted(images) == [
        *(f"1/{index:08}.png" for index in (1, 3)),
        *(f"3/{index:08}.png" for index in (0, 2, 4)),
    ]
    with torch.inference_mode():
        code = torch.from_numpy(code_of(5, 0, 2)[None])
        drawn = load_bundle(bundle).network.eval().draw(code, torch.tensor([3]))[0, 0].numpy()
    written = np.asarray(Image.open(io.BytesIO(images["3/00000002.png"])))
    assert np.abs(written - 255 * drawn).max() <= 1
    with pytest.raises(SettingsError, match="class 4 is asked for, the bundle has classes 0 to 3"):
        bulk("generate", f"bundle={bundle}", f"output={tmp_path / 'other'}", "generate.classes=[4]")


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (("generate.classes=[1]",), "class 1 is asked for, the bundle has no classes"),
        (("write.format=same",), "drawn images have no format"),
        (("inference.precision=int8",), "only for networks from images to images"),
    ],
)
def test_what_the_bundle_cannot_draw_is_refused(
    bulk: Bulk, vae: Path, sets: tuple[str, ...], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        bulk("generate", f"bundle={vae}", *sets)


def test_an_autoencoder_without_a_prior_is_refused(bulk: Bulk, bundle_of: object) -> None:
    with pytest.raises(SettingsError, match="draws no images from nothing"):
        bulk("generate", f"bundle={bundle_of('autoencoder')}")  # type: ignore[operator]
