"""Rows of the ledger, and the keys of their files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa

DONE = "done"
SKIPPED = "skipped"
FAILED = "failed"
STATUSES = (DONE, SKIPPED, FAILED)
TIMES = ("read_ms", "decode_ms", "model_ms", "encode_ms", "write_ms")

UNLISTED = "unlisted"
"""Format in the rows of folders and shards that could not be listed."""

CLEAN = "clean"
"""Reason of images that were copied because they have less noise than the limit."""

SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("format", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("channels", pa.int8()),
        ("depth", pa.int8()),
        ("pages", pa.int32()),
        ("salvaged", pa.string()),
        ("bytes_in", pa.int64()),
        ("bytes_out", pa.int64()),
        ("modified", pa.int64()),
        ("container", pa.string()),
        ("position", pa.int64()),
        ("noise", pa.float32()),
        ("change", pa.float32()),
        ("error", pa.float32()),
        ("score", pa.float32()),
        ("read_ms", pa.float32()),
        ("decode_ms", pa.float32()),
        ("model_ms", pa.float32()),
        ("encode_ms", pa.float32()),
        ("write_ms", pa.float32()),
        ("output", pa.string()),
        ("also", pa.list_(pa.string())),
        ("sha256", pa.string()),
        ("finished", pa.timestamp("ms", tz="UTC")),
        ("not_kept", pa.list_(pa.string())),
        ("noise_fine", pa.float32()),
        ("noise_coarse", pa.float32()),
        ("noise_chroma", pa.float32()),
        ("noise_kind", pa.string()),
    ]
)
"""Columns of the files: the fields of `LedgerRow`."""

KEY_PATTERN = r"\d{5}-[\w-]+"
"""Pattern of keys: number of the pass (five digits), then chunk, attempt and piece, or `listing`."""


@dataclass
class LedgerRow:
    """Outcome of an input; None where a value does not apply or was not read.

    A dataclass, because a row is filled in for every image: Arrow takes `vars(row)`.
    """

    path: str
    status: str = ""
    """`DONE`, `SKIPPED` (copied untouched) or `FAILED`."""
    reason: str | None = None
    """Reason of skipped and failed inputs: a key of `steps.base.SKIP_REASONS` or `bad_input.REASONS`."""
    detail: str | None = None
    """Failed: details of the reason. Otherwise: oddities of the input, or its parts that the output lacks."""
    format: str | None = None
    width: int | None = None
    height: int | None = None
    channels: int | None = None
    depth: int | None = None
    """Bits."""
    pages: int | None = None
    """Pages that were read."""
    salvaged: str | None = None
    """Damage of the input that cost no pixel."""
    bytes_in: int | None = None
    bytes_out: int | None = None
    modified: int | None = None
    """Last change of the input, ns since 1970."""
    container: str | None = None
    """Shard that contains the input."""
    position: int | None = None
    """Position in the shard: byte of a tar, row of a Parquet file."""
    noise: float | None = None
    """Estimated standard deviation of the noise, grey levels of 255."""
    change: float | None = None
    """Mean absolute difference of output and input, grey levels of 255."""
    error: float | None = None
    """Error of the reconstruction."""
    score: float | None = None
    """Anomaly score: error / threshold."""
    read_ms: float | None = None
    decode_ms: float | None = None
    model_ms: float | None = None
    encode_ms: float | None = None
    write_ms: float | None = None
    output: str | None = None
    """Path of the output under the root."""
    also: Sequence[str] | None = None
    """Paths of further outputs."""
    sha256: str | None = None
    """SHA-256 of the output file."""
    finished: datetime | None = None
    not_kept: Sequence[str] | None = None
    """Names of what the input carries and the output does not, such as "XMP"."""
    noise_fine: float | None = None
    """Noise of the brightness in details of two pixels, grey levels of 255."""
    noise_coarse: float | None = None
    """Noise of the brightness in larger details, grey levels of 255."""
    noise_chroma: float | None = None
    """Noise of the colours, grey levels of 255."""
    noise_kind: str | None = None
    """What most of the noise is: white, coarse, chroma, blocks (of JPEG), or none."""


def chunk_name(pass_number: int, index: int) -> str:
    """Return the name of a chunk of a pass, in keys and in markers of attempts."""
    return f"{pass_number:05}-{index:06}"


def piece_key(chunk: str, attempt: int, piece: int) -> str:
    """Return the key of a piece of the results of an attempt at `chunk`."""
    return f"{chunk}-{attempt}-{piece}"
