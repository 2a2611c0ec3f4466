"""A bound nest is proven safe or refused with numbers; the proofs hold for every value there is."""

from __future__ import annotations

import math

import nests
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from kernel_text import Refusal, csr, kernel_of, refusals, shown

from simdflow import dsl as sf
from simdflow.compiler.bind import bind
from simdflow.compiler.check import check, range_of
from simdflow.dsl import interpret, parse
from simdflow.dsl.errors import KernelError, SimdflowError


@pytest.mark.parametrize("case", refusals("refused_by_check.txt"), ids=lambda c: c.name)
def test_refusal(case: Refusal, tmp_path):
    function = kernel_of(case.text, tmp_path)
    nest = parse(function)
    with pytest.raises(SimdflowError) as caught:
        check(bind(nest, case.types, case.constants))
    assert shown(caught.value, function) == case.error


def stored(text: str, folder, **types):
    lines = text.replace("\n", "\n        ")
    names = ", ".join(types)
    source = (
        f"def k({names}, out):\n    for i in sf.grid({next(iter(types))}.shape):\n        {lines}"
    )
    function = kernel_of(source, folder)
    nest = bind(parse(function), types)
    check(nest)
    return function, nest


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("x[i] + w[i]", (-128, 382)),
        ("x[i] - w[i]", (-127, 383)),
        ("x[i] * w[i]", (-255 * 128, 255 * 127)),
        ("w[i] * w[i]", (0, 16384)),
        ("-w[i]", (-127, 128)),
        ("sf.abs(w[i])", (0, 128)),
        ("x[i] // 2 - w[i] // 3", (-42, 127 + 43)),
        ("w[i] % 7", (0, 6)),
        ("(x[i] & 7) + 8", (8, 15)),
        ("x[i] >> 3", (0, 31)),
        ("w[i] << 4", (-2048, 2032)),
        ("sf.clip(x[i] - 100, -3, 3)", (-3, 3)),
        ("x[i] if w[i] > 0 else w[i]", (-128, 255)),
        ("sf.i8(x[i] * 2, saturate=True)", (0, 127)),
        ("sf.i8(x[i], wrap=True)", (-128, 127)),
        ("sf.u8(sf.clip(x[i], 2, 9))", (2, 9)),
        ("sf.i32(sf.sigmoid(sf.f32(w[i])) * 9.5)", (0, 9)),
        ("sf.i32(sf.clip(sf.log(sf.f32(x[i])), 0.0, 3.5))", (0, 3)),
    ],
)
def test_ranges(value, expected, tmp_path):
    text = f"y = {value}\nout[i] = y if x[i] > w[i] else y"
    _, nest = stored(text, tmp_path, x=sf.u8[4], w=sf.i8[4])
    assert range_of(nest.epilogue[0].value, nest) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("x[i] + 1.0", (-math.inf, math.inf)),
        ("sf.max(x[i], 0)", (0.0, math.inf)),
        ("sf.clip(x[i], -1, 6)", (-1.0, 6.0)),
        ("sf.clip(x[i], 0, 6) * 0", (0.0, 0.0)),
        ("sf.max(x[i], 0) * 0", (-math.inf, math.inf)),
        ("sf.tanh(x[i])", (-math.inf, math.inf)),
        ("sf.tanh(sf.clip(x[i], -99, 99))", (-1.0, 1.0)),
        ("1.0 / sf.clip(x[i], 2, 4)", (0.25, 0.5)),
        ("1.0 / x[i]", (-math.inf, math.inf)),
        ("sf.sqrt(sf.min(x[i], 4))", (-math.inf, math.inf)),
    ],
)
def test_ranges_of_floats_that_may_be_nan(value, expected, tmp_path):
    _, nest = stored(f"out[i] = {value}", tmp_path, x=sf.f32[4])
    low, high = range_of(nest.store.value, nest)
    assert (low, high) == pytest.approx(expected, abs=1e-5)


INTEGERS = st.recursive(
    st.sampled_from(["x[i]", "w[i]", "5", "-3", "100"]),
    lambda inner: st.one_of(
        st.builds("({} {} {})".format, inner, st.sampled_from("+-*&|^"), inner),
        st.builds("({} {} {})".format, inner, st.sampled_from(["//", "%"]), st.integers(1, 9)),
        st.builds("({} >> {})".format, inner, st.integers(0, 9)),
        st.builds("sf.{}({}, {})".format, st.sampled_from(["max", "min"]), inner, inner),
        st.builds("({} if {} < {} else {})".format, inner, inner, inner, inner),
        st.builds("sf.abs({})".format, inner),
        st.builds("sf.i8({}, {}=True)".format, inner, st.sampled_from(["wrap", "saturate"])),
    ),
    max_leaves=6,
)


@given(INTEGERS)
def test_every_value_lies_in_its_range(tmp_path_factory, value):
    folder = tmp_path_factory.mktemp("ranges")
    text = f"y = {value}\nout[i] = y + x[i] + w[i] - x[i] - w[i]"
    try:
        function, nest = stored(text, folder, x=sf.i8[49], w=sf.u8[49])
    except KernelError:
        assume(False)
    assume(nest.epilogue)
    edges = np.array([-128, -127, -1, 0, 1, 77, 127])
    x, w = (a.ravel() for a in np.meshgrid(edges, [0, 1, 2, 100, 128, 254, 255]))
    out = np.zeros(49, np.int64)
    interpret(function, {"x": x.astype(np.int8), "w": w.astype(np.uint8), "out": out})
    low, high = range_of(nest.epilogue[0].value, nest)
    assert low <= out.min() and out.max() <= high


@given(st.integers(1, 300), st.sampled_from(["i8", "i16", "u8", "u16"]), st.integers(-9, 9))
def test_an_accumulator_is_refused_exactly_when_extremes_overflow_it(
    tmp_path_factory, terms, kind, start
):
    function = kernel_of(
        f"def k(x, w, out):\n    for i in sf.grid(x.shape[0]):\n        acc = sf.{kind}({start})\n"
        "        for j in sf.reduce(w.shape):\n            acc += x[i, j] * w[j]\n"
        "        out[i] = acc",
        tmp_path_factory.mktemp("sums"),
    )
    types = {"x": sf.u8.range(0, 3)[2, terms], "w": sf.i8.range(-1, 2)[terms]}
    scalar = getattr(sf, kind)
    extremes = [start + terms * 3 * v for v in (-1, 2)]
    fits = scalar.low <= extremes[0] and extremes[1] <= scalar.high
    nest = bind(parse(function), types)
    if fits:
        check(nest)
        x = np.full((2, terms), 3, np.uint8)
        for w, expected in zip((-1, 2), extremes, strict=True):
            out = np.zeros(2, scalar.dtype)
            interpret(function, {"x": x, "w": np.full(terms, w, np.int8), "out": out})
            assert out.tolist() == [expected] * 2
        return
    with pytest.raises(KernelError, match=r"can overflow|does not fit"):
        check(nest)


def test_a_wrapping_sum_needs_no_proof():
    types = {"x": sf.i8[1, 99, 99, 2], "w": sf.i8[90, 90, 2]}
    check(bind(parse(nests.depthwise), types))


def test_a_sparse_row_counts_its_nonzeros(tmp_path):
    function = kernel_of(
        "def k(w, x, out):\n    for j in sf.grid(w.shape[0]):\n        acc = sf.i16(0)\n"
        "        for c in sf.nonzeros(w, j):\n            acc += w[j, c] * x[c]\n"
        "        out[j] = acc",
        tmp_path,
    )
    x = sf.i8.range(-127, 127)[900]
    w = sf.i8.range(-127, 127)[4, 900]
    check(bind(parse(function), {"w": csr(w, nonzeros=2), "x": x}))
    with pytest.raises(KernelError, match="3 terms of -16129 to 16129 on 0 to 0 reach -48387"):
        check(bind(parse(function), {"w": csr(w, nonzeros=3), "x": x}))


@pytest.mark.parametrize(
    "index",
    ["j, i", "i * 6 + j", "j * 4 + i", "i // 2, i % 2, j", "j % 3, i, j // 3", "0, i, j"],
)
def test_outputs_that_are_written_once(index, tmp_path):
    shapes = {
        "j, i": (6, 4),
        "i // 2, i % 2, j": (2, 2, 6),
        "j % 3, i, j // 3": (3, 4, 2),
        "0, i, j": (1, 4, 6),
    }
    check(scattered(index, shapes.get(index, (24,)), tmp_path))


@pytest.mark.parametrize(
    ("index", "shape"),
    [
        ("i + j * 3", (24,)),
        ("i * 5 + j", (24,)),
        ("i // 3, i % 3, j", (2, 2, 6)),
        ("i, i % 2 * 3 + j % 3", (4, 6)),
        ("i, (i + j) % 6", (4, 6)),
    ],
)
def test_outputs_that_are_not(index, shape, tmp_path):
    with pytest.raises(KernelError, match=r"exactly once|reaches"):
        check(scattered(index, shape, tmp_path))


def scattered(index: str, shape: tuple[int, ...], folder):
    function = kernel_of(
        f"def k(x, out):\n    for i, j in sf.grid(x.shape):\n        out[{index}] = x[i, j]",
        folder,
    )
    return bind(parse(function), {"x": sf.f32[4, 6], "out": sf.f32[shape]})
