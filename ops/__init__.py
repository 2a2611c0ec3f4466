"""The layers: each a call on numpy arrays that runs kernels of this package, and nothing else.

Every op is an `Op` (see `op`): call it, `bind` it, ask its `shape` or its numpy `reference`. NHWC
activations, HWIO weights. A layer's module is imported when it is first used: parsing the nests of
all of them takes 0.1 s.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .arithmetic import add, mul
    from .border import bordered, pad
    from .convolution import conv2d, dense, depthwise_conv2d
    from .elementwise import clip, gelu, hardswish, leaky_relu, relu, relu6, sigmoid, tanh
    from .global_pooling import global_avg_pool2d
    from .matrix import matmul
    from .op import Op
    from .pooling import avg_pool2d, max_pool2d
    from .quantization import Quantization
    from .rows import layer_norm, softmax

_MODULES = {
    "Op": "op",
    "Quantization": "quantization",
    "add": "arithmetic",
    "avg_pool2d": "pooling",
    "bordered": "border",
    "clip": "elementwise",
    "conv2d": "convolution",
    "dense": "convolution",
    "depthwise_conv2d": "convolution",
    "gelu": "elementwise",
    "global_avg_pool2d": "global_pooling",
    "hardswish": "elementwise",
    "layer_norm": "rows",
    "leaky_relu": "elementwise",
    "matmul": "matrix",
    "max_pool2d": "pooling",
    "mul": "arithmetic",
    "pad": "border",
    "relu": "elementwise",
    "relu6": "elementwise",
    "sigmoid": "elementwise",
    "softmax": "rows",
    "tanh": "elementwise",
}
__all__ = [
    "Op",
    "Quantization",
    "add",
    "avg_pool2d",
    "bordered",
    "clip",
    "conv2d",
    "dense",
    "depthwise_conv2d",
    "gelu",
    "global_avg_pool2d",
    "hardswish",
    "layer_norm",
    "leaky_relu",
    "matmul",
    "max_pool2d",
    "mul",
    "pad",
    "relu",
    "relu6",
    "sigmoid",
    "softmax",
    "tanh",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        value = getattr(import_module(f".{_MODULES[name]}", __name__), name)
        globals()[name] = value
        return value
    if name == "reference":
        return import_module(".reference", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
