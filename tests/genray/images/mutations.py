"""Mutated image files through the reader: whatever is in a file, it gives pixels or a `BadImage`.

    python -m tests.genray.images.mutations [--count 100000] [--seed 0] [--first 0]

Each file is drawn from the seed and its number alone. One that takes more than a minute, or ends the process,
prints where it was; the numbers printed before say from which one to go on (--first).
"""

from __future__ import annotations

import argparse
import faulthandler
import io
import random
import struct
import sys
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import imagecodecs
import numpy as np
import pillow_heif
from PIL import Image

from genray.images.decode import decode, decode_header
from genray.images.limits import ReadLimits
from genray.images.photo import photo_header, read_photo
from genray.io.bad_input import REASONS, BadImage
from tests.broken_files import ADAM7, chunk, encode
from tests.genray.images.photo_samples import ICC, exif, smooth

LIMITS = ReadLimits(max_pixels=300_000, max_seconds=2)
FIRST = LIMITS.model_copy(update={"pages": "first"})
READ = "read"

_PNG_HEAD = b"\x89PNG\r\n\x1a\n"
_HANG_SECONDS = 60


def seeds() -> dict[str, bytes]:
    """A small file of every kind that is read."""
    clear = smooth("RGBA")
    clear.putalpha(smooth("L"))
    gray_clear = smooth("LA")
    gray_clear.putalpha(smooth("L"))
    palette = smooth().convert("P")
    deep = np.random.default_rng(0).integers(0, 2**16, (24, 32, 4)).astype(np.uint16)
    carried = {"exif": exif(6), "icc_profile": ICC}
    files = {f"png {mode}": encode(smooth(mode)) for mode in ("1", "L", "RGB")}
    files |= {
        "png RGBA": encode(clear),
        "png LA": encode(gray_clear),
        "png palette": encode(palette),
        "png 4 bits": encode(smooth().quantize(16)),
        "png transparent palette": encode(palette, transparency=bytes(range(256))),
        "png transparent gray": encode(smooth("L"), transparency=60),
        "png transparent colour": encode(smooth(), transparency=(0, 30, 60)),
        "png with more": encode(smooth(), **carried),
        "png interlaced": _interlaced_png(),
    }
    files |= {
        f"png 16 bits, {samples}": imagecodecs.png_encode(deep[..., :samples].copy())
        for samples in range(1, 5)
    }
    files |= {f"jpeg {mode}": encode(smooth(mode), "JPEG") for mode in ("L", "RGB", "CMYK")}
    files |= {
        "jpeg progressive": encode(smooth(), "JPEG", progressive=True),
        "jpeg 4:4:4": encode(smooth(), "JPEG", subsampling=0, restart_marker_blocks=2),
        "jpeg with more": encode(smooth(), "JPEG", **carried),
        "jpeg several": encode(smooth(), "MPO", save_all=True, append_images=[smooth()]),
        "webp": encode(smooth(), "WEBP"),
        "webp lossless": encode(smooth(), "WEBP", lossless=True),
        "webp RGBA": encode(clear, "WEBP"),
        "webp with more": encode(smooth(), "WEBP", **carried),
        "tiff tiled": imagecodecs.tiff_encode(np.array(smooth().resize((64, 64))), tile=(32, 32)),
        "tiff 16 bits": imagecodecs.tiff_encode(deep[..., :3].copy(), byteorder=">", compression="deflate"),
        "tiff with more": encode(smooth(), "TIFF", **carried),
        "tiff pages": encode(smooth(), "TIFF", save_all=True, append_images=[smooth()]),
        "tiff RGBA": encode(clear, "TIFF"),
        "tiff palette": encode(palette, "TIFF"),
        "tiff CMYK": encode(smooth("CMYK"), "TIFF"),
        "tiff big": encode(smooth(), "TIFF", big_tiff=True, **carried),
        "tiff fax": encode(smooth("1"), "TIFF", compression="group4"),
    }
    for name in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "zstd", "lzma"):
        files[f"tiff {name}"] = encode(smooth(), "TIFF", compression=name)
    files |= {
        "avif": encode(smooth(), "AVIF", **carried),
        "avif RGBA": encode(clear, "AVIF"),
        "avif 12 bits": imagecodecs.avif_encode(deep[..., :3] >> 4, bitspersample=12),
        "gif": encode(palette, "GIF", transparency=3),
        "gif frames": encode(palette, "GIF", save_all=True, append_images=[smooth("L")]),
        "jp2": encode(clear, "JPEG2000"),
        "jp2 codestream": encode(smooth("L"), "JPEG2000", no_jp2=True),
        "jp2 16 bits": imagecodecs.jpeg2k_encode(deep[..., :3].copy(), level=0),
        "jxl": imagecodecs.jpegxl_encode(deep[..., :3].view(np.uint8)[..., :3].copy(), usecontainer=True),
        "jxl gray": imagecodecs.jpegxl_encode(np.asarray(smooth("L")), lossless=True),
        "heif": _heif(smooth(), **carried),
        "heif RGBA": _heif(clear),
        "tiff float": imagecodecs.tiff_encode(deep[..., 0] / np.float32(65535)),
        "tiff LAB": encode(Image.frombytes("LAB", (8, 8), bytes(192)), "TIFF"),
        "tiff CMYK jpeg": encode(smooth("CMYK"), "TIFF", compression="jpeg"),
    }
    files |= {f"bmp {mode}": encode(smooth(mode), "BMP") for mode in ("1", "L", "P", "RGB", "RGBA")}
    return files


def _heif(image: Image.Image, **options: Any) -> bytes:
    stream = io.BytesIO()
    pillow_heif.from_pillow(image).save(stream, **options)
    return stream.getvalue()


def mutated(index: int, seed: int, files: list[bytes]) -> bytes:
    """The file of a number: one of `files` with bytes changed, cut, moved, repeated, or of another one."""
    rng = random.Random(f"{seed}-{index}")
    data = bytearray(files[index % len(files)])
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        _mutate(data, rng, files)
    if data.startswith(_PNG_HEAD) and rng.random() < 0.7:
        return _with_checksums(bytes(data), rng)
    return bytes(data)


def try_reading(data: bytes, index: int) -> str:
    """Read a file as bulk and as training do; `READ`, or the reason that it is refused."""
    outcomes = set()
    limits = FIRST if index % 2 else LIMITS
    has_pages = False
    try:
        has_pages = bool(photo_header(data, limits).pages)
        photo = read_photo(data, limits)
        assert photo.pixels.shape[2] in (1, 3)
        outcomes.add(READ)
    except BadImage as bad:
        outcomes.add(bad.reason)
    if has_pages:  # training takes no such files
        return outcomes.pop()
    channels = (1, 3, 4)[index % 3]
    try:
        header = decode_header(data, limits)
        pixels = decode(data, channels=channels, limits=limits)
        assert pixels.shape == (header.height, header.width, channels)
        outcomes.add(READ)
    except BadImage as bad:
        outcomes.add(bad.reason)
    (outcome,) = outcomes  # training and bulk agree
    assert outcome == READ or outcome in REASONS
    return outcome


def run(count: int, seed: int, first: int = 0) -> Iterator[tuple[int, str, str]]:
    """Try so many files; yields the number of each, what it was before, and its outcome."""
    names, files = zip(*seeds().items(), strict=True)
    for index in range(first, first + count):
        yield index, names[index % len(names)], try_reading(mutated(index, seed, list(files)), index)


def _mutate(data: bytearray, rng: random.Random, files: list[bytes]) -> None:
    at = rng.randrange(len(data) + 1)
    if rng.random() < 0.5:  # headers are where most goes wrong
        at = min(at, rng.randrange(200))
    length = min(rng.choice((1, 2, 4, 8, 64, 512)), len(data) - at)
    match rng.randrange(8):
        case 0 | 1:
            for place in range(at, at + min(length, 4)):
                data[place] ^= rng.randrange(1, 256)
        case 2:
            del data[at:]
        case 3:
            del data[at : at + length]
        case 4:
            data[at:at] = data[at : at + length] * rng.choice((1, 2, 50))
        case 5:
            data[at : at + length] = rng.choice((b"\0", b"\xff", b"\x7f")) * length
        case 6:
            other = rng.choice(files)
            start = rng.randrange(len(other))
            data[at : at + length] = other[start : start + rng.choice((4, 40, 400))]
        case 7:
            number = rng.choice((0, 1, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0xFFFFFFFF))
            data[at : at + 4] = struct.pack(rng.choice("<>") + "L", number)


def _with_checksums(data: bytes, rng: random.Random) -> bytes:
    """A PNG whose chunks have the checksums of what is in them, so that damage comes to the decoders."""
    parts = [data[:8]]
    at = 8
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">L4s", data, at)
        if at + 12 + length > len(data):
            break
        parts.append(chunk(kind, data[at + 8 : at + 8 + length]))
        at += 12 + length
    return b"".join([*parts, data[at:] if rng.random() < 0.5 else b""])


def _interlaced_png() -> bytes:
    image = np.asarray(smooth())
    height, width = image.shape[:2]
    rows = b"".join(
        b"\0" + row.tobytes() for top, left, down, across in ADAM7 for row in image[top::down, left::across]
    )
    header = chunk(b"IHDR", struct.pack(">LLBBBBB", width, height, 8, 2, 0, 0, 1))
    return _PNG_HEAD + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def main() -> None:
    """Try them and print the counts of what came of them, by kind of file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    given = parser.parse_args()
    faulthandler.enable()
    Image.init()
    outcomes: Counter[str] = Counter()
    references = sys.getrefcount(None)
    slowest = (0.0, 0)
    began = before = time.perf_counter()
    faulthandler.dump_traceback_later(_HANG_SECONDS, exit=True)
    for index, _, outcome in run(given.count, given.seed, given.first):
        outcomes[outcome] += 1
        now = time.perf_counter()
        slowest = max(slowest, (now - before, index))
        before = now
        faulthandler.dump_traceback_later(_HANG_SECONDS, exit=True)
        if index % 5000 == 0:
            print(index, dict(outcomes), flush=True)
    faulthandler.cancel_dump_traceback_later()
    print(f"{given.count} files in {time.perf_counter() - began:.0f} s: {dict(outcomes.most_common())}")
    print(f"slowest: {slowest[0] * 1e3:.0f} ms, number {slowest[1]}")
    print(f"references to None: {sys.getrefcount(None) - references:+}")


if __name__ == "__main__":
    main()
