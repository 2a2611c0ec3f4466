"""Turns a read .tflite model and an input batch into its outputs with the numpy references,
operator by operator.

For tests only: it is the oracle of whole networks, with `rounding` "float" (LiteRT's default
kernels) or "tflite" (its reference kernels). It covers the operators of the networks in the models
folder, no more.
"""

import numpy as np

from simdflow.frontends.tflite import Model, Operator, Tensor
from simdflow.ops import reference as ref

Values = dict[int, np.ndarray]


def run(model: Model, x: np.ndarray, rounding: str = "float") -> list[np.ndarray]:
    """The outputs of `model` for `x` [batch, ...], the batch replacing the leading 1 of every
    activation.
    """
    values: Values = {i: t.data for i, t in enumerate(model.tensors) if t.data is not None}
    values[model.inputs[0]] = x
    for operator in model.operators:
        evaluate = _OPERATORS[operator.kind]
        out = evaluate(model, operator, values, rounding)
        tensor = model.tensors[operator.outputs[0]]
        values[operator.outputs[0]] = (
            np.asarray(out).reshape(-1, *tensor.shape[1:]).astype(tensor.dtype)
        )
    return [values[i] for i in model.outputs]


def _quant(tensor: Tensor) -> tuple[float, int]:
    assert tensor.scale is not None and tensor.zero_point is not None
    return float(tensor.scale[0]), int(tensor.zero_point[0])


def _activate(out: np.ndarray, activation: object) -> np.ndarray:
    return {"none": lambda v: v, "relu": ref.relu, "relu6": ref.relu6}[str(activation)](out)


def _finish(model: Model, op: Operator, acc: np.ndarray, rounding: str) -> np.ndarray:
    """Activation of a float sum, or requantization of an integer one."""
    x, w = (model.tensors[i] for i in op.inputs[:2])
    y = model.tensors[op.outputs[0]]
    if y.dtype.kind == "f":
        return _activate(acc, op.option("activation"))
    (sx, _), (sy, zy) = _quant(x), _quant(y)
    low, high = ref.activation_bounds(str(op.option("activation")), sy, zy, rounding=rounding)
    assert w.scale is not None
    if rounding == "float":
        return ref.requantize_float(acc, ref.float_multiplier(sx, w.scale, sy), zy, low, high)
    if op.kind == "FULLY_CONNECTED":
        return ref.requantize_double(acc, sx, w.scale, sy, zy, low, high)
    q, shift = ref.fixed_multiplier(sx, w.scale, sy)
    return ref.requantize_fixed(acc, q, shift, zy, low, high)


def _product(model: Model, op: Operator, values: Values, rounding: str) -> np.ndarray:
    x, w = values[op.inputs[0]], values[op.inputs[1]]
    bias = values[op.inputs[2]] if len(op.inputs) > 2 and op.inputs[2] >= 0 else None
    if x.dtype.kind == "i":
        x = x.astype(np.int64) - _quant(model.tensors[op.inputs[0]])[1]
    if op.kind == "FULLY_CONNECTED":
        return _finish(model, op, ref.dense(x.reshape(-1, w.shape[1]), w.T, bias), rounding)
    stride = int(op.option("stride_h")), int(op.option("stride_w"))
    dilation = int(op.option("dilation_h")), int(op.option("dilation_w"))
    padding = str(op.option("padding"))
    if op.kind == "CONV_2D":
        acc = ref.conv2d(x, w.transpose(1, 2, 3, 0), bias, stride, padding, dilation)
    else:
        acc = ref.depthwise_conv2d(x, w[0], bias, stride, padding, dilation)
    return _finish(model, op, acc, rounding)


def _add(model: Model, op: Operator, values: Values, rounding: str) -> np.ndarray:
    a, b = (values[i] for i in op.inputs)
    y = model.tensors[op.outputs[0]]
    if y.dtype.kind == "f":
        return _activate(ref.add(a, b), op.option("activation"))
    bounds = ref.activation_bounds(str(op.option("activation")), *_quant(y), rounding=rounding)
    quants = [_quant(model.tensors[i]) for i in (*op.inputs, op.outputs[0])]
    return ref.quantized_add(a, b, *quants, *bounds, rounding=rounding)


def _average(model: Model, op: Operator, values: Values, rounding: str) -> np.ndarray:
    x = values[op.inputs[0]]
    kernel = int(op.option("kernel_h")), int(op.option("kernel_w"))
    stride = int(op.option("stride_h")), int(op.option("stride_w"))
    if x.dtype.kind == "f":
        return _activate(
            ref.avg_pool2d(x, kernel, stride, str(op.option("padding"))), op.option("activation")
        )
    quant = _quant(model.tensors[op.outputs[0]])
    bounds = ref.activation_bounds(str(op.option("activation")), *quant, rounding="tflite")
    return ref.quantized_avg_pool2d(x, kernel, stride, str(op.option("padding")), *bounds)


def _mean(model: Model, op: Operator, values: Values, rounding: str) -> np.ndarray:
    assert values[op.inputs[1]].tolist() == [1, 2]
    quants = [_quant(model.tensors[i]) for i in (op.inputs[0], op.outputs[0])]
    return ref.quantized_global_avg_pool2d(values[op.inputs[0]], *quants, rounding=rounding)


def _softmax(model: Model, op: Operator, values: Values, rounding: str) -> np.ndarray:
    x, beta = values[op.inputs[0]], float(op.option("beta"))
    if x.dtype.kind == "f":
        return ref.softmax(x, beta)
    return ref.quantized_softmax(x, _quant(model.tensors[op.inputs[0]])[0], beta)


def _pad(model: Model, op: Operator, values: Values, rounding: str) -> np.ndarray:
    x = values[op.inputs[0]]
    zero = _quant(model.tensors[op.inputs[0]])[1] if x.dtype.kind == "i" else 0
    return ref.pad(x, tuple((int(a), int(b)) for a, b in values[op.inputs[1]]), zero)


def _transpose(model: Model, op: Operator, values: Values, rounding: str) -> np.ndarray:
    return values[op.inputs[0]].transpose(values[op.inputs[1]])


def _reshape(model: Model, op: Operator, values: Values, rounding: str) -> np.ndarray:
    return values[op.inputs[0]]


_OPERATORS = {
    "CONV_2D": _product,
    "DEPTHWISE_CONV_2D": _product,
    "FULLY_CONNECTED": _product,
    "ADD": _add,
    "AVERAGE_POOL_2D": _average,
    "MEAN": _mean,
    "SOFTMAX": _softmax,
    "PAD": _pad,
    "TRANSPOSE": _transpose,
    "RESHAPE": _reshape,
}
