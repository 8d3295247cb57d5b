from pathlib import Path

import numpy as np
import pytest

from genray.ecg.beats import UNKNOWN, BeatSettings, RecordBeats, read_record_beats
from genray.ecg.records.open import open_record
from genray.errors import DataError
from tests.beat_files import write_record


def read(path: Path, leads: tuple[str, ...] = ("II", "MLII"), detected: bool = False) -> RecordBeats:
    return read_record_beats(
        open_record(path), BeatSettings(), leads, "detected" if detected else "annotated"
    )


def test_annotated_beats_have_their_aami_classes(tmp_path: Path) -> None:
    write_record(tmp_path, "a", "NNVLRSFN")
    beats = read(tmp_path / "a.hea")
    assert beats.classes == list("NNVNNSFN")
    assert (beats.values.shape, beats.leads) == ((8, 140), ("MLII",))
    assert np.abs(beats.values[0].argmax() - 50) <= 3, "the spike is a quarter of a second after the start"


def test_all_leads_give_beats_of_their_own(tmp_path: Path) -> None:
    write_record(tmp_path, "a", "NNV")
    beats = read(tmp_path / "a.hea", leads=())
    assert beats.leads == ("MLII", "V1")
    assert beats.classes == list("NNVNNV")
    np.testing.assert_allclose(beats.values[3:], -0.5 * beats.values[:3], atol=0.002)


def test_detected_peaks_take_the_classes_of_annotated_ones_nearby(tmp_path: Path) -> None:
    write_record(tmp_path, "a", "N" * 30)
    found = read(tmp_path / "a.hea", detected=True)
    assert found.classes.count("N") >= 25


def test_without_annotations_peaks_are_detected_and_nobody_knows_their_classes(tmp_path: Path) -> None:
    write_record(tmp_path, "a", "N" * 30)
    (tmp_path / "a.atr").unlink()
    beats = read(tmp_path / "a.hea")
    assert len(beats.values) >= 25
    assert set(beats.classes) == {UNKNOWN}


def test_a_record_without_the_lead_says_which_it_has(tmp_path: Path) -> None:
    write_record(tmp_path, "a", "NN")
    with pytest.raises(DataError, match="none of the leads II, but MLII, V1"):
        read(tmp_path / "a.hea", leads=("II",))


def test_a_record_without_beats_is_refused(tmp_path: Path) -> None:
    write_record(tmp_path, "a", "")
    with pytest.raises(DataError, match="no beats"):
        read(tmp_path / "a.hea")
