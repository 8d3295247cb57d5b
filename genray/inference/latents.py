"""Codes of images as few bytes: quantised, entropy-coded, each image a blob of its own."""

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
_LARGEST = 2**31  # no symbol is as large
_DIGIT = 2**16  # the size of a symbol beyond `_MODELLED` follows as two digits of this base
_CHECKSUM_BYTES = 4
_LEAST_DEVIATION = 0.1  # in steps; one value off still costs no more than 24 bits
_LONGEST_CODE = 16384  # numbers, as many as an autoencoder may have


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
    """A codec as it is kept."""

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

    All numbers of a code have the same step, so that one of small variance costs few bits: for a given
    squared error this takes the fewest bytes (reverse water-filling, Cover and Thomas 2006, 10.3.3). To
    the range coder (Martin 1979; constriction's) each number is a normal variable of its own mean and
    deviation; values far from what was fitted are kept all the same, at more bytes.

    A blob begins with the CRC-32 of what has to come out: damage, another codec and an arithmetic that
    rounds otherwise are all noticed. It says nothing of the codec: keep `to_json` beside the blobs.

    Args:
        step: in the units of the codes.
        mean: (d,) of the codes.
        deviation: (d,) of the codes, the standard one.
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
        """The codec for codes such as these.

        Args:
            codes: (N, d), at least two; some hundreds are enough.
            settings: how coarse.

        Raises:
            DataError: codes that are too few, all alike or not finite.
        """
        if codes.ndim != 2 or len(codes) < 2 or not 1 <= codes.shape[1] <= _LONGEST_CODE:
            raise DataError(f"codes must be (at least 2, 1 to {_LONGEST_CODE}), not {codes.shape}")
        wide = codes.astype(np.float64)
        if not np.isfinite(wide).all():
            raise DataError(
                "the codes hold NaN or infinite numbers", hint="look at what the encoder was given"
            )
        deviation = wide.std(axis=0)
        typical_deviation = float(np.sqrt(np.square(deviation).mean()))
        if typical_deviation == 0:
            raise DataError("the codes are all alike", hint="fit to codes of different images")
        mean = wide.mean(axis=0).astype(np.float32)
        return cls(settings.step * typical_deviation, mean, deviation.astype(np.float32))

    def encode(self, codes: NDArray[np.float32]) -> list[bytes]:
        """A blob for each of the codes (N, d), the same whatever batch a code is in.

        Raises:
            ValueError: another shape, or a code with NaN, infinite or absurdly large numbers.
        """
        if codes.ndim != 2 or codes.shape[1] != len(self.mean):
            raise ValueError(f"codes must be (N, {len(self.mean)}), not {codes.shape}")
        with np.errstate(over="ignore", invalid="ignore"):
            symbols = np.rint((codes.astype(np.float64) - self.mean) / self.step)
        too_large = np.flatnonzero(~(np.abs(symbols) < _LARGEST).all(axis=1))
        if too_large.size:
            raise ValueError(f"code {too_large[0]} holds NaN, infinite or absurdly large numbers")
        return [self._checksum(row) + self._encode_symbols(row) for row in symbols.astype(np.int64)]

    def decode(self, blobs: Sequence[bytes]) -> NDArray[np.float32]:
        """(N, d), as near to what was encoded as the step allows.

        Raises:
            BadImage: a blob that is damaged, or of another codec.
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
        """All of the codec, in at most 30 bytes of JSON for each number of a code and some more."""
        stored = _CodecJson(
            format=1, step=self.step, mean=self.mean.tolist(), deviation=self.deviation.tolist()
        )
        return stored.model_dump(mode="json")

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> LatentCodec:
        """The inverse of `to_json`.

        Raises:
            DataError: damaged, or of a later format.
        """
        try:
            parsed = _CodecJson.model_validate(stored)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(key) for key in first["loc"])
            raise DataError(f"not a codec of latents: {first['msg']}", where=place or None) from None
        return cls(parsed.step, np.array(parsed.mean, np.float32), np.array(parsed.deviation, np.float32))

    def _checksum(self, symbols: NDArray[np.int64]) -> bytes:
        return zlib.crc32(symbols.astype("<i8").tobytes(), self._seed).to_bytes(_CHECKSUM_BYTES, "big")

    def _encode_symbols(self, symbols: NDArray[np.int64]) -> bytes:
        """The fewest bytes that decode to `symbols`."""
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
        """The symbols of a code; None where the coder can tell that these bytes are not its own."""
        if len(coded) > 8 * (len(self.mean) + 1):  # 7 bytes is the most that a number can take
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
        except AssertionError:  # constriction's, of invalid data
            return None
        return symbols


def _truncations(words: NDArray[np.uint32]) -> Iterator[bytes]:
    """Bytes that may stand for `words`, shortest first.

    The last word is any number of a range, often a wide one: one that ends in zeros does as well, and
    saves 1.7 bytes of a blob on average.
    """
    if not words.size:
        return
    head = words[:-1].astype(">u4").tobytes()
    last = int(words[-1])
    for kept in range(4):
        unit = 2 ** (32 - 8 * kept)
        for number in {last // unit, min(last // unit + 1, 2 ** (8 * kept) - 1)}:
            yield head + number.to_bytes(kept, "big")
