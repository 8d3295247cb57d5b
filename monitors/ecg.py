"""ecg: watches streams of ECG by a bundle of normal beats, and alerts. It is no medical device."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from genray.bundle import Bundle, load_bundle
from genray.errors import BundleMissing, ResourceError, SettingsError
from genray.interrupts import stoppable
from genray.progress import Display
from genray.targets import Demand, Resources
from monitors.outputs.journal import Journal
from monitors.patient.scoring import Scorer
from monitors.service.backends import LocalBackend, RayBackend, ShardBackend
from monitors.service.dispatcher import DISCLAIMER
from monitors.service.monitor import Monitor
from monitors.settings import EcgSettings
from monitors.sources import make_source
from monitors.sources.pseudonyms import Pseudonyms, load_key
from monitors.sources.replay import ReplaySettings, check_replay


class Ecg:
    """What the command needs of the monitor."""

    settings_class = EcgSettings

    def prepare(
        self, settings: EcgSettings, target: str, name: str | None, note: Callable[[str], None]
    ) -> PreparedEcg:
        """Find what is wrong with the settings, the bundle, the state and the ports. `name` is not used: a
        monitor is known by its `state`.

        Raises:
            UsageError, BundleError: it cannot work.
        """
        return PreparedEcg(settings, target)


class PreparedEcg:
    """A monitor that was checked."""

    def __init__(self, settings: EcgSettings, target: str) -> None:
        self._settings, self._target = settings, target
        bundle = _bundle(Path(settings.bundle))
        Scorer(bundle)
        make_source(settings.source)
        if isinstance(settings.source, ReplaySettings):
            check_replay(settings.source)
        _writable(self.folder)
        self._key = load_key(self.folder / "stream.key")
        with self._journal():  # held by another monitor, damaged, not one
            pass
        _free("metrics", settings.metrics.host, settings.metrics.port)
        if settings.page.port is not None:
            _free("page", settings.page.host, settings.page.port)
        self._made_by = f"{bundle.path}: {bundle.manifest.kind}"

    @property
    def lines(self) -> Sequence[str]:
        """What will be watched, for a person."""
        return [DISCLAIMER, f"source: {self._settings.source.kind}", f"bundle: {self._made_by}"]

    def _journal(self) -> Journal:
        return Journal.open(self.folder / "journal.sqlite", ("alertmanager",), self._settings.journal)

    @property
    def folder(self) -> Path:
        """Where the journal is."""
        return Path(self._settings.state)

    def needs_ray(self, attached: bool) -> bool:
        """Whether Ray has to run."""
        return self._settings.shards > 0

    def demand(self, have: Resources) -> Demand:
        """A CPU for each shard."""
        shards = self._settings.shards
        return Demand((shards, shards), 1.0, 0.0, 0.0, where="shards") if shards else _NOTHING

    def run(self, display: Display, have: Resources, attached: bool) -> Mapping[str, Any]:
        """Watch until the source is over, the time is up, or Ctrl-C.

        Returns:
            target, run (the folder of its state), and what `Monitor.run` gives.

        Raises:
            GenrayError: a port or the journal is taken; a source can never be opened.
        """
        return asyncio.run(self._run(display))

    async def _run(self, display: Display) -> dict[str, Any]:
        settings = self._settings
        shards: list[ShardBackend] = [LocalBackend(settings, self._key)]
        if settings.shards:
            shards = [RayBackend(settings, self._key, i, settings.shards) for i in range(settings.shards)]
        loop, asked = asyncio.get_running_loop(), asyncio.Event()
        with self._journal() as journal:
            monitor = Monitor(settings, shards, journal, Pseudonyms(self._key).of, display)

            def stop() -> None:
                asked.set()
                loop.call_soon_threadsafe(monitor.stop)

            with stoppable(asked.is_set, stop):
                outcome = await monitor.run()
        return {"target": self._target, "run": str(self.folder), **outcome}


def _bundle(path: Path) -> Bundle:
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


def _writable(folder: Path) -> None:
    """Find out now that nothing can be kept."""
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


def _free(setting: str, host: str, port: int) -> None:
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


_NOTHING = Demand((1, 1), 0.0, 0.0, 0.0)

TARGET = Ecg()
