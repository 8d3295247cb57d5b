from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from genray.errors import DataError
from monitors.outputs.strips import StripSettings, StripStore, read_strip, strip_as_json
from monitors.patient.output import Strip
from monitors.sources.message import MISSING

ALARM = "bed-1:asystole:1000000"


def strip(alarm: str = ALARM, *, until: float = 1020.0, complete: bool = True) -> Strip:
    samples = round((until - 990) * 100)
    microvolts = np.arange(2 * samples).reshape(-1, 2) % 999
    return Strip(
        alarm=alarm,
        stream="bed-1",
        kind="asystole",
        priority="high",
        reason="no QRS complex for 4.2 s; limit 4 s",
        onset=1000.0,
        start=990.0,
        rate=100.0,
        leads=("II", "V1"),
        left_out=0,
        microvolts=microvolts.astype(np.int16),
        until=until,
        complete=complete,
    )


def store(folder: Path, most: int = 5000) -> StripStore:
    return StripStore(folder / "strips", StripSettings(most=most))


def test_a_strip_is_read_as_it_was_saved_by_whoever_knows_its_alarm(tmp_path: Path) -> None:
    store(tmp_path).save([strip()])
    found = read_strip(tmp_path / "strips", ALARM)
    assert found is not None
    assert np.array_equal(found.microvolts, strip().microvolts)
    assert replace(found, microvolts=strip().microvolts).reason == strip().reason
    assert (found.onset, found.until, found.leads, found.complete) == (1000.0, 1020.0, ("II", "V1"), True)
    assert read_strip(tmp_path / "strips", "bed-2:asystole:1") is None
    assert read_strip(tmp_path / "elsewhere", ALARM) is None


def test_neither_files_nor_other_users_see_whose_it_is(tmp_path: Path) -> None:
    hostile = "../../bed-7\0/\ud800:asystole:1"
    store(tmp_path).save([strip(hostile)])
    (file,) = (tmp_path / "strips").iterdir()
    assert "bed" not in file.name
    assert read_strip(tmp_path / "strips", hostile) is not None
    assert (tmp_path / "strips").stat().st_mode & 0o077 == 0


def test_what_is_repeated_after_a_kill_takes_nothing_away(tmp_path: Path) -> None:
    store(tmp_path).save([strip(until=1015.0, complete=False)])
    for until, expected in ((1003.0, 1015.0), (1017.0, 1017.0)):
        store(tmp_path).save([strip(until=until, complete=False)])
        found = read_strip(tmp_path / "strips", ALARM)
        assert found is not None
        assert (found.until, found.complete) == (expected, False)


def test_the_oldest_are_deleted_beyond_the_most_and_by_age(tmp_path: Path) -> None:
    kept = store(tmp_path, 3)
    for number in range(5):
        kept.save([strip(str(number))])
    assert [read_strip(tmp_path / "strips", str(n)) is not None for n in range(5)] == [False] * 2 + [True] * 3
    for number, file in enumerate(
        sorted((tmp_path / "strips").iterdir(), key=lambda f: f.stat().st_mtime_ns)
    ):
        os.utime(file, (1000.0 + number, 1000.0 + number))
    (tmp_path / "strips" / ".genray-killed.tmp").touch()
    again = store(tmp_path, 3)
    again.prune(before=1001.5)
    assert len(list((tmp_path / "strips").iterdir())) == 1
    again.prune(before=time.time())
    assert not list((tmp_path / "strips").iterdir())
    store(tmp_path, 0).save([strip()])
    assert not list((tmp_path / "strips").iterdir())


def test_what_cannot_be_written_waits_and_is_written_later(tmp_path: Path) -> None:
    (tmp_path / "strips").write_text("a file where the folder would be")
    kept = store(tmp_path)
    kept.save([strip()])
    assert kept.waits
    assert "cannot be written" in str(kept.write_error)
    (tmp_path / "strips").unlink()
    kept.save([])
    assert (kept.waits, kept.write_error) == (False, None)
    assert kept.read(ALARM) is not None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[" * 100_000,
        b"{}\n",
        b'{"version": 2}\n',
        b'{"version": 1, "leads": [], "onset": 0, "start": 0, "rate": 1, "until": 0}\n',
        b'{"version": 1, "leads": ["II"], "onset": 0, "start": 0, "rate": NaN, "until": 0}\n',
        b"x" * 3_000_000,
    ],
)
def test_a_damaged_file_says_so(tmp_path: Path, content: bytes) -> None:
    store(tmp_path).save([strip()])
    (file,) = (tmp_path / "strips").iterdir()
    file.write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        read_strip(tmp_path / "strips", ALARM)


def test_the_page_gets_millivolts_by_lead() -> None:
    given = strip()
    given.microvolts[3, 1] = MISSING
    values = strip_as_json(given)["values"]
    assert values["II"][1] == 0.002
    assert values["V1"][3] is None
    assert "microvolts" not in strip_as_json(given)
