"""Quantization of trained networks: the end accuracy of 8 bits against f32, on real data.

The samples for the ranges are not among those that the accuracy is measured on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import simdflow as sf
from simdflow import ops
from simdflow.graph.graph import Graph
from simdflow.graph.quantize import PRODUCTS

CALIBRATION = 200
POINT = 0.01


def ds_cnn(folder: Path) -> Graph:
    """DS-CNN for keywords: a convolution, four depthwise and pointwise ones, a mean, a product."""
    with np.load(folder / "weights" / "dscnn_kws_f32_bnfolded.npz") as stored:
        w = {key: stored[key] for key in stored.files}
    same: dict[str, Any] = {"padding": "same", "activation": "relu"}

    def network(x: Any) -> Any:
        x = ops.conv2d(x, w["conv0_w"], w["conv0_b"], stride=2, **same)
        for i in range(4):
            x = ops.depthwise_conv2d(x, w[f"dw{i}_w"][..., 0], w[f"dw{i}_b"], **same)
            x = ops.conv2d(x, w[f"pw{i}_w"], w[f"pw{i}_b"], **same)
        return ops.dense(ops.global_avg_pool2d(x).reshape(1, 64), w["fc_w"], w["fc_b"])

    return sf.trace(network, sf.f32[1, 49, 10, 1], name="ds_cnn")


def keywords(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """(features, labels) of spoken words."""
    with np.load(folder / "data" / "kws01_int8_mfcc_1000.npz") as stored:
        return (stored["x"].astype(np.float32) - 83) * np.float32(0.5847029), stored["y"]


def images(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """(pixels, labels) of CIFAR-10."""
    with np.load(folder / "data" / "cifar10_test_jpgdecoded_1000.npz") as stored:
        return stored["x"].astype(np.float32), stored["y"]


def assert_close(graph: Graph, x: np.ndarray, y: np.ndarray, least: float, **rule: Any) -> None:
    """8 bits are within a point of f32 on samples that the ranges were not taken from; every
    product is in 8 bits, and the compiled network says what the comparison does.
    """
    small = sf.quantize(graph, x[:CALIBRATION], **rule)
    assert all("y_q" in n.options for n in small.nodes if n.op in PRODUCTS)
    report = sf.compare(graph, small, x[CALIBRATION:], y[CALIBRATION:])
    assert report.accuracy is not None
    before, after = report.accuracy
    assert before > least and after >= before - POINT, str(report)
    assert report.agreement > 0.93, str(report)
    assert min(layer.snr_db for layer in report.layers) > 10, str(report)
    found = sf.compile(small).predict(x[CALIBRATION:])
    right = found.reshape(len(found), -1).argmax(axis=1) == y[CALIBRATION:]
    assert abs(right.mean() - after) < 0.005


@pytest.mark.parametrize("rule", ["minmax", "percentile", "mse"])
def test_ds_cnn_is_within_a_point(models_dir: Path, rule: str) -> None:
    assert_close(ds_cnn(models_dir), *keywords(models_dir), 0.9, ranges=rule)


def test_a_network_from_onnx_is_within_a_point(models_dir: Path) -> None:
    pytest.importorskip("onnx", reason="simdflow[onnx] is not installed")
    graph = sf.from_onnx(models_dir / "weights" / "alibaba_dscnn32_kws_f32.onnx")
    assert_close(graph, *keywords(models_dir), 0.9)


@pytest.mark.parametrize("rule", ["percentile", "mse"])
def test_resnet_8_is_within_a_point(models_dir: Path, rule: str) -> None:
    pytest.importorskip("tflite", reason="simdflow[tflite] is not installed")
    graph = sf.from_tflite(models_dir / "tflite" / "resnet8_cifar10_f32.tflite")
    assert_close(graph, *images(models_dir), 0.7, ranges=rule)


def test_the_autoencoder_tells_as_much(models_dir: Path) -> None:
    pytest.importorskip("tflite", reason="simdflow[tflite] is not installed")
    graph = sf.from_tflite(models_dir / "tflite" / "fcae_toyadmos_f32.tflite")
    with np.load(models_dir / "data" / "toyadmos_normal_id01_logmel_200x128.npz") as stored:
        frames = stored["x"]
    x = np.stack([frames[i : i + 5].reshape(640) for i in range(len(frames) - 4)])
    small = sf.quantize(graph, x[::2])
    rest = x[1::2]
    before, after = (
        float(((sf.compile(g).predict(rest) - rest) ** 2).mean()) for g in (graph, small)
    )
    assert after < 1.05 * before
