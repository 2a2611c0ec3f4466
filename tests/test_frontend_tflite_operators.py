"""Every operator that `from_tflite` takes gives what LiteRT gives.

LiteRT's answers to the models of `tflite_cases` are in golden/litert_graphs.npz (see
golden/make_litert_graphs.py); the graphs are evaluated in numpy.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from simdflow.frontends.tflite_graph import IMPORTERS, from_tflite
from simdflow.graph.compile import compile as compile_graph
from simdflow.graph.evaluate import evaluate

pytest.importorskip("tflite", reason="reading .tflite files needs simdflow[tflite]")

import tflite_cases

GOLDEN = Path(__file__).parent / "golden" / "litert_graphs.npz"
# What LiteRT gives within a step, not to the bit. Its tables of exponentials, or its products of
# integers, stand where 8-bit values are dequantized and quantized here; uint8 inputs of a join are
# rescaled by a rule of their own.
ONE_STEP = {"CONCATENATION:uint8 scales", "ELU:int8", "RESIZE_BILINEAR:int8"}
# LiteRT quantizes the activations of a hybrid layer to 8 bits, which is seen in its result.
HYBRID = 0.01
# Computed only where all its inputs are known, from which no model of one operator can be made.
ONLY_KNOWN = {"DENSIFY", "FILL", "FLOOR_DIV", "RANGE", "REDUCE_PROD", "SHAPE"}


@pytest.fixture(scope="module")
def answers() -> dict[str, np.ndarray]:
    with np.load(GOLDEN) as stored:
        return {k: stored[k] for k in stored.files}


@pytest.mark.parametrize(("rounding", "kernels"), [("float", "auto"), ("tflite", "ref")])
@pytest.mark.parametrize("name", tflite_cases.names())
def test_an_operator_gives_what_litert_gives(
    name: str, rounding: str, kernels: str, answers: dict[str, np.ndarray]
) -> None:
    case = tflite_cases.make(name)
    graph = from_tflite(case.content, rounding=rounding)
    values = {
        i: x.view(np.uint8) if x.dtype == np.bool_ else x
        for i, x in zip(graph.inputs, case.inputs, strict=True)
    }
    found = evaluate(graph, values)
    expected = [answers[k] for k in sorted(answers) if k.startswith(f"{name}|{kernels}|")]
    if not expected:
        assert kernels == "ref"
        pytest.skip(f"LiteRT has no reference kernel for {name}")
    assert len(expected) == len(graph.outputs)
    for output, theirs in zip(graph.outputs, expected, strict=True):
        ours = found[output]
        assert ours.shape == theirs.shape
        if theirs.dtype.kind == "f":
            bound = (HYBRID if "hybrid" in name else 4e-6) * np.abs(theirs).max()
            assert np.abs(ours.astype(np.float64) - theirs).max() <= bound
        else:
            apart = np.abs(ours.astype(np.int64) - theirs.astype(np.int64))
            assert apart.max() <= (name in ONE_STEP)
        assert len(np.unique(ours)) > 1  # not the constant that a broken operator gives


@pytest.mark.thorough
@pytest.mark.parametrize("name", tflite_cases.names())
def test_an_operator_gives_the_same_compiled(name: str) -> None:
    case = tflite_cases.make(name)
    graph = from_tflite(case.content)
    values = {
        i: x.view(np.uint8) if x.dtype == np.bool_ else x
        for i, x in zip(graph.inputs, case.inputs, strict=True)
    }
    found = compile_graph(graph).run(values)
    for output, expected in evaluate(graph, values).items():
        bound = 4e-6 * np.abs(expected).max() if expected.dtype.kind == "f" else name in ONE_STEP
        assert np.abs(found[output].astype(np.float64) - expected).max() <= bound


def test_every_operator_has_a_case() -> None:
    assert {name.split(":")[0] for name in tflite_cases.names()} == set(IMPORTERS) - ONLY_KNOWN
