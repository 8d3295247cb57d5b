from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genray.datasets.beats import BeatSet, BeatSetSettings, open_beat_set
from genray.errors import DataError
from tests.beat_files import write_record, write_table, write_ucr


def opened(path: Path, seed: int = 0, **settings: Any) -> BeatSet:
    return open_beat_set(BeatSetSettings(path=str(path), **settings), seed, lambda text: None)


def test_normal_beats_alone_are_trained_on_and_all_judge(tmp_path: Path) -> None:
    found = opened(write_ucr(tmp_path))
    assert (len(found.train), len(found.val), len(found.test)) == (38, 2, 40)
    assert set(found.train.labels) == set(found.val.labels) == set(found.normal) == {0}
    assert found.classes == ("1", "2")
    assert np.bincount(found.test.labels).tolist() == [20, 20]
    np.testing.assert_allclose(found.train.values.std(axis=-1), 1, atol=1e-5)


def test_a_single_table_is_split_by_the_seed(tmp_path: Path) -> None:
    write_table(tmp_path / "ecg.csv", 80, 20, classes=("1", "0"))
    found, same, other = opened(tmp_path), opened(tmp_path), opened(tmp_path, seed=1)
    assert len(found.test) == 20
    np.testing.assert_array_equal(found.test.values, same.test.values)
    assert not np.array_equal(found.test.values, other.test.values)
    assert found.fingerprint == other.fingerprint
    assert len(opened(tmp_path, test_share=0).test) == 0


def test_the_range_of_normal_training_beats_becomes_0_to_1(tmp_path: Path) -> None:
    found = opened(write_ucr(tmp_path), normalisation="minmax")
    both = np.concatenate([found.train.values, found.val.values])
    assert (both.min(), both.max()) == (0, 1)
    assert found.test.values.min() < 0, "abnormal beats may lie outside"


def test_whole_records_are_held_out(tmp_path: Path) -> None:
    for number in range(6):
        write_record(tmp_path, f"r{number}", "NNNNNNVS", seed=10 * number)
    found = opened(tmp_path)
    groups = [set(part.groups) for part in (found.train, found.val, found.test)]
    assert [len(group) for group in groups] == [4, 1, 1]
    assert not groups[0] & groups[1] | groups[0] & groups[2] | groups[1] & groups[2]
    assert found.classes == ("N", "S", "V")
    assert found.preprocessing.leads == ("MLII",)
    assert found.records == 6


def test_without_annotations_all_beats_are_taken_for_normal(tmp_path: Path) -> None:
    for name in "abc":
        write_record(tmp_path, name, "N" * 30)
        (tmp_path / f"{name}.atr").unlink()
    found = opened(tmp_path)
    assert found.classes == ()
    assert len(found.train) > 25
    assert set(found.test.labels) == {-1}


def test_a_class_that_is_not_there_is_said_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no class is called 3; there are: 1, 2"):
        opened(write_ucr(tmp_path), normal=[3])


def test_too_few_normal_beats_are_refused(tmp_path: Path) -> None:
    write_table(tmp_path / "a_train.txt", 4, 9)
    with pytest.raises(DataError, match=r"4 normal beats to train on: at least 8 .*9 abnormal"):
        opened(tmp_path, test_share=0)


def test_folders_named_train_val_and_test_are_those_parts(tmp_path: Path) -> None:
    for part, normal, abnormal in (("train", 20, 3), ("val", 6, 2), ("test", 5, 4)):
        write_table(tmp_path / part / "a.txt", normal, abnormal)
    found = opened(tmp_path)
    assert (len(found.train), len(found.val), len(found.test)) == (20, 6, 9)
    assert (found.split, found.left_out) == ("by files", "5 abnormal")


def test_rows_of_files_that_name_no_part_are_trained_on(tmp_path: Path) -> None:
    write_ucr(tmp_path)
    write_table(tmp_path / "more.txt", 10, 0, seed=3)
    found = opened(tmp_path)
    assert (len(found.train) + len(found.val), len(found.test)) == (50, 40)


def test_without_a_test_part_the_abnormal_beats_and_some_normal_ones_judge(tmp_path: Path) -> None:
    write_table(tmp_path / "A_TRAIN.txt", 40, 8)
    found = opened(tmp_path)
    assert np.bincount(found.test.labels).tolist() == [8, 8]
    assert len(found.train) + len(found.val) == 32
    assert found.left_out == ""
    assert "all abnormal ones" in found.split
    nothing = opened(tmp_path, test_share=0)
    assert (len(nothing.test), nothing.left_out) == (0, "8 abnormal")


def test_beats_without_a_class_are_not_normal_where_others_have_one(tmp_path: Path) -> None:
    for name in "abcd":
        write_record(tmp_path, name, "N" * 20)
    (tmp_path / "b.atr").unlink()
    found = opened(tmp_path, test_records=["d"])
    assert len(found.train) + len(found.val) == 40, "those of a and c"
    assert set(found.train.labels) == {0}
    assert found.left_out == "20 without a class"


def test_only_records_say_where_the_r_peak_of_a_beat_is(tmp_path: Path) -> None:
    assert opened(write_ucr(tmp_path / "rows")).preprocessing.window is None
    for name in "ab":
        write_record(tmp_path / "records", name, "N" * 12)
    assert opened(tmp_path / "records").preprocessing.window == (0.25, 0.45)


def test_flat_lines_are_no_normal_beats(tmp_path: Path) -> None:
    (tmp_path / "a_TRAIN.txt").write_text("\n".join(["1" + " 0.5" * 40] * 20))
    with pytest.raises(DataError, match="all normal beats are flat lines"):
        opened(tmp_path)


def test_a_class_that_stands_first_in_a_csv_is_asked_for(tmp_path: Path) -> None:
    write_table(tmp_path / "a.txt", 20, 5)
    rows = (tmp_path / "a.txt").read_text().replace("  ", ",")
    (tmp_path / "a.txt").unlink()
    (tmp_path / "a.csv").write_text(rows)
    with pytest.raises(DataError) as refused:
        opened(tmp_path)
    assert "data.label=first" in str(refused.value.hint)
    assert opened(tmp_path, label="first").classes == ("1", "2")
