"""Turns a read .tflite model into a `Network`: every operator becomes a call of `simdflow.ops`.

Weights are brought into HWIO order and packed here, once, and all buffers are allocated; what runs
later is kernels. The rounding is XNNPACK's ("float"), which is what LiteRT computes by default.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import ops
from ..compiler.packing import aligned
from ..dsl import loops as sf
from ..dsl.errors import ModelError, OperandError
from ..kernel import kernel
from ..operands import pack, type_of
from ..targets import Target
from ..targets import target as choose
from . import tflite_support
from .layerwise import Network, Step
from .tflite import Model, Operator, Tensor
from .tflite_support import quantized

MAX_BYTES = 1 << 32  # of all buffers together: more than any network here, less than a machine has
Call = Callable[[], object]


@dataclass(frozen=True, eq=False)
class _Made:
    """A model on its way to a network: the buffers of its tensors by index, the rounding rule."""

    model: Model
    buffers: dict[int, np.ndarray]
    target: Target
    rounding: str


@dataclass(frozen=True, eq=False)
class _Layer:
    """One operator of it: its inputs (absent ones None), its tensors, its output and options."""

    x: tuple[Any, ...]
    tensors: tuple[Tensor, ...]
    out: np.ndarray
    options: dict[str, Any]
    target: Target
    rounding: str

    def quantizations(self, *names: str) -> dict[str, Any]:
        """`x_q=..., y_q=...` of the named tensors, the last name being the output's; {} for f32."""
        tensors = (*self.tensors[: len(names) - 1], self.tensors[-1])
        if self.out.dtype.kind == "f":
            return {}
        return {n: _quantization(t) for n, t in zip(names, tensors, strict=True)}

    @property
    def activation(self) -> str | None:
        found = str(self.options["activation"])
        return None if found == "none" else found

    def rounded(self) -> dict[str, str]:
        """`rounding=...` for integers."""
        return {} if self.out.dtype.kind == "f" else {"rounding": self.rounding}

    def pair(self, name: str) -> tuple[int, int]:
        return int(self.options[f"{name}_h"]), int(self.options[f"{name}_w"])


def prepare(
    model: Model, name: str, target: str | Target | None = None, rounding: str = "float"
) -> Network:
    """The network of `model`, compiled for `target`, for one input at a time.

    `rounding` is "float" (what LiteRT's default kernels compute) or "tflite" (its reference
    kernels). Raises ModelError that lists everything in the model that is not supported, and
    TargetError.
    """
    problems = unsupported(model)
    if problems:
        listed = "\n".join(f"  {problem}" for problem in problems)
        kinds = ", ".join(sorted(_LAYERS))
        raise ModelError(
            f"{name}: operators={len(problems)} are not supported:\n{listed}\n"
            f"Supported are {kinds}. Export the model without the others"
        )
    nbytes = sum(math.prod(t.shape) * t.dtype.itemsize for t in model.tensors)
    if nbytes > MAX_BYTES:
        raise ModelError(
            f"{name}: tensors have {nbytes} bytes in all; at most {MAX_BYTES} are allowed. Export "
            "a smaller model"
        )
    chosen = choose(target)
    buffers = {i: t.data for i, t in enumerate(model.tensors) if t.data is not None}
    made = _Made(model, buffers, chosen, rounding)
    first = model.tensors[model.inputs[0]]
    buffers[model.inputs[0]] = _buffer(first)
    steps = tuple(_checked_step(made, at, name) for at in range(len(model.operators)))
    last = model.outputs[0]
    return Network(
        name,
        chosen.name,
        steps,
        buffers[model.inputs[0]],
        buffers[last],
        quantized(first),
        quantized(model.tensors[last]),
    )


def _checked_step(made: _Made, at: int, name: str) -> Step:
    """`_step`, with what does not fit together in the file turned into an error that says where."""
    op = made.model.operators[at]
    try:
        return _step(made, op)
    except (OperandError, ValueError, IndexError, TypeError) as error:
        raise ModelError(
            f"{name}: operators[{at}]={op.kind} does not fit its tensors: {error}"
        ) from error


def _step(made: _Made, op: Operator) -> Step:
    """The operator with its output's buffer, compiled and bound."""
    result = made.model.tensors[op.outputs[0]]
    if op.kind == "RESHAPE":
        out = made.buffers[op.inputs[0]].reshape(result.shape)
    else:
        out = _buffer(result)
    made.buffers[op.outputs[0]] = out
    layer = _Layer(
        tuple(made.buffers[i] if i >= 0 else None for i in op.inputs),
        (*(made.model.tensors[i] for i in op.inputs), result),
        out,
        dict(op.options),
        made.target,
        made.rounding,
    )
    call, macs, detail = _LAYERS[op.kind](layer)
    return Step(op.kind, detail, out, macs, call)


def unsupported(model: Model) -> list[str]:
    """What of the model has no layer here; see `tflite_support.unsupported`."""
    return tflite_support.unsupported(model, frozenset(_LAYERS))


def _buffer(tensor: Tensor) -> np.ndarray:
    count = int(np.prod(tensor.shape))
    raw = aligned(count * tensor.dtype.itemsize)
    return raw.view(tensor.dtype)[:count].reshape(tensor.shape)


def _quantization(tensor: Tensor) -> ops.Quantization:
    assert tensor.scale is not None and tensor.zero_point is not None
    scale = tensor.scale[0] if len(tensor.scale) == 1 else tensor.scale
    return ops.Quantization(scale, int(tensor.zero_point[0]))


# ---- the operators ------------------------------------------------------------------------------

_Built = tuple[Call | None, int, str]


def _product(
    layer: _Layer, op: Any, w: np.ndarray, macs: int, detail: str, **options: Any
) -> _Built:
    """A layer with weights: convolution, depthwise convolution or dense."""
    bias = layer.x[2] if len(layer.x) > 2 else None
    call = op.bind(
        layer.x[0].reshape(-1, w.shape[0]) if op is ops.dense else layer.x[0],
        pack(w),
        None if bias is None else pack(bias),
        out=layer.out.reshape(-1, w.shape[1]) if op is ops.dense else layer.out,
        activation=layer.activation,
        target=layer.target,
        **layer.rounded(),
        **layer.quantizations("x_q", "w_q", "y_q"),
        **options,
    )
    return call, macs, detail


def _window(layer: _Layer) -> dict[str, Any]:
    return {
        "stride": layer.pair("stride"),
        "padding": layer.options["padding"],
        "dilation": layer.pair("dilation"),
    }


def _conv2d(layer: _Layer) -> _Built:
    w = layer.x[1].transpose(1, 2, 3, 0)  # OHWI
    groups = layer.x[0].shape[3] // w.shape[2]
    detail = f"{w.shape[0]}x{w.shape[1]}/{layer.pair('stride')[0]}"
    macs = layer.out.size * w[..., 0].size
    return _product(layer, ops.conv2d, w, macs, detail, groups=groups, **_window(layer))


def _depthwise(layer: _Layer) -> _Built:
    w = layer.x[1][0]
    detail = f"{w.shape[0]}x{w.shape[1]}/{layer.pair('stride')[0]}"
    macs = layer.out.size * w[..., 0].size
    return _product(layer, ops.depthwise_conv2d, w, macs, detail, **_window(layer))


def _dense(layer: _Layer) -> _Built:
    w = layer.x[1].T
    return _product(layer, ops.dense, w, layer.out.size * w.shape[0], f"{w.shape[0]}->{w.shape[1]}")


def _binary(layer: _Layer, op: Any) -> _Built:
    call = op.bind(
        *layer.x,
        out=layer.out,
        activation=layer.activation,
        target=layer.target,
        **layer.rounded(),
        **layer.quantizations("a_q", "b_q", "y_q"),
    )
    return call, 0, ""


def _add(layer: _Layer) -> _Built:
    return _binary(layer, ops.add)


def _mul(layer: _Layer) -> _Built:
    return _binary(layer, ops.mul)


def _pool(layer: _Layer, op: Any) -> _Built:
    kernel = layer.pair("kernel")
    call = op.bind(
        layer.x[0],
        kernel=kernel,
        stride=layer.pair("stride"),
        padding=layer.options["padding"],
        activation=layer.activation,
        out=layer.out,
        target=layer.target,
        **layer.quantizations("y_q"),
    )
    return call, 0, f"{kernel[0]}x{kernel[1]}/{layer.pair('stride')[0]}"


def _average_pool(layer: _Layer) -> _Built:
    return _pool(layer, ops.avg_pool2d)


def _max_pool(layer: _Layer) -> _Built:
    return _pool(layer, ops.max_pool2d)


def _elementwise(op: Any, *, two_rules: bool = False, **names: str) -> Callable[[_Layer], _Built]:
    """A layer of one input; `names` are options of the op and what the file calls them.

    `two_rules`: its default and its reference kernel round differently.
    """

    def build(layer: _Layer) -> _Built:
        call = op.bind(
            layer.x[0],
            out=layer.out,
            target=layer.target,
            **{name: layer.options[option] for name, option in names.items()},
            **(layer.rounded() if two_rules else {}),
            **layer.quantizations("x_q", "y_q"),
        )
        return call, 0, ""

    return build


def _mean(layer: _Layer) -> _Built:
    x = layer.x[0]
    call = ops.global_avg_pool2d.bind(
        x,
        out=layer.out.reshape(x.shape[0], x.shape[3]),
        target=layer.target,
        **layer.rounded(),
        **layer.quantizations("x_q", "y_q"),
    )
    return call, 0, f"{x.shape[1]}x{x.shape[2]}"


def _softmax(layer: _Layer) -> _Built:
    fixed = layer.quantizations("x_q", "y_q")
    fixed.pop("y_q", None)  # the result has one scale and zero point always
    call = ops.softmax.bind(
        layer.x[0],
        beta=float(layer.options["beta"]),
        out=layer.out,
        target=layer.target,
        **fixed,
    )
    return call, 0, ""


def _pad(layer: _Layer) -> _Built:
    pads = tuple((int(a), int(b)) for a, b in layer.x[1])
    found = quantized(layer.tensors[0])
    value = found.zero_point if found else 0
    call = ops.pad.bind(layer.x[0], pads=pads, value=value, out=layer.out, target=layer.target)
    return call, 0, ""


@kernel
def permuted(
    x: Any, out: Any, *, step_a: int = 1, step_b: int = 1, step_c: int = 1, step_d: int = 1
) -> None:
    """out[a,b,c,d] = x[a*step_a + b*step_b + c*step_c + d*step_d]: axes in another order."""
    for a, b, c, d in sf.grid(out.shape):
        out[a, b, c, d] = x[a * step_a + b * step_b + c * step_c + d * step_d]


def _transpose(layer: _Layer) -> _Built:
    axes = tuple(int(a) for a in layer.x[1])
    x, out = layer.x[0], layer.out
    if len(axes) > 4 or x.transpose(axes).shape != out.shape:
        raise ValueError(f"{x.shape} transposed by {axes} is not {out.shape}, of at most 4 axes")
    missing = 4 - len(axes)
    steps = [0] * missing + [s // x.itemsize for s in x.transpose(axes).strides]
    flat, whole = x.reshape(-1), out.reshape((1,) * missing + out.shape)
    compiled = permuted.specialize(
        x=type_of(flat),
        out=type_of(whole),
        target=layer.target,
        **dict(zip(("step_a", "step_b", "step_c", "step_d"), steps, strict=True)),
    )
    return compiled.bind(x=flat, out=whole), 0, str(list(axes))


def _reshape(layer: _Layer) -> _Built:
    return None, 0, ""


_LAYERS: dict[str, Callable[[_Layer], _Built]] = {
    "ADD": _add,
    "AVERAGE_POOL_2D": _average_pool,
    "CONV_2D": _conv2d,
    "DEPTHWISE_CONV_2D": _depthwise,
    "FULLY_CONNECTED": _dense,
    "GELU": _elementwise(ops.gelu, approximate="approximate"),
    "HARD_SWISH": _elementwise(ops.hardswish),
    "LEAKY_RELU": _elementwise(ops.leaky_relu, two_rules=True, slope="slope"),
    "LOGISTIC": _elementwise(ops.sigmoid),
    "MAX_POOL_2D": _max_pool,
    "MEAN": _mean,
    "MUL": _mul,
    "PAD": _pad,
    "RELU": _elementwise(ops.relu),
    "RELU6": _elementwise(ops.relu6),
    "RESHAPE": _reshape,
    "SOFTMAX": _softmax,
    "TANH": _elementwise(ops.tanh),
    "TRANSPOSE": _transpose,
}
