import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from genray.errors import DataError
from genray.inference.latents import LatentCodec, LatentSettings
from genray.io.bad_input import BadImage

Codes = NDArray[np.float32]


def codes(count: int = 400, seed: int = 0) -> Codes:
    """Of 24 numbers with means and deviations of their own; the last never varies."""
    rng = np.random.default_rng(seed)
    deviation = np.geomspace(4, 0.05, 24)
    deviation[-1] = 0
    return (np.linspace(-3, 5, 24) + deviation * rng.normal(size=(count, 24))).astype(np.float32)


def codec(step: float = 0.5) -> LatentCodec:
    return LatentCodec.fit(codes(), LatentSettings(step=step))


@pytest.mark.parametrize("step", [0.1, 0.5, 2])
def test_codes_come_back_within_half_a_step(step: float) -> None:
    made = codec(step)
    new = codes(seed=1)
    assert np.abs(made.decode(made.encode(new)) - new).max() <= made.step / 2 * 1.001


def test_a_blob_takes_about_the_entropy_of_its_code() -> None:
    made = codec()
    symbols = np.rint((codes(seed=2) - made.mean) / made.step).astype(int)
    entropy = 0.0
    for column in symbols.T:
        shares = np.unique(column, return_counts=True)[1] / len(column)
        entropy -= float((shares * np.log2(shares)).sum()) / 8
    size = np.mean([len(blob) for blob in made.encode(codes(seed=2))])
    assert entropy < size - 4 < 1.05 * entropy + 1  # 4 bytes are the checksum


def test_coarser_steps_take_fewer_bytes() -> None:
    sizes = [sum(map(len, codec(step).encode(codes(seed=1)))) for step in (0.1, 0.25, 0.5, 1)]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == 4


def test_a_blob_does_not_depend_on_its_batch() -> None:
    made, new = codec(), codes(5)
    assert made.encode(new) == [made.encode(new[i : i + 1])[0] for i in range(5)]
    assert made.encode(new[:0]) == []
    assert made.decode([]).shape == (0, 24)


@pytest.mark.parametrize("far", [1e4, -1e4, 1e6, -1e8])
def test_numbers_far_from_the_sample_are_kept(far: float) -> None:
    made, new = codec(), codes(3)
    new[1, 4] = new[1, 9] = far
    back = made.decode(made.encode(new))
    assert np.abs(back - new).max() <= max(made.step / 2 * 1.001, np.spacing(np.float32(abs(far))))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30])
def test_numbers_that_cannot_be_coded_are_refused(bad: float) -> None:
    new = codes(3)
    new[2, 0] = bad
    with pytest.raises(ValueError, match="code 2 contains"):
        codec().encode(new)


def test_every_damaged_byte_and_every_cut_is_noticed() -> None:
    made = codec()
    (blob,) = made.encode(codes(1))
    damaged = [
        blob[:i] + bytes([blob[i] ^ 1 << bit]) + blob[i + 1 :] for i in range(len(blob)) for bit in range(8)
    ]
    damaged += [blob[:length] for length in range(len(blob))] + [b"", blob[::-1], b"\xff" * 10_000, bytes(50)]
    for wrong in damaged:
        # The last bits of a range coder may not matter: then the very same code comes out.
        try:
            back = made.decode([wrong])
        except BadImage as error:
            assert error.reason == "truncated"
            assert "blob 0" in error.detail
        else:
            np.testing.assert_array_equal(back, made.decode([blob]))
    with pytest.raises(BadImage):
        made.decode([blob, blob[:-2]])


def test_another_codec_refuses_the_blob() -> None:
    with pytest.raises(BadImage):
        codec(0.51).decode(codec(0.5).encode(codes(1)))


def test_a_codec_comes_back_from_json() -> None:
    made = codec()
    text = json.dumps(made.to_json(), allow_nan=False)
    again = LatentCodec.from_json(json.loads(text))
    assert again.encode(codes()) == made.encode(codes())
    np.testing.assert_array_equal(again.decode(made.encode(codes())), made.decode(made.encode(codes())))
    assert len(text) < 30 * 2 * 24 + 100


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"step": 0},
        {"mean": [0.0]},
        {"deviation": [-1.0] * 24},
        {"mean": [float("nan")] * 24},
        {"mean": [0.0] * 20_000, "deviation": [1.0] * 20_000},
        {"more": 1},
    ],
)
def test_damaged_json_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="not a codec of latents"):
        LatentCodec.from_json(codec().to_json() | change)


@pytest.mark.parametrize(
    "sample",
    [codes(1), np.ones((5, 3), np.float32), np.full((5, 3), np.nan, np.float32), np.ones(4, np.float32)],
)
def test_a_sample_that_says_nothing_is_refused(sample: Codes) -> None:
    with pytest.raises(DataError):
        LatentCodec.fit(sample, LatentSettings())


def test_codes_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(N, 24\)"):
        codec().encode(codes()[:, :5])


def test_a_step_of_nothing_is_refused() -> None:
    with pytest.raises(ValidationError):
        LatentSettings(step=0)
