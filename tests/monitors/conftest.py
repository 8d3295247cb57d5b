"""What tests of the monitor share: a small bundle that knows normal generated beats, and certificates."""

from __future__ import annotations

from pathlib import Path

import pytest

from genray.bundle import load_bundle
from monitors.patient.scoring import BeatModel
from tests.monitors.bundles import fit_beats
from tests.monitors.certificates import write_certificates


@pytest.fixture(scope="session")
def beat_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of `fit_beats`."""
    return fit_beats(tmp_path_factory.mktemp("beats") / "bundle")


@pytest.fixture(scope="session")
def beat_model(beat_bundle: Path) -> BeatModel:
    """The beat_model of `beat_bundle`."""
    return BeatModel.from_bundle(load_bundle(beat_bundle))


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `write_certificates`."""
    return write_certificates(tmp_path_factory.mktemp("keys"))
