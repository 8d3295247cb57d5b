"""Limits on the work that one image file can cause.

A file of some kilobytes can ask for gigabytes or minutes. What it asks for is estimated before anything is
decoded, because a native decoder that has begun cannot be stopped from outside.
"""

from __future__ import annotations

from pydantic import Field

from genray.io.bad_input import BadImage
from genray.settings.base import Settings

_SCAN_NS_PER_PIXEL = 2.0
"""Of a JPEG, time that a scan takes for each pixel even if it says little: 0.6 to 1.2 measured."""


class ReadLimits(Settings):
    """Limits of what is read. A file beyond one of the first four is set aside by name, undecoded."""

    max_pixels: int = Field(
        100_000_000,
        ge=1,
        description="pixels above which an image is refused before it is decoded (decompression bombs)",
    )
    max_bytes: int = Field(256 * 2**20, ge=1, description="bytes above which a file is refused")
    max_scans: int = Field(
        500,
        ge=1,
        description="scans above which a JPEG is refused; each is a pass over all pixels, and 1 to 12 are "
        "usual",
    )
    max_seconds: float = Field(
        30.0,
        gt=0,
        description="seconds of decoding, by an estimate, above which a JPEG of several scans is refused; an "
        "image that took longer is noted in the ledger",
    )
    max_text_bytes: int = Field(
        4 * 2**20,
        ge=0,
        description="bytes above which an unpacked colour profile or EXIF is left out, with a note; the "
        "pixels "
        "are read",
    )

    def check_bytes(self, count: int) -> None:
        """Refuse a file of so many bytes if that is too much.

        Raises:
            BadImage: `too-large`.
        """
        if count > self.max_bytes:
            raise BadImage("too-large", f"{count} bytes, the limit is {self.max_bytes}")

    def check_pixels(self, width: int, height: int) -> None:
        """Refuse an image of this size if that is too much.

        Raises:
            BadImage: `too-large`.
        """
        if width * height > self.max_pixels:
            raise BadImage("too-large", f"{width}x{height} pixels, the limit is {self.max_pixels}")

    def allow_scans(self, scans: int, pixels: int) -> bool:
        """Whether a JPEG of so many scans and pixels is within the limits."""
        return scans <= self.max_scans and _scan_seconds(scans, pixels) <= self.max_seconds

    def check_scans(self, scans: int, pixels: int) -> None:
        """Refuse a JPEG of so many scans and pixels if that is too much.

        Raises:
            BadImage: `too-much-work`.
        """
        if scans > self.max_scans:
            raise BadImage("too-much-work", f"{scans} scans, the limit is {self.max_scans}")
        seconds = _scan_seconds(scans, pixels)
        if seconds > self.max_seconds:
            raise BadImage(
                "too-much-work",
                f"{scans} scans of {pixels} pixels, about {seconds:.3g} s, the limit is {self.max_seconds:g}",
            )


def _scan_seconds(scans: int, pixels: int) -> float:
    return scans * pixels * _SCAN_NS_PER_PIXEL * 1e-9
