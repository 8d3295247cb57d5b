from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from pipelines.destamp import DestampingSettings, change_mask
from tests.pipelines.conftest import Bulk, photo, rows_of


def test_a_mask_holds_what_changed_and_fades_around_it() -> None:
    before = np.full((60, 80, 3), 100, np.uint8)
    after = before.copy()
    after[20:30, 20:50] = 140
    after[50, 70] = 180  # a speck
    after += 2  # everywhere a little
    mask = change_mask(before, after, DestampingSettings(feather=4))
    assert mask is not None
    assert mask.shape == (60, 80, 1)
    assert (mask[20:30, 20:50] == 1).all()
    assert mask[50, 70] == 0
    assert (mask[:, 60:] == 0).all()
    assert 0 < mask[25, 54, 0] < 1


def test_small_changes_are_no_stamp() -> None:
    before = np.full((60, 80, 1), 100, np.uint8)
    assert change_mask(before, before + 5, DestampingSettings()) is None
    speck = before.copy()
    speck[3, 3] = 200
    assert change_mask(before, speck, DestampingSettings()) is None


def test_sixteen_bits_are_measured_in_levels_of_eight() -> None:
    before = np.full((60, 80, 1), 100 * 257, np.uint16)
    assert change_mask(before, before + 5 * 257, DestampingSettings()) is None
    assert change_mask(before, before + 20 * 257, DestampingSettings()) is not None


def test_pixels_outside_of_the_mask_are_the_inputs_exactly(
    bulk: Bulk, bundle_of: Callable[[str], Path], tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    image = photo(np.random.default_rng(0), 96, 128)
    Image.fromarray(image).save(tmp_path / "in" / "a.png")
    sets = (f"input={tmp_path / 'in'}", f"bundle={bundle_of('destamper')}")
    # Weights that are drawn change a little everywhere: a low threshold believes some of it.
    sets = (*sets, "destamp.threshold=0.5", "destamp.least_pixels=1", "destamp.feather=0")
    bulk("destamp", *sets, "destamp.most_changed=1")
    (row,) = rows_of(tmp_path / "out")
    made = np.asarray(Image.open(tmp_path / "out" / "a.png"))
    moved = (made != image).any(axis=-1)
    assert row["status"] == "done"
    assert 0 < moved.mean() < 1
    assert row["change"] > 0


def test_an_image_without_a_stamp_is_copied_untouched(
    bulk: Bulk, bundle_of: Callable[[str], Path], tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(photo(np.random.default_rng(0), 96, 128)).save(tmp_path / "in" / "a.jpg")
    bulk("destamp", f"input={tmp_path / 'in'}", f"bundle={bundle_of('destamper')}", "destamp.threshold=200")
    (row,) = rows_of(tmp_path / "out")
    assert (row["status"], row["reason"]) == ("skipped", "no-stamp")
    assert (tmp_path / "in" / "a.jpg").read_bytes() == (tmp_path / "out" / "a.jpg").read_bytes()


def test_an_image_that_would_change_nearly_everywhere_is_copied(
    bulk: Bulk, bundle_of: Callable[[str], Path], tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(photo(np.random.default_rng(1), 96, 128)).save(tmp_path / "in" / "a.png")
    sets = (f"input={tmp_path / 'in'}", f"bundle={bundle_of('destamper')}")
    bulk("destamp", *sets, "destamp.threshold=0.5", "destamp.least_pixels=1", "destamp.most_changed=0.01")
    (row,) = rows_of(tmp_path / "out")
    assert (row["status"], row["reason"], row["change"]) == ("skipped", "would harm", 0)
    assert (tmp_path / "out" / "a.png").read_bytes() == (tmp_path / "in" / "a.png").read_bytes()
