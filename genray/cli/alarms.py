"""`genray monitor alarms`, `strip` and `names`: list recorded alarms, draw the samples around one, and list
the pseudonyms of streams.

Nothing is written, and the monitor may be running.
"""

from __future__ import annotations

import csv
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, get_args

import click

from genray.cli.terminal.options import JSON, reported
from genray.cli.terminal.output import print_encodable, print_json, say
from genray.errors import DataError, UsageError
from genray.text import aligned, duration, label_value

if TYPE_CHECKING:
    from monitors.alarms.reasons import Measurement
    from monitors.outputs.history import AlarmEpisode, History
    from monitors.sources.pseudonyms import Pseudonyms

_SECONDS_PER_UNIT = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_CLOCKS_APART = 60.0  # s between the clocks of samples and monitor beyond which both times are shown
_NARROW = 110  # columns of a terminal below which the cells of a table would be broken into pieces
_TABLE_COLUMNS = ("ONSET", "STREAM", "ALARM", "PRIORITY", "STATE", "LASTED", "ANNOUNCED", "ACK", "WHY")
_CSV_COLUMNS = (
    *("onset", "recorded", "stream", "kind", "category", "priority", "state", "reason", "seconds"),
    *("announced", "acknowledged", "value", "unit", "limit", "why", "alarm"),
)
_STYLES = {"high": "bold red", "medium": "yellow"}


_STATE = click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the monitor's state (default: `state` in the shipped ecg settings).",
)


@click.command()
@_STATE
@click.option("--since", metavar="TIME", help="Leave out alarms that ended longer ago: 30m, 8h, 2d.")
@click.option("--stream", metavar="NAME", help="Show only this stream: its name or its pseudonym.")
@click.option("--kind", metavar="KIND", help="Show only this kind of alarm, such as asystole or lead-off.")
@click.option(
    "--limit",
    default=100,
    show_default=True,
    type=click.IntRange(1, 100_000),
    help="Show at most this many alarms, the newest.",
)
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV to standard output.")
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
    """List the alarms that a monitor recorded, newest first.

    The monitor may be running: nothing is written.

    \b
    Example:
      genray monitor alarms --since 8h
      genray monitor alarms --state runs/ecg-demo/monitor --stream bed-7 --csv > alarms.csv
    """
    from monitors.outputs.history import known_streams, read_history

    if as_json and as_csv:
        raise UsageError("--json and --csv cannot be used together", hint="give only one of them")
    folder = state or default_state()
    now = time.time()
    journal = folder / "journal.sqlite"
    streams = set[str]() if stream is None else _possible_streams(folder, stream)
    history = read_history(
        journal,
        since=None if since is None else now - _parse_period(since),
        streams=streams,
        kind=None if kind is None else _check_kind(kind),
        explained=limit,
    )
    if streams and not history.episodes and streams.isdisjoint(known_streams(journal)):
        say(f"the journal contains no stream {label_value(str(stream))}")
    shown = history.episodes[:limit]
    figures = _Figures.of(history)
    if as_json:
        listed = [_alarm_json(episode, history.until) for episode in shown]
        more = len(history.episodes) - len(shown)
        print_json({"state": str(folder), "alarms": listed, "more": more, "summary": figures.as_json()})
    elif as_csv:
        _print_csv([_alarm_json(episode, history.until) for episode in shown])
        say(figures.line())
    else:
        if shown:
            _print_table([_table_row(episode, history.until) for episode in shown])
        print_encodable(figures.line())
    if len(history.episodes) > len(shown):
        more = len(history.episodes) - len(shown)
        say(f"{more:,} more alarms: show all with --limit {len(history.episodes)}")


@click.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@_STATE
@click.option("--known", is_flag=True, help="List the streams of the journal, too, with their names.")
@JSON
@reported
def names(names: tuple[str, ...], state: Path | None, known: bool, as_json: bool) -> None:
    """Print the pseudonyms of streams.

    A monitor shows the pseudonym of a stream instead of its NAME.

    \b
    Example:
      genray monitor names bed-7 bed-8 --known
    """
    from monitors.outputs.history import STATE_HINT, known_streams

    folder = state or default_state()
    pseudonyms = _pseudonyms(folder)
    if pseudonyms is None:
        raise DataError(
            "no key for pseudonyms found; a monitor creates it when it first runs",
            where=str(folder / "stream.key"),
            hint=STATE_HINT,
        )
    pseudonym_of = {name: pseudonyms.of(_check_name(name)) for name in names}
    name_of = {pseudonym: name for name, pseudonym in pseudonym_of.items()}
    streams = known_streams(folder / "journal.sqlite") if known else []
    if as_json:
        values: dict[str, Any] = {"names": pseudonym_of}
        if known:
            values["known"] = [{"stream": stream, "name": name_of.get(stream)} for stream in streams]
        print_json(values)
        return
    print_encodable(
        aligned([(label_value(name, 255), pseudonym) for name, pseudonym in pseudonym_of.items()])
    )
    if known:
        rows = [(label_value(stream), label_value(name_of.get(stream, "-"), 255)) for stream in streams]
        print_encodable("\n" + aligned([("KNOWN", "NAME"), *rows]))


@click.command()
@click.argument("alarm")
@click.option(
    "--output", required=True, type=click.Path(path_type=Path, dir_okay=False), help="PNG file to write."
)
@_STATE
@JSON
@reported
def strip(alarm: str, output: Path, state: Path | None, as_json: bool) -> None:
    """Draw the ECG around the onset of an alarm.

    10 s before and 20 s after the onset, as on ECG paper: 25 mm/s, 10 mm/mV. ALARM is a name in the column
    `alarm` of `genray monitor alarms --csv`. The monitor may be running.

    \b
    Example:
      genray monitor alarms --since 8h --csv
      genray monitor strip 1a2b3c4d5e6f7a8b:asystole:1700000064000 --output strip.png
    """
    from monitors.outputs.strip_picture import draw_strip, incompleteness
    from monitors.outputs.strips import FOLDER, read_strip

    folder = state or default_state()
    found = read_strip(folder / FOLDER, alarm)
    if found is None:
        raise _missing_strip(folder, alarm)
    try:
        draw_strip(found, output)
    except OSError as error:
        raise UsageError(
            f"the strip cannot be written: {error.strerror}",
            where=str(output),
            hint="choose another file for --output",
        ) from error
    if missing := incompleteness(found):
        say(missing)
    if as_json:
        print_json({"alarm": alarm, "output": str(output), "complete": found.complete})
    else:
        print_encodable(str(output))


def _missing_strip(folder: Path, alarm: str) -> DataError:
    """Return the error for an alarm without a strip; raises an error itself if there is no journal."""
    from monitors.outputs.history import read_history

    shown = label_value(alarm)
    episodes = read_history(folder / "journal.sqlite", explained=0).episodes
    if any(episode.alarm == alarm for episode in episodes):
        return DataError(
            f"no strip is stored with the alarm {shown}",
            where=str(folder),
            hint="alarms of lost streams have no samples; the setting strips.most limits how many strips are "
            "stored",
        )
    newest = f", such as {label_value(episodes[0].alarm)}" if episodes else ""
    return DataError(
        f"there is no alarm {shown} in the journal",
        where=str(folder),
        hint=f"give a name of the column `alarm` of `genray monitor alarms --csv`{newest}; --state names the "
        "folder of another monitor",
    )


def default_state() -> Path:
    """Return the default state folder, from the shipped settings: loading the ecg settings would import all
    of the monitor."""
    from genray.settings.shipped import shipped_values

    return Path(shipped_values("ecg")["state"])


@dataclass(frozen=True)
class _Figures:
    """Summary of alarms: counts by kind and priority, and the rate per bed and day.

    Attributes:
        kinds: counts by kind and priority, the most frequent kind first.
        complete: whether all alarms of the period were read.
        seconds: length of the period.
        rate: announced alarms per bed and day; None: the period is too short.
    """

    alarms: int
    announced: int
    open: int
    kinds: Mapping[str, Mapping[str, int]]
    complete: bool
    beds: int
    seconds: float
    rate: float | None

    @classmethod
    def of(cls, history: History) -> Self:
        from monitors.outputs.history import priority_rank

        kinds: dict[str, dict[str, int]] = {}
        by_priority = sorted(
            history.episodes, key=lambda episode: priority_rank(episode.priority), reverse=True
        )
        for episode in by_priority:
            counts = kinds.setdefault(episode.kind, {})
            counts[episode.priority] = counts.get(episode.priority, 0) + 1
        rate = history.per_bed_and_day
        return cls(
            alarms=len(history.episodes),
            announced=sum(episode.announced for episode in history.episodes),
            open=sum(episode.state != "ended" for episode in history.episodes),
            kinds=dict(sorted(kinds.items(), key=lambda item: -sum(item[1].values()))),
            complete=not history.cut,
            beds=history.beds,
            seconds=round(max(0.0, history.until - history.began), 1),
            rate=None if rate is None else round(rate, 2),
        )

    def as_json(self) -> dict[str, Any]:
        """Return the summary as plain JSON values."""
        return {
            "alarms": self.alarms,
            "announced": self.announced,
            "open": self.open,
            "kinds": self.kinds,
            "complete": self.complete,
            "beds": self.beds,
            "seconds": self.seconds,
            "announced_per_bed_and_day": self.rate,
        }

    def line(self) -> str:
        """Return the summary as a line for a person."""
        if not self.alarms:
            return "no alarms"
        kinds = []
        for kind, counts in self.kinds.items():
            priorities = ", ".join(f"{count} {label_value(priority)}" for priority, count in counts.items())
            kinds.append(f"{label_value(kind)} {sum(counts.values())} ({priorities})")
        rate = "too short for a rate" if self.rate is None else f"{self.rate:.3g} announced per bed and day"
        parts = [
            f"alarms {self.alarms:,}, announced {self.announced:,}, open {self.open:,}",
            ", ".join(kinds),
            f"beds {self.beds}, {duration(self.seconds)}: {rate}",
        ]
        if not self.complete:
            parts.append("older alarms were not read")
        return "; ".join(parts)


def _measurement(episode: AlarmEpisode) -> Measurement:
    from monitors.alarms.reasons import measurement

    return measurement(episode.kind, episode.priority, episode.why)


def _table_row(episode: AlarmEpisode, until: float) -> tuple[str, ...]:
    """Return the cells of `_TABLE_COLUMNS`."""
    onset = _local_time(episode.onset)
    recorded = _local_time(episode.recorded)
    if abs(episode.recorded - episode.onset) > _CLOCKS_APART:
        onset += f" (recorded {_without_same_day(recorded, onset)})"
    state = label_value(episode.state)
    if episode.reason not in ("", episode.state):
        state += f" ({label_value(episode.reason, 100)})"
    acknowledged = ""
    if episode.acknowledged is not None:
        acknowledged = _without_same_day(_local_time(episode.acknowledged), recorded)
    return (
        onset,
        label_value(episode.stream),
        label_value(episode.kind),
        label_value(episode.priority),
        state,
        _lasted_text(episode, until),
        "yes" if episode.announced else "no",
        acknowledged,
        _measurement(episode).text,
    )


def _lasted_text(episode: AlarmEpisode, until: float) -> str:
    from monitors.alarms.reasons import plausible_number

    lasted = plausible_number(episode.lasted(until))
    if lasted is None:
        return ""
    return duration(lasted) if episode.state == "ended" else f"{duration(lasted)} so far"


def _alarm_json(episode: AlarmEpisode, until: float) -> dict[str, Any]:
    """Return an alarm as plain values by `_CSV_COLUMNS`: times in ISO 8601 with UTC offset, durations in
    s."""
    from monitors.alarms.reasons import plausible_number

    measurement = _measurement(episode)
    acknowledged = episode.acknowledged
    return {
        "onset": _iso_time(episode.onset),
        "recorded": _iso_time(episode.recorded),
        "stream": episode.stream,
        "kind": episode.kind,
        "category": episode.category,
        "priority": episode.priority,
        "state": episode.state,
        "reason": episode.reason,
        "seconds": plausible_number(round(episode.lasted(until), 3)),
        "announced": episode.announced,
        "acknowledged": None if acknowledged is None else _iso_time(acknowledged),
        "value": measurement.value,
        "unit": measurement.unit,
        "limit": measurement.limit,
        "why": measurement.text,
        "alarm": episode.alarm,
    }


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if not console.is_terminal or console.width < _NARROW:
        print_encodable(aligned([_TABLE_COLUMNS, *rows]) + "\n")
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in _TABLE_COLUMNS:
        table.add_column(name, overflow="fold")
    for row in rows:
        # As Text, since rich would read square brackets as markup.
        table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    with console.capture() as drawn:
        console.print(table)
    print_encodable(drawn.get())


def _print_csv(alarms: Sequence[Mapping[str, Any]]) -> None:
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_CSV_COLUMNS)
    writer.writerows([_csv_cell(alarm[name]) for name in _CSV_COLUMNS] for alarm in alarms)
    print_encodable(text.getvalue().rstrip("\n"))


def _csv_cell(value: Any) -> Any:
    if not isinstance(value, str) or not value:
        return value
    text = label_value(value, 256)
    # A spreadsheet would take a cell that begins like this as a formula.
    return f"'{text}" if value.startswith(("=", "+", "-", "@")) else text


def _parse_period(text: str) -> float:
    """Return the seconds of a duration like "90s", "45m", "8h", "2d" or "1h30m"."""
    parts = re.findall(r"(\d{1,6}(?:\.\d{1,3})?)([smhd])", text)
    seconds = sum(float(count) * _SECONDS_PER_UNIT[unit] for count, unit in parts)
    if "".join(count + unit for count, unit in parts) != text or not seconds:
        raise UsageError(f"--since {text!r} is not a duration", hint="write for example 30m, 8h or 2d")
    return seconds


def _check_kind(text: str) -> str:
    from monitors.alarms.events import AlarmKind

    if text not in get_args(AlarmKind):
        raise UsageError(
            f"unknown kind of alarm: {text!r}", hint=f"use one of {', '.join(get_args(AlarmKind))}"
        )
    return text


def _check_name(text: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise UsageError(
            f"{text!r} is not UTF-8, so it is no name of a stream", hint="check the name"
        ) from None
    return text


def _possible_streams(folder: Path, text: str) -> set[str]:
    """Return the pseudonyms that `text` can mean: itself, and with the key that of the name `text`."""
    pseudonyms = _pseudonyms(folder)
    if pseudonyms is None:
        return {_check_name(text)}
    return {_check_name(text), pseudonyms.of(text)}


def _pseudonyms(folder: Path) -> Pseudonyms | None:
    from monitors.sources.pseudonyms import Pseudonyms, load_or_make_key

    key = folder / "stream.key"
    return Pseudonyms(load_or_make_key(key)) if key.exists() else None  # a missing key must not be created


def _local_time(seconds: float) -> str:
    """Return a local time like "2026-03-01 14:31:12"."""
    moment = _datetime(seconds)
    return f"{seconds:g} s" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S}"


def _iso_time(seconds: float) -> str:
    """Return a local time in ISO 8601, with milliseconds and UTC offset."""
    moment = _datetime(seconds)
    return f"{seconds:g} s" if moment is None else moment.isoformat(timespec="milliseconds")


def _datetime(seconds: float) -> datetime | None:
    """Return the local time; None if `seconds` is no valid time, as a device may send any number."""
    try:
        return datetime.fromtimestamp(seconds).astimezone()
    except (ValueError, OverflowError, OSError):
        return None


def _without_same_day(moment: str, other: str) -> str:
    """Return only the time of day of `moment` if `other` has the same date, else all of it."""
    return moment[11:] if moment[:11] == other[:11] else moment
