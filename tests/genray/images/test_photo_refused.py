import struct
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genray.images.photo import ReadLimits, read_photo
from genray.io.bad_input import REASONS, BadImage
from tests.broken_files import chunk, encode, png_bomb, write_broken_files
from tests.genray.images.photo_samples import ICC, LIMITS, exif, reason, smooth, values


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_animations_are_refused(kind: str) -> None:
    frames = [smooth().rotate(90 * turn) for turn in range(3)]
    assert reason(encode(frames[0], kind, save_all=True, append_images=frames[1:])) == "unsupported"


@pytest.mark.parametrize("mode", ["F", "I", "LAB"])
def test_tiffs_that_would_lose_are_refused(mode: str) -> None:
    image = smooth("L").convert(mode) if mode != "LAB" else Image.frombytes("LAB", (4, 4), bytes(48))
    assert reason(encode(image, "TIFF")) == "unsupported"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_no_cut_file_is_read(kind: str) -> None:
    options = {"compression": "tiff_lzw"} if kind == "TIFF" else {}
    data = encode(Image.fromarray(values()), kind, **options)
    for length in range(12, len(data), 37):
        assert reason(data[:length]) == "truncated"
    assert reason(data[:-1]) == "truncated"


@pytest.mark.parametrize("bomb", ["png", "jpeg", "tiff", "webp"])
def test_bombs_are_refused_without_allocating(bomb: str) -> None:
    header = bytes([16, 0, 0, 0]) + (16_000).to_bytes(3, "little") * 2
    jpeg = encode(smooth(), "JPEG")
    frame = jpeg.index(b"\xff\xc0") + 5
    data = {
        "png": png_bomb(),
        "jpeg": jpeg[:frame] + b"\xea\x60\xea\x60" + jpeg[frame + 4 :],
        "tiff": encode(Image.new("1", (9000, 9000)), "TIFF", compression="group4"),
        "webp": b"RIFF" + struct.pack("<L", 22) + b"WEBPVP8X" + struct.pack("<L", 10) + header,
    }[bomb]
    tracemalloc.start()
    assert reason(data) == "too-large"
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


def test_a_small_png_cannot_promise_many_pixels() -> None:
    assert reason(png_bomb(3000, 3000)) == "truncated"


def test_limits_are_of_bytes_and_of_pixels() -> None:
    data = encode(Image.fromarray(values()), "PNG")
    assert reason(data, ReadLimits(max_bytes=100)) == "too-large"
    assert reason(data, ReadLimits(max_pixels=24 * 32 - 1)) == "too-large"
    assert read_photo(data, ReadLimits(max_pixels=24 * 32)).depth == 8


def test_a_png_of_no_width_is_damaged() -> None:
    header = chunk(b"IHDR", struct.pack(">LLBBBBB", 0, 4, 8, 2, 0, 0, 0))
    assert reason(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IEND", b"")) == "truncated"


def test_any_changed_byte_gives_a_photo_or_a_bad_image(capfd: pytest.CaptureFixture[str]) -> None:
    files = [encode(smooth(mode), kind) for mode in ("L", "RGB") for kind in ("PNG", "JPEG", "WEBP", "TIFF")]
    files += [encode(smooth("CMYK"), "JPEG"), encode(smooth().convert("P"), "PNG", transparency=0)]
    files += [
        encode(smooth(), "TIFF", compression=name) for name in ("tiff_lzw", "tiff_adobe_deflate", "jpeg")
    ]
    files += [encode(smooth(), kind, exif=exif(6), icc_profile=ICC) for kind in ("JPEG", "PNG", "TIFF")]
    rng = np.random.default_rng(0)
    limits = ReadLimits(max_pixels=100_000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for index in range(600):
            data = bytearray(files[index % len(files)])
            if index % 2:
                del data[rng.integers(1, len(data)) :]
            for at in rng.integers(0, min(len(data), 200 if index % 3 else len(data)), 2):
                data[at] ^= rng.integers(1, 256)
            try:
                assert read_photo(bytes(data), limits).pixels.shape[2] in (1, 3)
            except BadImage as bad:
                assert bad.reason in REASONS
    assert capfd.readouterr().err == ""


def test_every_broken_file_has_the_reason_it_should_have(tmp_path: Path) -> None:
    reasons = write_broken_files(tmp_path, 200)
    found = {}
    for path in tmp_path.rglob("*"):
        if path.is_file():
            try:
                read_photo(path.read_bytes(), LIMITS)
                found[path.relative_to(tmp_path).as_posix()] = ""
            except BadImage as bad:
                found[path.relative_to(tmp_path).as_posix()] = bad.reason
    assert len(reasons) == 200
    assert found == reasons
    assert set(found.values()) >= {"", "empty", "truncated", "too-large", "unknown-format", "unsupported"}
