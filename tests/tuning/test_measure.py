"""Measuring in worker processes: candidates that crash, hang or are wrong; whose machine it was.

The bad ones are made bad by a module that each worker imports at its start; which dataflow does
what is told by its tile. No time is compared with another.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tuned_kernels import dense, dense_f32

import simdflow as sf
from simdflow.compiler.records import machine
from simdflow.tuning import measure as measuring
from simdflow.tuning.measure import measure
from simdflow.tuning.operands import operands
from simdflow.tuning.worker import difference, summary, timed

SPACE = sf.dataflows(dense, x=sf.u8[6, 24], w=sf.i8[24, 16])
BASE = sf.Dataflow(tile={"n": 16}, lanes="n", group="k")
BAD = """
import os, signal
from simdflow.tuning import worker
real = worker._bound

def bound(made, given):
    run, out = real(made, given)
    flow = made.request.flow
    kind, calls = dict(flow.tile).get("m", 1) if flow.lanes == "n" else 0, []

    def bad():
        calls.append(1)
        if kind == 2:
            os.kill(os.getpid(), signal.SIGSEGV)
        if kind == 3:
            os.kill(os.getpid(), signal.SIGILL)
        if kind == 4:
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            while True:
                pass
        if kind == 6 and len(calls) > 2:
            os.abort()
        run()
        if kind == 5:
            out[1, 2] += 1
    return bad if kind > 1 else run, out

worker._bound = bound
"""


def sabotage(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every worker run `code` before its task."""
    (tmp_path / "sitecustomize.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))


def test_bad_candidates_are_measurements_with_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sabotage(BAD, tmp_path, monkeypatch)
    flows = {m: replace(BASE, tile=(("m", m), ("n", 16))) for m in range(1, 7)}
    impossible = replace(BASE, auxiliary=(("q", 1),))
    got = list(measure(SPACE, [*flows.values(), impossible], seconds=0.0, default=BASE))
    found = {m.flow: m for m in got}
    assert len(got) == len(found) == 8
    assert got[0].flow == BASE
    for m in (found[BASE], found[flows[1]]):
        assert m.why == ""
        assert m.us is not None and m.us > 0
        assert m.calls > 1
        assert m.reference is not None and m.gain == m.reference / m.us
    whys = {m: found[flow].why for m, flow in flows.items() if m > 1}
    assert whys == {
        2: "the worker was killed by SIGSEGV",
        3: "the worker was killed by SIGILL",
        4: "no answer in 20 s",
        5: whys[5],
        6: "the worker was killed by SIGABRT",
    }
    assert whys[5].startswith(
        "wrong result: 1 of 96 values differ from the default dataflow's, the first at [1, 2]: "
    )
    assert found[impossible].why.startswith("DataflowError: dense: auxiliary='q' is not an operand")
    assert all(found[f].us is None for m, f in flows.items() if m > 1)
    assert measuring._workers == {}


def test_a_default_that_dies_is_a_reason_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sabotage(BAD, tmp_path, monkeypatch)
    dies = replace(BASE, tile=(("m", 2), ("n", 16)))
    found = list(measure(SPACE, [BASE], seconds=0.0, default=dies))
    assert [m.flow for m in found] == [dies, BASE]
    assert found[0].why == "the worker was killed by SIGSEGV"
    assert found[1].why == (
        "the default dataflow cannot be measured: the worker was killed by SIGSEGV"
    )


def test_another_machine_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = "from simdflow.tuning import worker as w; m = dict(w.machine()); m['cpu'] = 'other'\n"
    sabotage(f"{other}w.machine = lambda: m\n", tmp_path, monkeypatch)
    with ThreadPoolExecutor(1) as executor:
        found = list(measure(SPACE, [], seconds=0.0, executor=executor))
    assert [m.about for m in found] == [{**machine(), "cpu": "other"}]


def test_a_target_made_by_hand_is_refused() -> None:
    odd = replace(sf.target("portable"), budget=5)
    space = sf.dataflows(dense, x=sf.u8[6, 24], w=sf.i8[24, 16], target=odd)
    with pytest.raises(sf.TargetError) as error:
        list(measure(space, []))
    assert str(error.value) == (
        "dense: target='portable' was made by hand and has no name that a worker process knows; "
        "avx512, avx2 and portable are measured. Use one of them."
    )


def test_operands_are_random_over_their_types_and_as_a_call_has_them() -> None:
    nest = dense.specialize(
        x=sf.u8.range(3, 9)[7, 24], w=sf.pack(np.ones((24, 40), "i1")).type
    ).nest
    found = operands(nest)
    assert found["x"].min() == 3
    assert found["x"].max() == 9
    assert isinstance(found["w"], sf.PackedOperand)
    assert len(np.unique(found["w"].array)) > 200
    again = operands(nest)
    np.testing.assert_array_equal(found["x"], again["x"])
    bordered = sf.u8[4, 24].with_border(((1, 1), (0, 0)), 7)
    x = operands(dense.specialize(x=bordered, w=sf.i8[24, 16]).nest)["x"]
    assert x.shape == (6, 24)
    assert (x[[0, -1]] == 7).all()
    # Sums of small whole numbers are exact, in whatever order they are added.
    space = sf.dataflows(dense_f32, x=sf.f32[4, 300], w=sf.f32[300, 16])
    given = operands(space.nest)
    right = given["x"].astype(np.float64) @ given["w"].astype(np.float64)
    for flow in space.sample(3):
        np.testing.assert_array_equal(space.made(flow)(given["x"], given["w"]), right)


def test_differences_are_found_and_rounding_is_none() -> None:
    a = np.array([1.0, 1e4, np.nan, np.inf], np.float32)
    assert difference(a.copy(), a) == ""
    assert difference(a + np.float32(0.05), a) == ""
    for at, value in ((0, 1.2), (2, 0.0), (3, -np.inf), (1, np.nan), (3, np.nan)):
        b = a.copy()
        b[at] = value
        assert "1 of 4 values" in difference(b, a)
        assert f"the first at [{at}]" in difference(b, a)
    assert "2 of 2" in difference(np.array([1, 2]), np.array([2, 3]))


def test_turns_are_interleaved_and_slow_ones_are_dropped() -> None:
    order: list[int] = []

    def call(i: int) -> None:
        sum(range((1000, 1000, 20_000)[i]))
        order.append(i)

    turns: list[int] = []
    found = timed(
        {i: lambda i=i: call(i) for i in range(3)},  # type: ignore[misc]
        0.0,
        lambda: turns.append(len(order)),
    )
    assert set(found) == {0, 1, 2}
    assert found[2][2] < found[0][2]  # it had one round only
    first = [order[at] for at in turns if at < len(order)]
    assert first[3:6] == [0, 1, 2]
    assert set(first[7:]) == {0, 1}
    assert summary([3000, 2000, 4000]) == (2.0, 0.5, 3)
