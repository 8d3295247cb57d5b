"""The root that a bulk run writes to: its images, and in `_genray/` the run's header, ledger and lock."""

from __future__ import annotations

import json
import os
import posixpath
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from time import sleep, time
from typing import Any
from urllib.parse import urlsplit

from genray.errors import DataError, RunError
from genray.io.files import lock_file
from genray.io.listing import root_of
from genray.io.store import Store, create_store
from pipelines.settings import may_change
from pipelines.storage.attempts import Attempts
from pipelines.storage.ledger import Ledger

HEADER = "_genray/run.json"
_LEASE = "_genray/lease.json"
_FORMAT = 1
_MAX_BYTES = 64 * 2**20


@dataclass
class PassRecord:
    """What the header says of a pass; None for what is not known yet."""

    number: int
    started: str = ""
    died: int | None = None
    """How many passes in a row died as a whole, up to the one before."""
    listed: int | None = None
    left: int | None = None
    """Inputs that it had to do."""
    ended: str | None = None
    failed: int | None = None
    """Inputs of the whole output that had failed at its end."""
    images_per_second: float | None = None
    mb_per_second: float | None = None
    start_seconds: float | None = None
    not_read: Mapping[str, int] | None = None
    """Files at the input that are not read, by type."""

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> PassRecord:
        """The inverse of `as_json`."""
        return cls(**{each.name: values[each.name] for each in fields(cls) if each.name in values})

    def as_json(self) -> dict[str, Any]:
        """What is known of it, plain values."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass
class RunHeader:
    """What is known of the run that an output is of.

    Args:
        target: of the command.
        settings: flat, see `genray.settings.base.flatten`.
        identity: of the step: what its results depend on beside the settings.
        prepared: what the step fitted to the user's own images, see `Step.prepare`.
        again: the settings of a run that makes everything again and has not come to its end.
        passes: all, the newest last.
    """

    target: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    identity: Mapping[str, Any] = field(default_factory=dict)
    prepared: Mapping[str, Any] | None = None
    again: Mapping[str, Any] | None = None
    passes: list[PassRecord] = field(default_factory=list)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> RunHeader:
        """The inverse of `as_json`."""
        return cls(
            target=values.get("target", ""),
            settings=values.get("settings", {}),
            identity=values.get("identity", {}),
            prepared=values.get("prepared"),
            again=values.get("again"),
            passes=[PassRecord.from_json(each) for each in values.get("passes", ())],
        )

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
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
    """What lies under the root `location`.

    Responsible for: the run's header, and whether a run may go on with it; holding the output, so that one
    process at a time changes it; the ledger and the markers of attempts, which it leads to.
    """

    location: str
    store: Store
    ledger: Ledger
    attempts: Attempts
    lease: Lease

    @classmethod
    def create(cls, location: str, *, lease_seconds: float = 60.0, settle_seconds: float = 1.0) -> Output:
        """Make the root, if it is not there, but nothing in it.

        Args:
            location: a folder or URI.
            lease_seconds, settle_seconds: see `Lease`.

        Raises:
            DataError: it cannot be made or opened.
        """
        # One and the same folder must not be locked in two ways.
        location = location.removeprefix("file://")
        store = create_store(location)
        lease = Lease(store, lease_seconds, settle_seconds)
        return cls(location, store, Ledger(store), Attempts(store), lease)

    @property
    def lost(self) -> bool:
        """Whether another run took the output away from the one that held it."""
        return self.lease.lost

    def read_header(self) -> RunHeader | None:
        """See `read_header`."""
        return read_header(self.store)

    def write_header(self, header: RunHeader) -> None:
        """Write the header."""
        text = json.dumps(header.as_json(), indent=2, ensure_ascii=False, allow_nan=False)
        self.store.write(HEADER, text.encode(), durable=True)

    def check_same_run(self, target: str, settings: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
        """Check that the run which this output is of, if there is one, can be gone on with.

        Args:
            target: what is to run.
            settings: flat, see `genray.settings.base.flatten`.
            identity: of the step.

        Raises:
            RunError: its images were made in another way; says what differs, and the ways out.
        """
        header = self.read_header()
        if header is None or not header.target:
            return
        if header.target != target:
            differences = [f"it was made by {header.target}, not {target}"]
        else:
            differences = [
                *_changed_settings(header.settings, settings),
                *_changed_identity(header.identity, identity),
            ]
        if differences:
            raise RunError(
                "this output was begun with other settings, its images would be of two kinds: "
                + "; ".join(differences),
                where=self.location,
                hint="give another output, the settings of before, or --retry all to make every image again",
            )

    def check_unused(self) -> None:
        """Before the first pass: nobody's files are overwritten or taken for leftovers.

        Raises:
            RunError: there are files already.
        """
        if next(self.store.walk([""]), None) is not None:
            raise RunError(
                "the output is not empty, and no run of genray began it",
                where=self.location,
                hint="give another folder; or set overwrite=true: files of the same names are replaced then",
            )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the output for this process, which then alone may change its ledger.

        Raises:
            RunError: another process holds it.
        """
        with self._hold() as held:
            if not held:
                raise RunError(
                    "another run is writing to this output",
                    where=self.location,
                    hint="wait for it, or give another output (one that died lets go within "
                    f"{self.lease.seconds:.0f} s)",
                )
            yield

    def _hold(self) -> AbstractContextManager[bool]:
        if not self.store.is_local:
            return self.lease.hold()
        folder = Path(self.location).expanduser() / "_genray"
        folder.mkdir(parents=True, exist_ok=True)
        return lock_file(folder / ".lock")


@dataclass
class Lease:
    """Holds an output where there are no locks, such as in an object store: a lease that is renewed, and that
    expires if its holder dies.

    Args:
        store: of the output.
        seconds: for how long it is taken.
        settle_seconds: for how long whoever takes one waits before it is sure of it.
    """

    store: Store
    seconds: float
    settle_seconds: float
    lost: bool = field(default=False, init=False)
    """Whether another run took it away."""

    @contextmanager
    def hold(self) -> Iterator[bool]:
        """Take the lease and renew it until the end; says whether it could be had."""
        holder = uuid.uuid4().hex
        if self._holder() is not None:
            yield False
            return
        self._write(holder)
        sleep(self.settle_seconds)  # whoever looked before that has written by now
        if self._holder() != holder:
            yield False
            return
        ended = threading.Event()
        thread = threading.Thread(target=self._renew, args=(holder, ended), daemon=True, name="lease")
        thread.start()
        try:
            yield True
        finally:
            ended.set()
            thread.join()
            if self._holder() == holder:
                self.store.delete(_LEASE)

    def _renew(self, holder: str, ended: threading.Event) -> None:
        while not ended.wait(self.seconds / 4):
            with suppress(Exception):  # of any file system; the next time
                if self._holder() not in (None, holder):
                    self.lost = True
                    return
                self._write(holder)

    def _write(self, holder: str) -> None:
        text = json.dumps({"holder": holder, "until": time() + self.seconds})
        self.store.write(_LEASE, text.encode())

    def _holder(self) -> str | None:
        try:
            lease = json.loads(self.store.read(_LEASE, 10_000))
            return str(lease["holder"]) if lease["until"] > time() else None
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None


def read_header(store: Store) -> RunHeader | None:
    """What is known of the run that wrote to `store`; None before the first.

    Raises:
        RunError: it is damaged, or of a later genray.
    """
    try:
        header = json.loads(store.read(HEADER, _MAX_BYTES))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise RunError(
            f"the run's header is damaged: {error}",
            where=f"{store.root}/{HEADER}",
            hint="delete it and give the command again: what the ledger has is not done again",
        ) from error
    if not isinstance(header, dict) or header.get("format") != _FORMAT:
        raise RunError(
            "the run's header is not one that this genray reads",
            where=f"{store.root}/{HEADER}",
            hint="use the genray that wrote it, or another output",
        )
    return RunHeader.from_json(header)


def check_apart(source: str, output: str) -> None:
    """Refuse an output that is the input, or inside of it, or around it, by whatever name: originals would be
    overwritten, or results listed as inputs the next time.

    Raises:
        DataError: they are not apart.
    """
    input_place = _canonical(root_of(source))
    output_place = _canonical(output)
    inside = f"{input_place}/".startswith(f"{output_place}/")
    if inside or f"{output_place}/".startswith(f"{input_place}/"):
        how = "is the input" if input_place == output_place else "and the input are inside of one another"
        raise DataError(
            f"the output {output} {how}",
            where="output",
            hint="give a folder of its own: originals must not be overwritten, nor results taken for inputs",
        )


def timestamp() -> str:
    """The time, as headers say it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _canonical(location: str) -> str:
    """A name of a folder that all its names share."""
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
