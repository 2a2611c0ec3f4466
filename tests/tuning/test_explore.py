"""Explorations: what is measured and in which order, the ranking, the verdict, the files.

Times come from `explored.Measure`, which times nothing; one test measures in worker processes.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from explored import PREDICTED, Measure, explored, small, time_of
from hypothesis import given
from hypothesis import strategies as st
from sample_kernels import conv2d
from tuned_kernels import relu

import simdflow as sf
from simdflow.compiler import records
from simdflow.tuning import explore as module
from simdflow.tuning.assembly import kind, roles
from simdflow.tuning.measure import BATCH, workers
from simdflow.tuning.page import embedded, held, page
from simdflow.tuning.picture import far_bytes, heat_map
from simdflow.tuning.verdict import parts, rank_correlation, short, verdict
from simdflow.tuning.writing import written


def test_it_ranks_by_measured_time_then_prediction_then_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measure = Measure(fails=2)
    space = small()
    e = explored(monkeypatch, measure, space=space)
    legal = set(space)
    assert {v.flow for v in e.variants} <= legal
    assert e.default == space.default and e.default in {v.flow for v in e.variants}
    assert e.count == len(legal) and e.complete
    assert e.refusals == space.refusals()
    assert PREDICTED <= len(e.variants) <= PREDICTED + 1
    assert all(v.measured_us == time_of(v.flow) for v in e.measured)
    states = [0 if v.measured_us is not None else 2 if v.why else 1 for v in e.variants]
    assert states == sorted(states) and states.count(2) <= 2
    times = [v.time_us for v in e.measured]
    assert times == sorted(times) and e.best is e.variants[0]
    assert len(times) == len(e.variants) - states.count(2)  # the budget was enough for all
    assert set(measure.asked[-BATCH:]) == {v.flow for v in e.variants[:BATCH]}  # once more


def test_the_default_and_the_best_predicted_are_measured_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measure = Measure()
    e = explored(monkeypatch, measure)
    best = [v.flow for v in sorted(e.variants, key=lambda v: v.cycles)]
    first = list(dict.fromkeys([e.default, *best[: module.FIRST]]))
    assert measure.asked[: len(first)] == first
    spread = measure.asked[len(first) : len(first) + 10]
    assert set(spread) - set(best[: module.FIRST + 5])  # five of ten are the next best
    assert len({(f.anchor, f.lanes, bool(f.auxiliary)) for f in spread}) >= 4


def test_nothing_is_measured_without_a_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    measure = Measure()
    e = explored(monkeypatch, measure, budget=0)
    assert measure.asked == [] and e.measured == ()
    cycles = [v.cycles for v in e.variants]
    assert cycles == sorted(cycles)
    assert "0 measured\n" in str(e) and "Fastest (predicted)" in str(e)
    with pytest.raises(sf.OperandError) as refused:
        sf.explore(small(), budget=-1)
    assert str(refused.value) == (
        "explore: budget=-1 is not a number of seconds; 0 (predict only) and more are. Give such "
        "a number."
    )


def test_the_budget_ends_the_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that moves by a second for each dataflow that is measured, and not otherwise."""
    now = [0.0]

    def tick() -> None:
        now[0] += 1.0

    class Clock:
        monotonic = staticmethod(lambda: now[0])

    monkeypatch.setattr(module, "time", Clock)
    measure = Measure(ticks=tick)
    explored(monkeypatch, measure, budget=20.0)
    assert 20 - 2 * BATCH * workers(None) <= now[0] <= 20
    now[0], few = 0.0, Measure(ticks=tick)
    e = explored(monkeypatch, few, budget=1.0)
    assert len(few.asked) == 1 and len(e.measured) == 1


def test_interrupting_keeps_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    e = explored(monkeypatch, Measure(ends=5))
    assert len(e.measured) == 5


def test_the_fastest_is_the_choice_from_then_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SIMDFLOW_TUNING", str(tmp_path / "tuning.jsonl"))
    whole = explored(monkeypatch, Measure())
    assert whole.best is not None and time_of(whole.best.flow) < time_of(whole.space.default)
    assert whole.recorded and "recorded: used from now on" in str(whole)
    kept = [r for r in records.every() if isinstance(r, records.Record)]
    assert [r.flow for r in kept if r.choice] == [whole.best.flow]
    assert {r.flow for r in kept} == {v.flow for v in whole.measured}
    assert small().made(None).flow == whole.best.flow
    slower = replace(whole.measured[1].measurement, us=2 * time_of(whole.best.flow))
    assert not module._remembered(small(), {slower.flow: slower})
    assert small().made(None).flow == whole.best.flow


def test_without_records_nothing_is_said_to_be_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    e = explored(monkeypatch, Measure())
    assert not e.recorded and "recorded" not in str(e)


def test_filters_leave_the_default_out(monkeypatch: pytest.MonkeyPatch) -> None:
    e = explored(monkeypatch, Measure(), space=small().where(anchors="w", auxiliary=False))
    assert e.default is None
    assert {(v.flow.anchor, v.flow.auxiliary) for v in e.variants} == {("w", ())}


def test_a_nest_without_products(monkeypatch: pytest.MonkeyPatch) -> None:
    space = sf.dataflows(relu, target="portable", x=sf.f32[8, 40])
    e = explored(monkeypatch, Measure(), space=space)
    assert e.gmac is None and "of peak" in str(e)
    assert all(e.share(v) is None for v in e.variants)
    assert '"peak":null' in page(e)


def test_measured_in_worker_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PREDICTED", 8)
    space = small().where(anchors="out", lanes="n")
    e = sf.explore(space, budget=2.0)
    assert e.measured
    assert all(v.measured_us and v.measurement and v.measurement.calls for v in e.measured)


@given(st.lists(st.tuples(st.integers(0, 9), st.floats(1, 9)), min_size=3, max_size=30))
def test_rank_correlation_is_spearmans(pairs: list[tuple[int, float]]) -> None:
    stats = pytest.importorskip("scipy.stats", reason="compared with SciPy's")
    a, b = zip(*pairs, strict=True)
    found = rank_correlation(a, b)
    if len(set(a)) == 1 or len(set(b)) == 1:
        assert found is None
    else:
        assert found == pytest.approx(float(stats.spearmanr(a, b).statistic), abs=1e-9)


def test_the_verdict_names_the_part_that_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    e = explored(monkeypatch, Measure(), budget=0)
    base = next(v for v in e.variants if v.plan.dot is not None and not v.plan.in_memory)
    rate = base.plan.target.rate
    cost = replace(
        base.cost, cycles=1000.0, issue=1000.0, traffic=0.0, arithmetic=10.0, far_bytes=0.0,
        ports=(("broadcast", 300.0 * rate("broadcast")), ("dot", 1000.0 * rate("dot")),
               ("load", 200.0 * rate("load")), ("store", 10.0)),
    )  # fmt: skip
    one = replace(base, cost=cost, us=1.0)
    more = (("broadcast", 300.0 * rate("broadcast")), ("load", 1200.0 * rate("load")))
    loads = replace(cost, cycles=1500.0, issue=1500.0, ports=(*cost.ports[1:2], *more))
    other = replace(base, cost=loads, us=1.5, flow=replace(base.flow, block={"k": 3}))
    same = replace(base, cost=cost, us=3.0, flow=replace(base.flow, anchor="w"))
    assert parts(base.plan.target, cost).bound == "products"
    assert parts(base.plan.target, loads).bound == "loads"
    said = verdict((one, other, same), measured=False)
    assert said[0].startswith(
        f"Fastest (predicted): {short(base.flow)}, 1.00 us. By the cost model"
    )
    assert said[1] == (
        f"Runner-up: {short(other.flow)}, 1.50 times the time; it issues 3 times the loads."
    )
    assert said[2] == (
        f"Best with anchor w: {short(same.flow)}, 3.00 times the time; the cost model sees no "
        "reason, it predicts 1.00 times the cycles."
    )


def test_registers_are_drawn_as_planned() -> None:
    types = {"x": sf.u8[1, 10, 10, 64], "w": sf.i8[3, 3, 64, 64]}
    spaces = [small("portable"), sf.dataflows(conv2d, target="portable", **types)]
    for space in spaces:
        for flow in space.sample(60):
            plan = space.plan(flow)
            drawn = held(plan)
            assert sum(n for _, _, n in drawn) == plan.registers
            for name, n in re.findall(r"(\w+) (\d+)", plan.arithmetic):
                assert sum(count for a, _, count in drawn if a == name) == int(n), plan.arithmetic


@given(st.recursive(st.text() | st.booleans() | st.integers(), st.lists))
def test_embedded_data_cannot_end_its_element(value: Any) -> None:
    text = embedded({"given": value, "end": "</script><!--"})
    assert json.loads(text)["given"] == value
    assert not set("<>&\u2028\u2029") & set(text)


def test_the_page_keeps_to_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    e = explored(monkeypatch, Measure(), budget=0)
    text = page(replace(e, name="{{css}}</script>"))
    assert text.count("</script>") == 2 and "{{css}}\\u003c" in text
    assert re.findall(r"https?://[^\s\"']+", text) == ["http://www.w3.org/2000/svg"]
    assert "default-src 'none'" in text
    data = json.loads(re.search(r'id="data">(.*)</script>\n<script>', text)[1])  # type: ignore[index]
    rows = data["variants"]
    assert [r["flow"] for r in rows] == [str(v.flow) for v in e.variants]
    assert data["texts"][rows[0]["stages"]["source"]] == e.made(e.variants[0]).source
    assert sum("asm" in r["stages"] for r in rows) == 5


def test_cells_of_the_heat_map_are_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    e = explored(monkeypatch, Measure())
    anchors, kinds, best = heat_map(e)
    assert set(anchors) == {"out", "x", "w"} and kinds[0] == "none"
    for (anchor, aux), v in best.items():
        names = () if aux == "none" else tuple(aux.split("+"))
        like = [
            u.time_us
            for u in e.measured
            if u.flow.anchor == anchor and tuple(n for n, k in u.flow.auxiliary if k) == names
        ]
        assert v.time_us == min(like)
    own = 5 * 24 + 24 * 32 + 4 * 5 * 32
    assert all(far_bytes(v) == max(own, v.cost.far_bytes) for v in e.variants)


def test_the_figure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for budget in (0.0, 60.0):
        file = tmp_path / f"{budget}.png"
        explored(monkeypatch, Measure(), budget).png(file)
        assert file.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(sf.OperandError) as refused:
        explored(monkeypatch, Measure(), 0).png(tmp_path / "none.png")
    assert str(refused.value) == (
        "explore: png needs matplotlib, which cannot be imported; the extra `plot` has it. Run "
        "pip install 'simdflow[plot]'"
    )
    assert not (tmp_path / "none.png").exists()


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text("before")

    def fails(to: BinaryIO) -> None:
        to.write(b"half")
        raise RuntimeError("stop")

    def full(to: BinaryIO) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(RuntimeError):
        written(file, fails)
    with pytest.raises(sf.OperandError, match="cannot be written: No space left on device; a "):
        written(file, full)
    assert file.read_text() == "before"
    assert [x.name for x in tmp_path.iterdir()] == ["page.html"]
    written(file, lambda to: to.write(b"after"))
    assert file.read_text() == "after" and file.stat().st_mode & 0o444 == 0o444
    with pytest.raises(sf.OperandError, match=r"nowhere/a.html' cannot be written: No such file"):
        written(tmp_path / "nowhere" / "a.html", lambda to: None)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("\tvmovdqu64\t(%rsi), %zmm1", "load"),
        ("\tvpbroadcastd\t-64(%r11,%rax,4), %zmm17", "load"),
        ("\tvmovups\t%ymm0, 32(%rdi)", "store"),
        ("\tvpmovdb\t%zmm3, (%rdi,%rax)", "store"),
        ("\tvpdpbusd\t%zmm13, %zmm12, %zmm3", "arithmetic"),
        ("\tvpdpbusd\t(%rsi){1to16}, %zmm12, %zmm3", "arithmetic-load"),
        ("\tvfmadd231ps\t(%rax,%rbx), %ymm0, %ymm1 # comment (x)", "arithmetic-load"),
        ("\tvmovdqa64\t%zmm1, %zmm2", "move"),
        ("\tmovups\t%xmm1, %xmm2", "move"),
        ("\taddq\t$64, %rsi", "scalar"),
        ("\tmovq\t8(%rsp), %rax", "scalar"),
        ("\tjne\t.LBB0_4", "jump"),
        (".LBB0_4:", "text"),
        ("\t.p2align\t4", "text"),
        ("", "text"),
    ],
)
def test_kinds_of_lines(line: str, expected: str) -> None:
    assert kind(line) == expected


def test_roles_of_registers() -> None:
    loop = [
        "\tvmovdqu64\t(%rsi), %zmm4",
        "\tvpdpbusd\t%zmm4, %zmm9, %zmm0",
        "\tvpdpbusd\t(%rdi), %zmm9, %zmm1",
        "\tvpaddd\t%zmm0, %zmm1, %zmm7",
        "\tvmovdqu64\t%zmm7, (%rdx)",
        "\tjne\t.LBB0_1",
    ]
    assert roles(loop) == {0: "sum", 1: "sum", 4: "loaded", 7: "temporary", 9: "kept"}


def test_short_tells_dataflows_apart() -> None:
    flows = list(itertools.islice(small(), 400))
    assert len({short(f) for f in flows}) == len(flows)


def test_notebooks_see_rankings(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    plain: Callable[..., Any] = module.lower

    def lower(*given: Any) -> Any:
        made.append(given)
        return plain(*given)

    monkeypatch.setattr(module, "lower", lower)
    text = small()._repr_html_()
    assert 1 < text.count("<tr>") <= 25 and len(made) <= 24
    cycles = [float(x) for x in re.findall(r"<tr><td>\d+</td><td>([\d.]+)</td>", text)]
    assert cycles == sorted(cycles) and len(cycles) == len(made)
    e = explored(monkeypatch, Measure())
    text = replace(e, name="<b>")._repr_html_()
    assert text.count("<tr>") == 21 and "&lt;b&gt;" in text and "<b><b>" not in text
