"""Writes litert_ops.npz: what LiteRT answers to single int8 operators, for chosen scales.

Run by hand where ai-edge-litert 2.3.0, tflite and flatbuffers are installed:
`python tests/golden/make_litert_ops.py`. The tests read the file only.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tflite_file import FileOperator, FileTensor, write

KERNELS = {"auto": OpResolverType.AUTO, "ref": OpResolverType.BUILTIN_REF}
EVERY = np.arange(-128, 128, dtype=np.int8).reshape(1, 256)
UNARY = {  # builtin code, option table, its fields, fixed output scale and zero point
    "sigmoid": (14, "", {}, (1 / 256, -128)),
    "tanh": (28, "", {}, (1 / 128, 0)),
    "relu6": (21, "", {}, None),
    "hardswish": (117, "HardSwishOptions", {}, None),
    "gelu": (150, "GeluOptions", {"Approximate": False}, None),
    "gelu_tanh": (150, "GeluOptions", {"Approximate": True}, None),
    "leaky_relu": (98, "LeakyReluOptions", {"Alpha": 0.375}, None),
    "rescale": (114, "", {}, None),
}


def answers(content: bytes, *inputs: np.ndarray) -> dict[str, np.ndarray]:
    """The output of the file's model from both kinds of kernels."""
    found = {}
    for name, kernels in KERNELS.items():
        it = Interpreter(model_content=content, experimental_op_resolver_type=kernels)
        it.allocate_tensors()
        for detail, value in zip(it.get_input_details(), inputs, strict=True):
            it.set_tensor(detail["index"], value)
        it.invoke()
        found[name] = it.get_tensor(it.get_output_details()[0]["index"]).copy()
    return found


def activation(shape: tuple[int, ...], quant: tuple[float, int]) -> FileTensor:
    return FileTensor(shape, scale=(quant[0],), zero_point=(quant[1],))


def main() -> None:
    rng = np.random.default_rng(20)
    records: dict[str, np.ndarray] = {}

    def keep(name: str, content: bytes, *inputs: np.ndarray, **parameters: Any) -> None:
        for i, value in enumerate(inputs):
            records[f"{name}.x{i}"] = value
        for key, value in {**parameters, **answers(content, *inputs)}.items():
            records[f"{name}.{key}"] = np.asarray(value)

    def quant(low: float = 0.005, high: float = 0.2) -> tuple[float, int]:
        return float(np.float32(rng.uniform(low, high))), int(rng.integers(-128, 128))

    for case in range(6):
        qx, qy = quant(), quant(0.02, 0.1)
        if case == 0:  # powers of two make ties
            qx, qy = (2.0**-5, 3), (2.0**-4, -7)
        for name, (code, table, fields, fixed) in UNARY.items():
            out = fixed or qy
            content = write(
                [activation(EVERY.shape, qx), activation(EVERY.shape, out)],
                [FileOperator(code, (0,), (1,), table, fields, version=1 if code == 117 else 2)],
                (0,),
                (1,),
            )
            keep(f"{name}_{case}", content, EVERY, qx=qx, qy=out)
        a, b = rng.integers(-128, 128, (2, 1, 1024)).astype(np.int8)
        qb = quant()
        for name, code, table, out in (
            ("add", 0, "AddOptions", qy),
            ("mul", 18, "MulOptions", (float(np.float32(qx[0] * qb[0] * 60)), qy[1])),
        ):
            content = write(
                [activation(a.shape, q) for q in (qx, qb, out)],
                [FileOperator(code, (0, 1), (2,), table)],
                (0, 1),
                (2,),
            )
            keep(f"{name}_{case}", content, a, b, qx=qx, qb=qb, qy=out)
        h, w = (int(v) for v in rng.integers(1, 15, 2))
        x = rng.integers(-128, 128, (8, h, w, 8)).astype(np.int8)
        axes = FileTensor((2,), "int32", np.array([1, 2], np.int32))
        content = write(
            [activation(x.shape, qx), axes, activation((8, 8), (qx[0] / 3, qy[1]))],
            [FileOperator(40, (0, 1), (2,), "ReducerOptions")],
            (0,),
            (2,),
        )
        keep(f"mean_{case}", content, x, qx=qx, qy=(qx[0] / 3, qy[1]))
        pooled = (8, -(-h // 2), w, 8)
        window = {"Padding": 0, "StrideH": 2, "StrideW": 1, "FilterHeight": 3, "FilterWidth": 2}
        content = write(
            [activation(x.shape, qx), activation(pooled, qx)],
            [FileOperator(1, (0,), (1,), "Pool2DOptions", window)],
            (0,),
            (1,),
        )
        keep(f"avg_pool_{case}", content, x)
        rows = (rng.integers(-128, 128, (16, 20)) // (case + 1)).astype(np.int8)
        content = write(
            [activation(rows.shape, qx), activation(rows.shape, (1 / 256, -128))],
            [FileOperator(25, (0,), (1,), "SoftmaxOptions", {"Beta": 1.0})],
            (0,),
            (1,),
        )
        keep(f"softmax_{case}", content, rows, qx=qx)
        # Accumulators next to ties: the input is its zero point, the bias the accumulator.
        n, relu6 = 512, 3 * (case % 2)
        sx, sy = np.float32(rng.uniform(0.3, 1)), np.float32(rng.uniform(0.3, 1))
        if relu6:
            sy = np.float32([2.4, 4.0, 12 / 7, 12.0][case // 2])
        sw = (rng.uniform(0.2, 1, n) * 2.0 ** -rng.integers(5, 20, n)).astype(np.float32)
        if case < 2:
            sw[:], sx, sy = 2.0**-6, 1.0, 1.0
        ties = rng.integers(-120, 120, n) + 0.5
        acc = np.rint(ties / (sw.astype(np.float64) * sx / sy))
        acc = np.clip(acc, -(2**31) + 1, 2**31 - 1).astype(np.int32)
        for name, code, table, shape in (
            ("conv", 3, "Conv2DOptions", (n, 1, 1, 4)),
            ("dense", 9, "FullyConnectedOptions", (n, 4)),
        ):
            x = np.full((1, 1, 1, 4) if name == "conv" else (1, 4), 3, np.int8)
            fields = {"FusedActivationFunction": relu6}
            if name == "conv":
                fields |= {"Padding": 1, "StrideH": 1, "StrideW": 1}
            weights = FileTensor(shape, data=np.ones(shape, np.int8), scale=tuple(sw))
            weights.zero_point = (0,) * n
            content = write(
                [
                    activation(x.shape, (float(sx), 3)),
                    weights,
                    FileTensor((n,), "int32", acc, tuple(sw * np.float32(sx)), (0,) * n),
                    activation((*x.shape[:-1], n), (float(sy), qy[1])),
                ],
                [
                    FileOperator(
                        code, (0, 1, 2), (3,), table, fields, version=3 if name == "conv" else 4
                    )
                ],
                (0,),
                (3,),
            )
            parameters = {"sx": sx, "sw": sw, "sy": sy, "zy": qy[1], "relu6": relu6}
            keep(f"{name}_{case}", content, x, acc=acc, **parameters)
    for case in range(6):
        qa, qb, qy = quant(), quant(), quant(0.02, 0.3)
        if case == 0:  # ties
            qa, qb, qy = (2.0**-5, 3), (2.0**-5, 5), (2.0**-4, -7)
        if case == 1:  # beyond the scales of XNNPACK's sum
            qb = (float(np.float32(2e-5)), 1)
        a, b = rng.integers(-128, 128, (2, 1, 1024)).astype(np.int8)
        content = write(
            [activation(a.shape, q) for q in (qa, qb, qy)],
            [FileOperator(41, (0, 1), (2,), "SubOptions", {"FusedActivationFunction": case % 2})],
            (0, 1),
            (2,),
        )
        keep(f"sub_{case}", content, a, b, qx=qa, qb=qb, qy=qy, relu=case % 2)
        # Real values on ties and next to them.
        ties = (rng.integers(-160 - qa[1], 160 - qa[1], (1, 1024)) + 0.5) * np.float32(qa[0])
        x = np.nextafter(ties.astype(np.float32), rng.choice([-np.inf, np.inf], ties.shape))
        x = np.where(rng.random(x.shape) < 0.5, ties, x).astype(np.float32)
        content = write(
            [FileTensor(x.shape, "float32"), activation(x.shape, qa)],
            [FileOperator(114, (0,), (1,), "", {}, version=1)],
            (0,),
            (1,),
        )
        keep(f"quantize_{case}", content, x, qy=qa)
    np.savez_compressed(Path(__file__).with_name("litert_ops.npz"), **records)


if __name__ == "__main__":
    main()
