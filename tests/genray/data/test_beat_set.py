from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genray.data.beat_set import BeatSet, open_beat_set
from genray.data.beat_source import BeatSetSettings
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
    with pytest.raises(DataError, match="4 normal beats to train on: at least 8"):
        opened(tmp_path)
