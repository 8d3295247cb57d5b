"""Reasons of alarms, for a person: the measured value and its limit, in the words of the field.

The `why` of a transition may come from a journal that anything wrote, so nothing in it is trusted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from genray.text import duration, label_value

_LARGEST = 1e15  # more than any measured value
_MOST_LEADS, _LEAD_LENGTH = 16, 16


@dataclass(frozen=True)
class _MeasureFormat:
    """Format of the measured value of one kind of alarm.

    Attributes:
        value: its name among the measured values.
        limit: name of its limit; empty: the name of the alarm's priority.
        words: text with a place for the value.
        unit: unit of the value and its limit.
        digits: decimals of the value.
    """

    value: str
    limit: str
    words: str
    unit: str
    digits: int


_MEASURE_FORMATS = {
    "asystole": _MeasureFormat("silence", "silence", "no QRS complex for {}", " s", 1),
    "ventricular-fibrillation": _MeasureFormat(
        "fibrillation", "begin", "ventricular fibrillation or flutter, probability {}", " %", 0
    ),
    "ventricular-tachycardia": _MeasureFormat(
        "tachycardia", "begin", "ventricular tachycardia, probability {}", " %", 0
    ),
    "bradycardia": _MeasureFormat("heart_rate", "", "heart rate {}", "/min", 0),
    "tachycardia": _MeasureFormat("heart_rate", "", "heart rate {}", "/min", 0),
    "ventricular-run": _MeasureFormat("run", "beats", "{} ventricular beats in a row", "", 0),
    "atrial-fibrillation": _MeasureFormat(
        "variation", "variation", "RR intervals without order, as in atrial fibrillation: variation {}", "", 2
    ),
    "anomaly": _MeasureFormat("burden", "begin", "{} of the last beats anomalous", " %", 0),
    "unjudged": _MeasureFormat("unjudged", "begin", "rhythm not judged for {} of the last minute", " s", 0),
    "gap": _MeasureFormat("missing", "begin", "{} of the last minute missing", " s", 1),
    "stream-lost": _MeasureFormat("lost", "", "no data for {}", " s", 0),
    "behind": _MeasureFormat("behind", "begin", "monitor {} behind", " s", 1),
}
# Alarms without a measured value.
_WORDS = {"couplet": "two ventricular beats in a row", "bigeminy": "every other beat is ventricular"}
_REFERENCES = {
    "rare": "; most of the patient's beats are abnormal",
    "abnormal": "; the patient's usual beat is abnormal itself",
}
# Alarms that name leads: name of the list among the measured values, and text.
_LEAD_FORMATS = {
    "lead-off": ("off", "electrode off, flat line or saturated"),
    "poor-signal": ("poor", "signal too noisy"),
}


@dataclass(frozen=True)
class Measurement:
    """Measured value that raised an alarm, with its unit and limit, and all of it as text.

    Attributes:
        value: in `unit`; None: unknown, or the alarm names leads.
        limit: in `unit`; None: unknown.
        text: such as "no QRS complex for 4.9 s; limit 4 s"; empty: nothing is known.
    """

    value: float | None = None
    unit: str = ""
    limit: float | None = None
    text: str = ""


def measurement(kind: str, priority: str, why: Mapping[str, Any]) -> Measurement:
    """Return what an alarm of a kind and priority measured, from the `why` of its transition."""
    measured = _mapping(why.get("measured"))
    if kind in _LEAD_FORMATS and measured:
        name, words = _LEAD_FORMATS[kind]
        return Measurement(text=f"{_lead_names(measured.get(name))}: {words}")
    if kind in _WORDS and measured:
        return Measurement(text=_WORDS[kind])
    measure = _MEASURE_FORMATS.get(kind)
    value = plausible_number(measured.get(measure.value)) if measure else None
    if measure is None or value is None:
        return Measurement()
    limits = _mapping(why.get("limits"))
    limit = plausible_number(limits.get(measure.limit or priority, limits.get("medium")))
    if measure.unit == " %":
        value = round(100 * value, 6)
        limit = None if limit is None else round(100 * limit, 6)
    value_text = f"{value:.{measure.digits}f}{measure.unit}"
    text = measure.words.format(duration(value) if kind == "stream-lost" else value_text)
    if limit is not None:
        text += f"; limit {limit:g}{measure.unit}"
    if kind == "anomaly":
        text += _REFERENCES.get(str(measured.get("reference")), "")
    text += _pulse_text(measured)
    return Measurement(value, measure.unit.strip(), limit, text)


def _pulse_text(measured: Mapping[str, Any]) -> str:
    """Return what the pulse wave said at the same time; empty: nothing."""
    pulse = _mapping(measured.get("pulse"))
    rate = plausible_number(pulse.get("rate"))
    if rate is None:
        return ""
    how = "steady" if pulse.get("steady") is True else "unsteady"
    text = f"; {how} pulse of {rate:.0f}/min in {label_value(str(pulse.get('lead')), _LEAD_LENGTH)}"
    kinds = measured.get("contradicted")
    if isinstance(kinds, list) and kinds:
        text += (
            f", against {', '.join(label_value(str(kind), 32) for kind in kinds[:_MOST_LEADS])} in the ECG"
        )
    return text


def plausible_number(value: Any) -> float | None:
    """Return `value` as a float; None unless it is a number of a size that can be measured."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _LARGEST:
        return None
    return float(value)


def _lead_names(leads: Any) -> str:
    shown = leads[:_MOST_LEADS] if isinstance(leads, list | tuple) else ()
    return ", ".join(label_value(str(lead), _LEAD_LENGTH) for lead in shown) or "all leads"


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
