"""Compression of codes: quantised and entropy-coded, one blob per image."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from constriction import stream
from numpy.typing import NDArray
from pydantic import Field, ValidationError, model_validator

from genray.errors import DataError
from genray.io.bad_input import BadImage
from genray.settings.base import Settings

_MODELLED = 4095  # largest symbol that is coded by its probability
_LARGEST = 2**31  # bound of the symbols
_DIGIT = 2**16  # the excess of a symbol over `_MODELLED` follows as two digits of this base
_CHECKSUM_BYTES = 4
_LEAST_DEVIATION = 0.1  # in steps; an outlier costs at most 24 bits
_LONGEST_CODE = 16384  # most numbers of an autoencoder's code


class LatentSettings(Settings):
    """Settings of the compression of codes."""

    step: float = Field(
        0.5,
        ge=0.001,
        le=8,
        description=(
            "quantisation step, in standard deviations of a typical number of a code (0.5 gives "
            "errors of 0.14 deviations; at 0.1 the loss is invisible)"
        ),
    )


class _CodecJson(Settings):
    """A codec as it is stored."""

    format: Literal[1]
    step: Annotated[float, Field(gt=0)]
    mean: tuple[float, ...] = Field(min_length=1, max_length=_LONGEST_CODE)
    deviation: tuple[Annotated[float, Field(ge=0)], ...]

    @model_validator(mode="after")
    def _matching(self) -> _CodecJson:
        if len(self.deviation) != len(self.mean):
            raise ValueError(f"{len(self.mean)} means, but {len(self.deviation)} deviations")
        return self


class LatentCodec:
    """Codes (N, d) float32 to bytes and back, with a loss of at most half a step in each number.

    All numbers of a code have the same step, so that numbers of small variance need few bits: this gives the
    fewest bytes for a given squared error (reverse water-filling, Cover and Thomas 2006, 10.3.3). The range
    coder (Martin 1979; from constriction) models each number as a normal variable with its own mean and
    deviation; values far from the fit are coded, too, with more bytes.

    A blob begins with the CRC-32 of the decoded symbols, which detects damage, another codec, and arithmetic
    with other rounding. It does not contain the codec: store `to_json` beside the blobs.

    Args:
        step: quantisation step, in the units of the codes.
        mean: mean of the codes, (d,).
        deviation: standard deviation of the codes, (d,).
    """

    def __init__(self, step: float, mean: NDArray[np.float32], deviation: NDArray[np.float32]) -> None:
        self.step = float(step)
        self.mean = mean.astype(np.float32)
        self.deviation = deviation.astype(np.float32)
        self._deviations = np.maximum(self.deviation.astype(np.float64) / self.step, _LEAST_DEVIATION)
        self._means = np.zeros_like(self._deviations)  # symbols are counted from the mean
        self._model = stream.model.QuantizedGaussian(-_MODELLED - 1, _MODELLED + 1)
        self._seed = zlib.crc32(self.mean.tobytes() + self.deviation.tobytes() + repr(self.step).encode())

    @classmethod
    def fit(cls, codes: NDArray[np.float32], settings: LatentSettings) -> LatentCodec:
        """Fit a codec to codes.

        Args:
            codes: codes (N, d), at least two; some hundreds are enough.
            settings: quantisation step.

        Raises:
            DataError: the codes are too few, all equal, or not finite.
        """
        if codes.ndim != 2 or len(codes) < 2 or not 1 <= codes.shape[1] <= _LONGEST_CODE:
            raise DataError(
                f"codes must have a shape of at least 2 by 1 to {_LONGEST_CODE}, not {codes.shape}"
            )
        wide = codes.astype(np.float64)
        if not np.isfinite(wide).all():
            raise DataError(
                "the codes contain NaN or infinite numbers",
                hint="check the images that were encoded, and the bundle",
            )
        deviation = wide.std(axis=0)
        typical_deviation = float(np.sqrt(np.square(deviation).mean()))
        if typical_deviation == 0:
            raise DataError("the codes are all equal", hint="fit the codec to codes of different images")
        mean = wide.mean(axis=0).astype(np.float32)
        return cls(settings.step * typical_deviation, mean, deviation.astype(np.float32))

    def encode(self, codes: NDArray[np.float32]) -> list[bytes]:
        """Return a blob for each of the codes (N, d), independent of the batch of a code.

        Raises:
            ValueError: another shape, or a code with NaN, infinite or implausibly large numbers.
        """
        if codes.ndim != 2 or codes.shape[1] != len(self.mean):
            raise ValueError(f"codes must be (N, {len(self.mean)}), not {codes.shape}")
        with np.errstate(over="ignore", invalid="ignore"):
            symbols = np.rint((codes.astype(np.float64) - self.mean) / self.step)
        too_large = np.flatnonzero(~(np.abs(symbols) < _LARGEST).all(axis=1))
        if too_large.size:
            raise ValueError(f"code {too_large[0]} contains NaN, infinite or implausibly large numbers")
        return [self._checksum(row) + self._encode_symbols(row) for row in symbols.astype(np.int64)]

    def decode(self, blobs: Sequence[bytes]) -> NDArray[np.float32]:
        """Decode blobs to codes (N, d), with an error of at most half a step.

        Raises:
            BadImage: a blob is damaged, or of another codec.
        """
        codes = np.empty((len(blobs), len(self.mean)), np.float32)
        for index, blob in enumerate(blobs):
            symbols = self._decode_symbols(blob[_CHECKSUM_BYTES:])
            if symbols is None or self._checksum(symbols) != blob[:_CHECKSUM_BYTES]:
                raise BadImage(
                    "truncated", f"blob {index} of {len(blob)} bytes is damaged or of another codec"
                )
            codes[index] = symbols * self.step + self.mean
        return codes

    def to_json(self) -> dict[str, Any]:
        """Return the whole codec as JSON, of about 30 bytes for each number of a code."""
        stored = _CodecJson(
            format=1, step=self.step, mean=self.mean.tolist(), deviation=self.deviation.tolist()
        )
        return stored.model_dump(mode="json")

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> LatentCodec:
        """Return the codec that `to_json` wrote.

        Raises:
            DataError: the codec is damaged, or of a later format.
        """
        try:
            parsed = _CodecJson.model_validate(stored)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(key) for key in first["loc"])
            raise DataError(f"this is not a codec of latents ({first['msg']})", where=place or None) from None
        return cls(parsed.step, np.array(parsed.mean, np.float32), np.array(parsed.deviation, np.float32))

    def _checksum(self, symbols: NDArray[np.int64]) -> bytes:
        return zlib.crc32(symbols.astype("<i8").tobytes(), self._seed).to_bytes(_CHECKSUM_BYTES, "big")

    def _encode_symbols(self, symbols: NDArray[np.int64]) -> bytes:
        """Return the fewest bytes that decode to `symbols`."""
        encoder = stream.queue.RangeEncoder()
        clipped = symbols.clip(-_MODELLED - 1, _MODELLED + 1)
        encoder.encode(clipped.astype(np.int32), self._model, self._means, self._deviations)
        beyond = np.abs(symbols[np.abs(clipped) > _MODELLED])
        if beyond.size:
            digits = np.stack([beyond // _DIGIT, beyond % _DIGIT], axis=1).ravel()
            encoder.encode(digits.astype(np.int32), stream.model.Uniform(_DIGIT))
        words: NDArray[np.uint32] = encoder.get_compressed()
        for shorter in _truncations(words):
            decoded = self._decode_symbols(shorter)
            if decoded is not None and np.array_equal(decoded, symbols):
                return shorter
        return words.astype(">u4").tobytes()

    def _decode_symbols(self, coded: bytes) -> NDArray[np.int64] | None:
        """Return the symbols of a code; None if the coder finds that the bytes are not its own."""
        if len(coded) > 8 * (len(self.mean) + 1):  # a number takes at most 7 bytes
            return None
        words = np.frombuffer(coded + bytes(-len(coded) % 4), ">u4").astype(np.uint32)
        decoder = stream.queue.RangeDecoder(words)
        try:
            symbols: NDArray[np.int64]
            symbols = decoder.decode(self._model, self._means, self._deviations).astype(np.int64)
            far = np.flatnonzero(np.abs(symbols) > _MODELLED)
            if far.size:
                digits = decoder.decode(stream.model.Uniform(_DIGIT), 2 * far.size).astype(np.int64)
                symbols[far] = np.sign(symbols[far]) * (digits[0::2] * _DIGIT + digits[1::2])
        except AssertionError:  # raised by constriction for invalid data
            return None
        return symbols


def _truncations(words: NDArray[np.uint32]) -> Iterator[bytes]:
    """Yield bytes that may represent `words`, the shortest first.

    The last word may be any number of an often wide range: a number that ends in zeros can be shortened,
    which saves 1.7 bytes of a blob on average.
    """
    if not words.size:
        return
    head = words[:-1].astype(">u4").tobytes()
    last = int(words[-1])
    for kept in range(4):
        unit = 2 ** (32 - 8 * kept)
        for number in {last // unit, min(last // unit + 1, 2 ** (8 * kept) - 1)}:
            yield head + number.to_bytes(kept, "big")
