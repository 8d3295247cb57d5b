"""Wire format: one message contains about a second of all leads of one stream, whatever transports it.

Little-endian, without padding. n is the length of the stream's name, l the number of leads:

    offset          size    type         what
    0               4       bytes        "GECG"
    4               1       u8           version, 1
    5               1       u8           n, 1 to 128
    6               1       u8           l, 1 to 16
    7               1       u8           0
    8               8       u64          sequence: counts the messages of the stream, from any number
    16              8       f64          start: unix time of the first sample, seconds, 0 to 4102444800
    24              8       f64          rate: sampling rate, Hz, 50 to 4000
    32              4       u32          m: samples of each lead, at least 1, at most 10 s
    36              n       UTF-8        the stream's name, printable
    36+n            20 l    bytes, f32   for each lead: name (1 to 16 printable ASCII, padded with zeros; all
                                         different); gain (units per millivolt, 1 to 100,000)
    36+n+20 l       2 m l   i16          m samples: all leads of the first instant, then of the next;
                                         -32768: missing
    36+n+20 l+2 m l 4       u32          CRC-32 (zlib) of all bytes before it

A message has at most 256 KiB. The names of streams are trusted: the broker must control who may send. Sources
that generate or read samples themselves deliver chunks without encoding them.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from genray.ecg.records.channels import LeadKind

VERSION: Final = 1
MAX_BYTES: Final = 256 * 1024
MAX_SECONDS: Final = 10.0
MAX_LEADS: Final = 16
RATES: Final = (50.0, 4000.0)
GAINS: Final = (1.0, 100_000.0)
TIMES: Final = (0.0, 4_102_444_800.0)  # to the end of 2099; a device without a clock starts at 0

REASONS: Final = {
    "not-a-message": "it does not begin with GECG",
    "version": "unsupported version of the wire format",
    "truncated": "shorter than its header says",
    "trailing": "longer than its header says",
    "too-large": "more than 256 KiB",
    "checksum": "wrong checksum, damaged in transit",
    "bad-stream": "stream name empty, too long or not printable",
    "bad-leads": "no leads, more than 16, equal names, or an invalid name or gain",
    "bad-rate": "sampling rate not between 50 and 4000 Hz",
    "bad-time": "start time not between 1970 and 2099",
    "bad-samples": "no samples, more than 10 s, or not of the shape (samples, leads)",
}
"""Reasons why a message is refused: labels of metrics, with their meaning."""

_MAGIC: Final = b"GECG"
_HEAD: Final = struct.Struct("<4sBBBBQddI")
_LEAD: Final = struct.Struct("<16sf")
_CRC: Final = struct.Struct("<I")
_SAMPLE: Final = np.dtype("<i2")
_MAX_NAME: Final = 128


MISSING = -32768
"""Value of a sample that the device marks as missing (as in WFDB's format 16)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """One message: usually a second of all leads of a stream.

    Attributes:
        stream: name of the stream at its source; behind a feed, its pseudonym.
        sequence: number of the message in its stream, counted from any number.
        start: unix time of the first sample, seconds.
        rate: sampling rate, Hz.
        leads: names of the leads.
        gains: units per millivolt of each lead; of a pulse wave, units per unit of its own.
        kinds: what each lead shows; empty: what its name says.
        samples: (samples, leads) in units; MISSING for a missing sample.
        received: monotonic time at which it arrived, seconds, to measure latency.
    """

    stream: str
    sequence: int
    start: float
    rate: float
    leads: tuple[str, ...]
    gains: tuple[float, ...]
    samples: NDArray[np.int16]
    received: float = 0.0
    kinds: tuple[LeadKind, ...] = ()

    @property
    def end(self) -> float:
        """Unix time just after the last sample, seconds."""
        return self.start + len(self.samples) / self.rate

    def delivered(self, stream: str, received: float) -> Chunk:
        """Return the chunk under the pseudonym `stream`; `dataclasses.replace` takes three times as long."""
        return Chunk(
            stream=stream,
            sequence=self.sequence,
            start=self.start,
            rate=self.rate,
            leads=self.leads,
            gains=self.gains,
            samples=self.samples,
            received=received,
            kinds=self.kinds,
        )


class BadMessage(Exception):
    """A message that is refused; `reason` is a key of `REASONS`."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"{reason}: {REASONS[reason]}")
        self.reason = reason


def encode(chunk: Chunk) -> bytes:
    """Encode `chunk` as a message; gains are rounded to f32, and `received` is left out.

    Raises:
        BadMessage: a receiver would refuse it.
        ValueError: its sequence number does not fit into 64 bits.
    """
    name = chunk.stream.encode("utf-8", "replace")
    samples = np.asarray(chunk.samples)
    _check_stream(chunk.stream, len(name))
    if len(chunk.leads) != len(chunk.gains):
        raise BadMessage("bad-leads")
    if samples.dtype != np.int16 or samples.ndim != 2 or samples.shape[1] != len(chunk.leads):
        raise BadMessage("bad-samples")
    _check_numbers(chunk.start, chunk.rate, len(samples))
    try:
        leads = b"".join(
            _LEAD.pack(lead.encode("ascii") if len(lead) <= 16 else b"", gain)
            for lead, gain in zip(chunk.leads, chunk.gains, strict=True)
        )
        _parse_leads(leads)
    except (UnicodeError, struct.error, OverflowError):
        raise BadMessage("bad-leads") from None
    try:
        head = _HEAD.pack(
            _MAGIC,
            VERSION,
            len(name),
            len(chunk.leads),
            0,
            chunk.sequence,
            chunk.start,
            chunk.rate,
            len(samples),
        )
    except struct.error as error:
        raise ValueError(f"the sequence number must be 0 to 2**64 - 1, not {chunk.sequence}") from error
    body = b"".join((head, name, leads, samples.astype(_SAMPLE, copy=False).tobytes()))
    if len(body) + _CRC.size > MAX_BYTES:
        raise BadMessage("too-large")
    return body + _CRC.pack(zlib.crc32(body))


def decode(data: bytes) -> Chunk:
    """Decode the message `data`; its samples are a read-only view of `data`.

    Raises:
        BadMessage: `data` is not a valid message; no other error, whatever it contains.
    """
    header = _parse_header(data)
    leads_at = _HEAD.size + header.name_bytes
    samples_at = leads_at + _LEAD.size * header.leads
    end = samples_at + _SAMPLE.itemsize * header.leads * header.samples
    if len(data) != end + _CRC.size:
        raise BadMessage("truncated" if len(data) < end + _CRC.size else "trailing")
    if _CRC.unpack_from(data, end)[0] != zlib.crc32(memoryview(data)[:end]):
        raise BadMessage("checksum")
    _check_numbers(header.start, header.rate, header.samples)
    leads = _parse_leads(data[leads_at:samples_at])
    samples = np.frombuffer(data, _SAMPLE, header.leads * header.samples, samples_at)
    return Chunk(
        stream=_parse_stream(data[_HEAD.size : leads_at]),
        sequence=header.sequence,
        start=header.start,
        rate=header.rate,
        leads=leads.names,
        gains=leads.gains,
        samples=samples.reshape(header.samples, header.leads),
    )


def peek_stream(data: bytes) -> str:
    """Return the name of the stream in the message `data`, without checking the rest of it.

    Raises:
        BadMessage: it contains no valid name.
    """
    return _parse_stream(data[_HEAD.size : _HEAD.size + _parse_header(data).name_bytes])


class _Header(NamedTuple):
    """Header of a message; `leads` and `samples` are numbers of these."""

    magic: bytes
    version: int
    name_bytes: int
    leads: int
    zero: int
    sequence: int
    start: float
    rate: float
    samples: int


class _LeadBlock(NamedTuple):
    """Names and gains of the leads of a message."""

    names: tuple[str, ...]
    gains: tuple[float, ...]


def _parse_header(data: bytes) -> _Header:
    if len(data) > MAX_BYTES:
        raise BadMessage("too-large")
    if not data.startswith(_MAGIC):
        raise BadMessage("not-a-message")
    if len(data) < _HEAD.size:
        raise BadMessage("truncated")
    header = _Header._make(_HEAD.unpack_from(data))
    if header.version != VERSION or header.zero:
        raise BadMessage("version")
    if not 1 <= header.name_bytes <= _MAX_NAME:
        raise BadMessage("bad-stream")
    if len(data) < _HEAD.size + header.name_bytes:
        raise BadMessage("truncated")
    return header


def _check_numbers(start: float, rate: float, count: int) -> None:
    # `not a <= x <= b`, so that NaN is refused.
    if not RATES[0] <= rate <= RATES[1]:
        raise BadMessage("bad-rate")
    if not TIMES[0] <= start <= TIMES[1]:
        raise BadMessage("bad-time")
    if not 1 <= count <= MAX_SECONDS * rate:
        raise BadMessage("bad-samples")


def _check_stream(stream: str, name_bytes: int) -> None:
    if not (1 <= name_bytes <= _MAX_NAME and stream.isprintable()):
        raise BadMessage("bad-stream")


# Cached, as a device sends the same names and gains every second.
@lru_cache(maxsize=16_384)
def _parse_stream(name: bytes) -> str:
    try:
        stream = name.decode("utf-8")
    except UnicodeDecodeError:
        raise BadMessage("bad-stream") from None
    _check_stream(stream, len(name))
    return stream


@lru_cache(maxsize=4096)
def _parse_leads(block: bytes) -> _LeadBlock:
    names, gains = [], []
    for padded, gain in _LEAD.iter_unpack(block):
        name = padded.rstrip(b"\0")
        printable = all(0x20 <= byte <= 0x7E for byte in name)
        if not name or not printable or not GAINS[0] <= gain <= GAINS[1]:
            raise BadMessage("bad-leads")
        names.append(name.decode("ascii"))
        gains.append(gain)
    if not 1 <= len(names) <= MAX_LEADS or len(set(names)) < len(names):
        raise BadMessage("bad-leads")
    return _LeadBlock(tuple(names), tuple(gains))
