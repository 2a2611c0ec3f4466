"""add and mul: two operands element by element, broadcast, f32 and quantized.

Turns two operand types and their quantizations into one nest over at most four axes; an operand
that repeats along an axis has the coefficient 0 there. Activations of one operand are in
`elementwise`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..dsl import loops as sf
from ..dsl.errors import OperandError
from ..dsl.types import OperandType, Scalar, f32, i8, i32, i64, u8
from ..kernel import Kernel, kernel
from .elementwise import quantized
from .layer import Layer, Step
from .op import op
from .quantization import (
    ACTIVATIONS,
    Quantization,
    bounds,
    checked_activation,
    checked_rounding,
    factors,
    fixed,
)
from .window import nonempty, typed

MAX_AXES = 4
# XNNPACK's sum takes scale ratios in this range; LiteRT computes others by TensorFlow Lite's rule.
RATIOS = (2.0**-10, 2.0**8)


@kernel
def add_f32(
    a, b, out, *, a0=1, a1=1, a2=1, a3=1, b0=1, b1=1, b2=1, b3=1,
    lowest=-math.inf, highest=math.inf, clipped=0
):  # fmt: skip
    """out[i,j,k,m] = clip(a[i*a0, j*a1, k*a2, m*a3] + b[i*b0, j*b1, k*b2, m*b3])."""
    for i, j, k, m in sf.grid(out.shape):
        v = a[i * a0, j * a1, k * a2, m * a3] + b[i * b0, j * b1, k * b2, m * b3]
        out[i, j, k, m] = sf.clip(v, lowest, highest) if clipped else v


@kernel
def mul_f32(
    a, b, out, *, a0=1, a1=1, a2=1, a3=1, b0=1, b1=1, b2=1, b3=1,
    lowest=-math.inf, highest=math.inf, clipped=0
):  # fmt: skip
    """out[i,j,k,m] = clip(a[i*a0, j*a1, k*a2, m*a3] * b[i*b0, j*b1, k*b2, m*b3])."""
    for i, j, k, m in sf.grid(out.shape):
        v = a[i * a0, j * a1, k * a2, m * a3] * b[i * b0, j * b1, k * b2, m * b3]
        out[i, j, k, m] = sf.clip(v, lowest, highest) if clipped else v


@kernel
def add_integers(a, b, out, *, a0=1, a1=1, a2=1, a3=1, b0=1, b1=1, b2=1, b3=1):
    """out[i,j,k,m] = a + b in i32."""
    for i, j, k, m in sf.grid(out.shape):
        out[i, j, k, m] = i32(a[i * a0, j * a1, k * a2, m * a3] + b[i * b0, j * b1, k * b2, m * b3])


@kernel
def mul_integers(a, b, out, *, a0=1, a1=1, a2=1, a3=1, b0=1, b1=1, b2=1, b3=1):
    """out[i,j,k,m] = a * b in i32."""
    for i, j, k, m in sf.grid(out.shape):
        out[i, j, k, m] = i32(a[i * a0, j * a1, k * a2, m * a3] * b[i * b0, j * b1, k * b2, m * b3])


def _to_8_bits(to: Scalar) -> dict[tuple[str, str], Kernel]:
    """The quantized nests that store `to`, by op and rounding."""

    @kernel
    def add_float(
        a, b, out, *, a0=1, a1=1, a2=1, a3=1, b0=1, b1=1, b2=1, b3=1, zero_a=0, zero_b=0,
        factor_a=1, factor_b=1, half=0, right=0, zero_point=0, lowest=0, highest=255
    ):  # fmt: skip
        """out = clip(((a - zero_a) * factor_a + (b - zero_b) * factor_b + half) >> right +
        zero_point): XNNPACK, qs8-vadd.
        """
        for i, j, k, m in sf.grid(out.shape):
            p = (i32(a[i * a0, j * a1, k * a2, m * a3]) - zero_a) * factor_a
            q = (i32(b[i * b0, j * b1, k * b2, m * b3]) - zero_b) * factor_b
            v = ((p + q + half) >> right) + zero_point
            out[i, j, k, m] = to(sf.clip(v, lowest, highest), saturate=True)

    @kernel
    def add_fixed(
        a, b, out, *, a0=1, a1=1, a2=1, a3=1, b0=1, b1=1, b2=1, b3=1, zero_a=0, zero_b=0,
        factor_a=1, half_a=0, down_a=0, right_a=0, factor_b=1, half_b=0, down_b=0, right_b=0,
        factor=1, left=0, half=0, down=0, right=0, zero_point=0, lowest=0, highest=255
    ):  # fmt: skip
        """out = clip(s(s(a - zero_a) + s(b - zero_b)) + zero_point), s being TensorFlow Lite's
        fixed-point product in its two roundings, of values with 20 fraction bits.
        """
        for i, j, k, m in sf.grid(out.shape):
            wide_a = i64(a[i * a0, j * a1, k * a2, m * a3]) - zero_a
            p = ((wide_a << 20) * factor_a + (1 << 30)) >> 31
            p = (p + (down_a if p < 0 else half_a)) >> right_a
            wide_b = i64(b[i * b0, j * b1, k * b2, m * b3]) - zero_b
            q = ((wide_b << 20) * factor_b + (1 << 30)) >> 31
            q = (q + (down_b if q < 0 else half_b)) >> right_b
            total = i64(i32((p + q) << left, wrap=True))
            v = (total * factor + (1 << 30)) >> 31
            v = (v + (down if v < 0 else half)) >> right
            out[i, j, k, m] = to(sf.clip(v + zero_point, lowest, highest), saturate=True)

    @kernel
    def mul_float(
        a, b, out, *, a0=1, a1=1, a2=1, a3=1, b0=1, b1=1, b2=1, b3=1, zero_a=0, zero_b=0,
        scale=1.0, zero_point=0, lowest=0.0, highest=255.0
    ):  # fmt: skip
        """out = clip(round(f32((a - zero_a) * (b - zero_b)) * scale)) + zero_point: XNNPACK,
        qs8-vmul.
        """
        for i, j, k, m in sf.grid(out.shape):
            p = i32(a[i * a0, j * a1, k * a2, m * a3]) - zero_a
            q = i32(b[i * b0, j * b1, k * b2, m * b3]) - zero_b
            v = sf.clip(f32(p * q) * scale, lowest, highest)
            out[i, j, k, m] = to(i32(sf.round(v), saturate=True) + zero_point, saturate=True)

    @kernel
    def mul_fixed(
        a, b, out, *, a0=1, a1=1, a2=1, a3=1, b0=1, b1=1, b2=1, b3=1, zero_a=0, zero_b=0,
        factor=1, left=0, half=0, down=0, right=0, zero_point=0, lowest=0, highest=255
    ):  # fmt: skip
        """out = clip((a - zero_a) * (b - zero_b) * 2^left * factor / 2^31 / 2^right + zero_point)
        in TensorFlow Lite's two roundings.
        """
        for i, j, k, m in sf.grid(out.shape):
            p = i64(a[i * a0, j * a1, k * a2, m * a3]) - zero_a
            q = i64(b[i * b0, j * b1, k * b2, m * b3]) - zero_b
            total = i64(i32((p * q) << left, wrap=True))
            v = (total * factor + (1 << 30)) >> 31
            v = (v + (down if v < 0 else half)) >> right
            out[i, j, k, m] = to(sf.clip(v + zero_point, lowest, highest), saturate=True)

    return {
        ("add", "float"): add_float,
        ("add", "tflite"): add_fixed,
        ("mul", "float"): mul_float,
        ("mul", "tflite"): mul_fixed,
    }


QUANTIZED = {to: _to_8_bits(to) for to in (u8, i8)}
PLAIN = {
    ("add", f32): add_f32,
    ("mul", f32): mul_f32,
    ("add", i32): add_integers,
    ("mul", i32): mul_integers,
}


def _shape(name: str) -> Any:
    """The shape rule of a broadcast operation."""

    def rule(
        a: OperandType,
        b: OperandType,
        *,
        activation: str | None = None,
        a_q: Quantization | None = None,
        b_q: Quantization | None = None,
        y_q: Quantization | None = None,
        rounding: str = "float",
        **_: Any,
    ) -> OperandType:
        activation = checked_activation(name, activation)
        if checked_rounding(name, rounding) == "onnx":
            raise OperandError(
                f"{name}: rounding='onnx' has no definition here; 'float' and 'tflite' do. Use one."
            )
        typed(name, "a", a, (f32, u8, i8))
        typed(name, "b", b, (a.scalar,))
        for key, x in (("a", a), ("b", b)):
            nonempty(name, key, x)
        try:
            shape = np.broadcast_shapes(a.shape, b.shape)
        except ValueError:
            raise OperandError(
                f"{name}: a {list(a.shape)} and b {list(b.shape)} do not broadcast; sizes that are "
                "equal or 1, counted from the last axis, do. Reshape one."
            ) from None
        if len(_merged(a.shape, b.shape, shape)[0]) > MAX_AXES:
            raise OperandError(
                f"{name}: a {list(a.shape)} and b {list(b.shape)} change sides of the broadcast "
                f"more than {MAX_AXES - 1} times; fewer are allowed. Use np.broadcast_to first."
            )
        if a_q is None and b_q is None and y_q is None:
            if a.scalar != f32 and activation is not None:
                raise OperandError(
                    f"{name}: activation={activation!r} of i32 results is not defined; it is for "
                    "f32 and quantized results. Give quantizations, or None."
                )
            return (f32 if a.scalar == f32 else i32)[shape]
        quantized(name, a, a_q=a_q, b_q=b_q, y_q=y_q)
        return a.scalar[shape]

    return rule


def _merged(
    a: tuple[int, ...], b: tuple[int, ...], out: tuple[int, ...]
) -> tuple[list[int], list[int], list[int]]:
    """(sizes, 1 where a runs, 1 where b runs), neighbouring axes of one kind joined."""
    sizes: list[int] = []
    runs: list[tuple[int, int]] = []
    a, b = ((1,) * (len(out) - len(s)) + s for s in (a, b))
    for n, p, q in zip(out, a, b, strict=True):
        if n == 1:
            continue
        kind = int(p == n), int(q == n)
        if runs and runs[-1] == kind:
            sizes[-1] *= n
        else:
            sizes.append(n)
            runs.append(kind)
    return sizes, [p for p, _ in runs], [q for _, q in runs]


def _layer(
    name: str,
    a: OperandType,
    b: OperandType,
    out: OperandType,
    nest: Kernel,
    constants: dict[str, Any],
    target: Any,
    dataflow: Any,
) -> Layer:
    sizes, runs_a, runs_b = _merged(a.shape, b.shape, out.shape)
    ahead = MAX_AXES - len(sizes)
    sizes = [1] * ahead + sizes
    for operand, runs in (("a", [1] * ahead + runs_a), ("b", [1] * ahead + runs_b)):
        constants |= {f"{operand}{i}": v for i, v in enumerate(runs)}
    seen = {
        operand: tuple(n if constants[f"{operand}{i}"] else 1 for i, n in enumerate(sizes))
        for operand in ("a", "b")
    }
    view = tuple(sizes)
    made = nest.specialize(
        a=a.scalar[seen["a"]],
        b=b.scalar[seen["b"]],
        out=out.scalar[view],
        target=target,
        dataflow=dataflow,
        **constants,
    )
    return Layer(seen, out, (Step(made, ("a", "b"), "out", view),))


def _limits(activation: str | None, out: OperandType) -> dict[str, Any]:
    low, high = ACTIVATIONS[checked_activation("add", activation)]
    if out.scalar != f32 or low is None:
        return {}
    return {"lowest": low, "highest": math.inf if high is None else high, "clipped": 1}


@op(_shape("add"), inputs=2)
def add(
    a: OperandType,
    b: OperandType,
    *,
    activation: str | None = None,
    a_q: Quantization | None = None,
    b_q: Quantization | None = None,
    y_q: Quantization | None = None,
    rounding: str = "float",
    target: Any = None,
    dataflow: Any = None,
) -> Layer:
    """out = activation(a + b), broadcast as numpy does: f32; u8 or i8 to i32; or 8 bits with `a_q`,
    `b_q` and `y_q`.

    "float" is XNNPACK's sum of 20-bit products (outside its range of scales TensorFlow Lite's, as
    in LiteRT), "tflite" that of TensorFlow Lite's reference kernels; see
    `ops.reference.quantized_add`. Raises OperandError for types and shapes that do not go together.
    """
    options = {"activation": activation, "a_q": a_q, "b_q": b_q, "y_q": y_q, "rounding": rounding}
    out = _shape("add")(a, b, **options)
    if a_q is None or b_q is None or y_q is None:
        constants = _limits(activation, out)
        return _layer("add", a, b, out, PLAIN["add", out.scalar], constants, target, dataflow)
    ratios = a_q.single / y_q.single, b_q.single / y_q.single
    rule = rounding if all(RATIOS[0] <= r < RATIOS[1] for r in ratios) else "tflite"
    low, high = bounds(checked_activation("add", activation), y_q, out.scalar, rounding)
    constants = {
        "zero_a": a_q.zero_point,
        "zero_b": b_q.zero_point,
        "zero_point": y_q.zero_point,
        "lowest": low,
        "highest": high,
    }
    if rule == "float":
        right = 21 - math.frexp(float(max(ratios)))[1]
        first, second = (round(math.ldexp(float(r), right)) for r in ratios)
        constants |= {"factor_a": first, "factor_b": second}
        constants |= {"half": 1 << (right - 1), "right": right}
    else:
        twice = 2 * max(float(a_q.single), float(b_q.single))
        for side, q in (("a", a_q), ("b", b_q)):
            found = _fixed(float(q.single) / twice)
            assert found.pop("left") == 0, "a ratio of at most one half"
            constants |= {f"{k}_{side}": v for k, v in found.items()}
        constants |= _fixed(twice / (2**20 * float(y_q.single)))
    return _layer("add", a, b, out, QUANTIZED[out.scalar]["add", rule], constants, target, dataflow)


def _fixed(real: float) -> dict[str, int]:
    """A multiplier as constants: halves are rounded up by `half`, below zero by `down`."""
    factor, left, right = (int(v[0]) for v in fixed(real))
    half = (1 << right) >> 1
    return {
        "factor": factor,
        "left": left,
        "half": half,
        "down": max(half - 1, 0),
        "right": right,
    }


@op(_shape("mul"), inputs=2)
def mul(
    a: OperandType,
    b: OperandType,
    *,
    activation: str | None = None,
    a_q: Quantization | None = None,
    b_q: Quantization | None = None,
    y_q: Quantization | None = None,
    rounding: str = "float",
    target: Any = None,
    dataflow: Any = None,
) -> Layer:
    """out = activation(a * b), broadcast as numpy does: f32; u8 or i8 to i32; or 8 bits with `a_q`,
    `b_q` and `y_q`.

    Rules as in `ops.reference.quantized_mul`; options and errors are those of `add`.
    """
    options = {"activation": activation, "a_q": a_q, "b_q": b_q, "y_q": y_q, "rounding": rounding}
    out = _shape("mul")(a, b, **options)
    if a_q is None or b_q is None or y_q is None:
        constants = _limits(activation, out)
        return _layer("mul", a, b, out, PLAIN["mul", out.scalar], constants, target, dataflow)
    low, high = bounds(checked_activation("mul", activation), y_q, out.scalar, rounding)
    zero = y_q.zero_point
    scale = float(factors(a_q, b_q, y_q))
    constants = {"zero_a": a_q.zero_point, "zero_b": b_q.zero_point, "zero_point": zero}
    if rounding == "float":
        constants |= {"scale": scale, "lowest": float(low - zero), "highest": float(high - zero)}
    else:
        constants |= _fixed(scale) | {"lowest": low, "highest": high}
    nest = QUANTIZED[out.scalar]["mul", rounding]
    return _layer("mul", a, b, out, nest, constants, target, dataflow)
