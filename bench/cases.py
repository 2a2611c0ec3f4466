"""One layer as a benchmark case: its shape, its random tensors, and the result computed in numpy.

A case says what is computed and a problem adds the numbers; how an engine computes it is told by
bench/peers and bench/ours.py. The reference sums in float64, which is exact for integers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

BORDERED = "bordered"  # a run whose input has its border before the call, as inside a network
INT8_ZERO = 128  # the u8 zero point of an output that may be negative


class Unsupported(Exception):
    """An engine cannot run a case; the message says why."""


@dataclass(frozen=True)
class Case:
    """A layer at batch 1.

    op      "conv2d", "depthwise_conv2d", or "dense" (h = w = 1, `ic` inputs, `oc` outputs)
    dtype   "f32", "int8" (u8 activations, i8 weights, u8 out), "bit" (+1 and -1, i32 sums out)

    Padding is TFLite's SAME, with the odd row at the bottom and right: the one form that every
    engine takes without a separate padding layer. The border of bits is +1.
    """

    network: str
    op: str
    h: int
    w: int
    ic: int
    oc: int
    k: int = 1
    stride: int = 1
    relu: bool = True
    dtype: str = "f32"

    @property
    def name(self) -> str:
        if self.op == "dense":
            return f"{self.network} dense {self.ic}-{self.oc} {self.dtype}"
        kind = "dw" if self.op == "depthwise_conv2d" else "conv"
        stride = f"s{self.stride}" if self.stride > 1 else ""
        shape = f"{self.h}x{self.w}x{self.ic}-{self.oc}"
        return f"{self.network} {kind}{self.k}x{self.k}{stride} {shape} {self.dtype}"

    @property
    def oh(self) -> int:
        return -(-self.h // self.stride)

    @property
    def ow(self) -> int:
        return -(-self.w // self.stride)

    @property
    def padding(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """((top, bottom), (left, right))."""
        totals = [
            max((out - 1) * self.stride + self.k - size, 0)
            for out, size in ((self.oh, self.h), (self.ow, self.w))
        ]
        (top, bottom), (left, right) = [(t // 2, t - t // 2) for t in totals]
        return (top, bottom), (left, right)

    @property
    def reduction(self) -> int:
        """Products summed into one output."""
        return self.k * self.k * (1 if self.op == "depthwise_conv2d" else self.ic)

    @property
    def outputs(self) -> int:
        return self.oh * self.ow * self.oc

    @property
    def macs(self) -> int:
        return self.outputs * self.reduction

    @property
    def weight_bytes(self) -> int:
        count = self.reduction * self.oc
        return {"f32": 4 * count, "int8": count, "bit": count // 8}[self.dtype]


@dataclass(frozen=True)
class Problem:
    """A case and its numbers.

    x           [n, h, w, ic]; dense [1, ic]
    w           [kh, kw, ic, oc]; depthwise [kh, kw, c]; dense [ic, oc]
    bias        [oc], f32 or i32
    expected    the result, [n, oh, ow, oc] or [1, oc]
    tolerance   f32: how far each output may be off, (reduction + 1) * eps * sum |x w|, the error
                bound of a sum in any order; else None

    int8 means, in every engine: real x = x_scale * x, w = w_scale[oc] * w, y = y_scale *
    (y - y_zero), and the bias has the scale x_scale * w_scale[oc]. The result is rounded as
    XNNPACK does: rint(f32(sum + bias) * f32(x_scale * w_scale / y_scale)) + y_zero, saturated.
    """

    case: Case
    x: np.ndarray
    w: np.ndarray
    bias: np.ndarray
    expected: np.ndarray
    tolerance: np.ndarray | None = None
    x_scale: float = 1.0
    w_scale: np.ndarray | None = None
    y_scale: float = 1.0
    y_zero: int = 0

    @property
    def multiplier(self) -> np.ndarray:
        """One factor an output channel, from sums to outputs; each step rounds to f32."""
        if self.w_scale is None:
            raise ValueError(f"{self.case.name}: dtype={self.case.dtype} has no multiplier")
        real = np.float32(self.x_scale) * self.w_scale / np.float32(self.y_scale)
        return real.astype(np.float32)


@dataclass(frozen=True)
class Run:
    """One engine, ready: `call()` does one inference, `output()` copies the last result as NHWC.

    The buffers are bound before: a call passes and copies nothing.

    note        how it runs
    copying     where the input of `call` is "bordered": the same from one that is not, into the
                same output
    """

    call: Callable[[], object]
    output: Callable[[], np.ndarray]
    note: str = ""
    copying: Callable[[], object] | None = None


def problem(case: Case, seed: int = 0) -> Problem:
    """Random tensors for `case` and what its result must be."""
    rng = np.random.default_rng(seed)
    dense, depthwise = case.op == "dense", case.op == "depthwise_conv2d"
    x_shape = (1, case.ic) if dense else (1, case.h, case.w, case.ic)
    kernel = (case.k, case.k, case.oc) if depthwise else (case.k, case.k, case.ic, case.oc)
    w_shape = (case.ic, case.oc) if dense else kernel
    x: np.ndarray
    w: np.ndarray
    if case.dtype == "bit":
        x, w = (
            rng.integers(0, 2, s, np.int8) * np.int8(2) - np.int8(1) for s in (x_shape, w_shape)
        )
        sums = sums_of(case, x, w, border=1)
        return Problem(case, x, w, np.zeros(case.oc, np.int32), sums.astype(np.int32))
    if case.dtype == "f32":
        x = rng.standard_normal(x_shape, np.float32)
        w = rng.standard_normal(w_shape, np.float32) * np.float32(1 / np.sqrt(case.reduction))
        bias = rng.standard_normal(case.oc, np.float32)
        sums = sums_of(case, x, w) + bias
        terms = sums_of(case, np.abs(x), np.abs(w)) + np.abs(bias)
        tolerance = (case.reduction + 1) * float(np.finfo(np.float32).eps) * terms
        return Problem(case, x, w, bias, np.maximum(sums, 0) if case.relu else sums, tolerance)
    x = rng.integers(0, 256, x_shape, np.uint8)
    w = rng.integers(-127, 128, w_shape, np.int8)
    x_scale = float(np.float32(0.02))
    w_scale = rng.uniform(0.005, 0.02, case.oc).astype(np.float32)
    # The inputs are positive: the bias takes the mean away, else whole channels would be clipped.
    mean = 127.5 * w.reshape(-1, case.oc).sum(0, dtype=np.int64)
    bias = (-mean + rng.integers(-500, 501, case.oc)).astype(np.int32)
    sums = (sums_of(case, x, w) + bias).astype(np.int64)
    y_scale = float(np.float32(4 * (sums * (x_scale * w_scale.astype(np.float64))).std() / 255))
    y_zero = 0 if case.relu else INT8_ZERO
    found = Problem(case, x, w, bias, sums, None, x_scale, w_scale, y_scale, y_zero)
    scaled = np.rint(sums.astype(np.float32) * found.multiplier) + y_zero
    expected = np.clip(scaled, y_zero if case.relu else 0, 255).astype(np.uint8)
    return Problem(case, x, w, bias, expected, None, x_scale, w_scale, y_scale, y_zero)


def sums_of(case: Case, x: np.ndarray, w: np.ndarray, border: int = 0) -> np.ndarray:
    """out[n,oh,ow,oc] = sum over kh, kw, ic of x * w in float64: one product of matrices a tap."""
    if case.op == "dense":
        # By rows, so that the float64 copy of a large weight matrix stays small.
        rows = range(0, case.ic, 1024)
        return sum(
            (
                x[:, r : r + 1024].astype(np.float64) @ w[r : r + 1024].astype(np.float64)
                for r in rows
            ),
            start=np.zeros((1, case.oc)),
        )
    bordered = np.pad(x, ((0, 0), *case.padding, (0, 0)), constant_values=border).astype(np.float64)
    out, s = np.zeros((1, case.oh, case.ow, case.oc)), case.stride
    for kh in range(case.k):
        for kw in range(case.k):
            tap = bordered[
                :, kh : kh + (case.oh - 1) * s + 1 : s, kw : kw + (case.ow - 1) * s + 1 : s
            ]
            weights = w[kh, kw].astype(np.float64)
            out += tap * weights if case.op == "depthwise_conv2d" else tap @ weights
    return out


def mismatch(found: np.ndarray, problem: Problem, lsb: int) -> str:
    """Why `found` is not the expected result, or ""; integers may differ by `lsb`."""
    if found.shape != problem.expected.shape:
        return f"output shape {found.shape} instead of {problem.expected.shape}"
    difference = np.abs(found.astype(np.float64) - problem.expected.astype(np.float64))
    if problem.tolerance is not None:
        wrong = int(np.count_nonzero(~(difference <= problem.tolerance)))  # also counts NaN
        return f"{wrong} outputs beyond the f32 error bound" if wrong else ""
    return f"output differs by up to {difference.max():g}" if difference.max() > lsb else ""
