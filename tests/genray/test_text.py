import pytest

from genray.text import duration, encodable, label_value, printable


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (7, "7 s"), (62, "1 min 2 s"), (3725, "1 h 2 min"), (-3, "0 s")]
)
def test_durations_read_naturally(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_what_cannot_be_printed_or_written_is_a_question_mark() -> None:
    assert printable("a\x1b[31m\nb\u202e") == "a?[31m?b?"
    assert encodable("caf\u00e9 \udcff") == "caf\u00e9 ?"


def test_a_label_is_short_and_never_empty() -> None:
    assert label_value("a\nb" * 40, length=5) == "a?ba?"
    assert label_value("") == "?"
