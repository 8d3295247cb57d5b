"""Weights of bundles: safetensors files that are read only if they are those of the network."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Set
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from genray.errors import BundleMismatch, BundleMissing

AGAIN = "the bundle is incomplete or damaged: copy it again, or train it again"
"""Hint of errors of a bundle that is not whole."""

_DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
}
"""Types by their names in safetensors files."""
_SMALLER = {torch.float32: torch.float16}
"""Types that weights may be stored in, instead of the network's."""


def sha256_of(file: Path) -> str:
    """Return the SHA-256 of a file, as 64 hexadecimal digits."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check_whole(weights: Path, checksum: str) -> None:
    """Check a file of weights by its SHA-256.

    Raises:
        BundleMismatch: it is another one.
    """
    if sha256_of(weights) != checksum:
        raise BundleMismatch(
            "the weights are damaged: their checksum is not the manifest's", where=str(weights), hint=AGAIN
        )


def read_weights(file: Path, expected: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Read the tensors of `file`, which must have the expected names, shapes and types; float16 is read as
    the network's float32.

    Raises:
        BundleMismatch: they have others.
        BundleMissing: the file cannot be read.
    """
    try:
        with safe_open(file, framework="pt") as tensors:
            _check_names(file, expected.keys(), set(tensors.keys()))
            state = {}
            for name, tensor in expected.items():
                # Checked by the header, before the bytes are read.
                stored = tensors.get_slice(name)
                shape = tuple(stored.get_shape())
                if shape != tuple(tensor.shape):
                    raise BundleMismatch(
                        f"{name} has shape {shape}, the network's is {tuple(tensor.shape)}", where=str(file)
                    )
                dtype = _DTYPES.get(stored.get_dtype(), stored.get_dtype())
                if dtype not in (tensor.dtype, _SMALLER.get(tensor.dtype)):
                    raise BundleMismatch(
                        f"{name} is {dtype}, the network's is {tensor.dtype}", where=str(file)
                    )
                state[name] = tensors.get_tensor(name).to(tensor.dtype)
    except (SafetensorError, OSError) as error:
        raise BundleMissing(f"cannot read the weights: {error}", where=str(file), hint=AGAIN) from error
    return state


def _check_names(file: Path, expected: Set[str], stored: Set[str]) -> None:
    differences = []
    if missing := sorted(expected - stored):
        differences.append(f"missing {_first_few(missing)}")
    if extra := sorted(stored - expected):
        differences.append(f"left over {_first_few(extra)}")
    if differences:
        raise BundleMismatch(
            f"the weights are not those of the network: {'; '.join(differences)}", where=str(file)
        )


def _first_few(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def check_finite(state: Mapping[str, torch.Tensor], file: Path) -> None:
    """Check that all weights are finite; `file` is where they were read.

    Raises:
        BundleMismatch: some are NaN or infinite.
    """
    wrong = {
        name: int((~torch.isfinite(tensor)).sum())
        for name, tensor in state.items()
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all())
    }
    if wrong:
        name, count = next(iter(wrong.items()))
        raise BundleMismatch(
            f"weights are NaN or infinite: {count} in {name}"
            + (f", and in {len(wrong) - 1} more tensors" if len(wrong) > 1 else ""),
            where=str(file),
            hint="train it again: the training diverged",
        )
