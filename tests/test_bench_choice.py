"""The bench suite "dataflows": its nests are the layers, its sample is fair, its rows are right.

Small layers, so that each compiles in a moment; no time is compared with another.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import simdflow as sf
from bench import cases, dataflows, nests
from bench.cases import Case, Run
from bench.rows import Row

SMALL = Case("test", "conv2d", 7, 6, 3, 5, k=3, stride=2)


@pytest.mark.parametrize("name", ["conv3x3s2", "dw3x3", "dense"])
@pytest.mark.parametrize("dtype", ["f32", "int8"])
def test_the_nest_of_a_layer_is_the_layer(name: str, dtype: str) -> None:
    case = {
        "conv3x3s2": SMALL,
        "dw3x3": replace(SMALL, op="depthwise_conv2d", oc=3),
        "dense": Case("test", "dense", 1, 1, 40, 24, relu=False),
    }[name]
    nest = nests.layer_nest(cases.problem(replace(case, dtype=dtype)))
    run = nest.run(nest.made())
    untouched = run.output()
    assert set(untouched.view(np.uint8).reshape(-1)) == {0xA5}
    run.call()
    assert cases.mismatch(run.output(), nest.problem, 0) == ""


def test_sampled_dataflows_are_legal_distinct_and_the_same_every_time() -> None:
    nest = nests.layer_nest(cases.problem(Case("test", "dense", 1, 1, 8, 16)))
    found = list(dataflows.sample(nest, 8))
    assert len(set(found)) == 8
    assert found == list(dataflows.sample(nest, 8))
    assert set(found) <= set(sf.dataflows(nest.kernel, **nest.given))
    everything = list(dataflows.sample(nest, 100_000))
    assert len(everything) == len(list(sf.dataflows(nest.kernel, **nest.given)))


def test_a_dataflow_row_compares_right_results_only(monkeypatch: pytest.MonkeyPatch) -> None:
    case = replace(SMALL, dtype="int8", oc=16)
    row = dataflows.measure(case, 2, 0.001)
    assert row.ours_us is not None
    assert row.exact is True
    assert row.ratio == pytest.approx(row.peers["best"] / row.ours_us, rel=0.1)
    assert set(row.notes) == {"ours", "best"}
    text = dataflows.flow_table([row])
    assert row.case in text
    assert row.notes["best"] in text

    prepare = nests.LayerNest.run

    def off_by_one(nest: nests.LayerNest, made: sf.CompiledKernel) -> Run:
        right = prepare(nest, made)
        if made.flow == nest.made().flow:
            return right
        return replace(right, output=lambda: right.output() ^ 1)

    monkeypatch.setattr(nests.LayerNest, "run", off_by_one)
    row = dataflows.measure(case, 2, 0.001)
    assert row.exact is False
    assert row.ours_us is None
    assert len(row.why) == 2
    lines = "\n".join(dataflows.summary([row], 2))
    assert "dataflows without a right result: 2" in lines
    assert "wrong: output differs by up to 1" in lines


def test_the_dataflow_summary_counts_layers_within_ten_percent() -> None:
    def row(ratio: float) -> Row:
        return Row("dataflows", "layer", 1, 1.0, ratio=ratio, rank_correlation=ratio / 2)

    text = "\n".join(dataflows.summary([row(1.2), row(0.95), row(0.80)], 50))
    assert "median 0.950, worst 0.800; within 10 % of the best: 2 of 3 layers" in text
    assert "MISSED" in text
    assert "median 0.47, lowest 0.40" in text
    assert "reached" in "\n".join(dataflows.summary([row(0.92)], 50))


def test_rank_correlation() -> None:
    assert dataflows.rank_correlation([1, 2, 3, 9], [10, 20, 30, 31]) == pytest.approx(1)
    assert dataflows.rank_correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert dataflows.rank_correlation([1, 1, 1], [3, 2, 1]) == 0
    # By hand: ranks 1.5 1.5 3 and 1 2 3.
    assert dataflows.rank_correlation([5, 5, 6], [1, 2, 3]) == pytest.approx(0.8660254)


def test_the_dataflow_layers_are_large_or_of_another_kind() -> None:
    found = dataflows.layers(quick=False)
    assert all(c.macs > 10e6 for c in found if c.op == "conv2d")
    assert {c.op for c in found} == {"conv2d", "depthwise_conv2d", "dense"}
    assert {c.name for c in dataflows.layers(quick=True)} == dataflows.QUICK
