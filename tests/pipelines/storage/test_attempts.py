from pathlib import Path

import pytest

from genray.io.store import open_store
from pipelines.storage.attempts import Attempt, Attempts


@pytest.fixture
def attempts(tmp_path: Path) -> Attempts:
    return Attempts(open_store(str(tmp_path)))


def test_attempts_are_counted_until_one_ends(attempts: Attempts) -> None:
    tries = [attempts.begin("00001-000000") for _ in range(3)]
    assert [each.number for each in tries] == [0, 1, 2]
    assert [each.is_careful for each in tries] == [False, False, True]
    attempts.end("00001-000000", tries[-1])
    assert attempts.begin("00001-000000").done
    assert attempts.begin("00001-000001") == Attempt()


def test_deaths_in_a_row_at_one_image_are_counted(attempts: Attempts) -> None:
    attempt = attempts.begin("c", earlier=2)
    assert attempt.is_careful
    for number, (path, times) in enumerate((("good.jpg", 1), ("bad.jpg", 1), ("bad.jpg", 2)), start=3):
        attempts.name_image("c", attempt, "first.jpg")
        attempts.name_image("c", attempt, path)
        attempt = attempts.begin("c", earlier=2)
        assert attempt == Attempt(number, path, times)


def test_a_chunk_belongs_to_who_began_it_last(attempts: Attempts) -> None:
    first = attempts.begin("c")
    assert attempts.holds("c", first)
    second = attempts.begin("c")
    assert not attempts.holds("c", first)
    assert attempts.holds("c", second)
    attempts.clear()
    assert not attempts.holds("c", second)


def test_what_is_left_says_whether_the_run_before_died(attempts: Attempts) -> None:
    assert attempts.unfinished() == []
    attempts.end("a", attempts.begin("a"))
    assert attempts.unfinished() == []
    attempts.begin("b")
    attempts.name_image("c", attempts.begin("c"), "at.jpg")
    assert set(attempts.unfinished()) == {Attempt(), Attempt(0, "at.jpg", 1)}
    attempts.clear()
    assert attempts.unfinished() == []


def test_a_marker_that_a_crash_cut_off_counts_as_an_attempt(attempts: Attempts, tmp_path: Path) -> None:
    attempts.begin("c")
    (marker,) = (tmp_path / "_genray" / "attempts").glob("*.json")
    marker.write_text('{"numb')
    assert attempts.begin("c").number == 1
