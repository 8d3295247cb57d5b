import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genray.datasets.beats import BeatSet, BeatSetSettings, RawBeats, open_beat_set, read_beats
from genray.errors import DataError
from tests.beat_files import write_record, write_table, write_ucr


def read(path: Path, **settings: Any) -> RawBeats:
    return read_beats(BeatSetSettings(path=str(path), **settings), 0, lambda text: None)


def test_the_names_of_files_say_what_is_trained_on(tmp_path: Path) -> None:
    found = read(write_ucr(tmp_path))
    assert not found.recordings
    assert [found.parts.count(part) for part in ("train", "test", "")] == [48, 40, 0]


def test_of_an_archive_with_several_kinds_of_files_one_is_read(tmp_path: Path) -> None:
    write_table(tmp_path / "A_TRAIN.tsv", 9, 1)
    write_table(tmp_path / "A_TRAIN.txt", 9, 1)
    (tmp_path / "README.txt").write_text("Beats of a patient.\nTwo lines.")
    assert (read(tmp_path).total, read(tmp_path).bad) == (10, [])


def test_beats_of_another_length_are_resampled(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n".join(["1 " + " ".join(map(str, range(50)))] * 3))
    (values,) = read(tmp_path / "a.txt").values
    np.testing.assert_allclose(values[0], np.linspace(0, 49, 140), rtol=1e-5)


def test_records_are_split_as_a_whole(tmp_path: Path) -> None:
    for name in "abcde":
        write_record(tmp_path, name, "NNNNV")
    found = read(tmp_path)
    assert found.recordings
    parts = {
        g: {p for p, group in zip(found.parts, found.groups, strict=True) if group == g} for g in range(5)
    }
    assert sorted(map(sorted, parts.values())) == [["test"], ["train"], ["train"], ["train"], ["train"]]
    assert found.leads == ["MLII"]


def test_records_can_be_chosen_and_named_for_the_test(tmp_path: Path) -> None:
    for number in (101, 102, 103):
        write_record(tmp_path, str(number), "NNNN")
    found = read(tmp_path, records=[101], test_records=[103])
    assert found.total == 2
    assert [p for p, _ in zip(found.parts, found.groups, strict=True)] == ["train"] * 4 + ["test"] * 4
    with pytest.raises(DataError, match="no record is called 7; there are: 101, 102, 103"):
        read(tmp_path, records=[7])


def test_broken_records_are_set_aside_with_their_reason(tmp_path: Path) -> None:
    for name in "abcdef":
        write_record(tmp_path, name, "NNNN")
    (tmp_path / "c.dat").unlink()
    os.truncate(tmp_path / "d.dat", (tmp_path / "d.dat").stat().st_size - 2)
    found = read(tmp_path)
    (note,) = found.notes
    assert note.startswith("d: cut off: the header says")
    (bad,) = found.bad
    assert (bad.path, bad.reason, found.records) == ("c", "unreadable", 5)
    assert "c.dat" in bad.detail
    with pytest.raises(DataError, match=r"1 of 6 records are broken, more than data.max_bad_share=0.1"):
        read(tmp_path, max_bad_share=0.1)


def test_the_beats_of_a_single_record_belong_to_no_part_yet(tmp_path: Path) -> None:
    write_record(tmp_path, "a", "NNNN")
    assert set(read(tmp_path / "a.hea").parts) == {""}


@pytest.mark.parametrize("what", ["gone", "empty", "words", "uri"])
def test_nothing_to_read_is_said_before_anything_starts(tmp_path: Path, what: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "notes.txt").write_text("no numbers here")
    path = "s3://bucket/beats" if what == "uri" else str(tmp_path / what)
    with pytest.raises(DataError, match=r"(no beats under|cannot read beats from)"):
        read_beats(BeatSetSettings(path=path), 0, lambda text: None)


def test_a_record_may_be_named_without_its_suffix(tmp_path: Path) -> None:
    write_record(tmp_path, "101", "NNNN")
    assert len(read(tmp_path / "101").classes) == 4


def test_a_table_beside_the_beats_is_passed_over(tmp_path: Path) -> None:
    (write_ucr(tmp_path) / "info.csv").write_text("name,what\nx,y\n")
    assert (read(tmp_path).total, read(tmp_path).bad) == (88, [])
    write_table(tmp_path / "one" / "beats.txt", 9, 1)
    (tmp_path / "one" / "info.csv").write_text("name,what\nx,y\n")
    assert (len(read(tmp_path / "one").classes), read(tmp_path / "one").bad) == (10, [])


def test_a_folder_without_records_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no records .* in the folder"):
        read(write_ucr(tmp_path), layout="records")


def test_some_records_have_to_be_left_to_train_on(tmp_path: Path) -> None:
    for name in "ab":
        write_record(tmp_path, name, "NNNN")
    with pytest.raises(DataError, match="names all 2 records"):
        read(tmp_path, test_records=["a", "b"])


def test_leads_that_no_record_has_are_said_beside_those_that_there_are(tmp_path: Path) -> None:
    write_record(tmp_path, "a", "NNNN")
    write_record(tmp_path, "b", "NNNN", leads=("V2",))
    with pytest.raises(DataError, match="2 of 2 records have none of the leads") as refused:
        read(tmp_path, leads=["XX"])
    assert refused.value.where == "data.leads"
    assert refused.value.hint == "choose of the leads that they have: MLII, V1, V2; [] takes all"
    assert "unreadable" not in str(refused.value)
    with pytest.raises(DataError, match="1 of 2 records have none of the leads"):
        read(tmp_path, leads=["V2"])
    assert read(tmp_path, leads=["V2"], max_bad_share=0.5).records == 1


def test_a_signal_as_csv_is_told_from_a_table_of_beats(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("\n".join(["time,II", *(f"{n / 250},0.1" for n in range(999))]))
    with pytest.raises(DataError, match="a signal, a line for each sample") as refused:
        read(tmp_path / "a.csv")
    assert refused.value.hint is not None
    assert "data.layout=records" in refused.value.hint


def test_classes_in_words_are_explained(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("\n".join([",".join(["0.5"] * 20) + ",normal"] * 5))
    with pytest.raises(DataError, match="values and classes are numbers"):
        read(tmp_path)


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
