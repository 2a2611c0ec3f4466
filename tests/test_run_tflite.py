"""Whole networks: a .tflite file run layer after layer gives the bits of its reference.

A small network made here is compared with the numpy references; the sample networks, where they
are present, with outputs stored from LiteRT. The layers themselves are tested in test_ops_*.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import simdflow as sf
from simdflow.cli import main
from simdflow.dsl.errors import ModelError, OperandError
from simdflow.frontends import layerwise, samples, tflite, tflite_layers

pytest.importorskip("tflite", reason="reading .tflite files needs simdflow[tflite]")

import tflite_numpy
from tflite_file import FileOperator, FileTensor, write

CONV, DEPTHWISE, ADD, AVERAGE, DENSE, SOFTMAX = 3, 4, 0, 1, 9, 25
RESHAPE, ABS, SUB = 22, 101, 41
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


@pytest.mark.parametrize("rounding", ["float", "tflite"])
@pytest.mark.parametrize("target", [t.name for t in sf.host_targets()])
def test_a_small_network_has_the_bits_of_the_references(target: str, rounding: str) -> None:
    model = tflite.parse(residual_network())
    network = tflite_layers.prepare(model, "small", target, rounding)
    rng = np.random.default_rng(1)
    x = rng.integers(-128, 128, (6, 9, 7, 3)).astype(np.int8)
    x[0], x[1] = 127, -128
    kept = x.copy()
    found = layerwise.outputs(network, x)
    (expected,) = tflite_numpy.run(model, x, rounding)
    assert np.array_equal(found, expected)
    assert np.array_equal(x, kept)
    assert len(np.unique(expected)) > 5  # not the constant that a broken network gives
    assert network.target == target


def test_times_are_one_for_each_step() -> None:
    network = tflite_layers.prepare(tflite.parse(residual_network()), "small")
    x = np.zeros((9, 7, 3), np.int8)
    each, whole = layerwise.timings(network, x, seconds=0.01)
    assert len(each) == len(network.steps) == 7
    shown = [step.kind for step, us in zip(network.steps, each, strict=True) if us == 0]
    assert shown == ["RESHAPE"]
    assert 0 < whole < 1e5
    convolution = network.steps[0]
    assert convolution.macs == 5 * 4 * 8 * 27


def test_all_that_is_not_supported_is_listed_at_once() -> None:
    f32 = FileTensor((1, 4, 4, 2), "float32")
    tensors = [f32, f32, f32, FileTensor((1, 4, 4, 2)), f32]
    operators = [
        FileOperator(ABS, (0,), (1,)),
        FileOperator(SUB, (1, 0), (2,)),
        FileOperator(ADD, (2, 1), (4,), "AddOptions", {"FusedActivationFunction": 4}),
    ]
    model = tflite.parse(write(tensors, operators, (0,), (4,)))
    assert [line.split(":")[0] for line in tflite_layers.unsupported(model)] == [
        "operators[0]=ABS", "operators[1]=SUB", "operators[2]=ADD"
    ]  # fmt: skip
    with pytest.raises(ModelError, match=r"operators=3 are not supported(.|\n)*Supported are ADD"):
        tflite_layers.prepare(model, "strange")


def test_tensors_that_do_not_fit_each_other_are_refused() -> None:
    sizes = FileTensor((1,), "int32", data=np.array([7], np.int32))
    tensors = [FileTensor((1, 8), "float32"), sizes, FileTensor((1, 7), "float32")]
    model = tflite.parse(write(tensors, [FileOperator(RESHAPE, (0, 1), (2,))], (0,), (2,)))
    with pytest.raises(ModelError, match=r"operators\[0\]=RESHAPE does not fit its tensors"):
        tflite_layers.prepare(model, "wrong")


def test_inputs_of_other_types_are_real_values() -> None:
    network = tflite_layers.prepare(tflite.parse(residual_network()), "small")
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
    table = shown[shown.index("layer ") :].splitlines()
    assert len(table) == 9
    assert table[1].split()[:3] == ["0", "CONV_2D", "3x3/2"]
    assert table[-1].startswith("whole network")

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
    return layerwise.outputs(
        tflite_layers.prepare(tflite.read(path), path.name, rounding=rounding), x
    )


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


def test_a_hybrid_network_is_refused_with_each_reason(models_dir: Path) -> None:
    model = tflite.read(models_dir / "tflite" / "dscnn_kws_hybrid_f32act_int8w.tflite")
    problems = tflite_layers.unsupported(model)
    assert len(problems) == 5
    assert all("float32 inputs with int8 weights (hybrid)" in problem for problem in problems)
