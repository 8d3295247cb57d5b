import gzip
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from genray.datasets.image_set import (
    Images,
    ImageSet,
    ImageSetSettings,
    Patch,
    SingleImageSource,
    look_at_headers,
    open_image_set,
)
from genray.datasets.layouts import FolderImages
from genray.errors import DataError
from genray.images.limits import ReadLimits
from genray.io.bad_input import BadImage
from genray.io.store import open_store
from tests.conftest import write_images


def opened(path: Path | str, seed: int = 0, **more: object) -> ImageSet:
    return open_image_set(ImageSetSettings.model_validate({"path": str(path), **more}), seed)


def names(images: Images | None) -> list[str]:
    assert images is not None
    return [images.stored.name(int(index)) for index in images.indices]


def classes(found: ImageSet, part: Images | None) -> list[str]:
    assert part is not None
    assert part.labels is not None
    return [found.classes[label] for label in part.labels]


def write_idx(folder: Path, count: int, *, labelled: bool = True) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for part, number in (("train", count), ("t10k", count // 6)):
        big = number.to_bytes(4, "big")
        pixels = np.resize(np.random.default_rng(0).integers(0, 64, 10_000, np.uint8), number * 784).tobytes()
        images = b"\x00\x00\x08\x03" + big + b"\x00\x00\x00\x1c" * 2 + pixels
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images, 1))
        if labelled:
            labels = b"\x00\x00\x08\x01" + big + bytes(i % 10 for i in range(number))
            (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels, 1))


def test_a_flat_folder_is_split_by_the_seed(tmp_path: Path) -> None:
    write_images(tmp_path, 20)
    found, again, other = opened(tmp_path), opened(tmp_path), opened(tmp_path, seed=1)
    assert (len(found.train), len(found.val), found.test, found.classes) == (18, 2, None, ())
    assert sorted(names(found.train) + names(found.val)) == [f"{i:03}.png" for i in range(20)]
    assert names(found.val) == names(again.val)
    assert names(found.val) != names(other.val)
    assert found.split == "0.1 held out by seed 0"
    assert found.fingerprint == again.fingerprint == other.fingerprint


def test_folders_are_the_split_and_their_folders_the_classes(tmp_path: Path) -> None:
    for part, name, count in (
        ("train", "good", 3),
        ("val", "good", 2),
        ("test", "good", 1),
        ("test", "bad", 2),
    ):
        write_images(tmp_path / part / name, count)
    found = opened(tmp_path)
    assert (found.split, found.layout, found.classes) == ("by folders", "folder", ("bad", "good"))
    assert classes(found, found.train) == ["good"] * 3
    assert classes(found, found.val) == ["good"] * 2
    assert classes(found, found.test) == ["bad", "bad", "good"]


def test_people_in_folders_below_one_folder_are_classes(tmp_path: Path) -> None:
    for name in ("Ada_Lovelace", "Bo_Diddley"):
        write_images(tmp_path / "lfw_funneled" / name, 4)
    found = opened(tmp_path, val_share=0.25)
    assert found.classes == ("Ada_Lovelace", "Bo_Diddley")
    for part in (found.train, found.val):
        assert all(name in path for name, path in zip(classes(found, part), names(part), strict=True))


def test_idx_files_have_digits_as_classes_and_a_test_part(tmp_path: Path) -> None:
    write_idx(tmp_path / "MNIST" / "raw", 60)
    found = opened(tmp_path)
    assert (len(found.train), len(found.val)) == (54, 6)
    assert found.classes == tuple("0123456789")
    assert classes(found, found.test) == list("0123456789")
    taken = found.train.select([5, 0])
    assert classes(found, taken) == [classes(found, found.train)[i] for i in (5, 0)]


def test_idx_files_without_labels_are_images_all_the_same(tmp_path: Path) -> None:
    write_idx(tmp_path, 60, labelled=False)
    found = opened(tmp_path)
    assert (found.classes, found.train.labels, len(found.train)) == ((), None, 54)


def test_sixty_thousand_images_are_opened_at_once(tmp_path: Path) -> None:
    write_idx(tmp_path, 60_000)
    began = time.perf_counter()
    assert len(opened(tmp_path).train) == 54_000
    assert time.perf_counter() - began < 2


def test_numbers_in_columns_are_classes_in_their_order_whatever_their_size(tmp_path: Path) -> None:
    labels = [10, 2, 2_000_000_000, 10]
    pq.write_table(pa.table({"image": [b"\xff\xd8\xff"] * 4, "label": labels}), tmp_path / "train.parquet")
    pq.write_table(pa.table({"image": [b"\xff\xd8\xff"] * 2, "label": [7, 2]}), tmp_path / "test.parquet")
    found = opened(tmp_path, val_share=0.25)
    assert found.classes == ("2", "7", "10", "2000000000")
    assert classes(found, found.test) == ["7", "2"]


def test_another_folder_can_be_judged_on_and_shares_the_classes(tmp_path: Path) -> None:
    for name in ("dog", "emu"):
        write_images(tmp_path / "set" / name, 4)
    for name in ("ant", "emu"):
        write_images(tmp_path / "other" / "test" / name, 1)
    found = opened(tmp_path / "set", test=str(tmp_path / "other"))
    assert found.classes == ("ant", "dog", "emu")
    assert classes(found, found.test) == ["ant", "emu"]
    assert set(classes(found, found.train)) == {"dog", "emu"}
    assert found.fingerprint != opened(tmp_path / "set").fingerprint


def test_a_test_folder_without_labels_has_none(tmp_path: Path) -> None:
    write_images(tmp_path / "set" / "dog", 3)
    write_images(tmp_path / "flat", 2)
    found = opened(tmp_path / "set", test=str(tmp_path / "flat"))
    assert found.test is not None
    assert (found.test.labels, found.classes) == (None, ("dog",))
    found = opened(tmp_path / "flat", test=str(tmp_path / "set"))
    assert found.train.labels is None
    assert classes(found, found.test) == ["dog"] * 3


def test_what_is_judged_is_not_trained_on(tmp_path: Path) -> None:
    write_images(tmp_path / "set", 6)
    write_images(tmp_path / "set" / "later", 2)
    found = opened(tmp_path / "set", test=str(tmp_path / "set" / "later"))
    assert len(found.train) + len(found.val) == 6
    assert names(found.test) == ["000.png", "001.png"]
    assert not any("later" in name for name in names(found.train))


def test_the_folder_train_can_be_judged_on_by_its_name(tmp_path: Path) -> None:
    write_images(tmp_path / "set" / "train", 4)
    found = opened(tmp_path / "set", test=str(tmp_path / "set" / "train"))
    assert (len(found.train) + len(found.val), len(names(found.test))) == (4, 4)


def test_a_test_folder_that_is_the_path_gives_its_test_part(tmp_path: Path) -> None:
    write_images(tmp_path / "train", 4)
    with pytest.raises(DataError, match=r"data\.test is data\.path, .*, which has no test part") as caught:
        opened(tmp_path, test=f"{tmp_path}/train/..")
    assert caught.value.where == "data.test"
    write_images(tmp_path / "test", 2)
    assert names(opened(tmp_path, test=f"{tmp_path}/").test) == ["test/000.png", "test/001.png"]


@pytest.mark.parametrize("kind", ["missing", "file", "empty", "broken"])
def test_a_test_folder_that_cannot_be_read_is_named_as_such(tmp_path: Path, kind: str) -> None:
    write_images(tmp_path / "set", 4)
    other = tmp_path / "other"
    if kind == "file":
        other.touch()
    elif kind != "missing":
        other.mkdir()
    if kind == "broken":
        (other / "0.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"other|0\.parquet") as caught:
        opened(tmp_path / "set", test=str(other))
    assert caught.value.where == f"data.test={other}"


def test_a_folder_of_one_image_or_without_training_images_is_refused(tmp_path: Path) -> None:
    write_images(tmp_path / "one", 1)
    with pytest.raises(DataError, match=r"one image under .*: at least 2 are needed"):
        opened(tmp_path / "one")
    write_images(tmp_path / "judged" / "test", 2)
    write_images(tmp_path / "judged" / "val", 2)
    with pytest.raises(DataError, match=r"no images to train on under .*judged, only test, val"):
        opened(tmp_path / "judged")


def test_images_beside_the_folder_train_are_said_to_be_left_out(tmp_path: Path) -> None:
    write_images(tmp_path / "train", 4)
    write_images(tmp_path / "bus", 3)
    split = "0.1 held out by seed 0; 3 files beside the folder train left out, in bus"
    assert opened(tmp_path).split == split


def test_a_store_behind_a_uri_is_the_same_set(tmp_path: Path) -> None:
    write_images(tmp_path / "set" / "a", 6)
    write_images(tmp_path / "set" / "b", 6)
    write_images(tmp_path / "set" / "kept", 2)
    fsspec.filesystem("memory").put(f"{tmp_path}/", "/image_set/", recursive=True)
    here = opened(tmp_path / "set", test=str(tmp_path / "set" / "kept"))
    there = opened("memory://image_set/set/", test="memory://image_set/set/kept")
    assert there.fingerprint == here.fingerprint
    assert names(there.val) == names(here.val)
    assert there.classes == here.classes == ("a", "b")
    first, second = (f.val.stored.pixels(int(f.val.indices[0]), 1, ReadLimits()) for f in (here, there))
    assert np.array_equal(first, second)


def test_headers_are_looked_at_from_the_first_to_the_last(tmp_path: Path) -> None:
    write_images(tmp_path / "a", 30)
    write_images(tmp_path / "b", 30, size=(10, 12), gray=False)
    (tmp_path / "a" / "000.png").write_bytes(b"broken")
    sizes, channels = look_at_headers(opened(tmp_path).train)
    assert set(sizes) == {(24, 24), (12, 10)}
    assert channels == 3
    assert look_at_headers(opened(tmp_path / "b").train, most=3) == ([(12, 10)] * 3, 3)
    assert look_at_headers(opened(tmp_path / "a").train.select([7])) == ([(24, 24)], True)


def test_a_set_of_broken_files_alone_is_refused(tmp_path: Path) -> None:
    for index in range(5):
        (tmp_path / f"{index}.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"none of 4 images can be read, \d\.png for one"):
        look_at_headers(opened(tmp_path).train)


def test_a_download_needs_a_folder() -> None:
    with pytest.raises(ValidationError, match="download needs a local folder"):
        ImageSetSettings(path="s3://bucket/mnist", download="mnist")


def numbered(height: int, width: int) -> NDArray[np.uint8]:
    """An image of which no two pixels are alike."""
    return np.arange(height * width, dtype=np.uint8).reshape(height, width, 1)


@pytest.fixture
def source(tmp_path: Path) -> SingleImageSource:
    """Images of 24 x 24, and one of 16 x 20."""
    write_images(tmp_path / "a", 3)
    write_images(tmp_path / "b", 1, size=(16, 20))
    store = open_store(tmp_path)
    stored = FolderImages.of_paths(store, [entry.path for entry in store.list((".png",))])
    return SingleImageSource(Images(stored, np.array([3, 0, 1])), 1, None, None, 1, ReadLimits())


def test_a_sample_is_the_image_that_its_index_stands_for(source: SingleImageSource) -> None:
    assert len(source) == 3
    assert [source.name(i) for i in range(3)] == ["b/000.png", "a/000.png", "a/001.png"]
    assert [source.load(i)[0].shape for i in range(3)] == [(16, 20, 1), (24, 24, 1), (24, 24, 1)]


def test_an_image_of_another_size_is_fitted_or_set_aside(source: SingleImageSource) -> None:
    for fit in ("crop", "stretch"):
        made = replace(source, size=(24, 24), fit=fit).load(0)[0]
        assert made.shape == (24, 24, 1)
    strict = replace(source, size=(24, 24))
    assert strict.load(1)[0].shape == (24, 24, 1)
    with pytest.raises(BadImage, match=r"20x16, the others are 24x24: set data\.size") as caught:
        strict.load(0)
    assert caught.value.reason == "odd-shape"


def test_an_image_smaller_than_a_patch_is_set_aside(source: SingleImageSource) -> None:
    patches = replace(source, least=17)
    assert patches.load(1)[0].shape == (24, 24, 1)
    with pytest.raises(BadImage, match="20x16 is smaller than 17 pixels"):
        patches.load(0)


def test_an_image_of_too_many_pixels_is_set_aside(source: SingleImageSource) -> None:
    with pytest.raises(BadImage, match="24x24 pixels, the limit is 400"):
        replace(source, limits=ReadLimits(max_pixels=400)).load(1)


def test_a_patch_is_set_by_its_key_and_lies_in_the_image() -> None:
    image, patch = numbered(12, 15), Patch(8, "none")
    made = [patch(image, (0, 1, index))[0] for index in range(60)]
    assert np.array_equal(made[7], patch(image, (0, 1, 7))[0])
    corners = {divmod(int(part[0, 0, 0]), 15) for part in made}
    assert {top for top, _ in corners} == set(range(5)), "the first and the last place occur"
    assert {left for _, left in corners} == set(range(8))
    for part in made:
        top, left = divmod(int(part[0, 0, 0]), 15)
        assert np.array_equal(part, image[top : top + 8, left : left + 8])


@pytest.mark.parametrize(("flips", "ways"), [("none", 1), ("mirror", 2), ("all", 8)])
def test_flips_turn_a_patch_as_they_are_called(flips: str, ways: int) -> None:
    image = numbered(8, 8)
    made = {Patch(8, flips)(image, (0, 0, i))[0].tobytes() for i in range(100)}  # type: ignore[arg-type]
    assert len(made) == ways
    assert image.tobytes() in made
    assert (image[:, ::-1].tobytes() in made) == (flips != "none")
    assert (image[::-1].tobytes() in made) == (flips == "all"), "upside down"


def test_a_share_of_each_class_is_held_out_and_single_images_stay(tmp_path: Path) -> None:
    counts = {"big": 40, "half": 20, "one": 1, "two": 2, **{f"few{i}": 2 for i in range(20)}}
    for name, count in counts.items():
        write_images(tmp_path / name, count, size=(8, 8))
    found = opened(tmp_path, val_share=0.2)
    held_out = Counter(classes(found, found.val))
    assert sum(held_out.values()) == round(0.2 * sum(counts.values()))
    assert set(counts) == set(classes(found, found.train))
    assert "one" not in held_out
    assert 7 <= held_out["big"] <= 12
    assert 3 <= held_out["half"] <= 6
    assert found.split == "0.2 of each class held out by seed 0"


def test_arrays_are_images_where_there_are_no_others(tmp_path: Path) -> None:
    for index in range(4):
        np.save(tmp_path / f"{index}.npy", np.full((9, 12, 5), index, np.uint8))
    found = opened(tmp_path)
    assert look_at_headers(found.train) == ([(12, 9)] * 3, 5)
    assert found.counts.unread_text == ""
    write_images(tmp_path, 4)
    for layout in ("auto", "folder"):
        found = opened(tmp_path, layout=layout)
        assert all(name.endswith(".png") for name in names(found.train))
        assert found.counts.unread_text == "4 .npy are not read (NumPy array)"


def test_several_numbers_of_channels_are_refused_with_the_setting(tmp_path: Path) -> None:
    for index in range(4):
        np.save(tmp_path / f"{index}.npy", np.full((9, 12, 5 if index % 2 else 3), index, np.uint8))
    found = opened(tmp_path)
    with pytest.raises(DataError, match=r"several numbers of channels: 3 \(.*npy\), 5 \(.*npy\)") as caught:
        look_at_headers(replace(found.train, indices=np.arange(4)))
    assert caught.value.hint.startswith("set data.channels=5")


def test_the_window_of_the_settings_is_that_of_the_pixels(tmp_path: Path) -> None:
    np.save(tmp_path / "0.npy", np.linspace(-4, 4, 72, dtype=np.float32).reshape(8, 9))
    np.save(tmp_path / "1.npy", np.zeros((8, 9), np.float32))
    images = opened(tmp_path).train
    source = SingleImageSource(images, 1, None, None, 8, ReadLimits(), window=(-4, 4))
    (image,) = source.load(0)
    assert image.max() in (128, 255)
