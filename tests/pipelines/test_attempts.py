from pathlib import Path

import pytest

from genray.data.store import Store
from pipelines.attempts import Attempts


@pytest.fixture
def attempts(tmp_path: Path) -> Attempts:
    return Attempts(Store(str(tmp_path)))


def test_attempts_are_counted_until_one_ends(attempts: Attempts) -> None:
    assert [attempts.begin("00001-000000").number for _ in range(3)] == [0, 1, 2]
    attempts.end("00001-000000")
    assert attempts.begin("00001-000000").number == 0
    assert attempts.begin("00001-000001").number == 0


def test_the_third_attempt_is_careful_and_knows_what_it_died_of(attempts: Attempts) -> None:
    first, second = attempts.begin("c"), attempts.begin("c")
    assert not first.careful
    assert not second.careful
    third = attempts.begin("c")
    assert third.careful
    attempts.name("c", third, "bad.jpg")
    fourth = attempts.begin("c")
    assert (fourth.number, fourth.poison) == (3, "bad.jpg")


def test_a_chunk_belongs_to_who_began_it_last(attempts: Attempts) -> None:
    first = attempts.begin("c")
    assert attempts.holds("c", first)
    second = attempts.begin("c")
    assert not attempts.holds("c", first)
    assert attempts.holds("c", second)
    attempts.clear()
    assert not attempts.holds("c", second)


def test_a_marker_that_a_crash_cut_off_counts_as_an_attempt(attempts: Attempts, tmp_path: Path) -> None:
    attempts.begin("c")
    (marker,) = (tmp_path / "_genray" / "attempts").glob("*.json")
    marker.write_text('{"numb')
    assert attempts.begin("c").number == 1
