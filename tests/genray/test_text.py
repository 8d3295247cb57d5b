import pytest

from genray.text import (
    LABEL_LENGTH,
    aligned,
    amount,
    change_in_bytes,
    counted,
    duration,
    encodable,
    label_value,
    printable,
    visible,
)

HOSTILE = "a\n\x1b[31mred\r\u202e\ud800.png"


def test_columns_are_as_wide_as_their_longest_word() -> None:
    assert aligned([("a", "path/of/it"), ("long name", "b")]) == "a          path/of/it\nlong name  b"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (7, "7 s"), (62, "1 min 2 s"), (3725, "1 h 2 min"), (-3, "0 s")]
)
def test_durations_read_naturally(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_one_of_a_thing_is_singular() -> None:
    assert [counted(n, "epoch") for n in (0, 1, 2000)] == ["0 epochs", "1 epoch", "2,000 epochs"]


def test_what_cannot_be_written_is_a_question_mark() -> None:
    assert encodable("caf\u00e9 \udcff") == "caf\u00e9 ?"


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (12_345, "12.3 kB"), (999_999, "1,000 kB"), (5.4e15, "5,400 TB")],
)
def test_amounts_are_short(count: float, text: str) -> None:
    assert amount(count) == text


def test_a_change_in_bytes_has_a_sign_and_needs_both_sides() -> None:
    assert change_in_bytes(1000, 875) == "-12.5 %"
    assert change_in_bytes(1000, 1010) == "+1.0 %"
    assert change_in_bytes(0, 1010) == ""
    assert change_in_bytes(1000, 0) == ""


def test_names_from_outside_are_shown_in_one_line() -> None:
    assert visible("\N{DOG FACE} Münze 犬") == "\N{DOG FACE} Münze 犬"
    assert visible(HOSTILE) == r"a\n\x1b[31mred\r\u202e\ud800.png"
    assert printable(HOSTILE) == "a??[31mred???.png"
    assert printable("") == ""


def test_a_label_is_short_and_never_empty() -> None:
    assert label_value(HOSTILE) == "a??[31mred???.png"
    assert label_value("x" * 1000) == "x" * LABEL_LENGTH
    assert label_value("ab\n", 2) == "ab"
    assert label_value("") == "?"
