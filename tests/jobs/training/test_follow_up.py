import multiprocessing
import time
from datetime import timedelta
from pathlib import Path

import pytest
from torch import distributed
from torch._C._distributed_c10d import FileStore

from genray.errors import Interrupted
from genray.progress import LineDisplay, Tick
from jobs.runs.run import Run
from jobs.training.device import DeviceSettings, open_device
from jobs.training.follow_up import FollowUp
from jobs.training.workers import TrainingWorker


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
        work.report_step(done, 1000, 8, "calibration step")
    assert isinstance(work.display, Shown)
    assert work.display.ticks[0].step == 1
    assert work.display.ticks[-1].step == 1000
    assert work.display.ticks[-1].seconds_left == 0
    assert len(work.display.ticks) < 100


def test_a_request_to_stop_ends_the_work(work: FollowUp) -> None:
    work.report_step(1, 10, 8, "calibration step")
    work.run.request_stop()
    with pytest.raises(Interrupted, match="calibration step 2 of 10"):
        work.report_step(2, 10, 8, "calibration step")


def work_in_group_of_two(rank: int, folder: Path) -> str:
    """Works longer than the group waits for a rank that is silent, then fails; how it failed."""
    store = FileStore(str(folder / "store"), 2)
    store.set(str(rank), "")
    store.wait(["0", "1"], timedelta(seconds=60))  # nobody waits for imports any more
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=timedelta(seconds=2))
    device = open_device(DeviceSettings(threads=1), gpu=False)
    began = time.monotonic()

    def work_long(work: FollowUp) -> None:
        assert rank == 0
        while time.monotonic() < began + 3:
            work.report_step(1, 9, 8, "calibration step")
        raise Interrupted("it was enough")

    try:
        follow_up = FollowUp(Run(folder), device, Shown(), epoch=1, alive_seconds=0.2)
        follow_up.run_on_leader(TrainingWorker(device.where), work_long)
    except Interrupted as error:
        return f"{error.what} {error.agreed}"
    finally:
        distributed.destroy_process_group()
    return "nothing"


def work_as_other(folder: Path) -> None:
    (folder / "result.txt").write_text(work_in_group_of_two(1, folder))


def test_the_others_of_a_group_wait_however_long_it_takes(tmp_path: Path) -> None:
    other = multiprocessing.get_context("spawn").Process(target=work_as_other, args=(tmp_path,))
    other.start()
    assert work_in_group_of_two(0, tmp_path) == "it was enough True"
    other.join(60)
    assert (tmp_path / "result.txt").read_text() == "it was enough True"
