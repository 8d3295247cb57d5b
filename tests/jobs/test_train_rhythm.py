from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genray.bundle import load_bundle, summarise
from genray.datasets.rhythms import RhythmDataSettings, group_of, open_rhythm_set
from genray.ecg.records.wfdb import write_wfdb
from genray.ecg.synthesis import Episode, generate
from genray.ecg.ventricular import BEAT_FEATURES, is_like_usual
from genray.errors import DataError
from monitors.evaluation.rhythm_models import RhythmModels
from monitors.patient.rhythm.ventricular import RhythmModel
from tests.genray.ecg.rhythms import wide_beats, write_unannotated, write_ventricular_record

Submit = Callable[..., dict[str, Any]]
QUICK = ("loop.epochs=4", "loop.batch_size=64", "cross.folds=2")


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three records with rhythms, one with beats, and one that is not annotated."""
    folder = tmp_path_factory.mktemp("records")
    for seed in range(3):
        write_ventricular_record(folder / f"a{seed}.hea", seed)
    made = generate(60.0, 250.0, seed=5, script=[Episode("pvc", 20, 40)])
    write_wfdb(folder / "b.hea", made.millivolts, 250.0, ("II", "V1"), made.peaks, made.symbols)
    write_unannotated(folder / "c.hea", made.millivolts, 250.0)
    return folder


def test_a_model_is_trained_and_judged_on_records_that_it_was_not_trained_on(
    submit: Submit, records: Path
) -> None:
    outcome = submit("train-rhythm", "a", f"data.path={records}", *QUICK)
    metrics = outcome["metrics"]
    assert metrics["window_auc"] > 0.9
    assert metrics["beat_auc"] > 0.9
    assert {"window_sensitivity", "window_specificity", "beat_sensitivity", "beat_specificity"} <= set(
        metrics
    )
    bundle = load_bundle(outcome["bundle"])
    assert bundle.manifest.kind == "rhythm"
    assert bundle.manifest.data["left_out"] == {"c": "no annotated rhythm, beat or bedside alarm"}
    assert RhythmModel.from_bundle(bundle)
    assert summarise(Path(outcome["bundle"]))
    check_folds(Path(outcome["bundle"]).parent / "folds")


def check_folds(folder: Path) -> None:
    """Check that each record is judged by a model that was trained on others."""
    models = RhythmModels.of_folds(folder)
    shares = models.shares(["records/a0", "a1", "a2", "b", "another"])
    assert len(shares) == 2
    assert sorted(name for _, names in shares for name in names) == ["a1", "a2", "another", "b", "records/a0"]
    for model, names in shares:
        patients = next(
            known for each, known in zip(models.models, models.patients, strict=True) if each is model
        )
        assert patients
        assert not patients & {group_of(name) for name in names}
    with pytest.raises(DataError, match="all 1 rhythm models were trained on the patient of a0"):
        RhythmModels(models.models[:1], (frozenset({"a0"}),)).shares(["a0"])
    with pytest.raises(DataError, match="RUN/folds"):
        RhythmModels.of_folds(folder / "fold-1")


def test_records_can_be_left_out_and_those_of_one_patient_stay_together(records: Path) -> None:
    found = open_rhythm_set(RhythmDataSettings(path=str(records), leave_out=("a1",)), lambda text: None)
    assert found.names == ("a0", "a2", "b")
    assert found.left_out["a1"] == "data.leave_out"
    assert found.weights.mean() == pytest.approx(1)
    assert group_of("nstdb/118e06") == group_of("mitdb/118") == "118"
    assert group_of("a103l") == "a103l"


def test_beats_of_a_tachycardia_are_also_trained_on_as_at_its_onset(tmp_path: Path) -> None:
    write_ventricular_record(tmp_path / "a.hea", 0)
    rate, begin, count = 250.0, 30, 30
    made = generate(60.0, rate, seed=5)
    first = round(begin * rate)
    made.millivolts[first : first + round(15 * rate)] = wide_beats(15, rate, 120)[:, None]
    wide = first + ((0.1 + 0.5 * np.arange(count)) * rate).astype(int)
    narrow = made.peaks[(made.peaks < first) | (made.peaks > first + 15.5 * rate)]
    peaks = np.concatenate([narrow, wide])
    symbols = np.array(["N"] * len(narrow) + ["V"] * count)
    order = np.argsort(peaks)
    write_wfdb(tmp_path / "d.hea", made.millivolts, rate, ("II", "V1"), peaks[order], list(symbols[order]))
    found = open_rhythm_set(RhythmDataSettings(path=str(tmp_path)), lambda text: None)
    samples = found.samples
    ventricular = samples.beat & (samples.labels == 1) & (samples.records == found.names.index("d"))
    beats, onsets = np.split(samples.features[ventricular], [count])
    assert 5 <= is_like_usual(beats).sum() == len(onsets)
    assert not is_like_usual(onsets).any()
    ratios = np.exp(onsets[:, BEAT_FEATURES - 2])
    assert (ratios < 0.8).all(), "faster than the rhythm before"


@pytest.mark.parametrize(
    ("left_out", "words"), [(("a*",), "no windows"), (("*",), "no record has annotated")]
)
def test_records_without_one_of_the_classes_are_refused(
    records: Path, left_out: tuple[str, ...], words: str
) -> None:
    with pytest.raises(DataError, match=words) as error:
        open_rhythm_set(RhythmDataSettings(path=str(records), leave_out=left_out), lambda text: None)
    assert "vfdb" in str(error.value)
