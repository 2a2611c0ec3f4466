"""Turns an op's name, arrays and options into the array that the op must give: type, quantization,
activation and all.

The functions beside this file define numbers; here they are put together behind each op's own
signature, so that a graph can be evaluated without a kernel. Quantizations are read by their fields
`scale` and `zero_point`, types by `low`, `high` and `dtype`.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from . import arithmetic, conversion, elementwise, moves, quantized, windows
from . import rounding as rules
from .quantized import Quant
from .windows import Array

# What decides how a kernel is made, and never what it computes.
MAKING = ("target", "dataflow", "algorithm")
# XNNPACK's sum takes scale ratios in this range; LiteRT computes others by TensorFlow Lite's rule.
RATIOS = (2.0**-10, 2.0**8)


def call(name: str, *operands: Any, **options: Any) -> Array:
    """The result of the op called `name` on arrays, in numpy: its shape, type and value.

    `operands` are arrays in the op's order (None for one left out), `options` the op's own;
    `target`, `dataflow` and `algorithm` change nothing. f32 results are rounded once from float64,
    integers are exact. Raises KeyError for a name that has no reference; what an op refuses is not
    checked.
    """
    given = {k: v for k, v in options.items() if k not in MAKING}
    arrays = [a if a is None else np.asarray(a) for a in operands]
    function = _OWN.get(name) or _plain(name)
    # Infinities and NaN are results here, as they are in a kernel.
    with np.errstate(all="ignore"):
        return _narrow(function(*arrays, **given))


def _plain(name: str) -> Callable[..., Any]:
    """The reference function of a name whose signature is that of the op."""
    for module in (arithmetic, conversion, elementwise, moves, windows):
        if callable(vars(module).get(name)) and vars(module)[name].__module__ == module.__name__:
            found: Callable[..., Any] = vars(module)[name]
            return found
    raise KeyError(f"{name} has no reference; the ops of simdflow have. Check the name.")


def _narrow(values: Any) -> Array:
    """f64 as f32, other types as they are."""
    array = np.asarray(values)
    return _as(array, np.float32) if array.dtype == np.float64 else array


def _as(values: Array, dtype: Any) -> Array:
    return np.asarray(values).astype(dtype)


def _quant(q: Any) -> Quant:
    """(scale, zero_point) of a per-tensor quantization."""
    return float(np.asarray(q.scale, np.float32).reshape(-1)[0]), int(q.zero_point)


def _limits(dtype: np.dtype) -> tuple[int, int]:
    info = np.iinfo(dtype)
    return int(info.min), int(info.max)


def _activated(values: Array, activation: str | None) -> Array:
    """A fused activation of real values, NaN stays NaN; f64."""
    low, high = {
        None: (-math.inf, math.inf),
        "none": (-math.inf, math.inf),
        "relu": (0.0, math.inf),
        "relu6": (0.0, 6.0),
        "relu_n1_to_1": (-1.0, 1.0),
    }[activation]
    return elementwise.clip(values, low, high)


def _bounds(activation: str | None, y: Quant, dtype: np.dtype, rule: str) -> tuple[int, int]:
    """The 8-bit clamp of a fused activation; "onnx" has that of "float"."""
    kind = "tflite" if rule == "tflite" else "float"
    return rules.activation_bounds(activation or "none", *y, *_limits(dtype), kind)


# ---- sums of products ---------------------------------------------------------------------------


def _product(name: str) -> Callable[..., Array]:
    """conv2d, depthwise_conv2d or dense with its numbers."""
    sums: Callable[..., Array] = getattr(windows, name)

    def product(
        x: Array,
        w: Array,
        bias: Array | None = None,
        *,
        activation: str | None = None,
        x_q: Any = None,
        w_q: Any = None,
        y_q: Any = None,
        y_type: Any = None,
        rounding: str = "float",
        **window: Any,
    ) -> Array:
        if x.dtype.kind == "f":
            return _activated(sums(x, w, bias, **window), activation)
        if y_q is None:
            return _as(sums(x, w, bias, **window), np.int32)
        # With the zero point taken off, the border of an input is 0.
        acc = sums(x.astype(np.int64) - x_q.zero_point, w, bias, **window)
        dtype = np.dtype(x.dtype if y_type is None else y_type.dtype)
        rule = "double" if (name, rounding) == ("dense", "tflite") else rounding
        low, high = _bounds(activation, _quant(y_q), dtype, rounding)
        return _as(_requantized(acc, x_q, w_q, y_q, rule, low, high), dtype)

    return product


def _requantized(acc: Array, x_q: Any, w_q: Any, y_q: Any, rule: str, low: int, high: int) -> Array:
    scales = _quant(x_q)[0], w_q.scale, _quant(y_q)[0]
    zero = int(y_q.zero_point)
    if rule == "float":
        return rules.requantize_float(acc, rules.float_multiplier(*scales), zero, low, high)
    if rule == "tflite":
        multipliers = rules.fixed_multiplier(*scales)
        return rules.requantize_fixed(acc, *multipliers, zero, low, high)
    exact = {"double": rules.requantize_double, "onnx": rules.requantize_onnx}
    return exact[rule](acc, *scales, zero, low, high)


def _matmul(a: Array, b: Array, **options: Any) -> Array:
    sums = windows.matmul(a, b, **options)
    return _as(sums, np.float32 if a.dtype.kind == "f" else np.int32)


# ---- pools --------------------------------------------------------------------------------------


def _max_pool2d(
    x: Array, *, activation: str | None = None, y_q: Any = None, **window: Any
) -> Array:
    largest = windows.max_pool2d(x, **window)
    if x.dtype.kind == "f":
        return _activated(largest, activation)
    if y_q is None:
        return largest
    return _as(np.clip(largest, *_bounds(activation, _quant(y_q), x.dtype, "tflite")), x.dtype)


def _avg_pool2d(
    x: Array,
    *,
    count_include_pad: bool = False,
    activation: str | None = None,
    y_q: Any = None,
    **window: Any,
) -> Array:
    if x.dtype.kind == "f":
        means = windows.avg_pool2d(x, **window, count_include_pad=count_include_pad)
        return _activated(means, activation)
    low, high = _limits(x.dtype)
    if y_q is not None:
        low, high = _bounds(activation, _quant(y_q), x.dtype, "tflite")
    border = None if not count_include_pad else 0 if y_q is None else int(y_q.zero_point)
    return _as(
        quantized.quantized_avg_pool2d(x, **window, low=low, high=high, border=border), x.dtype
    )


def _global_avg_pool2d(
    x: Array, *, x_q: Any = None, y_q: Any = None, rounding: str = "float"
) -> Array:
    if x_q is None:
        return windows.global_avg_pool2d(x)
    means = quantized.quantized_global_avg_pool2d(
        x, _quant(x_q), _quant(y_q), *_limits(x.dtype), rounding
    )
    return _as(means, x.dtype)


# ---- element by element -------------------------------------------------------------------------


def _binary(name: str) -> Callable[..., Array]:
    """add, sub or mul with its numbers."""
    real: Callable[..., Array] = getattr(arithmetic, name)
    stored: Callable[..., Array] = getattr(quantized, f"quantized_{name}")

    def binary(
        a: Array,
        b: Array,
        *,
        activation: str | None = None,
        a_q: Any = None,
        b_q: Any = None,
        y_q: Any = None,
        rounding: str = "float",
    ) -> Array:
        if a.dtype.kind == "f":
            return _activated(real(a, b), activation)
        if y_q is None:
            return _as(real(a, b), np.int32)
        quants = _quant(a_q), _quant(b_q), _quant(y_q)
        low, high = _bounds(activation, quants[2], a.dtype, rounding)
        ratios = [np.float32(q[0]) / np.float32(quants[2][0]) for q in quants[:2]]
        near = all(RATIOS[0] <= r < RATIOS[1] for r in ratios)
        rule = rounding if near or name == "mul" else "tflite"
        return _as(stored(a, b, *quants, low, high, rule), a.dtype)

    return binary


def _plain_binary(name: str) -> Callable[..., Array]:
    """div, maximum or minimum: an activation is of f32."""
    real: Callable[..., Array] = getattr(arithmetic, name)

    def binary(a: Array, b: Array, *, activation: str | None = None) -> Array:
        result = real(a, b)
        return _activated(result, activation) if a.dtype.kind == "f" else _as(result, a.dtype)

    return binary


def _clip(
    x: Array,
    *,
    low: float,
    high: float,
    x_q: Any = None,
    y_q: Any = None,
    rounding: str = "float",
) -> Array:
    """clip, and relu and relu6, which are it; `rounding` has no say: one rule for both."""
    if x.dtype.kind == "f":
        return elementwise.clip(x, low, high)
    if x_q is None:
        least, most = _limits(x.dtype)
        below = math.ceil(min(max(low, least), most))
        above = math.floor(min(max(high, least), most))
        return _as(np.clip(x.astype(np.int64), below, above), x.dtype)
    y = _quant(y_q)
    below, above = (_stored(b, y, x.dtype) for b in (low, high))
    return _as(quantized.rescale(x, _quant(x_q), y, below, above, "tflite"), x.dtype)


def _stored(bound: float, y: Quant, dtype: np.dtype) -> int:
    """The 8-bit value of a real bound: zero_point + round_half_away(f32(bound) / f32(scale))."""
    least, most = _limits(dtype)
    if math.isinf(bound):
        return least if bound < 0 else most
    value = y[1] + float(rules.round_half_away(np.float32(bound) / np.float32(y[0])))
    return int(min(max(value, least), most))


def _relu(x: Array, **options: Any) -> Array:
    return _clip(x, low=0.0, high=math.inf, **options)


def _relu6(x: Array, **options: Any) -> Array:
    return _clip(x, low=0.0, high=6.0, **options)


def _unary(name: str) -> Callable[..., Array]:
    """An activation whose quantized form has a rule of its own."""
    real: Callable[..., Array] = getattr(elementwise, name)
    stored: Callable[..., Array] = getattr(quantized, f"quantized_{name}")

    def unary(x: Array, *, x_q: Any = None, y_q: Any = None, **options: Any) -> Array:
        if x_q is None:
            options.pop("rounding", None)
            return real(x, **options)
        low, high = _limits(x.dtype)
        found = stored(x, _quant(x_q), _quant(y_q), **options, low=low, high=high)
        return _as(found, x.dtype)

    return unary


def _softmax(x: Array, *, beta: float = 1.0, x_q: Any = None) -> Array:
    if x_q is None:
        return elementwise.softmax(x, beta)
    low, high = _limits(x.dtype)
    return _as(quantized.quantized_softmax(x, _quant(x_q)[0], beta, low, low, high), x.dtype)


def _reduce_sum(x: Array, **options: Any) -> Array:
    total = arithmetic.reduce_sum(x, **options)
    return _as(total, np.float32 if x.dtype.kind == "f" else np.int32)


def _quantize(x: Array, *, y_q: Any, y_type: Any, rounding: str = "onnx") -> Array:
    dtype = np.dtype(y_type.dtype)
    stored = rules.quantize(x, y_q.scale, int(y_q.zero_point), *_limits(dtype), rounding)
    return _as(stored, dtype)


def _dequantize(x: Array, *, x_q: Any) -> Array:
    return rules.dequantize(x, x_q.scale, int(x_q.zero_point))


def _requantize(
    x: Array, *, x_q: Any, y_q: Any, y_type: Any = None, rounding: str = "float"
) -> Array:
    dtype = np.dtype(x.dtype if y_type is None else y_type.dtype)
    stored = conversion.requantize(x, _quant(x_q), _quant(y_q), *_limits(dtype), rounding)
    return _as(stored, dtype)


_OWN: Mapping[str, Callable[..., Array]] = {
    **{name: _product(name) for name in ("conv2d", "depthwise_conv2d", "dense")},
    **{name: _binary(name) for name in ("add", "sub", "mul")},
    **{name: _plain_binary(name) for name in ("div", "maximum", "minimum")},
    **{name: _unary(name) for name in ("gelu", "hardswish", "leaky_relu", "sigmoid", "tanh")},
    "avg_pool2d": _avg_pool2d,
    "clip": _clip,
    "dequantize": _dequantize,
    "global_avg_pool2d": _global_avg_pool2d,
    "matmul": _matmul,
    "max_pool2d": _max_pool2d,
    "quantize": _quantize,
    "reduce_sum": _reduce_sum,
    "relu": _relu,
    "relu6": _relu6,
    "requantize": _requantize,
    "softmax": _softmax,
}
