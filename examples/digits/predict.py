"""The digit classifier by the layers of simdflow: u8 images to the u8 logits of ``network``.

``prepare`` packs the weights once; what it returns runs kernels only. It does not choose the digit:
that is the argmax of the logits.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import simdflow as sf

from .network import Array, Layer


def prepare(layers: tuple[Layer, ...]) -> Callable[[Array], Array]:
    """A function from images u8[n, 8, 8, 1] to logits u8[n, 10], the bits of
    ``network.predict_reference``.
    """
    calls = [_call(layer) for layer in layers]

    def classify(images: Array) -> Array:
        x = images
        for layer, call in zip(layers, calls, strict=True):
            x = call(x if layer.w.ndim == 4 else x.reshape(len(x), -1))
        return x

    return classify


def _call(layer: Layer) -> Callable[[Array], Array]:
    """One layer as a function of its input."""
    w, bias = sf.pack(layer.w), sf.pack(layer.bias)
    quantizations = {
        "x_q": sf.ops.Quantization(layer.x_scale, layer.x_zero_point),
        "w_q": sf.ops.Quantization(layer.w_scale),
        "y_q": sf.ops.Quantization(layer.y_scale, layer.y_zero_point),
    }
    if layer.w.ndim == 2:
        return lambda x: sf.ops.dense(x, w, bias, **quantizations)
    convolve = partial(sf.ops.conv2d, stride=layer.stride, padding=layer.padding)
    return lambda x: convolve(x, w, bias, **quantizations)
