"""Output of a bulk run: the images under its root, and header, ledger and lock in `_genray/`."""

from __future__ import annotations

import json
import os
import posixpath
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from genray.errors import DataError, RunError
from genray.io.files import lock_file
from genray.io.lease import Lease
from genray.io.listing import root_of
from genray.io.store import Store, create_store
from pipelines.settings import may_change
from pipelines.storage.attempts import Attempts
from pipelines.storage.ledger.ledger import Ledger

HEADER = "_genray/run.json"
FILM = "_genray/film.webp"
_LEASE = "_genray/lease.json"
_FORMAT = 1
_MAX_BYTES = 64 * 2**20


@dataclass
class PassRecord:
    """The header's record of a pass; None for values that are not known yet."""

    number: int
    started: str = ""
    died: int | None = None
    """Number of passes in a row, up to the previous one, whose driver was killed."""
    listed: int | None = None
    left: int | None = None
    """Inputs of the pass to process."""
    ended: str | None = None
    failed: int | None = None
    """Failed inputs of the whole output at the end of the pass."""
    images_per_second: float | None = None
    mb_per_second: float | None = None
    start_seconds: float | None = None
    not_read: Mapping[str, int] | None = None
    """Files at the input that are not read, by type."""
    suspects: Mapping[str, int] | None = None
    """Inputs that were the only one in progress in their worker when earlier passes were killed, and how
    often; they are processed apart."""

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> PassRecord:
        """Return the record of `as_json`."""
        return cls(**{each.name: values[each.name] for each in fields(cls) if each.name in values})

    def as_json(self) -> dict[str, Any]:
        """Return the known values, as plain JSON values."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass
class RunHeader:
    """Header of an output: the run that made it.

    Args:
        target: name of the target.
        settings: settings, flat (see `genray.settings.base.flatten`).
        identity: the step's identity, which its results depend on beside the settings.
        prepared: the step's fit to the user's images, see `Step.prepare`.
        again: settings of an unfinished run that processes everything again.
        passes: all passes, the newest last.
    """

    target: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    identity: Mapping[str, Any] = field(default_factory=dict)
    prepared: Mapping[str, Any] | None = None
    again: Mapping[str, Any] | None = None
    passes: list[PassRecord] = field(default_factory=list)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> RunHeader:
        """Return the record of `as_json`."""
        return cls(
            target=values.get("target", ""),
            settings=values.get("settings", {}),
            identity=values.get("identity", {}),
            prepared=values.get("prepared"),
            again=values.get("again"),
            passes=[PassRecord.from_json(each) for each in values.get("passes", ())],
        )

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "format": _FORMAT,
            "target": self.target,
            "settings": dict(self.settings),
            "identity": dict(self.identity),
            "prepared": self.prepared,
            "again": self.again,
            "passes": [each.as_json() for each in self.passes],
        }


@dataclass(frozen=True)
class Output:
    """Output under the root `location`.

    Responsible for: the run's header, and whether a run may resume with it; locking the output, so that one
    process at a time changes it; access to the ledger and the markers of attempts.
    """

    location: str
    store: Store
    ledger: Ledger
    attempts: Attempts
    lease: Lease

    @classmethod
    def create(cls, location: str, *, lease_seconds: float = 60.0, settle_seconds: float = 1.0) -> Output:
        """Make the root if it is missing, without writing anything to it.

        Args:
            location: a folder or URI.
            lease_seconds, settle_seconds: see `Lease`.

        Raises:
            DataError: the root cannot be made or opened.
        """
        # The same folder must not be locked in two ways.
        location = location.removeprefix("file://")
        store = create_store(location)
        lease = Lease(store, _LEASE, lease_seconds, settle_seconds)
        return cls(location, store, Ledger(store), Attempts(store), lease)

    @property
    def lost(self) -> bool:
        """Whether another run took over the output while this one held it."""
        return self.lease.lost

    def read_header(self) -> RunHeader | None:
        """See `read_header`."""
        return read_header(self.store)

    def write_header(self, header: RunHeader) -> None:
        """Write the header."""
        text = json.dumps(header.as_json(), indent=2, ensure_ascii=False, allow_nan=False)
        self.store.write(HEADER, text.encode(), durable=True)

    def check_same_run(
        self,
        target: str,
        settings: Mapping[str, Any],
        identity: Mapping[str, Any],
        defaults: Mapping[str, Any],
    ) -> None:
        """Check that the run that made this output, if there is one, can be resumed.

        Args:
            target: name of the target.
            settings: settings, flat (see `genray.settings.base.flatten`).
            identity: identity of the step.
            defaults: values, flat, of settings that did not exist yet when the run was made.

        Raises:
            RunError: the images were made with other settings; the message lists the differences and
                remedies.
        """
        header = self.read_header()
        if header is None or not header.target:
            return
        if header.target != target:
            differences = [f"it was made by {header.target}, not {target}"]
        else:
            known = {key: value for key, value in defaults.items() if key in settings}
            differences = [
                *_changed_settings({**known, **header.settings}, settings),
                *_changed_identity(header.identity, identity),
            ]
        if differences:
            raise RunError(
                "this output was made with other settings, so that its images would differ: "
                + "; ".join(differences),
                where=self.location,
                hint=(
                    "give another output, the previous settings, or --retry all to process every image again"
                ),
            )

    def check_unused(self) -> None:
        """Check before the first pass that no foreign files would be overwritten or mixed with the results.

        Raises:
            RunError: the output contains files.
        """
        if next(self.store.walk([""]), None) is not None:
            raise RunError(
                "the output is not empty, and it is not of a run of genray",
                where=self.location,
                hint="give another folder, or set overwrite=true to replace files of the same names",
            )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the output, so that only this process may change its ledger.

        Raises:
            RunError: another process has the lock.
        """
        with self._hold() as held:
            if not held:
                raise RunError(
                    "another run is writing to this output",
                    where=self.location,
                    hint="wait for it, or give another output (the lock of a killed run expires within "
                    f"{self.lease.seconds:.0f} s)",
                )
            yield

    def _hold(self) -> AbstractContextManager[bool]:
        if not self.store.is_local:
            return self.lease.hold()
        folder = Path(self.location).expanduser() / "_genray"
        folder.mkdir(parents=True, exist_ok=True)
        return lock_file(folder / ".lock")


def read_header(store: Store) -> RunHeader | None:
    """Read the header of the run that wrote to `store`; None before the first run.

    Raises:
        RunError: the header is damaged, or of a later version of genray.
    """
    try:
        header = json.loads(store.read(HEADER, _MAX_BYTES))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise RunError(
            f"the header of the run is damaged ({error})",
            where=f"{store.root}/{HEADER}",
            hint=("delete the file and give the command again: images in the ledger are not processed again"),
        ) from error
    if not isinstance(header, dict) or header.get("format") != _FORMAT:
        raise RunError(
            "the header of the run has a format that this version of genray cannot read",
            where=f"{store.root}/{HEADER}",
            hint="use the version of genray that wrote it, or give another output",
        )
    return RunHeader.from_json(header)


def check_apart(source: str, output: str) -> None:
    """Refuse an output that is the input, inside of it, or around it, under any name: originals would be
    overwritten, or results listed as inputs in the next pass.

    Raises:
        DataError: input and output overlap.
    """
    input_place = _canonical(root_of(source))
    output_place = _canonical(output)
    inside = f"{input_place}/".startswith(f"{output_place}/")
    if inside or f"{output_place}/".startswith(f"{input_place}/"):
        how = (
            "is the input"
            if input_place == output_place
            else "and the input overlap: one is inside of the other"
        )
        raise DataError(
            f"the output {output} {how}",
            where="output",
            hint=(
                "give a separate folder: originals must not be overwritten, nor results be taken for inputs"
            ),
        )


def check_not_within(root: str, output: str) -> None:
    """Refuse an output that is or contains the folder `root` of listed files, which it could overwrite.

    Raises:
        DataError: the files lie in the output.
    """
    if f"{_canonical(root)}/".startswith(f"{_canonical(output)}/"):
        raise DataError(
            f"the output {output} contains the listed files",
            where="output",
            hint="give a separate folder: originals must not be overwritten",
        )


def timestamp() -> str:
    """Return the time in the format of headers."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _canonical(location: str) -> str:
    """Return the canonical name of a folder, equal for all its names."""
    if "://" not in location or location.startswith("file://"):
        return os.path.realpath(Path(location.removeprefix("file://")).expanduser()).rstrip("/")
    parts = urlsplit(location)
    return f"{parts.scheme}://{parts.netloc}{posixpath.normpath(f'/{parts.path}')}".rstrip("/")


def _changed_settings(before: Mapping[str, Any], settings: Mapping[str, Any]) -> Iterator[str]:
    for key in sorted({*before, *settings}):
        if not may_change(key) and before.get(key) != settings.get(key):
            yield f"{key}: {_value_text(before.get(key))} -> {_value_text(settings.get(key))}"


def _changed_identity(before: Mapping[str, Any], identity: Mapping[str, Any]) -> Iterator[str]:
    for key in sorted({*before, *identity}):
        if before.get(key) != identity.get(key):
            yield f"another {key}: {before.get(key)} -> {identity.get(key)}"


def _value_text(value: Any) -> str:
    return "not set" if value is None else str(value)
