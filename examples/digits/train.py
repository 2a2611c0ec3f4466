"""Turns scikit-learn's digits into ``digits_int8.npz``: trains a small network, then quantizes it.

Run from the root of the repository, with scikit-learn: ``python -m examples.digits.train`` (a few
seconds on one core). It is seeded: the same numpy, BLAS and thread count give the same file.
It uses nothing of simdflow; the images' origin and licence are in the docstring of this package.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .network import DATA, LAYERS, STRIDES, Array, load, patches, predict_reference

SEED = 0
TEST_IMAGES = 360
EPOCHS = 40
BATCH = 64
RATE = 4e-3
SHAPES = {"conv1": (3, 3, 1, 16), "conv2": (3, 3, 16, 32), "dense": (4 * 4 * 32, 10)}

Parameters = dict[str, Array]


class Split(NamedTuple):
    """Images u8[n, 8, 8, 1] with values 0..16 and labels u8[n], for training and for the test."""

    train_images: Array
    train_labels: Array
    test_images: Array
    test_labels: Array


def split_digits() -> Split:
    """scikit-learn's 1,797 digits, shuffled with a fixed seed; the last 360 are held out."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(SEED).permutation(len(digits.target))
    images = digits.images[order].astype(np.uint8)[..., None]
    labels = digits.target[order].astype(np.uint8)
    return Split(
        images[:-TEST_IMAGES], labels[:-TEST_IMAGES], images[-TEST_IMAGES:], labels[-TEST_IMAGES:]
    )


def initial(rng: np.random.Generator, dtype: type = np.float32) -> Parameters:
    """He-normal weights and zero biases, ``{layer}.w`` (HWIO or [k, n]) and ``{layer}.bias``."""
    parameters: Parameters = {}
    for name, shape in SHAPES.items():
        deviation = np.sqrt(2 / np.prod(shape[:-1]))
        parameters[f"{name}.w"] = (rng.standard_normal(shape) * deviation).astype(dtype)
        parameters[f"{name}.bias"] = np.zeros(shape[-1], dtype)
    return parameters


def forward(parameters: Parameters, x: Array) -> tuple[list[Array], list[Array]]:
    """Float network: relu(conv1), relu(conv2), dense. x[n, 8, 8, 1] in 0..1.

    Returns each layer's input columns ([n, oh, ow, k] or [n, k]) and each layer's output, the last
    being the logits [n, 10].
    """
    columns, outputs = [], []
    for name in LAYERS:
        w, bias = parameters[f"{name}.w"], parameters[f"{name}.bias"]
        cols = patches(x, STRIDES[name]) if name in STRIDES else x.reshape(len(x), -1)
        x = cols @ w.reshape(-1, w.shape[-1]) + bias
        if name in STRIDES:
            x = np.maximum(x, 0)
        columns.append(cols)
        outputs.append(x)
    return columns, outputs


def loss_and_gradient(parameters: Parameters, x: Array, labels: Array) -> tuple[float, Parameters]:
    """Mean cross entropy of the softmax of the logits, and its derivative by every parameter."""
    columns, outputs = forward(parameters, x)
    logits = outputs[-1]
    logs = logits - logits.max(axis=1, keepdims=True)
    logs = logs - np.log(np.exp(logs).sum(axis=1, keepdims=True))
    rows = np.arange(len(x))
    loss = -float(logs[rows, labels].mean())

    upstream = np.exp(logs)
    upstream[rows, labels] -= 1
    upstream /= len(x)
    gradient: Parameters = {}
    for i in reversed(range(len(LAYERS))):
        name = LAYERS[i]
        w = parameters[f"{name}.w"]
        if name in STRIDES:
            upstream = upstream * (outputs[i] > 0)
        flat = upstream.reshape(-1, w.shape[-1])
        cols = columns[i].reshape(len(flat), -1)
        gradient[f"{name}.w"] = (cols.T @ flat).reshape(w.shape)
        gradient[f"{name}.bias"] = flat.sum(axis=0)
        if i:
            below = outputs[i - 1].shape
            by_column = flat @ w.reshape(-1, w.shape[-1]).T
            if name in STRIDES:
                by_column = by_column.reshape(*columns[i].shape[:3], 3, 3, below[-1])
                upstream = unpatch(by_column, STRIDES[name], below)
            else:
                upstream = by_column.reshape(below)
    return loss, gradient


def unpatch(windows: Array, stride: int, shape: tuple[int, ...]) -> Array:
    """The adjoint of ``patches``: windows[n, oh, ow, 3, 3, c] summed where they came from."""
    n, h, w, c = shape
    bordered = np.zeros((n, h + 2, w + 2, c), windows.dtype)
    _, oh, ow = windows.shape[:3]
    for kh in range(3):
        for kw in range(3):
            rows = slice(kh, kh + stride * oh, stride)
            cols = slice(kw, kw + stride * ow, stride)
            bordered[:, rows, cols] += windows[:, :, :, kh, kw]
    return bordered[:, 1:-1, 1:-1]


def shifted(images: Array, rng: np.random.Generator) -> Array:
    """The images, each moved by -1, 0 or 1 pixels along both axes: the one augmentation."""
    bordered = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    down, right = rng.integers(0, 3, (2, len(images), 1, 1))
    rows = np.arange(8)[None, :, None] + down
    columns = np.arange(8)[None, None, :] + right
    return bordered[np.arange(len(images))[:, None, None], rows, columns]


def train(images: Array, labels: Array, epochs: int = EPOCHS) -> Parameters:
    """Adam with a cosine schedule and small shifts; f32 parameters. Deterministic by SEED."""
    rng = np.random.default_rng(SEED)
    parameters = initial(rng)
    mean = {name: np.zeros_like(value) for name, value in parameters.items()}
    square = {name: np.zeros_like(value) for name, value in parameters.items()}
    x = images.astype(np.float32) / 16
    batches = len(x) // BATCH
    for step in range(1, epochs * batches + 1):
        if step % batches == 1:
            order = rng.permutation(len(x))
        start = (step - 1) % batches * BATCH
        batch = order[start : start + BATCH]
        _, gradient = loss_and_gradient(parameters, shifted(x[batch], rng), labels[batch])
        rate = RATE * (1 + np.cos(np.pi * step / (epochs * batches))) / 2
        for name, slope in gradient.items():
            mean[name] += 0.1 * (slope - mean[name])
            square[name] += 0.001 * (slope**2 - square[name])
            deviation = np.sqrt(square[name] / (1 - 0.999**step)) + 1e-8
            parameters[name] -= np.float32(rate) * mean[name] / (1 - 0.9**step) / deviation
    return parameters


def quantize(parameters: Parameters, images: Array) -> dict[str, Array]:
    """Post-training quantization as TFLite does it, calibrated on these images' activations.

    Weights: i8 in -127..127, symmetric, a scale per output channel. Activations: u8, a scale and a
    zero point per tensor that span the whole range seen; the pixels 0..16 are u8 of scale 1/16 as
    they are, and after a relu the zero point is 0. Bias: i32 of scale x_scale * w_scale. ``scale``
    f32[4] and ``zero_point`` i32[4] belong to the input and the three outputs.
    """
    _, outputs = forward(parameters, images.astype(np.float32) / 16)
    low = np.array([0.0, *(min(float(y.min()), 0.0) for y in outputs)])
    high = np.array([255 / 16, *(float(y.max()) for y in outputs)])
    scale = ((high - low) / 255).astype(np.float32)
    zero_point = np.rint(-low / scale).astype(np.int32)
    stored: dict[str, Array] = {"scale": scale, "zero_point": zero_point}
    for i, name in enumerate(LAYERS):
        w = parameters[f"{name}.w"]
        w_scale = (np.abs(w).max(axis=tuple(range(w.ndim - 1))) / 127).astype(np.float32)
        stored[f"{name}.w"] = np.clip(np.rint(w / w_scale), -127, 127).astype(np.int8)
        stored[f"{name}.w_scale"] = w_scale
        stored[f"{name}.bias"] = np.rint(
            parameters[f"{name}.bias"] / (scale[i].astype(np.float64) * w_scale)
        ).astype(np.int32)
    return stored


def save(path: Path, quantized: dict[str, Array], images: Array, labels: Array) -> None:
    """Writes the quantized network and the held-out images as one compressed npz."""
    arrays: dict[str, Any] = {"images": images, "labels": labels, **quantized}
    np.savez_compressed(path, **arrays)


def main() -> None:
    """Trains, quantizes, saves and prints the accuracy on the held-out images before and after."""
    split = split_digits()
    parameters = train(split.train_images, split.train_labels)
    save(DATA, quantize(parameters, split.train_images), split.test_images, split.test_labels)
    digits = load()
    exact = forward(parameters, digits.images.astype(np.float32) / 16)[1][-1]
    quantized = predict_reference(digits.layers, digits.images)
    count = len(digits.labels)
    for kind, logits in ("f32", exact), ("int8", quantized):
        right = int((logits.argmax(axis=1) == digits.labels).sum())
        print(f"{kind}: {right} of {count} held-out digits = {right / count:.2%}")


if __name__ == "__main__":
    main()
