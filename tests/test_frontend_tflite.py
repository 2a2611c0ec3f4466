"""`from_tflite`: sample networks give LiteRT's stored outputs, and what a file can hold beyond
operators: constants of every kind, shapes computed in the graph, names, everything unsupported.

Graphs are evaluated in numpy; single operators are in test_frontend_tflite_operators.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simdflow.dsl.errors import ModelError
from simdflow.frontends import tflite_layer
from simdflow.frontends.tflite_graph import from_tflite
from simdflow.graph.evaluate import evaluate
from simdflow.graph.graph import Graph
from simdflow.ops import Quantization

pytest.importorskip("tflite", reason="reading .tflite files needs simdflow[tflite]")

import tflite
from tflite_file import FileOperator, FileSparsity, FileTensor, write

CODE = tflite.BuiltinOperator
INT8 = (
    "resnet8_cifar10_int8",
    "dscnn_kws_int8",
    "mobilenetv1_025_vww96_int8",
    "fcae_toyadmos_int8",
    "mobilenetv2_imagenet_int8",
)
# The largest difference from LiteRT, as a share of the largest output: LiteRT sums in f32, in an
# order of its own.
FLOAT = {
    "resnet8_cifar10_f32": 2e-6,
    "mobilenetv1_025_vww96_f32": 1e-6,
    "fcae_toyadmos_f32": 3e-5,
    "face_full_range_dense_f16": 3e-6,
    "face_full_range_sparse70_f16": 3e-6,
}


def outputs(graph: Graph, x: np.ndarray) -> np.ndarray:
    """The first output for inputs [n, ...], one after the other."""
    (name,) = graph.inputs
    return np.concatenate([evaluate(graph, {name: one[None]})[graph.outputs[0]] for one in x])


def sample(models_dir: Path, name: str) -> tuple[Path, dict[str, np.ndarray]]:
    with np.load(models_dir / "golden" / f"{name}.npz") as stored:
        return models_dir / "tflite" / f"{name}.tflite", {k: stored[k] for k in stored.files}


@pytest.mark.parametrize(("rounding", "kernels"), [("float", "auto"), ("tflite", "ref")])
@pytest.mark.parametrize("name", INT8)
def test_an_int8_network_has_the_bits_of_litert(
    name: str, rounding: str, kernels: str, models_dir: Path
) -> None:
    path, golden = sample(models_dir, name)
    graph = from_tflite(path, rounding=rounding)
    assert np.array_equal(outputs(graph, golden["x"]), golden[kernels])


@pytest.mark.parametrize("name", FLOAT)
def test_a_float_network_is_near_litert(name: str, models_dir: Path) -> None:
    path, golden = sample(models_dir, name)
    found = outputs(from_tflite(path), golden["x"])
    for kernels in ("auto", "ref"):
        theirs = golden[kernels].astype(np.float64)
        assert np.abs(found - theirs).max() <= FLOAT[name] * np.abs(theirs).max()


def test_a_hybrid_network_decides_as_litert_does(models_dir: Path) -> None:
    """Its activations are not quantized here: the shares differ by at most 0.046, as LiteRT's two
    kinds of kernels do from each other, and every decision is the same.
    """
    path, golden = sample(models_dir, "dscnn_kws_hybrid_f32act_int8w")
    found = outputs(from_tflite(path), golden["x"])
    for kernels in ("auto", "ref"):
        assert np.abs(found - golden[kernels]).max() <= 0.05
        assert np.array_equal(found.argmax(axis=1), golden[kernels].argmax(axis=1))


def test_inputs_and_outputs_keep_names_types_and_scales(models_dir: Path) -> None:
    path, _ = sample(models_dir, "face_full_range_dense_f16")
    graph = from_tflite(path)
    assert graph.name == path.name
    assert graph.inputs == ("input",)
    assert graph.outputs == ("reshaped_regressor_face_4", "reshaped_classifier_face_4")
    path, _ = sample(models_dir, "dscnn_kws_int8")
    graph = from_tflite(path, name="kws")
    assert graph.name == "kws"
    x, y = graph.values[graph.inputs[0]], graph.values[graph.outputs[0]]
    assert (str(x.type), str(y.type)) == ("i8[1, 49, 10, 1]", "i8[1, 12]")
    assert x.quantization == Quantization(np.float32(0.58470291), 83)
    assert y.quantization == Quantization(1 / 256, -128)


def small(tensors: list[FileTensor], operators: list[FileOperator], **more: Any) -> Graph:
    """The graph of a file whose inputs are its tensors marked by no data and no maker."""
    made = {o for op in operators for o in op.outputs}
    inputs = tuple(i for i, t in enumerate(tensors) if t.data is None and i not in made)
    results = more.pop("outputs", operators[-1].outputs)
    return from_tflite(write(tensors, operators, inputs, results), **more)


def vector(*values: int) -> FileTensor:
    return FileTensor((len(values),), "int32", np.array(values, np.int32))


def test_shapes_computed_in_the_file_are_known_at_import() -> None:
    """reshape(x, pack([shape(x)[0] * 1, 3 * 4])), as Keras exports Flatten."""
    scalar = FileTensor((), "int32")
    tensors = [
        FileTensor((2, 3, 4), "float32"),
        FileTensor((3,), "int32"),
        vector(0),
        vector(1),
        vector(1),
        scalar,
        FileTensor((), "int32", np.array(12, np.int32)),
        FileTensor((2,), "int32"),
        FileTensor((2, 12), "float32"),
        scalar,
        FileTensor((), "int32", np.array(1, np.int32)),
    ]
    operators = [
        FileOperator(CODE.SHAPE, (0,), (1,)),
        FileOperator(CODE.STRIDED_SLICE, (1, 2, 3, 4), (5,), "StridedSliceOptions",
                     {"ShrinkAxisMask": 1}),
        FileOperator(CODE.MUL, (5, 10), (9,), "MulOptions"),
        FileOperator(CODE.PACK, (9, 6), (7,), "PackOptions", {"ValuesCount": 2}),
        FileOperator(CODE.RESHAPE, (0, 7), (8,)),
    ]  # fmt: skip
    graph = small(tensors, operators)
    assert [node.op for node in graph.nodes] == ["reshape"]
    x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    (y,) = evaluate(graph, {graph.inputs[0]: x}).values()
    assert np.array_equal(y, x.reshape(2, 12))


def test_known_operators_give_what_numpy_gives() -> None:
    """range, reduce_prod, floor_div, fill: only where everything is known."""
    number = FileTensor((), "int32")

    def known(value: int) -> FileTensor:
        return FileTensor((), "int32", np.array(value, np.int32))

    tensors = [
        known(7), known(-2), known(-2), FileTensor((5,), "int32"),  # 0 1 2 -> 3: 7 5 3 1 -1
        vector(0), number,  # 4: axes; 5: product -105
        known(2), number,  # 7: -53
        vector(5), FileTensor((5,), "int32"),  # 9: -53 five times
        FileTensor((5,), "int32"), FileTensor((5,)), FileTensor((5,), "float32"),
        FileTensor((5,), "float32"), FileTensor((5,), "float32"),
    ]  # fmt: skip
    operators = [
        FileOperator(CODE.RANGE, (0, 1, 2), (3,), "RangeOptions"),
        FileOperator(CODE.REDUCE_PROD, (3, 4), (5,), "ReducerOptions"),
        FileOperator(CODE.FLOOR_DIV, (5, 6), (7,), "FloorDivOptions"),
        FileOperator(CODE.FILL, (8, 7), (9,), "FillOptions"),
        FileOperator(CODE.ADD, (9, 3), (10,), "AddOptions"),
        FileOperator(CODE.CAST, (10,), (12,), "CastOptions"),
        FileOperator(CODE.ADD, (13, 12), (14,), "AddOptions"),
    ]
    tensors[11] = vector(0)
    graph = small(tensors, operators)
    assert [node.op for node in graph.nodes] == ["add"]
    (y,) = evaluate(graph, {graph.inputs[0]: np.zeros(5, np.float32)}).values()
    assert y.tolist() == [-46, -48, -50, -52, -54]


def test_a_border_before_a_convolution_stays_a_node(models_dir: Path) -> None:
    graph = from_tflite(sample(models_dir, "mobilenetv2_imagenet_int8")[0])
    kinds = [node.op for node in graph.nodes]
    assert kinds.count("pad") == 18 and kinds.count("conv2d") == 35
    assert graph.nodes[0].op == "transpose"


W = np.array([[0, 2, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, -3]], np.float16)
CSR = FileSparsity((0, 1), (3, ((0, 1, 1, 3), (1, 0, 5), "Uint8Vector")))
# Blocks of 1 x 2: rows, pairs of columns, one row, two columns.
BLOCKS = FileSparsity(
    (0, 1, 2, 3), (3, ((0, 1, 1, 3), (0, 0, 2), "Int32Vector"), 1, 2), blocks=(0, 1)
)
COLUMNS = FileSparsity((1, 0), (6, ((0, 1, 2, 2, 2, 2, 3), (2, 0, 2), "Uint16Vector")))


@pytest.mark.parametrize(
    ("tree", "values"),
    [(CSR, [2, 1, -3]), (BLOCKS, [0, 2, 1, 0, 0, -3]), (COLUMNS, [1, 2, -3])],
    ids=["rows", "blocks", "columns"],
)
def test_sparse_f16_weights_become_dense_f32(tree: FileSparsity, values: list[int]) -> None:
    tensors = [
        FileTensor((1, 6), "float32"),
        FileTensor((3, 6), "float16", np.array(values, np.float16), sparsity=tree),
        FileTensor((3, 6), "float16"),
        FileTensor((3, 6), "float32"),
        FileTensor((1, 3), "float32"),
    ]
    operators = [
        FileOperator(CODE.DENSIFY, (1,), (2,), "DensifyOptions"),
        FileOperator(CODE.DEQUANTIZE, (2,), (3,)),
        FileOperator(CODE.FULLY_CONNECTED, (0, 3, -1), (4,), "FullyConnectedOptions"),
    ]
    graph = small(tensors, operators)
    assert [node.op for node in graph.nodes] == ["dense"]
    (w,) = graph.constants.values()
    assert w.dtype == np.float32 and np.array_equal(w, W.T) and not w.flags.writeable


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        (FileSparsity((0, 0), CSR.levels), "traversal_order"),
        (FileSparsity((0,), CSR.levels[:1]), "traversal_order"),
        (FileSparsity((0, 1), (4, CSR.levels[1])), "dense_size"),
        (FileSparsity((0, 1), (3, ((0, 1, 3), (1, 0, 5), "Int32Vector"))), "segments do not fit"),
        (FileSparsity((0, 1), (3, ((0, 2, 1, 3), (1, 0, 5), "Int32Vector"))), "segments do not"),
        (FileSparsity((0, 1), (3, ((0, 1, 1, 3), (1, 0, 6), "Int32Vector"))), "segments do not"),
        (FileSparsity((0, 1), (3, ((0, 1, 1, 2), (1, 0), "Int32Vector"))), "do not fit a tree"),
        (FileSparsity((0, 1, 2), (3, 3, 2), (5,)), "traversal_order"),
        (FileSparsity((0, 1, 2), (3, 3, 4), (1,)), "does not divide"),
        (FileSparsity((2, 0, 1), (2, 3, 3), (1,)), "a block that is not dense"),
    ],
)
def test_a_wrong_sparse_tensor_is_refused(tree: FileSparsity, said: str) -> None:
    tensor = FileTensor((3, 6), "float32", np.ones(3, np.float32), sparsity=tree)
    with pytest.raises(ModelError, match=said):
        from_tflite(write([tensor], [], (), (0,)))


def test_a_small_file_cannot_stand_for_a_huge_dense_tensor() -> None:
    tree = FileSparsity((0, 1), (1, ((0, 1), (7,), "Int32Vector")))
    tensor = FileTensor((1, 1 << 28), "float32", np.ones(1, np.float32), sparsity=tree)
    with pytest.raises(ModelError, match="of a sparse tensor are too many"):
        from_tflite(write([tensor], [], (), (0,)))


def test_operators_that_share_weights_cannot_multiply_a_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("simdflow.frontends.tflite_graph.MORE_BYTES", 0)
    n = 64
    tensors = [FileTensor((n, n), "int8", np.ones((n, n), np.int8), (0.1,), (0,))]
    tensors += [FileTensor((1, n), "float32") for _ in range(40)]
    operators = [
        FileOperator(CODE.FULLY_CONNECTED, (i, 0), (i + 1,), "FullyConnectedOptions")
        for i in range(1, 40)
    ]
    small(tensors[:3], operators[:1])
    with pytest.raises(ModelError, match=f"more than {tflite_layer.BYTES_PER_BYTE} times"):
        small(tensors, operators)


def test_more_than_four_gigabytes_are_refused() -> None:
    tensors = [FileTensor((1 << 28,), "float32") for _ in range(5)]
    operators = [FileOperator(CODE.RELU, (i,), (i + 1,)) for i in range(4)]
    with pytest.raises(ModelError, match="5368709120 bytes in all"):
        small(tensors, operators)


def test_all_that_is_not_supported_is_listed_at_once() -> None:
    f32 = FileTensor((1, 4, 4, 2), "float32")
    wrong = FileTensor((1, 4, 4, 3), "float32")
    tensors = [f32, f32, f32, FileTensor((1, 4, 4, 2)), f32, wrong, f32]
    operators = [
        FileOperator(CODE.CUMSUM, (0, 0), (1,)),
        FileOperator(CODE.ADD, (1, 0), (2,), "AddOptions", {"FusedActivationFunction": 4}),
        FileOperator(CODE.RELU, (2,), (3,)),
        FileOperator(CODE.RELU, (2,), (4,)),
        FileOperator(CODE.TANH, (4,), (5,)),
        FileOperator(CODE.TRANSPOSE, (5, 4), (6,)),
    ]
    with pytest.raises(ModelError) as caught:
        small(tensors, operators)
    said = str(caught.value).splitlines()
    assert said[0] == "model: operators=5 are not supported:"
    assert [line.split(":")[0].strip() for line in said[1:6]] == [
        "operators[0]=CUMSUM", "operators[1]=ADD", "operators[2]=RELU", "operators[4]=TANH",
        "operators[5]=TRANSPOSE",
    ]  # fmt: skip
    for line, reason in zip(said[1:6], (
        "no op of simdflow",
        "activation tanh; none, relu, relu6, relu_n1_to_1 are supported",
        "i8[1, 4, 4, 2]",
        "gives f32[1, 4, 4, 2], the file says f32[1, 4, 4, 3]",
        "its order of axes is computed, not constant",
    ), strict=True):  # fmt: skip
        assert reason in line
    assert "Export the model without" in said[-1]


def test_an_unknown_rounding_is_refused() -> None:
    with pytest.raises(ModelError, match="rounding='up' is not known; float, tflite are"):
        from_tflite(b"", rounding="up")


def test_a_file_of_one_name_gives_values_of_their_own() -> None:
    """The names of tensors are not unique in a file; those of values are."""
    f32 = FileTensor((2, 3), "float32")
    content = write(
        [f32, f32, f32],
        [FileOperator(CODE.RELU, (0,), (2,)), FileOperator(CODE.NEG, (1,), (0,))],
        (1,),
        (2, 0),
    )
    with pytest.raises(ModelError, match="used before it is made"):
        from_tflite(content)
    operators = [FileOperator(CODE.NEG, (1,), (0,)), FileOperator(CODE.RELU, (0,), (2,))]
    raw = write([f32, f32, f32], operators, (1,), (2, 0)).replace(b"t2\0", b"t1\0")
    graph = from_tflite(raw.replace(b"t0\0", b"t1\0"))
    assert graph.outputs == ("t1#2", "t1") and graph.inputs == ("t1#1",)
    x = np.array([[1, -2, 3], [-4, 5, -6]], np.float32)
    found = evaluate(graph, {"t1#1": x})
    assert np.array_equal(found["t1"], -x) and np.array_equal(found["t1#2"], np.maximum(-x, 0))
