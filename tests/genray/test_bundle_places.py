import json
import uuid
from pathlib import Path

import pytest
import torch

from genray.bundle import (
    ImageSpec,
    Preprocessing,
    load_bundle,
    name_weights_by_content,
    read_manifest,
    save_bundle,
    verify_bundle,
)
from genray.bundle_places import bundle_folder
from genray.errors import BundleMismatch, BundleMissing
from genray.io.store import Store, open_store
from genray.models.registry import NetworkSpec

SPEC = NetworkSpec("unet", {"in_channels": 3, "out_channels": 3, "size": 64, "settings": {"filters": 4}})


def save(folder: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    spec = ImageSpec(channels=3)
    preprocessing = Preprocessing(input=spec, output=spec, size=(64, 64))
    return save_bundle(
        folder,
        SPEC.build(),
        SPEC,
        kind="pix2pix",
        preprocessing=preprocessing,
        metrics={},
        seed=seed,
        data={},
    )


def upload(folder: Path, store: Store) -> None:
    for file in sorted(folder.iterdir()):
        if file.is_file():
            store.write(file.name, file.read_bytes())


def test_a_bundle_in_a_store_is_copied_once_for_each_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GENRAY_MODEL_CACHE", str(tmp_path / "cache"))
    uri = f"memory://{uuid.uuid4().hex}/bundle"
    store = open_store(uri)
    first = save(tmp_path / "first", 1)
    name_weights_by_content(first)
    upload(first, store)
    assert read_manifest(uri).seed == 1
    assert not list((tmp_path / "cache").rglob("*.safetensors")), "the manifest needs no weights"
    copy = bundle_folder(uri)
    assert load_bundle(uri).path == copy
    before = load_bundle(first).network.state_dict()
    assert all(
        torch.equal(before[name], tensor) for name, tensor in load_bundle(uri).network.state_dict().items()
    )
    weights = next(copy.glob("*.safetensors")).stat()
    assert bundle_folder(uri) == copy
    assert next(copy.glob("*.safetensors")).stat().st_mtime_ns == weights.st_mtime_ns, "read once"
    upload(save(tmp_path / "second", 2), store)
    assert read_manifest(uri).seed == 2
    assert bundle_folder(uri) != copy


def test_a_bundle_that_is_not_in_the_store_is_missing(tmp_path: Path) -> None:
    uri = f"memory://{uuid.uuid4().hex}/bundle"
    with pytest.raises(BundleMissing, match=r"holds no bundle\.json"):
        load_bundle(uri)
    folder = save(tmp_path / "a", 1)
    open_store(uri).write("bundle.json", (folder / "bundle.json").read_bytes())
    assert read_manifest(uri).seed == 1
    with pytest.raises(BundleMissing, match=r"cannot read the weights weights\.safetensors"):
        load_bundle(uri)


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a/b.safetensors", "", 1])
def test_weights_outside_of_the_bundle_are_not_copied(tmp_path: Path, name: object) -> None:
    uri = f"memory://{uuid.uuid4().hex}/bundle"
    open_store(uri).write("bundle.json", json.dumps({"weights": name}).encode())
    with pytest.raises(BundleMissing):
        load_bundle(uri)
    assert [file.name for file in bundle_folder(uri).iterdir()] == ["bundle.json"]


def test_a_bundle_is_verified_by_the_checksum_of_its_weights(tmp_path: Path) -> None:
    folder = save(tmp_path / "a", 1)
    assert verify_bundle(folder).seed == 1
    weights = folder / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(BundleMismatch, match="checksum"):
        verify_bundle(folder)
