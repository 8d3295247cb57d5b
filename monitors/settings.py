"""Settings of the ECG monitor, as one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from genray.settings.base import Location, Settings, flatten
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
    def _patients(self) -> Self:
        for name in self.patients:
            try:
                self._limits_of(name)
            except ValidationError as error:
                raise self._refused(name, error) from None
        return self

    def limits_by(self, pseudonym: Callable[[str], str]) -> Callable[[str], Limits]:
        """The limits of a stream by its pseudonym: `alarms`, with what `patients` says instead."""
        special = {pseudonym(name): self._limits_of(name) for name in self.patients}
        return lambda stream: special.get(stream, self.alarms)

    def _refused(self, name: str, error: ValidationError) -> ValidationError:
        """`error` of the limits of `name`, by the keys that the user gave."""
        takes = [f"patients.{name}.{key}" for key in flatten(self.alarms)]
        found = []
        for problem in error.errors(include_url=False):
            kind: str | PydanticCustomError = problem["type"]
            if kind == "extra_forbidden":
                kind = PydanticCustomError(kind, "Extra inputs are not permitted", {"takes": takes})
            where = ("patients", name, *problem["loc"])
            found.append(
                InitErrorDetails(type=kind, loc=where, input=problem["input"], ctx=problem.get("ctx", {}))
            )
        return ValidationError.from_exception_data("patients", found)

    def _limits_of(self, name: str) -> Limits:
        return Limits.model_validate(_merged(self.alarms.model_dump(), self.patients[name]))


def _merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(under)
    for key, value in over.items():
        below = result.get(key)
        both = isinstance(value, Mapping) and isinstance(below, Mapping)
        result[key] = _merged(below, value) if both and isinstance(below, Mapping) else value
    return result
