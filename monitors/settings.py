"""Settings of the ECG monitor: the settings of its parts, and alarm limits of single patients."""

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
from monitors.outputs.strips import StripSettings
from monitors.patient.ward import WardSettings
from monitors.sources import SourceSettings
from monitors.sources.feed import FeedSettings
from monitors.sources.replay import ReplaySettings


class EcgSettings(Settings):
    """Settings of the target ecg."""

    bundle: Location = Field(
        "ready:ecg", description="model of normal beats: a bundle of train-ecg, or a ready model (ready:ecg)"
    )
    rhythm: Location = Field(
        "ready:rhythm",
        description="model of ventricular rhythms and beats: a bundle of train-rhythm, or ready:rhythm",
    )
    source: SourceSettings = Field(ReplaySettings(), description="source of the samples, chosen by `kind`")
    state: Location = Field(
        "runs/ecg-monitor",
        description="folder of the journal, the patients' references and the key for pseudonyms",
    )
    shards: int = Field(
        0,
        ge=0,
        le=1000,
        description="worker processes on Ray that share the streams (0: one process, without Ray)",
    )
    seconds: Annotated[float, Field(gt=0)] | None = Field(
        None, description="stop after this many seconds (null: when the source ends or on Ctrl-C)"
    )
    ward: WardSettings = Field(WardSettings(), description="analysis of the streams")
    alarms: Limits = Field(Limits(), description="alarm limits and delays of all streams")
    patients: Mapping[str, Mapping[str, Any]] = Field(
        {}, description="alarm limits of single streams, by the name that the source gives: {bed-7: {...}}"
    )
    feed: FeedSettings = Field(FeedSettings(), description="reconnection to the source")
    metrics: MetricsSettings = Field(MetricsSettings(), description="metrics endpoint for Prometheus")
    alertmanager: AlertmanagerSettings = Field(
        AlertmanagerSettings(), description="push of urgent alarms to Alertmanager"
    )
    page: PageSettings = Field(PageSettings(), description="live page")
    journal: JournalSettings = Field(JournalSettings(), description="journal of all alarms")
    strips: StripSettings = Field(StripSettings(), description="samples around the onset of each alarm")

    @model_validator(mode="after")
    def _check_patients(self) -> Self:
        for name in self.patients:
            try:
                self._limits_of(name)
            except ValidationError as error:
                raise self._by_user_keys(name, error) from None
        return self

    def limits_by(self, pseudonym: Callable[[str], str]) -> Callable[[str], Limits]:
        """Return a function from a stream's pseudonym to its limits: `alarms`, overridden by `patients`."""
        special = {pseudonym(name): self._limits_of(name) for name in self.patients}
        return lambda stream: special.get(stream, self.alarms)

    def _limits_of(self, name: str) -> Limits:
        limits = nested(flatten(self.patients[name]))  # dotted keys may stand in a file
        return Limits.model_validate(_merged(self.alarms.model_dump(), limits))

    def _by_user_keys(self, name: str, error: ValidationError) -> ValidationError:
        """Return `error` of the limits of `name` with the keys that the user wrote."""
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
    """Return `values` overridden by `overrides`, also inside nested mappings."""
    result = dict(values)
    for key, override in overrides.items():
        value = result.get(key)
        if isinstance(override, Mapping) and isinstance(value, Mapping):
            override = _merged(value, override)
        result[key] = override
    return result
