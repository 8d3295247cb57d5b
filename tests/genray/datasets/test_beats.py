from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genray.datasets.beats import BeatSetSettings, FoundBeats, read_beats
from genray.errors import DataError
from tests.beat_files import write_record, write_table, write_ucr


def read(path: Path, **settings: Any) -> FoundBeats:
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
    found = read(tmp_path)
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
    with pytest.raises(DataError, match="takes all 2 records"):
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
