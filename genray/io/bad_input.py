"""Inputs that cannot be used: each is set aside with a reason, and nothing else stops."""

from __future__ import annotations

from dataclasses import dataclass

from genray.uris import without_secrets

REASONS = {
    "unreadable": "the file cannot be read",
    "empty": "the file has no bytes",
    "too-large": "more bytes or pixels than the limit",
    "too-much-work": "decoding it would take more scans or seconds than the limit",
    "unknown-format": "not an image, by its first bytes",
    "unsupported": "not read, or not without loss: another kind, an animation, pages, floats, 12 bits",
    "ambiguous": "several columns of the file contain images",
    "truncated": "the file ends early or its data is damaged",
    "odd-shape": "its size is not that of the others, or the two halves do not match",
    "unpaired": "no partner of the same stem, or one too many",
    "unused": "in no folder that the pairs come from",
    "bad-name": "its name is not UTF-8, or leaves the folder",
    "step-error": "the model failed on it; the detail says how",
    "killed-worker": "each process that had only this image died; the detail says of what",
    "unwritable": "its output could not be written",
}


@dataclass(frozen=True)
class BadInput:
    """An input that was set aside: its path, a key of `REASONS`, and what more is known, without secrets of
    URIs: it may be the text of a library, such as one that was led to a signed address."""

    path: str
    reason: str
    detail: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "detail", without_secrets(self.detail))


class BadImage(Exception):
    """An image that is set aside. `reason` is a key of `REASONS`, `detail` says more, as of a `BadInput`."""

    def __init__(self, reason: str, detail: str) -> None:
        detail = without_secrets(detail)
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail
