"""The layers: each a call on numpy arrays that runs kernels of this package, and nothing else.

Every op is an `Op` (see `op`): call it, `bind` it, ask its `shape` or its numpy `reference`. NHWC
activations, HWIO weights.
"""

from .border import bordered, pad
from .convolution import conv2d, dense, depthwise_conv2d
from .quantization import Quantization

__all__ = [
    "Quantization",
    "bordered",
    "conv2d",
    "dense",
    "depthwise_conv2d",
    "pad",
]
