import gzip
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from genray.datasets.idx import SUFFIXES, IdxPart, find_idx, read_idx
from genray.errors import DataError
from genray.images.decode import ImageHeader
from genray.images.limits import ReadLimits
from genray.io.bad_input import BadImage
from genray.io.store import Entry, open_store

DIGITS = np.random.default_rng(0).integers(0, 256, (6, 5, 4), np.uint8)


def packed(array: NDArray[np.uint8], shape: tuple[int, ...] | None = None) -> bytes:
    """The bytes of an idx file; `shape` is what its header says."""
    says = array.shape if shape is None else shape
    return b"\x00\x00\x08" + bytes([len(says)]) + struct.pack(f">{len(says)}I", *says) + array.tobytes()


def write(folder: Path, name: str, data: bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)


def found(folder: Path) -> dict[str, IdxPart]:
    store = open_store(folder)
    return find_idx(store, store.list(SUFFIXES))


def read_one(folder: Path, name: str, size: int = 0) -> NDArray[np.uint8]:
    return read_idx(open_store(folder), Entry(name, size))


@pytest.mark.parametrize("folder", ["", "raw", "MNIST/raw", "FashionMNIST/raw"])
@pytest.mark.parametrize("suffix", ["-idx3-ubyte", "-idx3-ubyte.gz", ".idx3-ubyte"])
def test_images_and_labels_are_read_wherever_they_lie(tmp_path: Path, folder: str, suffix: str) -> None:
    for part, array in (("train", DIGITS), ("t10k", DIGITS[:2])):
        write(tmp_path / folder, f"{part}-images{suffix}", packed(array))
        labels = np.arange(len(array), dtype=np.uint8)
        write(tmp_path / folder, f"{part}-labels{suffix.replace('3', '1')}", packed(labels))
    parts = found(tmp_path)
    assert list(parts) == ["train", "test"]
    assert np.array_equal(parts["train"].images.images, DIGITS)
    assert parts["train"].labels is not None
    assert parts["train"].labels.tolist() == [0, 1, 2, 3, 4, 5]
    assert len(parts["test"].images) == 2


def test_an_image_has_the_channels_asked_for_and_a_name(tmp_path: Path) -> None:
    write(tmp_path, "train-images-idx3-ubyte", packed(DIGITS))
    part = found(tmp_path)["train"]
    assert part.labels is None
    images = part.images
    assert images.header(3) == ImageHeader(4, 5, channels=1)
    assert images.name(3) == "train-images-idx3-ubyte#3"
    assert np.array_equal(images.pixels(3, 1, ReadLimits(max_pixels=1000))[..., 0], DIGITS[3])
    colours = images.pixels(3, 3, ReadLimits(max_pixels=1000))
    assert colours.shape == (5, 4, 3)
    assert (colours == DIGITS[3][..., None]).all()
    with pytest.raises(BadImage, match="4x5 pixels, the limit is 19"):
        images.pixels(3, 1, ReadLimits(max_pixels=19))


def test_a_folder_without_idx_files_has_no_parts(tmp_path: Path) -> None:
    write(tmp_path, "other-ubyte", b"something else")
    assert found(tmp_path) == {}


def test_two_sets_in_one_folder_are_not_guessed_between(tmp_path: Path) -> None:
    for name in ("MNIST", "FashionMNIST"):
        write(tmp_path / name / "raw", "train-images-idx3-ubyte", packed(DIGITS))
    with pytest.raises(DataError, match=r"several sets of idx files .*: MNIST/raw, FashionMNIST/raw"):
        found(tmp_path)


def test_labels_of_another_number_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "train-images-idx3-ubyte", packed(DIGITS))
    write(tmp_path, "train-labels-idx1-ubyte", packed(np.zeros(5, np.uint8)))
    with pytest.raises(DataError, match="train-labels-idx1-ubyte has 5 labels, train-images-idx3-ubyte 6"):
        found(tmp_path)


@pytest.mark.parametrize("array", [np.zeros(7, np.uint8), np.zeros((0, 5, 4), np.uint8)])
def test_a_file_of_something_else_holds_no_images(tmp_path: Path, array: NDArray[np.uint8]) -> None:
    write(tmp_path, "train-images-idx3-ubyte", packed(array))
    with pytest.raises(DataError, match="train-images-idx3-ubyte holds no images: its shape is"):
        found(tmp_path)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "it begins with nothing"),
        (b"\x00\x00\x0d\x01\x00\x00\x00\x00", "it begins with 00000d01"),  # floats
        (b"<html>not found</html>", "it begins with 3c68746d"),
        (b"\x00\x00\x08\x03\x00\x00", r"its header says \(\)"),
        (packed(DIGITS)[:-1], r"\(6, 5, 4\), it has 135 bytes|which is 120 bytes, it has 119"),
        (packed(DIGITS) + b"\x00", "which is 120 bytes, it has more"),
        (packed(DIGITS, (2**32 - 1,) * 4), r"its header says \(4294967295, 4294967295"),
        (packed(DIGITS, (10**6, 28, 28)), r"its header says \(1000000, 28, 28\), it has 136 bytes"),
    ],
    ids=["empty", "floats", "html", "header", "short", "long", "overflow", "lie"],
)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_damaged_file_is_refused_with_its_reason(
    tmp_path: Path, data: bytes, what: str, suffix: str
) -> None:
    write(tmp_path, f"x{suffix}", data)
    what = what.replace("it has 136", r"it has \d+")
    with pytest.raises(DataError, match=what) as caught:
        read_one(tmp_path, f"x{suffix}")
    assert f"x{suffix} is no idx file" in caught.value.what


@pytest.mark.parametrize("cut", [3, 12, 40, -1])
def test_a_download_that_broke_off_is_refused(tmp_path: Path, cut: int) -> None:
    (tmp_path / "x.gz").write_bytes(gzip.compress(packed(DIGITS))[:cut])
    with pytest.raises(DataError, match=r"x\.gz is no idx file"):
        read_one(tmp_path, "x.gz")


def test_a_wrong_checksum_is_noticed(tmp_path: Path) -> None:
    data = bytearray(gzip.compress(packed(DIGITS)))
    data[-8] ^= 1
    (tmp_path / "x.gz").write_bytes(data)
    with pytest.raises(DataError, match="CRC"):
        read_one(tmp_path, "x.gz")


def test_a_bomb_is_refused_without_unpacking_it(tmp_path: Path) -> None:
    write(tmp_path, "x.gz", packed(DIGITS) + bytes(200_000_000))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="it has more"):
            read_one(tmp_path, "x.gz")
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone is no idx file of images or labels: .*No such file"):
        read_one(tmp_path, "gone")


def test_a_file_of_absurd_size_is_not_even_opened(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="5000000000 bytes, the limit is"):
        read_one(tmp_path, "gone", 5_000_000_000)
