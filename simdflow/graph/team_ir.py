"""Turns the layout of a team's memory into LLVM IR: run a body on its threads, barrier, stop.

The text holds no address, so its object code can be cached. What the caller does is in run_ir.py,
how threads wait for each other in wait_ir.py; who makes the memory, and when, is in team.py.
"""

from .run_ir import MEASURED, RUN
from .wait_ir import Platform, filled, wait_ir

LINE = 128  # bytes: two cache lines, because prefetchers fetch them in pairs
MAX_THREADS = 256
ROUNDS = 8  # of the barrier: log2(MAX_THREADS)
STACK = 1 << 20  # bytes of a worker's stack: address space, of which the pages touched are used

# A team's memory: one word or group of words that are written together for each LINE.
#   SIZE, LIVE         threads wanted; threads there are (0: not started yet), the caller included
#   GENERATION ...     grows by 2 for each run; the body, the table and the floating-point mode
#   LOCK, LAST         1 while a caller is inside; when one last ran alone as the workers slept
#   ENDED              grows by 2 for each worker that ends a run, so in the end it is GENERATION
#                      times the workers. The caller only reads it: to set it back would fetch the
#                      line from another core once more in each run
#   ATTRIBUTES ...     pthread_attr_t, two sigset_t, pthread_mutex_t, pthread_cond_t
#   THREADS            for each thread: the team, its number, its barrier's epoch, its pthread_t;
#                      then one word for each round of the barrier
SIZE, LIVE = 0, 8
GENERATION, BODY, TABLE, MODE = (LINE + 8 * word for word in range(4))
LOCK, LAST = 2 * LINE, 2 * LINE + 8
ENDED, ATTRIBUTES, SIGNALS, SIGNALS_BEFORE, MUTEX, CONDITION, THREADS = (
    LINE * line for line in range(3, 10)
)
THREAD = LINE * (1 + ROUNDS)
# A measured run: how often a body goes alone to learn what that takes, and how often with the team
# (the first times are in cold caches); for how many runs it then keeps to the better way.
TRIALS, PAUSE_MIN, PAUSE_MAX = 4, 8, 1024


def team_ir(on: Platform, spin_us: int, yield_us: int) -> str:
    """IR of `simdflow_team_run`, `_run_measured`, `_barrier` and `_stop`.

    What they do is said by team.py, which calls them.

    spin_us, yield_us    see `wait_ir`; a worker is awake for `yield_us` after a run
    """
    return wait_ir(on, spin_us, yield_us, MUTEX, CONDITION) + filled(
        RUN + MEASURED + BARRIER + WORK + START_AND_STOP,
        LINE=LINE,
        STACK=STACK,
        SIZE=SIZE,
        LIVE=LIVE,
        GENERATION=GENERATION,
        BODY=BODY,
        TABLE=TABLE,
        MODE=MODE,
        LOCK=LOCK,
        LAST=LAST,
        ENDED=ENDED,
        ATTRIBUTES=ATTRIBUTES,
        SIGNALS=SIGNALS,
        SIGNALS_BEFORE=SIGNALS_BEFORE,
        THREADS=THREADS,
        THREAD=THREAD,
        TRIALS=TRIALS,
        PAUSE_MIN=PAUSE_MIN,
        PAUSE_MAX=PAUSE_MAX,
        YIELD_NS=1000 * yield_us,
        SETMASK=on.setmask,
    )


BARRIER = """
; A dissemination barrier: in round r each thread tells the one 2^r further and hears from the one
; 2^r before, so after log2(count) rounds it has heard, by way of others, from all.
define void @simdflow_team_barrier(ptr %team, i64 %tid, i64 %count) {
entry:
  %alone = icmp slt i64 %count, 2
  br i1 %alone, label %done, label %several
several:
  %threads = getelementptr i8, ptr %team, i64 <THREADS>
  %offset = mul i64 %tid, <THREAD>
  %own = getelementptr i8, ptr %threads, i64 %offset
  %epoch_p = getelementptr i8, ptr %own, i64 16
  %epoch = load i32, ptr %epoch_p
  %next = add i32 %epoch, 2
  store i32 %next, ptr %epoch_p
  br label %round
round:
  %step = phi i64 [ 1, %several ], [ %double, %round ]
  %word = phi i64 [ <LINE>, %several ], [ %word_next, %round ]
  %further = add i64 %tid, %step
  %beyond = icmp sge i64 %further, %count
  %wrapped = sub i64 %further, %count
  %partner = select i1 %beyond, i64 %wrapped, i64 %further
  %partner_offset = mul i64 %partner, <THREAD>
  %theirs = getelementptr i8, ptr %threads, i64 %partner_offset
  %their_word = getelementptr i8, ptr %theirs, i64 %word
  %own_word = getelementptr i8, ptr %own, i64 %word
  call void @signal(ptr %team, ptr %their_word, i32 %next)
  call void @await(ptr %team, ptr %own_word, i32 %next)
  %double = shl i64 %step, 1
  %word_next = add i64 %word, <LINE>
  %more = icmp slt i64 %double, %count
  br i1 %more, label %round, label %done
done:
  ret void
}

"""

WORK = """
define internal ptr @work(ptr %own) {
entry:
  %team = load ptr, ptr %own
  %tid_p = getelementptr i8, ptr %own, i64 8
  %tid = load i64, ptr %tid_p
  %generation = getelementptr i8, ptr %team, i64 <GENERATION>
  %body_p = getelementptr i8, ptr %team, i64 <BODY>
  %table_p = getelementptr i8, ptr %team, i64 <TABLE>
  %mode_p = getelementptr i8, ptr %team, i64 <MODE>
  %live_p = getelementptr i8, ptr %team, i64 <LIVE>
  %ended = getelementptr i8, ptr %team, i64 <ENDED>
  br label %wait
wait:
  %goal = phi i32 [ 2, %entry ], [ %goal_next, %finish ], [ %goal_next, %last ]
  call void @await(ptr %team, ptr %generation, i32 %goal)
  %goal_next = add i32 %goal, 2
  %body = load ptr, ptr %body_p
  %table = load ptr, ptr %table_p
  %live = load i64, ptr %live_p
  %live_32 = trunc i64 %live to i32
  %workers = sub i32 %live_32, 1
  %all_ended = mul i32 %goal, %workers
  %dismissed = icmp eq ptr %body, null
  br i1 %dismissed, label %out, label %run
run:
  call void @take_mode(ptr %mode_p)
  call void %body(ptr %table, i64 %tid, i64 %live, ptr %team)
  br label %finish
finish:
  %before = atomicrmw add ptr %ended, i32 2 acq_rel
  %counted = sub i32 %all_ended, %before
  %last_and_awaited = icmp eq i32 %counted, 1
  br i1 %last_and_awaited, label %last, label %wait
last:
  call void @wake(ptr %team, ptr %ended)
  br label %wait
out:
  ret ptr null
}
"""

# A worker gets no signal: Python's handlers are the main thread's business. Where a thread cannot
# be made the team has the threads made so far, which changes no result.
START_AND_STOP = """
declare i32 @pthread_create(ptr, ptr, ptr, ptr)
declare i32 @pthread_join(i64, ptr)
declare i32 @pthread_attr_init(ptr)
declare i32 @pthread_attr_setstacksize(ptr, i64)
declare i32 @pthread_attr_destroy(ptr)
declare i32 @pthread_sigmask(i32, ptr, ptr)
declare i32 @sigfillset(ptr)

; Make the workers; returns how many threads there are, the caller included.
define internal i64 @start(ptr %team) {
entry:
  %size_p = getelementptr i8, ptr %team, i64 <SIZE>
  %live_p = getelementptr i8, ptr %team, i64 <LIVE>
  %size = load i64, ptr %size_p
  %attributes = getelementptr i8, ptr %team, i64 <ATTRIBUTES>
  %all = getelementptr i8, ptr %team, i64 <SIGNALS>
  %before = getelementptr i8, ptr %team, i64 <SIGNALS_BEFORE>
  %threads = getelementptr i8, ptr %team, i64 <THREADS>
  call void @prepare(ptr %team)
  call i32 @pthread_attr_init(ptr %attributes)
  call i32 @pthread_attr_setstacksize(ptr %attributes, i64 <STACK>)
  call i32 @sigfillset(ptr %all)
  call i32 @pthread_sigmask(i32 <SETMASK>, ptr %all, ptr %before)
  br label %next
next:
  %tid = phi i64 [ 1, %entry ], [ %following, %made ]
  %more = icmp slt i64 %tid, %size
  br i1 %more, label %make, label %done
make:
  %offset = mul i64 %tid, <THREAD>
  %own = getelementptr i8, ptr %threads, i64 %offset
  %tid_p = getelementptr i8, ptr %own, i64 8
  %thread_p = getelementptr i8, ptr %own, i64 24
  store ptr %team, ptr %own
  store i64 %tid, ptr %tid_p
  %error = call i32 @pthread_create(ptr %thread_p, ptr %attributes, ptr @work, ptr %own)
  %failed = icmp ne i32 %error, 0
  br i1 %failed, label %done, label %made
made:
  %following = add i64 %tid, 1
  br label %next
done:
  call i32 @pthread_sigmask(i32 <SETMASK>, ptr %before, ptr null)
  call i32 @pthread_attr_destroy(ptr %attributes)
  store i64 %tid, ptr %live_p
  ret i64 %tid
}

; End the workers and wait until they are gone; from then on a run is the caller's alone.
define void @simdflow_team_stop(ptr %team) {
entry:
  %lock = getelementptr i8, ptr %team, i64 <LOCK>
  br label %enter
enter:
  %pair = cmpxchg ptr %lock, i32 0, i32 1 acquire monotonic
  %entered = extractvalue {i32, i1} %pair, 1
  br i1 %entered, label %inside, label %busy
busy:
  call i32 @sched_yield()
  br label %enter
inside:
  %live_p = getelementptr i8, ptr %team, i64 <LIVE>
  %live = load i64, ptr %live_p
  %threads = getelementptr i8, ptr %team, i64 <THREADS>
  call void @publish(ptr %team, ptr null, ptr null)
  br label %next
next:
  %tid = phi i64 [ 1, %inside ], [ %following, %join ]
  %more = icmp slt i64 %tid, %live
  br i1 %more, label %join, label %done
join:
  %offset = mul i64 %tid, <THREAD>
  %own = getelementptr i8, ptr %threads, i64 %offset
  %thread_p = getelementptr i8, ptr %own, i64 24
  %thread = load i64, ptr %thread_p
  call i32 @pthread_join(i64 %thread, ptr null)
  %following = add i64 %tid, 1
  br label %next
done:
  store i64 1, ptr %live_p
  store atomic i32 0, ptr %lock release, align 4
  ret void
}
"""
