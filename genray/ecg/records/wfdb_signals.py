"""The signal files of WFDB records (https://physionet.org/physiotools/wag/signal-5.htm), read by the frame.

The wfdb package decodes the numbers, and soundfile those of FLAC, as wfdb does. What is read is decided here:
wfdb 4.3.1 follows URLs, gets format 8 wrong from anywhere but the beginning, and cannot read a file of two
skews, FLAC with a skew, or a file that is shorter than its header says.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from genray.ecg.records.base import EndsEarly, Scale, unusable

Numbers = NDArray[np.integer]


@dataclass(frozen=True)
class _Format:
    """How numbers are stored: `samples` of them share `size` bytes; each has `bits`."""

    size: int
    samples: int
    bits: int
    has_missing: bool = True


_FORMATS = {
    "8": _Format(1, 1, 16, has_missing=False),
    "16": _Format(2, 1, 16),
    "24": _Format(3, 1, 24),
    "32": _Format(4, 1, 32),
    "61": _Format(2, 1, 16),
    "80": _Format(1, 1, 8),
    "160": _Format(2, 1, 16),
    "212": _Format(3, 2, 12),
    "310": _Format(4, 3, 10),
    "311": _Format(4, 3, 10),
    "508": _Format(0, 1, 8),
    "516": _Format(0, 1, 16),
    "524": _Format(0, 1, 24),
}
_FLAC = ("508", "516", "524")
_FLAC_BITS = {"PCM_S8": 8, "PCM_16": 16, "PCM_24": 24}
_DIFFERENCES = "8"
_WHOLE = 6  # frames of which any number of samples fills whole bytes, in every format
_STRIDE = 1 << 16  # frames after which the sums of differences are remembered
_BLOCK = 1 << 22  # numbers of FLAC that are decoded at once
_COUNTED = 1 << 12  # samples of a FLAC file that was cut off that are counted at once


def is_readable(code: str) -> bool:
    """Whether numbers of the format `code` can be read."""
    return code in _FORMATS


def readable_formats() -> str:
    """The codes of the formats that can be read, in words."""
    return ", ".join(_FORMATS)


def stored_scale(code: str, gain: float, baseline: float) -> Scale:
    """The scale of numbers of the format `code`."""
    kind = _FORMATS[code]
    least = -(1 << (kind.bits - 1))
    return Scale(gain, baseline, least + 1, -least - 1, least if kind.has_missing else None)


@dataclass(frozen=True)
class FileChannel:
    """A signal of a file: its samples in each frame, and the number before its first."""

    frame: int
    initial: int


@dataclass(frozen=True, eq=False)
class SignalFile:
    """A signal file.

    Attributes:
        format: code of it.
        offset: bytes before the first sample (FLAC: samples).
        channels: its signals, in their order in each frame.
        frames: so many it holds.
        sums: of the differences of each channel up to every `_STRIDE`th frame, (marks, channels).
    """

    path: Path
    format: str
    offset: int
    channels: Sequence[FileChannel]
    frames: int = 0
    sums: NDArray[np.int64] | None = None

    @classmethod
    def open(cls, path: Path, code: str, offset: int, channels: Sequence[FileChannel]) -> SignalFile:
        """Find out how many frames are in the file `path`.

        Raises:
            DataError: a FLAC file has other channels than its header says.
            OSError: it cannot be read.
            RuntimeError: it is no FLAC file, but should be.
        """
        file = cls(path, code, offset, channels)
        if code in _FLAC:
            if len({channel.frame for channel in channels}) > 1:
                raise unusable(path, "its header gives several rates to the channels of one FLAC file")
            held = _flac_size(path, code, len(channels))
            return replace(file, frames=max(0, held - offset) // channels[0].frame)
        file = replace(file, frames=file._held(path.stat().st_size))
        return replace(file, sums=np.array(list(file._sums()))) if code == _DIFFERENCES else file

    def read(self, first: int, last: int) -> list[Numbers]:
        """The frames `first` to `last`, which must be there: of each channel (samples,).

        Raises:
            EndsEarly: they are not there any more.
        """
        if self.format in _FLAC:
            return self._read_flac(first, last)
        mark = first // _STRIDE
        begin = mark * _STRIDE if self.format == _DIFFERENCES else first // _WHOLE * _WHOLE
        end = -(-last // _WHOLE) * _WHOLE
        signals = self._decode(self._bytes(begin, end, last), end - begin, mark)
        return [
            signal[(first - begin) * channel.frame : (last - begin) * channel.frame]
            for signal, channel in zip(signals, self.channels, strict=True)
        ]

    @property
    def _samples(self) -> int:
        """In each frame, of all channels."""
        return sum(channel.frame for channel in self.channels)

    def _held(self, size: int) -> int:
        """The frames that are whole in a file of `size` bytes."""
        kind = _FORMATS[self.format]
        blocks, rest = divmod(max(0, size - self.offset), kind.size)
        more = rest * kind.samples // kind.size
        if self.format == "310":  # the second sample is in the third byte and the fourth
            more = min(more, 1)
        return (blocks * kind.samples + more) // self._samples

    def _bytes(self, begin: int, end: int, last: int) -> NDArray[np.uint8]:
        """The bytes of the frames `begin` to `end`, zeros after the end of the file; those up to `last` must
        be there."""
        kind = _FORMATS[self.format]
        size = self._samples * kind.size
        with self.path.open("rb") as file:
            if self._held(os.fstat(file.fileno()).st_size) < last:
                raise EndsEarly(f"{self.path.name} ends early")
            file.seek(self.offset + begin * size // kind.samples)
            raw = np.zeros((end - begin) * size // kind.samples, np.uint8)
            file.readinto(raw.data)
        return raw

    def _decode(self, raw: NDArray[np.uint8], frames: int, mark: int) -> list[Numbers]:
        """The samples of each channel in `raw`, which holds so many frames."""
        from wfdb.io import _signal

        initial = [channel.initial for channel in self.channels]
        if self.sums is not None:
            initial = [before + int(total) for before, total in zip(initial, self.sums[mark], strict=True)]
        signals: list[Numbers] = _signal._rd_dat_signals(
            file_name=None,
            dir_name=None,
            pn_dir=None,
            fmt=self.format,
            n_sig=len(self.channels),
            sig_len=frames,
            byte_offset=0,
            samps_per_frame=[channel.frame for channel in self.channels],
            skew=[0] * len(self.channels),
            init_value=initial,
            sampfrom=0,
            sampto=frames,
            no_file=True,
            sig_data=raw.view(_signal.DATA_LOAD_TYPES[self.format]),
        )
        return signals

    def _read_flac(self, first: int, last: int) -> list[Numbers]:
        import soundfile

        frame = self.channels[0].frame
        stored = np.empty(((last - first) * frame, len(self.channels)), np.int32)
        with soundfile.SoundFile(self.path) as file:
            file.seek(self.offset + first * frame)
            for part in _parts(stored):
                if len(file.read(out=part)) < len(part):
                    raise EndsEarly(f"{self.path.name} ends early")
            stored >>= 32 - _FLAC_BITS[file.subtype]  # it gives the highest bits
        return list(stored.T)

    def _sums(self) -> Iterator[list[int]]:
        """The sums of the differences of each channel before the frames 0, `_STRIDE`, 2 `_STRIDE`, and on."""
        ends = np.cumsum([channel.frame for channel in self.channels])[:-1]
        totals = [0] * len(self.channels)
        yield totals
        for begin in range(0, self.frames - _STRIDE, _STRIDE):
            end = begin + _STRIDE
            frames = self._bytes(begin, end, end).view(np.int8).reshape(_STRIDE, -1)
            parts = np.split(frames, ends, axis=1)
            totals = [
                total + int(part.sum(dtype=np.int64)) for total, part in zip(totals, parts, strict=True)
            ]
            yield totals


def _parts(samples: NDArray[np.int32]) -> Iterator[NDArray[np.int32]]:
    """`samples` (samples, channels) in parts: libsndfile fails to read more than 2^24 numbers of FLAC at once
    (https://github.com/libsndfile/libsndfile/issues/431)."""
    step = max(1, _BLOCK // samples.shape[1])
    return (samples[at : at + step] for at in range(0, len(samples), step))


def _flac_size(path: Path, code: str, channels: int) -> int:
    """The samples of a channel that the FLAC file `path` holds: those that it declares; if it was cut off,
    those that can be decoded."""
    import soundfile

    with soundfile.SoundFile(path) as file:
        bits = _FLAC_BITS.get(file.subtype)
        if bits is None or bits > _FORMATS[code].bits or file.format != "FLAC":
            raise unusable(path, f"it is no FLAC of {_FORMATS[code].bits} bits, as its header says")
        if file.channels != channels:
            raise unusable(path, f"it has {file.channels} channels, and its header says {channels}")
        declared = int(file.frames)
        try:
            file.seek(max(0, declared - 1))
            if declared and len(file.read(1, dtype="int16")):
                return declared
        except soundfile.LibsndfileError:
            pass  # it was cut off: what is there is decoded and counted
    held = 0
    with soundfile.SoundFile(path) as file:
        try:
            while count := len(file.read(_COUNTED, dtype="int16")):
                held += count
        except soundfile.LibsndfileError:
            pass
    return held
