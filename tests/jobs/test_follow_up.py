from pathlib import Path

import pytest

from genray.errors import Interrupted
from genray.progress import LineDisplay, Tick
from jobs.device import DeviceSettings, open_device
from jobs.follow_up import FollowUp
from jobs.run import Run


class Shown(LineDisplay):
    def __init__(self) -> None:
        super().__init__()
        self.ticks: list[Tick] = []

    def tick(self, tick: Tick) -> None:
        self.ticks.append(tick)


@pytest.fixture
def work(tmp_path: Path) -> FollowUp:
    return FollowUp(Run(tmp_path), open_device(DeviceSettings(threads=1), gpu=False), Shown(), epoch=1)


def test_the_first_and_the_last_step_are_shown_and_few_between(work: FollowUp) -> None:
    for done in range(1, 1001):
        work.step(done, 1000, 8, "calibration step")
    assert isinstance(work.display, Shown)
    assert work.display.ticks[0].step == 1
    assert work.display.ticks[-1].step == 1000
    assert work.display.ticks[-1].seconds_left == 0
    assert len(work.display.ticks) < 100


def test_a_request_to_stop_ends_the_work(work: FollowUp) -> None:
    work.step(1, 10, 8, "calibration step")
    work.run.request_stop()
    with pytest.raises(Interrupted, match="calibration step 2 of 10"):
        work.step(2, 10, 8, "calibration step")
