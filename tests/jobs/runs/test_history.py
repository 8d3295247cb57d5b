import resource
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from genray.errors import StorageFull
from jobs.runs.history import TrainingLog, draw_curves
from jobs.runs.run import Run


def test_curves_are_drawn_for_every_number(tmp_path: Path) -> None:
    rows = [{"epoch": e, "gen_l1_loss": 1 / e, "disc_loss": 0.5, "seconds": 1.0} for e in (1, 2, 3)]
    rows[2]["val_l1"] = 0.25  # validated once
    draw_curves(tmp_path / "curves.png", rows)
    picture = np.asarray(Image.open(tmp_path / "curves.png").convert("L"))
    assert picture.shape[1] > 1000, "three panels side by side"
    assert picture.std() > 10, "not blank"


def test_nothing_is_drawn_from_nothing(tmp_path: Path) -> None:
    draw_curves(tmp_path / "curves.png", [])
    assert not (tmp_path / "curves.png").exists()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # tensorboard's own reader
def test_a_resumed_log_hides_what_was_logged_after_the_checkpoint(tmp_path: Path) -> None:
    run = Run(tmp_path)
    for start, values in ((0, {1: 1.0, 2: 2.0, 3: 3.0}), (2, {3: 30.0})):
        log = TrainingLog.open(run, start)
        for step, value in values.items():
            log.scalars(step, {"disc_loss": value})
        log.close()
    events = EventAccumulator(str(run.tensorboard))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("disc_loss")] == [(1, 1.0), (2, 2.0), (3, 30.0)]


def test_a_full_disk_is_an_error_and_not_a_wait(tmp_path: Path) -> None:
    log = TrainingLog.open(Run(tmp_path), 0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(StorageFull):
            for step in range(200):
                log.scalars(step, {"disc_loss": 1.0})
        log.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
