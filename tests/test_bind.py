"""Binding finds extents, the output's shape and type, and gives every number its type."""

from __future__ import annotations

import nests
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_text import csr

from simdflow import dsl as sf
from simdflow.compiler.bind import bind
from simdflow.compiler.check import check
from simdflow.compiler.scalars import scalar_of
from simdflow.dsl import parse
from simdflow.dsl.nest import Affine, Call, Cast, Const, Ref
from simdflow.dsl.types import Scalar

BIAS = sf.i32.range(-1000, 1000)
BOUND = {
    "conv2d": (
        nests.conv2d,
        {"x": sf.u8[1, 58, 58, 64], "w": sf.i8[3, 3, 64, 32]},
        {"stride": 2},
        "i32[1, 28, 28, 32]",
    ),
    "grouped": (
        nests.grouped,
        {"x": sf.u8[2, 20, 21, 6], "w": sf.i8[5, 5, 3, 4], "bias": BIAS[4]},
        {"stride": 3, "groups": 2},
        "i8[2, 6, 6, 4]",
    ),
    "depthwise": (
        nests.depthwise,
        {"x": sf.i8[1, 16, 18, 3], "w": sf.i8[3, 3, 3]},
        {"dilation": 2},
        "i16[1, 12, 14, 3]",
    ),
    "matmul": (nests.matmul, {"a": sf.f32[2, 6, 8], "b": sf.f32[2, 5, 8]}, {}, "f32[2, 6, 5]"),
    "min_pool": (nests.min_pool, {"x": sf.i8[2, 7, 9, 3]}, {"size": 2}, "i8[2, 3, 4, 3]"),
    "avg_pool": (nests.avg_pool, {"x": sf.f32[2, 7, 9, 3]}, {"size": 3}, "f32[2, 2, 3, 3]"),
    "row_max": (nests.row_max, {"x": sf.f32[4, 5]}, {}, "f32[4]"),
    "row_sum": (nests.row_sum, {"x": sf.f32[4, 5], "m": sf.f32[4]}, {}, "f32[4]"),
    "requantize": (
        nests.requantize,
        {"x": sf.i32[2, 3], "multiplier": sf.i32.range(0, 2**31 - 1)[3]},
        {},
        "i8[2, 3]",
    ),
    "add": (nests.add, {"a": sf.u8[20], "b": sf.i8[20]}, {}, "u8[20]"),
    "table": (nests.table, {"x": sf.i8[2, 3], "t": sf.i16[256]}, {}, "i16[2, 3]"),
    "threshold": (nests.threshold, {"x": sf.i32[2, 9], "t": sf.i32[9]}, {}, "bit[2, 9]"),
    "xnor": (
        nests.xnor,
        {"x": sf.bit[1, 6, 6, 70], "w": sf.bit[5, 3, 3, 70]},
        {},
        "i32[1, 4, 4, 5]",
    ),
    "sparse": (nests.sparse, {"w": csr(sf.f32[8, 16]), "x": sf.f32[2, 16]}, {}, "f32[2, 8]"),
    "shuffle": (nests.shuffle, {"x": sf.u8[2, 12]}, {}, "u8[2, 3, 4]"),
}


@pytest.mark.parametrize("name", [k for k in BOUND if k != "shuffle"])
def test_the_output_is_inferred_and_the_nest_is_safe(name):
    function, types, constants, expected = BOUND[name]
    nest = bind(parse(function), types, constants)
    assert str(nest.out.type) == expected
    check(nest)


def test_the_output_is_inferred_when_its_indices_are_quotients():
    function, types, constants, expected = BOUND["shuffle"]
    nest = bind(parse(function), types, constants)
    assert str(nest.out.type) == expected
    check(nest)


@pytest.mark.parametrize("name", BOUND)
def test_a_given_output_binds_to_the_same_nest(name):
    function, types, constants, _ = BOUND[name]
    inferred = bind(parse(function), types, constants)
    given_out = bind(parse(function), {**types, "out": inferred.type_of("out")}, constants)
    assert given_out == inferred


@given(
    st.integers(1, 30), st.integers(1, 5), st.integers(1, 4), st.integers(1, 3), st.integers(0, 2)
)
def test_a_window_gives_the_longest_output_that_stays_inside(size, taps, stride, dilation, shift):
    def k(x, w, out, *, stride, dilation, shift):
        for i in sf.grid(out.shape):
            acc = sf.i32(0)
            for j in sf.reduce(w.shape):
                acc += x[i * stride + j * dilation + shift] * w[j]
            out[i] = acc

    k.__kwdefaults__ = {"stride": 1, "dilation": 1, "shift": 0}
    types = {"x": sf.u8[size], "w": sf.i8[taps]}
    constants = {"stride": stride, "dilation": dilation, "shift": shift}
    room = size - (taps - 1) * dilation - shift
    if room <= 0:
        with pytest.raises(sf.OperandError, match=r"x\.shape\[0\]=\d+ is too small for index"):
            bind(parse(k), types, constants)
        return
    nest = bind(parse(k), types, constants)
    assert nest.extents["i"] == (room - 1) // stride + 1
    check(nest)
    longer = {**types, "out": sf.i32[nest.extents["i"] + 1]}
    with pytest.raises(sf.KernelError, match=r"index=.* of x reaches"):
        check(bind(parse(k), longer, constants))


def test_an_empty_batch_is_an_empty_output():
    nest = bind(parse(nests.conv2d), {"x": sf.u8[0, 8, 8, 4], "w": sf.i8[3, 3, 4, 2]})
    assert nest.type_of("out").shape == (0, 6, 6, 2)
    check(nest)


def test_indices_lose_what_the_extents_decide():
    types = {"x": sf.u8[2, 20, 21, 3], "w": sf.i8[5, 5, 3, 4], "bias": BIAS[4]}
    dense = bind(parse(nests.grouped), types, {"groups": 1}).loads()[1]
    assert dense.index == tuple(
        Affine(tuple((t, 1) for t in terms))
        for terms in (["n"], ["oh", "kh"], ["ow", "kw"], ["ic"])
    )

    def blocks(x, out):
        for b, c in sf.grid(x.shape[0] // 8, 8):
            out[b * 8 + c] = x[(b * 8 + c) // 8 * 8 + (b * 8 + c) % 8] * x[(b * 8 + c + 8) // 8]

    nest = bind(parse(blocks), {"x": sf.i8[16], "out": sf.i32[16]})
    assert [str(x.index[0]) for x in nest.loads()] == ["b*8 + c", "b + 1"]


def test_plain_numbers_take_the_type_of_the_other_side():
    add = bind(parse(nests.add), {"a": sf.u8[20], "b": sf.i8[20]})
    v, relu = (x.value for x in add.epilogue)
    assert v.args[0].args[1] == Const(0.5, sf.f32)
    assert v.args[0].args[0].arg.args[1] == Const(1, sf.i32)
    assert relu == Call("max", (Ref("v"), Const(0.0, sf.f32)))
    average = bind(parse(nests.avg_pool), {"x": sf.f32[1, 4, 4, 1]})
    assert average.store.value == Call("mul", (Ref("acc"), Const(0.25, sf.f32)))
    assert average.reduction.init == Const(0.0, sf.f32)
    fixed = bind(parse(nests.requantize), BOUND["requantize"][1])
    assert fixed.epilogue[0].value.args[0].args[1] == Const(1 << 30, sf.i32)


def test_a_constant_condition_leaves_one_side():
    nest = bind(parse(nests.add), {"a": sf.u8[20], "b": sf.i8[20]}, {"relu": False})
    assert nest.epilogue[1].value == Ref("v")


def test_a_name_that_nothing_reads_any_more_is_dropped():
    def k(x, out, *, double=False):
        for i in sf.grid(x.shape):
            two = x[i] * 2
            scale = 2.0
            out[i] = two if double else sf.f32(x[i]) * scale

    nest = bind(parse(k), {"x": sf.i8[4]})
    assert nest.epilogue == ()
    assert nest.store.value.args[1] == Const(2.0, sf.f32)
    assert [x.name for x in bind(parse(k), {"x": sf.i8[4]}, {"double": True}).epilogue] == ["two"]


def test_numpy_numbers_are_constants():
    import numpy as np

    types = {"x": sf.u8[1, 9, 9, 1], "w": sf.i8[3, 3, 1, 1]}
    nest = bind(parse(nests.conv2d), types, {"stride": np.int64(2)})
    assert nest.constants == (("stride", 2),)
    assert type(nest.constants[0][1]) is int


def stored_scalar(text_function, **types) -> Scalar:
    nest = bind(parse(text_function), types)
    return scalar_of(nest.store.value, nest)


def test_scalars_of_operations():
    def product(x, w, out):
        for i in sf.grid(x.shape):
            out[i] = x[i] * w[i]

    def larger(x, w, out):
        for i in sf.grid(x.shape):
            out[i] = sf.max(x[i], w[i])

    def positive(x, out):
        for i in sf.grid(x.shape):
            out[i] = sf.max(x[i], 0)

    def sign(x, out):
        for i in sf.grid(x.shape):
            out[i] = 1 if x[i] > 0 else -1

    vector = (5,)
    assert stored_scalar(product, x=sf.u8[vector], w=sf.i8[vector]) == sf.i32
    assert stored_scalar(product, x=sf.i32[vector], w=sf.i32[vector]) == sf.i64
    few = sf.i32.range(-9, 9)[vector]
    assert stored_scalar(product, x=few, w=few) == sf.i32
    assert stored_scalar(product, x=sf.f32[vector], w=sf.f32[vector]) == sf.f32
    assert stored_scalar(product, x=sf.f32[vector], w=sf.f64[vector]) == sf.f64
    assert stored_scalar(product, x=sf.bit[vector], w=sf.bit[vector]) == sf.i32
    assert stored_scalar(larger, x=sf.u8[vector], w=sf.u8[vector]) == sf.u8
    assert stored_scalar(larger, x=sf.u8[vector], w=sf.i8[vector]) == sf.i32
    assert stored_scalar(positive, x=sf.i8[vector]) == sf.i8
    assert stored_scalar(sign, x=sf.f32[vector]) == sf.i32


def test_an_output_of_another_integer_type_is_a_proven_cast():
    def k(x, out):
        for i in sf.grid(x.shape):
            out[i] = sf.clip(x[i], -5, 5)

    nest = bind(parse(k), {"x": sf.i32[4], "out": sf.i8[4]})
    assert nest.store.value.scalar == sf.i8
    assert isinstance(nest.store.value, Cast)
    check(nest)
