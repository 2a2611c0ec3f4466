"""Hostile and broken .onnx files: each meets a typed error that says what is wrong."""

from __future__ import annotations

import re
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx_changes import flipped, network
from onnx_models import external, model, node, one, proto

from simdflow.dsl.errors import ModelError
from simdflow.dsl.types import f32
from simdflow.frontends.onnx import from_onnx
from simdflow.frontends.onnx_scope import FOLD_BYTES, FOLD_FACTOR, Scope
from simdflow.frontends.onnx_tensor import MAX_CONSTANT_BYTES
from simdflow.graph.evaluate import evaluate
from simdflow.graph.graph import Builder

ADD = node("Add", ["x", "w"], "y")
X = {"x": ("f32", (1, 4))}


def broken(change: Callable[[Any], None]) -> bytes:
    """y = x + w after a change of the ModelProto."""
    found = proto([ADD], X, ["y"], {"w": np.ones(4, np.float32)})
    change(found)
    return bytes(found.SerializeToString())


def weights(change: Callable[[Any], None]) -> bytes:
    return broken(lambda m: change(m.graph.initializer[0]))


def cycle(m: Any) -> None:
    del m.graph.node[:]
    m.graph.node.extend([node("Add", ["x", "b"], "a"), node("Relu", ["a"], "b")])
    m.graph.node.extend([node("Relu", ["b"], "y")])


def twice(m: Any) -> None:
    m.graph.node.extend([node("Relu", ["x"], "y")])


def sets(**values: Any) -> Callable[[Any], None]:
    def change(t: Any) -> None:
        for key, value in values.items():
            setattr(t, key, value)

    return change


def dims(*sizes: int) -> Callable[[Any], None]:
    def change(t: Any) -> None:
        del t.dims[:]
        t.dims.extend(sizes)

    return change


WRONG: dict[str, tuple[bytes | Callable[[], bytes], str]] = {
    "nothing": (b"", "opset"),
    "text": (b"not a model, but long enough to be one", "no ONNX model"),
    "truncated": (lambda: broken(lambda m: None)[:-9], "no ONNX model"),
    "opset 6": (lambda: model([node("Relu", ["x"], "y")], X, ["y"], opset=6), r"opset=\[6\]"),
    "opset 23": (lambda: model([node("Relu", ["x"], "y")], X, ["y"], opset=23), r"opset=\[23\]"),
    "two opsets": (
        lambda: broken(lambda m: m.opset_import.add(domain="ai.onnx", version=17)),
        r"opset=\[17, 17\]",
    ),
    "cycle": (lambda: broken(cycle), "cycle"),
    "made twice": (lambda: broken(twice), "'y' is made twice"),
    "output never made": (lambda: broken(lambda m: sets(name="z")(m.graph.output[0])), "'z'"),
    "input never made": (lambda: model([node("Relu", ["q"], "y")], X, ["y"]), "reads 'q'"),
    "input twice": (
        lambda: broken(lambda m: m.graph.input.append(m.graph.input[0])), "'x'"
    ),
    "no outputs": (lambda: broken(lambda m: m.graph.ClearField("output")), r"outputs=\[\]"),
    "same name": (
        lambda: broken(lambda m: m.graph.initializer.append(m.graph.initializer[0])),
        "initializer='w'",
    ),
    "short": (lambda: weights(sets(raw_data=b"123")), "3 bytes do not fill shape"),
    "long": (lambda: weights(sets(raw_data=b"1" * 17)), "17 bytes do not fill shape"),
    "huge": (lambda: weights(dims(1 << 30, 1 << 30)), "elements; at most"),
    "many bytes": (lambda: weights(dims(1 << 30)), "do not fill shape"),
    "over budget": (
        lambda: broken(
            lambda m: m.graph.initializer.extend(
                [_empty(f"w{i}", MAX_CONSTANT_BYTES // 4 // 3) for i in range(4)]
            )
        ),
        "do not fill|at most",
    ),
    "negative": (lambda: weights(dims(-4)), r"shape=\[-4\]"),
    "rank": (lambda: weights(dims(*[1] * 9)), "9 axes"),
    "wrapped": (lambda: weights(dims(1 << 32, 1 << 32)), "elements are allowed|axes"),
    "type": (lambda: weights(sets(data_type=17)), "type=17"),
    "string": (lambda: weights(sets(data_type=8)), "type=8"),
    "no type": (lambda: weights(sets(data_type=0)), "type=0"),
    "input type": (
        lambda: broken(lambda m: sets(elem_type=8)(m.graph.input[0].type.tensor_type)), "type=8"
    ),
    "sequence": (
        lambda: broken(lambda m: m.graph.input[0].type.sequence_type.elem_type.CopyFrom(
            onnx.TypeProto())),
        "no tensor|not a tensor",
    ),
    "no rank": (
        lambda: broken(lambda m: m.graph.input[0].type.tensor_type.ClearField("shape")), "no shape"
    ),
    "large input": (lambda: one("Relu", (1 << 20, 1 << 20)), "elements; at most"),
    "attribute twice": (
        lambda: broken(lambda m: m.graph.node[0].attribute.extend(
            [onnx.helper.make_attribute("a", 1)] * 2)),
        "twice",
    ),
    "unknown attribute": (
        lambda: broken(lambda m: m.graph.node[0].attribute.extend(
            [onnx.helper.make_attribute("broadcast", 1)])),
        "broadcast",
    ),
    "wrong attribute": (lambda: one("Softmax", axis=1.5), "axis=1.5 has a wrong type"),
    "axis": (lambda: one("Softmax", axis=7), "axis 7 of 2"),
    "sparse": (
        lambda: broken(lambda m: m.graph.sparse_initializer.append(onnx.SparseTensorProto())),
        "sparse_initializer",
    ),
    "own function": (
        lambda: broken(lambda m: m.functions.add(name="Add", domain="")), "functions"
    ),
    "custom domain": (lambda: one("Relu", domain="com.example"), "com.example.Relu"),
    "bytes beside": (
        lambda: broken(lambda m: m.graph.initializer[0].CopyFrom(external("w.bin", (4,)))),
        "came as bytes",
    ),
}  # fmt: skip


def _empty(name: str, count: int) -> Any:
    tensor = onnx.TensorProto()
    tensor.name, tensor.data_type = name, 1
    tensor.dims.append(count)
    return tensor


@pytest.mark.parametrize("case", WRONG)
def test_wrong_files_meet_a_typed_error(case: str) -> None:
    content, message = WRONG[case]
    with pytest.raises(ModelError, match=message):
        from_onnx(content if isinstance(content, bytes) else content())


def test_the_model_that_the_wrong_ones_are_made_of_is_right() -> None:
    graph = from_onnx(broken(lambda m: None))
    found = evaluate(graph, {"x": np.zeros((1, 4), np.float32)})
    np.testing.assert_array_equal(found["y"], np.ones((1, 4), np.float32))


def test_nodes_in_another_order_are_sorted() -> None:
    nodes = [node("Relu", ["b"], "y"), node("Neg", ["a"], "b"), node("Abs", ["x"], "a")]
    assert [n.op for n in from_onnx(model(nodes, X, ["y"])).nodes] == ["abs", "neg", "relu"]


def test_a_long_chain_needs_no_stack() -> None:
    nodes = [node("Relu", [f"v{i}" if i else "x"], f"v{i + 1}") for i in range(5000)]
    assert len(from_onnx(model(nodes[::-1], X, ["v5000"])).nodes) == 5000


def test_many_values_of_one_node_are_named_in_linear_time() -> None:
    """One node of a small file can become as many values as the file has bytes."""
    scope = Scope(Builder("net"), frozenset({"y"}), 17, 0)
    start = time.monotonic()
    names = {scope.builder.input(scope.fresh("y.add"), f32[1]) for _ in range(50_000)}
    assert len(names) == 50_000
    assert time.monotonic() - start < 10


def test_windows_larger_than_memory_are_refused() -> None:
    """A kernel and pads of 2^28 around four elements: few bytes of file, a table of many."""
    size = 1 << 28
    attributes = {"kernel_shape": [size], "pads": [2 * size] * 2, "dilations": [2]}
    pool = node(
        "AveragePool", ["x"], "y", ceil_mode=1, count_include_pad=1, strides=[2], **attributes
    )
    with pytest.raises(ModelError, match="budget"):
        from_onnx(model([pool], {"x": ("f32", (1, 1, 4))}, ["y"], opset=19))


class TestFilesBeside:
    """Tensors in files: only below the model's folder, through no link, within the file."""

    def written(self, folder: Path, tensor: Any) -> Path:
        found = proto([ADD], X, ["y"])
        found.graph.initializer.append(tensor)
        path = folder / "net.onnx"
        path.write_bytes(found.SerializeToString())
        return path

    def test_a_file_in_a_folder_below(self, tmp_path: Path) -> None:
        (tmp_path / "data").mkdir()
        values = np.arange(6, dtype="<f4")
        (tmp_path / "data" / "w.bin").write_bytes(values.tobytes())
        path = self.written(tmp_path, external("data/w.bin", (4,), "4", "16"))
        np.testing.assert_array_equal(from_onnx(path).constants["w"], values[1:5])

    @pytest.mark.parametrize(
        ("offset", "length"),
        [("0", "12"), ("12", "16"), ("-4", "16"), ("0", "-1"), ("99", None), ("x", "16")],
    )
    def test_ranges_outside(self, tmp_path: Path, offset: str, length: str | None) -> None:
        (tmp_path / "w.bin").write_bytes(bytes(24))
        path = self.written(tmp_path, external("w.bin", (4,), offset, length))
        with pytest.raises(ModelError, match="external_data="):
            from_onnx(path)

    @pytest.mark.parametrize(
        "location", ["../w.bin", "/etc/hostname", "a/../../w.bin", "", "C:w.bin", "a\\w.bin", "w\0"]
    )
    def test_places_outside(self, tmp_path: Path, location: str) -> None:
        folder = tmp_path / "inner"
        folder.mkdir()
        (tmp_path / "w.bin").write_bytes(bytes(16))
        with pytest.raises(ModelError, match="location="):
            from_onnx(self.written(folder, external(location, (4,))))

    @pytest.mark.parametrize("link", ["w.bin", "d/w.bin"])
    def test_links(self, tmp_path: Path, link: str) -> None:
        outside, folder = tmp_path / "outside", tmp_path / "inner"
        outside.mkdir()
        folder.mkdir()
        (outside / "w.bin").write_bytes(bytes(16))
        (folder / link.split("/")[0]).symlink_to(outside / "w.bin" if link == "w.bin" else outside)
        with pytest.raises(ModelError, match="link"):
            from_onnx(self.written(folder, external(link, (4,))))

    def test_no_file_and_a_folder(self, tmp_path: Path) -> None:
        (tmp_path / "d").mkdir()
        for location in ("none.bin", "d"):
            with pytest.raises(ModelError, match=r"location=|external_data="):
                from_onnx(self.written(tmp_path, external(location, (4,))))


def test_paths_that_are_no_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        from_onnx(tmp_path / "none.onnx")
    with pytest.raises(ModelError, match="not a regular file"):
        from_onnx(tmp_path)


@pytest.mark.parametrize(
    "nodes",
    [
        [node("ConstantOfShape", ["s"], "c"), node("Add", ["x", "c"], "y")],
        [node("Expand", ["w", "s"], "c"), node("Add", ["x", "c"], "y")],
        [node("Tile", ["w", "s"], "c"), node("Add", ["x", "c"], "y")],
    ],
    ids=["filled", "expanded", "tiled"],
)
def test_small_files_cannot_ask_for_large_constants(nodes: list[Any]) -> None:
    sizes = np.array([30_000, 30_000], np.int64)
    content = model(nodes, X, ["y"], {"s": sizes, "w": np.ones((1, 1), np.float32)})
    with pytest.raises(ModelError, match="budget"):
        from_onnx(content)


def test_doubling_constants_is_bounded() -> None:
    nodes = [node("Concat", [f"c{i}", f"c{i}"], f"c{i + 1}", axis=0) for i in range(40)]
    content = model(nodes, X, ["c40"], {"c0": np.ones(1024, np.float32)})
    with pytest.raises(ModelError, match="budget"):
        from_onnx(content)


def test_the_network_that_is_changed_is_right() -> None:
    graph = from_onnx(network())
    assert graph.values["y"].type.shape == (1, 5)


def survives(content: bytes, seed: int) -> bool:
    """Whether the changed file is a model; anything but a model or a ModelError is raised."""
    try:
        graph = from_onnx(flipped(content, seed))
    except ModelError as error:
        assert re.search(r"[.:]", str(error))
        return False
    assert graph.outputs
    return True


def test_changed_bytes_give_a_model_or_a_typed_error() -> None:
    content, start = network(), time.monotonic()
    loaded = sum(survives(content, seed) for seed in range(500))
    assert 0 < loaded < 500
    assert time.monotonic() - start < 120


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["network", "alibaba_dscnn32_kws_f32.onnx"])
def test_ten_thousand_changed_files(name: str, models_dir: Path) -> None:
    """Each is a model or a typed error, and none takes more memory than the importer promises."""
    content = network() if name == "network" else (models_dir / "weights" / name).read_bytes()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert 0 < sum(survives(content, seed) for seed in range(10_000)) < 10_000
    # The file is held a few times: its bytes, the parsed message, arrays.
    bound = FOLD_BYTES + (FOLD_FACTOR + 8) * len(content)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < bound


def test_every_prefix_of_a_model_is_refused_or_loads() -> None:
    content = network()
    for size in range(0, len(content), 97):
        try:
            from_onnx(content[:size])
        except ModelError:
            continue
