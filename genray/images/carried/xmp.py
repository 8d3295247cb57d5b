"""XMP packets (ISO 16684-1): what they say of the pixels is made true."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

_TIFF = rb"http://ns.adobe.com/tiff/1.0/"
_EXIF = rb"http://ns.adobe.com/exif/1.0/"
_XAP = rb"http://ns.adobe.com/xap/1.0/"
_MOST_PREFIXES = 4
_ENCODINGS = {b"\xfe\xff": "utf-16", b"\xff\xfe": "utf-16", b"\0<": "utf-16-be", b"<\0": "utf-16-le"}


def upright_packet(packet: bytes) -> bytes:
    """Return the packet of an image that was turned by its orientation: with orientation 1.

    Raises:
        ValueError: it is in an encoding that cannot be read.
    """
    return _edited(packet, lambda text: _with_numbers(text, _TIFF, {b"Orientation": 1}))


def sized_packet(packet: bytes, width: int, height: int) -> bytes:
    """Return a packet that says this size, in pixels, where it says one.

    The numbers are replaced where they stand, as attributes or elements; everything else stays as it is.

    Raises:
        ValueError: it is in an encoding that cannot be read.
    """

    def edit(text: bytes) -> bytes:
        text = _with_numbers(text, _TIFF, {b"ImageWidth": width, b"ImageLength": height})
        return _with_numbers(text, _EXIF, {b"PixelXDimension": width, b"PixelYDimension": height})

    return _edited(packet, edit)


def without_thumbnails(packet: bytes) -> bytes:
    """Return a packet without its thumbnails, which show the previous pixels.

    Raises:
        ValueError: it is in an encoding that cannot be read.
    """
    return _edited(packet, _cut_thumbnails)


def _edited(packet: bytes, edit: Callable[[bytes], bytes]) -> bytes:
    """Edit a packet as UTF-8."""
    encoding = _ENCODINGS.get(packet[:2])
    return (
        edit(packet) if encoding is None else edit(packet.decode(encoding).encode()).decode().encode(encoding)
    )


def _cut_thumbnails(packet: bytes) -> bytes:
    for prefix in _prefixes(packet, _XAP):
        start = packet.find(b"<" + prefix + b":Thumbnails>")
        mark = b"</" + prefix + b":Thumbnails>"
        end = packet.find(mark, start)
        if 0 <= start < end:
            packet = packet[:start] + packet[end + len(mark) :]
    return packet


def _prefixes(packet: bytes, namespace: bytes) -> set[bytes]:
    """Return the prefixes that a packet declares for a namespace, at most four: usual packets have one."""
    declared = rb"xmlns:([\w.-]{1,40})\s{0,9}=\s{0,9}[\"']" + re.escape(namespace) + rb"[\"']"
    prefixes: set[bytes] = set()
    for found in re.finditer(declared, packet):
        prefixes.add(found[1])
        if len(prefixes) == _MOST_PREFIXES:
            break
    return prefixes


def _with_numbers(packet: bytes, namespace: bytes, numbers: Mapping[bytes, int]) -> bytes:
    for prefix in _prefixes(packet, namespace):
        for name, number in numbers.items():
            packet = _with_number(packet, prefix + b":" + name, b"%d" % number)
    return packet


def _with_number(packet: bytes, name: bytes, number: bytes) -> bytes:
    # Bounded repeats, so that no packet makes the search slow.
    if name not in packet:
        return packet
    attribute = rb"(\s" + re.escape(name) + rb"\s{0,9}=\s{0,9}[\"'])\s{0,9}\d{1,9}\s{0,9}(?=[\"'])"
    element = rb"(<" + re.escape(name) + rb"(?:\s[^<>]{0,200})?>)\s{0,9}\d{1,9}\s{0,9}(?=</)"
    packet = re.sub(attribute, rb"\g<1>" + number, packet)
    return re.sub(element, rb"\g<1>" + number, packet)
