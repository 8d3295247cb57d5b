import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import load_file

from genray import named_bundles
from genray.bundle import ImageSpec, Preprocessing, load_bundle, read_manifest, save_bundle
from genray.cli.main import main
from genray.errors import BundleMismatch, BundleMissing, SettingsError
from genray.models.registry import NetworkSpec
from genray.named_bundles import is_ready, ready_folder, ready_names
from genray.ready.catalog import ready_models
from genray.ready.export import About, read_about, shrink
from genray.settings.base import Location, Settings, absolute

SMALL: dict[str, Any] = {"kind": "unet", "widths": [4, 8], "blocks": 1, "middle": 1, "bias": True}
ABOUT = About(
    purpose="noise of a test",
    licence="CC0-1.0",
    trained_on="nothing",
    cost="no time",
    figures={"PolyU, dB": 38.25},
)


def write_denoiser(path: Path, channels: int = 3, scale: float = 0.05) -> Path:
    spec = NetworkSpec("restorer-unet", {"channels": channels, "settings": SMALL})
    torch.manual_seed(0)
    network = spec.build()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(scale * torch.randn(parameter.shape))
    image = ImageSpec(channels=channels, range=(0.0, 1.0))
    return save_bundle(
        path,
        network,
        spec,
        kind="denoiser",
        preprocessing=Preprocessing(input=image, output=image, size=(16, 16)),
        metrics={"psnr": 30.0},
        seed=0,
        data={"fingerprint": "sha256:0"},
        quality="better-than-trivial",
        verdict="better than leaving the images unchanged",
    )


@pytest.fixture
def ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of ready models with one, tiny."""
    folder = tmp_path / "ready"
    shrink(write_denoiser(tmp_path / "bundle"), folder / "tiny", ABOUT)
    monkeypatch.setattr(named_bundles, "FOLDER", folder)
    monkeypatch.setattr("genray.ready.catalog.FOLDER", folder)
    return folder


def run(*words: str) -> Any:
    return CliRunner().invoke(main, words)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_shrunk_bundle_is_half_as_large_and_gives_the_same_results(tmp_path: Path, channels: int) -> None:
    bundle = write_denoiser(tmp_path / "bundle", channels)
    difference = shrink(bundle, tmp_path / "small", ABOUT)
    assert difference.is_close("fp32")
    assert {t.dtype for t in load_file(tmp_path / "small" / "weights.safetensors").values()} == {
        torch.float16
    }
    small, large = ((tmp_path / name / "weights.safetensors").stat().st_size for name in ("small", "bundle"))
    assert small < 0.7 * large
    loaded, exact = load_bundle(tmp_path / "small"), load_bundle(bundle)
    assert {parameter.dtype for parameter in loaded.network.parameters()} == {torch.float32}
    images = torch.rand(1, channels, 33, 20)
    with torch.inference_mode():
        torch.testing.assert_close(loaded.network(images), exact.network(images), atol=2e-3, rtol=0)
    assert loaded.manifest.verdict == exact.manifest.verdict
    assert loaded.manifest.data["about"]["licence"] == "CC0-1.0"


def test_weights_that_float16_changes_too_much_are_not_written(tmp_path: Path) -> None:
    bundle = write_denoiser(tmp_path / "bundle", scale=8.0)
    with pytest.raises(BundleMismatch, match="with float16 weights the results differ"):
        shrink(bundle, tmp_path / "small")
    assert not (tmp_path / "small").exists()


def test_a_ready_model_is_found_by_its_name_wherever_a_bundle_is(ready: Path) -> None:
    assert ready_names() == ["tiny"]
    assert ready_folder("ready:tiny") == ready / "tiny"
    assert read_manifest("ready:tiny") == read_manifest(ready / "tiny")
    assert load_bundle("ready:tiny").path == ready / "tiny"
    assert json.loads(run("bundle", "show", "ready:tiny", "--json").stdout)["kind"] == "denoiser"


def test_an_unknown_name_is_refused_with_the_nearest(ready: Path) -> None:
    with pytest.raises(BundleMissing, match="no ready model is called 'tinny'") as error:
        ready_folder("ready:tinny")
    assert "did you mean ready:tiny?" in str(error.value)
    with pytest.raises(BundleMissing, match="ready models: ready:tiny"):
        ready_folder("ready:something-else")


@pytest.mark.parametrize("name", ["../tiny", "", "..", "tiny/../tiny"])
def test_a_name_is_no_path(ready: Path, name: str) -> None:
    with pytest.raises(BundleMissing):
        ready_folder(f"ready:{name}")


def test_names_stay_names_where_paths_become_absolute() -> None:
    class Some(Settings):
        bundle: Location = "ready:photo"
        other: Location = "here"

    made = absolute(Some())
    assert made.bundle == "ready:photo"
    assert Path(made.other).is_absolute()
    assert not is_ready(made.other)


def test_models_are_listed_with_their_figures(ready: Path) -> None:
    text = run("models").stdout
    assert "ready:tiny  noise of a test (denoiser, " in text
    assert "PolyU, dB  38.25" in text
    (model,) = json.loads(run("models", "--json").stdout.splitlines()[-1])["models"]
    assert model["bundle"] == "ready:tiny"
    assert model["figures"] == {"PolyU, dB": 38.25}
    assert model["licence"] == "CC0-1.0"


def test_a_ready_model_that_tells_nothing_is_an_error(ready: Path) -> None:
    shrink(ready / "tiny", ready / "silent")
    (manifest := ready / "silent" / "bundle.json").write_text(
        manifest.read_text(encoding="utf-8").replace('"about"', '"other"'), encoding="utf-8"
    )
    with pytest.raises(BundleMismatch, match="tells nothing"):
        ready_models()


def test_images_are_denoised_with_a_ready_model(ready: Path, tmp_path: Path) -> None:
    photos, clean = tmp_path / "photos", tmp_path / "clean"
    photos.mkdir()
    noise = np.random.default_rng(0).normal(128, 30, (40, 40, 3)).clip(0, 255).astype(np.uint8)
    Image.fromarray(noise).save(photos / "a.png")
    done = run(
        "submit",
        "denoise",
        *(
            word
            for pair in (f"input={photos}", f"output={clean}", "bundle=ready:tiny", "work.workers=0")
            for word in ("--set", pair)
        ),
    )
    assert done.exit_code == 0, done.output
    assert np.asarray(Image.open(clean / "a.png")).shape == (40, 40, 3)
    assert "ready:tiny" in done.output


def test_an_unknown_ready_model_is_refused_before_anything_starts(ready: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    done = run(
        "submit",
        "denoise",
        "--set",
        f"input={tmp_path / 'photos'}",
        "--set",
        f"output={tmp_path / 'out'}",
        "--set",
        "bundle=ready:tony",
    )
    assert done.exit_code
    assert "no ready model is called 'tony'" in done.output
    assert "ready:tiny" in done.output


def test_what_is_told_about_a_model_is_checked(tmp_path: Path) -> None:
    file = tmp_path / "about.json"
    with pytest.raises(SettingsError, match="cannot be read"):
        read_about(file)
    file.write_text('{"purpose": "x"}')
    with pytest.raises(SettingsError, match="licence"):
        read_about(file)
    file.write_text(ABOUT.model_dump_json())
    assert read_about(file) == ABOUT


def test_the_shrink_command_says_what_it_changed(ready: Path, tmp_path: Path) -> None:
    done = run("bundle", "shrink", "ready:tiny", str(tmp_path / "again"))
    assert done.exit_code == 0, done.output
    assert "differ from those of ready:tiny by at most" in done.stdout
    assert read_manifest(tmp_path / "again").data["about"] == ABOUT.model_dump()
