"""The digit classifier of `make demo`: its arithmetic, its training and its stored result."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest

from examples.digits import network, train
from examples.digits.network import Array, Layer


@pytest.fixture(scope="module")
def digits() -> network.Digits:
    return network.load()


def scalar_layer(layer: Layer, x: Array) -> Array:
    """The layer as loops over Python integers: what `layer_reference` must equal."""
    s, pad = layer.stride, layer.padding
    kh, kw = layer.w.shape[:2]
    n, h, w, _ = x.shape
    oh, ow = (h + 2 * pad - kh) // s + 1, (w + 2 * pad - kw) // s + 1
    y = np.zeros((n, oh, ow, layer.w.shape[-1]), np.uint8)
    for b, i, j, oc in np.ndindex(y.shape):
        acc = int(layer.bias[oc])
        for u, v, ic in product(range(kh), range(kw), range(x.shape[3])):
            row, column = i * s + u - pad, j * s + v - pad
            if 0 <= row < h and 0 <= column < w:
                value = int(x[b, row, column, ic]) - layer.x_zero_point
                acc += value * int(layer.w[u, v, ic, oc])
        scaled = np.float32(acc) * layer.multiplier[oc]
        y[b, i, j, oc] = min(max(round(float(scaled)) + layer.y_zero_point, 0), 255)
    return y


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("zero_points", [(0, 0), (3, 0), (128, 131)])
def test_convolution_equals_scalar_loops(stride: int, zero_points: tuple[int, int]) -> None:
    rng = np.random.default_rng(stride)
    layer = Layer(
        name="conv",
        w=rng.integers(-128, 128, (3, 3, 2, 5)).astype(np.int8),
        bias=rng.integers(-4000, 4000, 5).astype(np.int32),
        w_scale=rng.uniform(0.001, 0.01, 5).astype(np.float32),
        x_scale=np.float32(0.1),
        x_zero_point=zero_points[0],
        y_scale=np.float32(0.3),
        y_zero_point=zero_points[1],
        stride=stride,
        padding=1,
    )
    x = rng.integers(0, 256, (2, 5, 6, 2)).astype(np.uint8)
    y = network.layer_reference(layer, x)
    assert y.dtype == np.uint8
    assert len(np.unique(y)) > 20
    np.testing.assert_array_equal(y, scalar_layer(layer, x))


def test_dense_equals_scalar_loops(digits: network.Digits) -> None:
    dense = digits.layers[-1]
    x = np.random.default_rng(0).integers(0, 256, (3, 512)).astype(np.uint8)
    as_1x1 = Layer(
        name="dense",
        w=dense.w.reshape(1, 1, 512, 10),
        bias=dense.bias,
        w_scale=dense.w_scale,
        x_scale=dense.x_scale,
        x_zero_point=dense.x_zero_point,
        y_scale=dense.y_scale,
        y_zero_point=dense.y_zero_point,
    )
    expected = scalar_layer(as_1x1, x.reshape(3, 1, 1, 512)).reshape(3, 10)
    np.testing.assert_array_equal(network.layer_reference(dense, x), expected)


def test_requantize_rounds_ties_to_even_and_clamps() -> None:
    acc = np.array([1, 3, 5, -1, -3, 250, 251, 2**31 - 1, -(2**31)], np.int32)
    half = np.float32(0.5)
    assert network.requantize(acc, half, 0).tolist() == [0, 2, 2, 0, 0, 125, 126, 255, 0]
    assert network.requantize(acc, half, 10).tolist() == [10, 12, 12, 10, 8, 135, 136, 255, 0]


def test_stored_network_classifies_the_held_out_digits(digits: network.Digits) -> None:
    logits = network.predict_reference(digits.layers, digits.images)
    assert logits.shape == (360, 10)
    assert logits.dtype == np.uint8
    right = int((logits.argmax(axis=1) == digits.labels).sum())
    assert right == 355


def test_stored_arrays_have_the_documented_types(digits: network.Digits) -> None:
    assert digits.images.shape == (360, 8, 8, 1)
    assert digits.images.dtype == digits.labels.dtype == np.uint8
    assert digits.images.max() == 16
    assert set(digits.labels.tolist()) == set(range(10))
    assert [layer.name for layer in digits.layers] == list(network.LAYERS)
    for layer in digits.layers:
        assert layer.w.shape == train.SHAPES[layer.name]
        assert layer.w.dtype == np.int8
        assert np.abs(layer.w.astype(int)).max() == 127
        assert layer.bias.dtype == np.int32
        assert layer.multiplier.dtype == np.float32
        assert not layer.w.flags.writeable
    assert digits.layers[0].x_scale == np.float32(1 / 16)
    assert [layer.x_zero_point for layer in digits.layers] == [0, 0, 0]
    assert 0 < digits.layers[-1].y_zero_point < 255


def test_gradient_equals_finite_differences(digits: network.Digits) -> None:
    rng = np.random.default_rng(1)
    parameters = train.initial(rng, np.float64)
    for name in network.LAYERS:
        parameters[f"{name}.bias"] += rng.normal(0, 0.1, parameters[f"{name}.bias"].shape)
    x, labels = digits.images[:4] / 16, digits.labels[:4]
    _, gradient = train.loss_and_gradient(parameters, x, labels)
    step = 1e-6
    for name, value in parameters.items():
        direction = rng.standard_normal(value.shape)
        losses = [
            train.loss_and_gradient({**parameters, name: value + sign * direction}, x, labels)[0]
            for sign in (step, -step)
        ]
        numeric = (losses[0] - losses[1]) / (2 * step)
        assert numeric == pytest.approx((gradient[name] * direction).sum(), rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("stride", [1, 2])
def test_unpatch_is_the_adjoint_of_patches(stride: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 8, 8, 3))
    columns = network.patches(x, stride)
    y = rng.standard_normal(columns.shape)
    back = train.unpatch(y.reshape(*y.shape[:3], 3, 3, 3), stride, x.shape)
    assert (columns * y).sum() == pytest.approx((x * back).sum())


def test_shifted_moves_by_at_most_one_pixel() -> None:
    images = np.zeros((200, 8, 8, 1), np.float32)
    images[:, 4, 4] = 1
    moved = train.shifted(images, np.random.default_rng(0))
    places = {(int(r), int(c)) for _, r, c, _ in np.argwhere(moved)}
    assert places == set(product((3, 4, 5), repeat=2))
    assert moved.sum() == 200


def test_training_and_quantization_from_scratch(digits: network.Digits, tmp_path: Path) -> None:
    """A short training on the stored images themselves: learns them, and int8 follows f32."""
    parameters = train.train(digits.images, digits.labels, epochs=30)
    logits = train.forward(parameters, digits.images.astype(np.float32) / 16)[1][-1]
    assert (logits.argmax(axis=1) == digits.labels).mean() > 0.95

    path = tmp_path / "digits.npz"
    train.save(path, train.quantize(parameters, digits.images), digits.images, digits.labels)
    again = network.load(path)
    last = again.layers[-1]
    q = network.predict_reference(again.layers, again.images)
    real = last.y_scale * (q.astype(np.float32) - last.y_zero_point)
    # Three layers, each half a step of its own rounding wrong plus what its weights lost.
    assert np.abs(real - logits).max() < 8 * last.y_scale
    assert (q.argmax(axis=1) == logits.argmax(axis=1)).mean() > 0.99


def test_the_stored_images_are_the_ones_not_trained_on(digits: network.Digits) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn holds the images trained on")
    split = train.split_digits()
    np.testing.assert_array_equal(split.test_images, digits.images)
    np.testing.assert_array_equal(split.test_labels, digits.labels)
    seen = {image.tobytes() for image in split.train_images}
    assert not seen & {image.tobytes() for image in digits.images}
