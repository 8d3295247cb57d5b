import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from genray.bundle import FORMAT, ImageSpec, Preprocessing, load_bundle, read_manifest, save_bundle
from genray.cli.main import main
from genray.ecg.beats import BeatPreprocessing
from genray.errors import (
    BundleError,
    BundleMismatch,
    BundleMissing,
    BundleTooNew,
    BundleUnknown,
    BundleUnsafe,
)
from genray.models.pix2pix import UNet, UNetSettings
from genray.models.registry import NetworkSpec

SMALL = UNetSettings(filters=4)


@pytest.fixture
def network() -> UNet:
    torch.manual_seed(0)
    return UNet(3, 1, size=64, settings=SMALL).eval()


@pytest.fixture
def bundle(tmp_path: Path, network: UNet) -> Path:
    samples = tmp_path / "pictures"
    samples.mkdir()
    (samples / "grid.png").write_bytes(b"png")
    return save(tmp_path / "bundle", network, [samples / "grid.png"])


def save(
    path: Path,
    network: UNet,
    samples: Sequence[Path] = (),
    calibration: Mapping[str, Any] | None = None,
) -> Path:
    settings = SMALL.model_dump(mode="json")
    arguments = {"in_channels": 3, "out_channels": 1, "size": 64, "settings": settings}
    return save_bundle(
        path,
        network,
        NetworkSpec("unet", arguments),
        kind="pix2pix",
        preprocessing=Preprocessing(
            input=ImageSpec(channels=3), output=ImageSpec(channels=1), size=(64, 64), direction="BtoA"
        ),
        metrics={"l1": 0.1},
        seed=7,
        data={"fingerprint": "sha256:0"},
        calibration=calibration,
        samples=samples,
    )


def test_a_bundle_rebuilds_its_network_to_the_bit(bundle: Path, network: UNet) -> None:
    loaded = load_bundle(bundle)
    stored, built = loaded.network.state_dict(), network.state_dict()
    assert stored.keys() == built.keys()
    assert all(torch.equal(stored[name], tensor) for name, tensor in built.items())
    assert not loaded.network.training
    # In float64: where weights lie in memory may decide which kernel of the CPU adds up.
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    with torch.inference_mode():
        torch.testing.assert_close(loaded.network.double()(images), network.double()(images))
    assert loaded.manifest.preprocessing.direction == "BtoA"
    assert loaded.manifest.preprocessing.input.range == (-1.0, 1.0)
    assert set(loaded.manifest.versions) == {"genray", "torch", "python"}
    assert (bundle / "samples" / "grid.png").exists()


def test_saving_again_replaces_the_bundle_whole(bundle: Path, network: UNet) -> None:
    with torch.no_grad():
        network.out[1].bias.fill_(1.0)  # type: ignore[union-attr, operator]
    save(bundle, network)
    assert torch.equal(load_bundle(bundle).network.state_dict()["out.1.bias"], torch.ones(1))
    assert sorted(file.name for file in bundle.iterdir()) == ["bundle.json", "samples", "weights.safetensors"]
    assert [file.name for file in bundle.parent.iterdir() if file.name.startswith(".")] == []


def change(bundle: Path, **values: object) -> None:
    manifest = json.loads((bundle / "bundle.json").read_text())
    (bundle / "bundle.json").write_text(json.dumps({**manifest, **values}))


def change_weights(bundle: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(bundle / "weights.safetensors")
    edit(tensors)
    save_file(tensors, bundle / "weights.safetensors")


def link_out(bundle: Path) -> None:
    outside = bundle.parent / "outside.safetensors"
    (bundle / "weights.safetensors").rename(outside)
    (bundle / "weights.safetensors").symlink_to(outside)


def nested_lists(depth: int, value: object) -> dict[str, object]:
    for _ in range(depth):
        value = [value]
    return {"m": value}


def manifest_from_outside(bundle: Path) -> None:
    (bundle / "bundle.json").rename(bundle.parent / "outside.json")
    (bundle / "bundle.json").symlink_to(bundle.parent / "outside.json")


def flip_last_byte(bundle: Path) -> None:
    with (bundle / "weights.safetensors").open("rb+") as file:
        file.seek(-1, 2)
        file.write(b"\x7e")


@pytest.mark.parametrize(
    ("damage", "kind", "what"),
    [
        (lambda b: (b / "bundle.json").unlink(), BundleMissing, "holds no bundle.json"),
        (lambda b: (b / "bundle.json").write_text("{"), BundleMissing, "cannot read"),
        (
            lambda b: (b / "bundle.json").write_text('{"format": 1}'),
            BundleMissing,
            r"bundle\.json: kind: is missing",
        ),
        (
            lambda b: (b / "bundle.json").write_text("[]"),
            BundleMissing,
            r"bundle\.json: input should be an object",
        ),
        (lambda b: (b / "bundle.json").write_bytes(b" " * 5_000_000), BundleUnsafe, "larger than"),
        (lambda b: (b / "weights.safetensors").unlink(), BundleMissing, "weights are missing"),
        (
            lambda b: (b / "weights.safetensors").write_bytes(b"x" * 99),
            BundleMissing,
            "cannot read the weights",
        ),
        (flip_last_byte, BundleMismatch, "damaged"),
        (lambda b: change(b, format=FORMAT + 1), BundleTooNew, f"format {FORMAT + 1}"),
        (lambda b: change(b, format="2"), BundleMissing, r"bundle\.json: format: "),
        (lambda b: change(b, arguments={"in_channels": -1}), BundleUnknown, "cannot be built"),
        (lambda b: (b / "bundle.json").write_text("[" * 200_000), BundleMissing, "cannot read"),
        (lambda b: change(b, metrics=nested_lists(150, [float("nan")])), BundleMissing, "finite number"),
        (lambda b: change(b, metrics=nested_lists(700, 1)), BundleMissing, r"bundle\.json: .*recursion"),
        (lambda b: (b / "bundle.json").write_bytes(b'{"format": 1, "kind": "\xff"}'), BundleMissing, "read"),
        (manifest_from_outside, BundleUnsafe, "outside the bundle"),
        (lambda b: change(b, network="gpt"), BundleUnknown, "no network is called 'gpt'"),
        (lambda b: change(b, arguments={"in_channels": 3}), BundleUnknown, "cannot be built"),
        (lambda b: change(b, weights="../weights.safetensors"), BundleUnsafe, "outside the bundle"),
        (lambda b: change(b, weights="/etc/passwd"), BundleUnsafe, "outside the bundle"),
        (link_out, BundleUnsafe, "outside the bundle"),
        (
            lambda b: change_weights(b, lambda t: t.pop("out.1.bias")),
            BundleMismatch,
            r"missing out\.1\.bias",
        ),
        (
            lambda b: change_weights(b, lambda t: t.update(spy=torch.zeros(1))),
            BundleMismatch,
            "left over spy",
        ),
        (
            lambda b: change_weights(b, lambda t: t.update({"out.1.bias": torch.zeros(2)})),
            BundleMismatch,
            r"out\.1\.bias has shape \(2,\), the network's is \(1,\)",
        ),
        (
            lambda b: change_weights(b, lambda t: t.update({"out.1.bias": torch.zeros(1).double()})),
            BundleMismatch,
            r"torch\.float64",
        ),
    ],
)
def test_a_damaged_bundle_says_how(
    bundle: Path, damage: Callable[[Path], object], kind: type[BundleError], what: str
) -> None:
    damage(bundle)
    with pytest.raises(kind, match=what):
        load_bundle(bundle)


def places(value: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Where each value of a manifest is, down to the single numbers."""
    if path:
        yield path
    if isinstance(value, dict | list):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(part, (*path, key))


MISSING = object()
WRONG = {
    "missing": MISSING,
    "null": None,
    "text": "wide",
    "negative": -3,
    "nan": float("nan"),
    "infinite": float("inf"),
    "huge": 10**30,
    "huge float": 1e300,
    "true": True,
    "list": [1, 2, 3],
    "empty list": [],
    "mapping": {"a": 1},
    "zero": 0,
    "fraction": 2.5,
}
# What may be null, or anything: notes for people, and what was measured.
FREE = ("metrics.", "data.", "versions.")


def with_value(manifest: dict[str, Any], place: tuple[str | int, ...], value: object) -> dict[str, Any]:
    changed = json.loads(json.dumps(manifest))
    *above, last = place
    into = changed
    for key in above:
        into = into[key]
    if value is MISSING:
        del into[last]
    else:
        into[last] = value
    return changed


def write_beat_bundle(folder: Path) -> Path:
    takes = BeatPreprocessing(
        before=0.25, after=0.45, samples=20, normalisation="minmax", span=(-1.0, 2.0), leads=("MLII",)
    )
    spec = NetworkSpec(
        "beats-dense", {"samples": 20, "settings": {"kind": "dense", "latent": 2, "hidden": [4]}}
    )
    calibration = {
        "error": "mse",
        "threshold": 0.5,
        "mean": 0.1,
        "std": 0.1,
        "errors": [0.1, 0.2],
        "beats": 9,
    }
    return save_bundle(
        folder,
        spec.build(),
        spec,
        kind="ecg-beats",
        preprocessing=takes,
        metrics={"mse": 0.1},
        calibration=calibration,
        seed=0,
        data={"fingerprint": "sha256:0"},
    )


def write_restorer_bundle(folder: Path) -> Path:
    settings = {"kind": "unet", "widths": [4, 8], "blocks": 1, "middle": 1}
    spec = NetworkSpec("restorer-unet", {"channels": 1, "settings": settings})
    gray = ImageSpec(channels=1, range=(0.0, 1.0))
    return save_bundle(
        folder,
        spec.build(),
        spec,
        kind="denoiser",
        preprocessing=Preprocessing(input=gray, output=gray, size=(21, 24), fit="crop"),
        metrics={"psnr": 30.0},
        seed=0,
        data={"fingerprint": "sha256:0"},
    )


def write_autoencoder_bundle(folder: Path) -> Path:
    spec = NetworkSpec("autoencoder-dense", {"shape": [1, 8, 10], "settings": {"kind": "dense", "latent": 2}})
    gray = ImageSpec(channels=1, range=(0.0, 1.0))
    return save_bundle(
        folder,
        spec.build(),
        spec,
        kind="anomaly",
        preprocessing=Preprocessing(input=gray, output=gray, size=(8, 10), fixed=True, fit="stretch"),
        metrics={"mse": 0.1},
        calibration={"error": "ssim", "threshold": 0.5, "quantiles": {"0.5": 0.1, "1": 0.4}},
        seed=0,
        data={"fingerprint": "sha256:0"},
    )


BUNDLES = {
    "beats": write_beat_bundle,
    "restorer": write_restorer_bundle,
    "autoencoder": write_autoencoder_bundle,
}


@pytest.mark.parametrize("write", BUNDLES.values(), ids=BUNDLES)
def test_a_wrong_value_of_any_key_is_named_or_harmless(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    bundle = write(tmp_path / "bundle")
    whole = json.loads((bundle / "bundle.json").read_text())
    refused = set()
    for place in places(whole):
        key = ".".join(str(part) for part in place)
        for name, value in WRONG.items():
            changed = with_value(whole, place, value)
            if changed == whole and not isinstance(value, bool):
                continue
            (bundle / "bundle.json").write_text(json.dumps(changed))
            try:
                load_bundle(bundle)
            except BundleError as error:
                refused.add((key, name))
                parents = [key.rsplit(".", n)[0] for n in range(key.count(".") + 1)]
                # Arguments of another network, well-formed themselves: its weights have other shapes.
                others = place[0] in ("arguments", "network") and "the network" in error.what
                is_sum = place[0] == "weights_sha256" and "checksum" in error.what
                assert any(parent in error.what for parent in parents) or others or is_sum, error.what
    for key in {key for key, _ in refused} | {".".join(map(str, place)) for place in places(whole)}:
        assert (key, "nan") in refused, key
        assert (key, "infinite") in refused, key
        if not key.startswith(FREE) and not key.startswith("calibration"):
            assert (key, "mapping") in refused or key in ("metrics", "data"), key
    numbers = [p for p in places(whole) if p[0] in ("preprocessing", "calibration") and is_number(whole, p)]
    assert numbers
    for place in numbers:
        key = ".".join(map(str, place))
        assert (key, "text") in refused, key
        assert (key, "huge") in refused or place[0] == "calibration", key


UNEVEN = {"in_channels": 3, "out_channels": 1, "size": 100, "settings": SMALL.model_dump(mode="json")}


def is_number(manifest: dict[str, Any], place: tuple[str | int, ...]) -> bool:
    value: Any = manifest
    for key in place:
        value = value[key]
    return isinstance(value, int | float) and not isinstance(value, bool)


@pytest.mark.parametrize(
    ("place", "value", "what"),
    [
        ("preprocessing.size", [64, -64], ".1: input should be greater than or equal to 1, not -64"),
        ("preprocessing.size", [64, 100], "(64, 100) does not fit the network of `arguments`, which"),
        ("preprocessing.size", [64], ".1: is missing"),
        ("preprocessing.multiple", 0, "input should be greater than or equal to 1, not 0"),
        ("preprocessing.multiple", 3, "3 does not fit the network of `arguments`, which takes 64"),
        ("preprocessing.multiple", "64", "input should be a valid integer, not '64'"),
        ("preprocessing.input.range", [1, -1], "the value of black must be below"),
        ("preprocessing.input.range", [0, 0], "the value of black must be below"),
        ("preprocessing.output.channels", 3, "3 does not fit the network of `arguments`, which takes 1"),
        ("preprocessing.direction", "left", "input should be 'AtoB' or 'BtoA'"),
        ("preprocessing.mean", 3, "extra inputs are not permitted"),
        ("calibration.threshold", -1, "input should be greater than 0"),
        ("calibration.quantiles", {"1": "x"}, ".1: input should be a valid number"),
        ("metrics.l1", float("nan"), "should be a finite number"),
        ("seed", -1, "input should be greater than or equal to 0"),
        ("created", "yesterday", "should be a time as 2026-01-31T12:00:00+00:00"),
        ("weights_sha256", "0", "string should match pattern"),
        ("arguments", UNEVEN, "a U-Net needs a size that is a multiple of 32, at least 64, not 100"),
        ("arguments.size", "big", "input should be a valid integer"),
        ("arguments.depth", 3, "extra inputs are not permitted"),
        ("arguments.settings.filters", -4, "input should be greater than"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_manifest_is_named_by_its_key(
    bundle: Path, place: str, value: object, what: str
) -> None:
    whole = json.loads((bundle / "bundle.json").read_text())
    whole["calibration"] = {"threshold": 1}
    (bundle / "bundle.json").write_text(json.dumps(with_value(whole, tuple(place.split(".")), value)))
    with pytest.raises(BundleError) as refused:
        read_manifest(bundle)
    assert "bundle.json: " in refused.value.what
    assert f"{place}{what}" in refused.value.what or f"{place}: {what}" in refused.value.what
    assert refused.value.where == str(bundle / "bundle.json")


@pytest.mark.parametrize(("write", "multiple"), [(write_restorer_bundle, 4), (write_autoencoder_bundle, 1)])
def test_a_bundle_says_what_height_and_width_must_divide_by(
    tmp_path: Path, write: Callable[[Path], Path], multiple: int
) -> None:
    bundle = write(tmp_path / "bundle")
    stored = json.loads((bundle / "bundle.json").read_text())
    assert stored["preprocessing"]["multiple"] == multiple
    shown = CliRunner().invoke(main, ["bundle", "show", str(bundle)]).output
    assert re.search(rf"^preprocessing\.multiple +{multiple}$", shown, re.MULTILINE)
    del stored["preprocessing"]["multiple"]
    (bundle / "bundle.json").write_text(json.dumps(stored))
    assert load_bundle(bundle).manifest.preprocessing.multiple == multiple, "of an earlier version"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_no_numbers_are_refused(tmp_path: Path, network: UNet, value: float) -> None:
    with torch.no_grad():
        network.out[1].bias.fill_(value)  # type: ignore[union-attr, operator]
    save(tmp_path / "bundle", network)
    with pytest.raises(BundleMismatch, match=r"weights are NaN or infinite: 1 in out\.1\.bias"):
        load_bundle(tmp_path / "bundle")


def test_values_that_could_not_be_read_again_are_not_written(tmp_path: Path, network: UNet) -> None:
    with pytest.raises(
        BundleMismatch, match=r"a bundle cannot hold calibration\.threshold: .* greater than 0"
    ):
        save(tmp_path / "bundle", network, calibration={"threshold": 0.0})
    assert list(tmp_path.iterdir()) == []


def test_no_bundle_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleMissing, match="there is no such folder") as missing:
        read_manifest(tmp_path / "nowhere")
    assert missing.value.hint is not None
    assert "folder bundle/ of a finished run" in missing.value.hint
    (tmp_path / "model.pt").write_text("")
    with pytest.raises(BundleMissing, match="that is a file"):
        read_manifest(tmp_path / "model.pt")


def test_many_numbers_of_a_bundle_are_shown_by_their_range(bundle: Path) -> None:
    change(bundle, calibration={"errors": [n / 3 for n in range(101)], "span": [0.5, 1.5]})
    shown = CliRunner().invoke(main, ["bundle", "show", str(bundle)]).output
    assert "101 numbers: min 0  median 16.67  max 33.33\n" in shown
    assert "[0.5, 1.5]" in shown
    everything = CliRunner().invoke(main, ["bundle", "show", str(bundle), "--json"]).output
    assert len(json.loads(everything)["calibration"]["errors"]) == 101


def test_a_run_is_told_from_its_bundle(bundle: Path) -> None:
    run = bundle.parent
    with pytest.raises(BundleMissing, match=f"{run.name} is a run, and its bundle is") as missing:
        read_manifest(run)
    assert missing.value.hint == f"did you mean {bundle}?"


def test_what_beats_need_is_kept_and_not_taken_for_what_images_need(tmp_path: Path) -> None:
    takes = BeatPreprocessing(before=0.25, after=0.45, samples=20, normalisation="zscore", leads=("MLII",))
    settings = {"kind": "dense", "latent": 2, "hidden": [4]}
    spec = NetworkSpec("beats-dense", {"samples": 20, "settings": settings})
    save_bundle(
        tmp_path / "bundle",
        spec.build(),
        spec,
        kind="ecg-beats",
        preprocessing=takes,
        metrics={},
        seed=0,
        data={},
    )
    manifest = load_bundle(tmp_path / "bundle").manifest
    assert manifest.beats == takes
    assert json.loads((tmp_path / "bundle" / "bundle.json").read_text())["preprocessing"]["leads"] == ["MLII"]
    with pytest.raises(
        BundleMismatch, match=r"kind ecg-beats: its network takes beats of an ECG, not images"
    ):
        _ = manifest.preprocessing


def test_a_bundle_for_images_is_none_for_beats(bundle: Path) -> None:
    with pytest.raises(BundleMismatch, match="its network takes images, not beats of an ECG"):
        _ = load_bundle(bundle).manifest.beats


@pytest.mark.parametrize("write", [write_restorer_bundle, write_autoencoder_bundle])
def test_the_layers_of_a_bundle_are_listed(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    path = write(tmp_path / "bundle")
    shown = CliRunner().invoke(main, ["bundle", "layers", str(path)]).output.splitlines()
    assert shown[0].split("  ")[0] == "layer"
    count = sum(parameter.numel() for parameter in load_bundle(path).network.parameters())
    assert shown[-1].split() == ["all", f"{count:,}"]
    stored = json.loads(CliRunner().invoke(main, ["bundle", "layers", str(path), "--json"]).output)
    assert sum(layer["parameters"] for layer in stored["layers"]) == stored["parameters"] == count
