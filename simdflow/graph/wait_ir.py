"""Turns what a platform offers (futex, pause) into LLVM IR of one thread waiting for another.

Every wait is on a 32-bit word that only grows. Bit 0 says that a waiter sleeps; the number above it
is what is waited for. A waiter sets the bit with a compare-exchange before it sleeps on that very
value; whoever makes the word grow exchanges it, and wakes if the bit was set. So no wake-up is lost
and nobody enters the kernel while everybody is awake. What is waited for is team_ir.py's business.
"""

import platform
import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Platform:
    """What the text depends on.

    machine    "x86_64", "aarch64", or another, which then has no pause and no floating-point mode
    futex      number of the system call; None: a mutex and a condition variable do its work
    monotonic  CLOCK_MONOTONIC
    setmask    SIG_SETMASK
    """

    machine: str
    futex: int | None
    monotonic: int = 1
    setmask: int = 2


def this_platform() -> Platform:
    """The platform of this process."""
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(
        platform.machine().lower(), platform.machine().lower()
    )
    if sys.platform == "darwin":
        return Platform(machine, None, monotonic=6, setmask=3)
    numbers = {"x86_64": 202, "aarch64": 98, "riscv64": 98} if sys.platform == "linux" else {}
    return Platform(machine, numbers.get(machine))


def wait_ir(on: Platform, spin_us: int, yield_us: int, mutex: int, condition: int) -> str:
    """IR of `@await(team, word, goal)`, `@signal(team, word, value)` and what they need.

    A waiter spins for `spin_us`, then gives its time slice away between looks until `yield_us`
    have passed, then sleeps. `mutex` and `condition` are offsets in the team's memory, 128 bytes
    each, for platforms without a futex.
    """
    sleeping = FUTEX if on.futex is not None else CONDITION_VARIABLE
    return filled(
        MACHINES.get(on.machine, OTHER) + sleeping + WAITING,
        SPIN_NS=1000 * spin_us,
        YIELD_NS=1000 * yield_us,
        FUTEX=on.futex or 0,
        MONOTONIC=on.monotonic,
        MUTEX=mutex,
        CONDITION=condition,
    )


def filled(text: str, **values: int) -> str:
    """`text` with each `<NAME>` replaced; IR is full of braces and percent signs."""
    for name, value in values.items():
        text = text.replace(f"<{name}>", str(value))
    return text


# @pause tells the core that it spins. The floating-point mode (flush to zero, rounding) is the
# calling thread's: a worker takes it over, or its results would not be the caller's.
X86 = """
declare void @llvm.x86.sse2.pause()
declare void @llvm.x86.sse.stmxcsr(ptr)
declare void @llvm.x86.sse.ldmxcsr(ptr)
define internal void @pause() {
  call void @llvm.x86.sse2.pause()
  ret void
}
define internal void @keep_mode(ptr %at) {
  call void @llvm.x86.sse.stmxcsr(ptr %at)
  ret void
}
define internal void @take_mode(ptr %at) {
  call void @llvm.x86.sse.ldmxcsr(ptr %at)
  ret void
}
"""
AARCH64 = """
declare void @llvm.aarch64.isb(i32)
declare i64 @llvm.aarch64.get.fpcr()
declare void @llvm.aarch64.set.fpcr(i64)
define internal void @pause() {
  call void @llvm.aarch64.isb(i32 15)
  ret void
}
define internal void @keep_mode(ptr %at) {
  %mode = call i64 @llvm.aarch64.get.fpcr()
  store i64 %mode, ptr %at
  ret void
}
define internal void @take_mode(ptr %at) {
  %mode = load i64, ptr %at
  call void @llvm.aarch64.set.fpcr(i64 %mode)
  ret void
}
"""
OTHER = """
define internal void @pause() {
  ret void
}
define internal void @keep_mode(ptr %at) {
  ret void
}
define internal void @take_mode(ptr %at) {
  ret void
}
"""
MACHINES = {"x86_64": X86, "aarch64": AARCH64}

# @nap returns when the word is no longer `value`, or for no reason; @wake wakes all who nap on it.
FUTEX = """
declare i64 @syscall(i64, ...)
define internal void @nap(ptr %team, ptr %word, i32 %value) {
  call i64 (i64, ...) @syscall(i64 <FUTEX>, ptr %word, i64 128, i32 %value, ptr null)
  ret void
}
define internal void @wake(ptr %team, ptr %word) {
  call i64 (i64, ...) @syscall(i64 <FUTEX>, ptr %word, i64 129, i64 2147483647)
  ret void
}
define internal void @prepare(ptr %team) {
  ret void
}
"""
CONDITION_VARIABLE = """
declare i32 @pthread_mutex_init(ptr, ptr)
declare i32 @pthread_mutex_lock(ptr)
declare i32 @pthread_mutex_unlock(ptr)
declare i32 @pthread_cond_init(ptr, ptr)
declare i32 @pthread_cond_wait(ptr, ptr)
declare i32 @pthread_cond_broadcast(ptr)
define internal void @nap(ptr %team, ptr %word, i32 %value) {
  %mutex = getelementptr i8, ptr %team, i64 <MUTEX>
  %condition = getelementptr i8, ptr %team, i64 <CONDITION>
  call i32 @pthread_mutex_lock(ptr %mutex)
  br label %look
look:
  %now = load atomic i32, ptr %word acquire, align 4
  %same = icmp eq i32 %now, %value
  br i1 %same, label %rest, label %out
rest:
  call i32 @pthread_cond_wait(ptr %condition, ptr %mutex)
  br label %look
out:
  call i32 @pthread_mutex_unlock(ptr %mutex)
  ret void
}
define internal void @wake(ptr %team, ptr %word) {
  %mutex = getelementptr i8, ptr %team, i64 <MUTEX>
  %condition = getelementptr i8, ptr %team, i64 <CONDITION>
  call i32 @pthread_mutex_lock(ptr %mutex)
  call i32 @pthread_cond_broadcast(ptr %condition)
  call i32 @pthread_mutex_unlock(ptr %mutex)
  ret void
}
define internal void @prepare(ptr %team) {
  %mutex = getelementptr i8, ptr %team, i64 <MUTEX>
  %condition = getelementptr i8, ptr %team, i64 <CONDITION>
  call i32 @pthread_mutex_init(ptr %mutex, ptr null)
  call i32 @pthread_cond_init(ptr %condition, ptr null)
  ret void
}
"""

WAITING = """
declare i32 @sched_yield()
declare i32 @clock_gettime(i32, ptr)

define internal i64 @clock() {
  %time = alloca [2 x i64]
  call i32 @clock_gettime(i32 <MONOTONIC>, ptr %time)
  %seconds = load i64, ptr %time
  %nanoseconds_p = getelementptr i64, ptr %time, i64 1
  %nanoseconds = load i64, ptr %nanoseconds_p
  %whole = mul i64 %seconds, 1000000000
  %sum = add i64 %whole, %nanoseconds
  ret i64 %sum
}

; Return when the word has reached the goal. The difference is signed, so the word may wrap.
define internal void @await(ptr %team, ptr %word, i32 %goal) {
entry:
  br label %round
round:
  %start = phi i64 [ 0, %entry ], [ %begun, %timed ], [ %begun, %yield ]
  br label %look
look:
  %i = phi i32 [ 0, %round ], [ %i_next, %again ]
  %value = load atomic i32, ptr %word acquire, align 4
  %ahead = sub i32 %value, %goal
  %there = icmp sge i32 %ahead, 0
  br i1 %there, label %done, label %again
again:
  call void @pause()
  %i_next = add i32 %i, 1
  %enough = icmp eq i32 %i_next, 64
  br i1 %enough, label %timed, label %look
timed:
  %now = call i64 @clock()
  %first = icmp eq i64 %start, 0
  %begun = select i1 %first, i64 %now, i64 %start
  %waited = sub i64 %now, %begun
  %long = icmp ugt i64 %waited, <SPIN_NS>
  br i1 %long, label %slow, label %round
slow:
  %longer = icmp ugt i64 %waited, <YIELD_NS>
  br i1 %longer, label %sleep, label %yield
yield:
  call i32 @sched_yield()
  br label %round
sleep:
  %seen = load atomic i32, ptr %word acquire, align 4
  %left = sub i32 %seen, %goal
  %reached = icmp sge i32 %left, 0
  br i1 %reached, label %done, label %mark
mark:
  %marked = or i32 %seen, 1
  %pair = cmpxchg ptr %word, i32 %seen, i32 %marked acq_rel acquire
  %unchanged = extractvalue {i32, i1} %pair, 1
  br i1 %unchanged, label %nap, label %sleep
nap:
  call void @nap(ptr %team, ptr %word, i32 %marked)
  br label %sleep
done:
  ret void
}

; Let the word reach `value`; what this thread wrote before is seen by who awaited it.
define internal void @signal(ptr %team, ptr %word, i32 %value) {
  %old = atomicrmw xchg ptr %word, i32 %value acq_rel
  %bit = and i32 %old, 1
  %sleeper = icmp ne i32 %bit, 0
  br i1 %sleeper, label %wake, label %done
wake:
  call void @wake(ptr %team, ptr %word)
  br label %done
done:
  ret void
}
"""
