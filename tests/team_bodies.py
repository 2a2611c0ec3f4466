"""Bodies for teams of threads, in LLVM IR: they need a barrier, take their time, or tell who ran.

A body is `void(ptr table, i64 tid, i64 count, ptr team)`. Each function here runs one and gives
back what it wrote; tests and the child processes of tests use them alike.
"""

from __future__ import annotations

import ctypes
from functools import cache

import numpy as np

from simdflow.compiler import native
from simdflow.compiler.assemble import assembled
from simdflow.graph import team as teams

# stencil   table: a, b, items, rounds, barrier, runs. In each round b[i] = 3 * a[i] + a[i + 1]
#           (cyclic), then the two change places: right only if all threads finish a round before
#           any begins the next. runs[tid] counts.
# late      table: microseconds for each thread, then where each thread leaves its number plus one
# halve     table: a number for each thread, which it halves
# shared    table: microseconds alone, microseconds for each of two; runs as above
BODIES = """
declare i32 @usleep(i32)

define void @stencil(ptr %table, i64 %tid, i64 %count, ptr %team) {
entry:
  %b_p = getelementptr i64, ptr %table, i64 1
  %items_p = getelementptr i64, ptr %table, i64 2
  %rounds_p = getelementptr i64, ptr %table, i64 3
  %barrier_p = getelementptr i64, ptr %table, i64 4
  %runs_p = getelementptr i64, ptr %table, i64 5
  %a = load ptr, ptr %table
  %b = load ptr, ptr %b_p
  %items = load i64, ptr %items_p
  %rounds = load i64, ptr %rounds_p
  %barrier = load ptr, ptr %barrier_p
  %runs = load ptr, ptr %runs_p
  %run_p = getelementptr i64, ptr %runs, i64 %tid
  %run = load i64, ptr %run_p
  %run_1 = add i64 %run, 1
  store i64 %run_1, ptr %run_p
  %low = mul i64 %items, %tid
  %begin = udiv i64 %low, %count
  %tid_1 = add i64 %tid, 1
  %high = mul i64 %items, %tid_1
  %end = udiv i64 %high, %count
  br label %round
round:
  %r = phi i64 [ 0, %entry ], [ %r_1, %meet ]
  %from = phi ptr [ %a, %entry ], [ %to, %meet ]
  %to = phi ptr [ %b, %entry ], [ %from, %meet ]
  br label %item
item:
  %i = phi i64 [ %begin, %round ], [ %i_1, %step ]
  %more = icmp ult i64 %i, %end
  br i1 %more, label %step, label %meet
step:
  %i_1 = add i64 %i, 1
  %j = urem i64 %i_1, %items
  %x_p = getelementptr i64, ptr %from, i64 %i
  %y_p = getelementptr i64, ptr %from, i64 %j
  %z_p = getelementptr i64, ptr %to, i64 %i
  %x = load i64, ptr %x_p
  %y = load i64, ptr %y_p
  %x_3 = mul i64 %x, 3
  %z = add i64 %x_3, %y
  store i64 %z, ptr %z_p
  br label %item
meet:
  call void %barrier(ptr %team, i64 %tid, i64 %count)
  %r_1 = add i64 %r, 1
  %again = icmp ult i64 %r_1, %rounds
  br i1 %again, label %round, label %out
out:
  ret void
}

define void @late(ptr %table, i64 %tid, i64 %count, ptr %team) {
  %time_p = getelementptr i64, ptr %table, i64 %tid
  %time = load i64, ptr %time_p
  %time_32 = trunc i64 %time to i32
  call i32 @usleep(i32 %time_32)
  %marks = getelementptr i64, ptr %table, i64 %count
  %mark_p = getelementptr i64, ptr %marks, i64 %tid
  %mark = add i64 %tid, 1
  store i64 %mark, ptr %mark_p
  ret void
}

define void @shared(ptr %table, i64 %tid, i64 %count, ptr %team) {
  %which = sub i64 %count, 1
  %time_p = getelementptr i64, ptr %table, i64 %which
  %time = load i64, ptr %time_p
  %time_32 = trunc i64 %time to i32
  call i32 @usleep(i32 %time_32)
  %runs = getelementptr i64, ptr %table, i64 2
  %run_p = getelementptr i64, ptr %runs, i64 %tid
  %run = load i64, ptr %run_p
  %run_1 = add i64 %run, 1
  store i64 %run_1, ptr %run_p
  ret void
}

define void @halve(ptr %table, i64 %tid, i64 %count, ptr %team) {
  %number_p = getelementptr double, ptr %table, i64 %tid
  %number = load double, ptr %number_p
  %half = fmul double %number, 0.5
  store double %half, ptr %number_p
  ret void
}
"""
# For x86: run, with denormal numbers taken for zero on the calling thread.
FLUSHED = """
declare void @llvm.x86.sse.stmxcsr(ptr)
declare void @llvm.x86.sse.ldmxcsr(ptr)
define void @flushed(ptr %team, ptr %body, ptr %table, ptr %run) {
  %mode_p = alloca i32
  %flush_p = alloca i32
  call void @llvm.x86.sse.stmxcsr(ptr %mode_p)
  %mode = load i32, ptr %mode_p
  %flush = or i32 %mode, 32832
  store i32 %flush, ptr %flush_p
  call void @llvm.x86.sse.ldmxcsr(ptr %flush_p)
  call void %run(ptr %team, ptr %body, ptr %table)
  call void @llvm.x86.sse.ldmxcsr(ptr %mode_p)
  ret void
}
"""


_libraries: dict[str, native.Library] = {}


def bodies() -> native.Library:
    if found := _libraries.get("bodies"):
        return found
    made = native.link(assembled(BODIES, "bodies"), ["stencil", "late", "shared", "halve"])
    return _libraries.setdefault("bodies", made)  # threads may be here at once, all with one


@cache
def flushed() -> native.Library:
    return native.link(assembled(FLUSHED, "flushed"), ["flushed"])


def run(address: int, body: str, table: np.ndarray, entry: int = 0) -> None:
    """`body` on the team at `address` (0: no team) through `entry` (0: simdflow_team_run)."""
    function = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 3)(
        entry or teams.symbols()["simdflow_team_run"]
    )
    function(address, bodies().address(body), table.ctypes.data)


def run_measured(address: int, body: str, table: np.ndarray, state: np.ndarray) -> None:
    """`body` through simdflow_team_run_measured, with its state of eight i64."""
    function = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 4)(
        teams.symbols()["simdflow_team_run_measured"]
    )
    function(address, bodies().address(body), table.ctypes.data, state.ctypes.data)


def stencil(
    address: int,
    items: int,
    rounds: int,
    entry: int = 0,
    barrier: int = 0,
    state: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """What the stencil leaves, and how often each thread number ran; measured if it has a state."""
    a, b = np.arange(items, dtype=np.uint64), np.zeros(items, np.uint64)
    runs = np.zeros(256, np.int64)
    barrier = barrier or teams.symbols()["simdflow_team_barrier"]
    table = np.array(
        [a.ctypes.data, b.ctypes.data, items, rounds, barrier, runs.ctypes.data], np.int64
    )
    if state is None:
        run(address, "stencil", table, entry)
    else:
        run_measured(address, "stencil", table, state)
    return (b if rounds % 2 else a), runs


def stencil_expected(items: int, rounds: int) -> np.ndarray:
    a = np.arange(items, dtype=np.uint64)
    for _ in range(rounds):
        a = 3 * a + np.roll(a, -1)
    return a
