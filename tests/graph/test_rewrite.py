"""What a rule of a pass may do, and what is seen to by the machinery under all passes."""

from __future__ import annotations

import numpy as np
import pytest

import simdflow as sf
from simdflow import f32, ops
from simdflow.graph import passes
from simdflow.graph.graph import Builder, Graph, Node
from simdflow.graph.rewrite import Rewrite, op_of, pruned, rewrite
from simdflow.ops import Quantization


@sf.kernel
def relu(x, out):
    """out[i] = x[i] + 1: not what ops.relu does, in spite of its name."""
    for i in sf.grid(x.shape):
        out[i] = x[i] + 1.0


def chain() -> Graph:
    b = Builder("chain")
    y = b.call(ops.exp, b.input("x", f32[3]))
    return b.graph(b.call(ops.neg, b.call(ops.neg, y)), y)


def doubly_negated(at: Rewrite, node: Node) -> str | None:
    """-(-x) is x."""
    before = at.maker(node.inputs[0], "neg") if op_of(node) == "neg" else None
    return None if before is None else before.inputs[0]


def test_a_value_that_is_an_output_already_cannot_be_another() -> None:
    """-(-y) is y, but both are outputs: one name each, so the nodes stay."""
    graph = chain()
    assert [n.op for n in rewrite(graph, doubly_negated).nodes] == ["exp", "neg", "neg"]


def test_a_value_takes_the_name_of_the_output_it_replaces() -> None:
    b = Builder("chain")
    y = b.call(ops.exp, b.input("x", f32[3]))
    z = b.call(ops.neg, b.call(ops.neg, y))
    after = rewrite(b.graph(z, b.call(ops.tanh, y)), doubly_negated)
    assert [str(n) for n in after.nodes] == ["neg_2 = exp(x)", "tanh = tanh(neg_2)"]


def test_a_pass_that_changes_a_type_is_stopped() -> None:
    def wrong(at: Rewrite, node: Node) -> str | None:
        return (
            at.replaced(ops.reshape, node.inputs[0], shape=(1, 3)) if op_of(node) == "exp" else None
        )

    with pytest.raises(sf.ModelError, match="'exp' became"):
        rewrite(chain(), wrong)


def test_a_kernel_with_the_name_of_an_op_is_not_that_op() -> None:
    b = Builder("kernel")
    y = b.call(ops.dense, b.input("x", f32[1, 3]), b.constant("w", np.eye(3, dtype=np.float32)))
    y = b.call(relu, b.call(ops.reshape, y, shape=(3,)))
    after = passes.run(b.graph(y))
    assert [n.function for n in after.nodes] == [ops.dense, ops.reshape, relu]
    assert op_of(after.nodes[-1]) == ""


def test_values_in_between_mean_what_their_input_means() -> None:
    q = Quantization(0.5, 3)
    b = Builder("meaning")
    x = b.input("x", sf.i8[2, 3], q)

    def split(at: Rewrite, node: Node) -> str | None:
        return at.replaced(
            ops.reshape, at.call(ops.reshape, node.inputs[0], shape=(6,)), shape=(3, 2)
        )

    after = rewrite(b.graph(b.call(ops.reshape, x, shape=(3, 2), quantization=q)), split)
    assert [after.values[n.output].quantization for n in after.nodes] == [q, q]


def test_what_no_output_needs_is_dropped() -> None:
    b = Builder("dead")
    x, unread = b.input("x", f32[3]), b.input("unread", f32[3])
    b.call(ops.add, x, b.constant("c", np.ones(3, np.float32)))
    graph = b.graph(b.call(ops.exp, x))
    after = pruned(graph)
    assert (after.inputs, set(after.values)) == (("x", unread), {"x", unread, "exp"})
    assert not after.constants


def test_new_names_are_those_of_neither_graph() -> None:
    b = Builder("names")
    x = b.input("x", f32[3])
    y = b.call(ops.exp, x, output="y")
    z = b.call(ops.exp, y, output="y_2")

    def twice(at: Rewrite, node: Node) -> str | None:
        return at.replaced(ops.neg, at.call(ops.neg, at.call(ops.exp, node.inputs[0])))

    after = rewrite(b.graph(z), twice)
    assert [n.output for n in after.nodes] == ["y_3", "y_4", "y", "y_2_2", "y_2_3", "y_2"]
