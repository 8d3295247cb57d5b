"""`genray monitor alarms` and `genray monitor names`: what a monitor recorded, and under which pseudonyms.
Nothing is written, and the monitor may run."""

from __future__ import annotations

import csv
import re
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from genray.cli.options import JSON, reported
from genray.cli.output import print_encodable, print_json, say
from genray.errors import DataError, UsageError
from genray.text import aligned, duration, label_value

if TYPE_CHECKING:
    from monitors.outputs.history import AlarmEpisode, History
    from monitors.sources.pseudonyms import Pseudonyms

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_APART = 60.0  # s between the clocks of samples and monitor from which both times are shown
_HEAD = ("ONSET", "STREAM", "ALARM", "PRIORITY", "STATE", "LASTED", "TOLD", "ACK", "WHY")
_NARROW = 110  # columns of a terminal under which cells would be cut into pieces
_COLUMNS = (
    *("onset", "recorded", "stream", "kind", "category", "priority", "state", "reason", "seconds"),
    *("announced", "acknowledged", "value", "unit", "limit", "why", "alarm"),
)
_STYLES = {"high": "bold red", "medium": "yellow"}
# Of a kind: what was measured, its limit (unnamed: that of the priority), words, unit, digits.
_MEASURED = {
    "asystole": ("silence", "silence", "no beat for {}", " s", 1),
    "bradycardia": ("heart_rate", "", "{}", " beats a minute", 0),
    "tachycardia": ("heart_rate", "", "{}", " beats a minute", 0),
    "anomaly": ("burden", "begin", "{} of the last beats unusual", " %", 0),
    "gap": ("missing", "begin", "{} of the last minute missing", " s", 1),
    "stream-lost": ("lost", "", "nothing came for {}", " s", 0),
    "behind": ("behind", "begin", "the monitor was {} late", " s", 1),
}
_LEADS = {"lead-off": ("off", "off, flat or saturated"), "poor-signal": ("poor", "too noisy to be judged")}


_STATE = click.option(
    "--state", type=click.Path(path_type=Path, file_okay=False), help="Folder of the monitor; else the usual."
)


@click.command()
@_STATE
@click.option("--since", metavar="TIME", help="Leave out what had ended so long ago: 30m, 8h, 2d.")
@click.option("--stream", metavar="NAME", help="Of this stream alone: its name or its pseudonym.")
@click.option("--kind", metavar="KIND", help="Of this kind alone, such as asystole or lead-off.")
@click.option(
    "--limit", default=100, show_default=True, type=click.IntRange(1, 100_000), help="Show the newest."
)
@click.option("--csv", "as_csv", is_flag=True, help="CSV to standard output.")
@JSON
@reported
def alarms(
    state: Path | None,
    since: str | None,
    stream: str | None,
    kind: str | None,
    limit: int,
    as_csv: bool,
    as_json: bool,
) -> None:
    """List the alarms that a monitor recorded, newest first; it may be running.

    \b
    Example:
      genray monitor alarms --since 8h
      genray monitor alarms --state runs/ecg-demo/monitor --stream bed-7 --csv > alarms.csv
    """
    from monitors.outputs.history import known_streams, read_history

    if as_json and as_csv:
        raise UsageError("--json and --csv exclude each other", hint="give one of them")
    folder, now = state or _default_state(), time.time()
    journal = folder / "journal.sqlite"
    streams = () if stream is None else _meant_streams(folder, stream)
    history = read_history(
        journal,
        since=None if since is None else now - _period(since),
        streams=streams,
        kind=None if kind is None else _checked_kind(kind),
        explained=limit,
    )
    if streams and not history.episodes and not {*streams} & {*known_streams(journal)}:
        say(f"the journal knows no stream {label_value(str(stream))}")
    shown, until = history.episodes[:limit], history.until
    if as_json:
        listed = [_alarm_values(each, until) for each in shown]
        print_json({"state": str(folder), "alarms": listed, "summary": _figures(history)})
    elif as_csv:
        _print_csv([_alarm_values(each, until) for each in shown])
        say(_summary(history))
    else:
        if shown:
            _print_table([_row(each, until) for each in shown])
        print_encodable(_summary(history))
    if len(history.episodes) > len(shown):
        say(f"{len(history.episodes) - len(shown):,} more: --limit {len(history.episodes)} shows all")


@click.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@_STATE
@click.option("--known", is_flag=True, help="Also which stream of the journal has which of these names.")
@JSON
@reported
def names(names: tuple[str, ...], state: Path | None, known: bool, as_json: bool) -> None:
    """Print the pseudonyms under which a monitor shows the streams called NAME.

    \b
    Example:
      genray monitor names bed-7 bed-8 --known
    """
    from monitors.outputs.history import known_streams

    folder = state or _default_state()
    pseudonyms = _pseudonyms(folder)
    if pseudonyms is None:
        raise DataError(
            "there is no key for pseudonyms: a monitor makes it when it first runs",
            where=str(folder / "stream.key"),
            hint="give --state, the folder that `genray monitor ecg` names at its end as its state",
        )
    found = {name: pseudonyms.of(_checked_name(name)) for name in names}
    back = {pseudonym: name for name, pseudonym in found.items()}
    streams = known_streams(folder / "journal.sqlite") if known else []
    if as_json:
        listed = [{"stream": each, "name": back.get(each)} for each in streams]
        print_json({"names": found, **({"known": listed} if known else {})})
        return
    print_encodable(aligned([(label_value(name, 255), pseudonym) for name, pseudonym in found.items()]))
    if known:
        rows = [(label_value(each), label_value(back.get(each, "-"), 255)) for each in streams]
        print_encodable("\n" + aligned([("KNOWN", "NAME"), *rows]))


def _measure(each: AlarmEpisode) -> tuple[float | None, str, float | None, str]:
    """What an alarm was raised by: a value, its unit and its limit, as far as there are any, and in words."""
    said = (each.why.get(name) for name in ("measured", "limits"))
    measured, limits = (given if isinstance(given, dict) else {} for given in said)
    if each.kind in _LEADS and measured:
        name, words = _LEADS[each.kind]
        given = measured.get(name)
        leads = [label_value(str(lead), 16) for lead in given[:16]] if isinstance(given, list) else []
        return None, "", None, f"{', '.join(leads) or 'all leads'}: {words}"
    name, bound, words, unit, digits = _MEASURED.get(each.kind, ("", "", "", "", 0))
    if (value := _number(measured.get(name))) is None:
        return None, "", None, ""
    limit = _number(limits.get(bound or each.priority, limits.get("medium")))
    if unit == " %":
        value, limit = round(100 * value, 6), None if limit is None else round(100 * limit, 6)
    text = duration(value) if each.kind == "stream-lost" else f"{value:.{digits}f}{unit}"
    bounded = "" if limit is None else f"; limit {limit:g}{unit.replace(' beats', '')}"
    return value, unit.strip(), limit, words.format(text) + bounded


def _row(each: AlarmEpisode, until: float) -> tuple[str, ...]:
    onset, recorded = _moment(each.onset), _moment(each.recorded)
    if abs(each.recorded - each.onset) > _APART:
        onset += f" (recorded {_beside(recorded, onset)})"
    reason = f" ({label_value(each.reason, 100)})" if each.reason not in ("", each.state) else ""
    lasted, open_still = _number(each.lasted(until)), "" if each.state == "ended" else " so far"
    return (
        onset,
        label_value(each.stream),
        label_value(each.kind),
        label_value(each.priority),
        label_value(each.state) + reason,
        "" if lasted is None else duration(lasted) + open_still,
        "yes" if each.announced else "no",
        "" if each.acknowledged is None else _beside(_moment(each.acknowledged), recorded),
        _measure(each)[-1],
    )


def _alarm_values(each: AlarmEpisode, until: float) -> dict[str, Any]:
    """An alarm as plain values: times as ISO 8601 with their offset, seconds."""
    plain: dict[str, Any] = {name: getattr(each, name, None) for name in _COLUMNS}
    plain |= zip(("value", "unit", "limit", "why"), _measure(each), strict=True)
    for name in ("onset", "recorded", "acknowledged"):
        plain[name] = None if plain[name] is None else _moment(plain[name], "T")
    return plain | {"seconds": _number(round(each.lasted(until), 3))}


def _figures(history: History) -> dict[str, Any]:
    """How many alarms of each kind and priority, and a bed and day."""
    from monitors.outputs.history import priority_rank

    kinds: dict[str, dict[str, int]] = {}
    for each in sorted(history.episodes, key=lambda each: priority_rank(each.priority), reverse=True):
        of = kinds.setdefault(each.kind, {})
        of[each.priority] = of.get(each.priority, 0) + 1
    rate = history.per_bed_and_day
    return {
        "alarms": len(history.episodes),
        "announced": sum(each.announced for each in history.episodes),
        "open": sum(each.state != "ended" for each in history.episodes),
        "kinds": dict(sorted(kinds.items(), key=lambda item: -sum(item[1].values()))),
        "complete": not history.cut,
        "beds": history.beds,
        "seconds": round(max(0.0, history.until - history.began), 1),
        "announced_per_bed_and_day": None if rate is None else round(rate, 2),
    }


def _summary(history: History) -> str:
    """The same in a line."""
    figures = _figures(history)
    if not figures["alarms"]:
        return "no alarms"
    kinds = []
    for kind, of in figures["kinds"].items():
        each = ", ".join(f"{count} {label_value(priority)}" for priority, count in of.items())
        kinds.append(f"{label_value(kind)} {sum(of.values())} ({each})")
    count, rate = figures["alarms"], figures["announced_per_bed_and_day"]
    a_day = "too short for a rate" if rate is None else f"{rate:.3g} announced a bed and day"
    where = f"beds {figures['beds']}, {duration(figures['seconds'])}: {a_day}"
    head = f"alarms {count:,}, announced {figures['announced']:,}, open {figures['open']:,}"
    return f"{head}; {', '.join(kinds)}; {where}" + "; older ones were not read" * history.cut


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if not console.is_terminal or console.width < _NARROW:
        print_encodable(aligned([_HEAD, *rows]) + "\n")
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in _HEAD:
        table.add_column(name, overflow="fold")
    for row in rows:
        # As text: square brackets are markup to rich.
        table.add_row(*(Text(word, style=_STYLES.get(word, "")) for word in row))
    with console.capture() as drawn:
        console.print(table)
    print_encodable(drawn.get())


def _print_csv(alarms: Sequence[Mapping[str, Any]]) -> None:
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows([_cell(alarm[name]) for name in _COLUMNS] for alarm in alarms)
    print_encodable(text.getvalue().rstrip("\n"))


def _cell(value: Any) -> Any:
    text = label_value(value, 256) if isinstance(value, str) and value else value
    # A spreadsheet would compute what begins so.
    return f"'{text}" if str(value)[:1] in ("=", "+", "-", "@") and isinstance(value, str) else text


def _default_state() -> Path:
    """The folder that a monitor has unless it is told otherwise. To ask its settings would load all of it."""
    from genray.settings.shipped import shipped_values

    return Path(shipped_values("ecg")["state"])


def _period(text: str) -> float:
    """Seconds of "90s", "45m", "8h", "2d" or "1h30m"."""
    parts = re.findall(r"(\d{1,6}(?:\.\d{1,3})?)([smhd])", text)
    seconds = sum(float(count) * _SECONDS[unit] for count, unit in parts)
    if "".join(count + unit for count, unit in parts) != text or not seconds:
        raise UsageError(f"--since {text!r} is no length of time", hint="for example 30m, 8h or 2d")
    return seconds


def _checked_kind(text: str) -> str:
    from monitors.alarms.events import AlarmKind

    if text not in get_args(AlarmKind):
        raise UsageError(f"no kind of alarm is {text!r}", hint=f"there are {', '.join(get_args(AlarmKind))}")
    return text


def _meant_streams(folder: Path, text: str) -> set[str]:
    """The streams that `text` can mean: a pseudonym, or a name if the key is there."""
    pseudonyms = _pseudonyms(folder)
    return {_checked_name(text)} if pseudonyms is None else {_checked_name(text), pseudonyms.of(text)}


def _pseudonyms(folder: Path) -> Pseudonyms | None:
    from monitors.sources.pseudonyms import Pseudonyms, load_key

    key = folder / "stream.key"
    return Pseudonyms(load_key(key)) if key.exists() else None  # else it would be made


def _checked_name(text: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise UsageError(f"{text!r} is not UTF-8: no stream has that name", hint="check the name") from None
    return text


def _moment(seconds: float, between: str = " ") -> str:
    """Local time: "2026-03-01 14:31:12"; with "T" ISO 8601 with its offset. A device may say any time."""
    try:
        moment = datetime.fromtimestamp(seconds).astimezone()
    except (ValueError, OverflowError, OSError):
        return f"{seconds:g} s"
    return moment.isoformat(timespec="milliseconds") if between == "T" else f"{moment:%Y-%m-%d %H:%M:%S}"


def _beside(moment: str, other: str) -> str:
    """The time of day alone where the day was said."""
    return moment[11:] if moment[:11] == other[:11] else moment


def _number(value: Any) -> float | None:
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if plain and abs(value) < 1e15 else None  # nor was what is larger ever measured
