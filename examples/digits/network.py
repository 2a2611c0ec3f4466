"""Turns the stored int8 weights and u8 images into u8 logits, in plain numpy integers.

It is the definition that compiled layers are compared with, bit for bit. It uses nothing of
simdflow, does not train (``train.py`` does) and is not fast.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

DATA = Path(__file__).with_name("digits_int8.npz")
STRIDES = {"conv1": 1, "conv2": 2}
PADDING = 1
LAYERS = ("conv1", "conv2", "dense")


@dataclass(frozen=True, slots=True)
class Layer:
    """One quantized layer: y = clamp(rint(f32(acc) * multiplier) + y_zero_point, 0, 255).

    ``acc = bias + sum((x - x_zero_point) * w)`` in i32. ``x`` and ``y`` are u8, real value
    ``scale * (q - zero_point)``. ``w`` is i8 and symmetric, HWIO for a convolution (border of width
    ``padding`` holding ``x_zero_point``) and [k, n] for a dense layer; ``w_scale`` is f32 per
    output channel; ``bias`` is i32 of scale ``x_scale * w_scale``. A relu is the lower clamp where
    ``y_zero_point`` is 0.
    """

    name: str
    w: Array
    bias: Array
    w_scale: Array
    x_scale: np.float32
    x_zero_point: int
    y_scale: np.float32
    y_zero_point: int
    stride: int = 1
    padding: int = 0

    @property
    def multiplier(self) -> Array:
        """f32[oc]: x_scale * w_scale / y_scale, each operation rounded to f32."""
        return (self.x_scale * self.w_scale / self.y_scale).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Digits:
    """The classifier and images it was not trained on: u8[n, 8, 8, 1] of 0..16, labels u8[n]."""

    layers: tuple[Layer, ...]
    images: Array
    labels: Array


def load(path: str | Path = DATA) -> Digits:
    """Reads what ``train.save`` wrote. Nothing in the file is executed (``allow_pickle=False``)."""
    with np.load(path, allow_pickle=False) as stored:
        data = {name: stored[name] for name in stored.files}
    for array in data.values():
        array.flags.writeable = False
    scale, zero_point = data["scale"], data["zero_point"]
    layers = tuple(
        Layer(
            name=name,
            w=data[f"{name}.w"],
            bias=data[f"{name}.bias"],
            w_scale=data[f"{name}.w_scale"],
            x_scale=scale[i],
            x_zero_point=int(zero_point[i]),
            y_scale=scale[i + 1],
            y_zero_point=int(zero_point[i + 1]),
            stride=STRIDES.get(name, 1),
            padding=PADDING if name in STRIDES else 0,
        )
        for i, name in enumerate(LAYERS)
    )
    return Digits(layers, data["images"], data["labels"])


def patches(x: Array, stride: int) -> Array:
    """The 3x3 windows of a zero-bordered image, in the order of HWIO weights.

    x[n, h, w, c] -> view-free array [n, oh, ow, 9 * c] of the same dtype.
    """
    bordered = np.pad(x, ((0, 0), (PADDING, PADDING), (PADDING, PADDING), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(bordered, (3, 3), axis=(1, 2))
    windows = windows[:, ::stride, ::stride].transpose(0, 1, 2, 4, 5, 3)
    return windows.reshape(*windows.shape[:3], -1)


def requantize(acc: Array, multiplier: Array | np.float32, zero_point: int) -> Array:
    """i32 accumulators to u8: clamp(rint(f32(acc) * multiplier) + zero_point, 0, 255).

    Ties round to even and every step is rounded to f32: XNNPACK's float requantization.
    """
    scaled = acc.astype(np.float32) * multiplier
    return np.clip(np.rint(scaled) + np.float32(zero_point), 0, 255).astype(np.uint8)


def layer_reference(layer: Layer, x: Array) -> Array:
    """One layer in integers: u8[n, h, w, ic] or u8[n, k] -> u8[n, oh, ow, oc] or u8[n, oc]."""
    centred = x.astype(np.int32) - layer.x_zero_point
    columns = patches(centred, layer.stride) if layer.w.ndim == 4 else centred
    w = layer.w.astype(np.int32).reshape(-1, layer.w.shape[-1])
    return requantize(columns @ w + layer.bias, layer.multiplier, layer.y_zero_point)


def predict_reference(layers: tuple[Layer, ...], images: Array) -> Array:
    """Images u8[n, 8, 8, 1] to logits u8[n, 10]; the digit is their argmax along the last axis."""
    x = images
    for layer in layers:
        if layer.w.ndim == 2:
            x = x.reshape(len(x), -1)
        x = layer_reference(layer, x)
    return x
