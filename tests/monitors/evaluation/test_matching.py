import numpy as np
import pytest

from monitors.evaluation.matching import paired


@pytest.mark.parametrize(
    ("known", "found", "partners"),
    [
        ([100, 200, 300], [101, 305], [0, -1, 1]),
        ([100], [46, 154], [-1]),  # as far as the window is too far
        ([100], [47], [0]),
        ([100, 160], [150], [-1, 0]),  # nearer to the one after
        ([100, 160], [120, 150], [0, 1]),  # so the one before is taken
        ([100, 200], [90, 110], [0, -1]),  # the earlier of two that are as near
        ([], [5], []),
        ([5], [], [-1]),
    ],
)
def test_each_annotated_beat_has_the_nearest_detected_one(
    known: list[int], found: list[int], partners: list[int]
) -> None:
    assert paired(known, found, 54).tolist() == partners


@pytest.mark.filterwarnings("ignore:The inplace keyword")  # wfdb, with pandas 3
def test_it_counts_as_wfdb_does() -> None:
    from wfdb.processing import compare_annotations

    for seed in range(60):
        rng = np.random.default_rng(seed)
        known = np.cumsum(rng.integers(72, 400, 200))
        seen = known[rng.random(200) > 0.1]
        extra = rng.integers(0, known[-1], 30)
        found = np.unique(np.concatenate([seen + rng.integers(-70, 70, len(seen)), extra]).clip(0))
        theirs = compare_annotations(known, found, 54)
        ours = paired(known.tolist(), found.tolist(), 54)
        assert ours.tolist() == theirs.matching_sample_nums.tolist()
        assert 100 < (ours >= 0).sum() < 200
