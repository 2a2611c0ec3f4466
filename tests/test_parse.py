"""A kernel's text becomes the nest it says; any other text is refused, with line and reason."""

from __future__ import annotations

from pathlib import Path

import nests
import pytest
from kernel_text import Refusal, kernel_of, refusals, shown

from simdflow.dsl import parse
from simdflow.dsl.errors import KernelError
from simdflow.dsl.nest import Affine, Arith, Axis, Dim, Quotient
from simdflow.dsl.source import RESERVED

TEXTS = {
    nests.conv2d: """\
nest conv2d(x: ?, w: ?, out: ? (out)) with stride=1
  for n<out.shape[0]>, oh<out.shape[1]>, ow<out.shape[2]>, oc<out.shape[3]>:
    acc: i32 = 0;  for kh<w.shape[0]>, kw<w.shape[1]>, ic<w.shape[2]>: \
acc = add(acc, (x[n, oh*stride + kh, ow*stride + kw, ic] * w[kh, kw, ic, oc]))
    out[n, oh, ow, oc] = acc""",
    nests.grouped: """\
nest grouped(x: ?, w: ?, bias: ?, out: ? (out)) with stride=1, groups=1
  for n<out.shape[0]>, oh<out.shape[1]>, ow<out.shape[2]>, oc<out.shape[3]>:
    acc: i32 = bias[oc];  for kh<w.shape[0]>, kw<w.shape[1]>, ic<w.shape[2]>: \
acc = add(acc, (x[n, oh*stride + kh, ow*stride + kw, (oc // (w.shape[3] // groups))*w.shape[2] \
+ ic] * w[kh, kw, ic, oc]))
    acc_1 = (acc >> 8)
    y = min(max(acc_1, -128), 127)
    out[n, oh, ow, oc] = i8(y)""",
    nests.row_max: """\
nest row_max(x: ?, out: ? (out))
  for i<x.shape[0]>:
    acc: f32 = -inf;  for j<x.shape[1]>: acc = max(acc, x[i, j])
    out[i] = (acc * 3)""",
    nests.row_sum: """\
nest row_sum(x: ?, m: ?, out: ? (out))
  for i<out.shape[0]>:
    acc: f32 = 0;  for j<x.shape[1]>: acc = add(acc, exp((x[i, j] - m[i])))
    out[i] = acc""",
    nests.add: """\
nest add(a: ?, b: ?, out: ? (out)) with sa=0.5, sb=0.25, za=1, relu=True
  for i<a.shape[0]>:
    v = ((f32((a[i] - za)) * sa) + (f32(b[i]) * sb))
    v_1 = select(relu, max(v, 0), v)
    out[i] = u8(round(v_1), saturate)""",
    nests.table: """\
nest table(x: ?, t: ?, out: ? (out))
  for i<x.shape[0]>, j<x.shape[1]>:
    out[i, j] = t[(x[i, j] + 128)]""",
    nests.sparse: """\
nest sparse(w: ?, x: ?, out: ? (out))
  for m<out.shape[0]>, oc<out.shape[1]>:
    acc: f32 = 0;  for ic<w.shape[1]> in nonzeros(w, oc): acc = add(acc, (w[oc, ic] * x[m, ic]))
    out[m, oc] = max(acc, 0)""",
    nests.threshold: """\
nest threshold(x: ?, t: ?, out: ? (out))
  for i<out.shape[0]>, c<out.shape[1]>:
    out[i, c] = ((x[i, c] > t[c]) & not((x[i, c] <= 7)))""",
}


@pytest.mark.parametrize("function", TEXTS, ids=lambda f: f.__name__)
def test_the_nest_is_what_the_text_says(function):
    assert str(parse(function)) == TEXTS[function]


def test_structures():
    nest = parse(nests.grouped)
    assert [(o.name, o.role) for o in nest.operands] == [
        ("x", "in"),
        ("w", "in"),
        ("bias", "in"),
        ("out", "out"),
    ]
    assert nest.grid[1] == Axis("oh", Dim("out", 1))
    assert nest.reduction is not None
    assert nest.reduction.axes[2] == Axis("ic", Dim("w", 2), "reduce")
    og = Arith("//", Dim("w", 3), Dim("", 0, "groups"))
    group = Quotient("//", Affine.axis("oc"), og)
    x = nest.loads()[1]
    assert x.index[3] == Affine(((group, Dim("w", 2)), ("ic", 1)), 0)
    assert not nest.reduction.wrap
    assert parse(nests.depthwise).reduction.wrap
    compressed = parse(nests.sparse).reduction.axes[0]
    assert compressed == Axis("ic", Dim("w", 1), "nonzeros", "w", Affine.axis("oc"))


def test_lines_are_those_of_the_file():
    nest = parse(nests.grouped)
    text = Path(nests.__file__).read_text().splitlines()
    assert nest.origin.file == nests.__file__
    assert text[nest.origin.line - 1] == nest.origin.lines[0] == text_of("def grouped")
    assert text[nest.reduction.line - 1].strip().startswith("acc += x[n, oh")
    assert text[nest.epilogue[1].line - 1].strip() == "y = sf.clip(acc, -128, 127)"
    assert text[nest.store.line - 1].strip() == "out[n, oh, ow, oc] = sf.i8(y)"


def text_of(start: str) -> str:
    lines = Path(nests.__file__).read_text().splitlines()
    return next(t for t in lines if t.startswith(start))


def test_any_alias_of_the_words_is_the_word(tmp_path):
    nest = parse(
        kernel_of(
            "from simdflow.dsl import f32, grid, loops as L, reduce as over\n\n\n"
            "def k(x, out):\n"
            "    for i in grid(out.shape):\n"
            "        acc = f32(0)\n"
            "        for j in over(x.shape[1]):\n"
            "            acc = L.max(acc, x[i, j])\n"
            "        out[i] = acc",
            tmp_path,
        )
    )
    assert str(nest.reduction) == "acc: f32 = 0;  for j<x.shape[1]>: acc = max(acc, x[i, j])"


def test_a_nested_function_may_use_modules_of_its_surroundings():
    from simdflow import dsl as inner

    def k(x, out):
        """A string whose second line
        is indented less."""
        for i in inner.grid(x.shape):
            out[i] = inner.abs(x[i])

    assert str(parse(k).store) == "out[i] = abs(x[i])"


def test_a_name_may_be_given_again():
    def k(x, out):
        for i in nests.sf.grid(x.shape):
            v = x[i] + 1
            v = v * v
            at = i
            out[at] = v

    nest = parse(k)
    assert [str(x) for x in nest.epilogue] == ["v = (x[i] + 1)", "v_1 = (v * v)"]
    assert str(nest.store) == "out[i] = v_1"


def test_a_name_before_the_reduction_is_read_where_it_was_given():
    def k(x, b, out):
        for i in nests.sf.grid(x.shape[0]):
            v = b[i]
            v = v + v
            acc = nests.sf.i32(v)
            for j in nests.sf.reduce(x.shape[1]):
                acc += x[i, j]
            out[i] = acc + v

    nest = parse(k)
    assert str(nest.reduction.init) == "(b[i] + b[i])"
    assert str(nest.store.value) == "(acc + (b[i] + b[i]))"


@pytest.mark.parametrize("case", refusals("refused_by_parse.txt"), ids=lambda c: c.name)
def test_refusal(case: Refusal, tmp_path):
    function = kernel_of(case.text, tmp_path)
    with pytest.raises(KernelError) as caught:
        parse(function)
    assert shown(caught.value, function) == case.error


def test_no_source_from_exec():
    space: dict = {"sf": nests.sf}
    exec("def k(x, out):\n    for i in sf.grid(x.shape):\n        out[i] = x[i]", space)
    with pytest.raises(KernelError) as caught:
        parse(space["k"])
    assert str(caught.value) == (
        "<string>:1: k: source not available; kernels are read from a file (or a notebook), not "
        "from exec or a plain interactive prompt. Put the function in a .py file."
    )


@pytest.mark.parametrize("word", sorted(RESERVED - {"range", "sf"}))
def test_every_reserved_word_is_refused_as_a_parameter(word, tmp_path):
    body = "    for i in sf.grid(out.shape):\n        out[i] = "
    function = kernel_of(f"def k({word}, out):\n{body}{word}[i]", tmp_path)
    with pytest.raises(KernelError, match=f"parameter={word} is a reserved word; any other name"):
        parse(function)
