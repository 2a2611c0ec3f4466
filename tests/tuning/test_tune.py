"""Tuning: what it searches, what it records, and what breaking it leaves behind.

The search is tested with made-up times; a run in a child process, that is killed, interrupted, has
a full disk or company, measures truly. No time is compared with another.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tuned_kernels import dense

import simdflow as sf
from simdflow import ops
from simdflow.compiler import records
from simdflow.compiler.records import Record
from simdflow.tuning import search as searching
from simdflow.tuning import tune as tuning_module
from simdflow.tuning.measure import Measurement
from simdflow.tuning.neighbours import neighbours

ROOT = Path(__file__).resolve().parents[2]
TYPES: dict[str, Any] = {"x": sf.u8[6, 24], "w": sf.i8[24, 48]}
RNG = np.random.default_rng(0)
X = RNG.integers(0, 255, (6, 24), dtype=np.uint8)
W = RNG.integers(-128, 127, (24, 48), dtype=np.int8)
RIGHT = X.astype(np.int64) @ W.astype(np.int64)
Time = Callable[[sf.Dataflow, float], float]


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file of records of this test's own."""
    monkeypatch.setenv("SIMDFLOW_TUNING", str(tmp_path / "tuning.jsonl"))
    dense.refresh()
    yield tmp_path / "tuning.jsonl"
    dense.refresh()


def pretend(monkeypatch: pytest.MonkeyPatch, us: Time) -> list[tuple[sf.Dataflow, float]]:
    """Let measuring be `us(flow, seconds)`, the default 10, and take 0.02 s of a clock that nothing
    else moves; what was measured, in order.
    """
    calls: list[tuple[sf.Dataflow, float]] = []
    clock = [0.0]

    def measured(
        space: Any, flows: list[sf.Dataflow], *, seconds: float, default: sf.Dataflow, **_: Any
    ) -> Iterator[Measurement]:
        for flow in (default, *flows):
            if flow != default:
                calls.append((flow, seconds))
            clock[0] += 0.02
            took = 10.0 if flow == default else us(flow, seconds)
            yield Measurement(flow, took, 0.01, 10, "", 10.0)

    monkeypatch.setattr(searching, "measure", measured)
    monkeypatch.setattr(searching, "NEAR_PREDICTED", 8)
    for module in (searching, tuning_module):
        monkeypatch.setattr(module, "monotonic", lambda: clock[0])
    return calls


def kept() -> list[Record]:
    found = list(records.every())
    assert all(isinstance(r, Record) for r in found)
    return [r for r in found if isinstance(r, Record)]


# ---- the search, with made-up times --------------------------------------------------------------


def test_the_search_climbs_and_records_its_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    def us(flow: sf.Dataflow, seconds: float) -> float:
        tile = dict(flow.tile)  # a slope that leads to m=5, n=32
        far = abs(tile.get("m", 1) - 5) + abs(tile.get("n", 1) - 32) / 16
        return 8.0 + 0.3 * far if far else 3.0

    calls = pretend(monkeypatch, us)
    lines: list[str] = []
    tuning = sf.tune(dense, **TYPES, budget=2, progress=lines.append)
    assert (dict(tuning.flow.tile)["m"], dict(tuning.flow.tile)["n"]) == (5, 32)
    assert tuning.recorded
    assert tuning.best.us == 3.0
    assert tuning.default.flow == sf.dataflows(dense, **TYPES).default
    assert len({f for f, _ in calls}) == len(tuning.measurements) - 1
    assert [m.us for m in tuning.measurements] == sorted(m.us for m in tuning.measurements)
    assert lines[-1].endswith("measured, best 3.00 us, x3.33")
    text = str(tuning)
    assert text.startswith(f"tuning dense on {sf.target().name}: {len(tuning.measurements)} dataf")
    assert f"  chosen   3.00 us +1 %, x3.33: {tuning.flow}" in text
    # The process itself uses it from now on, and the results are what they were.
    made = dense.specialize(**TYPES)
    assert made.flow == tuning.flow
    np.testing.assert_array_equal(dense(X, W), RIGHT)
    assert kept()[-1].choice
    assert {r.flow for r in kept()} == {m.flow for m in tuning.measurements}


def test_a_lucky_measurement_is_taken_again_and_does_not_win(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lucky: list[sf.Dataflow] = []

    def us(flow: sf.Dataflow, seconds: float) -> float:
        if not lucky:
            lucky.append(flow)
        return 2.0 if flow == lucky[0] and seconds == searching.SECONDS else 11.0

    calls = pretend(monkeypatch, us)
    tuning = sf.tune(dense, **TYPES, budget=1, progress=False)
    again = [seconds for flow, seconds in calls if flow == lucky[0]]
    assert again == [s * searching.SECONDS for s in (1, 3, 6)]
    assert tuning.flow == tuning.default.flow
    assert dense.specialize(**TYPES).flow == tuning.flow


def test_a_gain_that_is_none_leaves_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, lambda flow, seconds: 9.95)
    tuning = sf.tune(dense, **TYPES, budget=1, progress=False)
    assert tuning.flow == tuning.default.flow


def test_a_second_run_begins_with_the_first_ones_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, lambda flow, seconds: 4.0 if flow.anchor == "w" else 12.0)
    first = sf.tune(dense, **TYPES, budget=1.5, progress=False)
    assert first.flow.anchor == "w"
    calls = pretend(monkeypatch, lambda flow, seconds: 5.0 if flow == first.flow else 12.0)
    second = sf.tune(dense, **TYPES, budget=0.2, progress=False)
    assert calls[0][0] == first.flow
    assert second.default.flow == first.default.flow
    assert second.flow == first.flow


def test_times_of_another_machine_are_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    other = {**records.machine(), "cpu": "other"}

    def measured(
        space: Any, flows: list[sf.Dataflow], *, default: sf.Dataflow, **_: Any
    ) -> Iterator[Measurement]:
        for us, flow in enumerate((default, *flows), 5):
            yield Measurement(flow, 12.0 - us, 0.0, 9, "", 7.0, other)

    monkeypatch.setattr(searching, "measure", measured)
    tuning = sf.tune(dense, **TYPES, budget=0.2, progress=False)
    assert tuning.best.why == "nothing was measured on this machine"
    assert not tuning.recorded
    assert {r.place for r in kept()} == {records.place_of(other)}
    assert [r.choice for r in kept()].count(True) == 1
    assert dense.specialize(**TYPES).tuned is None


def test_neighbours_are_legal_and_one_step_away() -> None:
    space = sf.dataflows(dense, **TYPES)
    flow = space.default
    found = list(neighbours(space, flow))
    assert len(found) == len(set(found)) > 8
    for near in found:
        assert space.plan(near) is not None
        changed = [n for n in ("tile", "unroll", "auxiliary", "block", "order")
                   if getattr(near, n) != getattr(flow, n)]  # fmt: skip
        assert len(changed) == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: sf.tune(dense, budget=0, **TYPES),
            "tune: budget=0 is no time; seconds above 0 are. Give e.g. budget=60",
        ),
        (
            lambda: sf.tune(len),
            "tune: subject=<built-in function len> cannot be tuned; a kernel, a Model and a Graph "
            "can. Trace a function over layers with sf.trace first",
        ),
        (
            lambda: sf.tune(sf.compile(sf.trace(network, sf.f32[1, 6, 6, 3])), batch=4),
            "tune: batch=4 is not taken with a model, which was compiled with its own options. "
            "Tune its graph",
        ),
    ],
)
def test_what_cannot_be_tuned_is_said(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(sf.OperandError) as error:
        call()
    assert str(error.value) == message


# ---- networks ------------------------------------------------------------------------------------

W1 = RNG.normal(0, 1, (3, 3, 3, 8)).astype(np.float32)
W2 = RNG.normal(0, 1, (3, 3, 8, 8)).astype(np.float32)


def network(x: Any) -> Any:
    y = ops.conv2d(x, W1, padding="same", activation="relu")
    y = ops.conv2d(y, W2, padding="same")
    return ops.add(y, y)


def test_a_networks_kernels_are_tuned_and_used_by_every_later_model(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    graph = sf.trace(network, sf.f32[1, 12, 12, 3])
    x = RNG.normal(0, 1, (1, 12, 12, 3)).astype(np.float32)
    before = sf.compile(graph)
    right = before(x)
    pretend(monkeypatch, lambda flow, seconds: 5.0)
    tuning = sf.tune(before, budget=6, progress=False)
    assert len(tuning.tunings) >= 2
    assert sum(tuning.shares) <= 1
    assert str(tuning).startswith(f"tuning {graph.name}: {len(tuning.tunings)} kernels, ")
    for t in tuning.tunings:
        assert t.flow != t.default.flow
    used = {date for _, date in tuning.model.network.choices if date}
    assert len(used) >= len(tuning.tunings)
    assert tuning.model.network.current
    assert not before.network.current
    np.testing.assert_allclose(tuning.model(x), right, rtol=1e-4, atol=1e-4)
    assert sf.compile(graph).network.choices == tuning.model.network.choices
    monkeypatch.setenv("SIMDFLOW_TUNING", "off")
    assert sf.compile(graph).network.choices == before.network.choices


def test_a_model_from_the_cache_is_compiled_again_once_it_is_tuned(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("onnx", reason="simdflow[onnx] is not installed")
    from onnx import TensorProto, helper, numpy_helper, save

    w = numpy_helper.from_array(RNG.normal(0, 1, (8, 3, 3, 3)).astype(np.float32), "w")
    x, y = (
        helper.make_tensor_value_info(n, TensorProto.FLOAT, s)
        for n, s in (("x", [1, 3, 9, 9]), ("y", [1, 8, 7, 7]))
    )
    conv = helper.make_node("Conv", ["x", "w"], ["y"])
    made = helper.make_model(
        helper.make_graph([conv], "g", [x], [y], [w]),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    path = tmp_path / "net.onnx"
    save(made, str(path))
    first = sf.load(path)
    assert sf.load(path).network.entry == first.network.entry  # from the cache
    pretend(monkeypatch, lambda flow, seconds: 5.0)
    sf.tune(first, budget=1, progress=False)
    tuned = sf.load(path)
    assert not first.network.current
    assert tuned.network.current
    assert [date for _, date in tuned.network.choices] != [d for _, d in first.network.choices]
    again = sf.load(path)
    assert again.network.entry == tuned.network.entry
    given = RNG.normal(0, 1, first.inputs[0].type.shape).astype(np.float32)
    np.testing.assert_allclose(again(given), first(given), rtol=1e-4, atol=1e-4)


# ---- runs that are broken, truly measured --------------------------------------------------------

CHILD = """
import sys, resource, warnings
sys.path.insert(0, {tests!r})
import simdflow as sf
from tuned_kernels import dense
{before}
tuning = sf.tune(dense, x=sf.u8[6, 24], w=sf.i8[24, 48], budget={budget})
print(len(tuning.measurements), tuning.interrupted, tuning.recorded, tuning.best.us is not None)
"""


def child(budget: float, before: str = "") -> subprocess.Popen[str]:
    code = CHILD.format(tests=str(ROOT / "tests"), budget=budget, before=before)
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def wait_for_lines(file: Path, n: int, running: subprocess.Popen[str]) -> None:
    while not file.exists() or file.read_bytes().count(b"\n") < n:
        assert running.poll() is None, running.communicate()
        time.sleep(0.02)


def test_kill_9_loses_no_record_and_the_next_run_goes_on(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = child(40)
    wait_for_lines(file, 2, running)
    running.kill()
    running.communicate()
    before = file.read_bytes()
    assert len(kept()) >= 2
    file.write_bytes(before + b'{"key":"' + b"0" * 30)  # as if it had died within a line
    pretend(monkeypatch, lambda flow, seconds: 5.0)
    tuning = sf.tune(dense, **TYPES, budget=0.2, progress=False)
    assert tuning.recorded
    assert file.read_bytes().startswith(before)
    found = list(records.every())
    assert [isinstance(r, Record) for r in found].count(False) == 1
    assert dense.specialize(**TYPES).flow == tuning.flow != tuning.default.flow
    np.testing.assert_array_equal(dense(X, W), RIGHT)


def test_ctrl_c_keeps_what_was_measured(file: Path) -> None:
    running = child(40)
    wait_for_lines(file, 2, running)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 0, err
    count, interrupted, recorded, timed = out.split()
    assert (interrupted, recorded, timed) == ("True", "True", "True")
    assert "measured, best" in err
    assert "Traceback" not in err
    measured = {json.dumps(r.line().decode()) for r in kept() if not r.choice}
    assert int(count) <= len(measured)
    assert [r.choice for r in kept()][-1]


def test_two_at_once_and_one_with_a_full_disk_lose_nothing(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, lambda flow, seconds: 5.0)
    sf.tune(dense, **TYPES, budget=0.1, progress=False)
    before = file.read_bytes()
    full = f"resource.setrlimit(resource.RLIMIT_FSIZE, ({len(before)}, {len(before)}))"
    runs = [child(0.1), child(0.1), child(0.1, full)]
    for running, recorded in zip(runs, ("True", "True", "False"), strict=True):
        out, err = running.communicate(timeout=200)
        assert running.returncode == 0, err
        assert out.split()[1:] == ["False", recorded, "True"]
        assert err.count("TuningWarning: tuning: SIMDFLOW_TUNING=") == (recorded == "False")
    assert file.read_bytes().startswith(before)
    assert len({r.session for r in kept()}) == 3
    assert [r.choice for r in kept()].count(True) >= 3


def test_a_dask_cluster_measures(file: Path, tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed", reason="simdflow[dask] is not installed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None,
            local_directory=str(tmp_path), host="127.0.0.1",
        ) as cluster,
        distributed.Client(cluster) as client,
        client.get_executor() as executor,
    ):  # fmt: skip
        tuning = sf.tune(dense, **TYPES, budget=0.5, executor=executor, progress=False)
    assert tuning.recorded
    assert tuning.default.us is not None
    assert len(tuning.measurements) >= 2
    assert {r.place for r in kept()} == {records.here()}
    assert dense.specialize(**TYPES).flow == tuning.flow
