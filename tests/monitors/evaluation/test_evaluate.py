import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from genray.bundle import load_bundle, save_bundle
from genray.cli.main import main
from genray.ecg.beats import BeatPreprocessing
from genray.ecg.records.open import open_record
from genray.ecg.records.wfdb import write_wfdb
from genray.ecg.synthesis import Episode, generate, write_records
from genray.models.registry import NetworkSpec
from monitors.alarms.limits import Limits
from monitors.evaluation.evaluate import AnnotatedRecord, RecordResult, evaluate, read_truth
from monitors.evaluation.rhythm_models import RhythmModels
from monitors.evaluation.tables import total_tables
from monitors.evaluation.totals import Totals
from monitors.patient.rhythm.ventricular import ready_rhythm_model
from monitors.patient.scoring import BeatModel
from monitors.patient.ward import WardSettings

MINUTES = "ward.reference.minutes=0.5"


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a network that has learned nothing: all beats surprise it as much. What is found is found by the
    reference and the rhythm."""
    torch.manual_seed(0)
    spec = NetworkSpec("beats-dense", {"samples": 140, "settings": {"kind": "dense", "members": 1}})
    network = spec.build()
    for weights in network.parameters():
        torch.nn.init.zeros_(weights)
    return save_bundle(
        tmp_path_factory.mktemp("bundle") / "bundle",
        network,
        spec,
        kind="ecg-beats",
        preprocessing=BeatPreprocessing(
            before=0.25, after=0.45, samples=140, normalisation="zscore", leads=("II",)
        ),
        metrics={},
        seed=0,
        data={},
        calibration={"threshold": 1.0, "error": "mse"},
    )


@pytest.fixture(scope="session")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four patients; the last minute of the second and the fourth is full of ventricular beats."""
    folder = tmp_path_factory.mktemp("records")
    for number in range(1, 5):
        script = [] if number % 2 else [Episode("pvc", 120, 60, share=0.6)]
        made = generate(180.0, seed=number, script=script)
        path = folder / f"patient-{number}.hea"
        write_wfdb(path, made.millivolts, 360.0, ("II", "V1"), made.peaks, made.symbols)
    return folder


def judge(bundle: Path, *paths: Path) -> tuple[list[RecordResult], Totals]:
    annotated: dict[str, AnnotatedRecord] = {}
    for path in paths:
        record = open_record(path)
        truth = read_truth(record)
        assert truth is not None
        annotated[path.stem] = AnnotatedRecord(record, truth)
    reference = WardSettings().reference.model_copy(update={"minutes": 0.5})
    settings = WardSettings().model_copy(update={"reference": reference})
    model = BeatModel.from_bundle(load_bundle(bundle))
    results = evaluate(
        annotated, model, settings, Limits(), RhythmModels.one(ready_rhythm_model()), lambda share: None
    )
    return results, Totals.of(results)


def test_generated_patients_are_judged_end_to_end(bundle: Path, records: Path) -> None:
    results, totals = judge(bundle, *sorted(records.glob("*.hea")))
    assert [result.episodes > 0 for result in results] == [False, True, False, True]
    assert totals.alarms.share == 1
    assert totals.alarms.anomaly.false == 0
    assert totals.alarms.delay_median is not None
    assert 0 <= totals.alarms.delay_median < 10
    assert (totals.qrs.all_leads.sensitivity or 0) > 0.98
    assert (totals.qrs.all_leads.positive_predictivity or 0) > 0.99
    assert totals.qrs.all_leads_after_5_minutes.beats == 0
    assert (totals.qrs.one_lead.sensitivity or 0) > 0.98
    auc = totals.beat_auc
    assert (auc.with_reference or 0) > 0.98
    assert (auc.without or 0) > 0.5
    assert auc.beats < sum(result.beats for result in results) - 4 * 25  # the first half minute teaches
    assert 29 < (results[0].learned or 0) < 40
    assert totals.hours == pytest.approx(0.2)
    assert totals.alarms.hours == pytest.approx(0.2 * 5 / 6, abs=1e-3)


def test_other_rates_and_leads_are_judged_too(bundle: Path, tmp_path: Path) -> None:
    one = write_records(tmp_path / "a", 1, 60.0, rate=257.0, leads=("V1",))[0]
    twelve = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
    other = write_records(tmp_path / "b", 2, 50.0, rate=500.0, leads=twelve, seed=1)[1]
    results, totals = judge(bundle, one, other)
    assert (totals.qrs.all_leads.sensitivity or 0) > 0.9
    assert len(results[1].leads) == 12
    calm = Totals.of(results[:1])  # few of its beats are abnormal
    assert (calm.alarms.share, calm.alarms.delay_median) == (None, None)
    assert "0/0" in total_tables(calm, 1.0)[0].text


def test_of_a_paced_patient_only_the_rhythm_is_judged(bundle: Path, tmp_path: Path) -> None:
    made = generate(60.0, seed=5)
    symbols = ["/"] * len(made.peaks)
    write_wfdb(tmp_path / "paced.hea", made.millivolts, 360.0, ("II", "V1"), made.peaks, symbols)
    (result,), totals = judge(bundle, tmp_path / "paced.hea")
    assert result.paced
    assert (result.episodes, result.watched_hours, len(result.with_reference.scores)) == (0, 0.0, 0)
    assert totals.alarms.false_per_hour is None
    assert (totals.qrs.all_leads.sensitivity or 0) > 0.9


def test_classes_are_those_of_aami(tmp_path: Path) -> None:
    peaks = 200 * np.arange(1, 8)
    write_wfdb(tmp_path / "r.hea", np.zeros((1800, 1), np.float32), 200.0, ("II",), peaks, list("NLRVAFe"))
    truth = read_truth(open_record(tmp_path / "r.hea"))
    assert truth is not None
    assert truth.abnormal.tolist() == [False, False, False, True, True, True, False]
    assert truth.times.tolist() == [1, 2, 3, 4, 5, 6, 7]
    (tmp_path / "r.atr").unlink()
    assert read_truth(open_record(tmp_path / "r.hea")) is None


def evaluate_command(folder: Path, *words: str) -> Result:
    command = ["monitor", "evaluate", "--records", str(folder), "--set", MINUTES, *words]
    return CliRunner().invoke(main, command, catch_exceptions=False)


def run(folder: Path, *words: str) -> tuple[dict[str, Any], str]:
    done = evaluate_command(folder, "--json", *words)
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def test_detectors_are_trained_on_the_other_records(records: Path, tmp_path: Path) -> None:
    figures, said = run(records, "--folds", "2", "--output", str(tmp_path / "out"))
    assert (figures["records"], figures["folds"], figures["bundle"]) == (4, 2, None)
    assert [row["record"] for row in figures["per_record"]] == [f"patient-{n}" for n in (1, 2, 3, 4)]
    first, second = (tmp_path / "out" / "folds" / f"fold-{n}" / "settings.yaml" for n in (1, 2))
    assert "patient-2" in first.read_text()
    assert "patient-1" not in first.read_text()
    assert "patient-1" in second.read_text()
    assert "patient-2" not in second.read_text()
    assert load_bundle(tmp_path / "out" / "folds" / "fold-1" / "bundle").manifest.beats.leads == ("II",)
    assert figures["alarms"]["share"] == 1
    assert figures["beat_auc"]["with"] > 0.98
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text()) == figures
    assert "episodes of abnormal beats with an alarm" in said


def test_what_cannot_be_judged_is_left_out_with_its_reason(bundle: Path, tmp_path: Path) -> None:
    write_records(tmp_path / "in", 3, 45.0)
    with (tmp_path / "in" / "patient-001.dat").open("rb+") as data:
        data.truncate((tmp_path / "in" / "patient-001.dat").stat().st_size - 100)
    (tmp_path / "in" / "patient-002.dat").write_bytes(b"")
    (tmp_path / "in" / "patient-003.atr").unlink()
    figures, said = run(tmp_path / "in", "--bundle", str(bundle), "--output", str(tmp_path / "new" / "out"))
    assert (tmp_path / "new" / "out" / "evaluation.json").exists()
    assert figures["records"] == 1
    assert set(figures["left_out"]) == {"patient-002", "patient-003"}
    assert figures["left_out"]["patient-003"] == "no annotated beats"
    assert list(figures["notes"]) == ["patient-001"]
    assert "patient-001: cut off: the header says" in said
    assert "if it was trained on any of these records, the figures are too good" in said
    alone = evaluate_command(tmp_path / "in")
    assert alone.exit_code == 2
    assert re.search(r"1 annotated records found, but at least 2 needed", alone.stderr)


def test_one_fold_is_none(records: Path) -> None:
    done = evaluate_command(records, "--folds", "1")
    assert done.exit_code == 2
    assert "x>=2" in done.stderr


def test_added_noise_is_said_and_lowers_what_is_measured(bundle: Path, tmp_path: Path) -> None:
    write_records(tmp_path / "in", 1, 60.0)
    words = ("--bundle", str(bundle), "--noise", "motion:0", "--noise-plan", "always")
    figures, said = run(tmp_path / "in", *words)
    assert figures["noise"] == {
        "noises": [{"source": "motion", "snr_db": 0.0}],
        "plan": "always",
        "seed": 0,
    }
    assert "noise added: motion at 0 dB, throughout, seed 0" in said
    assert figures["qrs"]["positive_predictivity"] < 0.98
