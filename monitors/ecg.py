"""ecg: watches streams of ECG by a bundle of normal beats, and alerts. It is no medical device."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genray.bundle import Bundle, load_bundle
from genray.errors import BundleMissing, ResourceError, SettingsError
from genray.interrupts import stop_on_signals
from genray.progress import Display
from genray.targets import Demand, Resources
from genray.text import duration
from monitors.outputs.journal import Journal
from monitors.patient.scoring import BeatModel
from monitors.service.backends import LocalBackend, RayBackend, ShardBackend
from monitors.service.dispatcher import CHANNEL, DISCLAIMER
from monitors.service.monitor import Monitor, MonitorSummary
from monitors.service.shard import Partition
from monitors.settings import EcgSettings
from monitors.sources import make_source
from monitors.sources.pseudonyms import Pseudonyms, load_or_make_key
from monitors.sources.replay import ReplaySettings, check_replayable


class EcgTarget:
    """What the command needs of the monitor."""

    settings_class = EcgSettings

    def prepare(
        self, settings: EcgSettings, target: str, name: str | None, note: Callable[[str], None]
    ) -> PreparedEcg:
        """Find what is wrong with the settings, the bundle, the state and the ports. `name` is not used: a
        monitor is identified by its `state`.

        Raises:
            UsageError, BundleError: it cannot work.
        """
        bundle = _load_bundle(Path(settings.bundle))
        BeatModel.from_bundle(bundle)
        make_source(settings.source)
        if isinstance(settings.source, ReplaySettings):
            check_replayable(settings.source)
        folder = Path(settings.state)
        _check_writable(folder)
        key = load_or_make_key(folder / "stream.key")
        with _open_journal(settings):  # in use by another monitor, damaged, not a journal
            pass
        _check_port("metrics", settings.metrics.host, settings.metrics.port)
        if settings.page.port is not None:
            _check_port("page", settings.page.host, settings.page.port)
        return PreparedEcg(settings, target, key, f"{bundle.path}: {bundle.manifest.kind}")


@dataclass(frozen=True)
class PreparedEcg:
    """A monitor that was checked.

    Attributes:
        key: of the pseudonyms.
        bundle: where it is and of which kind, for a person.
    """

    settings: EcgSettings
    target: str
    key: bytes
    bundle: str

    @property
    def lines(self) -> Sequence[str]:
        """What will be watched, for a person."""
        return [DISCLAIMER, f"source: {self.settings.source.kind}", f"bundle: {self.bundle}"]

    @property
    def folder(self) -> Path:
        """Where the journal is."""
        return Path(self.settings.state)

    def examine(self) -> Sequence[str]:
        """Nothing more: all was looked at before."""
        return ()

    def needs_ray(self, attached: bool) -> bool:
        """Whether Ray has to run."""
        return self.settings.shards > 0

    def demand(self, have: Resources) -> Demand:
        """A CPU for each shard."""
        shards = self.settings.shards
        if not shards:
            return Demand((1, 1), 0.0, 0.0, 0.0)
        return Demand((shards, shards), 1.0, 0.0, 0.0, where="shards")

    def run(self, display: Display, have: Resources, attached: bool) -> MonitorOutcome:
        """Watch until the source is over, the time is up, or Ctrl-C.

        Raises:
            GenrayError: a port or the journal is taken; a source can never be opened.
        """
        return asyncio.run(self._run(display))

    async def _run(self, display: Display) -> MonitorOutcome:
        loop = asyncio.get_running_loop()
        stopping = asyncio.Event()
        pseudonym = Pseudonyms(self.key).of
        with _open_journal(self.settings) as journal:
            monitor = Monitor.resume(self.settings, self._backends(), journal, pseudonym, display)

            def stop() -> None:
                stopping.set()
                loop.call_soon_threadsafe(monitor.stop)

            with stop_on_signals(stopping.is_set, stop):
                summary = await monitor.run()
        return MonitorOutcome(self.target, str(self.folder), summary)

    def _backends(self) -> list[ShardBackend]:
        """A shard in this process, or as many on Ray as the settings say."""
        count = self.settings.shards
        if not count:
            return [LocalBackend(self.settings, self.key)]
        return [RayBackend(self.settings, self.key, Partition(number, count)) for number in range(count)]


@dataclass(frozen=True)
class MonitorOutcome:
    """What a monitor came to; `run` is the folder of its state."""

    target: str
    run: str
    summary: MonitorSummary

    def as_json(self) -> dict[str, Any]:
        """For programs: plain JSON values."""
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
        """For the terminal: names and values."""
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
            "train one: genray submit train-ecg --set data.path=RECORDS --name ecg, and give its folder "
            "bundle/; or try genray monitor ecg --demo"
        )
        raise BundleMissing(error.what, where="bundle", hint=hint) from None


def _check_writable(folder: Path) -> None:
    """Find out now that nothing can be saved."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise SettingsError(
            f"the folder {folder} cannot be written: {error.strerror}",
            where="state",
            hint="name another with --set state=FOLDER, or mend its rights",
        ) from error


def _check_port(setting: str, host: str, port: int) -> None:
    """Find out now that a port is taken: with Ray it takes seconds until it is needed."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise ResourceError(
            f"nothing can be served on {host}:{port}: {error.strerror}",
            where=f"{setting}.port",
            hint="choose another port, or 0 for a free one",
        ) from error


TARGET = EcgTarget()
