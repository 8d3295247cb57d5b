"""Files of several pages: every page is processed, or the row says how to take the first."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.broken_files import encode
from tests.pipelines.conftest import Bulk, rows_of


def page(size: tuple[int, int], mode: str = "RGB") -> Image.Image:
    return Image.new("RGB", size, "teal").convert(mode)


def write_pages(path: Path, *pages: Image.Image) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(encode(pages[0], "TIFF", save_all=True, append_images=list(pages[1:])))


def frames(path: Path) -> list[np.ndarray]:
    with Image.open(io.BytesIO(path.read_bytes())) as image:
        found = []
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            found.append(np.asarray(image).astype(int))
        return found


def test_every_page_is_processed_whatever_its_size_and_mode(bulk: Bulk, tmp_path: Path) -> None:
    pages = [page((40, 30)), page((40, 30)), page((64, 20), "L"), page((10, 90), "RGBA")]
    write_pages(tmp_path / "in" / "scan.tif", *pages)
    write_pages(tmp_path / "in" / "single.tif", pages[0])
    outcome = bulk("corrupt", f"input={tmp_path / 'in'}", "corrupt.noise.sigma=10", "write.format=same")
    assert (outcome["done"], outcome["total"]) == (2, 2)
    rows = {row["path"]: row for row in rows_of(tmp_path / "out")}
    assert (rows["scan.tif"]["pages"], rows["single.tif"]["pages"]) == (4, 1)
    made = frames(tmp_path / "out" / "scan.tif")
    assert [image.shape for image in made] == [np.asarray(page).shape for page in pages]
    changes = [
        np.abs(image - np.asarray(page))[..., :3].mean() for image, page in zip(made, pages, strict=True)
    ]
    assert all(5 < change < 12 for change in changes)
    assert not np.array_equal(made[0], made[1]), "each page has its own noise"
    assert rows["scan.tif"]["change"] == pytest.approx(np.mean(changes), rel=0.1)


def test_of_large_pages_no_more_is_held_than_of_a_large_image(bulk: Bulk, tmp_path: Path) -> None:
    for name in "ab":
        write_pages(tmp_path / "in" / f"{name}.tif", *[page((900, 900), "L")] * 6)
    sets = (f"input={tmp_path / 'in'}", "work.memory_mb=64", "write.format=same")
    assert bulk("corrupt", *sets)["done"] == 2
    assert len(frames(tmp_path / "out" / "a.tif")) == 6


def test_one_bad_page_fails_its_file_and_no_other(bulk: Bulk, tmp_path: Path) -> None:
    write_pages(tmp_path / "in" / "a.tif", page((300, 300)), page((4, 4)), page((300, 300)))
    write_pages(tmp_path / "in" / "b.tif", page((300, 300)), page((300, 300)))
    outcome = bulk("corrupt", f"input={tmp_path / 'in'}", "corrupt.kind=stamps", "write.format=same")
    assert (outcome["done"], outcome["reasons"]) == (1, {"odd-shape": 1})
    assert not (tmp_path / "out" / "a.tif").exists()


@pytest.mark.parametrize("pages", ["all", "first"])
def test_a_format_of_one_page_takes_the_first_or_refuses(pages: str, bulk: Bulk, tmp_path: Path) -> None:
    write_pages(tmp_path / "in" / "a.tif", page((40, 30)), page((40, 30)))
    write_pages(tmp_path / "in" / "b.tif", page((40, 30)))
    sets = (f"input={tmp_path / 'in'}", "write.format=png", f"read.pages={pages}")
    outcome = bulk("corrupt", *sets)
    row = {row["path"]: row for row in rows_of(tmp_path / "out")}["a.tif"]
    if pages == "all":
        assert outcome["reasons"] == {"unsupported": 1}
        assert "read.pages=first" in row["detail"]
    else:
        assert (row["status"], row["pages"]) == ("done", 1)
        assert "further pages: 1" in row["detail"]
        assert "further pages: 1" in row["not_kept"]
