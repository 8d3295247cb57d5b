"""The wire format: what goes through, and that nothing else does."""

import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from monitors.sources.message import MAX_BYTES, REASONS, TIMES, BadMessage, Chunk, decode, encode, peek_stream
from tests.monitors.samples import chunk

_names = st.text(
    st.characters(codec="ascii", min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=16
)
_streams = st.text(min_size=1, max_size=128).filter(
    lambda name: name.isprintable() and len(name.encode("utf-8", "replace")) <= 128
)


@st.composite
def chunks(draw: st.DrawFn) -> Chunk:
    leads = draw(st.lists(_names, min_size=1, max_size=16, unique=True))
    rate = draw(st.floats(50, 4000))
    count = draw(st.integers(1, 40))
    gains = st.floats(1, 100_000, width=32)
    return Chunk(
        stream=draw(_streams),
        sequence=draw(st.integers(0, 2**64 - 1)),
        start=draw(st.floats(*TIMES)),
        rate=rate,
        leads=tuple(leads),
        gains=tuple(draw(st.lists(gains, min_size=len(leads), max_size=len(leads)))),
        samples=draw(arrays(np.int16, (count, len(leads)))),
    )


def sealed(message: bytes) -> bytes:
    """`message` with the checksum that it should have."""
    return message[:-4] + struct.pack("<I", zlib.crc32(message[:-4]))


def reason(message: bytes) -> str:
    with pytest.raises(BadMessage) as refusal:
        decode(message)
    return refusal.value.reason


@given(chunks())
def test_a_chunk_comes_out_as_it_went_in(sent: Chunk) -> None:
    message = encode(sent)
    got = decode(message)
    np.testing.assert_array_equal(got.samples, sent.samples)
    assert got.samples.dtype == np.int16
    assert replace(got, samples=sent.samples) == sent
    assert peek_stream(message) == sent.stream


@given(st.binary(max_size=200), st.booleans(), st.booleans())
@example(b"GECG\x01", False, False)
def test_any_bytes_are_a_chunk_or_refused(noise: bytes, begin: bool, seal: bool) -> None:
    message = b"GECG\x01\x03\x01\x00" + noise if begin else noise
    if seal and len(message) > 4:
        message = sealed(message)
    for read in (decode, peek_stream):
        try:
            read(message)
        except BadMessage as bad:
            assert bad.reason in REASONS


@given(st.data())
def test_a_change_with_the_right_checksum_is_a_valid_chunk_or_refused(data: st.DataObject) -> None:
    message = bytearray(encode(chunk(seconds=0.1)))
    for _ in range(data.draw(st.integers(1, 6))):
        message[data.draw(st.integers(0, 90))] = data.draw(st.integers(0, 255))
    try:
        got = decode(sealed(bytes(message)))
    except BadMessage:
        return
    assert decode(encode(got)).sequence == got.sequence


def test_any_flipped_bit_is_refused() -> None:
    message = encode(chunk(seconds=0.05))
    for bit in range(len(message) * 8):
        changed = bytearray(message)
        changed[bit // 8] ^= 1 << bit % 8
        assert reason(bytes(changed)) in REASONS


def test_any_shortening_or_lengthening_is_refused() -> None:
    message = encode(chunk(seconds=0.05))
    assert {reason(message[:size]) for size in range(4, len(message))} == {"truncated"}
    assert reason(message + b"\0") == "trailing"
    assert reason(b"") == "not-a-message"
    assert reason(message + bytes(MAX_BYTES)) == "too-large"


@pytest.mark.parametrize(
    ("offset", "layout", "value", "expected"),
    [
        (4, "B", 2, "version"),
        (5, "B", 0, "bad-stream"),
        (5, "B", 129, "bad-stream"),
        (16, "d", float("nan"), "bad-time"),
        (16, "d", float("inf"), "bad-time"),
        (16, "d", -1.0, "bad-time"),
        (16, "d", 1e12, "bad-time"),
        (24, "d", float("nan"), "bad-rate"),
        (24, "d", 0.0, "bad-rate"),
        (24, "d", 1e300, "bad-rate"),
        (32, "I", 2**32 - 1, "truncated"),
        (36, "c", b"\n", "bad-stream"),
        (36, "c", b"\xff", "bad-stream"),
        (42, "c", b"\0", "bad-leads"),
        (42, "c", b"\x80", "bad-leads"),
        (58, "f", float("nan"), "bad-leads"),
        (58, "f", 0.0, "bad-leads"),
        (58, "f", -200.0, "bad-leads"),
        (62, "16s", b"MLII", "bad-leads"),
    ],
)
def test_absurd_values_with_the_right_checksum_are_refused(
    offset: int, layout: str, value: object, expected: str
) -> None:
    message = bytearray(encode(chunk(seconds=0.05)))
    struct.pack_into(f"<{layout}", message, offset, value)
    assert reason(sealed(bytes(message))) == expected


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"stream": ""}, "bad-stream"),
        ({"stream": "a\nb"}, "bad-stream"),
        ({"stream": "\ud800"}, "bad-stream"),
        ({"stream": "é" * 65}, "bad-stream"),
        ({"start": float("nan")}, "bad-time"),
        ({"rate": 49.0}, "bad-rate"),
        ({"leads": ("II", "II")}, "bad-leads"),
        ({"leads": ("II", "an unusually long name")}, "bad-leads"),
        ({"leads": ("II", "é")}, "bad-leads"),
        ({"gains": (200.0,)}, "bad-leads"),
        ({"gains": (200.0, 1e300)}, "bad-leads"),
        ({"leads": (), "gains": ()}, "bad-samples"),
        ({"samples": np.zeros((0, 2), np.int16)}, "bad-samples"),
        ({"samples": np.zeros((3601, 2), np.int16)}, "bad-samples"),
        ({"samples": np.zeros((360, 3), np.int16)}, "bad-samples"),
        ({"samples": np.zeros((360, 2), np.int32)}, "bad-samples"),
        ({"rate": 4000.0, "leads": tuple("abcd"), "gains": (1.0,) * 4}, "too-large"),
    ],
)
def test_what_would_be_refused_is_not_sent(change: dict[str, object], expected: str) -> None:
    if expected == "too-large":
        change["samples"] = np.zeros((40_000, 4), np.int16)
    with pytest.raises(BadMessage) as refusal:
        encode(replace(chunk(), **change))
    assert refusal.value.reason == expected


def test_a_sequence_that_does_not_fit_is_the_senders_mistake() -> None:
    with pytest.raises(ValueError, match="sequence number must be 0 to"):
        encode(chunk(-1))
