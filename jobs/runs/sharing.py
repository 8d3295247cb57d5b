"""Proof that the workers of a training see the run, and that their model lies there when it is over."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from genray.bundle import read_manifest, verify_bundle
from genray.errors import BundleError, RunError, TrainingError
from genray.io import proof
from jobs.runs.outcome import FinalMetrics
from jobs.runs.run import Run

_PROOF = ".proof"


@contextmanager
def written_proof(run: Run) -> Iterator[str]:
    """Write a proof to the run for a `with` block; yields its text for `unseen_here`.

    Raises:
        RunError: the run cannot be written.
    """
    with proof.written_proof(run.store, _PROOF) as token:
        yield token


def unseen_here(run: Run, token: str) -> str | None:
    """Return why this process does not see, or cannot write, the run in which the driver wrote `token`; None
    if it can."""
    return proof.unseen_here(run.location, _PROOF, token)


def unseen_error(run: Run, problems: Sequence[str]) -> RunError:
    """Return the error for workers that do not see the run, for the reasons `problems`."""
    return proof.unseen_error(run.location, "runs", problems)


def check_left(run: Run, metrics: FinalMetrics) -> None:
    """Check after a training that the run holds its bundle, whatever the workers returned.

    Raises:
        TrainingError: the bundle is missing, damaged, or of another training than the one with `metrics`.
    """
    try:
        run.fetch(run.bundle / read_manifest(run.bundle).weights)
        manifest = verify_bundle(run.bundle)
        if manifest.metrics == metrics.as_json():
            return
        problem = f"that of {manifest.created} is there, with other metrics"
    except BundleError as error:
        problem = error.what
    raise TrainingError(
        f"the training ended, but its bundle does not lie in the run ({problem})",
        where=run.location,
        hint=f"look whether something else writes there; the same command with --name {run.name} writes the "
        "bundle again",
    )
