"""Items in the tags of a TIFF (TIFF 6.0; XMP, part 3): read, and written again."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Literal, NamedTuple

from genray.images.carried.items import (
    IPTC,
    Carried,
    Density,
    ItemCollector,
    MetadataChunk,
    Resource,
    Unit,
    collect_resources,
    density_of,
    plain_text,
    resource_bytes,
    text_name,
)
from genray.images.carried.png import leave_out_colours

X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 282, 283, 296
_XMP, _IPTC, _RESOURCES = 700, 33723, 34377
ITEM_TAGS = (_XMP, _IPTC, _RESOURCES, X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT)
"""Tags whose values `read_tags` takes."""
_BYTE, _ASCII, _SHORT, _RATIONAL, _UNDEFINED = 1, 2, 3, 5, 7  # types
_UNITS: dict[int, Unit] = {1: "none", 2: "inch", 3: "cm"}
_MOST_RATIONAL = 2**32 - 1
# Tags of TIFF for what the texts of a PNG say, by their key; that of a comment is "".
_DESCRIPTION = 270
_TEXT_TAGS = dict.fromkeys(("", "Comment", "Description", "Title"), _DESCRIPTION)
_TEXT_TAGS |= {"Software": 305, "Author": 315, "Copyright": 33432}
PIXEL_TAGS = frozenset(
    (*range(254, 267), 273, 274, *range(277, 282), 284, 288, 289, 292, 293, 317, 320, *range(322, 326))
) | frozenset((338, 339, 340, 341, 347, *range(512, 522), *range(529, 533), 559, 34675))
"""Tags that say how pixels are stored and what their values mean, and the tag of the colour profile."""


class RawTag(NamedTuple):
    """Type, number of values, and the values of a tag."""

    kind: int
    length: int
    value: bytes


def read_tags(
    values: Mapping[int, bytes], others: Iterable[int], order: Literal["<", ">"], collector: ItemCollector
) -> Carried:
    """Read the items of a TIFF.

    Args:
        values: values of `ITEM_TAGS`, as far as they are there.
        others: tags that are read neither here nor for EXIF.
        order: byte order.
        collector: takes the names of what is left out.
    """
    xmp = values.get(_XMP)
    if xmp is not None and not collector.admits("XMP", xmp):
        xmp = None
    packed = values.get(_RESOURCES)
    resources: tuple[Resource, ...] = ()
    if packed is not None and collector.admits("Photoshop resources", packed):
        resources = collect_resources(packed, collector)
    iptc = values.get(_IPTC)
    is_new = all(resource.number != IPTC for resource in resources)
    if iptc is not None and is_new and collector.admits("IPTC", iptc):
        resources = (*resources, Resource(b"8BIM", IPTC, b"", iptc))
    for tag in others:
        if tag not in PIXEL_TAGS and tag not in ITEM_TAGS:
            collector.leave_out(f"TIFF tag {tag}")
    return Carried(read_density(values, order), xmp, resources=resources)


def read_density(values: Mapping[int, bytes], order: Literal["<", ">"]) -> Density | None:
    """Read the resolution of a TIFF or EXIF directory from the values of its tags."""
    try:
        across, down = (
            Fraction(*struct.unpack(order + "LL", values[tag])) for tag in (X_RESOLUTION, Y_RESOLUTION)
        )
        (unit,) = struct.unpack_from(order + "H", values.get(RESOLUTION_UNIT, struct.pack(order + "H", 2)))
    except (KeyError, ZeroDivisionError, struct.error):
        return None
    return density_of(across, down, _UNITS[unit]) if unit in _UNITS else None


def resolution_tags(density: Density, order: Literal["<", ">"]) -> dict[int, RawTag]:
    """Return the tags of a resolution for a TIFF or EXIF directory."""
    unit = {"none": 1, "inch": 2, "cm": 3, "metre": 2}[density.unit]
    numbers = (density.across, density.down) if density.unit != "metre" else density.per("inch")
    tags = {RESOLUTION_UNIT: RawTag(_SHORT, 1, struct.pack(order + "H", unit))}
    for tag, number in zip((X_RESOLUTION, Y_RESOLUTION), numbers, strict=True):
        near = number.limit_denominator(10_000)
        packed = struct.pack(order + "LL", min(near.numerator, _MOST_RATIONAL), near.denominator)
        tags[tag] = RawTag(_RATIONAL, 1, packed)
    return tags


def item_tags(
    carried: Carried, taken: Iterable[int], order: Literal["<", ">"], left_out: list[str]
) -> dict[int, RawTag]:
    """Return the tags that hold items.

    Args:
        carried: the items.
        taken: tags that the file has already, from EXIF: their texts stay.
        order: byte order.
        left_out: takes the names of what a TIFF has no place for.
    """
    tags: dict[int, RawTag] = {}
    if carried.xmp is not None:
        tags[_XMP] = RawTag(_BYTE, len(carried.xmp), carried.xmp)
        if carried.more_xmp:
            left_out.append("extended XMP")
    others = []
    for resource in carried.resources:
        if resource.number == IPTC and _IPTC not in tags:
            tags[_IPTC] = RawTag(_UNDEFINED, len(resource.body), resource.body)
        else:
            others.append(resource)
    if others:
        packed = resource_bytes(others)
        tags[_RESOURCES] = RawTag(_BYTE, len(packed), packed)
    if carried.density is not None:
        tags |= resolution_tags(carried.density, order)
    used = set(taken)
    for text in carried.texts:
        tag, words = _text_tag(text)
        if tag is None or tag in used:
            left_out.append(text_name(text))
            continue
        used.add(tag)
        value = words.encode() + b"\0"
        tags[tag] = RawTag(_ASCII, len(value), value)
    leave_out_colours(carried.colours, left_out)
    left_out += [chunk.kind.decode("latin-1") for chunk in carried.chunks]
    return tags


def _text_tag(text: MetadataChunk) -> tuple[int | None, str]:
    try:
        key, words = plain_text(text)
    except ValueError:
        return None, ""
    return _TEXT_TAGS.get(key), words.replace("\0", "")
