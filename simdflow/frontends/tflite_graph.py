"""Turns a .tflite file into a Graph: every operator becomes nodes of `simdflow.ops`.

Reading is `tflite`'s, each operator's import is in `tflite_products`, `tflite_elements` and
`tflite_moves`; here is the table of them and what all have in common. Nothing is compiled.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..dsl.errors import ModelError, SimdflowError
from ..dsl.types import f32
from ..graph.evaluate import evaluate
from ..graph.graph import Builder, Graph
from . import tflite_elements as elements
from . import tflite_moves as moves
from . import tflite_products as products
from .tflite import Operator, parse, read_bytes
from .tflite_bytes import MAX_DENSE_BYTES
from .tflite_layer import (
    BYTES_PER_BYTE,
    MORE_BYTES,
    Layer,
    Network,
    Unsupported,
    operand_type,
    quantization,
)

ROUNDINGS = ("float", "tflite")
# Of all tensors together: more than any network here, less than a machine has.
MAX_BYTES = 1 << 32
# Values that operators of sizes and indices make are few; larger ones are left to the graph.
MAX_FOLDED = 1 << 16

# These may take long even on small constants.
HEAVY = ("AVERAGE_POOL_2D", "BATCH_MATMUL", "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED",
         "MAX_POOL_2D", "TRANSPOSE_CONV")  # fmt: skip


def from_tflite(
    source: str | os.PathLike[str] | bytes | bytearray | memoryview,
    *,
    name: str | None = None,
    rounding: str = "float",
) -> Graph:
    """The graph of a .tflite file, given as a path or as its bytes.

    name      of the graph; by default the file's
    rounding  of 8-bit layers: "float" (XNNPACK, what LiteRT computes by default) or "tflite" (its
              reference kernels)

    Inputs and outputs keep their names, order, types and batch. A bool is a u8 of 0 or 1. Sparse
    and f16 constants become dense f32 ones. An f32 layer with int8 weights ("hybrid", "dynamic
    range") computes with weights dequantized here and unquantized activations: LiteRT quantizes the
    activations of each call to int8 first, so that its result is further from the f32 network's.
    8-bit operators without an integer rule are computed in f32 between dequantize and quantize.

    Raises ModelError for a file that is malformed (see `tflite.parse`), for tensors of more than
    4 GiB together, and for operators that are not supported: all of them at once, each with its
    index, kind and reason.
    """
    if isinstance(source, (bytearray, memoryview)):
        source = bytes(source)
    if rounding not in ROUNDINGS:
        raise ModelError(
            f"from_tflite: rounding={rounding!r} is not known; {', '.join(ROUNDINGS)} are. Use one"
        )
    content = source if isinstance(source, bytes) else read_bytes(source)
    name = name or ("model" if isinstance(source, bytes) else Path(source).name)
    model = parse(content, name)
    nbytes = sum(math.prod(t.shape) * t.dtype.itemsize for t in model.tensors)
    if nbytes > MAX_BYTES:
        raise ModelError(
            f"{name}: tensors have {nbytes} bytes in all; at most {MAX_BYTES} are allowed. Export "
            "a smaller model"
        )
    allowance = BYTES_PER_BYTE * len(content) + MORE_BYTES
    return _imported(Network(model, Builder(name), rounding, allowance))


def memory_bound(size: int) -> int:
    """Bytes that reading and importing a file of `size` bytes may take, whatever is in it.

    The tables as Python objects (every 4 bytes of a file become at most one int in one tuple, and
    `tflite_bytes` lets the file be read four times over), what sparse tensors become, and arrays
    made at import.
    """
    return (256 + BYTES_PER_BYTE) * size + MORE_BYTES + 4 * MAX_DENSE_BYTES


def _imported(network: Network) -> Graph:
    model, name = network.model, network.builder.name
    network.known = {i: t.data for i, t in enumerate(model.tensors) if t.data is not None}
    problems = []
    for index in model.inputs:
        try:
            kind = operand_type(model.tensors[index])
        except Unsupported as error:
            problems.append(f"inputs={index}: {error}")
            kind = f32[model.tensors[index].shape]
        network.values[index] = network.builder.input(
            network.names[index], kind, quantization(model.tensors[index])
        )
    for at, operator in enumerate(model.operators):
        try:
            _operator(network, operator)
        except (SimdflowError, ValueError, IndexError, TypeError, OverflowError) as error:
            problems.append(f"operators[{at}]={operator.kind}: {error}")
            _stand_in(network, operator)
    outputs = [network.value(i) for i in model.outputs]
    if problems:
        listed = "\n".join(f"  {problem}" for problem in problems)
        raise ModelError(
            f"{name}: operators={len(problems)} are not supported:\n{listed}\n"
            f"{len(IMPORTERS)} kinds are, as far as their own lines say. Export the model without "
            "these"
        )
    return network.builder.graph(*outputs)


def _operator(network: Network, operator: Operator) -> None:
    """Add the nodes of one operator, or what it gives if that is known already."""
    if operator.kind not in IMPORTERS:
        raise Unsupported("no op of simdflow")
    layer = Layer(network, operator)
    light = operator.kind not in HEAVY
    present = [i for i in operator.inputs if i >= 0]
    size = sum(math.prod(network.model.tensors[i].shape) for i in (*present, *operator.outputs))
    if light and present and size <= MAX_FOLDED and all(i in network.known for i in present):
        _fold(network, operator)
    else:
        IMPORTERS[operator.kind](layer)


def _fold(network: Network, operator: Operator) -> None:
    """Compute an operator on constants: sizes and axes of others may depend on it."""
    alone = replace(network, builder=Builder(network.builder.name), values={})
    IMPORTERS[operator.kind](Layer(alone, operator))
    made = {i: alone.values[i] for i in operator.outputs if i in alone.values}
    found = evaluate(alone.builder.graph(*made.values()), {}) if made else {}
    network.allowance = alone.allowance
    for index, value in made.items():
        array, dtype = found[value], network.model.tensors[index].dtype
        network.know(index, array.view(np.bool_) if dtype == np.bool_ else array)


def _stand_in(network: Network, operator: Operator) -> None:
    """Let the operators after an unsupported one be looked at too; the graph is not built."""
    for index in operator.outputs:
        if index in network.values or index in network.known:
            continue
        tensor = network.model.tensors[index]
        try:
            kind = operand_type(tensor)
        except Unsupported:
            kind = f32[tensor.shape]
        network.values[index] = network.builder.input(
            network.builder.fresh(network.names[index]), kind, quantization(tensor)
        )


IMPORTERS: dict[str, Callable[[Layer], None]] = {
    "ABS": elements.unary("abs"),
    "ADD": elements.binary("add", integer=True),
    "ADD_N": elements.add_n,
    "AVERAGE_POOL_2D": elements.pool("avg_pool2d"),
    "BATCH_MATMUL": products.batch_matmul,
    "BATCH_TO_SPACE_ND": moves.batch_to_space,
    "BROADCAST_TO": moves.broadcast_to,
    "CAST": elements.cast,
    "CEIL": elements.unary("ceil"),
    "CONCATENATION": moves.concatenation,
    "CONV_2D": products.conv2d,
    "DENSIFY": moves.densify,
    "DEPTH_TO_SPACE": moves.depth_to_space,
    "DEPTHWISE_CONV_2D": products.depthwise_conv2d,
    "DEQUANTIZE": elements.dequantize,
    "DIV": elements.binary("div"),
    "ELU": elements.unary("elu", alpha=1.0),
    "EMBEDDING_LOOKUP": moves.gather,
    "EQUAL": elements.compared("equal"),
    "EXP": elements.unary("exp"),
    "EXPAND_DIMS": moves.reshape,
    "FILL": moves.fill,
    "FLOOR": elements.unary("floor"),
    "FLOOR_DIV": elements.floor_div,
    "FULLY_CONNECTED": products.dense,
    "GATHER": moves.gather,
    "GELU": elements.tabled("gelu", approximate="approximate"),
    "GREATER": elements.compared("greater"),
    "HARD_SWISH": elements.tabled("hardswish"),
    "L2_NORMALIZATION": elements.l2_normalization,
    "LEAKY_RELU": elements.tabled("leaky_relu", two_rules=True, slope="slope"),
    "LESS": elements.compared("less"),
    "LOG": elements.unary("log"),
    "LOGISTIC": elements.tabled("sigmoid"),
    "MAXIMUM": elements.binary("maximum"),
    "MAX_POOL_2D": elements.pool("max_pool2d"),
    "MEAN": elements.reduction("mean"),
    "MINIMUM": elements.binary("minimum"),
    "MIRROR_PAD": moves.mirror_pad,
    "MUL": elements.binary("mul", integer=True),
    "NEG": elements.unary("neg"),
    "PACK": moves.pack,
    "PAD": moves.pad,
    "PADV2": moves.pad,
    "POW": elements.power,
    "PRELU": elements.prelu,
    "QUANTIZE": elements.quantize,
    "RANGE": moves.arange,
    "REDUCE_MAX": elements.reduction("max"),
    "REDUCE_MIN": elements.reduction("min"),
    "REDUCE_PROD": elements.reduction("prod"),
    "RELU": elements.tabled("relu"),
    "RELU6": elements.tabled("relu6"),
    "RELU_0_TO_1": elements.clipped(0.0, 1.0),
    "RELU_N1_TO_1": elements.clipped(-1.0, 1.0),
    "RESHAPE": moves.reshape,
    "RESIZE_BILINEAR": moves.resize("resize_bilinear"),
    "RESIZE_NEAREST_NEIGHBOR": moves.resize("resize_nearest"),
    "REVERSE_V2": moves.reverse,
    "ROUND": elements.unary("round"),
    "RSQRT": elements.unary("rsqrt"),
    "SELECT": elements.select,
    "SELECT_V2": elements.select,
    "SHAPE": moves.shape_of,
    "SLICE": moves.slice_,
    "SOFTMAX": elements.softmax,
    "SPACE_TO_BATCH_ND": moves.space_to_batch,
    "SPACE_TO_DEPTH": moves.space_to_depth,
    "SPLIT": moves.split,
    "SPLIT_V": moves.split_v,
    "SQRT": elements.unary("sqrt"),
    "SQUARE": elements.unary("square"),
    "SQUARED_DIFFERENCE": elements.squared_difference,
    "SQUEEZE": moves.reshape,
    "STRIDED_SLICE": moves.strided_slice,
    "SUB": elements.binary("sub", integer=True),
    "SUM": elements.reduction("sum"),
    "TANH": elements.tabled("tanh"),
    "TILE": moves.tile,
    "TRANSPOSE": moves.transpose,
    "TRANSPOSE_CONV": products.transpose_conv,
    "UNPACK": moves.unpack,
}
