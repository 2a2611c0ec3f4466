"""Turns a model and its outputs into lines of text for `simdflow run`.

It decides how results look and computes none of them.
"""

from __future__ import annotations

import numpy as np

from ..graph.model import Model
from ..graph.network import Port


def heading(model: Model) -> str:
    """Three lines or more: the network and its target, the types at both ends."""
    tasks = model.network.tasks
    macs = sum(t.macs for t in tasks)
    threads = f", {model.threads} threads" if model.threads > 1 else ""
    lines = [f"{model.name}: {len(tasks)} kernels, {macs / 1e6:.2f} MMAC, target {model.target}"
             f"{threads}"]  # fmt: skip
    lines += [f"takes     {_port(p)}" for p in model.inputs]
    lines += [f"gives     {_port(p)}" for p in model.outputs]
    return "\n".join(lines)


def _port(port: Port) -> str:
    if port.quantization is None:
        return str(port)
    (scale, *_), zero = port.quantization
    return f"{port}, real = {scale:g} * (q {'-' if zero > 0 else '+'} {abs(zero)})"


def shown(array: np.ndarray) -> str:
    """`i8[1, 32, 32, 3]` of an array."""
    scalar = f"{array.dtype.kind}{8 * array.dtype.itemsize}"
    return f"{scalar}[{', '.join(map(str, array.shape))}]"


MOST_LINES = 16


def results(model: Model, outputs: np.ndarray, labels: np.ndarray | None, top: int) -> str:
    """One line for each of the first inputs: the `top` largest outputs as index and real value.

    `labels` [n or more] adds a column and a last line with the share that was right. An output of
    more than one axis is summed up by its range instead: it is no list of classes.
    """
    real = outputs.astype(np.float32)
    if (meaning := model.outputs[0].quantization) is not None:
        scales, zero_point = meaning
        real = (real - zero_point) * np.float32(scales[0])
    if outputs.ndim != 2:
        return "\n".join(
            f"input {at}: {list(y.shape)} values from {y.min():g} to {y.max():g}, mean {y.mean():g}"
            for at, y in enumerate(real[:MOST_LINES])
        )
    lines = []
    if labels is not None and (labels.ndim != 1 or len(labels) < len(outputs)):
        labels = None
    for at, y in enumerate(real[:MOST_LINES]):
        best = np.argsort(-y, kind="stable")[:top]
        found = ", ".join(f"{c} ({y[c]:.4g})" for c in best)
        wanted = "" if labels is None else f"   label {labels[at]}"
        lines.append(f"input {at}: {found}{wanted}")
    if len(real) > MOST_LINES:
        lines.append(f"... and {len(real) - MOST_LINES} more")
    if labels is not None:
        right = int(np.sum(real.argmax(axis=1) == labels[: len(real)]))
        lines.append(f"{right} of {len(real)} labels right ({100 * right / len(real):.1f} %)")
    return "\n".join(lines)


def difference(outputs: np.ndarray, golden: np.ndarray) -> str:
    """What differs from the first rows of `golden`, "" if nothing does."""
    count = min(len(outputs), len(golden))
    if outputs.shape[1:] != golden.shape[1:] or outputs.dtype != golden.dtype or count == 0:
        return f"{shown(golden)} cannot be compared with {shown(outputs)}"
    ours, theirs = outputs[:count], golden[:count]
    if np.array_equal(ours, theirs):
        return ""
    apart = np.abs(ours.astype(np.float64) - theirs.astype(np.float64))
    return (
        f"{np.count_nonzero(apart)} of {apart.size} values differ, by {apart.max():g} at most "
        f"(the largest value is {np.abs(theirs.astype(np.float64)).max():g})"
    )
