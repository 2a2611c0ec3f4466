"""Teams of threads: the same results for any number, who waits for whom, and how many there are."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from team_bodies import bodies, flushed, run, run_measured, stencil, stencil_expected

from simdflow.compiler.assemble import assembled
from simdflow.compiler.native import link
from simdflow.dsl.errors import ModelError
from simdflow.graph import team as teams
from simdflow.graph.team_ir import team_ir
from simdflow.graph.wait_ir import Platform, this_platform

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture
def pair() -> Iterator[teams.Team]:
    team = teams.new_team(2)
    yield team
    team.close()


def native_threads() -> int:
    return len(os.listdir("/proc/self/task"))


@pytest.mark.parametrize("threads", [1, 2, 3, 4, 7])
def test_any_number_of_threads_gives_the_same(threads: int) -> None:
    team = teams.new_team(threads)
    for items, rounds in ((1000, 1), (1000, 20), (3, 9), (1, 2)):
        found, runs = stencil(team.address, items, rounds)
        assert (found == stencil_expected(items, rounds)).all()
        assert runs[:threads].tolist() == [1] * threads and not runs[threads:].any()
    assert team.live == threads
    team.close()


def test_many_runs_and_barriers(pair: teams.Team) -> None:
    expected = stencil_expected(64, 50)
    assert all((stencil(pair.address, 64, 50)[0] == expected).all() for _ in range(2000))


def test_no_team_is_the_caller_alone() -> None:
    found, runs = stencil(0, 100, 5)
    assert (found == stencil_expected(100, 5)).all()
    assert runs[0] == 1 and runs.sum() == 1


@pytest.mark.parametrize(
    "platform_", [replace(this_platform(), futex=None), Platform("pdp11", None)], ids=str
)
def test_without_futex_or_pause(platform_: Platform) -> None:
    symbols = ("simdflow_team_run", "simdflow_team_barrier", "simdflow_team_stop")
    library = link(assembled(team_ir(platform_, 1, 2), "team"), symbols)
    entry, barrier, stop = map(library.address, symbols)
    team = teams.new_team(3)
    for _ in range(50):
        found, runs = stencil(team.address, 500, 30, entry, barrier)
        assert (found == stencil_expected(500, 30)).all()
        assert runs[:3].tolist() == [1, 1, 1]
        time.sleep(0.001)  # let them sleep
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(stop)(team.address)
    assert team.live == 1


def test_the_text_for_another_processor_is_its_code() -> None:
    import llvmlite.binding as llvm

    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    machine = llvm.Target.from_triple("aarch64-unknown-linux-gnu").create_target_machine()
    on = Platform("aarch64", 98)
    text = machine.emit_assembly(llvm.parse_assembly(team_ir(on, 10, 200)))
    assert "isb" in text and "fpcr" in text.lower()


@pytest.mark.parametrize(("slow", "microseconds"), [(0, 20000), (1, 20000), (1, 100), (2, 3000)])
def test_a_thread_that_takes_long_is_waited_for(slow: int, microseconds: int) -> None:
    team = teams.new_team(3)
    for _ in range(3):
        table = np.zeros(6, np.int64)
        table[slow] = microseconds
        before = time.perf_counter()
        run(team.address, "late", table)
        assert time.perf_counter() - before >= microseconds * 1e-6
        assert table[3:].tolist() == [1, 2, 3]
    team.close()


def test_callers_at_once(pair: teams.Team) -> None:
    """Who finds the team busy runs alone."""
    expected = stencil_expected(5000, 3)
    wrong: list[int] = []
    done = np.zeros(256, np.int64)

    def call() -> None:
        for i in range(100):
            found, runs = stencil(pair.address, 5000, 3)
            done[:] += runs
            if not (found == expected).all():
                wrong.append(i)

    callers = [threading.Thread(target=call) for _ in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert wrong == []
    assert 0 < done[1] <= 800


def test_a_busy_team_leaves_the_second_caller_alone(pair: teams.Team) -> None:
    table = np.array([0, 500_000, 0, 0], np.int64)
    first = threading.Thread(target=run, args=(pair.address, "late", table))
    first.start()
    time.sleep(0.05)
    found, runs = stencil(pair.address, 100, 3)
    assert first.is_alive()
    assert (found == stencil_expected(100, 3)).all()
    assert runs[:2].tolist() == [1, 0]
    first.join()
    assert table[2:].tolist() == [1, 2]


def measured(pair: teams.Team, alone_us: int, together_us: int, calls: int) -> list[int]:
    """How many threads ran in each call of a body that takes so long."""
    state, table, threads = np.zeros(8, np.int64), np.array([alone_us, together_us, 0, 0]), []
    for _ in range(calls):
        table[2:] = 0
        run_measured(pair.address, "shared", table, state)
        threads.append(int(table[2:].sum()))
    return threads


def test_a_measured_run_has_the_team_where_that_is_faster(pair: teams.Team) -> None:
    threads = measured(pair, 4000, 1000, 30)
    assert threads[:4] == [1, 1, 1, 1]
    assert threads.count(2) >= 5


def test_a_measured_run_is_alone_where_that_is_faster(pair: teams.Team) -> None:
    threads = measured(pair, 500, 5000, 120)
    assert threads[:4] == [1, 1, 1, 1]
    assert 4 <= threads.count(2) <= 16  # four at a time; 8, 16, 32, 64 runs apart


def test_a_short_measured_run_does_not_wait_for_sleepers(pair: teams.Team) -> None:
    expected, state = stencil_expected(5000, 3), np.zeros(8, np.int64)
    for _ in range(4):
        stencil(pair.address, 5000, 3, state=state)
    for _ in range(3):
        time.sleep(0.05)
        found, runs = stencil(pair.address, 5000, 3, state=state)
        assert runs[:2].tolist() == [1, 0]  # and nobody is woken for one run
        assert (found == expected).all()
    together, end = 0, time.monotonic() + 30
    while together < 5 and time.monotonic() < end:
        found, runs = stencil(pair.address, 5000, 3, state=state)
        assert runs[0] == 1
        together += int(runs[1])
        assert (found == expected).all()
    assert together == 5  # runs that follow closely have a worker
    found, runs = stencil(pair.address, 100, 3)
    assert runs[:2].tolist() == [1, 1]


@LINUX
def test_idle_workers_use_no_time(pair: teams.Team) -> None:
    used = []
    for _ in range(10):
        stencil(pair.address, 100, 3)
        time.sleep(0.001)
        before = time.process_time_ns()
        time.sleep(0.1)
        used.append(time.process_time_ns() - before)
    assert min(used) < 200_000  # of 100 ms
    before = time.process_time_ns()
    for _ in range(10):
        stencil(pair.address, 100, 3)
        time.sleep(0.01)
    assert time.process_time_ns() - before < 50_000_000


@LINUX
def test_workers_take_no_signals(pair: teams.Team) -> None:
    before = set(os.listdir("/proc/self/task"))
    stencil(pair.address, 10, 1)
    (worker,) = set(os.listdir("/proc/self/task")) - before
    status = Path(f"/proc/self/task/{worker}/status").read_text().splitlines()
    (blocked,) = (int(line.split()[1], 16) for line in status if line.startswith("SigBlk:"))
    assert all(blocked >> (number - 1) & 1 for number in (1, 2, 3, 10, 12, 14, 15))
    assert not Path("/proc/self/status").read_text().count("SigBlk:\tfff")


@LINUX
def test_teams_come_and_go() -> None:
    before = native_threads()
    expected = stencil_expected(50, 4)
    for size in (2, 3, 5) * 40:
        team = teams.new_team(size)
        assert (stencil(team.address, 50, 4)[0] == expected).all()
        assert native_threads() == before + size - 1
        team.close()
        found, runs = stencil(team.address, 50, 4)
        assert (found == expected).all() and runs[:2].tolist() == [1, 0]
        team.close()
    assert native_threads() == before


@LINUX
def test_a_team_that_nobody_has_is_ended() -> None:
    before = native_threads()
    team = teams.new_team(3)
    stencil(team.address, 50, 4)
    assert native_threads() == before + 2
    del team
    gc.collect()
    assert native_threads() == before


@pytest.mark.skipif(platform.machine() != "x86_64", reason="sets x86's floating-point mode")
def test_workers_have_the_callers_floating_point_mode() -> None:
    team = teams.new_team(4)
    tiny = np.full(4, 5e-310)
    run(team.address, "halve", tiny)
    assert (tiny == 2.5e-310).all()
    four = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 4)(flushed().address("flushed"))
    entry = teams.symbols()["simdflow_team_run"]
    four(team.address, bodies().address("halve"), tiny.ctypes.data, entry)
    assert (tiny == 0).all()
    tiny[:] = 5e-310
    run(team.address, "halve", tiny)
    assert (tiny == 2.5e-310).all()
    team.close()


def test_the_shared_team() -> None:
    assert teams.team(1).threads == 1
    assert teams.team(10).threads == teams.team(256).threads == min(10, teams.available())
    assert teams.team(10) is teams.team(10)


@pytest.mark.parametrize("threads", [0, -1, 257, 1.5, "2", None])
def test_numbers_that_are_none(threads: Any) -> None:
    for make in (teams.team, teams.new_team):
        with pytest.raises(ModelError, match=r"threads=.*1\.\.256"):
            make(threads)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 256),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, 256),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "300000 100000\n"}, 3),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/cpu.max": "300000 100000\n",
                "sys/fs/cgroup/a/b/cpu.max": "200000 100000\n",
            },
            2,
        ),
        (
            {
                "proc/self/cgroup": "3:cpuset:/x\n1:cpu,cpuacct:/x\n",
                "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_quota_us": "50000\n",
                "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_period_us": "100000\n",
            },
            0.5,
        ),
        (
            {
                "proc/self/cgroup": "1:cpu:/\n0::/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            256,
        ),
        ({"proc/self/cgroup": "0::/gone\n", "sys/fs/cgroup/cpu.max": "broken"}, 256),
        ({"proc/self/cgroup": "no such line"}, 256),
        ({"proc/self/cgroup": "0::/../../etc\n", "sys/fs/cgroup/cpu.max": "100000 50000"}, 2),
    ],
)
def test_quota(files: dict[str, str], expected: float, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert teams.quota(tmp_path) == expected


def test_available_is_at_most_what_the_quota_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teams, "quota", lambda: 0.4)
    assert teams.available() == 1
    monkeypatch.setattr(teams, "quota", lambda: 256.0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(300)), raising=False)
    assert teams.available() == 256
