"""The layers: each a call on numpy arrays that runs kernels of this package, and nothing else.

Every op is an `Op` (see `op`): call it, `bind` it, ask its `shape` or its numpy `reference`. NHWC
activations, HWIO weights.
"""

from .arithmetic import add, mul
from .border import bordered, pad
from .convolution import conv2d, dense, depthwise_conv2d
from .elementwise import clip, gelu, hardswish, leaky_relu, relu, relu6, sigmoid, tanh
from .matrix import matmul
from .op import Op
from .pooling import avg_pool2d, global_avg_pool2d, max_pool2d
from .quantization import Quantization
from .rows import layer_norm, softmax

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
