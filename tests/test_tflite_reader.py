"""The .tflite reader: what it reads, what it refuses and how, and that damaged files never crash
it.
"""

import builtins
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tflite_file import FileOperator, FileTensor, write

from simdflow.dsl.errors import ModelError
from simdflow.frontends import tflite

pytest.importorskip("tflite", reason="simdflow[tflite] is not installed")

ADD, CONV_2D, RESHAPE = 0, 3, 22
WEIGHTS = np.arange(18, dtype=np.int8).reshape(2, 3, 3, 1)
BIAS = np.array([5, -7], np.int32)


def conv_parts() -> tuple[list[FileTensor], list[FileOperator]]:
    """A 3x3 convolution of [1,4,4,1] to two channels, then an addition of its output to itself."""
    tensors = [
        FileTensor((1, 4, 4, 1), scale=(0.5,), zero_point=(3,)),
        FileTensor((2, 3, 3, 1), data=WEIGHTS, scale=(0.25, 0.125), zero_point=(0, 0)),
        FileTensor((2,), "int32", BIAS),
        FileTensor((1, 2, 2, 2), scale=(1.0,), zero_point=(-128,)),
        FileTensor((1, 2, 2, 2), scale=(2.0,), zero_point=(0,)),
    ]
    fields = {"Padding": 1, "StrideH": 1, "StrideW": 1, "FusedActivationFunction": 3}
    operators = [
        FileOperator(CONV_2D, (0, 1, 2), (3,), "Conv2DOptions", fields),
        FileOperator(ADD, (3, 3), (4,)),
    ]
    return tensors, operators


def conv_file(**changes: Any) -> bytes:
    tensors, operators = conv_parts()
    return write(tensors, operators, (0,), (4,), **changes)


def test_everything_in_the_file_is_read() -> None:
    model = tflite.parse(conv_file())
    assert (model.inputs, model.outputs) == ((0,), (4,))
    x, w, bias, y, _ = model.tensors
    assert (x.name, x.shape, x.dtype, x.data) == ("t0", (1, 4, 4, 1), np.int8, None)
    assert x.scale is not None and x.zero_point is not None and w.scale is not None
    assert x.scale.tolist() == [0.5] and x.zero_point.tolist() == [3]
    assert w.data is not None and np.array_equal(w.data, WEIGHTS) and w.data.dtype == np.int8
    assert w.scale.tolist() == [0.25, 0.125] and w.axis == 0
    assert bias.data is not None and np.array_equal(bias.data, BIAS) and bias.scale is None
    assert y.shape == (1, 2, 2, 2)
    conv, addition = model.operators
    assert (conv.kind, conv.inputs, conv.outputs) == ("CONV_2D", (0, 1, 2), (3,))
    assert dict(conv.options) == {
        "activation": "relu6",
        "dilation_h": 1,
        "dilation_w": 1,
        "padding": "valid",
        "stride_h": 1,
        "stride_w": 1,
    }
    assert conv.option("padding") == "valid"
    assert (addition.kind, addition.options) == ("ADD", (("activation", "none"),))


def test_constants_cannot_be_written() -> None:
    w = tflite.parse(conv_file()).tensors[1]
    assert w.data is not None and w.scale is not None
    with pytest.raises(ValueError, match="read-only"):
        w.data[0] = 1
    with pytest.raises(ValueError, match="read-only"):
        w.scale[0] = 1


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "uint8", "int32", "int64", "bool"])
def test_every_type_is_read_as_it_was_written(dtype: str) -> None:
    values = np.array([[0, 1], [1, 0], [1, 1]]).astype(dtype)
    content = write([FileTensor((3, 2), dtype, values)], [], (), (0,))
    tensor = tflite.parse(content).tensors[0]
    assert tensor.data is not None and tensor.data.dtype == values.dtype
    assert np.array_equal(tensor.data, values) and tensor.data.flags.aligned


def _changed(change: str) -> bytes:
    tensors, operators = conv_parts()
    match change:
        case "type":
            tensors[0].dtype = "string"
        case "rank":
            tensors[0].shape = (1,) * 9
        case "negative":
            tensors[0].shape = (1, -4, 4, 1)
        case "huge":
            tensors[0].shape = (1, 2**31 - 1, 2**31 - 1, 1)
        case "bytes":
            tensors[1].shape = (2, 3, 3, 2)
        case "buffer":
            tensors[1].buffer = 77
        case "scale count":
            tensors[1].scale = (0.5, 0.5, 0.5)
        case "scale value":
            tensors[0].scale = (float("nan"),)
        case "zero point":
            tensors[0].zero_point = (200,)
        case "zero point count":
            tensors[1].zero_point = (0, 0, 0)
        case "axis":
            tensors[1].axis = 4
        case "bool":
            tensors[2] = FileTensor((2,), "bool", b"\x00\x02")
        case "input":
            operators[0].inputs = (0, 1, 9)
        case "order":
            operators.reverse()
        case "twice":
            operators[1].outputs = (3,)
        case "constant written":
            operators[1].outputs = (2,)
        case "never made":
            operators.pop()
        case "code":
            operators[0].code = 9999
        case "stride":
            operators[0].fields["StrideH"] = 0
        case "padding":
            operators[0].fields["Padding"] = 7
        case "options":
            operators[0].options, operators[0].fields = "AddOptions", {}
    return write(tensors, operators, (0,), (4,))


REFUSED = {
    "type": "model: tensors[0].type=5 is not supported",
    "rank": "model: tensors[0].rank=9 is too large; at most 8 is allowed",
    "negative": "model: tensors[0].shape=(1, -4, 4, 1) is not possible",
    "huge": "model: tensors[0].shape=(1, 2147483647, 2147483647, 1) is not possible",
    "bytes": "model: tensors[1].buffer=18 bytes do not fit shape (2, 3, 3, 2) of int8; 36 do",
    "buffer": "model: tensors[1].buffer=77 is out of range; 0 to 2 are allowed",
    "scale count": "model: tensors[1].scale=3 elements do not fit axis 0 of shape (2, 3, 3, 1)",
    "scale value": "model: tensors[0].scale=[nan] is not usable",
    "zero point": "model: tensors[0].zero_point=[200] is out of range; -128 to 127 are allowed",
    "zero point count": "model: tensors[1].scale=[0.25  0.125] is not usable",
    "axis": "model: tensors[1].scale=2 elements do not fit axis 4",
    "bool": "model: tensors[2].buffer=bool has bytes other than 0 and 1",
    "input": "model: operators[0].inputs=9 is out of range; 0 to 4 are allowed",
    "order": "model: operators[0].inputs=3 is used before it is made",
    "twice": "model: operators[1].outputs=3 is made twice",
    "constant written": "model: operators[1].outputs=2 is made twice",
    "never made": "model: outputs=4 is used before it is made",
    "code": "model: operator_codes[0]=9999 is not in the schema",
    "stride": "model: operators[0].stride_h=0 is not possible; 1 or more is",
    "padding": "model: operators[0].padding=7 is not known; 0 to 1 are (same, valid)",
    "options": "model: operators[0].options_type=11 does not belong to CONV_2D; 1 does",
}


@pytest.mark.parametrize("change", REFUSED)
def test_a_wrong_field_is_refused_by_name(change: str) -> None:
    with pytest.raises(ModelError) as caught:
        tflite.parse(_changed(change))
    assert str(caught.value).startswith(REFUSED[change])
    assert str(caught.value).count(". ") >= 1, "the message ends with what to do"


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"version": 2}, "version=2"), ({"graphs": 2}, "subgraphs=2"), ({"graphs": 0}, "subgraphs=0")],
)
def test_other_versions_and_several_graphs_are_refused(
    changes: dict[str, int], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        tflite.parse(conv_file(**changes))


@pytest.mark.parametrize("content", [b"", b"TFL3", b"\x1c\0\0\0ONNX" + bytes(64)])
def test_what_is_no_tflite_file_is_refused(content: bytes) -> None:
    with pytest.raises(ModelError, match="identifier="):
        tflite.parse(content)


def _survives(content: bytes) -> None:
    start = time.perf_counter()
    try:
        model = tflite.parse(content)
    except ModelError:
        pass
    else:
        for tensor in model.tensors:
            assert tensor.data is None or tensor.data.shape == tensor.shape
    assert time.perf_counter() - start < 5


CONV_FILE = conv_file()


@given(st.integers(0, len(CONV_FILE)))
def test_a_truncated_file_is_refused_not_crashed_on(length: int) -> None:
    _survives(CONV_FILE[:length])


@given(
    st.lists(
        st.tuples(st.integers(8, len(CONV_FILE) - 1), st.integers(0, 255)), min_size=1, max_size=8
    )
)
def test_changed_bytes_never_crash_the_reader(changes: list[tuple[int, int]]) -> None:
    content = bytearray(CONV_FILE)
    for position, value in changes:
        content[position] = value
    _survives(bytes(content))


@given(st.integers(2, len(CONV_FILE) // 4 - 1), st.sampled_from([0, 1, 2**31 - 1, 2**32 - 1]))
def test_extreme_words_never_crash_the_reader(word: int, value: int) -> None:
    content = bytearray(CONV_FILE)
    content[4 * word : 4 * word + 4] = value.to_bytes(4, "little")
    _survives(bytes(content))


def test_many_tensors_that_share_one_long_vector_are_refused_quickly() -> None:
    scale = tuple([1.0] * 20_000)
    tensor = FileTensor((20_000,), "float32", scale=scale)
    tflite.parse(write([tensor], [], (0,), (0,)))
    start = time.perf_counter()
    with pytest.raises(ModelError, match="cannot be in a file"):
        tflite.parse(write([tensor], [], (0,), (0,), repeat=20_000))
    assert time.perf_counter() - start < 2


def test_the_package_is_named_when_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == "tflite":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ModelError, match=r"package=tflite is not installed.*simdflow\[tflite\]"):
        tflite.parse(CONV_FILE)


def test_a_path_is_read_and_what_is_no_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.tflite"
    path.write_bytes(CONV_FILE)
    assert tflite.read(path).operators == tflite.parse(CONV_FILE).operators
    with pytest.raises(ModelError, match="cannot be read"):
        tflite.read(tmp_path / "absent.tflite")
    os.mkfifo(tmp_path / "pipe")
    for strange in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(ModelError, match="is not a regular file"):
            tflite.read(strange)


def test_every_sample_model_is_read(models_dir: Path) -> None:
    for path in sorted((models_dir / "tflite").glob("*.tflite")):
        assert tflite.read(path).operators


def test_the_weights_of_the_sparse_sample_are_seven_tenths_zeros(models_dir: Path) -> None:
    model = tflite.read(models_dir / "tflite" / "face_full_range_sparse70_f16.tflite")
    made = {op.inputs[0] for op in model.operators if op.kind == "DENSIFY"}
    shares = [float(np.mean(model.tensors[i].data == 0)) for i in made]
    assert len(shares) == 46 and min(shares) > 0.69 and max(shares) < 0.71
