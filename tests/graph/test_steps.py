"""Steps: which nodes are kernels, which are only names, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from woven_graphs import neighbours, twice_and_one

from simdflow import ModelError, f32, i8, ops
from simdflow.graph.graph import Builder, Graph
from simdflow.graph.steps import Read, Schedule, steps_of
from simdflow.ops import Quantization
from simdflow.targets import target

Q = Quantization(0.05, 3)


def lowered(b: Builder, *outputs: str) -> Schedule:
    """The steps of what was built."""
    return steps_of(b.graph(*outputs), target("portable"))


def builder(*shape: int) -> Builder:
    """A graph with an input x."""
    b = Builder("g")
    b.input("x", f32[shape or (1, 4, 4, 6)])
    return b


def ones(b: Builder, *shape: int) -> str:
    """Weights."""
    return b.constant("w", np.ones(shape, np.float32))


def test_a_border_is_a_way_to_read_and_no_step() -> None:
    b = Builder("g")
    b.input("x", i8[1, 4, 4, 6], Q)
    w = b.constant("w", np.ones((3, 3, 6, 2), np.int8))
    b.call(ops.conv2d, "x", w, x_q=Q, w_q=Quantization(0.1), y_q=Q, padding="same")
    (step,) = lowered(b, "conv2d").steps
    assert step.reads["x"] == Read("x", ((0, 0), (1, 1), (1, 1), (0, 0)), 3)


def test_a_pool_wants_another_border_than_a_convolution() -> None:
    b = builder()
    b.call(ops.max_pool2d, "x", kernel=3, padding=1)
    (step,) = lowered(b, "max_pool2d").steps
    read = step.reads["x"]
    assert isinstance(read, Read) and read.fill == -np.inf


def test_reshapes_and_slices_are_names() -> None:
    b = builder()
    b.call(ops.relu, "x")
    b.call(ops.reshape, "relu", shape=(16, 6))
    b.call(ops.slice, "relu", starts=(0, 1, 0, 2), stops=(1, 4, 4, 5), steps=(1, 1, 1, 1))
    made = lowered(b, "reshape", "slice")
    assert [s.writes for s in made.steps] == ["relu"]
    assert made.root("reshape") == made.root("slice") == "relu"
    assert made.place("slice").frame == ((0, 0), (1, 0), (0, 0), (2, 1))
    assert made.place("reshape").shape == (1, 4, 4, 6)


def test_a_slice_of_a_slice_is_placed_in_the_whole() -> None:
    b = builder()
    for x, start in (("x", 1), ("slice", 2)):
        n = b.values[x].type.shape[3]
        b.call(
            ops.slice, x, starts=(0, 0, 0, start), stops=(1, 4, 4, n), steps=(1,) * 4, name="slice"
        )
    made = lowered(b, "slice_2")
    assert sum(a + b for a, b in made.place("slice_2").frame) == 3 or made.steps


def test_a_slice_with_steps_is_a_kernel() -> None:
    b = builder()
    b.call(ops.slice, "x", starts=(0, 0, 0, 0), stops=(1, 4, 4, 6), steps=(1, 1, 1, 2))
    assert len(lowered(b, "slice").steps) == 1


def test_parts_are_written_where_they_lie_in_the_whole() -> None:
    b = builder()
    b.call(ops.conv2d, "x", ones(b, 1, 1, 6, 5), name="p")
    b.call(ops.conv2d, "x", ones(b, 1, 1, 6, 3), name="q")
    b.call(ops.concat, "p", "q", axis=3)
    made = lowered(b, "concat")
    assert [s.writes for s in made.steps] == ["p", "q"]
    assert made.place("q").frame == ((0, 0), (0, 0), (0, 0), (5, 0))


@pytest.mark.parametrize(
    ("parts", "copies"), [(("p", "p"), 1), (("x", "p"), 1), (("x", "x"), 2), (("c", "p"), 1)]
)
def test_a_part_that_lies_elsewhere_is_copied(parts: tuple[str, str], copies: int) -> None:
    b = builder()
    b.constant("c", np.ones((1, 4, 4, 6), np.float32))
    b.call(ops.relu, "x", name="p")
    b.call(ops.concat, *parts, axis=3)
    made = lowered(b, "concat")
    assert sum(s.nest.name == "copy_all" for s in made.steps) == copies


def test_an_output_that_is_a_constant_is_written() -> None:
    b = builder(3)
    c = b.constant("c", np.ones((2, 3), np.float32))
    d = b.constant("d", np.float32(5))
    assert [s.writes for s in lowered(b, "x", c, d).steps] == [c, d]


def test_a_users_kernel_is_a_step() -> None:
    b = builder()
    b.call(neighbours, b.call(twice_and_one, "x"))
    assert [s.nest.name for s in lowered(b, "neighbours").steps] == ["twice_and_one", "neighbours"]


def test_a_node_that_cannot_be_lowered_is_named() -> None:
    b = builder()
    b.input("w", f32[1, 1, 6, 2])
    b.call(ops.conv2d, "x", "w", name="first/conv")
    with pytest.raises(ModelError, match=r"first/conv.*constant is needed"):
        lowered(b, "first/conv")


def test_schedules_print_a_line_a_step() -> None:
    b = builder()
    b.call(ops.relu, "x")
    b.call(ops.conv2d, "relu", ones(b, 3, 3, 6, 2), padding=1)
    text = str(lowered(b, "conv2d"))
    assert text.splitlines()[0] == "schedule g for portable"
    assert len(text.splitlines()) == 3
    assert "relu+((0, 0), (1, 1), (1, 1), (0, 0))" in text


def test_one_constant_is_packed_once() -> None:
    b = builder()
    w = ones(b, 1, 1, 6, 6)
    b.call(ops.conv2d, b.call(ops.conv2d, "x", w), w)
    graph: Graph = b.graph("conv2d_2")
    first, second = steps_of(graph, target("portable")).steps
    assert first.reads["w"] is second.reads["w"]
