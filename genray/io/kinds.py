"""Table of image formats: name, suffixes, and the first bytes by which each is recognised.

Everything that lists, reads or names image files uses this table. The first bytes of a file decide what it
is; its suffix only avoids reading them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

HEAD_BYTES = 32
"""Number of first bytes that are enough to recognise the format of a file."""


@dataclass(frozen=True)
class ImageKind:
    """Format of image files.

    Attributes:
        name: name in code and ledgers, lower case.
        title: name in texts for people.
        suffixes: suffixes of its files, lower case, the usual one first.
        is_read: whether genray reads the format.
        is_array: whether its files may also be no images: they are read only where they are asked for.
        is_written: whether genray writes the format; else its images are written as PNG.
    """

    name: str
    title: str
    suffixes: tuple[str, ...]
    is_read: bool = False
    is_written: bool = False
    is_array: bool = False


KINDS = {
    kind.name: kind
    for kind in (
        ImageKind("png", "PNG", (".png", ".apng"), is_read=True, is_written=True),
        ImageKind("jpeg", "JPEG", (".jpg", ".jpeg", ".jfif", ".jpe", ".mpo"), is_read=True, is_written=True),
        ImageKind("webp", "WebP", (".webp",), is_read=True, is_written=True),
        ImageKind("tiff", "TIFF", (".tif", ".tiff"), is_read=True, is_written=True),
        ImageKind("bmp", "BMP", (".bmp", ".dib"), is_read=True, is_written=True),
        ImageKind("bigtiff", "BigTIFF", (".btf", ".tf8"), is_read=True, is_written=True),
        ImageKind("gif", "GIF", (".gif",), is_read=True),
        ImageKind("heif", "HEIF", (".heic", ".heif", ".hif"), is_read=True),
        ImageKind("avif", "AVIF", (".avif", ".avifs"), is_read=True),
        ImageKind("jp2", "JPEG 2000", (".jp2", ".j2k", ".jpx", ".jpf", ".j2c"), is_read=True),
        ImageKind("jxl", "JPEG XL", (".jxl",), is_read=True),
        ImageKind("npy", "NumPy array", (".npy",), is_read=True, is_array=True),
        ImageKind("psd", "Photoshop", (".psd",)),
        ImageKind("exr", "OpenEXR", (".exr",)),
        ImageKind("dicom", "DICOM", (".dcm",)),
    )
}

_IMAGES = [kind for kind in KINDS.values() if kind.is_read and not kind.is_array]

READ_SUFFIXES = tuple(suffix for kind in _IMAGES for suffix in kind.suffixes)
"""Suffixes of the formats that are read wherever they lie."""

ARRAY_SUFFIXES = tuple(suffix for kind in KINDS.values() if kind.is_array for suffix in kind.suffixes)
"""Suffixes of arrays, which are images in training data without others, and where they are asked for."""

READ_TITLES = ", ".join(kind.title for kind in _IMAGES)
"""Titles of the formats that are read, as a list for texts."""

_BY_SUFFIX = {suffix: kind for kind in KINDS.values() for suffix in kind.suffixes}
_MAGIC = (
    (b"\x89PNG", "png"),  # the rest of the signature is checked by the reader: it shows damage
    (b"\xff\xd8\xff", "jpeg"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"II+\0", "bigtiff"),
    (b"MM\0+", "bigtiff"),
    (b"BM", "bmp"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"\xff\x0a", "jxl"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "jxl"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "jp2"),
    (b"\xff\x4f\xff\x51", "jp2"),
    (b"\x93NUMPY", "npy"),
    (b"8BPS", "psd"),
    (b"\x76\x2f\x31\x01", "exr"),
)
_AVIF_BRANDS = {b"avif", b"avis"}
_HEIF_BRANDS = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"}


def kind_of_bytes(head: bytes) -> ImageKind | None:
    """Return the format of a file from `head`, its first `HEAD_BYTES`; None if it is none of the table."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return KINDS["webp"]
    if head[4:8] == b"ftyp" and head[8:12] in _AVIF_BRANDS | _HEIF_BRANDS:
        # The first brand may be one of both; the compatible ones follow from byte 16 on.
        brands = {head[at : at + 4] for at in (8, *range(16, min(len(head), HEAD_BYTES) - 3, 4))}
        return KINDS["avif" if brands & _AVIF_BRANDS and not brands & {b"heic", b"heix"} else "heif"]
    return next((KINDS[name] for magic, name in _MAGIC if head.startswith(magic)), None)


def kind_of_name(path: str) -> ImageKind | None:
    """Return the format of the suffix of `path`; None if it has no suffix, or no image format's."""
    return _BY_SUFFIX.get(PurePosixPath(path).suffix.lower())
