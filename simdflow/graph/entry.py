"""Entry: the one native function that runs a whole network, as LLVM IR.

    void simdflow_model(arena, weights, ports, begin, end)     begin and end are not used

`ports` is a table of the addresses of inputs and outputs, so that a large batch goes through it in
groups and none is copied. It calls the kernels in order with fixed addresses, each thread with its
own range of every kernel's parallel axis, and a barrier where a thread may need what another one
wrote. The kernels are other object code, linked by name; nothing is allocated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

BODY = "simdflow_model_body"
ENTRY = "simdflow_model"
ARRAYS = "simdflow_model_arrays"  # see arrays_ir.py
TEAM = "simdflow_model_team"
# What the team knows of this network: how long it takes alone, and with the team.
STATE = "simdflow_model_state"
BASES = ("arena", "weights", "ports")
POINTERS = ", ".join(f"ptr %{base}" for base in BASES)


@dataclass(frozen=True)
class Border:
    """The runs of bytes round a slab [n, h, w, c]: per image `head` bytes, then `gaps` runs of
    `gap` bytes every `row` bytes, then `tail` bytes; the last row ends where the tail begins.
    """

    images: int
    image: int
    head: int
    gaps: int
    gap: int
    row: int
    tail: int
    pattern: bytes


@dataclass(frozen=True)
class Call:
    """One run of a kernel.

    kernel     which symbol, `simdflow_kernel_<number>`
    addresses  ("arena" or "weights", offset in bytes) or ("ports", which) for each memory of the
               kernel
    extent     of the parallel axis, cut in units of `step`; `split`: whether threads share it
    borders    (offset in the arena, border) of what is filled before it runs
    rolled     where its result is made in a few rows at a time: who reads it, and how
    """

    kernel: int
    addresses: tuple[tuple[str, int], ...]
    extent: int
    step: int
    split: bool
    borders: tuple[tuple[int, Border], ...] = ()
    rolled: Rolled | None = None


@dataclass(frozen=True)
class Band:
    """A few rows: `kept` rows of the buffer move to its beginning from row `moved`; rows `filled`
    (first, count) become border; then the producer makes its rows [made, made_end), the consumer
    its rows [used, used_end), with the buffer's first row being row `first` of the whole.
    """

    moved: int
    kept: int
    filled: tuple[tuple[int, int], ...]
    made: int
    made_end: int
    used: int
    used_end: int
    first: int


@dataclass(frozen=True)
class Rolled:
    """A consumer that follows its producer through a buffer of a few rows.

    consumer   its call; `written` and `read` are the places of the buffer among the addresses of
               producer and consumer
    row        bytes of a row; `pattern` fills rows of border
    """

    consumer: Call
    written: int
    read: int
    row: int
    pattern: bytes
    bands: tuple[Band, ...]


def symbol(kernel: int) -> str:
    """The name under which the entry calls a kernel."""
    return f"simdflow_kernel_{kernel}"


def step_symbol(at: int) -> str:
    """The name of the function that runs call `at` alone, with the signature of a kernel on arena,
    weights and ports.
    """
    return f"simdflow_model_step_{at}"


def entry_ir(calls: Sequence[Call], threads: int) -> str:
    """The module of the entry function for a number of threads."""
    text = Text()
    every = [c for call in calls for c in (call, *([call.rolled.consumer] if call.rolled else []))]
    counts = {c.kernel: len(c.addresses) for c in every}
    for kernel, count in sorted(counts.items()):
        text.add(f"declare void @{symbol(kernel)}({'ptr, ' * count}i64, i64)")
    text.add("declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)")
    text.add("declare void @llvm.memmove.p0.p0.i64(ptr, ptr, i64, i1)")
    if threads > 1:
        text.add(f"@{TEAM} = external global i8")
        text.add("declare void @simdflow_team_run_measured(ptr, ptr, ptr, ptr)")
        text.add(f"@{STATE} = internal global [8 x i64] zeroinitializer")
        text.add("declare void @simdflow_team_barrier(ptr, i64, i64)")
    for at, call in enumerate(calls):
        _step(text, at, call)
    _body(text, calls, threads)
    text.add(f"define void @{ENTRY}({POINTERS}, i64 %begin, i64 %end) {{")
    text.add(f"  %table = alloca [{len(BASES)} x ptr]")
    for n, base in enumerate(BASES):
        text.add(f"  %{base}_p = getelementptr ptr, ptr %table, i64 {n}")
        text.add(f"  store ptr %{base}, ptr %{base}_p")
    if threads > 1:
        text.add(
            f"  call void @simdflow_team_run_measured(ptr @{TEAM}, ptr @{BODY}, ptr %table, "
            f"ptr @{STATE})"
        )
    else:
        text.add(f"  call void @{BODY}(ptr %table, i64 0, i64 1, ptr null)")
    text.add("  ret void")
    text.add("}")
    return "\n".join(text.lines) + "\n"


def _body(text: Text, calls: Sequence[Call], threads: int) -> None:
    """What each thread runs: its part of every step, and a barrier where it may need another's."""
    text.add(f"define internal void @{BODY}(ptr %table, i64 %tid, i64 %count, ptr %team) {{")
    text.label("entry")
    for n, base in enumerate(BASES):
        text.add(f"  %{base}_p = getelementptr ptr, ptr %table, i64 {n}")
        text.add(f"  %{base} = load ptr, ptr %{base}_p")
    shared = False
    for at, call in enumerate(calls):
        split = call.split and threads > 1
        if threads > 1 and at and (split or shared):
            text.add("  call void @simdflow_team_barrier(ptr %team, i64 %tid, i64 %count)")
        _part(text, at, call, split, threads > 1)
        shared = split
    text.add("  ret void")
    text.add("}")


def _part(text: Text, at: int, call: Call, split: bool, threaded: bool) -> None:
    """A thread's part of a step; what is not split is the first one's."""
    given = f"  call void @{step_symbol(at)}({POINTERS}, i64 "
    if split:
        units = -(-call.extent // call.step)
        begin = _cut(text, units, "%tid", call)
        after_me = text.value("add i64 %tid, 1")
        text.add(f"{given}{begin}, i64 {_cut(text, units, after_me, call)})")
        return
    whole = f"{given}0, i64 {call.extent})"
    if not threaded:
        text.add(whole)
        return
    first, after = text.name(), text.name()
    alone = text.value("icmp eq i64 %tid, 0")
    text.add(f"  br i1 {alone}, label %{first}, label %{after}")
    text.label(first)
    text.add(whole)
    text.add(f"  br label %{after}")
    text.label(after)


def _step(text: Text, at: int, call: Call) -> None:
    """The function of one step. Whoever has the first rows fills the borders."""
    text.add(f"define void @{step_symbol(at)}({POINTERS}, i64 %begin, i64 %end) {{")
    text.label("entry")
    if call.borders:
        first, after = text.name(), text.name()
        mine = text.value("icmp eq i64 %begin, 0")
        text.add(f"  br i1 {mine}, label %{first}, label %{after}")
        text.label(first)
        for offset, border in call.borders:
            _fill(text, offset, border)
        text.add(f"  br label %{after}")
        text.label(after)
    if call.rolled is None:
        _run(text, call, "%begin", "%end")
    else:
        _bands(text, call, call.rolled)
    text.add("  ret void")
    text.add("}")


def _bands(text: Text, call: Call, rolled: Rolled) -> None:
    """Producer and consumer by turns. Both address rows of the whole: the buffer's address is moved
    back by the rows that are gone.
    """
    _, buffer = call.addresses[rolled.written]
    for band in rolled.bands:
        if band.kept and band.moved:
            source = _address(text, "arena", buffer + band.moved * rolled.row)
            target = _address(text, "arena", buffer)
            text.add(
                f"  call void @llvm.memmove.p0.p0.i64(ptr {target}, ptr {source}, "
                f"i64 {band.kept * rolled.row}, i1 false)"
            )
        for row, count in band.filled:
            where = _address(text, "arena", buffer + row * rolled.row)
            _set(text, where, count * rolled.row, rolled.pattern)
        back = -band.first * rolled.row
        if band.made_end > band.made:
            _run(text, call, str(band.made), str(band.made_end), (rolled.written, back))
        consumer = rolled.consumer
        _run(text, consumer, str(band.used), str(band.used_end), (rolled.read, back))


class Text:
    """Lines of IR, with names that are used once."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._count = 0

    def add(self, line: str) -> None:
        self.lines.append(line)

    def label(self, name: str) -> None:
        self.lines.append(f"{name}:")

    def name(self) -> str:
        self._count += 1
        return f"v{self._count}"

    def value(self, expression: str) -> str:
        """The register that holds an expression."""
        name = f"%{self.name()}"
        self.add(f"  {name} = {expression}")
        return name


def _cut(text: Text, units: int, part: str, call: Call) -> str:
    """Where a thread's range begins: units * part / count, in steps."""
    product = text.value(f"mul i64 {part}, {units}")
    unit = text.value(f"udiv i64 {product}, %count")
    return text.value(f"mul i64 {unit}, {call.step}")


def _run(text: Text, call: Call, begin: str, end: str, moved: tuple[int, int] = (-1, 0)) -> None:
    """The kernel on a range; the address at place `moved[0]` is moved by `moved[1]` bytes."""
    given = []
    for at, (base, offset) in enumerate(call.addresses):
        given.append(f"ptr {_address(text, base, offset + (moved[1] if at == moved[0] else 0))}")
    given += [f"i64 {begin}", f"i64 {end}"]
    text.add(f"  call void @{symbol(call.kernel)}({', '.join(given)})")


def _address(text: Text, base: str, offset: int) -> str:
    if base == "ports":
        place = text.value(f"getelementptr ptr, ptr %ports, i64 {offset}")
        return text.value(f"load ptr, ptr {place}")
    return text.value(f"getelementptr i8, ptr %{base}, i64 {offset}")


def _fill(text: Text, offset: int, border: Border) -> None:
    """Write a border, run by run."""
    for image in range(border.images):
        start = offset + image * border.image
        _set(text, _address(text, "arena", start), border.head, border.pattern)
        first = start + border.head + border.row - border.gap
        if border.gaps and border.gap:
            index, head, after = text.name(), text.name(), text.name()
            before = text.name()
            text.add(f"  br label %{before}")
            text.label(before)
            text.add(f"  br label %{head}")
            text.label(head)
            text.add(f"  %{index} = phi i64 [ 0, %{before} ], [ %{index}n, %{head} ]")
            at = text.value(f"mul i64 %{index}, {border.row}")
            from_first = text.value(f"add i64 {at}, {first}")
            where = text.value(f"getelementptr i8, ptr %arena, i64 {from_first}")
            _set(text, where, border.gap, border.pattern)
            text.add(f"  %{index}n = add i64 %{index}, 1")
            done = text.value(f"icmp eq i64 %{index}n, {border.gaps}")
            text.add(f"  br i1 {done}, label %{after}, label %{head}")
            text.label(after)
        last = start + border.image - border.tail
        _set(text, _address(text, "arena", last), border.tail, border.pattern)


def _set(text: Text, where: str, nbytes: int, pattern: bytes) -> None:
    """Fill `nbytes` with a pattern; one of equal bytes is a memset."""
    if not nbytes:
        return
    if len(set(pattern)) == 1:
        text.add(
            f"  call void @llvm.memset.p0.i64(ptr {where}, i8 {pattern[0]}, i64 {nbytes}, i1 false)"
        )
        return
    kind, value = f"i{8 * len(pattern)}", int.from_bytes(pattern, "little")
    for at in range(0, nbytes, len(pattern)):
        here = text.value(f"getelementptr i8, ptr {where}, i64 {at}")
        text.add(f"  store {kind} {value}, ptr {here}, align 1")
