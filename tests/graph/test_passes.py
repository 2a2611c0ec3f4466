"""Every pass alone, and all of them: random graphs compute the same before and after.

`evaluate` computes both sides. Integers are the same bits; what a pass may change in f32 is the
bound that its test states.
"""

from __future__ import annotations

import numpy as np
import pytest
from graphs import fed, networks
from hypothesis import HealthCheck, given, settings
from quantized_graphs import qdq, quantized

from simdflow.graph import passes
from simdflow.graph.evaluate import evaluate, evaluate_node
from simdflow.graph.graph import Graph
from simdflow.graph.passes import PASSES, Pass

ALONE = {p.__name__: p for p in PASSES} | {"all": passes.run}
# These move, join or clamp values, or compute them as they were computed before.
EXACT = {
    "carry_integers",
    "fold_constants",
    "fold_dequantized",
    "fold_pads",
    "fuse_activation",
    "simplify",
    "unsigned",
}
# A pass that changes no integer of a network between quantize and dequantize.
CAREFUL = [name for name in ALONE if name not in ("all", "lower_quantization")]
DRAWN = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def outputs(graph: Graph) -> dict[str, np.ndarray]:
    """What the graph computes of its drawn inputs."""
    with np.errstate(all="ignore"):  # infinities are among the pads, and so NaN among the values
        return evaluate(graph, fed(graph))


def same_interface(before: Graph, after: Graph) -> None:
    """Inputs and outputs keep their names and types."""
    assert (before.inputs, before.outputs) == (after.inputs, after.outputs)
    for name in (*before.inputs, *before.outputs):
        old, new = before.values[name].type, after.values[name].type
        assert (old.scalar, old.shape) == (new.scalar, new.shape)


def compared(before: Graph, run: Pass, bound: float) -> None:
    """`run` keeps the outputs: of integers the bits, of f32 within `bound` of the largest."""
    after = run(before)
    same_interface(before, after)
    old, new = outputs(before), outputs(after)
    for name, expected in old.items():
        about = f"{name}\n{before}\n{after}"
        if expected.dtype != np.float32 or bound == 0:
            np.testing.assert_array_equal(new[name], expected, about)
            continue
        largest = np.max(np.abs(expected), where=np.isfinite(expected), initial=1.0)
        np.testing.assert_allclose(
            new[name], expected, rtol=bound, atol=bound * largest, err_msg=about
        )


@pytest.mark.parametrize("name", ALONE)
def test_f32_networks_stay_what_they_are(name: str) -> None:
    @DRAWN
    @given(networks())
    def drawn(graph: Graph) -> None:
        compared(graph, ALONE[name], 0 if name in EXACT else 1e-4)

    drawn()


@pytest.mark.parametrize("name", ALONE)
def test_8_bit_networks_stay_the_same_bits(name: str) -> None:
    @DRAWN
    @given(quantized())
    def drawn(graph: Graph) -> None:
        compared(graph, ALONE[name], 0)

    drawn()


@pytest.mark.parametrize("name", CAREFUL)
def test_networks_between_quantize_and_dequantize_stay_what_they_are(name: str) -> None:
    @DRAWN
    @given(qdq())
    def drawn(graph: Graph) -> None:
        compared(graph, ALONE[name], 0 if name in EXACT else 1e-5)

    drawn()


@DRAWN
@given(qdq())
def test_a_lowered_layer_is_within_one_step_of_the_float_one(graph: Graph) -> None:
    """Each 8-bit value of the lowered graph against the float layers that it came from, fed with
    the lowered graph's own values.
    """
    for each in PASSES[: PASSES.index(passes.lower_quantization)]:
        graph = each(graph)
    lowered = passes.lower_quantization(graph)
    same_interface(graph, lowered)
    given_ = fed(graph)
    found = evaluate(lowered, given_, every=True)
    values = {**graph.constants, **given_}
    for node in graph.nodes:
        operands = [None if i is None else values[i] for i in node.inputs]
        value = evaluate_node(node, operands, graph.values[node.output].type)
        if value.dtype.kind in "iu" and node.output in found:
            step = np.abs(value.astype(int) - found[node.output].astype(int))
            assert step.max() <= 1, f"{node}\n{graph}\n{lowered}"
            value = found[node.output]
        values[node.output] = value


@DRAWN
@given(networks())
def test_passes_settle(graph: Graph) -> None:
    """A second run finds nothing left to do."""
    once = passes.run(graph)
    assert len(passes.run(once).nodes) == len(once.nodes)
