"""Bundles: trained models as folders of `bundle.json`, `weights.safetensors` and `samples/`."""

from __future__ import annotations

import json
import math
import platform
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, cast

import torch
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    ValidationError,
    field_validator,
    model_serializer,
)
from safetensors.torch import save_file
from torch import nn
from typing_extensions import TypedDict  # pydantic refuses typing.TypedDict before Python 3.12

from genray import __version__
from genray.bundle_places import bundle_folder
from genray.bundle_weights import AGAIN, check_finite, check_whole, read_weights, sha256_of
from genray.ecg.beats import BeatPreprocessing
from genray.ecg.rhythm import RhythmPreprocessing
from genray.errors import BundleMismatch, BundleMissing, BundleTooNew, BundleUnknown, BundleUnsafe
from genray.images.labels import MOST_CLASSES, Classes
from genray.io.files import atomic_write, storage_errors, write_json
from genray.models.autoencoder import Autoencoder
from genray.models.beats import BeatAutoencoder
from genray.models.gan.pair import Gan
from genray.models.numpy_dense import NumpyAutoencoder
from genray.models.pix2pix import UNet
from genray.models.registry import NetworkSpec
from genray.models.restorer import Restorer
from genray.models.rhythm import RhythmNetwork
from genray.models.summary import NetworkSummary
from genray.settings.problems import stored_problems

FORMAT: Literal[1] = 1
_MANIFEST = "bundle.json"
_WEIGHTS = "weights.safetensors"
_MAX_MANIFEST = 4 * 2**20
_MAX_WEIGHTS = 64 * 2**30
_LEAST_RANGE = 1e-6
_IMAGES, _BEATS, _RHYTHM = "images", "beats", "rhythm"
_TAGS = (_IMAGES, _BEATS, _RHYTHM)


Channels = Annotated[int, Field(ge=1, le=4096)]
Side = Annotated[int, Field(ge=1, le=65536)]
Level = Annotated[float, Field(ge=-1e6, le=1e6)]
Error = Annotated[float, Field(ge=-1e-6)]  # 1 - SSIM of equal images may round below 0
Name = Annotated[str, Field(min_length=1, max_length=200)]

Quality = Literal["better-than-trivial", "worse-than-trivial"]
"""Whether a model is better than predictors that do nothing; as good as one counts as worse."""


class _Stored(BaseModel):
    """Base of the parts of `bundle.json`. Unknown keys are refused, because ignoring them could change
    results."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ImageSpec(_Stored):
    """Image format at a network's input or output: channels, and the values of black and white."""

    channels: Channels
    range: tuple[Level, Level] = (-1.0, 1.0)
    window: tuple[float, float] | None = Field(
        None,
        description="levels of the files that are black and white, left out of the file if null (null: 0 and "
        "the largest level)",
    )

    classes: Annotated[Classes, Field(min_length=2, max_length=MOST_CLASSES)] | None = Field(
        None,
        description="level or colour of each class in the files, each of which is a channel, 255 where the "
        "class is and 0 elsewhere; left out of the file if null (null: the files are images)",
    )

    @model_serializer(mode="wrap")
    def _leave_out_null(self, values: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Earlier versions, which refuse unknown keys, read bundles that need neither.
        optional = ("window", "classes")
        return {key: value for key, value in values(self).items() if key not in optional or value is not None}

    @field_validator("range")
    @classmethod
    def _check_range(cls, span: tuple[float, float]) -> tuple[float, float]:
        if not span[1] - span[0] >= _LEAST_RANGE:
            raise ValueError("the value of black must be below that of white")
        return span

    @field_validator("classes")
    @classmethod
    def _check_classes(cls, classes: Classes | None) -> Classes | None:
        if classes is not None and (
            len({len(colour) for colour in classes}) > 1
            or len(classes[0]) not in (1, 2, 3)
            or len({*classes}) < len(classes)
            or not all(0 <= level < 2**16 for colour in classes for level in colour)
        ):
            raise ValueError("the classes must be different levels, or different colours")
        return classes

    @field_validator("window")
    @classmethod
    def _check_window(cls, window: tuple[float, float] | None) -> tuple[float, float] | None:
        if window is not None and not window[0] < window[1]:
            raise ValueError("the level of black must be below that of white")
        return window


class Preprocessing(_Stored):
    """Preprocessing of images for the network."""

    input: ImageSpec
    output: ImageSpec
    size: tuple[Side, Side] = Field(description="height and width that it was trained at, in pixels")
    multiple: Side | None = Field(
        None,
        description="number of pixels that height and width must be a multiple of; restorers mirror other "
        "sizes up to it (null in bundles of earlier versions: `read_manifest` takes the network's)",
    )
    fixed: bool = Field(False, description="true if the network takes images of `size` only")
    fit: Literal["crop", "stretch"] | None = Field(
        None, description="way that an image was brought to `size` (crop or stretch)"
    )
    direction: Literal["AtoB", "BtoA"] | None = Field(
        None, description="direction of the translation (AtoB: A is the input; BtoA: B is)"
    )


AnyPreprocessing = Preprocessing | BeatPreprocessing | RhythmPreprocessing
"""Preprocessing of any network."""


class NoiseRange(TypedDict):
    """Noise that a denoiser was trained on, as standard deviations in levels of 255, and the best share of a
    refined result (none: 0)."""

    lowest: Annotated[float, Field(ge=0, le=10_000)]
    highest: Annotated[float, Field(ge=0, le=10_000)]
    refine: NotRequired[Annotated[float, Field(ge=0, le=1)]]


class Calibration(TypedDict, total=False):
    """Statistics of the reconstruction errors of normal samples, or the range of a denoiser; other keys are
    allowed and say how they were made."""

    __pydantic_config__ = ConfigDict(extra="allow", allow_inf_nan=False)  # type: ignore[misc]
    error: Literal["mse", "mae", "ssim"]
    threshold: Annotated[float, Field(gt=0, le=1e12)]
    mean: Error
    std: Error
    quantiles: dict[str, Error]
    errors: Annotated[list[Error], Field(min_length=2, max_length=10_000)]
    normal_images: Annotated[int, Field(ge=1)]
    beats: Annotated[int, Field(ge=1)]
    folds: Annotated[int, Field(ge=0)]
    noise: NoiseRange


def _kind_of_input(stored: Any) -> str:
    """Return the kind of preprocessing, of images, of beats or of rhythms."""
    if isinstance(stored, BeatPreprocessing):
        return _BEATS
    if isinstance(stored, RhythmPreprocessing) or (
        isinstance(stored, Mapping) and "window_features" in stored
    ):
        return _RHYTHM
    is_beats = isinstance(stored, Mapping) and not {"samples", "normalisation"}.isdisjoint(stored)
    return _BEATS if is_beats else _IMAGES


class Manifest(BaseModel):
    """Contents of `bundle.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, serialize_by_alias=True)
    format: Literal[1] = Field(description="version of the format")
    kind: Name = Field(description="kind of model, such as pix2pix")
    network: Name = Field(description="name of the network, see genray/models/registry.py")
    arguments: dict[str, Any] = Field(description="arguments that the network is built from")
    stored: Annotated[
        Annotated[Preprocessing, Tag(_IMAGES)]
        | Annotated[BeatPreprocessing, Tag(_BEATS)]
        | Annotated[RhythmPreprocessing, Tag(_RHYTHM)],
        Discriminator(_kind_of_input),
    ] = Field(alias="preprocessing")
    metrics: dict[str, Any]
    quality: Quality | None = Field(
        None, description="comparison with predictors that do nothing (null: it was not compared)"
    )
    verdict: str = Field("", max_length=2000, description="the comparison in words")
    behind: tuple[Name, ...] = Field((), description="methods, such as pca, that were better")
    calibration: Calibration = Field(default_factory=Calibration)
    seed: int = Field(ge=0, lt=2**63)
    data: dict[str, Any] = Field(description="fingerprint and counts of the training data")
    versions: dict[str, str]
    created: str = Field(max_length=100)
    weights: str = _WEIGHTS
    weights_sha256: str = Field(pattern="^[0-9a-f]{64}$")

    @field_validator("created")
    @classmethod
    def _check_created(cls, created: str) -> str:
        try:
            datetime.fromisoformat(created)
        except ValueError:
            raise ValueError("should be a time as 2026-01-31T12:00:00+00:00") from None
        return created

    @property
    def spec(self) -> NetworkSpec:
        """Specification that builds the network."""
        return NetworkSpec(self.network, self.arguments)

    @property
    def preprocessing(self) -> Preprocessing:
        """Preprocessing of images.

        Raises:
            BundleMismatch: the network takes something else.
        """
        if isinstance(self.stored, Preprocessing):
            return self.stored
        raise self._mismatch("images")

    @property
    def beats(self) -> BeatPreprocessing:
        """Preprocessing of beats.

        Raises:
            BundleMismatch: the network takes something else.
        """
        if isinstance(self.stored, BeatPreprocessing):
            return self.stored
        raise self._mismatch("beats of an ECG")

    @property
    def rhythm(self) -> RhythmPreprocessing:
        """Preprocessing of windows and beats for the rhythm.

        Raises:
            BundleMismatch: the network takes something else.
        """
        if isinstance(self.stored, RhythmPreprocessing):
            return self.stored
        raise self._mismatch("features of an ECG's rhythm")

    def _mismatch(self, wanted: str) -> BundleMismatch:
        taken = _input_of(self.stored)
        return BundleMismatch(
            f"the bundle is of the kind {self.kind}: its network takes {taken}, not {wanted}",
            hint=f"give a bundle for {wanted}",
        )


def _input_of(stored: AnyPreprocessing) -> str:
    """Return what a network with this preprocessing takes, for a person."""
    if isinstance(stored, BeatPreprocessing):
        return "beats of an ECG"
    return "features of an ECG's rhythm" if isinstance(stored, RhythmPreprocessing) else "images"


@dataclass(frozen=True)
class Bundle:
    """Loaded bundle: the network, ready to use, and its manifest."""

    path: Path
    manifest: Manifest
    network: nn.Module


def save_bundle(
    path: Path,
    network: nn.Module,
    spec: NetworkSpec,
    *,
    kind: str,
    preprocessing: AnyPreprocessing,
    metrics: Mapping[str, Any],
    seed: int,
    data: Mapping[str, Any],
    calibration: Mapping[str, Any] | None = None,
    samples: Sequence[Path] = (),
    quality: Quality | None = None,
    verdict: str = "",
    behind: Sequence[str] = (),
    halved: bool = False,
) -> Path:
    """Write a bundle to the folder `path`, atomically: into a folder beside it, which is then renamed.

    Args:
        network: network whose weights are saved.
        spec: specification that builds the network.
        kind: kind of model, such as pix2pix.
        preprocessing: preprocessing; `multiple` is taken from the network.
        samples: pictures to copy into the bundle.
        quality, verdict, behind: comparison with trivial predictors and with methods, see `Manifest`.
        halved: store float32 weights as float16.

    Raises:
        BundleMismatch: `read_manifest` would refuse a value.
    """
    preprocessing = _with_multiple(preprocessing, network)
    tensors = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    if halved:
        tensors = {
            key: value.half() if value.dtype == torch.float32 else value for key, value in tensors.items()
        }
    new = path.with_name(f".{path.name}.new")
    old = path.with_name(f".{path.name}.old")
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)
    new.mkdir(parents=True)
    try:
        with storage_errors(new), atomic_write(new / _WEIGHTS) as temporary:
            save_file(tensors, temporary)
        try:
            manifest = Manifest(
                format=FORMAT,
                kind=kind,
                network=spec.name,
                arguments=dict(spec.arguments),
                preprocessing=preprocessing,
                metrics=dict(metrics),
                quality=quality,
                verdict=verdict,
                behind=tuple(behind),
                calibration=cast(Calibration, dict(calibration or {})),
                seed=seed,
                data=dict(data),
                versions=_versions(),
                created=datetime.now(UTC).isoformat(timespec="seconds"),
                weights_sha256=sha256_of(new / _WEIGHTS),
            )
        except ValidationError as error:
            what = stored_problems(error, tags=_TAGS)
            raise BundleMismatch(f"a bundle cannot hold {what}", where=str(path)) from None
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


def name_weights_by_content(path: Path) -> None:
    """Rename the weights of the bundle at `path` by their checksum. In a store where every file is replaced
    by itself, a manifest then never names the weights of another one."""
    file = path / _MANIFEST
    manifest = json.loads(_read_text(file))
    name = f"weights-{manifest['weights_sha256'][:16]}.safetensors"
    (path / manifest["weights"]).rename(path / name)
    write_json(file, {**manifest, "weights": name})


def read_manifest(path: str | Path) -> Manifest:
    """Read the manifest of the bundle at `path` (a folder, a URI, or a name as ready:photo), without the
    weights.

    Raises:
        BundleMissing: no ready model of that name, no folder, no readable manifest in it, or a missing or
            wrong key.
        BundleTooNew: a later format version.
        BundleUnsafe: an implausibly large manifest, or weights outside the folder.
        BundleUnknown: a network or an argument that this genray does not have.
        BundleMismatch: preprocessing that does not fit the network.
    """
    path = bundle_folder(path, weights=False)
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
    data = _read_text(file)
    content = _parsed(data, file)
    version = content.get("format") if isinstance(content, dict) else None
    if isinstance(version, int | float) and version > FORMAT:
        raise BundleTooNew(
            f"the bundle has format {version}, this genray reads up to {FORMAT}",
            where=str(file),
            hint="install the genray that wrote it, or a later one",
        )
    try:
        manifest = Manifest.model_validate_json(data, strict=True)
    except ValidationError as error:
        what = stored_problems(error, tags=_TAGS)
        raise BundleMissing(f"{_MANIFEST}: {what}", where=str(file), hint=AGAIN) from None
    # Recursion is safe: pydantic accepts 200 levels at most.
    if wrong := next(_not_finite(content, ""), None):
        raise BundleMissing(f"{_MANIFEST}: {wrong}: should be a finite number", where=str(file), hint=AGAIN)
    if Path(manifest.weights).name != manifest.weights or len(manifest.weights) > 200:
        raise BundleUnsafe(
            f"{_MANIFEST}: weights: {manifest.weights[:200]!r} lies outside the bundle", where=str(file)
        )
    network = _build(manifest, file)
    _check_fits(manifest, network, file)
    return manifest.model_copy(update={"stored": _with_multiple(manifest.stored, network)})


def verify_bundle(path: str | Path) -> Manifest:
    """Return the manifest of the bundle at `path` if its weights are there and are those of the manifest;
    their values are not looked at.

    Raises:
        BundleError: see `read_manifest`; or the weights are missing or damaged.
    """
    path = bundle_folder(path)
    manifest = read_manifest(path)
    weights = _weights_file(path, manifest)
    check_whole(weights, manifest.weights_sha256)
    return manifest


def load_bundle(path: str | Path, device: str | torch.device = "cpu") -> Bundle:
    """Rebuild the network of the bundle at `path` (a folder, a URI, or a name as ready:photo), in evaluation
    mode on `device`. Weights that are stored as float16 become float32.

    Nothing is unpickled and no training code is imported.

    Raises:
        BundleError: a subclass for each reason, see `genray/errors.py`.
    """
    path = bundle_folder(path)
    manifest = read_manifest(path)
    weights = _weights_file(path, manifest)
    network = _build(manifest, path / _MANIFEST)
    state = read_weights(weights, network.state_dict())
    check_whole(weights, manifest.weights_sha256)
    check_finite(state, weights)
    network.load_state_dict(state, assign=True)
    return Bundle(path, manifest, network.to(device).eval())


def summarise(path: str | Path) -> NetworkSummary:
    """Return the layers of the network of the bundle at `path`; its weights are not read.

    Raises:
        BundleError: see `read_manifest`.
    """
    path = bundle_folder(path, weights=False)
    manifest = read_manifest(path)
    network = _build(manifest, path / _MANIFEST)
    if isinstance(network, NumpyAutoencoder):
        return NetworkSummary.of(network)
    with torch.device("meta"):
        samples = network.example(1) if isinstance(network, Gan) else _samples(manifest.stored)
    return NetworkSummary.of(network.eval(), samples)


def _samples(stored: AnyPreprocessing) -> list[torch.Tensor]:
    """Return one sample of any values for each input of a network."""
    if isinstance(stored, RhythmPreprocessing):
        return [torch.empty(1, stored.window_features), torch.empty(1, stored.beat_features)]
    if isinstance(stored, BeatPreprocessing):
        return [torch.empty(1, 1, stored.samples)]
    return [torch.empty(1, stored.input.channels, *stored.size)]


def _versions() -> dict[str, str]:
    return {"genray": __version__, "torch": str(torch.__version__), "python": platform.python_version()}


def _weights_file(path: Path, manifest: Manifest) -> Path:
    weights = path / manifest.weights
    if not weights.is_file():
        raise BundleMissing(f"the bundle's weights are missing: {weights}", where=str(weights), hint=AGAIN)
    _check_inside(path, weights)
    if weights.stat().st_size > _MAX_WEIGHTS:
        raise BundleUnsafe(f"{weights} is larger than {_MAX_WEIGHTS} bytes")
    return weights


def _read_text(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            data = stream.read(_MAX_MANIFEST + 1)
    except OSError as error:
        raise BundleMissing(f"cannot read {file}: {error}", where=str(file), hint=AGAIN) from error
    if len(data) > _MAX_MANIFEST:
        raise BundleUnsafe(f"{file} is larger than {_MAX_MANIFEST} bytes")
    return data


def _parsed(data: bytes, file: Path) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BundleMissing(f"cannot read {file}: {error}", where=str(file), hint=AGAIN) from error


def _not_finite(value: Any, key: str) -> Iterator[str]:
    """Yield the dotted keys of NaN and infinite numbers, which Python's JSON reader accepts."""
    if isinstance(value, float) and not math.isfinite(value):
        yield key
    elif isinstance(value, dict | list):
        entries = value.items() if isinstance(value, dict) else enumerate(value)
        for name, part in entries:
            yield from _not_finite(part, f"{key}.{name}" if key else str(name))


def _build(manifest: Manifest, file: Path) -> nn.Module:
    """Build the network without memory for its weights, so that no argument can allocate much."""
    try:
        with torch.device("meta"):
            return manifest.spec.build()
    except BundleUnknown as error:
        hint = "install the genray that wrote it, or a later one"
        raise BundleUnknown(f"{_MANIFEST}: {error.what}", where=str(file), hint=hint) from error


def _multiple_of(network: nn.Module) -> int:
    """Return the number that height and width of the network's images must be a multiple of."""
    return network.multiple if isinstance(network, Restorer | UNet) else 1


def _with_multiple(stored: AnyPreprocessing, network: nn.Module) -> AnyPreprocessing:
    if isinstance(stored, Preprocessing) and stored.multiple is None:
        return stored.model_copy(update={"multiple": _multiple_of(network)})
    return stored


def _check_fits(manifest: Manifest, network: nn.Module, file: Path) -> None:
    """Raise BundleMismatch unless the preprocessing fits the network."""
    wrong = list(_misfits(manifest, network))
    if wrong:
        key, stored, needed = wrong[0]
        raise BundleMismatch(
            f"{_MANIFEST}: preprocessing{key}: {stored} does not fit the network of `arguments`, "
            f"which takes {needed}",
            where=str(file),
            hint=AGAIN,
        )


def _misfits(manifest: Manifest, network: nn.Module) -> Iterator[tuple[str, Any, Any]]:
    """Yield key, stored value and the network's value where they differ."""
    stored = manifest.stored
    if isinstance(network, RhythmNetwork):
        needed = "features of an ECG's rhythm"
    else:
        needed = "beats of an ECG" if isinstance(network, BeatAutoencoder) else "images"
    if _input_of(stored) != needed:
        yield "", _input_of(stored), needed
        return
    if isinstance(stored, RhythmPreprocessing):
        for name in ("window_features", "beat_features"):
            number = manifest.arguments.get(name.split("_")[0] + "s")
            if getattr(stored, name) != number:
                yield f".{name}", getattr(stored, name), number
        return
    if isinstance(stored, BeatPreprocessing):
        if stored.samples != manifest.arguments.get("samples"):
            yield ".samples", stored.samples, manifest.arguments.get("samples")
        return
    arguments = manifest.arguments
    shape = network.shape if isinstance(network, Autoencoder | Gan) else None
    channels = shape[0] if shape else arguments.get("channels")
    taken = arguments.get("in_channels", channels)
    given = arguments.get("out_channels", channels)
    multiple = _multiple_of(network)
    if stored.input.channels != taken:
        yield ".input.channels", stored.input.channels, taken
    if stored.output.channels != given:
        yield ".output.channels", stored.output.channels, given
    if stored.multiple not in (None, multiple):
        yield ".multiple", stored.multiple, multiple
    if shape and stored.size != shape[1:]:
        yield ".size", stored.size, f"only {shape[1:]}"
    if isinstance(network, UNet) and any(side % multiple for side in stored.size):
        yield ".size", stored.size, f"multiples of {multiple}"


def _check_inside(path: Path, file: Path) -> None:
    """Raise BundleUnsafe if `file` is a link out of the folder `path`."""
    if file.resolve().parent != path.resolve():
        raise BundleUnsafe(f"{file} is a link to {file.resolve()}, outside the bundle")
