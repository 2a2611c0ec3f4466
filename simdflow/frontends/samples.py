"""Turns files of arrays into inputs of a network: .npy and .npz in, arrays of the model's type out.

Values of the model's own type pass unchanged; other numbers are real values, which a quantized
model's scale and zero point turn into integers. Nothing stored in a file is executed.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..dsl.errors import OperandError
from ..graph.model import Model


@dataclass(frozen=True, eq=False)
class Samples:
    """`inputs` [n, ...] of the network's input type, and a line that says how they came about."""

    inputs: np.ndarray
    note: str


def arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a .npz by name, or {"": array} of a .npy; OperandError if it has none."""
    try:
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return {"": found}
        with found:
            return {name: found[name] for name in found.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise OperandError(
            f"run: file={str(path)!r} cannot be read: {error}. Give a .npy or .npz file of numbers"
        ) from error


def chosen(data: dict[str, np.ndarray], key: str | None, usual: str, path: Path) -> np.ndarray:
    """The array called `key`, else the only one, else the one called `usual`."""
    if len(data) == 1 and key in (None, "", usual, *data):
        return next(iter(data.values()))
    name = key or usual
    if name not in data:
        raise OperandError(
            f"run: key={name!r} is not in {str(path)!r}; {', '.join(data) or 'nothing'} is. "
            "Name the array with --key or --golden-key"
        )
    return data[name]


def inputs(values: np.ndarray, model: Model, scale: float = 1.0) -> Samples:
    """`values` [n, ...] or [...] as inputs of a model with one.

    Of the model's own type and with scale 1: unchanged. Otherwise they are real values:
    `q = clamp(round_half_even(values * scale / s) + z)` for a quantized model, `values * scale` for
    an f32 one. Raises OperandError for other shapes, and for values that are no finite numbers.
    """
    if len(model.inputs) != 1:
        raise OperandError(
            f"run: inputs={len(model.inputs)}; a network with one is run from a file. Use the "
            "Python interface"
        )
    kind = model.inputs[0].type
    one, want = kind.shape[1:], kind.scalar.dtype
    if values.shape == one:
        values = values[np.newaxis]
    if values.ndim != len(kind.shape) or values.shape[1:] != one or len(values) == 0:
        raise OperandError(
            f"run: input={values.dtype}{list(values.shape)} does not fit; any number of "
            f"{want}{list(one)} does. Reshape the array, or choose another with --key"
        )
    shown = f"input     {values.dtype}{list(values.shape)}"
    if values.dtype == want and scale == 1.0:
        return Samples(values, f"{shown}, as it is")
    if values.dtype.kind not in "fiub" or not np.all(np.isfinite(values)):
        raise OperandError(
            f"run: input={values.dtype} holds something other than finite numbers; only they can "
            "be converted. Clean the array"
        )
    real = values.astype(np.float32) * np.float32(scale)
    meaning = model.inputs[0].quantization
    if meaning is None:
        return Samples(real.astype(want), f"{shown} times {scale:g} as {want}")
    (step, *_), zero_point = meaning
    bounds = np.iinfo(want)
    q = np.rint(real / np.float32(step)) + zero_point
    outside = np.count_nonzero((q < bounds.min) | (q > bounds.max))
    note = (
        f"{shown} times {scale:g}, taken as real values and quantized to {want}: scale "
        f"{step:g}, zero point {zero_point}; {outside} of {q.size} values "
        "lie outside and were clamped"
    )
    return Samples(np.clip(q, bounds.min, bounds.max).astype(want), note)
