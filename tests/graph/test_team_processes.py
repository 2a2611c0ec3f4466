"""Teams of threads where processes fork, end, have one core or no memory: a child process each."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
FORK = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def in_child(code: str, seconds: float = 60) -> str:
    """What `code` prints in a process of its own; a hang is a failure."""
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", code],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


FORKING = """
import os
from team_bodies import stencil, stencil_expected
from simdflow.graph import team as teams
closed = teams.new_team(2)
stencil(closed.address, 10, 2)
closed.close()
team = teams.new_team(3)
expected = stencil_expected(300, 11)
def good():
    found, runs = stencil(team.address, 300, 11)
    alone = stencil(closed.address, 300, 11)[1]
    return (found == expected).all() and runs[:4].tolist() == [1, 1, 1, 0] and alone[1] == 0
assert good()
"""


@FORK
def test_after_fork() -> None:
    code = """
for depth in range(20):
    child = os.fork()
    if not child:
        assert good() and good()
        grandchild = os.fork()
        if not grandchild:
            os._exit(0 if good() else 1)
        assert os.waitpid(grandchild, 0)[1] == 0 and good()
        raise SystemExit(0)  # the end of an interpreter that has forked and has workers
    assert good() and os.waitpid(child, 0)[1] == 0
print("fine")
"""
    assert in_child(FORKING + code) == "fine\n"


@FORK
def test_fork_while_threads_are_running() -> None:
    code = """
import threading
stop = False
def work():
    while not stop:
        good()
threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads:
    thread.start()
for _ in range(30):
    child = os.fork()
    if not child:
        os._exit(0 if good() and good() else 1)
    assert os.waitpid(child, 0)[1] == 0
stop = True
for thread in threads:
    thread.join()
print("fine")
"""
    assert in_child(FORKING + code) == "fine\n"


@FORK
def test_in_the_processes_of_a_pool() -> None:
    code = """
import multiprocessing
def check(_):
    return bool(good())
with multiprocessing.get_context("fork").Pool(3) as pool:
    print(pool.map(check, range(30)) == [True] * 30, good())
"""
    assert in_child(FORKING + code) == "True True\n"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs affinity")
def test_on_one_core() -> None:
    code = """
import os, threading
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from team_bodies import stencil, stencil_expected
from simdflow.graph import team as teams
print(teams.available(), teams.team(8).threads)
team = teams.new_team(4)
expected = stencil_expected(300, 11)
def work():
    for _ in range(50):
        found, runs = stencil(team.address, 300, 11)
        assert (found == expected).all()
        right.append(runs[0])
right = []
work()
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(sum(right))
"""
    assert in_child(code) == "1 1\n450\n"


def test_the_first_run_is_that_of_several_threads() -> None:
    code = """
import sys, threading
from team_bodies import bodies, stencil, stencil_expected
from simdflow.graph import team as teams
sys.setswitchinterval(1e-6)
bodies()
expected, barrier, right = stencil_expected(300, 11), threading.Barrier(6), []
def work():
    barrier.wait()
    entry = teams.symbols()
    for _ in range(50):
        found, _ = stencil(
            teams.team(2).address, 300, 11,
            entry["simdflow_team_run"], entry["simdflow_team_barrier"],
        )
        right.append(bool((found == expected).all()))
threads = [threading.Thread(target=work) for _ in range(6)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(right == [True] * 300)
"""
    assert in_child(code) == "True\n"


@pytest.mark.parametrize("ending", ["", "os._exit(0)", "raise SystemExit(0)", "del team"])
def test_the_process_ends_while_workers_spin(ending: str) -> None:
    code = f"""
import os
from team_bodies import stencil
from simdflow.graph import team as teams
kept = teams.team(2)
team = teams.new_team(4)
stencil(kept.address, 100, 3)
stencil(team.address, 100, 3)
{ending}
"""
    in_child(code)


def test_the_process_ends_while_a_daemon_thread_runs() -> None:
    code = """
import threading, time
from team_bodies import stencil
from simdflow.graph import team as teams
team = teams.new_team(2)
def work():
    while True:
        stencil(team.address, 100, 3)
threading.Thread(target=work, daemon=True).start()
time.sleep(0.2)
print("fine", flush=True)
"""
    assert in_child(code) == "fine\n"


@LINUX
def test_a_worker_that_cannot_be_made_is_not_missed() -> None:
    code = """
import re, resource
from team_bodies import stencil, stencil_expected
from simdflow.graph import team as teams
few, many = teams.new_team(2), teams.new_team(200)
found, runs = stencil(few.address, 100, 5)
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + 20 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for _ in range(3):
    found, runs = stencil(many.address, 1000, 5)
    assert (found == stencil_expected(1000, 5)).all()
print(1 <= many.live < 30, runs.sum() == many.live)
many.close()
"""
    assert in_child(code) == "True True\n"
