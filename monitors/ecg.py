"""ecg: watches streams of ECG by a bundle of normal beats, and alerts. It is no medical device."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from genray.bundle import load_bundle
from genray.progress import Display
from genray.resources import Demand, Resources
from genray.stopping import stoppable
from monitors.ecg_settings import EcgSettings
from monitors.journal import Journal
from monitors.monitor import DISCLAIMER, Monitor
from monitors.pseudonym import load_key
from monitors.scoring import Scorer
from monitors.shards import Here, OnRay, Running
from monitors.sources import make_source


class Ecg:
    """What the command needs of the monitor."""

    settings_class = EcgSettings

    def prepare(
        self, settings: EcgSettings, target: str, name: str | None, note: Callable[[str], None]
    ) -> PreparedEcg:
        """Find what is wrong with the settings, the bundle and the state. `name` is not used: a monitor is
        known by its `state`.

        Raises:
            UsageError, BundleError: it cannot work.
        """
        return PreparedEcg(settings, target)


class PreparedEcg:
    """A monitor that was checked."""

    def __init__(self, settings: EcgSettings, target: str) -> None:
        self._settings, self._target = settings, target
        bundle = load_bundle(Path(settings.bundle))
        Scorer(bundle)
        make_source(settings.source)
        self._key = load_key(self.folder / "stream.key")
        self._made_by = f"{bundle.path}: {bundle.manifest.kind}"

    @property
    def lines(self) -> Sequence[str]:
        """What will be watched, for a person."""
        return [DISCLAIMER, f"source: {self._settings.source.kind}", f"bundle: {self._made_by}"]

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
            target, state (folder), seconds, streams, beats, and alarms by kind.

        Raises:
            GenrayError: a port or the journal is taken; a source can never be opened.
        """
        return asyncio.run(self._run(display))

    async def _run(self, display: Display) -> dict[str, Any]:
        settings = self._settings
        shards: list[Running] = [Here(settings, self._key)]
        if settings.shards:
            shards = [OnRay(settings, self._key, i, settings.shards) for i in range(settings.shards)]
        loop, asked = asyncio.get_running_loop(), asyncio.Event()
        with Journal(self.folder / "journal.sqlite", ("alertmanager",), settings.journal) as journal:
            monitor = Monitor(settings, shards, journal, display)

            def stop() -> None:
                asked.set()
                loop.call_soon_threadsafe(monitor.stop)

            with stoppable(asked.is_set, stop):
                outcome = await monitor.run()
        return {"target": self._target, "run": str(self.folder), **outcome}


_NOTHING = Demand((1, 1), 0.0, 0.0, 0.0)

TARGET = Ecg()
