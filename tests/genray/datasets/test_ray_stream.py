from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from genray.datasets.image_set import Images, ImageSetSettings, Patch, SingleImageSource, open_image_set
from genray.datasets.loader import MemoryLoader, SampleSource, WorkerShare, load_all
from genray.datasets.pairs.pair_set import find_pairs
from genray.datasets.pairs.samples import PairSource
from genray.datasets.pairs.settings import PairedSettings
from genray.datasets.ray_stream import StreamLoader
from genray.errors import DataError
from genray.images.limits import ReadLimits
from genray.io.bad_input import BadInput
from genray.io.listing import Place
from genray.io.store import open_store
from tests.conftest import write_images, write_pair_files

pytestmark = pytest.mark.usefixtures("embedded_ray")
Batches = list[tuple[bytes, ...]]
PATCH = (16, 16, 1)


def pair_source(path: Path) -> PairSource:
    settings = PairedSettings(path=str(path), size=64)
    store = open_store(path)
    return PairSource.of_pairs(store, find_pairs(Place(store), settings, 0).train, settings)


def image_source(path: Path) -> SingleImageSource:
    """Patches of the training images under `path`."""
    images = open_image_set(ImageSetSettings(path=str(path)), 0).train
    return SingleImageSource(images, 1, None, None, 16, ReadLimits(), variant=Patch(16))


def unexpected(bad: BadInput) -> None:
    pytest.fail(f"{bad.path} is broken: {bad.detail}")


def streamed(source: SampleSource, report: Callable[[BadInput], None], **more: Any) -> StreamLoader:
    shapes = [(64, 64, 3)] * 2 if isinstance(source, PairSource) else [PATCH]
    return StreamLoader(source, shapes, 0, report, path="somewhere", **{"limit": 0.05, **more})


def in_memory(source: SampleSource) -> MemoryLoader:
    return MemoryLoader(load_all(source, lambda bad: None)[1], source.vary, 0)


def read(loader: MemoryLoader | StreamLoader, epoch: int = 0, batch: int = 2, **more: Any) -> Batches:
    share = more.pop("share", WorkerShare())
    return [tuple(part.tobytes() for part in parts) for parts in loader.batches(epoch, batch, share, **more)]


def test_ray_data_gives_the_same_batches_as_memory(pairs: Path) -> None:
    source = pair_source(pairs)
    stream, memory = streamed(source, unexpected), in_memory(source)
    assert read(stream, epoch=3) == read(memory, epoch=3)
    share = WorkerShare(1, 2)
    assert read(stream, batch=3, share=share, start=6) == read(memory, batch=3, share=share, start=6)


def test_folders_and_parquet_stream_as_they_do_from_memory(tmp_path: Path) -> None:
    write_images(tmp_path / "files" / "train", 14, size=(20, 24))
    (tmp_path / "parquet").mkdir()
    cells = [{"bytes": file.read_bytes()} for file in sorted((tmp_path / "files" / "train").iterdir())]
    for name, some in (("0", cells[:9]), ("1", cells[9:])):
        pq.write_table(
            pa.table({"image": some}), tmp_path / "parquet" / f"train-{name}.parquet", row_group_size=4
        )
    wanted: list[Batches] = []
    for kind in ("files", "parquet"):
        source = image_source(tmp_path / kind)
        wanted.append(read(in_memory(source), epoch=1, batch=4))
        assert read(streamed(source, unexpected), epoch=1, batch=4) == wanted[-1]
    assert len(wanted[0]) == 3
    assert wanted[0] == wanted[1], "both hold the same images, of which the same are held out"


def test_a_broken_file_in_a_stream_costs_its_own_place_only(tmp_path: Path) -> None:
    write_pair_files(tmp_path / "train", 30)
    write_pair_files(tmp_path / "val", 2)
    source = pair_source(tmp_path)
    (tmp_path / "train" / "007.png").write_bytes(b"broken")
    bad: list[BadInput] = []
    batches = read(streamed(source, bad.append))
    assert len(batches) == 15
    assert [(b.path, b.reason) for b in bad] == [("train/007.png", "unknown-format")]
    assert in_memory(source).count == 29


def test_too_many_broken_files_stop_a_stream_that_repeats_them_too(tmp_path: Path) -> None:
    write_images(tmp_path, 10)
    source = image_source(tmp_path)
    for index in (2, 3, 5):
        (tmp_path / f"{index:03}.png").write_bytes(b"")
    images = source.images
    often = SingleImageSource(
        Images(images.stored, images.indices.repeat(8)),
        1,
        None,
        None,
        16,
        ReadLimits(),
        variant=source.variant,
    )
    with pytest.raises(DataError, match=r"of 9 samples are broken, more than data\.max_bad_share=0\.15"):
        read(streamed(often, lambda bad: None, limit=0.15, repeats=8))


def test_a_stream_of_broken_files_alone_ends(tmp_path: Path) -> None:
    write_images(tmp_path, 4)
    source = image_source(tmp_path)
    for file in tmp_path.iterdir():
        file.write_bytes(b"gone")
    with pytest.raises(DataError, match="every sample is broken"):
        read(streamed(source, lambda bad: None, limit=1.0))
