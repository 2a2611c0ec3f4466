"""Arrays: the entry function on a caller's own arrays, as LLVM IR: inputs in, run, outputs out.

    void simdflow_model_arrays(arena, weights, inputs..., outputs..., begin, end)

An array has no border, and what lies behind it is not to be read: it is copied into the arena and
out of it, here by rows of vectors: 96 rows of 288 bytes take 0.3 us, numpy's assignment 1.5.
`begin` and `end` are not used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .entry import ARRAYS, ENTRY, Text
from .network import Port, port_places

VECTOR = 64  # bytes of a copy
INLINE = 1024  # bytes; a longer row is memcpy's


@dataclass(frozen=True)
class Rows:
    """Where a port's tensor lies: `row` bytes in a piece, from `first` bytes into the arena; loops,
    the outermost first, of (how many, bytes apart in the arena, bytes apart in the array).
    """

    first: int
    loops: tuple[tuple[int, int, int], ...]
    row: int


def rows(port: Port) -> Rows:
    """The pieces of a port's tensor that are contiguous in the arena."""
    memory = np.empty(port.nbytes, np.uint8)
    view = port.views(memory, 1)
    first = view.__array_interface__["data"][0] - memory.__array_interface__["data"][0]
    row, loops = view.itemsize, list[tuple[int, int, int]]()
    for n, stride in zip(view.shape[::-1], view.strides[::-1], strict=True):
        if not loops and (stride == row or n == 1):
            row *= n
        elif n > 1 and loops and stride == loops[0][0] * loops[0][1]:
            loops[0] = (n * loops[0][0], *loops[0][1:])
        elif n > 1:
            apart = loops[0][0] * loops[0][2] if loops else row
            loops.insert(0, (n, stride, apart))
    return Rows(port.offset + first, tuple(loops), row if view.size else 0)


def arrays_ir(inputs: Sequence[Port], outputs: Sequence[Port]) -> str:
    """The function, to stand behind `entry_ir`'s."""
    text = Text()
    places = port_places((*inputs, *outputs))
    names = [f"%x{n}" for n in range(len(inputs))] + [f"%y{n}" for n in range(len(outputs))]
    given = ", ".join(f"ptr {name}" for name in ("%arena", "%weights", *names))
    text.add("declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)")
    text.add(f"define void @{ARRAYS}({given}, i64 %begin, i64 %end) {{")
    text.label("entry")
    ports = text.value(f"alloca [{max(len(places), 1)} x ptr]")
    for n, place in enumerate(places):
        where = text.value(f"getelementptr i8, ptr %arena, i64 {place}")
        slot = text.value(f"getelementptr ptr, ptr {ports}, i64 {n}")
        text.add(f"  store ptr {where}, ptr {slot}")
    for n, port in enumerate(inputs):
        _move(text, rows(port), f"%x{n}", inward=True)
    text.add(f"  call void @{ENTRY}(ptr %arena, ptr %weights, ptr {ports}, i64 0, i64 0)")
    for n, port in enumerate(outputs):
        _move(text, rows(port), f"%y{n}", inward=False)
    text.add("  ret void")
    text.add("}")
    return "\n".join(text.lines) + "\n"


def _move(text: Text, of: Rows, array: str, inward: bool) -> None:
    """Copy one tensor."""
    if not of.row:
        return
    place = text.value(f"getelementptr i8, ptr %arena, i64 {of.first}")
    _loops(text, of.loops, of.row, place, array, inward)


def _loops(
    text: Text,
    loops: Sequence[tuple[int, int, int]],
    row: int,
    place: str,
    array: str,
    inward: bool,
) -> None:
    if not loops:
        _copy(text, row, *((array, place) if inward else (place, array)))
        return
    (count, in_place, in_array), *inner = loops
    before, head, after, end = (text.name() for _ in range(4))
    index = text.name()
    text.add(f"  br label %{before}")
    text.label(before)
    text.add(f"  br label %{head}")
    text.label(head)
    text.add(f"  %{index} = phi i64 [ 0, %{before} ], [ %{index}n, %{end} ]")
    moved = []
    for base, apart in ((place, in_place), (array, in_array)):
        offset = text.value(f"mul i64 %{index}, {apart}")
        moved.append(text.value(f"getelementptr i8, ptr {base}, i64 {offset}"))
    _loops(text, inner, row, moved[0], moved[1], inward)
    text.add(f"  br label %{end}")
    text.label(end)
    text.add(f"  %{index}n = add i64 %{index}, 1")
    done = text.value(f"icmp eq i64 %{index}n, {count}")
    text.add(f"  br i1 {done}, label %{after}, label %{head}")
    text.label(after)


def _copy(text: Text, nbytes: int, source: str, target: str) -> None:
    """Exactly these bytes; the last vector may begin inside the one before."""
    if nbytes > INLINE:
        text.add(
            f"  call void @llvm.memcpy.p0.p0.i64(ptr {target}, ptr {source}, i64 {nbytes}, "
            f"i1 false)"
        )
        return
    at, size = 0, VECTOR
    while at < nbytes:
        while size > nbytes:
            size //= 2
        at = min(at, nbytes - size)
        here, there = (text.value(f"getelementptr i8, ptr {p}, i64 {at}") for p in (source, target))
        kind = f"<{size} x i8>"
        piece = text.value(f"load {kind}, ptr {here}, align 1")
        text.add(f"  store {kind} {piece}, ptr {there}, align 1")
        at += size
