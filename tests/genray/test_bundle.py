import json
from collections.abc import Callable, Sequence
from pathlib import Path

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


def save(path: Path, network: UNet, samples: Sequence[Path] = ()) -> Path:
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
        (lambda b: (b / "bundle.json").write_text('{"format": 1}'), BundleMissing, "incomplete: kind"),
        (lambda b: (b / "bundle.json").write_text("[]"), BundleMissing, "incomplete"),
        (lambda b: (b / "bundle.json").write_bytes(b" " * 5_000_000), BundleUnsafe, "larger than"),
        (lambda b: (b / "weights.safetensors").unlink(), BundleMissing, "weights are missing"),
        (
            lambda b: (b / "weights.safetensors").write_bytes(b"x" * 99),
            BundleMissing,
            "cannot read the weights",
        ),
        (flip_last_byte, BundleMismatch, "damaged"),
        (lambda b: change(b, format=FORMAT + 1), BundleTooNew, f"format {FORMAT + 1}"),
        (lambda b: change(b, format="2"), BundleMissing, "incomplete: format"),
        (lambda b: change(b, arguments={"in_channels": -1}), BundleUnknown, "cannot be built"),
        (lambda b: (b / "bundle.json").write_text("[" * 200_000), BundleMissing, "cannot read"),
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
