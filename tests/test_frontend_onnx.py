"""ONNX models as graphs: names, shapes, constants, versions of operators, whole networks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper
from onnx_models import model, node, proto

from simdflow.dsl.errors import ModelError
from simdflow.frontends.onnx import from_onnx
from simdflow.graph.evaluate import evaluate

X = {"x": ("f32", (1, 4))}


def numbers(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


class TestNames:
    def test_inputs_and_outputs_keep_names_types_and_order(self) -> None:
        nodes = [node("Add", ["b", "a"], "s"), node("Shape", ["a"], "n"), node("Relu", ["s"], "r")]
        graph = from_onnx(
            model(nodes, {"b": ("f32", (2, 3)), "a": ("f32", (2, 3))}, ["r", "n", "s"])
        )
        assert graph.inputs == ("b", "a")
        assert graph.outputs == ("r", "n", "s")
        assert [str(graph.values[o].type) for o in graph.outputs] == [
            "f32[2, 3]",
            "i64[2]",
            "f32[2, 3]",
        ]
        assert graph.constants["n"].tolist() == [2, 3]

    def test_two_names_of_one_value(self) -> None:
        nodes = [
            node("Relu", ["x"], "r"), node("Identity", ["r"], "y"), node("Identity", ["r"], "z"),
            node("Identity", ["x"], "same"), node("Identity", ["w"], "kept"),
        ]  # fmt: skip
        graph = from_onnx(
            model(nodes, X, ["y", "r", "z", "same", "kept"], {"w": np.ones(3, np.float32)})
        )
        x = numbers((1, 4))
        found = evaluate(graph, {"x": x})
        for name in ("y", "r", "z"):
            np.testing.assert_array_equal(found[name], np.maximum(x, 0))
        np.testing.assert_array_equal(found["same"], x)
        np.testing.assert_array_equal(found["kept"], np.ones(3, np.float32))

    def test_names_that_intermediate_values_would_take(self) -> None:
        nodes = [node("Softmax", ["x"], "y", axis=0), node("Neg", ["y"], "y.transpose")]
        graph = from_onnx(model(nodes, X, ["y.transpose", "y"]))
        assert graph.outputs == ("y.transpose", "y")
        assert evaluate(graph, {"x": numbers((1, 4))})["y.transpose"].min() == -1

    def test_the_name_of_the_graph(self) -> None:
        content = model([node("Relu", ["x"], "y")], X, ["y"])
        assert from_onnx(content).name == "net"
        assert from_onnx(content, name="mine").name == "mine"


class TestShapes:
    def relu(self, *shape: int | str | None) -> bytes:
        return model([node("Relu", ["x"], "y")], {"x": ("f32", shape)}, ["y"])

    def test_an_open_batch_is_one(self) -> None:
        assert from_onnx(self.relu("batch", 4)).values["x"].type.shape == (1, 4)
        assert from_onnx(self.relu(None, 4)).values["x"].type.shape == (1, 4)

    def test_a_batch_named_elsewhere_too(self) -> None:
        nodes = [node("Add", ["x", "z"], "y")]
        inputs = {"x": ("f32", ("n", 4)), "z": ("f32", (4, "n"))}
        assert from_onnx(model(nodes, inputs, ["y"])).values["y"].type.shape == (4, 4)

    def test_shapes_that_are_given(self) -> None:
        graph = from_onnx(self.relu("batch", "seq", 8), shapes={"x": (3, 5, 8)})
        assert graph.values["y"].type.shape == (3, 5, 8)

    def test_open_sizes_are_listed(self) -> None:
        with pytest.raises(ModelError, match=r"x\['n', 'seq', '\?'\].*shapes="):
            from_onnx(self.relu("n", "seq", None))

    @pytest.mark.parametrize("shape", [(3, 5), (3, 5, 9), (3, 0, 8), (3, -1, 8), (3, 1.5, 8)])
    def test_shapes_that_do_not_fit(self, shape: Any) -> None:
        with pytest.raises(ModelError, match=r"shapes\['x'\]"):
            from_onnx(self.relu("batch", "seq", 8), shapes={"x": shape})

    def test_shapes_of_what_is_no_input(self) -> None:
        with pytest.raises(ModelError, match=r"\['q'\] are no inputs"):
            from_onnx(self.relu(1, 4), shapes={"q": (1, 4)})

    def test_arithmetic_on_shapes_leaves_no_node(self) -> None:
        """x.view(x.size(0), -1), as PyTorch exported it for years."""
        nodes = [
            node("Relu", ["x"], "r"),
            node("Shape", ["r"], "s"), node("Gather", ["s", "zero"], "g", axis=0),
            node("Unsqueeze", ["g", "axes"], "u"),
            node("Concat", ["u", "rest"], "c", axis=0), node("Reshape", ["r", "c"], "y"),
        ]  # fmt: skip
        constants = {"zero": np.array(0), "axes": np.array([0]), "rest": np.array([-1])}
        graph = from_onnx(model(nodes, {"x": ("f32", (2, 3, 4))}, ["y"], constants))
        assert [n.op for n in graph.nodes] == ["relu", "reshape"]
        assert graph.values["y"].type.shape == (2, 12)

    def test_masks_made_of_ranges_leave_no_node(self) -> None:
        nodes = [
            node("Shape", ["x"], "s"), node("Gather", ["s", "one"], "n"),
            node("Range", ["zero", "n", "one"], "r"), node("Unsqueeze", ["r", "axis"], "column"),
            node("GreaterOrEqual", ["column", "r"], "m"), node("Cast", ["m"], "f", to=1),
            node("Mul", ["x", "f"], "y"),
        ]  # fmt: skip
        constants = {"zero": np.array(0), "one": np.array(1), "axis": np.array([1])}
        graph = from_onnx(model(nodes, {"x": ("f32", (5, 5))}, ["y"], constants))
        assert [n.op for n in graph.nodes] == ["mul"]
        found = evaluate(graph, {"x": np.ones((5, 5), np.float32)})
        np.testing.assert_array_equal(found["y"], np.tri(5, dtype=np.float32))


def test_all_that_is_unsupported_is_listed_at_once() -> None:
    nodes = [
        node("LSTM", ["x"], "a", name="cell"), node("TopK", ["x", "k"], "b", "c", name="best"),
        node("Relu", ["a"], "d"), node("Softmax", ["x"], "e", axis=9, name="last"),
        node("Foo", ["d"], "f", name="odd", domain="org.custom"),
        node("Pow", ["x", "x"], "g", name="power"),
    ]  # fmt: skip
    with pytest.raises(ModelError) as caught:
        from_onnx(model(nodes, X, ["d", "b", "f"], {"k": np.array([2])}))
    text = str(caught.value)
    for label in (
        "cell (LSTM)",
        "best (TopK)",
        "last (Softmax)",
        "odd (org.custom.Foo)",
        "power (Pow)",
    ):
        assert label in text
    assert "unsupported=5" in text and "Relu" not in text


def test_half_precision_becomes_single() -> None:
    w = numbers((4, 3)).astype(np.float16)
    nodes = [node("MatMul", ["x", "w"], "m"), node("Cast", ["m"], "y", to=1)]
    graph = from_onnx(model(nodes, {"x": ("f16", (2, 4))}, ["y"], {"w": w}))
    assert {str(v.type.scalar) for v in graph.values.values()} == {"f32"}
    assert [n.op for n in graph.nodes] == ["dense"]
    np.testing.assert_array_equal(graph.constants["w"], w.astype(np.float32))


def test_inputs_are_constants_in_old_files() -> None:
    """Before IR version 4 an initializer was listed among the inputs."""
    made = proto(
        [node("Add", ["x", "w"], "y")], {**X, "w": ("f32", (4,))}, ["y"],
        {"w": np.ones(4, np.float32)},
    )  # fmt: skip
    assert from_onnx(made.SerializeToString()).inputs == ("x",)


def test_values_in_every_field_of_a_tensor() -> None:
    for dtype, field in {
        "float32": "float_data", "int32": "int32_data", "int8": "int32_data",
        "int64": "int64_data", "float64": "double_data", "uint8": "int32_data",
    }.items():  # fmt: skip
        array = np.array([[1, 2], [3, 100]], dtype)
        made = proto([node("Relu", ["x"], "y")], X, ["y"])
        tensor = made.graph.initializer.add()
        tensor.CopyFrom(numpy_helper.from_array(array, "w"))
        tensor.ClearField("raw_data")
        getattr(tensor, field).extend(array.reshape(-1).tolist())
        made.graph.output.add(name="w")
        found = from_onnx(made.SerializeToString()).constants["w"]
        np.testing.assert_array_equal(found, array)


def test_without_the_package_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    content = model([node("Relu", ["x"], "y")], X, ["y"])
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ModelError, match=r"simdflow\[onnx\]"):
        from_onnx(content)


def test_importing_the_frontend_does_not_import_the_package() -> None:
    code = (
        "import sys, simdflow.frontends.onnx; print('onnx' in sys.modules, 'numba' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_keyword_spotting_network_has_its_accuracy(models_dir: Path) -> None:
    """908 of 1000, as other engines: every argmax counts, so one wrong layer shows."""
    graph = from_onnx(models_dir / "weights/alibaba_dscnn32_kws_f32.onnx")
    with np.load(models_dir / "data/kws01_int8_mfcc_1000.npz") as samples:
        x = (samples["x"].astype(np.float32) - 83) * np.float32(0.5847029)
        labels = samples["y"]
    (output,) = graph.outputs
    right = [
        int(evaluate(graph, {"x:0": image[None]})[output].argmax()) == label
        for image, label in zip(x, labels, strict=True)
    ]
    assert np.mean(right) == pytest.approx(0.908, abs=0.0015)
