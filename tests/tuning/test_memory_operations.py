"""YFlows' count of memory operations: the paper's closed forms, and a count of what really runs.

The closed forms are those of an output-, weight- or input-anchored layer with one vector of
channels; the other count comes from running the emitted text with instructions that count.
"""

from __future__ import annotations

from collections import Counter
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import simdflow as sf
from simdflow.compiler.emit import emit
from simdflow.targets import host_targets
from simdflow.tuning.memory_operations import instructions, memory_operations, operations

TARGETS = [t.name for t in host_targets()]


@sf.kernel
def conv(x, w, out, *, stride=1):
    """The paper's layout: filters [K][R][S][c], outputs [K][OH][OW]."""
    for oc, oh, ow in sf.grid(out.shape):
        acc = sf.f32(0)
        for kh, kw, ic in sf.reduce(w.shape[1:]):
            acc += x[oh * stride + kh, ow * stride + kw, ic] * w[oc, kh, kw, ic]
        out[oc, oh, ow] = acc


def made(target: str, f: int, stride: int, k: int, e: int, flow: sf.Dataflow) -> sf.CompiledKernel:
    """A layer of `k` filters of f x f, e x e outputs and one vector of channels."""
    c = sf.target(target).width // 32
    size = (e - 1) * stride + f
    types = {"x": sf.f32[size, size, c], "w": sf.f32[k, f, f, c], "out": sf.f32[k, e, e]}
    return conv.specialize(**types, stride=stride, target=target, dataflow=flow)


@pytest.mark.parametrize("target", TARGETS)
@settings(max_examples=25, deadline=None)
@given(st.data())
def test_an_output_anchored_layer_counts_as_in_the_paper(target: str, data: st.DataObject) -> None:
    f, stride = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 2))
    k, e = data.draw(st.integers(1, 3)), data.draw(st.integers(2, 5))
    taps, reused = f * f, f * max(f - stride, 0)
    free = sf.target(target).budget - 3
    weights = data.draw(st.integers(0, min(taps, free)))
    inputs = data.draw(st.integers(0, min(reused, free - weights)))
    c = sf.target(target).width // 32
    flow = sf.Dataflow(
        order=("oc", "oh", "ow", "kh", "kw", "ic"),
        lanes="ic",
        unroll={"kh": f, "kw": f, "ic": c},
        # One more for those that are not kept; nothing where no weight is, and one tap is all.
        auxiliary={"x": inputs + 1} | ({"w": weights + (weights < taps)} if weights else {}),
    )
    kernel = made(target, f, stride, k, e, flow)
    # 2 R loads and a store for each output; a kept weight saves one for each output, a kept input
    # too. Weights are loaded once a filter, inputs at the start of each row.
    # Where all but one are kept, the register of the last one is its own: all are.
    weights += 0 < weights == taps - 1
    outputs = e * e
    a_filter = outputs * (2 * taps + 1 - weights - inputs) + weights + e * inputs
    assert memory_operations(kernel.plan, kernel.program) == k * a_filter
    found = operations(kernel.plan, kernel.program)
    assert found["out"].stores == k * outputs
    assert found["out"].loads == found["x"].stores == found["w"].stores == 0
    assert found["w"].loads == k * (outputs * (taps - weights) + weights)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("taps", [1, 3])
def test_a_weight_anchored_layer_counts_as_in_the_paper(target: str, taps: int) -> None:
    f, k, e, c = 3, 2, 4, sf.target(target).width // 32
    flow = sf.Dataflow(
        anchor="w",
        order=("oc", "kh", "kw", "ic", "oh", "ow"),
        lanes="ic",
        unroll={"kw": taps, "ic": c},
        auxiliary={"x": 1},
    )
    kernel = made(target, f, 1, k, e, flow)
    found = operations(kernel.plan, kernel.program)
    # For each weight, E outputs are loaded and stored; so they are for `taps` weights together.
    rounds = f * f // taps
    assert found["w"].loads == k * f * f
    assert found["x"].loads == k * f * f * e * e
    # And the sums in memory begin (E stores), and end in the output (E loads, E stores).
    assert found["out"].loads == k * e * e * (rounds + 1)
    assert found["out"].stores == k * e * e * (rounds + 2)


@pytest.mark.parametrize("target", TARGETS)
def test_an_input_anchored_layer_loads_an_input_once_for_all_filters(target: str) -> None:
    f, k, e, c = 2, 3, 4, sf.target(target).width // 32
    order = ("oh", "ow", "kh", "kw", "ic", "oc")
    flow = sf.Dataflow(anchor="x", order=order, lanes="ic", unroll={"ic": c}, auxiliary={"w": 1})
    kernel = made(target, f, 1, k, e, flow)
    found = operations(kernel.plan, kernel.program)
    assert found["x"].loads == f * f * e * e
    assert found["w"].loads == f * f * e * e * k
    assert found["out"].loads == e * e * k * (f * f + 1)
    assert found["out"].stores == e * e * k * (f * f + 2)


def executed(kernel: sf.CompiledKernel) -> Counter[str]:
    """How often each instruction runs, counted while the emitted text runs on numpy."""
    found: Counter[str] = Counter()

    def count(name: str, meaning: object, *args: object) -> object:
        found[name] += 1
        assert callable(meaning)
        return meaning(*args)

    program, table = kernel.program, kernel.target.table
    names = {
        op.text_name: partial(count, op.name, partial(table[op.name].meaning, op.vec))
        for op in program.ops()
    }
    exec(emit(program), names)
    arrays = [np.zeros(m.size, m.scalar.dtype) for m in program.memories]
    run = names[program.name]
    run(*arrays, 0, program.parallel[1])
    return found


def test_instructions_are_those_that_run() -> None:
    types = {"x": sf.u8[6, 7, 20], "w": sf.i8[5, 2, 2, 20], "out": sf.i32[5, 5, 6]}

    @sf.kernel
    def sums(x, w, out):
        for oc, oh, ow in sf.grid(out.shape):
            acc = sf.i32(0)
            for kh, kw, ic in sf.reduce(w.shape[1:]):
                acc += x[oh + kh, ow + kw, ic] * w[oc, kh, kw, ic]
            out[oc, oh, ow] = acc

    for target in TARGETS:
        space = sf.dataflows(sums, target=target, **types)
        for flow in space.sample(12, seed=3):
            kernel = space.made(flow)
            assert executed(kernel) == instructions(kernel.plan, kernel.program), flow


def test_rows_of_a_sparse_operand_count_with_their_mean_length() -> None:
    from scipy.sparse import csr_array

    @sf.kernel
    def product(w, x, out):
        for m, n in sf.grid(out.shape):
            acc = sf.f32(0)
            for k in sf.nonzeros(w, m):
                acc += w[m, k] * x[k, n]
            out[m, n] = acc

    dense = np.zeros((4, 8), np.float32)
    dense[0, :6] = dense[2, 1] = dense[3, 7] = 1
    n = sf.target(TARGETS[0]).width // 32
    kernel = product.specialize(
        w=sf.pack(csr_array(dense)).type,
        x=sf.f32[8, n],
        target=TARGETS[0],
        dataflow=sf.Dataflow(lanes="n"),
    )
    found = operations(kernel.plan, kernel.program)
    # 8 nonzeros in 4 rows: a broadcast and a row of x each, and a store for each row. The column
    # numbers are no vector memory operations.
    assert (found["w"].loads, found["x"].loads, found["out"].stores) == (8, 8, 4)
