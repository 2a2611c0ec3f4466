"""The layers: each a call on numpy arrays that runs kernels of this package, and nothing else.

Every op is an `Op` (see `op`): call it, `bind` it, ask its `shape` or its numpy `reference`. NHWC
activations, HWIO weights. A layer's module is imported when it is first used: parsing the nests of
all of them takes 0.1 s.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .activations import elu, hard_sigmoid, prelu, silu, softplus
    from .arithmetic import add, div, maximum, minimum, mul, sub
    from .border import bordered, pad
    from .comparison import equal, greater, less, where
    from .conversion import cast, dequantize, quantize, requantize
    from .convolution import conv2d, dense, depthwise_conv2d
    from .elementary import (
        abs,
        ceil,
        erf,
        exp,
        floor,
        log,
        neg,
        pow,
        reciprocal,
        round,
        rsqrt,
        sqrt,
        square,
    )
    from .elementwise import clip, gelu, hardswish, leaky_relu, relu, relu6, sigmoid, tanh
    from .gathering import gather
    from .global_pooling import global_avg_pool2d
    from .joining import concat
    from .matrix import matmul
    from .normalization import batch_norm
    from .op import Op
    from .pooling import avg_pool2d, max_pool2d
    from .quantization import Quantization
    from .reductions import reduce_max, reduce_mean, reduce_min, reduce_sum
    from .resizing import resize_bilinear, resize_nearest
    from .rows import layer_norm, softmax
    from .shaping import depth_to_space, expand, reshape, slice, space_to_depth, transpose

_MODULES = {
    "Op": "op",
    "Quantization": "quantization",
    "abs": "elementary",
    "add": "arithmetic",
    "avg_pool2d": "pooling",
    "batch_norm": "normalization",
    "bordered": "border",
    "cast": "conversion",
    "ceil": "elementary",
    "clip": "elementwise",
    "concat": "joining",
    "conv2d": "convolution",
    "dense": "convolution",
    "depth_to_space": "shaping",
    "depthwise_conv2d": "convolution",
    "dequantize": "conversion",
    "div": "arithmetic",
    "elu": "activations",
    "equal": "comparison",
    "erf": "elementary",
    "exp": "elementary",
    "expand": "shaping",
    "flip_sign": "sign",
    "floor": "elementary",
    "gather": "gathering",
    "gelu": "elementwise",
    "global_avg_pool2d": "global_pooling",
    "greater": "comparison",
    "hard_sigmoid": "activations",
    "hardswish": "elementwise",
    "layer_norm": "rows",
    "leaky_relu": "elementwise",
    "less": "comparison",
    "log": "elementary",
    "matmul": "matrix",
    "max_pool2d": "pooling",
    "maximum": "arithmetic",
    "minimum": "arithmetic",
    "mul": "arithmetic",
    "neg": "elementary",
    "pad": "border",
    "pow": "elementary",
    "prelu": "activations",
    "quantize": "conversion",
    "reciprocal": "elementary",
    "reduce_max": "reductions",
    "reduce_mean": "reductions",
    "reduce_min": "reductions",
    "reduce_sum": "reductions",
    "relu": "elementwise",
    "relu6": "elementwise",
    "requantize": "conversion",
    "reshape": "shaping",
    "resize_bilinear": "resizing",
    "resize_nearest": "resizing",
    "round": "elementary",
    "rsqrt": "elementary",
    "sigmoid": "elementwise",
    "silu": "activations",
    "slice": "shaping",
    "softmax": "rows",
    "softplus": "activations",
    "space_to_depth": "shaping",
    "sqrt": "elementary",
    "square": "elementary",
    "sub": "arithmetic",
    "tanh": "elementwise",
    "transpose": "shaping",
    "where": "comparison",
}
__all__ = [
    "Op",
    "Quantization",
    "abs",
    "add",
    "avg_pool2d",
    "batch_norm",
    "bordered",
    "cast",
    "ceil",
    "clip",
    "concat",
    "conv2d",
    "dense",
    "depth_to_space",
    "depthwise_conv2d",
    "dequantize",
    "div",
    "elu",
    "equal",
    "erf",
    "exp",
    "expand",
    "flip_sign",
    "floor",
    "gather",
    "gelu",
    "global_avg_pool2d",
    "greater",
    "hard_sigmoid",
    "hardswish",
    "layer_norm",
    "leaky_relu",
    "less",
    "log",
    "matmul",
    "max_pool2d",
    "maximum",
    "minimum",
    "mul",
    "neg",
    "pad",
    "pow",
    "prelu",
    "quantize",
    "reciprocal",
    "reduce_max",
    "reduce_mean",
    "reduce_min",
    "reduce_sum",
    "relu",
    "relu6",
    "requantize",
    "reshape",
    "resize_bilinear",
    "resize_nearest",
    "round",
    "rsqrt",
    "sigmoid",
    "silu",
    "slice",
    "softmax",
    "softplus",
    "space_to_depth",
    "sqrt",
    "square",
    "sub",
    "tanh",
    "transpose",
    "where",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        value = getattr(import_module(f".{_MODULES[name]}", __name__), name)
        globals()[name] = value
        return value
    if name == "reference":
        return import_module(".reference", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
