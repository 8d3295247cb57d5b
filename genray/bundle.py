"""A trained model as one folder that rebuilds itself: `bundle.json`, `weights.safetensors`, `samples/`."""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from genray import __version__
from genray.ecg.beats import BeatPreprocessing
from genray.errors import BundleMismatch, BundleMissing, BundleTooNew, BundleUnsafe
from genray.io.files import atomic_write, storage_errors, write_json
from genray.models.registry import NetworkSpec

FORMAT: Literal[1] = 1
_MANIFEST = "bundle.json"
_WEIGHTS = "weights.safetensors"
_AGAIN = "it was not copied as a whole, or is damaged: copy it again, or train it again"
_MAX_MANIFEST = 4 * 2**20
_MAX_WEIGHTS = 64 * 2**30


class ImageSpec(BaseModel):
    """What an image that enters or leaves the network is: channels, and the values of black and white."""

    model_config = ConfigDict(frozen=True)
    channels: int = Field(ge=1, le=4096)
    range: tuple[float, float] = (-1.0, 1.0)


class Preprocessing(BaseModel):
    """What has to be done to an image before the network."""

    model_config = ConfigDict(frozen=True)
    input: ImageSpec
    output: ImageSpec
    size: tuple[int, int] = Field(description="height and width that it was trained at, in pixels")
    fixed: bool = Field(False, description="whether it takes images of that size only")
    fit: Literal["crop", "stretch"] | None = Field(
        None, description="how an image was made to have that size"
    )
    direction: str | None = Field(None, description="which half of a pair is the input: AtoB or BtoA")


class Manifest(BaseModel):
    """All of `bundle.json`."""

    model_config = ConfigDict(frozen=True, serialize_by_alias=True)
    format: Literal[1] = Field(description="FORMAT of the genray that wrote it")
    kind: str = Field(description="what made it, such as pix2pix")
    network: str = Field(description="name of the network, see genray/models/registry.py")
    arguments: dict[str, Any] = Field(description="what the network is built from")
    stored: Preprocessing | BeatPreprocessing = Field(alias="preprocessing")
    metrics: dict[str, Any]
    calibration: dict[str, Any] = Field(default_factory=dict)
    seed: int
    data: dict[str, Any] = Field(description="fingerprint and counts of the training data")
    versions: dict[str, str]
    created: str
    weights: str = _WEIGHTS
    weights_sha256: str

    @property
    def spec(self) -> NetworkSpec:
        """What its network is built from."""
        return NetworkSpec(self.network, self.arguments)

    @property
    def preprocessing(self) -> Preprocessing:
        """What has to be done to images.

        Raises:
            BundleMismatch: the network takes something else.
        """
        if isinstance(self.stored, Preprocessing):
            return self.stored
        raise self._mismatch("images", "beats of an ECG")

    @property
    def beats(self) -> BeatPreprocessing:
        """What has to be done to an ECG.

        Raises:
            BundleMismatch: the network takes something else.
        """
        if isinstance(self.stored, BeatPreprocessing):
            return self.stored
        raise self._mismatch("beats of an ECG", "images")

    def _mismatch(self, wanted: str, taken: str) -> BundleMismatch:
        return BundleMismatch(
            f"the bundle is of the kind {self.kind}: its network takes {taken}, not {wanted}",
            hint=f"give a bundle for {wanted}",
        )


@dataclass(frozen=True)
class Bundle:
    """A loaded bundle: the network, ready to use, and its manifest."""

    path: Path
    manifest: Manifest
    network: nn.Module


def save_bundle(
    path: Path,
    network: nn.Module,
    spec: NetworkSpec,
    *,
    kind: str,
    preprocessing: Preprocessing | BeatPreprocessing,
    metrics: Mapping[str, Any],
    seed: int,
    data: Mapping[str, Any],
    calibration: Mapping[str, Any] | None = None,
    samples: Sequence[Path] = (),
) -> Path:
    """Write a bundle to the folder `path`: in a folder beside it, which then takes its name.

    Args:
        network: whose weights are kept.
        spec: what it was built from.
        kind: what made it, such as pix2pix.
        samples: pictures to take along.
    """
    tensors = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    new = path.with_name(f".{path.name}.new")
    old = path.with_name(f".{path.name}.old")
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)
    new.mkdir(parents=True)
    try:
        with storage_errors(new), atomic_write(new / _WEIGHTS) as temporary:
            save_file(tensors, temporary)
        manifest = Manifest(
            format=FORMAT,
            kind=kind,
            network=spec.name,
            arguments=dict(spec.arguments),
            preprocessing=preprocessing,
            metrics=dict(metrics),
            calibration=dict(calibration or {}),
            seed=seed,
            data=dict(data),
            versions=_versions(),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            weights_sha256=_sha256(new / _WEIGHTS),
        )
        (new / "samples").mkdir()
        with storage_errors(new):
            for sample in samples:
                shutil.copyfile(sample, new / "samples" / sample.name)
        write_json(new / _MANIFEST, manifest.model_dump(mode="json"))
        if path.exists():
            path.rename(old)
        new.rename(path)
    finally:
        for leftover in (new, old):
            shutil.rmtree(leftover, ignore_errors=True)
    return path


def read_manifest(path: Path) -> Manifest:
    """The manifest of the bundle at `path`, without its weights.

    Raises:
        BundleMissing: no such folder or no readable manifest in it.
        BundleTooNew: a later format version.
        BundleUnsafe: a manifest of absurd size, or weights named outside the folder.
    """
    file = path / _MANIFEST
    if not path.is_dir():
        why = "that is a file" if path.exists() else "there is no such folder"
        raise BundleMissing(
            f"no bundle at {path}: {why}",
            hint="give the folder bundle/ of a finished run; `genray targets` lists what makes one",
        )
    if not file.is_file():
        inside = path / "bundle"
        if (inside / _MANIFEST).is_file():
            raise BundleMissing(
                f"{path} is a run, and its bundle is the folder bundle/ in it",
                where=str(path),
                hint=f"did you mean {inside}?",
            )
        raise BundleMissing(
            f"{path} holds no {_MANIFEST}",
            where=str(path),
            hint="give the folder bundle/ of a run; a run has none before it has finished",
        )
    _check_inside(path, file)
    content = _read_json(file)
    version = content.get("format") if isinstance(content, dict) else None
    if isinstance(version, int | float) and version > FORMAT:
        raise BundleTooNew(
            f"the bundle has format {version}, this genray reads up to {FORMAT}",
            where=str(file),
            hint="install the genray that wrote it, or a later one",
        )
    try:
        manifest = Manifest.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise BundleMissing(
            f"the manifest is incomplete: {key}: {first['msg']}", where=str(file), hint=_AGAIN
        ) from None
    if Path(manifest.weights).name != manifest.weights or len(manifest.weights) > 200:
        raise BundleUnsafe(f"the weights are named {manifest.weights!r}, outside the bundle", where=str(file))
    return manifest


def load_bundle(path: str | Path, device: str | torch.device = "cpu") -> Bundle:
    """Rebuild the network of the bundle at `path`, in evaluation mode on `device`.

    Nothing is unpickled and no training code is imported.

    Raises:
        BundleError: which one says what is wrong; see `genray/errors.py`.
    """
    path = Path(path)
    manifest = read_manifest(path)
    weights = path / manifest.weights
    if not weights.is_file():
        raise BundleMissing(f"the bundle's weights are missing: {weights}", where=str(weights), hint=_AGAIN)
    _check_inside(path, weights)
    if weights.stat().st_size > _MAX_WEIGHTS:
        raise BundleUnsafe(f"{weights} is larger than {_MAX_WEIGHTS} bytes")
    with torch.device("meta"):  # shapes only: the stored arguments allocate nothing yet
        network = manifest.spec.build()
    state = _read_weights(weights, network.state_dict())
    if _sha256(weights) != manifest.weights_sha256:
        raise BundleMismatch(
            "the weights are damaged: their checksum is not the manifest's", where=str(weights), hint=_AGAIN
        )
    network.load_state_dict(state, assign=True)
    return Bundle(path, manifest, network.to(device).eval())


def _versions() -> dict[str, str]:
    return {"genray": __version__, "torch": str(torch.__version__), "python": platform.python_version()}


def _sha256(file: Path) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _read_json(file: Path) -> Any:
    try:
        with file.open("rb") as stream:
            data = stream.read(_MAX_MANIFEST + 1)
        if len(data) > _MAX_MANIFEST:
            raise BundleUnsafe(f"{file} is larger than {_MAX_MANIFEST} bytes")
        return json.loads(data)
    except (OSError, ValueError, RecursionError) as error:
        raise BundleMissing(f"cannot read {file}: {error}", where=str(file), hint=_AGAIN) from error


def _check_inside(path: Path, file: Path) -> None:
    """Raise a BundleUnsafe if `file` is a link out of the folder `path`."""
    if file.resolve().parent != path.resolve():
        raise BundleUnsafe(f"{file} is a link to {file.resolve()}, outside the bundle")


def _read_weights(file: Path, expected: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of `file`, which must have the names, shapes and types of those that are expected."""
    try:
        with safe_open(file, framework="pt") as tensors:
            _check_names(file, expected.keys(), set(tensors.keys()))
            state = {}
            for name, tensor in expected.items():
                # The header says the shape: a wrong one is refused before its bytes are read.
                shape = tuple(tensors.get_slice(name).get_shape())
                if shape != tuple(tensor.shape):
                    raise BundleMismatch(
                        f"{name} has shape {shape}, the network's is {tuple(tensor.shape)}", where=str(file)
                    )
                state[name] = tensors.get_tensor(name)
                if state[name].dtype != tensor.dtype:
                    raise BundleMismatch(
                        f"{name} is {state[name].dtype}, the network's is {tensor.dtype}", where=str(file)
                    )
    except (SafetensorError, OSError) as error:
        raise BundleMissing(f"cannot read the weights: {error}", where=str(file), hint=_AGAIN) from error
    return state


def _check_names(file: Path, expected: Set[str], stored: Set[str]) -> None:
    differences = []
    if missing := sorted(expected - stored):
        differences.append(f"missing {_first_few(missing)}")
    if extra := sorted(stored - expected):
        differences.append(f"left over {_first_few(extra)}")
    if differences:
        raise BundleMismatch(
            f"the weights are not those of the network: {'; '.join(differences)}", where=str(file)
        )


def _first_few(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
