"""Turns a call of a team into what its caller does, as LLVM IR: enter, publish, join, or go alone.

`<NAME>` is a number that team_ir.py fills in: an offset in the team's memory, or a setting. How
many threads a run is worth is measured here, from run to run; nothing is predicted.
"""

RUN = """
; Give the workers a body: a plain store for each word, published by the signal.
define internal void @publish(ptr %team, ptr %body, ptr %table) {
  %body_p = getelementptr i8, ptr %team, i64 <BODY>
  %table_p = getelementptr i8, ptr %team, i64 <TABLE>
  %mode_p = getelementptr i8, ptr %team, i64 <MODE>
  %generation_p = getelementptr i8, ptr %team, i64 <GENERATION>
  store ptr %body, ptr %body_p
  store ptr %table, ptr %table_p
  call void @keep_mode(ptr %mode_p)
  %old = load atomic i32, ptr %generation_p monotonic, align 4
  %even = and i32 %old, -2
  %next = add i32 %even, 2
  call void @signal(ptr %team, ptr %generation_p, i32 %next)
  ret void
}

; Take the team for the calling thread. Returns how many threads there are, or 0 where the caller
; is to go alone: no team, another thread inside it, no workers.
define internal i64 @enter(ptr %team) {
  %no_team = icmp eq ptr %team, null
  br i1 %no_team, label %alone, label %try
try:
  %lock = getelementptr i8, ptr %team, i64 <LOCK>
  %pair = cmpxchg ptr %lock, i32 0, i32 1 acquire monotonic
  %entered = extractvalue {i32, i1} %pair, 1
  br i1 %entered, label %inside, label %alone
inside:
  %live_p = getelementptr i8, ptr %team, i64 <LIVE>
  %known = load i64, ptr %live_p
  %fresh = icmp eq i64 %known, 0
  br i1 %fresh, label %start, label %ready
start:
  %started = call i64 @start(ptr %team)
  br label %ready
ready:
  %live = phi i64 [ %known, %inside ], [ %started, %start ]
  %several = icmp sgt i64 %live, 1
  br i1 %several, label %together, label %leave
together:
  ret i64 %live
leave:
  call void @leave(ptr %team)
  br label %alone
alone:
  ret i64 0
}

define internal void @leave(ptr %team) {
  %lock = getelementptr i8, ptr %team, i64 <LOCK>
  store atomic i32 0, ptr %lock release, align 4
  ret void
}

; What ENDED will be when the workers have ended every run so far.
define internal i32 @goal(ptr %team, i64 %live) {
  %generation_p = getelementptr i8, ptr %team, i64 <GENERATION>
  %generation = load atomic i32, ptr %generation_p monotonic, align 4
  %runs = and i32 %generation, -2
  %live_32 = trunc i64 %live to i32
  %workers = sub i32 %live_32, 1
  %goal = mul i32 %runs, %workers
  ret i32 %goal
}

; Run the body on all threads, by who has entered.
define internal void @together(ptr %team, ptr %body, ptr %table, i64 %live) {
  %ended = getelementptr i8, ptr %team, i64 <ENDED>
  %before = call i32 @goal(ptr %team, i64 %live)
  call void @await(ptr %team, ptr %ended, i32 %before)
  call void @publish(ptr %team, ptr %body, ptr %table)
  call void %body(ptr %table, i64 0, i64 %live, ptr %team)
  %goal = call i32 @goal(ptr %team, i64 %live)
  call void @await(ptr %team, ptr %ended, i32 %goal)
  %reached = load atomic i32, ptr %ended monotonic, align 4
  %slept_bit = and i32 %reached, 1
  %slept = icmp ne i32 %slept_bit, 0
  br i1 %slept, label %awake, label %done
awake:
  atomicrmw and ptr %ended, i32 -2 monotonic
  br label %done
done:
  ret void
}

define void @simdflow_team_run(ptr %team, ptr %body, ptr %table) {
  %live = call i64 @enter(ptr %team)
  %several = icmp sgt i64 %live, 0
  br i1 %several, label %together, label %alone
together:
  call void @together(ptr %team, ptr %body, ptr %table, i64 %live)
  call void @leave(ptr %team)
  ret void
alone:
  call void %body(ptr %table, i64 0, i64 1, ptr %team)
  ret void
}
"""

MEASURED = """
define internal void @nothing(ptr %table, i64 %tid, i64 %count, ptr %team) {
  ret void
}

; The state of a body: ns it takes alone (a minimum that forgets), runs to go alone yet, the last
; number of those, runs alone so far, slower runs with the team since the last faster one.
define void @simdflow_team_run_measured(ptr %team, ptr %body, ptr %table, ptr %state) {
  %live = call i64 @enter(ptr %team)
  %several = icmp sgt i64 %live, 0
  br i1 %several, label %inside, label %alone
alone:
  call void %body(ptr %table, i64 0, i64 1, ptr %team)
  ret void

inside:
  %rest_p = getelementptr i64, ptr %state, i64 1
  %pause_p = getelementptr i64, ptr %state, i64 2
  %lonely_p = getelementptr i64, ptr %state, i64 3
  %slow_p = getelementptr i64, ptr %state, i64 4
  %generation_p = getelementptr i8, ptr %team, i64 <GENERATION>
  %ended_p = getelementptr i8, ptr %team, i64 <ENDED>
  %last_p = getelementptr i8, ptr %team, i64 <LAST>
  %alone_ns = load i64, ptr %state
  %rest = load i64, ptr %rest_p
  %lonely = load i64, ptr %lonely_p
  %begin = call i64 @clock()
  %resting = icmp sgt i64 %rest, 0
  br i1 %resting, label %count_down, label %known
count_down:
  %rest_less = sub i64 %rest, 1
  store i64 %rest_less, ptr %rest_p
  br label %single
known:
  %enough = icmp sge i64 %lonely, <TRIALS>
  br i1 %enough, label %ready, label %single
ready:
  %goal = call i32 @goal(ptr %team, i64 %live)
  %ended = load atomic i32, ptr %ended_p acquire, align 4
  %ahead = sub i32 %ended, %goal
  %finished = icmp sge i32 %ahead, 0
  br i1 %finished, label %look, label %single
look:
  %generation = load atomic i32, ptr %generation_p monotonic, align 4
  %bit = and i32 %generation, 1
  %asleep = icmp ne i32 %bit, 0
  %short = icmp ult i64 %alone_ns, <YIELD_NS>
  %not_worth = and i1 %asleep, %short
  br i1 %not_worth, label %pace, label %team_run

; A sleeping worker takes longer to wake than a short run takes. So the caller goes alone and, if
; this is the second run within the time that workers stay awake, calls them for the next one.
pace:
  %last = load i64, ptr %last_p
  %since = sub i64 %begin, %last
  %soon = icmp ult i64 %since, <YIELD_NS>
  br i1 %soon, label %rouse, label %single
rouse:
  call void @publish(ptr %team, ptr @nothing, ptr null)
  br label %single
single:
  call void %body(ptr %table, i64 0, i64 1, ptr %team)
  %end = call i64 @clock()
  store i64 %end, ptr %last_p
  %took = sub i64 %end, %begin
  %margin = lshr i64 %alone_ns, 4
  %forgotten = add i64 %alone_ns, %margin
  %better = icmp ult i64 %took, %forgotten
  %first = icmp eq i64 %lonely, 0
  %take = or i1 %better, %first
  %alone_next = select i1 %take, i64 %took, i64 %forgotten
  %lonely_next = add i64 %lonely, 1
  store i64 %alone_next, ptr %state
  store i64 %lonely_next, ptr %lonely_p
  call void @leave(ptr %team)
  ret void

; Slower than alone several times, as where another process has the core: alone for a while, then
; try again. Several, because a worker that was just woken has cold caches.
team_run:
  call void @together(ptr %team, ptr %body, ptr %table, i64 %live)
  %together_end = call i64 @clock()
  %together_ns = sub i64 %together_end, %begin
  %slower = icmp ugt i64 %together_ns, %alone_ns
  %slow = load i64, ptr %slow_p
  %slow_more = add i64 %slow, 1
  %slow_next = select i1 %slower, i64 %slow_more, i64 0
  store i64 %slow_next, ptr %slow_p
  %too_often = icmp eq i64 %slow_next, <TRIALS>
  br i1 %too_often, label %give_up, label %judge
judge:
  br i1 %slower, label %done, label %well
well:
  store i64 0, ptr %pause_p
  br label %done
give_up:
  %pause = load i64, ptr %pause_p
  %double = shl i64 %pause, 1
  %too_short = icmp ult i64 %double, <PAUSE_MIN>
  %at_least = select i1 %too_short, i64 <PAUSE_MIN>, i64 %double
  %too_long = icmp ugt i64 %at_least, <PAUSE_MAX>
  %pause_next = select i1 %too_long, i64 <PAUSE_MAX>, i64 %at_least
  store i64 %pause_next, ptr %pause_p
  store i64 %pause_next, ptr %rest_p
  store i64 0, ptr %slow_p
  br label %done
done:
  call void @leave(ptr %team)
  ret void
}
"""
