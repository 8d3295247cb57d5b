"""Photos: the pixels of an image file with what else it carries, read together."""

from __future__ import annotations

import io
import struct
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile

from genray.images.arrays import unit_levels
from genray.images.carried.items import Carried, ItemCollector, MetadataChunk, density_of
from genray.images.carried.jpeg import read_segments
from genray.images.carried.png import PngLayout, read_chunks
from genray.images.carried.tags import EXIF_TAGS, Tag, TagDirectory
from genray.images.carried.tiff import ITEM_TAGS, read_tags
from genray.images.carried.webp import read_riff_chunks
from genray.images.carried.xmp import upright_packet
from genray.images.encoders.jpeg import turned_table
from genray.images.formats import decode_file, inspect_file, webp_chunks
from genray.images.headers.jxl import read_header
from genray.images.image_file import FilePixels, ImageFile, Levels, upright
from genray.images.limits import ReadLimits
from genray.images.other_formats import heif_picture, open_avif
from genray.images.png import chunks

_TURNED = {"4:4:4": "4:4:4", "4:2:0": "4:2:0", "4:2:2": "4:4:0", "4:4:0": "4:2:2"}  # of chroma, on its side
_PAGE_NUMBER = 297  # tag of a TIFF, which the order of the pages makes needless


@dataclass(frozen=True)
class PhotoHeader:
    """Header of an image file.

    Args:
        format: see `Photo`.
        width: pixels, after the image is turned upright.
        height: the same.
        channels: 1 (gray), 3 (RGB) or the number of bands, without alpha.
        depth: bits of a value, 8 or 16.
        has_alpha: whether the image can be transparent.
        pages: headers of further pages.
    """

    format: str
    width: int
    height: int
    channels: int
    depth: int
    has_alpha: bool
    pages: tuple[PhotoHeader, ...] = ()

    @property
    def decoded_bytes(self) -> int:
        """Bytes of the decoded pixels of all pages, at most."""
        own = self.width * self.height * max(4, self.channels) * (self.depth // 8)
        return own + sum(page.decoded_bytes for page in self.pages)


@dataclass(frozen=True)
class Photo:
    """Pixels of an image file, and what else the file carries.

    Args:
        pixels: (H, W, C) uint8 or uint16; C is 1 (gray) or 3 (RGB); upright. From `read_photo` they are
            writable and contiguous. Read as levels, they may be float32, and C any number.
        alpha: (H, W) of the same type, transparent where 0 (None: the file has no alpha).
        format: format of the file: "jpeg", "png", "webp", "tiff" or "bmp" ("": the image was in no file).
        icc: ICC colour profile, unchanged.
        exif: EXIF block, from its byte order ("II" or "MM") on: with orientation 1 and without the
            thumbnail, else unchanged. Of a TIFF the tags that EXIF has too.
        quality: quality of a JPEG, 1 to 100: the one whose table in libjpeg is nearest to the file's.
        subsampling: chroma subsampling of a colour JPEG: "4:4:4", "4:2:2", "4:2:0", "4:4:0" or "4:1:1"
            (None: another), as the image is turned.
        lossless: whether the file is a lossless WebP.
        layout: how a PNG stores its pixels (None: another format).
        carried: what else the file carries.
        notes: what is odd in the file, or was left out of the photo, in words for the ledger.
        salvaged: damage of the file that cost no pixel, in words for the ledger.
        copies: sizes (width, height) of reduced copies of a page of a TIFF, which are made again from the
            pixels when it is written.
        pages: further pages of the file.
    """

    pixels: FilePixels
    alpha: FilePixels | None
    format: str
    icc: bytes | None = None
    exif: bytes | None = None
    quality: int | None = None
    subsampling: str | None = None
    lossless: bool = False
    layout: PngLayout | None = None
    carried: Carried = field(default_factory=Carried)
    notes: tuple[str, ...] = ()
    salvaged: tuple[str, ...] = ()
    copies: tuple[tuple[int, int], ...] = ()
    pages: tuple[Photo, ...] = ()

    @property
    def depth(self) -> int:
        """Bits of a pixel's value: 8 or 16."""
        return 8 * self.pixels.dtype.itemsize


@dataclass(frozen=True)
class PhotoFile:
    """Image file whose header was read, and whose pixels can be decoded; see `open`.

    Attributes:
        data: the whole file.
        limits: what to refuse.
        file: its header, as the decoders take it.
    """

    data: bytes
    limits: ReadLimits
    file: ImageFile

    @classmethod
    def open(cls, data: bytes, limits: ReadLimits) -> PhotoFile:
        """Read the header of the file `data`.

        Raises:
            BadImage: see `read_photo`; damage within the pixels is not found.
        """
        return cls(data, limits, inspect_file(data, limits))

    @property
    def header(self) -> PhotoHeader:
        """The header."""
        return _header_of(self.file)

    def decode(self, *, levels: bool = False) -> Photo:
        """Decode the pixels, and read what else the file carries; see `read_photo`."""
        return _photo_of(self.data, self.file, self.limits, levels)


def photo_header(data: bytes, limits: ReadLimits) -> PhotoHeader:
    """Read the header of an image file, without decoding its pixels.

    Args:
        data: the whole file.
        limits: what to refuse.

    Raises:
        BadImage: see `read_photo`; damage within the pixels is not found.
    """
    return PhotoFile.open(data, limits).header


def _header_of(file: ImageFile) -> PhotoHeader:
    width, height = file.upright_size
    pages = tuple(_header_of(page) for page in file.pages)
    return PhotoHeader(file.format, width, height, file.channels, file.depth, file.alpha, pages)


def read_photo(data: bytes, limits: ReadLimits, *, levels: bool = False) -> Photo:
    """Decode a file of any format that is read. The format is found by the content, not by the name.

    Gray stays gray and 16 bits stay 16. Palettes become RGB; fewer than 8 bits become 8, and 9 to 15 bits 16;
    floats from 0 to 1 become 16 bits; L*a*b*, CMYK and YCCK become sRGB, CMYK through its ICC profile if it
    has one, which is then left out. All pages of a TIFF are read. If a JPEG or HEIF holds several pictures,
    the main one is read. A damaged ICC profile or EXIF block is left out, and the pixels are read. The notes
    say why something was left out, and `carried.left_out` names it.

    Args:
        data: the whole file.
        limits: what to refuse, before memory is allocated for it.
        levels: read floats as they are, and any number of channels.

    Raises:
        BadImage: `empty`; `unknown-format`; `too-large`; `too-much-work`; `truncated`: pixels are missing or
            damaged, even if most could be shown; `unsupported`: animations, floats beyond 0 and 1, signed or
            32-bit numbers, JPEGs of 12 bits, more channels than colours and one alpha, and other formats.
    """
    return PhotoFile.open(data, limits).decode(levels=levels)


def _photo_of(data: bytes, file: ImageFile, limits: ReadLimits, levels: bool) -> Photo:
    notes = list(file.notes)
    salvaged = list(file.salvaged)
    began = time.perf_counter()
    pixels = upright(decode_file(data, file, limits, salvaged=salvaged, levels=levels), file.orientation)
    seconds = time.perf_counter() - began
    if seconds > limits.max_seconds:
        notes.append(f"decoding it took {seconds:.3g} s")
    alpha = None
    if pixels.shape[2] in (2, 4) and not file.bands:
        alpha = np.ascontiguousarray(pixels[..., -1])
        pixels = np.ascontiguousarray(pixels[..., :-1])
    icc = file.icc if file.samples < 4 else None
    return Photo(
        cast(FilePixels, pixels),
        cast(FilePixels | None, alpha),
        file.format,
        icc,
        file.exif,
        file.quality,
        file.subsampling if file.orientation < 5 else _TURNED.get(file.subsampling or ""),
        file.lossless,
        PngLayout(data[25], data[24]) if file.format == "png" else None,
        read_carried(data, file, limits),
        tuple(notes),
        tuple(salvaged),
        tuple(file.turned(size) for size in file.copies),
        tuple(_photo_of(data, page, limits, levels) for page in file.pages),
    )


def to_eight_bits(pixels: Levels) -> NDArray[np.uint8]:
    """Convert pixels to uint8: uint16 is divided by 257 and rounded, floats are taken from 0 to 1.

    Raises:
        BadImage: `unsupported`: floats beyond 0 and 1.
    """
    pixels = unit_levels(pixels)
    if pixels.dtype == np.uint8:
        return cast(NDArray[np.uint8], pixels)
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def read_carried(data: bytes, file: ImageFile, limits: ReadLimits) -> Carried:
    """Read what a file carries beside its pixels, colour profile and EXIF.

    Args:
        data: the whole file.
        file: its header.
        limits: `max_text_bytes` is the most that all of it may have together.
    """
    collector = ItemCollector(limits.max_text_bytes, list(file.left_out))
    if file.samples == 4 and not file.bands:
        collector.leave_out("CMYK")
    carried = Carried()
    reader = _READERS.get(file.format)
    if reader is not None:
        try:
            carried = reader(data, file, collector)
            if carried.xmp is not None and file.orientation != 1:
                carried = replace(carried, xmp=upright_packet(carried.xmp))
            if file.orientation >= 5:
                carried = replace(carried, tables=tuple(turned_table(table) for table in carried.tables))
        except (ValueError, LookupError, struct.error, OSError):
            collector.leave_out("metadata (damaged)")
    return replace(carried, left_out=tuple(collector.left_out)) if collector.left_out else carried


def _of_jpeg(data: bytes, file: ImageFile, collector: ItemCollector) -> Carried:
    return read_segments(((marker, body) for _, marker, body in file.segments), collector)


def _of_png(data: bytes, file: ImageFile, collector: ItemCollector) -> Carried:
    whole = []
    colours: dict[bytes, bytes] = {}
    for kind, at, length in chunks(data):
        if kind == b"IDAT":
            continue
        body = data[at : at + length]
        if zlib.crc32(kind + body) != int.from_bytes(data[at + length : at + length + 4]):
            if kind not in (b"iCCP", b"eXIf", b"IEND"):  # which are named where they are read
                collector.leave_out(f"{kind.decode('latin-1')} (damaged)")
        elif kind in (b"PLTE", b"tRNS"):
            colours.setdefault(kind, body)
        else:
            whole.append((kind, body))
    palette = None
    if data[25] == 3:
        palette = np.frombuffer(colours[b"PLTE"], np.uint8).reshape(-1, 3)
        if b"tRNS" in colours:
            alpha = np.frombuffer(colours[b"tRNS"][: len(palette)].ljust(len(palette), b"\xff"), np.uint8)
            palette = np.column_stack([palette, alpha])
    return replace(read_chunks(whole, collector), palette=palette, bits=data[24])


def _of_webp(data: bytes, file: ImageFile, collector: ItemCollector) -> Carried:
    pixels = (b"VP8 ", b"VP8L", b"ALPH", b"ANMF")
    parts = ((kind, data[at : at + length]) for kind, at, length in webp_chunks(data) if kind not in pixels)
    return read_riff_chunks(parts, collector)


def _of_tiff(data: bytes, file: ImageFile, collector: ItemCollector) -> Carried:
    tags = TagDirectory.parse(data, file.page_at)
    values = {}
    for tag in ITEM_TAGS:
        if tag in tags:
            try:
                values[tag] = tags.raw(tag)
            except (ValueError, LookupError):
                collector.leave_out(f"TIFF tag {tag} (damaged)")
    others = (tag for tag in tags.places if tag not in (*EXIF_TAGS, _PAGE_NUMBER))
    bits = tags.number(Tag.BITS, 1)
    palette = None
    if Tag.PALETTE in tags:
        levels = np.array(tags.numbers(Tag.PALETTE)).reshape(3, -1).T
        palette = (levels >> (8 if levels.max() > 255 else 0)).astype(np.uint8)
    return replace(read_tags(values, others, tags.order, collector), palette=palette, bits=bits)


def _of_bmp(data: bytes, file: ImageFile, collector: ItemCollector) -> Carried:
    with BmpImageFile(io.BytesIO(data)) as image:
        mode, palette = image.mode, image.getpalette() if image.mode == "P" else None
    (size,) = struct.unpack_from("<L", data, 14)
    density = None
    if size >= 40:
        across, down = struct.unpack_from("<ll", data, 38)
        density = density_of(across, down, "metre")
    colours = None if palette is None else np.array(palette, np.uint8).reshape(-1, 3)
    return Carried(density, palette=colours, bits=1 if mode == "1" else 8)


def _xmp_of(info: Mapping[Any, Any], collector: ItemCollector) -> bytes | None:
    """Return the XMP packet that Pillow or libheif found."""
    xmp = info.get("xmp")
    return xmp if isinstance(xmp, bytes) and collector.admits("XMP", xmp) else None


def _of_avif(data: bytes, file: ImageFile, collector: ItemCollector) -> Carried:
    with open_avif(data) as image:
        return Carried(xmp=_xmp_of(image.info, collector))


def _of_gif(data: bytes, file: ImageFile, collector: ItemCollector) -> Carried:
    with GifImageFile(io.BytesIO(data)) as image:
        palette = None
        if image.mode == "P":
            colours = np.array(image.getpalette(), np.uint8).reshape(-1, 3)
            alpha = np.full(len(colours), 255, np.uint8)
            alpha[image.info.get("transparency", len(colours)) :][:1] = 0
            palette = np.column_stack([colours, alpha]) if file.alpha else colours
        comment = image.info.get("comment", b"")
        texts = (MetadataChunk(b"COM", comment),) if comment and collector.admits("comment", comment) else ()
        return Carried(xmp=_xmp_of(image.info, collector), texts=texts, palette=palette)


def _of_heif(data: bytes, file: ImageFile, collector: ItemCollector) -> Carried:
    image, _ = heif_picture(data)
    return Carried(xmp=_xmp_of(image.info, collector))


def _of_jxl(data: bytes, file: ImageFile, collector: ItemCollector) -> Carried:
    return Carried(xmp=_xmp_of({"xmp": read_header(data).xmp}, collector))


_READERS: dict[str, Callable[[bytes, ImageFile, ItemCollector], Carried]] = {
    "jpeg": _of_jpeg,
    "png": _of_png,
    "webp": _of_webp,
    "tiff": _of_tiff,
    "bmp": _of_bmp,
    "avif": _of_avif,
    "gif": _of_gif,
    "heif": _of_heif,
    "jxl": _of_jxl,
}
