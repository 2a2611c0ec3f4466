"""Node tests of ONNX, compiled: a sample of the operators, all of them in the thorough run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice

import numpy as np
import pytest
from onnx_cases import Case, cases, stored
from onnx_changes import flipped, network

from simdflow.dsl.errors import ModelError
from simdflow.frontends.onnx import STANDARD_OPERATORS, from_onnx
from simdflow.graph.compile import compile
from simdflow.graph.evaluate import evaluate
from simdflow.graph.graph import Graph

# What real networks are made of; one kernel or two each.
SAMPLE = (
    "Add", "AveragePool", "Concat", "Conv", "Gemm", "GlobalAveragePool", "LayerNormalization",
    "HardSwish", "MaxPool", "QLinearConv", "Resize", "Softmax", "Transpose",
)  # fmt: skip
# A layer's weights are constants of a network.
WEIGHTED = {
    "BatchNormalization", "Conv", "ConvInteger", "ConvTranspose", "Gemm", "GroupNormalization",
    "InstanceNormalization", "LayerNormalization", "QLinearConv",
}  # fmt: skip


def compiled_as_evaluated(graph: Graph, arrays: Mapping[str, np.ndarray]) -> None:
    """Integers alike, floats within 1e-5 of the largest value."""
    found = compile(graph).run(dict(arrays))
    for name, wanted in evaluate(graph, arrays).items():
        got = np.asarray(found[name])
        assert (got.shape, got.dtype) == (wanted.shape, wanted.dtype)
        if wanted.dtype.kind == "f":
            finite = np.abs(wanted[np.isfinite(wanted)])
            np.testing.assert_allclose(got, wanted, 1e-5, 1e-5 * float(finite.max(initial=1)))
        else:
            np.testing.assert_array_equal(got, wanted)


def run_compiled(case: Case) -> None:
    compiled_as_evaluated(*case.imported(weights=case.kind in WEIGHTED))


@pytest.mark.parametrize("kind", SAMPLE)
def test_a_case_compiles_to_what_its_graph_says(kind: str) -> None:
    run_compiled(next(c for c in cases()[kind] if not c.reason))


@pytest.mark.thorough
@pytest.mark.parametrize("kind", sorted(STANDARD_OPERATORS))
def test_every_case_compiles_to_what_its_graph_says(kind: str) -> None:
    failed = {}
    for case in cases()[kind]:
        # No compiled value is without elements.
        if not case.reason and all(stored(o).size for o in case.outputs):
            try:
                run_compiled(case)
            except Exception as error:
                failed[case.name] = f"{type(error).__name__}: {str(error)[:300]}"
    assert failed == {}


def changed_networks() -> Iterator[tuple[Graph, dict[str, np.ndarray]]]:
    """Files with changed bytes that load, small enough to run, with numbers that stay finite."""
    content = network()
    for seed in range(10_000):
        try:
            graph = from_onnx(flipped(content, seed))
        except ModelError:
            continue
        kinds = [v.type for v in graph.values.values()]
        if sum(k.size for k in kinds) > 100_000 or {str(k.scalar) for k in kinds} - {"f32", "i8"}:
            continue
        rng = np.random.default_rng(seed)
        arrays = {
            i: rng.standard_normal(graph.values[i].type.shape).astype(np.float32)
            for i in graph.inputs
        }
        values = evaluate(graph, arrays, every=True).values()
        if all(np.isfinite(v).all() and np.abs(v).max(initial=0) < 1e6 for v in values):
            yield graph, arrays


def test_changed_files_that_load_compile_to_what_they_say() -> None:
    sample = list(islice(changed_networks(), 5))
    assert len(sample) == 5
    for graph, arrays in sample:
        compiled_as_evaluated(graph, arrays)


@pytest.mark.thorough
def test_a_hundred_changed_files_compile_to_what_they_say() -> None:
    sample = list(islice(changed_networks(), 100))
    assert len(sample) == 100
    for graph, arrays in sample:
        compiled_as_evaluated(graph, arrays)
