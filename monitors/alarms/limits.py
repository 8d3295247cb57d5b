"""Alarm settings of a bed: limits, delays, and how many alarms may be announced.

Two sources set the usual numbers: the PhysioNet/CinC Challenge 2015, "Reducing false arrhythmia alarms in the
ICU" (asystole: no QRS complex for 4 s; extreme bradycardia: below 40 beats/min; extreme tachycardia: above
140 beats/min), and IEC 60601-2-27 (a heart-rate alarm within 10 s). The other numbers are our own choices,
with the reason beside each.
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from genray.settings.base import Settings


class AsystoleLimits(Settings):
    """Limits of asystole: no heartbeat, always high priority."""

    silence: float = Field(
        4.0, ge=2, le=10, description="seconds of good signal without a QRS complex until the alarm"
    )
    end_after: float = Field(5.0, ge=0, le=60, description="seconds with QRS complexes until the alarm ends")


class VentricularLimits(Settings):
    """Limits of ventricular tachycardia, or of ventricular fibrillation and flutter: always high priority.

    The limit was chosen before anything was measured; docs/figures.md has what it gives on records of other
    patients than those that the model was trained on.
    """

    begin: float = Field(
        0.8, gt=0, le=1, description="probability of the rhythm (0 to 1) from which there is an alarm"
    )
    begin_with_pulse: float = Field(
        0.65,
        gt=0,
        le=1,
        description="the same while a pulse wave of good quality shows that the pulse is not steady",
    )
    end: float = Field(
        0.5, gt=0, le=1, description="probability of the rhythm (0 to 1) below which the alarm ends"
    )
    delay: float = Field(
        1.0,
        ge=0,
        le=10,
        description="seconds for which the probability must stay at `begin` or above; it covers 5 s already",
    )
    end_after: float = Field(
        5.0, ge=0, le=60, description="seconds for which the rhythm must be over until the alarm ends"
    )

    @model_validator(mode="after")
    def _order(self) -> Self:
        if not self.end <= self.begin_with_pulse <= self.begin:
            raise ValueError("`end` <= `begin_with_pulse` <= `begin` must hold")
        return self


class VentricularTachycardiaLimits(VentricularLimits):
    """Limits of ventricular tachycardia: five ventricular beats in a row above 100/min (CinC 2015), or the
    rhythm of 5 s; always high priority."""

    beats: int = Field(
        5, ge=3, le=30, description="number of ventricular beats in a row from which there is an alarm"
    )
    rate: float = Field(
        100.0, ge=40, le=250, description="least rate of these beats (beats/min); slower ones are no alarm"
    )


class BradycardiaLimits(Settings):
    """Limits of bradycardia: a heart rate that is too low.

    Below 40 beats/min is the extreme bradycardia of the challenge; 50 is where the adult profiles of bedside
    monitors begin to warn. Of the 10 s that IEC 60601-2-27 allows until the alarm, the three intervals that
    the heart rate is taken from need 4 to 6 s when the heart is slow, and `delay` takes 2 s. The alarm ends
    at `medium` + `back` (hysteresis), so that a rate near the limit raises one alarm and not many.
    """

    medium: float = Field(
        50.0, ge=10, le=200, description="heart rate (beats/min) below which the priority is medium"
    )
    high: float = Field(
        40.0, ge=5, le=200, description="heart rate (beats/min) below which the priority is high"
    )
    back: float = Field(
        5.0, ge=0, le=50, description="hysteresis (beats/min): the alarm ends this far above `medium`"
    )
    delay: float = Field(2.0, ge=0, le=6, description="seconds for which the rate must stay below a limit")
    end_after: float = Field(
        6.0, ge=0, le=60, description="seconds for which the rate must be back until the alarm ends"
    )

    @model_validator(mode="after")
    def _order(self) -> Self:
        if self.high > self.medium:
            raise ValueError("`high` must not be above `medium`: the slower, the more urgent")
        return self


class TachycardiaLimits(Settings):
    """Limits of tachycardia: a heart rate that is too high.

    Above 140 beats/min is the extreme tachycardia of the challenge; 120 is where the adult profiles of
    bedside monitors begin to warn. Of the 10 s until the alarm, the heart rate is averaged over 4 s, and
    `delay` takes 4 s.
    """

    medium: float = Field(
        120.0, ge=60, le=350, description="heart rate (beats/min) above which the priority is medium"
    )
    high: float = Field(
        140.0, ge=60, le=400, description="heart rate (beats/min) above which the priority is high"
    )
    back: float = Field(
        5.0, ge=0, le=50, description="hysteresis (beats/min): the alarm ends this far below `medium`"
    )
    delay: float = Field(4.0, ge=0, le=6, description="seconds for which the rate must stay above a limit")
    end_after: float = Field(
        6.0, ge=0, le=60, description="seconds for which the rate must be back until the alarm ends"
    )

    @model_validator(mode="after")
    def _order(self) -> Self:
        if self.high < self.medium:
            raise ValueError("`high` must not be below `medium`: the faster, the more urgent")
        return self


class EctopyLimits(Settings):
    """Limits of alarms about ventricular beats in a row (couplet, run) or in turn with others (bigeminy)."""

    enabled: bool = Field(True, description="switch of the alarm (false: there is none)")
    probability: float = Field(
        0.8, gt=0, le=1, description="probability (0 to 1) from which a beat counts as ventricular"
    )
    end_after: float = Field(
        30.0, ge=0, le=3600, description="seconds without such beats until the alarm ends"
    )


class RunLimits(EctopyLimits):
    """Limits of a ventricular run: three or more ventricular beats in a row that are no tachycardia, as they
    are too few or too slow for it. Medium priority."""

    beats: int = Field(
        3, ge=3, le=30, description="number of ventricular beats in a row from which there is an alarm"
    )


class BigeminyLimits(EctopyLimits):
    """Limits of bigeminy: every other beat is ventricular. Low priority."""

    pairs: int = Field(
        3, ge=2, le=15, description="number of pairs of another and a ventricular beat until the alarm"
    )


class AtrialFibrillationLimits(Settings):
    """Limits of atrial fibrillation: RR intervals of two minutes without any order. Low priority.

    The measures and their limits are those of Dash et al. (2009) for 128 intervals: all must hold. There is
    no alarm while ventricular beats are frequent, as they make any rhythm irregular.
    """

    enabled: bool = Field(True, description="switch of the alarm (false: there is none)")
    variation: float = Field(
        0.1,
        gt=0,
        le=1,
        description="least variation of the intervals: RMS of differences divided by the mean",
    )
    entropy: float = Field(
        0.7, ge=0, le=1, description="least Shannon entropy of the lengths of the intervals (0 to 1)"
    )
    turning_low: float = Field(
        0.54, ge=0, le=1, description="least share of turning points; slow changes have fewer"
    )
    turning_high: float = Field(
        0.77, ge=0, le=1, description="largest share of turning points; alternating intervals have more"
    )
    ectopic: float = Field(
        0.1, ge=0, le=1, description="largest share of ventricular beats at which the rhythm is judged"
    )
    delay: float = Field(30.0, ge=0, le=600, description="seconds for which all of it must hold")
    end_after: float = Field(
        120.0, ge=0, le=3600, description="seconds for which the rhythm must be regular until the alarm ends"
    )


class AnomalyLimits(Settings):
    """Limits of the anomaly alarm: many beats of unusual shape.

    With an alarm from 40 % of 20 beats until below 20 %, `genray monitor evaluate` finds 51 of 55 episodes of
    MIT-BIH's DS1, with 3.4 false alarms per hour. Two in five of these alarms are false, so the priority
    becomes high only when most beats are anomalous for half a minute, or after ten minutes without
    acknowledgement.
    """

    begin: float = Field(
        0.40, gt=0, le=1, description="share of anomalous beats (0 to 1) from which the priority is medium"
    )
    end: float = Field(
        0.20, gt=0, le=1, description="share of anomalous beats (0 to 1) below which the alarm ends"
    )
    severe: float = Field(
        0.80, gt=0, le=1, description="share of anomalous beats (0 to 1) from which the priority becomes high"
    )
    severe_for: float = Field(
        30.0, ge=0, le=3600, description="seconds for which the share must stay at `severe` or above"
    )
    escalate_after: Annotated[float, Field(ge=10, le=86400)] | None = Field(
        600.0,
        description="seconds without acknowledgement after which the priority becomes high (null: never)",
    )

    @model_validator(mode="after")
    def _order(self) -> Self:
        if not self.end <= self.begin <= self.severe:
            raise ValueError("`end` <= `begin` <= `severe` must hold")
        return self


class LeadOffLimits(Settings):
    """Delays of the lead-off alarm: medium if no lead is good any more, else low."""

    delay: float = Field(5.0, ge=0, le=60, description="seconds for which a lead must be off")
    end_after: float = Field(
        4.0, ge=0, le=60, description="seconds for which all leads must be on until the alarm ends"
    )


class PoorSignalLimits(Settings):
    """Delays of the poor-signal alarm. While no lead is good the patient is not monitored, so it is medium
    after a minute."""

    low: float = Field(
        10.0, ge=0, le=600, description="seconds without a good lead after which the priority is low"
    )
    medium: float = Field(
        60.0, ge=0, le=3600, description="seconds without a good lead after which the priority is medium"
    )
    end_after: float = Field(
        4.0, ge=0, le=60, description="seconds for which a lead must be good until the alarm ends"
    )

    @model_validator(mode="after")
    def _order(self) -> Self:
        if self.medium < self.low:
            raise ValueError("`medium` must not be shorter than `low`")
        return self


class UnjudgedLimits(Settings):
    """Limits of the unjudged alarm: a signal that is too noisy every few seconds raises no poor-signal alarm,
    and yet much of the rhythm is not watched. Always medium, as the patient is not monitored meanwhile."""

    begin: float = Field(
        20.0,
        gt=0,
        le=60,
        description="seconds not judged in the last minute from which there is an alarm",
    )
    end: float = Field(
        10.0,
        ge=0,
        le=60,
        description="seconds not judged in the last minute at which the alarm ends",
    )

    @model_validator(mode="after")
    def _order(self) -> Self:
        if self.end > self.begin:
            raise ValueError("`end` must not be above `begin`")
        return self


class GapLimits(Settings):
    """Limits of the gap alarm: samples are missing. Always low, as the other samples are still analysed."""

    begin: float = Field(
        6.0, gt=0, le=60, description="seconds missing in the last minute from which there is an alarm"
    )
    end: float = Field(
        3.0, ge=0, le=60, description="seconds missing in the last minute at which the alarm ends"
    )

    @model_validator(mode="after")
    def _order(self) -> Self:
        if self.end > self.begin:
            raise ValueError("`end` must not be above `begin`")
        return self


class StreamLostLimits(Settings):
    """Limits of the stream-lost alarm: no data arrives.

    Medium at first, as short losses are frequent with wireless monitors; high after a minute, as a cardiac
    arrest would go unnoticed, and each minute of it lowers the patient's chance to survive.
    """

    medium: float = Field(
        10.0, gt=0, le=600, description="seconds without data after which the priority is medium"
    )
    high: float = Field(
        60.0, gt=0, le=86400, description="seconds without data after which the priority is high"
    )
    end_after: float = Field(4.0, ge=0, le=60, description="seconds with data until the alarm ends")

    @model_validator(mode="after")
    def _order(self) -> Self:
        if self.high < self.medium:
            raise ValueError("`high` must not be shorter than `medium`")
        return self


class BehindLimits(Settings):
    """Limits of the behind alarm: the monitor is too slow. Always medium: with more delay than this, alarms
    come later than the 10 s that are allowed."""

    begin: float = Field(
        5.0, gt=0, le=600, description="seconds from arrival to analysis above which there is an alarm"
    )
    end: float = Field(
        2.5, ge=0, le=600, description="seconds from arrival to analysis at which the alarm ends"
    )
    delay: float = Field(
        4.0, ge=0, le=60, description="seconds for which the monitor must be behind until the alarm"
    )
    end_after: float = Field(
        6.0, ge=0, le=60, description="seconds for which it must have caught up until the alarm ends"
    )

    @model_validator(mode="after")
    def _order(self) -> Self:
        if self.end > self.begin:
            raise ValueError("`end` must not be above `begin`")
        return self


class Limits(Settings):
    """Alarm settings of a stream: the limits of each kind, and how alarms are suppressed, repeated and
    announced."""

    asystole: AsystoleLimits = Field(AsystoleLimits(), description="no heartbeat")
    ventricular_fibrillation: VentricularLimits = Field(
        VentricularLimits(), description="ventricular fibrillation or flutter"
    )
    ventricular_tachycardia: VentricularTachycardiaLimits = Field(
        VentricularTachycardiaLimits(), description="ventricular tachycardia"
    )
    bradycardia: BradycardiaLimits = Field(BradycardiaLimits(), description="heart rate too low")
    tachycardia: TachycardiaLimits = Field(TachycardiaLimits(), description="heart rate too high")
    ventricular_run: RunLimits = Field(RunLimits(), description="three or more ventricular beats in a row")
    couplet: EctopyLimits = Field(EctopyLimits(), description="two ventricular beats in a row")
    bigeminy: BigeminyLimits = Field(BigeminyLimits(), description="every other beat ventricular")
    atrial_fibrillation: AtrialFibrillationLimits = Field(
        AtrialFibrillationLimits(), description="irregular rhythm, as in atrial fibrillation"
    )
    anomaly: AnomalyLimits = Field(AnomalyLimits(), description="many beats of unusual shape")
    lead_off: LeadOffLimits = Field(LeadOffLimits(), description="electrode off")
    poor_signal: PoorSignalLimits = Field(PoorSignalLimits(), description="no lead good enough to analyse")
    unjudged: UnjudgedLimits = Field(UnjudgedLimits(), description="rhythm not judged for much of a minute")
    gap: GapLimits = Field(GapLimits(), description="samples missing")
    stream_lost: StreamLostLimits = Field(StreamLostLimits(), description="no data arriving")
    behind: BehindLimits = Field(BehindLimits(), description="monitor too slow for its streams")
    suppress_after: float = Field(
        4.0,
        ge=0,
        le=60,
        description="seconds for which a physiological alarm below high priority cannot be judged before it "
        "is suppressed",
    )
    again_after: float = Field(
        60.0,
        ge=0,
        le=3600,
        description="seconds after it ended or latched within which an alarm that recurs is the same "
        "alarm (it then ends only when its condition has been over for as long); later it is a new, "
        "announced alarm",
    )
    announcements: int = Field(
        12,
        ge=1,
        le=1000,
        description="most alarms of a bed announced per hour (low priority: half of it, high: always "
        "announced); further ones are only recorded",
    )
    longest_hop: float = Field(
        2.5,
        gt=0,
        le=60,
        description="most seconds that one observation adds to a delay; a longer interval was not observed",
    )

    @model_validator(mode="after")
    def _apart(self) -> Self:
        slow, fast = self.bradycardia, self.tachycardia
        if slow.medium + slow.back > fast.medium - fast.back:
            raise ValueError(
                "the limits of `bradycardia` and `tachycardia` overlap: no heart rate would end both alarms"
            )
        return self
