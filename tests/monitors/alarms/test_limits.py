from typing import Any

import pytest
from pydantic import ValidationError

from monitors.alarms.limits import Limits


@pytest.mark.parametrize(
    ("group", "values"),
    [
        ("bradycardia", {"medium": 40, "high": 50}),
        ("tachycardia", {"medium": 140, "high": 130}),
        ("anomaly", {"begin": 0.3, "end": 0.4}),
        ("anomaly", {"begin": 0.9, "severe": 0.8}),
        ("gap", {"begin": 3, "end": 4}),
        ("behind", {"begin": 3, "end": 4}),
        ("stream_lost", {"medium": 30, "high": 20}),
        ("poor_signal", {"low": 30, "medium": 20}),
    ],
)
def test_limits_that_contradict_each_other_are_refused(group: str, values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"must|<="):
        Limits.model_validate({group: values})


def test_a_rate_must_be_able_to_end_both_alarms_of_the_rate() -> None:
    with pytest.raises(ValidationError, match="overlap"):
        Limits.model_validate({"bradycardia": {"medium": 100}, "tachycardia": {"medium": 105}})


def test_a_delay_leaves_time_to_tell_within_ten_seconds() -> None:
    with pytest.raises(ValidationError, match="delay"):
        Limits.model_validate({"bradycardia": {"delay": 7}})
