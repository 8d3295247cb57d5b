"""Errors that genray raises on purpose; each says what was wrong, where, and what to do next.

    GenrayError                exit code 1: something failed while running
    ├── ClusterError           a Ray cluster that does not answer, or refuses the request
    ├── TrainingError          a training that cannot continue
    │   └── Diverged           a loss or weight that is NaN, infinite or above the limit
    ├── BulkError              a bulk run that cannot continue
    ├── StorageFull            no space for an output; the previous one is intact
    ├── Interrupted            stopped on request; the same command resumes (exit code 130)
    └── UsageError             exit code 2: the request cannot work; nothing was started
        ├── SettingsError      an unknown key, a wrong type, values that contradict each other
        │   └── YamlTooMuch        a settings file whose aliases, size or nesting are beyond the limits
        ├── DataError          missing data, no pairs, images too small, too many broken ones
        ├── BundleError        a bundle that cannot be used
        │   ├── BundleMissing      no such folder, or a file of it is missing or unreadable
        │   ├── BundleTooNew       written by a later version of genray
        │   ├── BundleUnknown      it names a network or setting that genray does not have
        │   ├── BundleMismatch     its weights do not fit its network, or it is for another use
        │   └── BundleUnsafe       a path outside the folder, or an implausibly large file
        ├── ResourceError      more workers, CPUs or GPUs than there are
        └── RunError           a run name that is taken, busy, or was made with other settings

Library errors are caught where they arise and turned into one of these; anything else that reaches
the command is a bug and shows its traceback.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from genray.uris import without_secrets


class GenrayError(Exception):
    """Base of genray's errors. Secrets in URIs are removed from the text, which may come from a library.

    Args:
        what: what was wrong, naming the thing that was asked for.
        where: the file, line, key or step, if there is one.
        hint: what to do next.
    """

    exit_code = 1
    agreed = False
    """True if all workers of a group raise this error together, so that none waits for another."""
    advice: str | None = None
    """Hint of an error that is raised without its own."""

    def __init__(self, what: str, *, where: str | None = None, hint: str | None = None) -> None:
        self.what = without_secrets(what)
        super().__init__(self.what)
        self.where = where and without_secrets(where)
        hint = hint or self.advice
        self.hint = hint and without_secrets(hint)

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.hint:
            lines.append(f"  next:  {self.hint}")
        return "\n".join(lines)

    def as_json(self) -> dict[str, str | None]:
        """Return plain values, for another process or a file; `error_from_json` restores the error."""
        return {"kind": type(self).__name__, "what": self.what, "where": self.where, "hint": self.hint}

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions with keyword arguments do not survive pickling between Ray workers otherwise.
        return (error_from_json, (self.as_json(),))


def error_from_json(values: Mapping[str, str | None]) -> GenrayError:
    """Return the error that `GenrayError.as_json` wrote; a plain `GenrayError` if this version does not have
    its kind."""
    kind = globals().get(values.get("kind") or "")
    if not (isinstance(kind, type) and issubclass(kind, GenrayError)):
        kind = GenrayError
    return kind(values.get("what") or "", where=values.get("where"), hint=values.get("hint"))


class ClusterError(GenrayError):
    """A Ray cluster that cannot be reached or refuses the request."""


class TrainingError(GenrayError):
    """A training that cannot continue."""


class Diverged(TrainingError):
    """A loss or a weight became NaN, infinite or larger than the limit."""


class BulkError(GenrayError):
    """A bulk run that cannot continue; what it recorded so far is intact."""


class StorageFull(GenrayError):
    """There was no space for an output; the output that it would have replaced is unchanged."""


class Interrupted(GenrayError):
    """The run was asked to stop, and first wrote what it needs to resume."""

    exit_code = 130


class UsageError(GenrayError):
    """The request cannot work; found before anything started."""

    exit_code = 2


class SettingsError(UsageError):
    """Settings that are unknown, of the wrong type, or contradict each other."""


class YamlTooMuch(SettingsError):
    """A settings file whose aliases, size or nesting are beyond `genray.settings.yaml_reader.YamlLimits`."""


class DataError(UsageError):
    """Data that is missing, unpaired, too small, or too often broken."""


class BundleError(UsageError):
    """A bundle that cannot be used."""


class BundleMissing(BundleError):
    """The bundle's folder, or one of its files, is missing or unreadable."""


class BundleTooNew(BundleError):
    """The bundle was written in a later format than this version reads."""


class BundleUnknown(BundleError):
    """The bundle names a network or setting that does not exist here."""

    advice = "use the version of genray that wrote the bundle, or train it again with this one"


class BundleMismatch(BundleError):
    """A tensor is missing, superfluous, or of another shape or type than the network's."""

    advice = "its files come from different bundles or were edited: copy it again, or train it again"


class BundleUnsafe(BundleError):
    """A path in the bundle leads outside its folder, or a file is implausibly large."""

    advice = "genray does not write such bundles: get the bundle from its author again, or train it again"


class ResourceError(UsageError):
    """A request that the machine or cluster cannot satisfy, or that would starve Ray."""


class RunError(UsageError):
    """A run folder that is in use, or belongs to other settings."""
