import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from genray.datasets.layouts import ParquetImages, read_parquet
from genray.errors import DataError
from genray.io.bad_input import BadImage
from genray.io.store import open_store


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((6, 5), value, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def write(file: Path, columns: dict[str, Any], rows_per_group: int = 2) -> None:
    pq.write_table(pa.table(columns), file, row_group_size=rows_per_group)


def read(folder: Path) -> tuple[ParquetImages, list[Any] | None]:
    store = open_store(folder)
    images, classes = read_parquet(store, store.list((".parquet",)))
    return images, None if classes is None else classes.tolist()


def values(images: ParquetImages) -> list[int]:
    return [int(images.pixels(i, 1, 1000)[0, 0, 0]) for i in range(len(images))]


def test_several_files_are_read_as_one(tmp_path: Path) -> None:
    for name, start, count in (("a", 0, 5), ("b", 0, 0), ("c", 5, 3)):
        rows = range(start, start + count)
        label = pa.array(list(rows), pa.int32())
        write(
            tmp_path / f"{name}.parquet",
            {"image": pa.array([png(i) for i in rows], pa.binary()), "label": label},
        )
    images, classes = read(tmp_path)
    assert values(images) == list(range(8))
    assert classes == list(range(8))
    assert [images.name(i) for i in (0, 4, 5)] == ["a.parquet#0", "a.parquet#4", "c.parquet#0"]
    assert images.header(7) == (5, 6, True)


def test_the_struct_of_hugging_face_is_understood(tmp_path: Path) -> None:
    cells = [{"bytes": png(7), "path": "7.png"}, None, {"bytes": None, "path": "8.png"}]
    write(tmp_path / "0.parquet", {"id": [1, 2, 3], "image": cells})
    images, classes = read(tmp_path)
    assert classes is None
    assert images.pixels(0, 1, 1000)[0, 0, 0] == 7
    for index in (1, 2):
        with pytest.raises(BadImage, match="null"):
            images.pixels(index, 1, 1000)


@pytest.mark.parametrize(
    ("cell", "reason"),
    [(None, "empty"), (b"", "empty"), (b"text", "unknown-format"), (png(1)[:50], "truncated")],
)
def test_a_cell_without_an_image_is_a_bad_image(tmp_path: Path, cell: bytes | None, reason: str) -> None:
    write(tmp_path / "0.parquet", {"image": pa.array([png(1), cell], pa.binary())})
    images, _ = read(tmp_path)
    with pytest.raises(BadImage) as caught:
        images.pixels(1, 1, 1000)
    assert caught.value.reason == reason


def test_the_column_called_image_is_taken_before_other_bytes(tmp_path: Path) -> None:
    write(tmp_path / "0.parquet", {"data": [b"mask"], "other": [b"x"], "image": [png(9)]})
    assert values(read(tmp_path)[0]) == [9]


def test_a_column_of_another_name_is_taken_if_there_is_no_better_one(tmp_path: Path) -> None:
    write(tmp_path / "0.parquet", {"caption": ["nine"], "photo": pa.array([png(9)], pa.large_binary())})
    assert values(read(tmp_path)[0]) == [9]


@pytest.mark.parametrize(
    ("labels", "known"),
    [
        (["dog", "cat"], ["dog", "cat"]),
        (pa.array(["dog", "cat"]).dictionary_encode(), ["dog", "cat"]),
        (pa.array([3, 250], pa.uint8()), [3, 250]),
        ([3, None], None),
        ([-1, -1], None),  # as Hugging Face has it where labels are secret
        ([0.5, 1.0], None),
    ],
)
def test_classes_are_numbers_or_text_and_known_for_all_or_none(
    tmp_path: Path, labels: Any, known: Any
) -> None:
    write(tmp_path / "0.parquet", {"image": [png(1), png(2)], "label": labels})
    assert read(tmp_path)[1] == known


def test_classes_are_unknown_if_a_file_has_none_or_others(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", {"image": [png(1)], "label": [1]})
    write(tmp_path / "b.parquet", {"image": [png(1)]})
    assert read(tmp_path)[1] is None
    write(tmp_path / "b.parquet", {"image": [png(1)], "label": ["one"]})
    assert read(tmp_path)[1] is None


def test_a_file_without_images_says_what_it_has(tmp_path: Path) -> None:
    write(tmp_path / "0.parquet", {"text": ["a"], "label": [1]})
    with pytest.raises(DataError, match=r"0\.parquet has no column of encoded images, only: text, label"):
        read(tmp_path)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "0.parquet"
    write(file, {"image": [png(i) for i in range(20)], "label": list(range(20))})
    whole = file.read_bytes()
    rng = np.random.default_rng(0)
    for data in (b"", b"PAR1", whole[:-30], whole[100:]):
        file.write_bytes(data)
        with pytest.raises(DataError, match=r"0\.parquet is no Parquet file that can be read"):
            read(tmp_path)
    for _ in range(60):
        broken = bytearray(whole)
        broken[rng.integers(len(broken))] ^= int(rng.integers(1, 256))
        file.write_bytes(broken)
        try:
            images, _ = read(tmp_path)
            values(images)
        except (DataError, BadImage):
            pass
