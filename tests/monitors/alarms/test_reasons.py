"""The reason of an alarm names the measured value and its limit."""

from __future__ import annotations

from monitors.alarms.reasons import Measurement, measurement


def test_a_value_has_its_unit_and_the_limit_of_its_priority() -> None:
    why = {"measured": {"heart_rate": 28.4}, "limits": {"medium": 40.0, "high": 30.0}}
    high = Measurement(28.4, "/min", 30.0, "heart rate 28/min; limit 30/min")
    assert measurement("bradycardia", "high", why) == high
    assert measurement("bradycardia", "low", why).limit == 40.0


def test_leads_are_named() -> None:
    text = "II, V5: electrode off, flat line or saturated"
    assert measurement("lead-off", "low", {"measured": {"off": ("II", "V5")}}).text == text


def test_without_a_value_there_is_no_reason() -> None:
    for why in ({}, {"measured": None}, {"measured": {"silence": True}}, {"measured": {"silence": 1e300}}):
        assert measurement("asystole", "high", why) == Measurement()
    assert measurement("unknown", "high", {"measured": {"silence": 5.0}}) == Measurement()


def test_what_the_pulse_wave_said_is_named() -> None:
    pulse = {"lead": "ABP", "rate": 71.6, "silence": 0.4, "steady": False}
    text = measurement("tachycardia", "high", {"measured": {"heart_rate": 150.0, "pulse": pulse}}).text
    assert text == "heart rate 150/min; unsteady pulse of 72/min in ABP"
    measured = {"unjudged": 20.0, "pulse": pulse | {"steady": True}, "contradicted": ["asystole"]}
    text = measurement("unjudged", "medium", {"measured": measured}).text
    assert text.endswith("; steady pulse of 72/min in ABP, against asystole in the ECG")
    assert measurement("asystole", "high", {"measured": {"silence": 5.0, "pulse": "no"}}).text


def test_what_the_model_says_of_the_reference_is_named() -> None:
    def text(reference: object) -> str:
        why = {"measured": {"burden": 0.5, "reference": reference}, "limits": {"begin": 0.4}}
        return measurement("anomaly", "medium", why).text

    assert text("") == text(None) == "50 % of the last beats anomalous; limit 40 %"
    assert text("rare").endswith("; most of the patient's beats are abnormal")
    assert text("abnormal").endswith("; the patient's usual beat is abnormal itself")
