"""Turns a network, its outputs and its times into lines of text for `simdflow run`.

It decides how results look and computes none of them.
"""

from __future__ import annotations

import numpy as np

from .layerwise import Network, Quantized


def heading(network: Network) -> str:
    """Three lines: the network and its target, the types at both ends."""
    macs = sum(step.macs for step in network.steps)
    layers = sum(step.call is not None for step in network.steps)
    return (
        f"{network.name}: {layers} layers, {macs / 1e6:.2f} MMAC, target {network.target}\n"
        f"takes     {shown(network.input)}{_real(network.input_quantized)}\n"
        f"gives     {shown(network.output)}{_real(network.output_quantized)}"
    )


def shown(array: np.ndarray) -> str:
    """`i8[1, 32, 32, 3]` of an array."""
    scalar = f"{array.dtype.kind}{8 * array.dtype.itemsize}"
    return f"{scalar}[{', '.join(map(str, array.shape))}]"


def _real(quantized: Quantized | None) -> str:
    if quantized is None:
        return ""
    sign = "-" if quantized.zero_point > 0 else "+"
    return f", real = {quantized.scale:g} * (q {sign} {abs(quantized.zero_point)})"


MOST_LINES = 16


def results(network: Network, outputs: np.ndarray, labels: np.ndarray | None, top: int) -> str:
    """One line for each of the first inputs: the `top` largest outputs as index and real value.

    `labels` [n or more] adds a column and a last line with the share that was right. An output of
    more than one axis is summed up by its range instead: it is no list of classes.
    """
    real = outputs.astype(np.float32)
    if network.output_quantized:
        quantized = network.output_quantized
        real = (real - quantized.zero_point) * np.float32(quantized.scale)
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


def layer_table(network: Network, times: tuple[list[float], float]) -> str:
    """Each step with its time, its share of all and its rate; then the whole."""
    each, whole = times
    rows = [("layer", "output", "us", "share", "GMAC/s")]
    for at, (step, us) in enumerate(zip(network.steps, each, strict=True)):
        rate = f"{step.macs / us / 1e3:.1f}" if step.macs and us else "-"
        share = f"{100 * us / max(sum(each), 1e-9):.1f} %"
        time = f"{us:.2f}" if step.call is not None else "-"
        rows.append((f"{at:3d} {step.kind} {step.detail}".rstrip(), shown(step.out), time,
                     share if step.call is not None else "-", rate))  # fmt: skip
    macs = sum(step.macs for step in network.steps)
    rows.append(("whole network", "", f"{whole:.2f}", "", f"{macs / whole / 1e3:.1f}"))
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    lines = []
    for row in rows:
        left = [cell.ljust(w) for cell, w in zip(row[:2], widths[:2], strict=True)]
        right = [cell.rjust(w) for cell, w in zip(row[2:], widths[2:], strict=True)]
        lines.append("  ".join(left + right).rstrip())
    return "\n".join(lines)
