from __future__ import annotations

import asyncio
from itertools import islice, pairwise

import numpy as np
import pytest

from monitors.sources.demo import DemoSettings, DemoSource, script
from monitors.sources.message import MISSING, Chunk


def _first_seconds(seconds: int, **settings: object) -> dict[str, list[Chunk]]:
    async def run() -> dict[str, list[Chunk]]:
        made = DemoSettings.model_validate({"speed": 0, "start": 0.0} | settings)
        source = DemoSource(made)
        await source.open(None)
        beds: dict[str, list[Chunk]] = {}
        while sum(map(len, beds.values())) < seconds * made.beds:
            for chunk in await source.next():
                beds.setdefault(chunk.stream, []).append(chunk)
        await source.close()
        return beds

    return asyncio.run(run())


def test_every_bed_has_its_own_patient_in_whole_seconds_without_gaps() -> None:
    beds = _first_seconds(30, beds=3)
    assert list(beds) == ["bed-1", "bed-2", "bed-3"]
    for chunks in beds.values():
        assert [(c.sequence, c.start, c.samples.shape) for c in chunks] == [
            (n, float(n), (360, 2)) for n in range(30)
        ]
    assert len({chunks[3].samples.tobytes() for chunks in beds.values()}) == 3


def test_the_same_seed_is_the_same_ward() -> None:
    one, same, other = (_first_seconds(20, seed=seed)["bed-2"] for seed in (4, 4, 5))
    assert [c.samples.tobytes() for c in one] == [c.samples.tobytes() for c in same]
    assert [c.samples.tobytes() for c in one] != [c.samples.tobytes() for c in other]


def test_something_happens_in_the_first_minute_that_needs_no_reference() -> None:
    beds = {
        name: np.concatenate([c.samples for c in chunks]) / 1000
        for name, chunks in _first_seconds(60).items()
    }
    still = np.ptp(beds["bed-1"][22 * 360 : 28 * 360], axis=0)
    assert (still < 0.4 * np.ptp(beds["bed-1"][5 * 360 : 11 * 360], axis=0)).all()
    assert np.ptp(beds["bed-3"][21 * 360 : 34 * 360, 1]) == 0
    assert (beds["bed-4"][16 * 360 : 19 * 360] == MISSING / 1000).all()
    assert {episode.kind for episode in islice(script(0, 1, 360), 1)} == {"tachycardia"}


@pytest.mark.parametrize("bed", range(6))
def test_a_bed_never_runs_out_of_events_and_has_calm_between(bed: int) -> None:
    episodes = list(islice(script(7, bed, 150), 200))
    assert {episode.kind for episode in episodes} >= {"pvc", "asystole", "lead-off", "gap", "noise"}
    for before, after in pairwise(episodes):
        assert after.start >= before.end + 9
    assert all(episode.start >= 150 for episode in episodes if episode.kind == "pvc")


def test_beds_do_not_all_have_the_same_at_the_same_time() -> None:
    later = [
        [(e.kind, round(e.start)) for e in islice(script(9 + bed, bed, 360), 12)][4:] for bed in range(4)
    ]
    assert len({str(events) for events in later}) == 4
