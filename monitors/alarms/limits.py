"""What a bed's alarms go by: limits, delays, and how much may be announced.

Where a number is usual on monitors its source is named: the events of the PhysioNet/CinC Challenge 2015
("Reducing false arrhythmia alarms in the ICU": asystole is no QRS for 4 s, extreme bradycardia is under 40,
extreme tachycardia over 140 a minute), and IEC 60601-2-27, which wants a heart-rate alarm within 10 s. The
others are choices, each with its reason.
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from genray.settings.base import Settings


class AsystoleLimits(Settings):
    """No heart beat. Always high."""

    silence: float = Field(4.0, ge=2, le=10, description="seconds of good signal without a QRS")
    end_after: float = Field(5.0, ge=0, le=60, description="seconds with QRS until it is over")


class BradycardiaLimits(Settings):
    """A slow heart.

    Of the 10 s until notice, `delay` takes 4 and a hop of the monitor 2, so that 4 are left to estimate the
    rate. It is over at `medium` + `back`, so that a rate about the limit is one alarm.
    """

    medium: float = Field(40.0, ge=10, le=200, description="beats a minute under which it is medium")
    high: float = Field(30.0, ge=5, le=200, description="under which it is high")
    back: float = Field(5.0, ge=0, le=50, description="beats a minute above `medium` at which it is over")
    delay: float = Field(4.0, ge=0, le=6, description="seconds that the rate must be under the limit")
    end_after: float = Field(6.0, ge=0, le=60, description="seconds that it must be back")

    @model_validator(mode="after")
    def _order(self) -> Self:
        if self.high > self.medium:
            raise ValueError("`high` must not be above `medium`: the slower, the more urgent")
        return self


class TachycardiaLimits(Settings):
    """A fast heart; delays as for a slow one."""

    medium: float = Field(140.0, ge=60, le=350, description="beats a minute above which it is medium")
    high: float = Field(180.0, ge=60, le=400, description="above which it is high")
    back: float = Field(5.0, ge=0, le=50, description="beats a minute below `medium` at which it is over")
    delay: float = Field(4.0, ge=0, le=6, description="seconds that the rate must be above the limit")
    end_after: float = Field(6.0, ge=0, le=60, description="seconds that it must be back")

    @model_validator(mode="after")
    def _order(self) -> Self:
        if self.high < self.medium:
            raise ValueError("`high` must not be below `medium`: the faster, the more urgent")
        return self


class AnomalyLimits(Settings):
    """Beats of unusual shape.

    From 40 % of 20 beats until under 20 %, `genray monitor evaluate` finds 51 of 55 episodes of MIT-BIH's DS1
    with 3.4 false alarms an hour. Two in five of what it finds are false, so nothing but most beats for half
    a minute, or ten minutes without an answer, makes it high.
    """

    begin: float = Field(0.40, gt=0, le=1, description="share of the last beats from which it is medium")
    end: float = Field(0.20, gt=0, le=1, description="share under which it is over")
    severe: float = Field(0.80, gt=0, le=1, description="share from which it becomes high")
    severe_for: float = Field(30.0, ge=0, le=3600, description="seconds that the share must be severe")
    escalate_after: Annotated[float, Field(ge=10, le=86400)] | None = Field(
        600.0, description="seconds without acknowledgment after which it becomes high; null: never"
    )

    @model_validator(mode="after")
    def _order(self) -> Self:
        if not self.end <= self.begin <= self.severe:
            raise ValueError("`end` <= `begin` <= `severe` must hold")
        return self


class LeadOffLimits(Settings):
    """An electrode is off: medium where no lead is good any more, else low."""

    delay: float = Field(5.0, ge=0, le=60, description="seconds that a lead must be off")
    end_after: float = Field(4.0, ge=0, le=60, description="seconds that all leads must be on")


class PoorSignalLimits(Settings):
    """No lead can be judged. The patient is not watched meanwhile: after a minute it is medium."""

    low: float = Field(10.0, ge=0, le=600, description="seconds after which it is low")
    medium: float = Field(60.0, ge=0, le=3600, description="seconds after which it is medium")
    end_after: float = Field(4.0, ge=0, le=60, description="seconds that a lead must be good")

    @model_validator(mode="after")
    def _order(self) -> Self:
        if self.medium < self.low:
            raise ValueError("`medium` must not be before `low`")
        return self


class GapLimits(Settings):
    """Samples are missing. Always low: what is left is judged."""

    begin: float = Field(
        6.0, gt=0, le=60, description="seconds missing in the last minute from which it is low"
    )
    end: float = Field(3.0, ge=0, le=60, description="seconds up to which it is over")

    @model_validator(mode="after")
    def _order(self) -> Self:
        if self.end > self.begin:
            raise ValueError("`end` must not be above `begin`")
        return self


class StreamLostLimits(Settings):
    """Nothing arrives.

    Medium at first, as short losses are frequent where monitors roam; high after a minute, as of a cardiac
    arrest nobody would know, and each minute of it costs a patient a part of the chance to survive.
    """

    medium: float = Field(10.0, gt=0, le=600, description="seconds without anything until it is medium")
    high: float = Field(60.0, gt=0, le=86400, description="seconds without anything until it is high")
    end_after: float = Field(4.0, ge=0, le=60, description="seconds with samples until it is over")

    @model_validator(mode="after")
    def _order(self) -> Self:
        if self.high < self.medium:
            raise ValueError("`high` must not be before `medium`")
        return self


class BehindLimits(Settings):
    """The monitor does not keep up. Always medium: later than this no alarm comes within 10 s."""

    begin: float = Field(5.0, gt=0, le=600, description="seconds behind the arrival of samples, and")
    end: float = Field(2.5, ge=0, le=600, description="seconds up to which it is over")
    delay: float = Field(4.0, ge=0, le=60, description="seconds that it must be behind: one hiccup is none")
    end_after: float = Field(6.0, ge=0, le=60, description="seconds that it must have caught up")

    @model_validator(mode="after")
    def _order(self) -> Self:
        if self.end > self.begin:
            raise ValueError("`end` must not be above `begin`")
        return self


class Limits(Settings):
    """What the alarms of a stream go by."""

    asystole: AsystoleLimits = Field(AsystoleLimits(), description="no heart beat")
    bradycardia: BradycardiaLimits = Field(BradycardiaLimits(), description="a slow heart")
    tachycardia: TachycardiaLimits = Field(TachycardiaLimits(), description="a fast heart")
    anomaly: AnomalyLimits = Field(AnomalyLimits(), description="beats of unusual shape")
    lead_off: LeadOffLimits = Field(LeadOffLimits(), description="an electrode is off")
    poor_signal: PoorSignalLimits = Field(PoorSignalLimits(), description="no lead can be judged")
    gap: GapLimits = Field(GapLimits(), description="samples are missing")
    stream_lost: StreamLostLimits = Field(StreamLostLimits(), description="nothing arrives")
    behind: BehindLimits = Field(BehindLimits(), description="the monitor does not keep up")
    suppress_after: float = Field(
        4.0,
        ge=0,
        le=60,
        description="seconds without a judgment after which a physiological alarm under high is suppressed: "
        "one noisy moment changes nothing",
    )
    again_after: float = Field(
        60.0,
        ge=0,
        le=3600,
        description="seconds after its end within which an alarm that comes again is the same alarm; it then "
        "lasts until its condition is over for as long",
    )
    announcements: int = Field(
        12,
        ge=1,
        le=1000,
        description="most alarms of a bed announced in an hour; further ones are recorded only, until there "
        "is room; low ones get half; high ones always come through",
    )
    longest_hop: float = Field(
        2.5,
        gt=0,
        le=60,
        description="most seconds that one observation counts in a delay; what is longer was not looked at",
    )

    @model_validator(mode="after")
    def _apart(self) -> Self:
        slow, fast = self.bradycardia, self.tachycardia
        if slow.medium + slow.back > fast.medium - fast.back:
            raise ValueError("`bradycardia` and `tachycardia` overlap: no rate would end both")
        return self
