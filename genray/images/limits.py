"""Limits on the memory and time that one image file can take.

A file of a few kilobytes can require gigabytes or minutes. Its cost is estimated before decoding, because a
running native decoder cannot be stopped from outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from genray.io.bad_input import BadImage
from genray.settings.base import Settings

_SCAN_NS_PER_PIXEL = 2.0
"""Estimated time of one JPEG scan per pixel of the image, in ns. Nearly empty scans took 0.6 to 1.2."""


class ReadLimits(Settings):
    """Settings of the reading of image files: limits, damage and pages.

    A file above one of the first four limits is set aside before decoding.
    """

    max_pixels: int = Field(
        100_000_000,
        ge=1,
        description="most pixels of an image; a larger one is refused before decoding (decompression bombs)",
    )
    max_bytes: int = Field(256 * 2**20, ge=1, description="most bytes of a file; a larger one is refused")
    max_scans: int = Field(
        500,
        ge=1,
        description="most scans of a JPEG (1 to 12 are usual); a file with more is refused: each scan is "
        "a pass over all pixels",
    )
    max_seconds: float = Field(
        30.0,
        gt=0,
        description="longest decoding time, s; a JPEG of several scans with a longer estimate is refused, "
        "and any image that took longer is noted in the ledger",
    )
    max_text_bytes: int = Field(
        4 * 2**20,
        ge=0,
        description="most bytes of a decompressed colour profile or EXIF block; a larger one is left out "
        "with a note, and the pixels are read",
    )
    damaged: Literal["salvage", "refuse"] = Field(
        "salvage",
        description="treatment of damage that costs no pixel, such as a missing end marker (salvage: read "
        "the image and note the damage; refuse: set the file aside)",
    )

    pages: Literal["all", "first"] = Field(
        "all",
        description="pages of a file with several pages or frames (all: every page of a TIFF, and a file "
        "whose pages cannot all be used is set aside; first: only the first, and a note counts the others)",
    )

    def further_frames(self, count: int) -> tuple[str, ...]:
        """Return the name of what is left out of an animation of `count` frames, of which the first is read.

        Raises:
            BadImage: `unsupported`, unless `pages` is "first".
        """
        if count <= 1:
            return ()
        if self.pages == "all":
            raise BadImage("unsupported", f"an animation of {count} frames; pages=first reads the first")
        return (f"frames after the first: {count - 1}",)

    def check_damage(self, salvaged: Sequence[str]) -> None:
        """Refuse a file with damage, even if all pixels are there, unless `damaged` allows it.

        Raises:
            BadImage: `truncated`.
        """
        if salvaged and self.damaged == "refuse":
            raise BadImage("truncated", f"{'; '.join(salvaged)}: no pixel is lost (damaged=salvage reads it)")

    def check_bytes(self, count: int) -> None:
        """Refuse a file with more than `max_bytes` bytes.

        Raises:
            BadImage: `too-large`.
        """
        if count > self.max_bytes:
            raise BadImage("too-large", f"{count} bytes, the limit is {self.max_bytes} (max_bytes)")

    def check_pixels(self, width: int, height: int) -> None:
        """Refuse an image with more than `max_pixels` pixels.

        Raises:
            BadImage: `too-large`.
        """
        if width * height > self.max_pixels:
            raise BadImage(
                "too-large",
                f"{width}x{height} pixels, the limit is {self.max_pixels} (max_pixels)",
            )

    def allow_scans(self, scans: int, pixels: int) -> bool:
        """Return whether a JPEG with this number of scans and pixels is within the limits."""
        return scans <= self.max_scans and _scan_seconds(scans, pixels) <= self.max_seconds

    def check_scans(self, scans: int, pixels: int) -> None:
        """Refuse a JPEG whose number of scans, or their estimated time, is above the limit.

        Raises:
            BadImage: `too-much-work`.
        """
        if scans > self.max_scans:
            raise BadImage("too-much-work", f"{scans} scans, the limit is {self.max_scans} (max_scans)")
        seconds = _scan_seconds(scans, pixels)
        if seconds > self.max_seconds:
            raise BadImage(
                "too-much-work",
                f"{scans} scans of {pixels} pixels, about {seconds:.3g} s, the limit is "
                f"{self.max_seconds:g} s (max_seconds)",
            )


def _scan_seconds(scans: int, pixels: int) -> float:
    return scans * pixels * _SCAN_NS_PER_PIXEL * 1e-9
