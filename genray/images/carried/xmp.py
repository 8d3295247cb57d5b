"""XMP packets (ISO 16684-1): what they say of the pixels is made true."""

from __future__ import annotations

import re
from collections.abc import Mapping

_TIFF = rb"http://ns.adobe.com/tiff/1.0/"
_EXIF = rb"http://ns.adobe.com/exif/1.0/"
_XAP = rb"http://ns.adobe.com/xap/1.0/"
_MOST_PREFIXES = 4
_ENCODINGS = {b"\xfe\xff": "utf-16", b"\xff\xfe": "utf-16", b"\0<": "utf-16-be", b"<\0": "utf-16-le"}


def true_packet(packet: bytes, width: int, height: int) -> tuple[bytes, bool]:
    """Make orientation and dimensions of a packet those of upright pixels, and remove its thumbnails.

    The numbers are replaced where they stand, as attributes or elements; everything else stays as it is.

    Returns:
        The packet, and whether it had a thumbnail.

    Raises:
        ValueError: it is in an encoding that cannot be read.
    """
    encoding = _ENCODINGS.get(packet[:2])
    if encoding is not None:
        made, had_thumbnail = _true_text(packet.decode(encoding).encode(), width, height)
        return (made.decode().encode(encoding) if made else made), had_thumbnail
    return _true_text(packet, width, height)


def _true_text(packet: bytes, width: int, height: int) -> tuple[bytes, bool]:
    wanted: Mapping[bytes, Mapping[bytes, int]] = {
        _TIFF: {b"Orientation": 1, b"ImageWidth": width, b"ImageLength": height},
        _EXIF: {b"PixelXDimension": width, b"PixelYDimension": height},
    }
    for namespace, numbers in wanted.items():
        for prefix in _prefixes(packet, namespace):
            for name, number in numbers.items():
                packet = _with_number(packet, prefix + b":" + name, b"%d" % number)
    had_thumbnail = False
    for prefix in _prefixes(packet, _XAP):
        start = packet.find(b"<" + prefix + b":Thumbnails>")
        mark = b"</" + prefix + b":Thumbnails>"
        end = packet.find(mark, start)
        if 0 <= start < end:
            packet = packet[:start] + packet[end + len(mark) :]
            had_thumbnail = True
    return packet, had_thumbnail


def _prefixes(packet: bytes, namespace: bytes) -> set[bytes]:
    """Return the prefixes that a packet declares for a namespace, at most four: usual packets have one."""
    declared = rb"xmlns:([\w.-]{1,40})\s{0,9}=\s{0,9}[\"']" + re.escape(namespace) + rb"[\"']"
    prefixes: set[bytes] = set()
    for found in re.finditer(declared, packet):
        prefixes.add(found[1])
        if len(prefixes) == _MOST_PREFIXES:
            break
    return prefixes


def _with_number(packet: bytes, name: bytes, number: bytes) -> bytes:
    # Bounded repeats, so that no packet makes the search slow.
    if name not in packet:
        return packet
    attribute = rb"(\s" + re.escape(name) + rb"\s{0,9}=\s{0,9}[\"'])\s{0,9}\d{1,9}\s{0,9}(?=[\"'])"
    element = rb"(<" + re.escape(name) + rb"(?:\s[^<>]{0,200})?>)\s{0,9}\d{1,9}\s{0,9}(?=</)"
    packet = re.sub(attribute, rb"\g<1>" + number, packet)
    return re.sub(element, rb"\g<1>" + number, packet)
