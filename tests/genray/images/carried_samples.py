"""Files that carry one item each, written by Pillow or by hand, and what Pillow sees of it in a file."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import imagecodecs
import numpy as np
from PIL import Image, IptcImagePlugin, PngImagePlugin

from genray.images.limits import ReadLimits
from genray.images.photo import read_photo
from genray.images.photo_writer import WriteSettings, write_photo
from tests.broken_files import chunk, encode
from tests.genray.images.photo_samples import ICC, exif, smooth

FORMATS = ("jpeg", "png", "webp", "tiff", "bmp")
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" dc:format="a format"/>'
    b"</rdf:RDF></x:xmpmeta>"
)
IPTC = b"\x1c\x02\x78" + struct.pack(">H", 9) + b"a caption"
WORDS = "words of a person"

Draw = Callable[[str], bytes | None]
"""Draws a file of a format that has the item; None if the format has no place for it."""
See = Callable[[bytes], bool]
"""Whether a file has the item, read by something else than this project."""


@dataclass(frozen=True)
class Item:
    """Something that a file can carry.

    Args:
        name: for people.
        draw: see `Draw`.
        see: see `See`.
        known_as: names in `not_kept`, one of which is given where the item is not kept.
    """

    name: str
    draw: Draw
    see: See
    known_as: tuple[str, ...]


def irb(number: int, body: bytes) -> bytes:
    """An image resource of Photoshop."""
    return (
        b"8BIM"
        + struct.pack(">H", number)
        + b"\0\0"
        + struct.pack(">L", len(body))
        + body
        + b"\0" * (len(body) % 2)
    )


def with_segment(jpeg: bytes, marker: int, body: bytes) -> bytes:
    """A JPEG with a further segment behind its first."""
    at = 4 + struct.unpack_from(">H", jpeg, 4)[0]
    return jpeg[:at] + struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body + jpeg[at:]


def with_chunk(png: bytes, kind: bytes, body: bytes) -> bytes:
    """A PNG with a further chunk behind its header."""
    return png[:33] + chunk(kind, body) + png[33:]


def opened(data: bytes) -> Image.Image:
    """A file, as Pillow reads it."""
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def _resolution(form: str) -> bytes | None:
    if form == "webp":
        block = Image.Exif()
        block[282] = block[283] = 300.0
        block[296] = 2
        return encode(smooth(), "WEBP", exif=block.tobytes())
    return encode(smooth(), form.upper(), dpi=(300, 300))


def _sees_resolution(data: bytes) -> bool:
    image = opened(data)
    if image.format == "WEBP":
        return bool(image.getexif().get(282) == 300)
    return bool(np.allclose(np.array(image.info.get("dpi", (0, 0)), float), 300, atol=0.02))


def _profile(form: str) -> bytes | None:
    if form != "bmp":
        return encode(smooth(), form.upper(), icc_profile=ICC)
    plain = encode(smooth(), "BMP")
    header = plain[14:54] + bytes(16) + b"DEBM" + bytes(48)
    header = struct.pack("<L", 124) + header[4:] + struct.pack("<4L", 4, 124 + len(plain) - 54, len(ICC), 0)
    return plain[:10] + struct.pack("<L", 14 + 124) + header + plain[54:] + ICC


def _sees_profile(data: bytes) -> bool:
    image = opened(data)
    return data.endswith(ICC) if image.format == "BMP" else image.info.get("icc_profile") == ICC


def _exif(form: str) -> bytes | None:
    return None if form == "bmp" else encode(smooth(), form.upper(), exif=exif(6))


def _sees_exif(data: bytes) -> bool:
    image = opened(data)
    block = image.getexif()
    is_turned = image.size == (24, 32) and block.get(0x0112, 1) == 1
    return is_turned and block.get(0x010F) == "a maker of cameras"


def _xmp(form: str) -> bytes | None:
    if form == "png":
        text = PngImagePlugin.PngInfo()
        text.add_itxt("XML:com.adobe.xmp", XMP.decode())
        return encode(smooth(), "PNG", pnginfo=text)
    if form == "tiff":
        return encode(smooth(), "TIFF", tiffinfo={700: XMP})
    return None if form == "bmp" else encode(smooth(), form.upper(), xmp=XMP)


def _sees_xmp(data: bytes) -> bool:
    return bool(opened(data).info.get("xmp") == XMP)


def _iptc(form: str) -> bytes | None:
    if form == "jpeg":
        return with_segment(encode(smooth(), "JPEG"), 0xED, b"Photoshop 3.0\0" + irb(0x0404, IPTC))
    return encode(smooth(), "TIFF", tiffinfo={33723: IPTC}) if form == "tiff" else None


def _sees_iptc(data: bytes) -> bool:
    image = opened(data)
    if image.format not in ("JPEG", "TIFF"):
        return False
    found: dict[Any, Any] = IptcImagePlugin.getiptcinfo(image) or {}
    return found.get((2, 120)) == b"a caption"


def _comment(form: str) -> bytes | None:
    if form == "jpeg":
        return encode(smooth(), "JPEG", comment=WORDS.encode())
    if form == "tiff":
        return encode(smooth(), "TIFF", tiffinfo={270: WORDS})
    return _text("Comment") if form == "png" else None


def _text(key: str) -> bytes:
    text = PngImagePlugin.PngInfo()
    text.add_text(key, WORDS)
    return encode(smooth(), "PNG", pnginfo=text)


def _sees_words(data: bytes) -> bool:
    image = opened(data)
    values = [*image.info.values(), *getattr(image, "tag_v2", {}).values(), *image.getexif().values()]
    values += [value[0] for value in values if isinstance(value, tuple) and value]
    words = {
        value.decode("latin-1") if isinstance(value, bytes) else value
        for value in values
        if isinstance(value, str | bytes)
    }
    return any(word.endswith(WORDS) for word in words)


def _colour_chunk(kind: bytes, body: bytes) -> Draw:
    return lambda form: with_chunk(encode(smooth(), "PNG"), kind, body) if form == "png" else None


def _mode(mode: str, formats: tuple[str, ...]) -> Draw:
    def draw(form: str) -> bytes | None:
        if form not in formats:
            return None
        image = smooth(mode)
        options = {"lossless": True, "exact": True} if form == "webp" else {}
        return encode(image, form.upper(), **options)

    return draw


def _transparent(form: str) -> bytes | None:
    if form not in ("png", "tiff", "webp"):
        return None
    image = smooth("RGBA")
    image.putalpha(smooth("L"))
    return encode(image, form.upper(), **({"lossless": True, "exact": True} if form == "webp" else {}))


def _sees_transparency(data: bytes) -> bool:
    image = opened(data)
    return image.mode == "RGBA" and bool((np.asarray(image)[..., -1] == np.asarray(smooth("L"))).all())


def _deep(form: str) -> bytes | None:
    levels = np.asarray(smooth()).astype(np.uint16) * 257 + np.uint16(5)
    if form == "png":
        return bytes(imagecodecs.png_encode(levels))
    return bytes(imagecodecs.tiff_encode(levels)) if form == "tiff" else None


def _sees_deep(data: bytes) -> bool:
    decoded = {b"\x89P": imagecodecs.png_decode, b"II": imagecodecs.tiff_decode}.get(data[:2])
    return decoded is not None and bool(decoded(data).dtype == np.uint16)


GAMMA = struct.pack(">L", 100_000)
ITEMS = (
    Item("resolution", _resolution, _sees_resolution, ("resolution",)),
    Item("colour profile", _profile, _sees_profile, ("ICC profile",)),
    Item("EXIF, made upright", _exif, _sees_exif, ("EXIF",)),
    Item("XMP", _xmp, _sees_xmp, ("XMP",)),
    Item("IPTC", _iptc, _sees_iptc, ("IPTC",)),
    Item("comment, description", _comment, _sees_words, ("comment", "text Comment", "EXIF")),
    Item(
        "text (PNG)", lambda form: _text("Author") if form == "png" else None, _sees_words, ("text Author",)
    ),
    Item(
        "text of another key",
        lambda form: _text("Lens") if form == "png" else None,
        _sees_words,
        ("text Lens",),
    ),
    Item(
        "gamma (gAMA)",
        _colour_chunk(b"gAMA", GAMMA),
        lambda data: opened(data).info.get("gamma") == 1.0,
        ("gAMA",),
    ),
    Item(
        "primaries (cHRM)",
        _colour_chunk(b"cHRM", struct.pack(">8L", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)),
        lambda data: b"cHRM" in data,
        ("cHRM",),
    ),
    Item(
        "code points (cICP)",
        _colour_chunk(b"cICP", b"\x0c\x0d\x00\x01"),
        lambda data: b"cICP\x0c\x0d\x00\x01" in data,
        ("cICP",),
    ),
    Item(
        "time (tIME)",
        _colour_chunk(b"tIME", struct.pack(">H5B", 2026, 1, 2, 3, 4, 5)),
        lambda data: b"tIME" in data,
        ("tIME",),
    ),
    Item("palette", _mode("P", ("png", "tiff", "bmp")), lambda data: opened(data).mode == "P", ("palette",)),
    Item("1 bit", _mode("1", ("png", "tiff", "bmp")), lambda data: opened(data).mode == "1", ("1 bit",)),
    Item(
        "gray", _mode("L", ("jpeg", "png", "tiff", "bmp")), lambda data: opened(data).mode == "L", ("gray",)
    ),
    Item("16 bits", _deep, _sees_deep, ("16 bits",)),
    Item("transparency", _transparent, _sees_transparency, ("transparency",)),
)


def outcome(item: Item, source: str, target: str) -> str:
    """What becomes of an item of a format that is written as another: "kept", "named", "lost" without a word;
    "" if the format has no place for it."""
    data = item.draw(source)
    if data is None:
        return ""
    made = write_photo(read_photo(data, ReadLimits()), WriteSettings.model_validate({"format": target}))
    if item.see(made.data):
        return "kept"
    return "named" if set(made.not_kept) & set(item.known_as) else "lost"
