"""Which channels of a record are an ECG, or a pulse wave beside it, by their names, units and rates; what is
left out is said.

1. Channels in volts whose names are those of ECG leads (II, aVR, MLII, ECG 2) are taken.
2. If there are none, channels whose unit of volts is stated and whose names are of nothing else are taken,
   and a note says so. Columns without a unit are not taken for an ECG: the error asks which are one.
3. Names of other signals (EEG, EOG, EMG, respiration, pressures) and of numbers (HR, marker, quality) are no
   ECG. A name that says ECG wins over those of other signals: `ECG leg` is one, `ECG quality` is none, unless
   it is in volts.
4. Pulse waves (PLETH, PPG) and arterial pressures (ABP, ART) are taken beside the ECG where they are wanted.
5. Names that the user chooses win over all of this.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum
from pathlib import Path

from genray.errors import DataError
from genray.text import printable

RATES = (50.0, 4000.0)
"""Sampling rates that are read, Hz."""

MAX_LEADS = 16
"""Leads of a record that are read at most."""
_MOST_LISTED = 10  # channels that a message names
_LONGEST_NAME = 40  # characters of each
_MILLIVOLTS = {"nv": 1e-6, "uv": 1e-3, "mv": 1.0, "v": 1e3}
_LONG_UNITS = {"nanovolt": "nv", "microvolt": "uv", "mikrovolt": "uv", "millivolt": "mv", "volt": "v"}
_SAYS_ECG = re.compile(r"ecg|ekg|electro ?cardio|elektro ?kardio|cardiogram", re.I)
_LEAD = re.compile(  # compared with the letters and digits of a name
    r"lead\d{1,2}|(lead|ableitung|derivation|dérivation|derivaci[oó]n|channel|mod)?"
    r"(i{1,3}|v[1-9]r?(v[1-9]r?)?|m?av[rlf]|ml?i{1,3}|ml\d|mv[1-9]|mcl\d?|c[ms]\d|cc5|d(i{1,3}|[123])|es|as|ai)",
    re.I,
)
_CHEST_LEAD = "V"  # of bedside monitors, beside II
_CHEST = re.compile(r"c[1-6]", re.I)  # IEC names of V1 to V6, but also EEG electrodes
_NUMBER = re.compile(  # words: no signal, but what is counted or measured from one
    "hr|hrv|heart(rate)?|pulse|pr|bpm|rate|rr|rri|rrint.*|ibi|nn|qrs|r?peaks?|rpk|beats?|interval|mark|marker.*|trig|"
    "trigger.*|events?|annot.*|labels?|class|classification|quality.*|sqi|index|counter|count|seq|sequence|nseq|"
    "packet|battery|status|flag|state|stage|id|time|timestamp.*|date|error|contact|frame|row|nr|no|leadoff|loff"
)
_OTHER_SIGNAL = re.compile(
    "eeg|eog|emg|ecog|seeg|meg|chin|legs?|tib|tibialis|loc|roc|lat|rat|abp|art|cvp|pap|icp|n?ibp|bp|pa|ppg|pleth.*|"
    "spo2?|sao2?|so2|(et)?co2|etco|capno.*|oxim.*|sat|rip|resp.*|breath.*|atem.*|flow|airflow|nasal|thor|thora.*|"
    "abdo?|abdom.*|effort|snor.*|mic|sound|audio|phono|pcg|scg|bcg|acc|accel.*|gyro.*|mag|temp.*|gsr|eda|scl|light|"
    "position|body|press|pressure|imp|impedance|steps|motion|angle"
)
_PULSE = re.compile("pleth[a-z]*|ppg")
_PRESSURE = re.compile("art|abp|ibp|ao|fap|uap")
_DERIVED = re.compile("mean|map|sys.*|dia.*|min|max|avg|amp.*")  # words: numbers of a pressure
_PRESSURE_UNIT = re.compile(r"mm ?hg|cm ?h2o|k?pa|torr", re.I)
_ELECTRODE = r"(fp|af|fc|ft|cp|tp|po|[fctpo])(z|\d\d?)"
_EEG = re.compile(  # electrodes of the 10-20 system or beside the eyes, against others: C3-M2, Fp1-F7, E1-A2
    rf"\s*{_ELECTRODE}\s*[-:/ ]\s*(ref|avg?|le|cle|fp|af|fc|ft|cp|tp|po|[amfctpo])(z|\d\d?)?\s*|"
    r"\s*(e[12]|[lr]oc|eog[lr]?)\s*[-:/ ]\s*[am]\d\s*",
    re.I,
)
_EEG_ALONE = re.compile(r"fp[12z]|f[34789z]|cz|o[12z]|t[3-8]|p[347z]|m[12]|e[12]", re.I)


class Look(Enum):
    """What the name of a channel says: an ECG, something else, or nothing."""

    ECG = "ecg"
    OTHER = "other"
    UNKNOWN = "unknown"


class LeadKind(StrEnum):
    """What a lead shows: an ECG, the pulse wave of an oximeter, or an arterial pressure."""

    ECG = "ecg"
    PULSE = "pulse"
    PRESSURE = "pressure"


@dataclass(frozen=True)
class Channel:
    """A channel of a record.

    Attributes:
        name: as the file has it.
        unit: as the file has it; empty where it has none.
        rate: samples a second; None where all channels have the same, which is not known yet.
        in_volts: whether its samples can be given in millivolts.
    """

    name: str
    unit: str = ""
    rate: float | None = None
    in_volts: bool = True


@dataclass(frozen=True)
class Choice:
    """The channels that are read.

    Attributes:
        taken: their places among all.
        kinds: what each of them shows; the ECG comes first.
        notes: what was left out or assumed.
    """

    taken: tuple[int, ...]
    kinds: tuple[LeadKind, ...]
    notes: tuple[str, ...]


def look_of(name: str) -> Look:
    """Return what the name of a channel says."""
    if _SAYS_ECG.search(name):
        return Look.OTHER if _is_number(name) else Look.ECG
    if _is_number(name) or _is_other_signal(name):
        return Look.OTHER
    plain = "".join(filter(str.isalnum, name))
    return Look.ECG if plain == _CHEST_LEAD or _LEAD.fullmatch(plain) else Look.UNKNOWN


def lead_kind(name: str, unit: str = "") -> LeadKind:
    """Return what a lead shows, by its name and, where that says nothing, its unit; an ECG if neither says
    anything else."""
    if _SAYS_ECG.search(name) or _is_number(name):
        return LeadKind.ECG
    words = _words(name)
    if any(_DERIVED.fullmatch(word) for word in words):
        return LeadKind.ECG
    if any(_PULSE.fullmatch(word) for word in words):
        return LeadKind.PULSE
    if any(_PRESSURE.fullmatch(word) for word in words) or _PRESSURE_UNIT.fullmatch(unit.strip()):
        return LeadKind.PRESSURE
    return LeadKind.ECG


def numbers_a_millivolt(numbers_a_unit: float, unit: str) -> float | None:
    """Return the gain of a channel; None if its unit is not one of volts, so that it cannot be an ECG."""
    volts = _MILLIVOLTS.get(_plain_unit(unit))
    return None if volts is None else numbers_a_unit / volts


def is_in_volts(unit: str) -> bool:
    """Return whether `unit` is one of volts."""
    return numbers_a_millivolt(1, unit) is not None


def choose_channels(
    path: Path, channels: Sequence[Channel], wanted: Sequence[str] = (), *, pulse: bool = False
) -> Choice:
    """Return the channels that are read.

    Args:
        wanted: names that the user chose; empty: those that look like an ECG.
        pulse: whether pulse waves and arterial pressures are read too.

    Raises:
        DataError: there is no ECG, or none of `wanted`.
    """
    if wanted:
        return _choose_wanted(path, channels, wanted, pulse=pulse)
    looks = _looks(channels)
    named = [n for n, look in enumerate(looks) if look is Look.ECG and channels[n].in_volts]
    unknown = [
        n
        for n, look in enumerate(looks)
        if look is Look.UNKNOWN and channels[n].in_volts and is_in_volts(channels[n].unit)
    ]
    taken = [n for n in named or unknown if _is_rate_read(channels[n].rate)]
    if not taken:
        raise _no_ecg(path, channels, looks)
    notes = []
    if not named:
        names = listed([channels[n].name for n in taken])
        notes.append(f"taken for an ECG by their unit, as their names do not say what they are: {names}")
    waves, wave_notes = _pulse_waves(channels, taken) if pulse else ([], [])
    notes += wave_notes
    left_out = [n for n in range(len(channels)) if n not in taken and n not in waves]
    other = [n for n in left_out if looks[n] is Look.OTHER]
    slow = [n for n in left_out if n in (named or unknown)]
    not_volts = [n for n in left_out if looks[n] is Look.ECG and n not in slow]
    unclear = [n for n in left_out if looks[n] is Look.UNKNOWN and n not in slow]
    for places, why in (
        (other, "no ECG by their names"),
        (slow, f"not sampled at {RATES[0]:g} to {RATES[1]:g} Hz"),
        (not_volts, "not in a unit of volts"),
        (unclear, "not said to be an ECG by their names"),
    ):
        if places:
            notes.append(f"left out, {why}: {listed([_described(channels[n], why) for n in places])}")
    return _choice(channels, taken, waves, notes)


def _choice(
    channels: Sequence[Channel], ecg: Sequence[int], waves: Sequence[int], notes: Sequence[str]
) -> Choice:
    kinds = [LeadKind.ECG] * len(ecg) + [lead_kind(channels[n].name, channels[n].unit) for n in waves]
    return Choice((*ecg, *waves), tuple(kinds), tuple(notes))


def _pulse_waves(channels: Sequence[Channel], ecg: Sequence[int]) -> tuple[list[int], list[str]]:
    """Return the pulse waves and pressures beside an ECG by their names, and what is to be said of them. A
    wave that is sampled faster than the ECG is left out, as that would be resampled to its rate."""
    named = [
        n
        for n, channel in enumerate(channels)
        if n not in ecg and lead_kind(channel.name) is not LeadKind.ECG and _is_rate_read(channel.rate)
    ]
    fastest = max((channels[n].rate or 0.0 for n in ecg), default=0.0)
    slow = [n for n in named if (channels[n].rate or 0.0) <= fastest]
    waves = slow[: MAX_LEADS - len(ecg)]
    notes = []
    if waves:
        kinds = [f"{channels[n].name} ({lead_kind(channels[n].name)})" for n in waves]
        notes.append(f"read beside the ECG, for the pulse: {listed(kinds)}")
    return waves, notes


def resampled_note(names: Sequence[str], rates: Sequence[float], rate: float) -> tuple[str, ...]:
    """Return what is said of leads that are read at another rate than the file has; nothing if none is."""
    others = [f"{name} ({each:g} Hz)" for name, each in zip(names, rates, strict=True) if each != rate]
    return (f"resampled to {rate:g} Hz: {listed(others)}",) if others else ()


def lead_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return names that are printable, short, and none of them twice."""
    leads: list[str] = []
    for number, name in enumerate(names, 1):
        lead = "".join(c for c in name if c.isascii() and c.isprintable()).strip()[:16] or f"ECG{number}"
        while lead in leads:
            lead = f"{lead[:12]}-{number}"[:16]
        leads.append(lead)
    return tuple(leads)


def listed(names: Sequence[str]) -> str:
    """Return names from a file as one line: the first ten, cut where they are long."""
    more = f" and {len(names) - _MOST_LISTED} more" if len(names) > _MOST_LISTED else ""
    return printable(", ".join(name[:_LONGEST_NAME] for name in names[:_MOST_LISTED])) + more


def _choose_wanted(path: Path, channels: Sequence[Channel], wanted: Sequence[str], *, pulse: bool) -> Choice:
    places = {channel.name.strip().casefold(): n for n, channel in reversed(list(enumerate(channels)))}
    taken = list(dict.fromkeys(places[w] for name in wanted if (w := name.strip().casefold()) in places))
    names = listed([channel.name for channel in channels]) or "none"
    if not taken:
        problem = f"it has none of the channels {listed(wanted)}; it has {names}"
        raise DataError(
            f"cannot use the record {path.name}: {problem}",
            where=str(path),
            hint="set source.leads to names of these",
        )
    waves = [n for n in taken if pulse and lead_kind(channels[n].name, channels[n].unit) is not LeadKind.ECG]
    waves = waves if len(waves) < len(taken) else []
    taken = [n for n in taken if n not in waves]
    for n in taken:
        channel = channels[n]
        if not channel.in_volts or not _is_rate_read(channel.rate):
            rate = "" if channel.rate is None else f" at {channel.rate:g} Hz"
            raise DataError(
                f"cannot use the record {path.name}: its channel {listed([channel.name])} is in "
                f"{channel.unit.strip() or 'no unit'}{rate}",
                where=str(path),
                hint=f"choose channels in V, mV or uV of {RATES[0]:g} to {RATES[1]:g} Hz with source.leads",
            )
    missing = [name for name in wanted if name.strip().casefold() not in places]
    left_out = [channels[n].name for n in range(len(channels)) if n not in taken and n not in waves]
    notes = [f"not in the record: {listed(missing)}"] if missing else []
    notes += [f"left out, not chosen: {listed(left_out)}"] if left_out else []
    return _choice(channels, taken, waves, notes)


def _looks(channels: Sequence[Channel]) -> list[Look]:
    """Return what each name says, in the company of the others. C1 to C6 are chest leads beside limb leads,
    and electrodes of an EEG beside others of these. What says ECG and is in volts is one, whatever else it
    says."""
    names = [channel.name.strip() for channel in channels]
    looks = [look_of(name) for name in names]
    with_limbs = any(name.casefold() in ("i", "ii", "iii", "avr", "avl", "avf") for name in names)
    with_eeg = any(_EEG_ALONE.fullmatch(name) or _EEG.fullmatch(name) for name in names)
    for n, (name, channel) in enumerate(zip(names, channels, strict=True)):
        if _CHEST.fullmatch(name) and (with_limbs or with_eeg):
            looks[n] = Look.ECG if with_limbs else Look.OTHER
        elif looks[n] is Look.OTHER and _SAYS_ECG.search(name) and is_in_volts(channel.unit):
            looks[n] = Look.ECG
    return looks


def _no_ecg(path: Path, channels: Sequence[Channel], looks: Sequence[Look]) -> DataError:
    described = [f"{c.name} ({c.unit.strip() or 'no unit'})" for c in channels]
    hint = "give a record of an ECG in V, mV or uV; names such as Resp or ABP are not taken for one"
    rates = [c for c, look in zip(channels, looks, strict=True) if look is Look.ECG and c.in_volts]
    without_unit = [
        c.name for c, look in zip(channels, looks, strict=True) if look is Look.ECG and not c.unit.strip()
    ]
    unclear = [c.name for c, look in zip(channels, looks, strict=True) if look is Look.UNKNOWN]
    if rates:
        slow = listed([f"{c.name} ({c.rate:g} Hz)" for c in rates if c.rate is not None])
        problem = f"its ECG is not sampled at {RATES[0]:g} to {RATES[1]:g} Hz: {slow}"
        return DataError(
            f"cannot use the record {path.name}: {problem}",
            where=str(path),
            hint="export it again with its own rate, or resample it with xform of the WFDB software",
        )
    if without_unit:
        hint = f"if {listed(without_unit[:1])} is an ECG, write its unit into the header: V, mV or uV"
    elif unclear:
        hint = (
            f"if one of these is an ECG, choose it: --set 'source.leads=[{listed(unclear[:1])}]'; "
            "or rename it, as II or ECG (mV)"
        )
    return DataError(
        f"cannot use the record {path.name}: no channel is an ECG: {listed(described) or 'it has none'}",
        where=str(path),
        hint=hint,
    )


def _described(channel: Channel, why: str) -> str:
    if why.startswith("not sampled"):
        return f"{channel.name} ({channel.rate:g} Hz)"
    if why.startswith("not in a unit"):
        return f"{channel.name} ({channel.unit.strip() or 'no unit'})"
    return channel.name


def _is_rate_read(rate: float | None) -> bool:
    return rate is None or RATES[0] <= rate <= RATES[1]


def _is_number(name: str) -> bool:
    """Return whether a name is one of numbers that are taken from signals, or that count."""
    return any(_NUMBER.fullmatch(word) for word in _words(name))


def _is_other_signal(name: str) -> bool:
    stripped = name.strip()
    return (
        _EEG.fullmatch(stripped) is not None
        or _EEG_ALONE.fullmatch(stripped) is not None
        or any(_OTHER_SIGNAL.fullmatch(word) for word in _words(name))
    )


def _words(name: str) -> set[str]:
    """Return the words of a name in small letters: those between other characters, and those of camelCase;
    also without digits."""
    runs = re.findall(r"[^\W_]+", name)
    camel = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)
    letters = re.findall(r"[^\W\d_]+", name)
    together = re.sub(r"[\W_]", "", name)
    return {word.casefold() for word in (*runs, *camel, *letters, together)}


def _plain_unit(unit: str) -> str:
    plain = unit.strip().lower().replace("\u00b5", "u").replace("\u03bc", "u").rstrip(".")
    return _LONG_UNITS.get(plain.removesuffix("s"), plain)
