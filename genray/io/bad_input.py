"""Inputs that cannot be used: each is set aside with a reason, and the run continues."""

from __future__ import annotations

from dataclasses import dataclass

from genray.uris import without_secrets

REASONS = {
    "unreadable": "the file could not be read; check that it still exists and that access is allowed",
    "empty": "the file has no bytes; copy it again from its source",
    "too-large": "more bytes or pixels than the limit; shrink it, or raise the limit that the detail names",
    "too-much-work": "decoding would exceed the limit of scans or seconds; save it again as an ordinary file",
    "unknown-format": "the first bytes are not those of an image; remove or replace the file",
    "unsupported": "the format, or a feature of it, is not read; convert it to PNG or TIFF, 8 or 16 bits",
    "ambiguous": "several columns of the Parquet file contain images; name one of them in the settings",
    "truncated": "the file ends early or its data are damaged; copy it again from its source",
    "odd-shape": "the size differs from the others, or the halves of a pair do not match; crop or remove it",
    "unknown-class": "the label map has a class that the training had not; correct the map, or train with it",
    "unpaired": "no partner with the same stem, or more than one; rename or remove the file",
    "unused": "the file is in no folder that pairs are read from; move it if it belongs to a pair",
    "bad-name": "the name is not UTF-8, or leads out of the folder; rename the file",
    "step-error": "the model failed on this image; the detail contains its error",
    "killed-worker": "each process that had only this image died; the detail says of what",
    "unwritable": "the output could not be written; check free space, permissions and the length of its name",
}
"""Reasons for setting an input aside: what each means, and what to do."""


@dataclass(frozen=True)
class BadInput:
    """Input that was set aside.

    Args:
        path: path of the input.
        reason: key of `REASONS`.
        detail: what was wrong and where. Secrets of URIs are removed from it, because a library's text may
            contain a signed address.
    """

    path: str
    reason: str
    detail: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "detail", without_secrets(self.detail))


class BadImage(Exception):
    """Error of an image that is set aside.

    Args:
        reason: key of `REASONS`.
        detail: see `BadInput`.
    """

    def __init__(self, reason: str, detail: str) -> None:
        detail = without_secrets(detail)
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail
