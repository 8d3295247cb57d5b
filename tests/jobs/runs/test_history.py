from pathlib import Path

import numpy as np
from PIL import Image

from jobs.runs.history import draw_curves


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
