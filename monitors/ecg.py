"""Target ecg: monitors ECG streams with a model of normal beats, and raises alarms. Not a medical device."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genray.bundle import Bundle, load_bundle
from genray.bundle_places import bundle_folder
from genray.ecg.records.channels import listed
from genray.errors import BundleMissing, ResourceError, SettingsError
from genray.interrupts import stop_on_signals
from genray.progress import Display
from genray.targets import Demand, Resources
from genray.text import duration
from monitors.outputs.journal import Journal, JournalInUse
from monitors.patient.rhythm.ventricular import RhythmModel
from monitors.patient.scoring import BeatModel
from monitors.service.backends import LocalBackend, RayBackend, ShardBackend
from monitors.service.dispatcher import CHANNEL, DISCLAIMER
from monitors.service.monitor import Monitor, MonitorSummary
from monitors.service.shard import Partition
from monitors.settings import EcgSettings
from monitors.sources import make_source
from monitors.sources.pseudonyms import Pseudonyms, load_or_make_key
from monitors.sources.replay import ReplaySettings, check_replayable

_LOCK_PERIOD = 1.0  # s between tries to lock a journal that another monitor has
_WAITING = (
    "another monitor is running on {folder}: waiting to take over when it ends "
    "(for a second monitor beside it: --set state=FOLDER)"
)


class EcgTarget:
    """Target `ecg`: checks the settings and prepares a run of the monitor."""

    settings_class = EcgSettings

    def prepare(
        self, settings: EcgSettings, target: str, name: str | None, note: Callable[[str], None]
    ) -> PreparedEcg:
        """Check the settings, the bundle, the source, the state folder and the ports; while another monitor
        has that folder, its ports may be the same. `name` is not used: a monitor is identified by its
        `state`.

        Raises:
            GenrayError: a check failed.
        """
        bundle = _load_bundle(bundle_folder(settings.bundle))
        BeatModel.from_bundle(bundle)
        RhythmModel.from_bundle(load_bundle(settings.rhythm))
        make_source(settings.source)
        if isinstance(settings.source, ReplaySettings):
            check_replayable(settings.source)
        folder = Path(settings.state)
        _check_writable(folder)
        key = load_or_make_key(folder / "stream.key")
        # If another monitor has the journal, the run waits for it, and for its ports.
        with suppress(JournalInUse), _open_journal(settings):
            _check_port("metrics", settings.metrics.host, settings.metrics.port)
            if settings.page.port is not None:
                _check_port("page", settings.page.host, settings.page.port)
        manifest = bundle.manifest
        return PreparedEcg(
            settings,
            target,
            key,
            f"{bundle.path}: {manifest.kind}",
            manifest.verdict if manifest.quality == "worse-than-trivial" else "",
        )


@dataclass(frozen=True)
class PreparedEcg:
    """A monitor whose settings were checked.

    Attributes:
        key: key for pseudonyms.
        bundle: path and kind of the bundle, for a person.
        warning: verdict on a model that is no better than a trivial detector; "" for any other.
    """

    settings: EcgSettings
    target: str
    key: bytes
    bundle: str
    warning: str = ""

    @property
    def lines(self) -> Sequence[str]:
        """Lines about the run, for a person."""
        lines = [DISCLAIMER, f"source: {self.settings.source.kind}", f"bundle: {self.bundle}"]
        if kinds := self.settings.ward.lead_kinds:
            lines.append("leads: " + listed([f"{lead} ({kind})" for lead, kind in kinds.items()]))
        return lines + ([f"warning: the model was {self.warning}"] if self.warning else [])

    @property
    def folder(self) -> Path:
        """Folder of the journal."""
        return Path(self.settings.state)

    def examine(self) -> Sequence[str]:
        """Nothing more: all was looked at before."""
        return ()

    def needs_ray(self, attached: bool) -> bool:
        """Whether the run needs Ray: it has shards."""
        return self.settings.shards > 0

    def demand(self, have: Resources) -> Demand:
        """Return the demand for resources: one CPU for each shard."""
        shards = self.settings.shards
        if not shards:
            return Demand((1, 1), 0.0, 0.0, 0.0)
        return Demand((shards, shards), 1.0, 0.0, 0.0, where="shards", wait_minutes=None)

    def run(self, display: Display, have: Resources, attached: bool) -> MonitorOutcome:
        """Monitor until the source has ended, `seconds` have passed, or Ctrl-C. While another monitor has the
        state folder, wait, and take over when that one ends.

        Raises:
            GenrayError: a port is in use, or a source can never be opened.
        """
        return asyncio.run(self._run(display))

    async def _run(self, display: Display) -> MonitorOutcome:
        loop = asyncio.get_running_loop()
        stopping = asyncio.Event()
        pseudonym = Pseudonyms(self.key).of
        with stop_on_signals(stopping.is_set, stopping.set):
            opened = await self._take_over(display, stopping)
        if opened is None:
            return MonitorOutcome(self.target, str(self.folder), MonitorSummary.of_nothing())
        with opened as journal:
            monitor = Monitor.resume(self.settings, self._backends(), journal, pseudonym, display)

            def stop() -> None:
                stopping.set()
                loop.call_soon_threadsafe(monitor.stop)

            with stop_on_signals(stopping.is_set, stop):
                summary = await monitor.run()
        return MonitorOutcome(self.target, str(self.folder), summary)

    async def _take_over(self, display: Display, stopping: asyncio.Event) -> Journal | None:
        """Open the journal as soon as no other monitor has it; None: asked to stop before that."""
        waits = False
        while not stopping.is_set():
            try:
                journal = _open_journal(self.settings)
            except JournalInUse:
                if not waits:
                    display.note(_WAITING.format(folder=self.folder))
                waits = True
                await asyncio.sleep(_LOCK_PERIOD)
                continue
            if waits:
                display.note("the other monitor has ended: taking over")
            return journal
        return None

    def _backends(self) -> list[ShardBackend]:
        """Return the backend of one shard in this process, or of `shards` shards on Ray."""
        count = self.settings.shards
        if not count:
            return [LocalBackend(self.settings, self.key)]
        return [RayBackend(self.settings, self.key, Partition(number, count)) for number in range(count)]


@dataclass(frozen=True)
class MonitorOutcome:
    """Outcome of a run of the monitor; `run` is the folder of its state."""

    target: str
    run: str
    summary: MonitorSummary

    def as_json(self) -> dict[str, Any]:
        """Return the outcome as plain JSON values."""
        return {
            "target": self.target,
            "run": self.run,
            "seconds": self.summary.seconds,
            "streams": self.summary.streams,
            "beats": self.summary.beats,
            "alarms": dict(self.summary.onsets),
            "open": self.summary.open_alarms,
        }

    def rows(self) -> Sequence[tuple[str, str]]:
        """Return the outcome as names and values for the terminal."""
        summary = self.summary
        rows = [
            ("watched", f"{summary.streams} streams  {summary.beats} beats"),
            ("alarms", "  ".join(f"{kind} {count}" for kind, count in summary.onsets.items()) or "none"),
        ]
        if summary.open_alarms:
            rows.append(("open", str(summary.open_alarms)))
        return [*rows, ("state", self.run), ("time", duration(summary.seconds))]


def _open_journal(settings: EcgSettings) -> Journal:
    return Journal.open(Path(settings.state) / "journal.sqlite", (CHANNEL,), settings.journal)


def _load_bundle(path: Path) -> Bundle:
    try:
        return load_bundle(path)
    except BundleMissing as error:
        if path.exists():
            raise
        hint = (
            "train one: genray submit train-ecg --set data.path=RECORDS --name ecg, and set bundle to its "
            "folder bundle/; or try genray monitor ecg --demo"
        )
        raise BundleMissing(error.what, where="bundle", hint=hint) from None


def _check_writable(folder: Path) -> None:
    """Check that the state can be saved."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise SettingsError(
            f"the folder {folder} cannot be written: {error.strerror}",
            where="state",
            hint="set another folder with --set state=FOLDER, or correct its permissions",
        ) from error


def _check_port(setting: str, host: str, port: int) -> None:
    """Check that a port is free, as with Ray it is needed only seconds later."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise ResourceError(
            f"cannot listen on {host}:{port}: {error.strerror}",
            where=f"{setting}.port",
            hint="set another port (0 picks a free one)",
        ) from error


TARGET = EcgTarget()
