"""The last samples of leads, however their hops are spread."""

from __future__ import annotations

import numpy as np

from monitors.patient.history import History

HOP, STORED = 5, 13  # samples


def test_the_last_samples_are_those_of_each_lead_whenever_its_hops_came() -> None:
    chance = np.random.default_rng(1)
    history = History(HOP, STORED)
    history.grow(3)
    expected = np.full((3, STORED), np.nan, np.float32)
    for turn in range(60):
        rows = np.flatnonzero(chance.random(4 if turn > 20 else 3) < 0.6)
        if turn == 20:
            history.grow(4)
            expected = np.concatenate([expected, np.full((1, STORED), np.nan, np.float32)])
        if turn == 40:
            history.forget(np.array([1]))
            expected[1] = np.nan
        new = chance.random((len(rows), HOP)).astype(np.float32)
        history.append(rows, new)
        expected[rows] = np.concatenate([expected[rows], new], axis=1)[:, -STORED:]
        all_rows = np.arange(len(expected))
        for samples in (1, HOP, STORED):
            np.testing.assert_array_equal(history.last(all_rows, samples), expected[:, -samples:])
        for row, end in zip(all_rows, history.ends(all_rows), strict=True):
            np.testing.assert_array_equal(history.values[row, end - STORED : end], expected[row])
