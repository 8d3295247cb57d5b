"""Writer of photos: encodes pixels, and puts in what else the input carries."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from genray.images.carried.items import Carried, Density, names_of, resource_name, text_name
from genray.images.carried.jpeg import put_segments
from genray.images.carried.png import leave_out_colours, put_chunks
from genray.images.carried.tags import (
    ByteOrder,
    Entries,
    Tag,
    TagDirectory,
    TagValue,
    encode_block,
    encode_directory,
    join_pages,
    with_size,
)
from genray.images.carried.tiff import PIXEL_TAGS, item_tags, read_density, resolution_tags
from genray.images.carried.webp import with_alpha_flag
from genray.images.carried.xmp import sized_packet, without_thumbnails
from genray.images.encoders.bmp import encode_bmp
from genray.images.encoders.indexed import Indexed, with_few_bits, with_palette
from genray.images.encoders.jpeg import encode_jpeg
from genray.images.encoders.png import encode_indexed_png, encode_png
from genray.images.image_file import FilePixels, to_srgb
from genray.images.photo import Photo, to_eight_bits
from genray.io.bad_input import BadImage
from genray.io.kinds import KINDS, kind_of_name
from genray.settings.base import Settings

# The limits of libjpeg and libpng, and those of the header fields of WebP, TIFF and BMP.
_LONGEST_SIDE = {"jpeg": 65500, "webp": 16383, "png": 1_000_000, "tiff": 2**31 - 1, "bmp": 2**31 - 1}
_INSTEAD: Literal["png"] = "png"  # of formats that are read, but not written
_STRIP_BYTES = 2**18
_SHORT, _LONG = 3, 4  # types of TIFF tags
_RESOLUTION_TAGS = (282, 283, 296)
_EIGHT_BITS_ONLY = ("jpeg", "webp", "bmp")


class WriteSettings(Settings):
    """Settings of the image files that are written."""

    format: Literal["same", "jpeg", "png", "webp", "tiff", "bmp"] = Field(
        "same",
        description="format of the outputs (same: the format of the input; PNG for AVIF, GIF, HEIF, JPEG "
        "2000 and JPEG XL, which are not written)",
    )
    quality: int | None = Field(
        None,
        ge=1,
        le=100,
        description="quality of JPEG and WebP, 1 to 100 (null: the quality of a JPEG input, within 75 to 98; "
        "90 for other inputs)",
    )
    lossless: bool | None = Field(
        None, description="write lossless WebP (null: only if the input is a lossless WebP)"
    )
    png_level: int = Field(
        1, ge=0, le=9, description="compression level of PNG, 0 (none) to 9 (smallest); 1 is fast"
    )
    keep_icc: bool = Field(
        True, description="keep the input's colour profile, and what a PNG says of its colours"
    )
    keep_exif: bool = Field(
        True,
        description="keep what the input says in words: EXIF, XMP, IPTC, comments and texts (camera, date, "
        "place, people)",
    )


@dataclass(frozen=True)
class WrittenPhoto:
    """An encoded photo.

    Args:
        data: the file.
        not_kept: names of what the input carries and the file does not, such as "XMP".
    """

    data: bytes
    not_kept: tuple[str, ...]


def output_path(path: str, settings: WriteSettings) -> str:
    """Return the path of the output for that of an input: the same stem with the suffix of the format.

    The path stays as it is if its suffix fits the format, or the format is "same" and written. A suffix that
    is not of an image format counts as part of the stem.
    """
    kind = kind_of_name(path)
    form = settings.format
    if form == "same" and kind is not None and kind.is_read and not kind.is_written:
        form = _INSTEAD
    if form == "same" or (kind is not None and kind.name == form):
        return path
    stem = path.rpartition(".")[0] if kind is not None and kind.is_read else path
    return stem + KINDS[form].suffixes[0]


def output_format(photo: Photo, settings: WriteSettings, path: str = "") -> str:
    """Return the format that `write_photo` writes.

    It is `settings.format`; for "same" the format of the photo, whatever the suffix of `path`; for a photo
    that was in no file the format of the suffix; and PNG where these are not written.
    """
    if settings.format != "same":
        return settings.format
    kind = kind_of_name(path)
    form = photo.format or (kind.name if kind is not None else _INSTEAD)
    return form if form in _LONGEST_SIDE else _INSTEAD


def is_same_file(before: Photo, after: Photo, settings: WriteSettings, path: str = "") -> bool:
    """Return whether the input's own bytes are the output: nothing is changed, and nothing to be left out.

    Args:
        before: the photo that was read.
        after: the photo to write.
        settings: format and quality.
        path: path of the output, see `output_format`.
    """
    if (after.icc, after.exif, after.format) != (before.icc, before.exif, before.format):
        return False
    if after.carried is not before.carried or output_format(before, settings, path) != before.format:
        return False
    asks_for_less = (before.icc is not None and not settings.keep_icc) or not settings.keep_exif
    asks_for_other = settings.quality is not None or settings.lossless not in (None, before.lossless)
    return (
        not asks_for_less
        and not (asks_for_other and before.format in ("jpeg", "webp"))
        and _are_equal(before.pixels, after.pixels)
        and _are_equal(before.alpha, after.alpha)
        and before.copies == after.copies
        and len(before.pages) == len(after.pages)
        and all(
            is_same_file(one, other, settings, path)
            for one, other in zip(before.pages, after.pages, strict=True)
        )
    )


def write_photo(photo: Photo, settings: WriteSettings, path: str = "") -> WrittenPhoto:
    """Encode a photo in the format that `output_format` returns, with all that its input carries.

    One rule: what the format has a place for is kept, what it has none for is named in `not_kept`. What is
    said of the pixels is made true: orientation and size in EXIF and XMP; thumbnails are removed and named.

    - All pages of a TIFF are written, with reduced copies made again from the pixels; other formats have one.
    - PNG, TIFF (deflate) and BMP keep a palette if the result has at most 256 colours, and 1, 2 or
      4 bits of gray if it has no levels in between. PNG and TIFF keep 16 bits; elsewhere 16-bit values are
      divided by 257 and rounded. A BigTIFF becomes a TIFF.
    - PNG, TIFF, WebP and BMP keep alpha, also if it is opaque everywhere. JPEG has none: what is transparent
      is laid over white.
    - The quality of a JPEG input (within 75 to 98), its quantisation tables and its subsampling are kept;
      other inputs are written as 4:2:0.
    - WebP has no gray: gray is written as RGB, converted to sRGB through a gray profile if there is one.
    - EXIF and ICC profiles are written unchanged, unless a profile describes other colours than the pixels
      have. A TIFF gets copies of the tags of EXIF, which a maker note may not survive.
    - Comments and texts become comments in a JPEG, texts in a PNG, and in a TIFF its tags of description,
      author, copyright and software, where these are free.

    Args:
        photo: what to write.
        settings: format and quality, and what to leave out.
        path: path of the output, see `output_format`.

    Raises:
        BadImage: `unsupported`: several pages, and a format that has one. `too-large`: a side is longer than
            the format allows (65500 pixels in JPEG, 16383 in WebP, 1000000 in PNG).
    """
    if photo.pages or photo.copies:
        return _write_pages(photo, settings, path)
    return _write_page(photo, settings, output_format(photo, settings, path))


def _write_pages(photo: Photo, settings: WriteSettings, path: str) -> WrittenPhoto:
    form = output_format(photo, settings, path)
    if form != "tiff":
        if photo.pages:
            raise BadImage(
                "unsupported",
                f"{1 + len(photo.pages)} pages, but a {KINDS[form].title} has one: set write.format=tiff, or "
                "read.pages=first to write the first",
            )
        written = _write_page(replace(photo, copies=()), settings, form)
        return WrittenPhoto(written.data, names_of([*written.not_kept, "reduced copies"]))
    files = []
    for page in (photo, *photo.pages):
        files.append(_write_page(page, settings, form))
        for size in page.copies:
            files.append(_write_page(reduced_copy(page, size), settings, form, is_copy=True))
    try:
        data = join_pages([file.data for file in files])
    except ValueError as error:
        raise BadImage("too-large", f"{error}: no TIFF can hold them") from error
    return WrittenPhoto(data, names_of([name for file in files for name in file.not_kept]))


def reduced_copy(photo: Photo, size: tuple[int, int]) -> Photo:
    """Return a photo made smaller, to (width, height), by averaging, without what else it carries."""
    pixels = np.dstack(
        [_resized(photo.pixels[..., channel], size) for channel in range(photo.pixels.shape[2])]
    )
    alpha = None if photo.alpha is None else _resized(photo.alpha, size)
    return Photo(pixels, alpha, photo.format, photo.icc)


def _resized(plane: FilePixels, size: tuple[int, int]) -> FilePixels:
    image = Image.fromarray(plane.astype(np.float32)).resize(size, Image.Resampling.BOX)
    levels: FilePixels = np.rint(np.asarray(image)).astype(plane.dtype)
    return levels


def _write_page(photo: Photo, settings: WriteSettings, form: str, *, is_copy: bool = False) -> WrittenPhoto:
    height, width, channels = photo.pixels.shape
    if max(height, width) > _LONGEST_SIDE[form]:
        raise BadImage(
            "too-large",
            f"{width}x{height} pixels: a {KINDS[form].title} has at most {_LONGEST_SIDE[form]} on a side; "
            "write.format=tiff has room for it",
        )
    left_out = list(photo.carried.left_out)
    icc = photo.icc if settings.keep_icc else None
    if icc is not None and icc[16:20] not in ((b"GRAY", b"RGB ") if channels == 1 else (b"RGB ",)):
        left_out.append("ICC profile")
        icc = None
    exif = with_size(photo.exif, width, height) if settings.keep_exif and photo.exif is not None else None
    carried = _carried_for(photo, settings, form, exif, left_out)
    if photo.depth == 16 and form in _EIGHT_BITS_ONLY:
        left_out.append("16 bits")
    data = _ENCODERS[form](_Job(photo, settings, icc, exif, carried, left_out, is_copy))
    return WrittenPhoto(data, names_of(left_out))


def item_names(photo: Photo) -> tuple[str, ...]:
    """Return the names of all that a photo carries beside its pixels."""
    carried = photo.carried
    names = [
        name
        for name, item in (
            ("ICC profile", photo.icc),
            ("EXIF", photo.exif),
            ("transparency", photo.alpha),
            ("resolution", carried.density),
            ("XMP", carried.xmp),
        )
        if item is not None
    ]
    names += [resource_name(resource) for resource in carried.resources]
    names += [text_name(text) for text in carried.texts]
    leave_out_colours(carried.colours, names)
    names += [chunk.kind.decode("latin-1") for chunk in carried.chunks]
    return names_of([*carried.left_out, *names])


@dataclass(frozen=True)
class _Job:
    """A photo to encode, and what of its items is to be written; `left_out` takes the names of the rest.
    `is_copy` marks a reduced copy of a page of a TIFF."""

    photo: Photo
    settings: WriteSettings
    icc: bytes | None
    exif: bytes | None
    carried: Carried
    left_out: list[str]
    is_copy: bool

    def planes(self) -> FilePixels:
        """Return the pixels, (H, W, 1 to 4), with alpha last."""
        photo = self.photo
        planes = photo.pixels if photo.alpha is None else np.dstack([photo.pixels, photo.alpha])
        return np.ascontiguousarray(planes)

    def quality(self) -> int:
        """Return the quality of JPEG and WebP."""
        if self.settings.quality is not None:
            return self.settings.quality
        known = self.photo.quality
        return min(max(known, 75), 98) if known is not None else 90

    def indexed(self, planes: FilePixels) -> Indexed | None:
        """Return `planes` with the palette or the few bits of the input, if the pixels still have them."""
        carried = self.carried
        if carried.palette is not None:
            indexed = with_palette(planes, carried.palette)
            if indexed is None:
                self.left_out.append("palette")
            return indexed
        if carried.bits >= 8:
            return None
        indexed = with_few_bits(planes, carried.bits)
        if indexed is None:
            self._leave_out_bits()
        return indexed

    def leave_out_storage(self) -> None:
        """Name a palette or few bits as left out."""
        if self.carried.palette is not None:
            self.left_out.append("palette")
        elif self.carried.bits < 8:
            self._leave_out_bits()

    def leave_out_words(self) -> None:
        """Name resources, texts and chunks as left out."""
        self.left_out.extend(resource_name(resource) for resource in self.carried.resources)
        self.left_out.extend(text_name(text) for text in self.carried.texts)
        leave_out_colours(self.carried.colours, self.left_out)
        self.left_out.extend(chunk.kind.decode("latin-1") for chunk in self.carried.chunks)

    def _leave_out_bits(self) -> None:
        bits = self.carried.bits
        self.left_out.append("1 bit" if bits == 1 else f"{bits} bits")


def _carried_for(
    photo: Photo, settings: WriteSettings, form: str, exif: bytes | None, left_out: list[str]
) -> Carried:
    """Return the items to write: what the settings keep, true of the pixels."""
    carried = photo.carried
    if not settings.keep_icc:
        carried = replace(carried, colours=())
    if not settings.keep_exif:
        carried = replace(carried, xmp=None, more_xmp=(), resources=(), texts=(), chunks=())
    if carried.xmp is not None:
        height, width = photo.pixels.shape[:2]
        try:
            xmp = without_thumbnails(carried.xmp)
            if len(xmp) < len(carried.xmp):
                left_out.append("XMP thumbnail")
            carried = replace(carried, xmp=sized_packet(xmp, width, height))
        except ValueError:
            carried = replace(carried, xmp=None, more_xmp=())
            left_out.append("XMP (in an unknown encoding)")
    if form != photo.format and (carried.density is None or carried.density.unit == "none"):
        carried = replace(carried, density=_exif_density(exif) or carried.density)
    return carried


def _exif_density(exif: bytes | None) -> Density | None:
    """Return the resolution that an EXIF block says."""
    if exif is None:
        return None
    try:
        tags = TagDirectory.parse(exif, whole=False)
        return read_density({tag: tags.raw(tag) for tag in _RESOLUTION_TAGS if tag in tags}, tags.order)
    except (ValueError, LookupError, struct.error):
        return None


def _are_equal(first: FilePixels | None, second: FilePixels | None) -> bool:
    if first is None or second is None or first is second:
        return first is second
    # Most changed images differ in their first rows: the rest is not compared then.
    same_kind = first.dtype == second.dtype and first.shape == second.shape
    return same_kind and np.array_equal(first[:8], second[:8]) and np.array_equal(first, second)


def _encode_jpeg(job: _Job) -> bytes:
    photo = job.photo
    pixels = photo.pixels
    if photo.alpha is not None and photo.alpha.min() < np.iinfo(photo.alpha.dtype).max:
        job.left_out.append("transparency")
        pixels = _over_white(pixels, photo.alpha)
    job.leave_out_storage()
    is_kept = job.settings.quality is None and photo.quality is not None and 75 <= photo.quality <= 98
    data = encode_jpeg(
        to_eight_bits(pixels),
        job.quality(),
        photo.subsampling or "4:2:0",
        photo.carried.tables if is_kept else (),
    )
    return put_segments(data, job.carried, job.exif, job.icc, job.left_out)


def _over_white(pixels: FilePixels, alpha: FilePixels) -> FilePixels:
    top = np.uint32(np.iinfo(pixels.dtype).max)
    share = alpha[..., None].astype(np.uint32)
    return ((pixels * share + top * (top - share) + top // 2) // top).astype(pixels.dtype)


def _encode_webp(job: _Job) -> bytes:
    pixels = to_eight_bits(job.photo.pixels)
    icc = job.icc
    if pixels.shape[2] == 1:
        gray_profile = icc if icc is not None and icc[16:20] == b"GRAY" else None
        pixels = np.asarray(to_srgb(Image.fromarray(pixels[..., 0]), gray_profile))
        icc = None if gray_profile is not None else icc
        job.left_out.append("gray")
    if job.photo.alpha is not None:
        pixels = np.dstack([pixels, to_eight_bits(job.photo.alpha)])
    lossless = job.photo.lossless if job.settings.lossless is None else job.settings.lossless
    # Effort (method) against the usual 4: lossless, 1 takes a third of the time for the same size; lossy, 2
    # takes half the time and loses 0.1 dB.
    options: dict[str, Any] = {"quality": job.quality(), "method": 2}
    if lossless:
        options = {"lossless": True, "method": 1, "quality": 0, "exact": True}
    exif = job.exif
    if job.carried.density is not None and _exif_density(exif) is None:
        if exif is None:  # EXIF is the one place for it
            tags = resolution_tags(job.carried.density, "<")
            exif = encode_block("<", {tag: TagValue(*value) for tag, value in tags.items()})
        else:
            job.left_out.append("resolution")
    job.leave_out_storage()
    job.leave_out_words()
    if job.carried.more_xmp:
        job.left_out.append("extended XMP")
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(
        buffer, "WEBP", **options, icc_profile=icc or b"", exif=exif or b"", xmp=job.carried.xmp or b""
    )
    data = buffer.getvalue()
    return data if job.photo.alpha is None else with_alpha_flag(data)


def _encode_png(job: _Job) -> bytes:
    planes = job.planes()
    indexed = job.indexed(planes)
    level = job.settings.png_level
    data = encode_png(planes, level) if indexed is None else encode_indexed_png(indexed, level)
    return put_chunks(data, job.carried, job.exif, job.icc, job.photo.layout, job.left_out)


def _encode_bmp(job: _Job) -> bytes:
    planes = to_eight_bits(job.planes())
    # Gray of 2 or 4 bits would be read as colours.
    can_be_indexed = planes.shape[2] in (1, 3) and (job.carried.palette is not None or job.carried.bits == 1)
    indexed = job.indexed(planes) if can_be_indexed else None
    if not can_be_indexed:
        job.leave_out_storage()
    if planes.shape[2] == 2:
        job.left_out.append("gray")
    job.leave_out_words()
    for name, item in (("EXIF", job.exif), ("XMP", job.carried.xmp)):
        if item is not None:
            job.left_out.append(name)
    density = job.carried.density
    per_metre = None
    if density is not None and density.unit != "none":
        across, down = density.per("metre")
        per_metre = (round(across), round(down))
    return encode_bmp(planes if indexed is None else indexed, job.icc, per_metre)


def _encode_tiff(job: _Job) -> bytes:
    order: ByteOrder = "<"
    entries: Entries = {}
    if job.exif is not None:
        try:
            tags = TagDirectory.parse(job.exif)
            entries = tags.entries(len(job.exif), tags.places.keys() - PIXEL_TAGS)
            order = tags.order  # the values are copied unchanged, so the file takes their byte order
        except (ValueError, LookupError, struct.error):
            job.left_out.append("EXIF")
    items = item_tags(job.carried, entries, order, job.left_out)
    for tag, item in items.items():
        if tag not in entries or job.photo.format != "tiff":  # a TIFF's own resolution stays as it is
            entries[tag] = TagValue(*item)

    def put(tag: int, kind: int, *numbers: int) -> None:
        packed = struct.pack(f"{order}{len(numbers)}{'H' if kind == _SHORT else 'L'}", *numbers)
        entries[tag] = TagValue(kind, len(numbers), packed)

    planes = job.planes()
    indexed = job.indexed(planes) if planes.shape[2] != 4 else None
    if planes.shape[2] == 4:
        job.leave_out_storage()
    height, width, samples = planes.shape
    if job.is_copy:
        put(Tag.SUBFILE, _LONG, 1)
    if indexed is not None:
        samples = 1
        colours = indexed.palette
        if colours is not None:
            indexed = replace(indexed, bits=8)  # not every reader knows palettes of fewer
        rows: FilePixels = indexed.rows()
        put(Tag.BITS, _SHORT, indexed.bits)
        put(Tag.PHOTOMETRIC, _SHORT, 1 if colours is None else 3)
        if colours is not None:
            table = np.zeros((2**indexed.bits, 3), np.uint16)
            table[: len(colours)] = colours[:, :3].astype(np.uint16) * 257
            put(Tag.PALETTE, _SHORT, *table.T.ravel().tolist())
    else:
        rows = _differences(planes, order)
        put(Tag.BITS, _SHORT, *[8 * planes.itemsize] * samples)
        put(Tag.PHOTOMETRIC, _SHORT, 2 if samples >= 3 else 1)
        put(Tag.PREDICTOR, _SHORT, 2)
    strip_rows = max(1, _STRIP_BYTES // (rows.nbytes // height))
    strips = _strips(rows, strip_rows)
    lengths = [len(strip) + len(strip) % 2 for strip in strips]
    put(Tag.WIDTH, _LONG, width)
    put(Tag.HEIGHT, _LONG, height)
    put(Tag.COMPRESSION, _SHORT, 8)  # deflate
    put(Tag.SAMPLES, _SHORT, samples)
    put(Tag.STRIP_ROWS, _LONG, strip_rows)
    put(Tag.STRIP_BYTES, _LONG, *map(len, strips))
    if samples in (2, 4):
        put(Tag.EXTRA_SAMPLES, _SHORT, 2)
    if job.icc is not None:
        entries[Tag.ICC] = TagValue(7, len(job.icc), job.icc)
    put(Tag.STRIP_OFFSETS, _LONG, *lengths)  # placeholders of the right size
    at = 8 + len(encode_directory(order, entries, 8))
    at += at % 2
    put(Tag.STRIP_OFFSETS, _LONG, *(at + sum(lengths[:index]) for index in range(len(lengths))))
    header = struct.pack(order + "2sHL", b"II" if order == "<" else b"MM", 42, 8)
    header += encode_directory(order, entries, 8)
    body = (strip.ljust(length, b"\0") for strip, length in zip(strips, lengths, strict=True))
    return header.ljust(at, b"\0") + b"".join(body)


def _differences(planes: FilePixels, order: ByteOrder) -> FilePixels:
    """Return each pixel minus its left neighbour (TIFF 6.0, section 14)."""
    residues = planes.copy()
    residues[:, 1:] -= planes[:, :-1]
    return residues.astype(residues.dtype.newbyteorder(order), copy=False)


def _strips(rows: NDArray[Any], count: int) -> Sequence[bytes]:
    """Deflate rows, `count` at a time."""
    tops = range(0, len(rows), count)
    return [bytes(imagecodecs.deflate_encode(rows[top : top + count].tobytes(), 1)) for top in tops]


_ENCODERS = {
    "jpeg": _encode_jpeg,
    "png": _encode_png,
    "webp": _encode_webp,
    "tiff": _encode_tiff,
    "bmp": _encode_bmp,
}
