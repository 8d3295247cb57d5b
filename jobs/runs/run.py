"""A run: one training as one folder, on this machine or in a store. The same name resumes the same run."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from genray.bundle import name_weights_by_content, read_manifest
from genray.errors import BundleError, GenrayError, RunError, SettingsError, error_from_json
from genray.io.bad_input import BadInput
from genray.io.files import lock_file, remove_leftovers, storage_errors, write_json, write_text
from genray.io.lease import Lease
from genray.io.store import Store, open_store
from genray.settings.yaml_reader import parse_yaml
from genray.uris import below, is_uri
from jobs.runs.mirror import RunMirror
from jobs.runs.outcome import TrainingOutcome

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_LEASE = ".lease.json"
_LOOK_S = 3.0  # seconds between looks at a store for a request to stop


@dataclass(frozen=True)
class SettingsRecord:
    """Settings of a run as its folder stores them, and which of them may change when it resumes.

    Attributes:
        values: all settings, flat (see `flatten`).
        defaults: values of settings that did not exist yet when the run was made.
        changeable: settings, and groups of them (ending in a dot), that may differ.
    """

    values: Mapping[str, Any]
    defaults: Mapping[str, Any]
    changeable: Collection[str]


@dataclass(frozen=True)
class SettingChange:
    """A setting (or a fact of the data) that differs from the run's."""

    key: str
    before: Any
    after: Any

    def __str__(self) -> str:
        return f"{self.key}: {self.before!r} -> {self.after!r}"


def is_listed(key: str, listed: Collection[str]) -> bool:
    """Return whether `listed` contains `key`, or a group that it is in (as "eval." or
    "sweep.settings.eval.")."""
    return key in listed or key.startswith(tuple(group for group in listed if group.endswith(".")))


class Run:
    """A run: its folder, or its place in a store with a working copy on this machine, and the paths of its
    files; making one opens nothing.

    Responsible for: the lock, the settings that a resumed run may change, requests to stop, inputs that are
    set aside, failures and the outcome. Checkpoints are written by the loop, the report by `report.py`;
    whoever wrote files calls `publish`, and whoever needs those of other processes `refresh` or `fetch`.
    Transfers are the mirror's.

    Args:
        folder: the run's folder, or its working copy.
        mirror: the store that the working copy belongs to; None: the run is the folder.
    """

    def __init__(self, folder: Path, mirror: RunMirror | None = None) -> None:
        self.folder = folder
        self.name = folder.name
        self.location = mirror.location if mirror else str(folder)
        self.settings = folder / "settings.yaml"
        self.checkpoints = folder / "checkpoints"
        self.last_checkpoint = self.checkpoints / "last.safetensors"
        self.best_checkpoint = self.checkpoints / "best.safetensors"
        self.history = folder / "history.jsonl"
        self.curves = folder / "loss_curves.png"
        self.samples = folder / "samples"
        self.set_aside = folder / "set_aside.jsonl"
        self.bundle = folder / "bundle"
        self.outcome = folder / "outcome.json"
        self.progress = folder / "progress.json"
        self.notes = folder / "notes.log"
        self._data = folder / "data.json"
        self._stop = folder / "stop"
        self._failure = folder / "failure.json"
        self._set_aside_paths: set[str] | None = None  # read on first use
        self._mirror = mirror
        self._asked_to_stop = False
        self._looked = float("-inf")

    @classmethod
    def named(cls, runs: str, name: str | None, target: str) -> Run:
        """Return the run `name` in the folder or store `runs`; without a name, a new run named by target and
        time.

        Raises:
            RunError: the name is not a plain folder name, or other processes do not see the store.
        """
        name = name or f"{target}-{datetime.now():%Y%m%d-%H%M%S}"
        if not _NAME.fullmatch(name):
            raise RunError(
                f"{name!r} cannot be the name of a run",
                hint="use letters, digits, '.', '_' and '-', with a letter or digit first",
            )
        if runs.startswith("memory:"):
            raise RunError(
                f"{runs} is the memory of one process, and would be lost with it",
                where="runs",
                hint="give a folder, or a store as s3://BUCKET/runs or gs://BUCKET/runs",
            )
        return cls.at(below(runs, name))

    @classmethod
    def at(cls, location: str | Path) -> Run:
        """Return the run at `location`, a folder or URI."""
        location = str(location).removeprefix("file://")
        if not is_uri(location):
            return cls(Path(location).expanduser().absolute())
        mirror = RunMirror(location)
        return cls(mirror.folder, mirror)

    @classmethod
    def read_at(cls, location: str | Path) -> Run:
        """Return the run at `location`, a folder (links in its path are followed) or URI, with its files and
        the weights of its bundle, to be read.

        Raises:
            DataError: the store cannot be opened.
            TrainingError: it does not answer.
        """
        run = cls.at(location)
        if not run.is_remote:
            return cls(run.folder.resolve())
        run.refresh()
        with suppress(BundleError):
            run.fetch(run.bundle / read_manifest(run.bundle).weights)
        return run

    @property
    def is_remote(self) -> bool:
        """Whether the run is in a store, and its folder a working copy."""
        return self._mirror is not None

    @property
    def store(self) -> Store:
        """The store of the run, or its folder as one.

        Raises:
            DataError: it cannot be opened.
        """
        return self._mirror.store if self._mirror is not None else open_store(self.folder)

    def place(self, file: Path) -> str:
        """Return the path or URI of a file of the run, for a person."""
        return below(self.location, *file.relative_to(self.folder).parts)

    def publish(self) -> None:
        """Bring the files that this process changed to the run's store, if it has one.

        Raises:
            TrainingError: the store does not take them.
        """
        if self._mirror is not None:
            self._mirror.publish()

    def publish_bundle(self) -> None:
        """Bring the new bundle to the run's store, if it has one, so that a reader finds the old bundle or
        the new one.

        Raises:
            TrainingError: the store does not take it.
        """
        if self._mirror is not None:
            name_weights_by_content(self.bundle)
            self._mirror.publish()

    def discard_copy(self) -> None:
        """Delete the working copy of a run in a store: Ray kills its workers, which then delete nothing."""
        if self._mirror is not None:
            self._mirror.discard()

    def refresh(self) -> None:
        """Get the files that other processes changed, except checkpoints and weights, from the run's store,
        if it has one.

        Raises:
            TrainingError: the store does not answer.
        """
        if self._mirror is not None:
            self._mirror.refresh()

    def fetch(self, *files: Path) -> None:
        """Get these files from the run's store, if it has one and another process changed them.

        Raises:
            TrainingError: the store does not answer.
        """
        if self._mirror is not None:
            for file in files:
                self._mirror.fetch(file)

    def send(self, file: Path) -> None:
        """Bring one file to the run's store, if it has one.

        Raises:
            TrainingError: the store does not take it.
        """
        if self._mirror is not None:
            self._mirror.send(file)

    def remove(self, file: Path) -> None:
        """Delete a file of the run, here and in its store.

        Raises:
            TrainingError: the store does not answer.
        """
        if self._mirror is not None:
            self._mirror.remove(file)
        else:
            file.unlink(missing_ok=True)

    def has_checkpoint(self) -> bool:
        """Return whether there is a checkpoint to resume from.

        Raises:
            TrainingError: the store does not answer.
        """
        if self._mirror is not None:
            return self._mirror.exists(self.last_checkpoint)
        return self.last_checkpoint.exists()

    @contextmanager
    def locked(self, note: Callable[[str], None] = lambda text: None) -> Iterator[None]:
        """Lock the run for this process. The kernel releases the lock of a folder when the process ends; that
        of a store expires, and is waited for.

        Args:
            note: shows what is waited for.

        Raises:
            RunError: another process has the lock, or the folder or store cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / ".lock").touch()
        except OSError as error:
            raise RunError(
                f"the folder of the run cannot be made ({error})",
                hint="choose another folder with --set runs=..., or change its permissions",
            ) from error
        with lock_file(self.folder / ".lock") as held:
            if not held:
                raise self._in_use()
            if self._mirror is not None:
                with self._leased(self._mirror, note):
                    yield
                return
            for folder in (self.folder, self.checkpoints, self.samples):
                remove_leftovers(folder)
            yield

    @contextmanager
    def _leased(self, mirror: RunMirror, note: Callable[[str], None]) -> Iterator[None]:
        def waiting(seconds: float) -> None:
            note(
                f"waiting up to {seconds:.0f} s for the lock of another process, which may have been killed: "
                f"{self.location}"
            )

        with ExitStack() as stack:
            try:
                held = stack.enter_context(Lease(mirror.store, _LEASE).hold(waiting))
            except OSError as error:
                raise RunError(
                    f"the run cannot be locked in its store ({error})",
                    where=self.location,
                    hint="check that the bucket exists, the credentials, their permissions and the network",
                ) from error
            if not held:
                raise self._in_use()
            mirror.refresh()
            yield

    def _in_use(self) -> RunError:
        return RunError(
            f"the run {self.name} is in use by another process",
            where=self.location,
            hint="wait until it finishes, or give another --name",
        )

    def changes(self, settings: SettingsRecord) -> list[SettingChange]:
        """Return how `settings` differ from those of the run.

        Raises:
            RunError: a setting differs that the weights depend on, or `settings.yaml` is damaged.
        """
        if not self.settings.exists():
            return []
        try:
            # Other kinds of the same group have settings that this kind lacks.
            defaults = {k: value for k, value in settings.defaults.items() if k in settings.values}
            before = {
                **defaults,
                **parse_yaml(self.settings.read_text(encoding="utf-8"), self.place(self.settings)),
            }
        except (SettingsError, TypeError, ValueError) as error:
            raise self._damaged(self.settings) from error
        changes = _differences(before, settings.values)
        self._refuse([c for c in changes if not is_listed(c.key, settings.changeable)], self.settings)
        return changes

    def adopt(self, settings: SettingsRecord, data: Mapping[str, Any]) -> list[SettingChange]:
        """Write these settings and facts of the data to the run's folder; returns `changes`.

        Raises:
            RunError: see `changes`; or the data differs from the run's.
        """
        changes = self.changes(settings)
        if self._data.exists():
            try:
                before = json.loads(self._data.read_text(encoding="utf-8"))
            except ValueError as error:
                raise self._damaged(self._data) from error
            differences = _differences(before, data)
            # Files that are not read change nothing, nor do facts that an earlier version did not record.
            known = before.keys() - {"not_read"}
            self._refuse([change for change in differences if change.key in known], self._data)
        write_text(self.settings, yaml.safe_dump(dict(settings.values), sort_keys=False))
        write_json(self._data, dict(data))
        self.publish()
        return changes

    def _refuse(self, changes: Collection[SettingChange], file: Path) -> None:
        """Raise if there are any changes."""
        if not changes:
            return
        thing = "data" if file == self._data else "settings"
        raise RunError(
            f"the run {self.name} was made with other {thing}:\n"
            + "\n".join(f"    {change}" for change in changes),
            where=self.place(file),
            hint=f"give another --name, or the {thing} of the run",
        )

    def _damaged(self, file: Path) -> RunError:
        return RunError(
            f"{file.name} of the run {self.name} is damaged",
            where=self.place(file),
            hint="move the run's folder away, or give another --name",
        )

    def request_stop(self) -> None:
        """Ask the training, which may run in another process or on another node, to stop after its step."""
        self._asked_to_stop = True
        self.folder.mkdir(parents=True, exist_ok=True)
        self._stop.touch()
        self.send(self._stop)

    def stop_requested(self) -> bool:
        """Return whether a stop was requested. The check of one file takes a few microseconds; a store is
        looked at every few seconds."""
        if self._mirror is None:
            return self._stop.exists()
        now = time.monotonic()
        if not self._asked_to_stop and now - self._looked > _LOOK_S:
            self._looked = now
            self._asked_to_stop = self._mirror.exists(self._stop)
        return self._asked_to_stop

    def clear_stop(self) -> None:
        """Delete an old request."""
        self.remove(self._stop)
        self._asked_to_stop = False

    def add_set_aside(self, bad: BadInput) -> None:
        """List an input that is set aside; each input is listed once."""
        if self._set_aside_paths is None:
            self._set_aside_paths = {row["path"] for row in self.read_set_aside()}
        if bad.path not in self._set_aside_paths:
            self._set_aside_paths.add(bad.path)
            with storage_errors(self.set_aside), self.set_aside.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(bad)) + "\n")

    def read_set_aside(self) -> list[dict[str, str]]:
        """Return the inputs that were set aside: path, reason (a key of `genray.io.bad_input.REASONS`),
        detail."""
        return _read_lines(self.set_aside)  # an input whose line is incomplete is found and listed again

    def read_history(self) -> list[dict[str, Any]]:
        """Return the rows of the epochs so far: epoch, losses, metrics of validation (val_...), seconds."""
        return _read_lines(self.history)

    def write_failure(self, error: GenrayError) -> None:
        """Write the error of one worker for its group, which is about to be restarted."""
        write_json(self._failure, error.as_json())
        self.send(self._failure)

    def read_failure(self) -> GenrayError | None:
        """Return the error that a worker wrote, if any."""
        try:
            failure = json.loads(self._failure.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return error_from_json(failure)

    def clear_failure(self) -> None:
        """Delete the error."""
        self.remove(self._failure)

    def read_outcome(self) -> TrainingOutcome | None:
        """Return the outcome of the finished run; None if it is unfinished, or its bundle is missing."""
        if not (self.bundle / "bundle.json").exists():
            return None
        try:
            values = json.loads(self.outcome.read_text(encoding="utf-8"))
            return TrainingOutcome.from_json(values, self.location)
        except (FileNotFoundError, KeyError, TypeError, ValueError, AttributeError):
            return None

    def write_outcome(self, outcome: TrainingOutcome) -> None:
        """Mark the run as finished."""
        write_json(self.outcome, outcome.as_json())
        self.publish()


def _differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[SettingChange]:
    keys = sorted(after.keys() | before.keys())
    changes = [SettingChange(key, before.get(key), after.get(key)) for key in keys]
    return [change for change in changes if change.before != change.after]


def _read_lines(file: Path) -> list[dict[str, Any]]:
    """Return the JSON objects of a file of lines; incomplete lines, such as after a kill, are skipped."""
    if not file.exists():
        return []
    rows = []
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        with suppress(ValueError):
            rows.append(json.loads(line))
    return rows
