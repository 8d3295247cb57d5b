import resource
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from genray.errors import StorageFull
from jobs.runs.trackers.base import TrackedRun
from jobs.runs.trackers.tensorboard import TensorBoard


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # tensorboard's own reader
def test_a_resumed_log_hides_what_was_logged_after_the_checkpoint(tmp_path: Path) -> None:
    for start, values in ((0, {1: 1.0, 2: 2.0, 3: 3.0}), (2, {3: 30.0})):
        log = TensorBoard.open(TrackedRun(tmp_path, start))
        for step, value in values.items():
            log.scalars(step, {"disc_loss": value})
        log.close(finished=True)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("disc_loss")] == [(1, 1.0), (2, 2.0), (3, 30.0)]


def test_a_full_disk_is_an_error_and_not_a_wait(tmp_path: Path) -> None:
    log = TensorBoard.open(TrackedRun(tmp_path))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(StorageFull):
            for step in range(200):
                log.scalars(step, {"disc_loss": 1.0})
        log.close(finished=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
