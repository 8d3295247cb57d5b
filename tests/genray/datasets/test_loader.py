from pathlib import Path

import numpy as np
import pytest

from genray.datasets.finding.finder import Pair
from genray.datasets.loader import (
    MemoryLoader,
    WorkerShare,
    check_bad_share,
    epoch_order,
    held_out_batches,
    load_all,
)
from genray.datasets.pairs.pair_set import find_pairs
from genray.datasets.pairs.samples import PairSource
from genray.datasets.pairs.settings import PairedSettings
from genray.errors import DataError
from genray.io.bad_input import BadInput
from genray.io.listing import Place
from genray.io.store import open_store
from tests.conftest import write_pair_files

Batches = list[tuple[bytes, bytes]]


def chosen(path: Path, **more: object) -> PairedSettings:
    return PairedSettings.model_validate({"path": str(path), "size": 64, **more})


def memory(path: Path, seed: int = 0) -> MemoryLoader:
    store, settings = open_store(path), chosen(path)
    source = PairSource.of_pairs(store, find_pairs(Place(store), settings, 0).train, settings)
    return MemoryLoader(load_all(source, lambda bad: None)[1], source.vary, seed)


def read(loader: MemoryLoader, epoch: int = 0, batch: int = 2, **more: object) -> Batches:
    share = more.pop("share", WorkerShare())
    assert isinstance(share, WorkerShare)
    start = more.pop("start", 0)
    assert isinstance(start, int)
    return [(a.tobytes(), b.tobytes()) for a, b in loader.batches(epoch, batch, share, start)]


def test_an_epoch_is_a_permutation_that_the_seed_and_epoch_set() -> None:
    assert sorted(epoch_order(10, 0, 0)) == list(range(10))
    assert list(epoch_order(10, 0, 0)) == list(epoch_order(10, 0, 0))
    assert list(epoch_order(10, 0, 0)) != list(epoch_order(10, 0, 1))
    assert list(epoch_order(10, 0, 0)) != list(epoch_order(10, 1, 0))


def test_the_same_seed_and_epoch_give_the_same_batches(pairs: Path) -> None:
    assert read(memory(pairs)) == read(memory(pairs))
    assert read(memory(pairs), epoch=1) != read(memory(pairs), epoch=0)
    assert read(memory(pairs, seed=1)) != read(memory(pairs))


def test_a_resumed_epoch_has_the_rest_of_its_batches(pairs: Path) -> None:
    assert read(memory(pairs), start=4) == read(memory(pairs))[2:]


def test_an_incomplete_last_batch_is_left_out(pairs: Path) -> None:
    assert len(read(memory(pairs), batch=5)) == 2


def test_workers_share_each_batch_between_them(pairs: Path) -> None:
    whole = read(memory(pairs), batch=4)
    parts = [read(memory(pairs), batch=2, share=WorkerShare(rank, 2)) for rank in (0, 1)]
    side = 64 * 64 * 3
    for (inputs, _), (first, _), (second, _) in zip(whole, *parts, strict=True):
        samples = [inputs[i * side : (i + 1) * side] for i in range(4)]
        assert first == samples[0] + samples[2]
        assert second == samples[1] + samples[3]


def test_broken_files_are_set_aside_in_order(tmp_path: Path) -> None:
    write_pair_files(tmp_path / "train", 6)
    (tmp_path / "train" / "002.png").write_bytes(b"")
    bad: list[BadInput] = []
    listed = [Pair(f"train/{i:03}.png") for i in range(6)]
    good, pixels = load_all(PairSource.of_pairs(open_store(tmp_path), listed, chosen(tmp_path)), bad.append)
    assert good == [0, 1, 3, 4, 5]
    assert len(pixels) == 5
    assert [b.reason for b in bad] == ["empty"]


def test_too_many_broken_files_stop_the_training() -> None:
    bad = [BadInput(f"{i}.png", "empty", "0 bytes") for i in range(3)]
    check_bad_share(bad, 60, 0.05, "somewhere")
    with pytest.raises(
        DataError, match=r"3 of 50 samples are broken, more than data\.max_bad_share=0\.05"
    ) as caught:
        check_bad_share(bad, 50, 0.05, "somewhere")
    assert "0.png: empty (0 bytes)" in str(caught.value)
    with pytest.raises(DataError):
        check_bad_share(bad, 3, 1.0, "somewhere")


def test_held_out_samples_come_in_order_and_shared() -> None:
    samples = [(np.full((4, 4, 1), i, np.uint8),) for i in range(4)]
    first = list(held_out_batches(samples, 8, WorkerShare(0, 2)))
    second = list(held_out_batches(samples, 8, WorkerShare(1, 2)))
    assert [list(i) for i, _ in first] == [[0, 2]]
    assert [list(i) for i, _ in second] == [[1, 3]]
    assert np.array_equal(second[0][1][0][0], samples[1][0])


def test_held_out_samples_of_other_shapes_are_batches_of_their_own() -> None:
    samples = [(np.zeros((4, width, 1), np.uint8),) for width in (4, 4, 4, 6, 6, 4)]
    assert [list(i) for i, _ in held_out_batches(samples, 2, WorkerShare())] == [[0, 1], [2], [3, 4], [5]]
