"""Whole networks in numpy against LiteRT's recorded outputs: int8 bit by bit, f32 within
tolerance.
"""

from pathlib import Path

import numpy as np
import pytest
import tflite_numpy

from simdflow.frontends import tflite

pytest.importorskip("tflite", reason="simdflow[tflite] is not installed")

INT8 = ("resnet8_cifar10", "dscnn_kws", "mobilenetv1_025_vww96", "fcae_toyadmos")


@pytest.mark.parametrize(("kernels", "rounding"), [("auto", "float"), ("ref", "tflite")])
@pytest.mark.parametrize("name", [*INT8, "mobilenetv2_imagenet"])
def test_an_int8_network_is_bit_exact(
    models_dir: Path, name: str, kernels: str, rounding: str
) -> None:
    model = tflite.read(models_dir / "tflite" / f"{name}_int8.tflite")
    golden = np.load(models_dir / "golden" / f"{name}_int8.npz")
    (found,) = tflite_numpy.run(model, golden["x"], rounding)
    assert np.array_equal(found, golden[kernels])


@pytest.mark.parametrize("name", ["resnet8_cifar10", "mobilenetv1_025_vww96", "fcae_toyadmos"])
def test_an_f32_network_is_close(models_dir: Path, name: str) -> None:
    model = tflite.read(models_dir / "tflite" / f"{name}_f32.tflite")
    golden = np.load(models_dir / "golden" / f"{name}_f32.npz")
    (found,) = tflite_numpy.run(model, golden["x"])
    assert np.abs(found - golden["auto"]).max() <= 3e-5 * np.abs(golden["auto"]).max()
