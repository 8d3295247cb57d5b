"""Settings of the ECG monitor: those of its parts together, and limits of single patients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from genray.settings.base import Location, Settings, flatten, nested
from monitors.alarms.limits import Limits
from monitors.outputs.alertmanager import AlertmanagerSettings
from monitors.outputs.journal import JournalSettings
from monitors.outputs.metrics import MetricsSettings
from monitors.outputs.page import PageSettings
from monitors.patient.ward import WardSettings
from monitors.sources import SourceSettings
from monitors.sources.feed import FeedSettings
from monitors.sources.replay import ReplaySettings


class EcgSettings(Settings):
    """Settings of ecg."""

    bundle: Location = Field("runs/ecg/bundle", description="of train-ecg: what normal beats look like")
    source: SourceSettings = Field(ReplaySettings(), description="where samples come from")
    state: Location = Field(
        "runs/ecg-monitor",
        description="folder of the journal, the patients' references and the key of the pseudonyms",
    )
    shards: int = Field(
        0, ge=0, le=1000, description="processes on Ray that share the streams; 0: without Ray"
    )
    seconds: Annotated[float, Field(gt=0)] | None = Field(
        None, description="end after so long; null: when the source ends, or Ctrl-C"
    )
    ward: WardSettings = Field(WardSettings(), description="how streams are watched")
    alarms: Limits = Field(Limits(), description="when there is an alarm")
    patients: Mapping[str, Mapping[str, Any]] = Field(
        {}, description="other limits for a stream, by the name that its source gives it: {bed-7: {...}}"
    )
    feed: FeedSettings = Field(FeedSettings(), description="how a source is kept open")
    metrics: MetricsSettings = Field(MetricsSettings(), description="for Prometheus")
    alertmanager: AlertmanagerSettings = Field(AlertmanagerSettings(), description="pushed at once")
    page: PageSettings = Field(PageSettings(), description="the live page")
    journal: JournalSettings = Field(JournalSettings(), description="the record of all alarms")

    @model_validator(mode="after")
    def _check_patients(self) -> Self:
        for name in self.patients:
            try:
                self._limits_of(name)
            except ValidationError as error:
                raise self._by_user_keys(name, error) from None
        return self

    def limits_by(self, pseudonym: Callable[[str], str]) -> Callable[[str], Limits]:
        """The limits of a stream by its pseudonym: `alarms`, with what `patients` says instead."""
        special = {pseudonym(name): self._limits_of(name) for name in self.patients}
        return lambda stream: special.get(stream, self.alarms)

    def _limits_of(self, name: str) -> Limits:
        limits = nested(flatten(self.patients[name]))  # dotted keys may stand in a file
        return Limits.model_validate(_merged(self.alarms.model_dump(), limits))

    def _by_user_keys(self, name: str, error: ValidationError) -> ValidationError:
        """`error` of the limits of `name`, by the keys that the user gave."""
        valid_keys = [f"patients.{name}.{key}" for key in flatten(self.alarms)]
        problems = []
        for problem in error.errors(include_url=False):
            kind: str | PydanticCustomError = problem["type"]
            if kind == "extra_forbidden":
                kind = PydanticCustomError(kind, "Extra inputs are not permitted", {"takes": valid_keys})
            location = ("patients", name, *problem["loc"])
            problems.append(
                InitErrorDetails(type=kind, loc=location, input=problem["input"], ctx=problem.get("ctx", {}))
            )
        return ValidationError.from_exception_data("patients", problems)


def _merged(values: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with what `overrides` says instead, also inside of mappings."""
    result = dict(values)
    for key, override in overrides.items():
        value = result.get(key)
        if isinstance(override, Mapping) and isinstance(value, Mapping):
            override = _merged(value, override)
        result[key] = override
    return result
