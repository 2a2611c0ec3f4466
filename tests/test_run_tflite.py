"""Whole networks: a .tflite file, compiled as one function, gives the bits of its reference.

A small network made here is compared with the numpy references; the sample networks, where they
are present, with outputs stored from LiteRT. The layers themselves are tested in test_ops_*.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import simdflow as sf
from simdflow.cli import main
from simdflow.dsl.errors import OperandError
from simdflow.frontends import samples, tflite
from simdflow.graph.model import Model

pytest.importorskip("tflite", reason="reading .tflite files needs simdflow[tflite]")

import tflite_numpy
from tflite_file import FileOperator, FileTensor, write

CONV, DEPTHWISE, ADD, AVERAGE, DENSE, SOFTMAX = 3, 4, 0, 1, 9, 25
RESHAPE = 22
RELU = {"FusedActivationFunction": 1}


def residual_network(seed: int = 0) -> bytes:
    """i8[1, 9, 7, 3] through strided and depthwise convolution, sum, average, dense, softmax."""
    rng = np.random.default_rng(seed)

    def weights(*shape: int) -> np.ndarray:
        return rng.integers(-127, 128, shape).astype(np.int8)

    def scales(n: int) -> tuple[float, ...]:
        return tuple(float(s) for s in rng.uniform(0.002, 0.01, n))

    def bias(n: int) -> np.ndarray:
        return rng.integers(-2000, 2000, n).astype(np.int32)

    def activation(*shape: int, scale: float, zero_point: int) -> FileTensor:
        return FileTensor(shape, scale=(scale,), zero_point=(zero_point,))

    tensors = [
        activation(1, 9, 7, 3, scale=0.05, zero_point=-3),
        FileTensor((8, 3, 3, 3), data=weights(8, 3, 3, 3), scale=scales(8), zero_point=(0,) * 8),
        FileTensor((8,), "int32", data=bias(8)),
        activation(1, 5, 4, 8, scale=0.06, zero_point=-128),
        FileTensor((1, 3, 3, 8), data=weights(1, 3, 3, 8), scale=scales(8), zero_point=(0,) * 8,
                   axis=3),
        FileTensor((8,), "int32", data=bias(8)),
        activation(1, 5, 4, 8, scale=0.07, zero_point=9),
        activation(1, 5, 4, 8, scale=0.11, zero_point=-20),
        FileTensor((5, 8), data=weights(5, 8), scale=(0.01,), zero_point=(0,)),
        FileTensor((5,), "int32", data=bias(5)),
        activation(1, 1, 1, 8, scale=0.11, zero_point=-20),
        FileTensor((2,), "int32", data=np.array([1, 8], np.int32)),
        activation(1, 8, scale=0.11, zero_point=-20),
        activation(1, 5, scale=0.2, zero_point=4),
        activation(1, 5, scale=1 / 256, zero_point=-128),
    ]  # fmt: skip
    window = {"Padding": 0, "StrideH": 1, "StrideW": 1}
    strided = {"Padding": 0, "StrideH": 2, "StrideW": 2, **RELU}
    pool = {"Padding": 1, "StrideH": 5, "StrideW": 4, "FilterHeight": 5, "FilterWidth": 4}
    operators = [
        FileOperator(CONV, (0, 1, 2), (3,), "Conv2DOptions", strided),
        FileOperator(DEPTHWISE, (3, 4, 5), (6,), "DepthwiseConv2DOptions",
                     {**window, "DepthMultiplier": 1}),
        FileOperator(ADD, (3, 6), (7,), "AddOptions", RELU),
        FileOperator(AVERAGE, (7,), (10,), "Pool2DOptions", pool),
        FileOperator(RESHAPE, (10, 11), (12,)),
        FileOperator(DENSE, (12, 8, 9), (13,), "FullyConnectedOptions"),
        FileOperator(SOFTMAX, (13,), (14,), "SoftmaxOptions", {"Beta": 1.0}),
    ]  # fmt: skip
    return write(tensors, operators, (0,), (14,))


def compiled(content: bytes, rounding: str = "float", **options: object) -> Model:
    return sf.compile(sf.from_tflite(content, rounding=rounding), **options)


@pytest.mark.parametrize("rounding", ["float", "tflite"])
@pytest.mark.parametrize("target", [t.name for t in sf.host_targets()])
def test_a_small_network_has_the_bits_of_the_references(target: str, rounding: str) -> None:
    network = compiled(residual_network(), rounding, target=target)
    rng = np.random.default_rng(1)
    x = rng.integers(-128, 128, (6, 9, 7, 3)).astype(np.int8)
    x[0], x[1] = 127, -128
    kept = x.copy()
    found = network.predict(x)
    (expected,) = tflite_numpy.run(tflite.parse(residual_network()), x, rounding)
    assert np.array_equal(found, expected)
    assert np.array_equal(x, kept)
    assert len(np.unique(expected)) > 5  # not the constant that a broken network gives
    assert network.target == target


def test_the_profile_has_a_line_for_each_kernel() -> None:
    network = compiled(residual_network())
    profile = network.profile(np.zeros((1, 9, 7, 3), np.int8), seconds=0.01)
    assert len(profile.lines) == len(network.network.calls)
    assert 0 < profile.whole_us < 1e5
    assert sum(line.share for line in profile.lines) == pytest.approx(1)
    assert any(line.macs == 5 * 4 * 8 * 27 for line in profile.lines)


def test_inputs_of_other_types_are_real_values() -> None:
    network = compiled(residual_network())
    q = np.arange(-128, 61, dtype=np.int8).reshape(1, 9, 7, 3)
    assert samples.inputs(q, network).inputs is q
    real = (q.astype(np.float32) + 3) * np.float32(0.05)
    converted = samples.inputs(real, network)
    assert np.array_equal(converted.inputs, q)
    assert "scale 0.05, zero point -3; 0 of 189 values lie outside" in converted.note
    pixels = np.full((2, 9, 7, 3), 200, np.uint8)
    assert np.all(samples.inputs(pixels, network, scale=1 / 255).inputs == 13)
    assert "378 of 378 values lie outside" in samples.inputs(pixels, network).note
    for wrong in (q[:, 1:], q[:0], np.full(q.shape, np.nan)):
        with pytest.raises(OperandError, match="run: input="):
            samples.inputs(wrong, network)


def test_the_command_runs_a_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "net.tflite").write_bytes(residual_network())
    model = tflite.parse(residual_network())
    x = np.random.default_rng(2).integers(-128, 128, (5, 9, 7, 3)).astype(np.int8)
    (y,) = tflite_numpy.run(model, x)
    np.savez(tmp_path / "x.npz", x=x, y=y.argmax(axis=1), auto=y)
    np.save(tmp_path / "wrong.npy", y ^ 1)
    command = ["run", str(tmp_path / "net.tflite"), "--input", str(tmp_path / "x.npz")]
    assert main([*command, "--golden", str(tmp_path / "x.npz"), "--count", "4"]) == 0
    shown = capsys.readouterr().out
    assert "4 of 4 labels right" in shown
    assert "x.npz: the same bits on 4 inputs" in shown
    assert "net.tflite on " in shown
    trace = tmp_path / "trace.json"
    assert main([*command, "--trace", str(trace)]) == 0
    events = json.loads(trace.read_text())["traceEvents"]
    assert all(e["dur"] >= 0 for e in events)
    capsys.readouterr()

    assert main([*command, "--golden", str(tmp_path / "wrong.npy")]) == 1
    assert "25 of 25 values differ, by 1 at most" in capsys.readouterr().out
    for more, said in (
        (["--key", "z"], "key='z' is not in"),
        (["--input", str(tmp_path / "net.tflite")], "cannot be read"),
        (["--input", str(tmp_path / "none.npy")], "cannot be read"),
        (["--target", "avx9"], "name='avx9' is not known"),
    ):
        assert main([*command, *more]) == 1
        assert said in capsys.readouterr().err


def _golden(models_dir: Path, name: str) -> tuple[Path, dict[str, np.ndarray]]:
    with np.load(models_dir / "golden" / f"{name}.npz") as stored:
        return models_dir / "tflite" / f"{name}.tflite", {k: stored[k] for k in stored.files}


def _outputs(path: Path, x: np.ndarray, rounding: str = "float") -> np.ndarray:
    return np.asarray(sf.load(path, rounding=rounding).predict(x))


# Compiling the others takes minutes.
QUICK = {
    ("resnet8_cifar10_int8", "float"),
    ("dscnn_kws_int8", "float"),
    ("fcae_toyadmos_int8", "float"),
    ("fcae_toyadmos_int8", "tflite"),
    ("mobilenetv1_025_vww96_int8", "float"),
}
INT8 = [
    pytest.param(name, rounding, marks=[] if (name, rounding) in QUICK else pytest.mark.thorough)
    for rounding in ("float", "tflite")
    for name in (*dict.fromkeys(name for name, _ in sorted(QUICK)), "mobilenetv2_imagenet_int8")
]


@pytest.mark.parametrize(("name", "rounding"), INT8)
def test_int8_networks_have_the_bits_of_litert(name: str, rounding: str, models_dir: Path) -> None:
    path, golden = _golden(models_dir, name)
    stored = {"float": "auto", "tflite": "ref"}[rounding]  # its default, its reference kernels
    assert np.array_equal(_outputs(path, golden["x"], rounding), golden[stored])


@pytest.mark.parametrize("name", ["resnet8_cifar10_f32", "fcae_toyadmos_f32"])
def test_f32_networks_are_near_litert(name: str, models_dir: Path) -> None:
    path, golden = _golden(models_dir, name)
    found = _outputs(path, golden["x"][:16])
    expected = golden["auto"][:16]
    assert np.abs(found - expected).max() <= 2e-5 * np.abs(expected).max()


def test_the_cifar_sample_through_the_command(
    models_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "resnet8_cifar10_int8"
    arguments = ["--input", str(models_dir / "data" / "cifar10_test_jpgdecoded_1000.npz")]
    arguments += ["--golden", str(models_dir / "golden" / f"{name}.npz"), "--count", "64"]
    assert main(["run", str(models_dir / "tflite" / f"{name}.tflite"), *arguments]) == 0
    shown = capsys.readouterr().out
    assert "the same bits on 64 inputs" in shown
    assert "0 of 196608 values lie outside" in shown
