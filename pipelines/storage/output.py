"""The root that a bulk run writes to: its images, and in `_genray/` the run's header, ledger and lock."""

from __future__ import annotations

import json
import os
import posixpath
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from time import sleep, time
from typing import Any
from urllib.parse import urlsplit

from genray.errors import DataError, RunError
from genray.io.files import hold_file
from genray.io.store import Store
from pipelines.settings import may_change
from pipelines.storage.attempts import Attempts
from pipelines.storage.ledger import Ledger

HEADER = "_genray/run.json"
_LEASE = "_genray/lease.json"
_LEASE_S = 60.0
_SETTLE_S = 1.0
_FORMAT = 1
_MAX_BYTES = 64 * 2**20


class Output:
    """What lies under the root `location`. Makes the root, but nothing in it."""

    def __init__(self, location: str) -> None:
        # One and the same folder must not be locked in two ways.
        self.location = location.removeprefix("file://")
        self.store = Store.create(self.location)
        self.lost = False
        """Whether another run took the lease away."""
        self.ledger = Ledger(self.store)
        self.attempts = Attempts(self.store)

    def header(self) -> dict[str, Any]:
        """See `read_header`."""
        return read_header(self.store)

    def write_header(self, header: Mapping[str, Any]) -> None:
        """Write the header."""
        text = json.dumps({"format": _FORMAT, **header}, indent=2, ensure_ascii=False, allow_nan=False)
        self.store.write(HEADER, text.encode(), durable=True)

    def check(self, target: str, settings: Mapping[str, Any], identity: Mapping[str, Any]) -> dict[str, Any]:
        """The header of the run that this output is of, if it can be gone on with.

        Args:
            target: what is to run.
            settings: flat, see `genray.settings.base.flatten`.
            identity: of the step.

        Raises:
            RunError: its images were made in another way; says what differs, and the ways out.
        """
        header = self.header()
        if not header.get("target"):
            return {}
        wrong = []
        if header["target"] != target:
            wrong.append(f"it was made by {header['target']}, not {target}")
        before = header["settings"]
        for key in sorted({*before, *settings} if not wrong else ()):
            if not may_change(key) and before.get(key) != settings.get(key):
                wrong.append(f"{key}: {_said(before.get(key))} -> {_said(settings.get(key))}")
        for key in sorted({*header["identity"], *identity} if not wrong else ()):
            if header["identity"].get(key) != identity.get(key):
                wrong.append(f"another {key}: {header['identity'].get(key)} -> {identity.get(key)}")
        if wrong:
            raise RunError(
                "this output was begun with other settings, its images would be of two kinds: "
                + "; ".join(wrong),
                where=self.location,
                hint="give another output, the settings of before, or --retry all to make every image again",
            )
        return header

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
        if self.store.is_local:
            folder = Path(self.location).expanduser() / "_genray"
            folder.mkdir(parents=True, exist_ok=True)
            with hold_file(folder / ".lock") as held:
                if not held:
                    raise self._busy()
                yield
        else:
            with self._leased():
                yield

    @contextmanager
    def _leased(self) -> Iterator[None]:
        # An object store knows no locks: a lease that is renewed, and that expires if its holder dies.
        mine = uuid.uuid4().hex
        if self._holder() is not None:
            raise self._busy()
        self._renew(mine)
        sleep(_SETTLE_S)  # whoever looked before that has written by now
        if self._holder() != mine:
            raise self._busy()
        ended = threading.Event()

        def renew() -> None:
            while not ended.wait(_LEASE_S / 4):
                with suppress(Exception):  # of any file system; the next time
                    if self._holder() not in (None, mine):
                        self.lost = True
                        return
                    self._renew(mine)

        thread = threading.Thread(target=renew, daemon=True, name="lease")
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            if self._holder() == mine:
                self.store.delete(_LEASE)

    def _renew(self, holder: str) -> None:
        self.store.write(_LEASE, json.dumps({"holder": holder, "until": time() + _LEASE_S}).encode())

    def _holder(self) -> str | None:
        try:
            lease = json.loads(self.store.read(_LEASE, 10_000))
            return str(lease["holder"]) if lease["until"] > time() else None
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def _busy(self) -> RunError:
        return RunError(
            "another run is writing to this output",
            where=self.location,
            hint=f"wait for it, or give another output (one that died lets go within {_LEASE_S:.0f} s)",
        )


def read_header(store: Store) -> dict[str, Any]:
    """What is known of the run that wrote to `store`: target, settings, identity, prepared, passes; {} before
    the first.

    Raises:
        RunError: it is damaged, or of a later genray.
    """
    try:
        header = json.loads(store.read(HEADER, _MAX_BYTES))
    except FileNotFoundError:
        return {}
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
    return header


def check_apart(source: str, output: str) -> None:
    """Refuse an output that is the input, or inside of it, or around it, by whatever name: originals would be
    overwritten, or results listed as inputs the next time.

    Raises:
        DataError: they are not apart.
    """
    first, second = _place(source), _place(output)
    if f"{first}/".startswith(f"{second}/") or f"{second}/".startswith(f"{first}/"):
        how = "is the input" if first == second else "and the input are inside of one another"
        raise DataError(
            f"the output {output} {how}",
            where="output",
            hint="give a folder of its own: originals must not be overwritten, nor results taken for inputs",
        )


def _place(location: str) -> str:
    """A name of a folder that all its names share."""
    if "://" not in location or location.startswith("file://"):
        return os.path.realpath(Path(location.removeprefix("file://")).expanduser()).rstrip("/")
    parts = urlsplit(location)
    return f"{parts.scheme}://{parts.netloc}{posixpath.normpath(f'/{parts.path}')}".rstrip("/")


def now() -> str:
    """The time, as headers say it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _said(value: Any) -> str:
    return "not set" if value is None else str(value)
