"""Image files as they are found in large stores: broken in every way, odd but readable, with unkind names."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".PNG", ".JPG")
NAMES = (
    "plain{}",
    "two words {}",
    " leading and trailing {} ",
    "new\nline {}",
    "tab\t{}",
    "größe-日本-{}",
    "emoji 📷🇩🇪 {}",
    "quote'\"`$(touch x);{}",
    "<script>alert({})</script>",
    "%2e%2e%2f{}",
    "-rf {}",
    ".hidden{}",
    "dots..in...it.{}",
    "long-" + "x" * 230 + "-{}",
)
FOLDERS = ("", "", "a", "a/b/c/d/e", "with space", "日本/📁", "new\nfolder", "x.png.d")


def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """The bytes of `image` as a file of Pillow's format `kind`."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    """A PNG chunk."""
    return struct.pack(">L", len(body)) + kind + body + struct.pack(">L", zlib.crc32(kind + body))


def png_bomb(width: int = 60_000, height: int = 60_000) -> bytes:
    """A small PNG whose header promises `width` x `height` pixels."""
    header = struct.pack(">LLBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"x") + chunk(b"IEND", b"")


def flipped(data: bytes, at: int) -> bytes:
    """`data` with one byte changed."""
    return data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :]


def _kinds() -> list[tuple[bytes, str]]:
    rng = np.random.default_rng(0)
    ramp = np.add.outer(np.arange(32), np.arange(40) * 2)[..., None] + rng.integers(0, 90, (32, 40, 3))
    photo = Image.fromarray(ramp.astype(np.uint8))
    gray = photo.convert("L")
    deep = Image.fromarray(np.asarray(gray).astype(np.uint16) * 257)
    clear = photo.convert("RGBA")
    clear.putalpha(gray)
    turned = Image.Exif()
    turned[0x0112] = 6
    png, jpeg, webp = (encode(photo, kind) for kind in ("PNG", "JPEG", "WEBP"))
    tiff = encode(photo, "TIFF", compression="tiff_lzw")
    frame = jpeg.index(b"\xff\xc0") + 5
    animation = encode(photo, "WEBP", save_all=True, append_images=[photo.rotate(180)])
    broken = [
        (b"", "empty"),
        (b"", "empty"),
        (b"just a note", "unknown-format"),
        (b"<!DOCTYPE html><title>404</title>", "unknown-format"),
        (bytes(5000), "unknown-format"),
        (b"8BPS\0\1" + bytes(40), "unsupported"),
        (encode(photo, "BMP")[:-90], "truncated"),
        (b"\x00" + png, "unknown-format"),
        (png[:-13], "truncated"),
        (png[: len(png) // 2], "truncated"),
        (jpeg[: len(jpeg) // 2], "truncated"),
        (jpeg[:-3], "truncated"),
        (webp[: len(webp) // 2], "truncated"),
        (tiff[: len(tiff) // 2], "truncated"),
        (encode(photo, "JPEG", progressive=True)[:-40], "truncated"),
        (png[:8], "truncated"),
        (png[:33], "truncated"),
        (jpeg[:2], "unknown-format"),
        (jpeg[:3], "truncated"),
        (jpeg[: frame + 20], "truncated"),
        (webp[:12], "truncated"),
        (tiff[:8], "truncated"),
        (flipped(png, len(png) // 2), "truncated"),
        (flipped(png, 18), "truncated"),
        (flipped(jpeg, 2), "unknown-format"),
        (flipped(jpeg, 20), "truncated"),
        (flipped(webp, 20 + 3), "truncated"),
        (png[:100] + png[140:], "truncated"),
        (jpeg[:frame] + b"\0\0\0\0" + jpeg[frame + 4 :], "truncated"),
        (jpeg[:frame] + b"\xea\x60\xea\x60" + jpeg[frame + 4 :], "too-large"),
        (png_bomb(), "too-large"),
        (encode(Image.new("1", (16_000, 16_000)), "TIFF", compression="group4"), "too-large"),
        (animation, "unsupported"),
        (encode(gray.convert("F"), "TIFF"), "unsupported"),
        (encode(gray.convert("I"), "TIFF"), "unsupported"),
    ]
    readable = [
        png,
        jpeg,
        webp,
        tiff,
        encode(photo, "JPEG", exif=turned.tobytes()),
        encode(photo, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"),
        encode(photo, "PNG", icc_profile=b"no profile"),
        encode(photo.convert("P"), "PNG"),
        encode(photo.convert("P"), "PNG", transparency=3),
        encode(photo.convert("1"), "PNG"),
        encode(photo.convert("CMYK"), "JPEG"),
        encode(gray, "JPEG"),
        encode(deep, "PNG"),
        encode(deep, "TIFF"),
        encode(gray.convert("LA"), "PNG"),
        encode(clear, "WEBP", lossless=True),
        encode(clear, "TIFF"),
        encode(photo, "BMP"),
        png[:-1],
        jpeg[:-2],
        encode(photo.resize((1, 1)), "PNG"),
        jpeg + b"something behind the end",
    ]
    return broken + [(data, "") for data in readable]


def write_broken_files(folder: Path, count: int, seed: int = 0) -> dict[str, str]:
    """Write `count` files that are broken or odd under `folder`.

    Every kind comes about equally often, under names with spaces, newlines, emoji, of 250 bytes, in nested
    folders, with an image suffix that often is another's.

    Returns:
        For each file's POSIX path below `folder` the reason of the `BadImage` that reading it raises;
        "" if it can be read, as a third can.
    """
    rng = np.random.default_rng(seed)
    kinds, reasons = _kinds(), {}
    for index in range(count):
        data, reason = kinds[index % len(kinds)]
        name = NAMES[rng.integers(len(NAMES))].format(index) + SUFFIXES[rng.integers(len(SUFFIXES))]
        path = folder / FOLDERS[rng.integers(len(FOLDERS))] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        reasons[path.relative_to(folder).as_posix()] = reason
    return reasons


ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
"""Passes of an interlaced PNG: first row, first column, rows and columns between pixels."""
