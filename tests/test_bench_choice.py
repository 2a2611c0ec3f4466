"""The bench suite "choice": its nests are the layers, its rows compare right results only.

Small layers, so that each compiles in a moment; no time is compared with another.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import simdflow as sf
from bench import cases, choice, choice_layers, nests
from bench.cases import Case
from bench.rows import Options, Row

SMALL = Case("mobilenet", "conv2d", 7, 6, 3, 5, k=3, stride=2)
BITS = Case("test", "conv2d", 5, 5, 64, 8, k=2, relu=False, dtype="bit")
HOST = sf.target().name


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


@pytest.mark.parametrize("case", [replace(SMALL, dtype="int8"), BITS])
def test_a_subject_knows_a_right_result_from_none(case: Case) -> None:
    given = choice_layers.subject(case, HOST)
    call = given.bind(given.space.made(None))
    assert given.wrong(call) == ""
    assert given.wrong(lambda: None) != ""


@pytest.fixture
def pool() -> ThreadPoolExecutor:
    """Compiles in this process: a worker takes a second to start."""
    return ThreadPoolExecutor(1)


def test_a_row_compares_right_results_only(
    pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = replace(SMALL, dtype="int8", oc=16)
    row = choice.measure(case, HOST, 2, 0.001, pool)
    assert row.ours_us is not None and row.exact is True and row.why == {}
    assert row.dataflows in (2, 3)  # the default may be one of the two
    assert row.ratio == pytest.approx(row.peers["best"] / row.ours_us, rel=0.1)
    assert row.predicted_us is not None and row.predicted_us > 0
    assert set(row.notes) == {"ours", "best"}
    text = choice.flow_table([row])
    assert row.case in text
    assert row.notes["best"] in text

    wrong = choice_layers.Subject.wrong

    def only_the_default(given: choice_layers.Subject, call: Callable[[], object]) -> str:
        seen.append(call)
        return wrong(given, call) if len(seen) == 1 else wrong(given, lambda: None)

    seen: list[object] = []
    monkeypatch.setattr(choice_layers.Subject, "wrong", only_the_default)
    row = choice.measure(case, HOST, 2, 0.001, pool)
    assert row.exact is False
    assert row.ours_us is None
    assert len(row.why) == len(seen) - 1 > 0
    lines = "\n".join(choice.summary([row], 2))
    assert f"dataflows without a right result: {len(row.why)}" in lines
    assert "wrong: output differs by up to" in lines


def test_the_summary_judges_each_target() -> None:
    def row(target: str, ratio: float) -> Row:
        return Row(
            "choice",
            "layer",
            1,
            1.0,
            ratio=ratio,
            target=target,
            rank_correlation=ratio / 2,
            operations_correlation=0.25,
        )

    rows = [row("avx512", 1.2), row("avx512", 0.95), row("avx512", 0.80), row("avx2", 0.96)]
    assert [choice.times_over(r) for r in rows[:3]] == pytest.approx([1, 1 / 0.95, 1.25])
    text = choice.summary(rows, 50)
    assert text[1] == (
        "avx512: over the best: median 1.053, worst 1.250 of 3 layers; asked 1.05 and 1.15: MISSED"
    )
    assert "avx512: rank correlation, cost model: median 0.47, lowest 0.40" in text
    assert "avx512: rank correlation, memory operations: median 0.25, lowest 0.25" in text
    assert text[4].endswith("worst 1.042 of 1 layers; asked 1.05 and 1.15: reached")


def test_the_layers_are_large_or_of_another_kind_and_the_studys_too() -> None:
    found = choice_layers.layers(sf.target(), quick=False)
    assert len({c.name for c in found}) == len(found)
    ours = [c for c in found if c.network in ("resnet50", "mobilenet")]
    assert all(c.macs > 10e6 for c in ours if c.op == "conv2d")
    assert {c.op for c in ours} == {"conv2d", "depthwise_conv2d", "dense"}
    assert {c.dtype for c in found} == {"f32", "int8", "bit"}
    quick = choice_layers.layers(sf.target(), quick=True)
    assert {c.name for c in quick} == choice_layers.QUICK


def test_rows_are_written_as_they_come(
    pool: ThreadPoolExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(case: Case, target: str, count: int, seconds: float, pool: object) -> Row:
        written.append(path.read_text() if path.exists() else "")
        return Row("choice", case.name, 1, 2.0, {"best": 1.0}, ratio=0.5, target=target)

    written: list[str] = []
    path = tmp_path / "rows.json"
    monkeypatch.setattr(choice, "measure", measured)
    monkeypatch.setattr(choice, "compilers", lambda: pool)
    result = choice.run(Options(quick=True, target=HOST, json=path))
    assert len(result.rows) == len(choice_layers.QUICK)
    first = result.rows[0].case
    assert written[0] == "" and first in written[1]
