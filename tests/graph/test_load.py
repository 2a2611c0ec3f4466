"""`load`: compiled once, then from the cache; whatever lies in the cache, it gives a model."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simdflow import CacheWarning, ModelError, TargetError
from simdflow.compiler.cache import current
from simdflow.frontends import load as loading
from simdflow.frontends.load import from_file, load
from simdflow.graph.evaluate import evaluate
from simdflow.targets import target

pytest.importorskip("tflite", reason="reading .tflite files needs simdflow[tflite]")

import tflite
from tflite_file import FileOperator, FileTensor, write

CODE = tflite.BuiltinOperator
X = np.random.default_rng(0).integers(-128, 128, (1, 6)).astype(np.int8)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A cache that starts empty."""
    monkeypatch.setenv("SIMDFLOW_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with a quantized layer and a relu."""
    rng = np.random.default_rng(0)
    w = rng.integers(-127, 128, (5, 6)).astype(np.int8)
    bias = rng.integers(-99, 99, 5).astype(np.int32)
    tensors = [
        FileTensor((1, 6), "int8", None, (0.05,), (3,)),
        FileTensor((5, 6), "int8", w, (0.01,), (0,)),
        FileTensor((5,), "int32", bias, (0.0005,), (0,)),
        FileTensor((1, 5), "int8", None, (0.1,), (-4,)),
        FileTensor((1, 5), "int8", None, (0.1,), (-4,)),
    ]
    operators = [
        FileOperator(CODE.FULLY_CONNECTED, (0, 1, 2), (3,), "FullyConnectedOptions"),
        FileOperator(CODE.RELU, (3,), (4,)),
    ]
    found = tmp_path / "net.tflite"
    found.write_bytes(write(tensors, operators, (0,), (4,)))
    return found


def expected(path: Path) -> np.ndarray:
    """What the file's graph gives for X."""
    graph = from_file(path)
    return evaluate(graph, {graph.inputs[0]: X})[graph.outputs[0]]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def entries(tmp_path: Path) -> list[Path]:
    """The models in the cache."""
    files = (tmp_path / "cache").iterdir()
    return [f for f in files if b'"network"' in f.read_bytes()[:200_000]]


FRESH = """
import sys
import numpy as np
from simdflow.frontends.load import load
model = load(sys.argv[1])
y = model(np.array(eval(sys.argv[2]), np.int8))
print([m for m in ("numba", "tflite", "flatbuffers") if m in sys.modules], y.tolist())
"""


def test_a_second_process_neither_compiles_nor_reads_the_format(path: Path) -> None:
    shown = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", FRESH, str(path), repr(X.tolist())],
            capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
        shown.append(done.stdout.strip())
    assert "numba" in shown[0]
    assert shown[1] == f"[] {expected(path).tolist()}"


def test_the_same_model_comes_from_the_cache(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load(path)
    monkeypatch.setattr("simdflow.graph.compile.compile", None)
    second = load(path)
    np.testing.assert_array_equal(first(X), expected(path))
    np.testing.assert_array_equal(second(X), expected(path))
    for old, new in zip(
        (*first.inputs, *first.outputs), (*second.inputs, *second.outputs), strict=True
    ):
        assert (str(new), new.quantization, new.offset) == (str(old), old.quantization, old.offset)
    assert second.network.tasks == first.network.tasks
    assert second.network.calls == first.network.calls
    assert second.network.memory == first.network.memory
    np.testing.assert_array_equal(second.network.weights, first.network.weights)
    assert [n.op for n in second.graph.nodes] == [n.op for n in first.graph.nodes]


def test_other_options_are_other_models(path: Path, tmp_path: Path) -> None:
    load(path)
    assert load(path, batch=3)(np.repeat(X, 3, 0)).shape == (3, 5)
    portable = load(path, target="portable")
    np.testing.assert_array_equal(portable(X), expected(path))
    assert portable.target == "portable"
    assert len(entries(tmp_path)) >= 2 + (target(None).name != "portable")


def test_another_file_under_the_same_name_is_another_model(path: Path) -> None:
    before = load(path)(X)
    content = path.read_bytes()
    w = np.random.default_rng(0).integers(-127, 128, (5, 6)).astype(np.int8).tobytes()
    assert w in content
    path.write_bytes(content.replace(w, bytes(reversed(w))))
    after = load(path)(X)
    np.testing.assert_array_equal(after, expected(path))
    assert (before != after).any()


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "text"])
def test_a_damaged_entry_is_a_miss(path: Path, tmp_path: Path, damage: str) -> None:
    load(path)
    (entry,) = entries(tmp_path)
    content = entry.read_bytes()
    middle = len(content) // 2
    entry.write_bytes({
        "cut": content[:middle],
        "flipped": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
        "empty": b"",
        "text": b"hello",
    }[damage])  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CacheWarning)
        np.testing.assert_array_equal(load(path)(X), expected(path))


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value."""
    found = [at] if at else []
    if not isinstance(value, dict | list):
        return found
    for key, part in value.items() if isinstance(value, dict) else enumerate(value):
        found += places(part, (*at, key))
    return found


def changed(record: Any, at: tuple[Any, ...], to: Any) -> Any:
    """A copy of a JSON value with another at a place; the key is gone if `to` is ..."""
    copy = json.loads(json.dumps(record))
    inner = copy
    for key in at[:-1]:
        inner = inner[key]
    if to is ...:
        del inner[at[-1]]
    else:
        inner[at[-1]] = to
    return copy


def test_a_record_of_another_form_is_compiled_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every field in turn gone or of another type; the hash of the entry is right each time."""
    first = load(path)
    options: dict[str, Any] = {}
    name = loading._key(path, digest(path), target(None), None, 1, options)
    entry = current().load(name)
    assert entry is not None
    record = json.loads(json.dumps(entry.record["network"]))
    sets: list[tuple[tuple[Any, ...], Any]] = [
        (at, to) for at in places(record) for to in (..., None, "text", [], {"a": 1}, 1.5, -1)
    ]
    with monkeypatch.context() as patched:
        patched.setattr("simdflow.graph.compile.compile", lambda *_, **__: first)
        for at, to in sets:
            broken = changed(record, at, to)
            # A number for a number cannot be told from what was written; the hash is there for it.
            current().store(name, entry.object, {"kernel": "x", "network": broken})
            assert load(path).inputs is not None, f"{at} {to}"
    current().store(name, entry.object[: len(entry.object) // 2], entry.record)
    np.testing.assert_array_equal(load(path)(X), expected(path))


def test_object_code_without_its_functions_is_compiled_again(path: Path) -> None:
    load(path)
    name = loading._key(path, digest(path), target(None), None, 1, {})
    entry = current().load(name)
    assert entry is not None
    swapped = entry.record["network"] | {"symbols": ["no_such_kernel"] * len(
        entry.record["network"]["symbols"])}  # fmt: skip
    current().store(name, entry.object, {"kernel": "x", "network": swapped})
    np.testing.assert_array_equal(load(path)(X), expected(path))


def test_without_a_cache_it_compiles(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIMDFLOW_CACHE", "off")
    np.testing.assert_array_equal(load(path)(X), expected(path))


def test_what_is_no_model_is_refused(tmp_path: Path, path: Path) -> None:
    with pytest.raises(ModelError, match=r"cannot be read"):
        load(tmp_path / "missing.tflite")
    with pytest.raises(ModelError, match=r"cannot be read"):
        load(tmp_path)
    other = tmp_path / "net.pt"
    other.write_bytes(b"x")
    with pytest.raises(ModelError, match=r"suffix '\.pt'.*\.tflite and \.onnx"):
        load(other)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ModelError):
        load(path)
    with pytest.raises(ModelError, match="threads"):
        load(path, threads=0)
    with pytest.raises(TargetError):
        load(path, target="z80")


def test_the_graph_of_a_file_that_has_changed_is_refused(path: Path) -> None:
    before = expected(path)
    load(path)
    model = load(path)
    path.write_bytes(path.read_bytes() + b" ")
    assert np.array_equal(model(X), before)
    with pytest.raises(ModelError, match="has changed since the model was loaded"):
        _ = model.graph


def test_weights_in_another_file_are_read_each_time(tmp_path: Path) -> None:
    """They are not part of the file that a compiled model is kept under."""
    onnx = pytest.importorskip("onnx", reason="reading .onnx files needs simdflow[onnx]")
    make, numpy_helper = onnx.helper, onnx.numpy_helper
    kind = onnx.TensorProto.FLOAT
    ends = [make.make_tensor_value_info(name, kind, [1, 4]) for name in "xy"]
    graph = make.make_graph(
        [make.make_node("Add", ["x", "w"], ["y"])],
        "sum",
        ends[:1],
        ends[1:],
        [numpy_helper.from_array(np.ones(4, np.float32), "w")],
    )
    made = make.make_model(graph, opset_imports=[make.make_opsetid("", 13)], ir_version=8)
    file, weights = tmp_path / "sum.onnx", tmp_path / "w.bin"
    onnx.save(made, file, save_as_external_data=True, location=weights.name, size_threshold=0)
    x = np.arange(4, dtype=np.float32).reshape(1, 4)
    assert np.array_equal(load(file)(x), x + 1)
    weights.write_bytes(np.full(4, 5, np.float32).tobytes())
    assert np.array_equal(load(file)(x), x + 5)
