"""What of a .tflite model has a layer in simdflow, and what has not: one line for each reason.

It looks at kinds, types, scales and options only; whether shapes fit each other is found when the
layers are made.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .layerwise import Quantized
from .tflite import Model, Operator, Tensor

DTYPES = ("float32", "int8", "uint8")
ACTIVATIONS = ("none", "relu", "relu6", "relu_n1_to_1")


def unsupported(model: Model, kinds: frozenset[str]) -> list[str]:
    """One line for each operator that cannot be run, with the reason; all of them at once.

    `kinds` are the operators that have a layer.
    """
    found = []
    if len(model.inputs) != 1 or model.tensors[model.inputs[0]].shape[:1] != (1,):
        found.append(f"inputs={len(model.inputs)}: one input with a first axis of 1 is supported")
    if len(model.outputs) != 1:
        found.append(f"outputs={len(model.outputs)}: one is supported")
    for at, op in enumerate(model.operators):
        why = _problem(model, op) if op.kind in kinds else "no layer of simdflow"
        if why:
            found.append(f"operators[{at}]={op.kind}: {why}")
    return found


def quantized(tensor: Tensor) -> Quantized | None:
    """Scale and zero point of a whole 8-bit tensor; None for floats and for tensors without."""
    if tensor.scale is None or tensor.zero_point is None or tensor.dtype.kind == "f":
        return None
    return Quantized(float(tensor.scale[0]), int(tensor.zero_point[0]))


def _problem(model: Model, op: Operator) -> str:
    needed = 2 if op.kind in _TWO_INPUTS else 1
    if len(op.outputs) != 1 or len(op.inputs) < needed or -1 in op.inputs[:needed]:
        return f"{len(op.inputs)} inputs and {len(op.outputs)} outputs"
    x, y = model.tensors[op.inputs[0]], model.tensors[op.outputs[0]]
    options = dict(op.options)
    if x.data is not None and op.kind not in ("ADD", "MUL"):
        return "its input is a constant"
    if str(x.dtype) not in DTYPES or y.dtype != x.dtype:
        return f"{x.dtype} to {y.dtype}; {', '.join(DTYPES)} with outputs alike are supported"
    if options.get("activation", "none") not in ACTIVATIONS:
        return f"activation {options['activation']}; {', '.join(ACTIVATIONS)} are supported"
    if x.dtype.kind != "f" and (x.scale is None or y.scale is None):
        return "integers without a scale"
    if any(t.scale is not None and len(t.scale) != 1 for t in (x, y)):
        return "activations with a scale for each channel"
    return _CONDITIONS[op.kind](model, op) if op.kind in _CONDITIONS else ""


def _weights_problem(model: Model, op: Operator) -> str:
    """Products need constant weights of the input's own kind."""
    x, w = (model.tensors[i] for i in op.inputs[:2])
    if w.data is None:
        return "its weights are computed, not constant"
    if w.dtype.kind != x.dtype.kind:
        return f"{x.dtype} inputs with {w.dtype} weights (hybrid)"
    if w.zero_point is not None and np.any(w.zero_point != 0) and x.dtype.kind != "f":
        return "weights with a zero point"
    if dict(op.options).get("weights_format", "default") != "default":
        return "shuffled weights"
    return ""


def _axes_problem(model: Model, op: Operator) -> str:
    axes = model.tensors[op.inputs[1]].data
    if (
        axes is None
        or axes.reshape(-1).tolist() != [1, 2]
        or len(model.tensors[op.inputs[0]].shape) != 4
    ):
        return "the mean over axes other than height and width"
    return ""


def _pool_problem(model: Model, op: Operator) -> str:
    x, y = model.tensors[op.inputs[0]], model.tensors[op.outputs[0]]
    same = x.scale is None or quantized(x) == quantized(y)
    return "" if same else "a pool whose input and output have different scales"


def _softmax_problem(model: Model, op: Operator) -> str:
    y = model.tensors[op.outputs[0]]
    if y.dtype.kind == "f" or quantized(y) == Quantized(1 / 256, int(np.iinfo(y.dtype).min)):
        return ""
    return "a softmax whose output has another scale than 1/256 and the smallest zero point"


def _constant_problem(model: Model, op: Operator) -> str:
    return "" if model.tensors[op.inputs[1]].data is not None else "computed sizes"


_TWO_INPUTS = (
    "ADD",
    "MUL",
    "CONV_2D",
    "DEPTHWISE_CONV_2D",
    "FULLY_CONNECTED",
    "MEAN",
    "PAD",
    "TRANSPOSE",
)
_CONDITIONS: dict[str, Callable[[Model, Operator], str]] = {
    "AVERAGE_POOL_2D": _pool_problem,
    "CONV_2D": _weights_problem,
    "DEPTHWISE_CONV_2D": _weights_problem,
    "FULLY_CONNECTED": _weights_problem,
    "MAX_POOL_2D": _pool_problem,
    "MEAN": _axes_problem,
    "PAD": _constant_problem,
    "SOFTMAX": _softmax_problem,
    "TRANSPOSE": _constant_problem,
}
