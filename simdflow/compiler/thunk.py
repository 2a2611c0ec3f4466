"""Turns the memory layout of CPython's and numpy's objects into two functions in LLVM IR.

`simdflow_call` checks its arrays against a plan and runs the kernel, `simdflow_bound` runs a plan
whose addresses are fixed. What they assume about objects is compared with real ones by
`layout_holds` before either is used; what a plan is, and who makes it, is call.py's business.
"""

import ctypes
import struct
import sys
from functools import cache

import numpy as np

MAX_ARRAYS = 12
MAX_RANK = 8

# A plan is 64-bit words: the head (kernel, begin, end, number of arrays, ndarray's type, addresses
# of Python's make-bool, save-thread and restore-thread), then for each array a slot (dtype, flags,
# rank, bytes, sizes) or, for `simdflow_bound`, its address.
HEAD = struct.Struct("8q")
SLOT = struct.Struct(f"{4 + MAX_RANK}q")
C_CONTIGUOUS, ALIGNED, WRITEABLE = 0x1, 0x100, 0x400  # numpy's ABI


@cache
def layout_holds() -> bool:
    """Do objects lie in memory as the thunks assume? Read from real objects before any is used.

    `PyArrayObject` after its header: data, int rank, sizes, strides, base, dtype, int flags
    (numpy's C ABI).
    """
    if sys.implementation.name != "cpython" or sys.maxsize != 2**63 - 1:
        return False
    probe = np.zeros((3, 5, 7), np.int16)[:, 1:4]
    base = object.__basicsize__
    if np.ndarray.__basicsize__ < base + 52:
        return False
    head = id(probe) + base
    plan = b"simdflow"
    state = (plan, probe)
    word, short = ctypes.c_ssize_t.from_address, ctypes.c_int32.from_address
    return (
        word(head - 8).value == id(np.ndarray)
        and word(head).value == probe.__array_interface__["data"][0]
        and short(head + 8).value == probe.ndim
        and [word(word(head + 16).value + 8 * i).value for i in range(3)] == [3, 3, 7]
        and word(head + 40).value == id(probe.dtype)
        and short(head + 48).value == probe.flags.num
        and word(id(state) + tuple.__basicsize__).value == id(plan)
        and ctypes.string_at(id(plan) + bytes.__basicsize__ - 1, 8) == plan
    )


def thunk_ir() -> str:
    """LLVM IR of both thunks for this interpreter: offsets, no addresses, so it can be cached."""
    base = object.__basicsize__
    return THUNKS.format(
        cases="\n".join(f"    i64 {n}, label %case{n}" for n in range(MAX_ARRAYS + 1)),
        blocks="\n".join(map(_case_ir, range(MAX_ARRAYS + 1))),
        plan=tuple.__basicsize__,
        words=bytes.__basicsize__ - 1,
        type=base - 8,
        data=base,
        rank=base + 8,
        sizes=base + 16,
        dtype=base + 40,
        flags=base + 48,
        head=HEAD.size,
        slot=SLOT.size,
        max=MAX_ARRAYS,
        writeable=WRITEABLE,
    )


def _case_ir(n: int) -> str:
    """Load `n` addresses and call the kernel with them."""
    lines = [f"case{n}:"]
    for i in range(n):
        lines.append(f"  %q{n}_{i} = getelementptr i64, ptr %addresses, i64 {i}")
        lines.append(f"  %a{n}_{i} = load ptr, ptr %q{n}_{i}")
    arguments = "".join(f"ptr %a{n}_{i}, " for i in range(n))
    lines.append(f"  call void %kernel({arguments}i64 %begin, i64 %end)")
    return "\n".join([*lines, "  br label %done"])


THUNKS = """
; A new reference to True or False.
define internal ptr @truth(ptr %words, i64 %value) {{
  %p = getelementptr i64, ptr %words, i64 5
  %make = load ptr, ptr %p
  %object = call ptr %make(i64 %value)
  ret ptr %object
}}

; Call the kernel without the GIL. No Python object is touched between save and restore.
define internal void @run(ptr %words, ptr %addresses) {{
  %kernel = load ptr, ptr %words
  %begin_p = getelementptr i64, ptr %words, i64 1
  %begin = load i64, ptr %begin_p
  %end_p = getelementptr i64, ptr %words, i64 2
  %end = load i64, ptr %end_p
  %arrays_p = getelementptr i64, ptr %words, i64 3
  %arrays = load i64, ptr %arrays_p
  %save_p = getelementptr i64, ptr %words, i64 6
  %save = load ptr, ptr %save_p
  %restore_p = getelementptr i64, ptr %words, i64 7
  %restore = load ptr, ptr %restore_p
  %thread = call ptr %save()
  switch i64 %arrays, label %done [
{cases}
  ]
{blocks}
done:
  call void %restore(ptr %thread)
  ret void
}}

; `self` is a tuple; the plan is the text of the bytes object that is its first item.
define internal ptr @plan(ptr %self) {{
  %item = getelementptr i8, ptr %self, i64 {plan}
  %bytes = load ptr, ptr %item
  %words = getelementptr i8, ptr %bytes, i64 {words}
  ret ptr %words
}}

; PyCFunction, METH_NOARGS.
define ptr @simdflow_bound(ptr %self, ptr %unused) {{
  %words = call ptr @plan(ptr %self)
  %addresses = getelementptr i8, ptr %words, i64 {head}
  call void @run(ptr %words, ptr %addresses)
  %true = call ptr @truth(ptr %words, i64 1)
  ret ptr %true
}}

; PyCFunction, METH_FASTCALL. `%low` collects the address of each array.
define ptr @simdflow_call(ptr %self, ptr %args, i64 %count) {{
entry:
  %low = alloca [{max} x i64]
  %words = call ptr @plan(ptr %self)
  %slots = getelementptr i8, ptr %words, i64 {head}
  %arrays_p = getelementptr i64, ptr %words, i64 3
  %arrays = load i64, ptr %arrays_p
  %ndarray_p = getelementptr i64, ptr %words, i64 4
  %ndarray = load i64, ptr %ndarray_p
  %right_count = icmp eq i64 %count, %arrays
  br i1 %right_count, label %each, label %misfit

each:
  %i = phi i64 [ 0, %entry ], [ %i_next, %fits ]
  %checked = icmp eq i64 %i, %arrays
  br i1 %checked, label %writers, label %check

check:
  %arg_p = getelementptr ptr, ptr %args, i64 %i
  %arg = load ptr, ptr %arg_p
  %type_p = getelementptr i8, ptr %arg, i64 {type}
  %type = load i64, ptr %type_p
  %is_array = icmp eq i64 %type, %ndarray
  br i1 %is_array, label %array, label %misfit

array:
  %offset = mul i64 %i, {slot}
  %slot = getelementptr i8, ptr %slots, i64 %offset
  %want_flags_p = getelementptr i64, ptr %slot, i64 1
  %want_rank_p = getelementptr i64, ptr %slot, i64 2
  %want_sizes = getelementptr i64, ptr %slot, i64 4
  %want_dtype = load i64, ptr %slot
  %want_flags_64 = load i64, ptr %want_flags_p
  %want_flags = trunc i64 %want_flags_64 to i32
  %want_rank = load i64, ptr %want_rank_p
  %dtype_p = getelementptr i8, ptr %arg, i64 {dtype}
  %flags_p = getelementptr i8, ptr %arg, i64 {flags}
  %rank_p = getelementptr i8, ptr %arg, i64 {rank}
  %dtype = load i64, ptr %dtype_p
  %flags = load i32, ptr %flags_p
  %rank_32 = load i32, ptr %rank_p
  %rank = zext i32 %rank_32 to i64
  %dtype_fits = icmp eq i64 %dtype, %want_dtype
  %held = and i32 %flags, %want_flags
  %flags_fit = icmp eq i32 %held, %want_flags
  %rank_fits = icmp eq i64 %rank, %want_rank
  %two = and i1 %dtype_fits, %flags_fit
  %three = and i1 %two, %rank_fits
  br i1 %three, label %shape, label %misfit

shape:
  %sizes_p = getelementptr i8, ptr %arg, i64 {sizes}
  %sizes = load ptr, ptr %sizes_p
  br label %size

size:
  %d = phi i64 [ 0, %shape ], [ %d_next, %size_fits ]
  %all_fit = icmp eq i64 %d, %rank
  br i1 %all_fit, label %fits, label %compare

compare:
  %size_p = getelementptr i64, ptr %sizes, i64 %d
  %want_size_p = getelementptr i64, ptr %want_sizes, i64 %d
  %extent = load i64, ptr %size_p
  %want_extent = load i64, ptr %want_size_p
  %same = icmp eq i64 %extent, %want_extent
  br i1 %same, label %size_fits, label %misfit

size_fits:
  %d_next = add i64 %d, 1
  br label %size

fits:
  %data_p = getelementptr i8, ptr %arg, i64 {data}
  %data = load i64, ptr %data_p
  %low_p = getelementptr i64, ptr %low, i64 %i
  store i64 %data, ptr %low_p
  %i_next = add i64 %i, 1
  br label %each

; A written array must not share a byte with any other: not (max of lows < min of highs).
writers:
  %w = phi i64 [ 0, %each ], [ %w_next, %disjoint ]
  %no_more = icmp eq i64 %w, %arrays
  br i1 %no_more, label %go, label %writer

writer:
  %w_offset = mul i64 %w, {slot}
  %w_slot = getelementptr i8, ptr %slots, i64 %w_offset
  %w_flags_p = getelementptr i64, ptr %w_slot, i64 1
  %w_flags = load i64, ptr %w_flags_p
  %w_bit = and i64 %w_flags, {writeable}
  %is_writer = icmp ne i64 %w_bit, 0
  %w_low_p = getelementptr i64, ptr %low, i64 %w
  %w_low = load i64, ptr %w_low_p
  %w_bytes_p = getelementptr i64, ptr %w_slot, i64 3
  %w_bytes = load i64, ptr %w_bytes_p
  %w_high = add i64 %w_low, %w_bytes
  br i1 %is_writer, label %others, label %disjoint

others:
  %o = phi i64 [ 0, %writer ], [ %o_next, %apart ]
  %o_last = icmp eq i64 %o, %arrays
  br i1 %o_last, label %disjoint, label %other

other:
  %o_low_p = getelementptr i64, ptr %low, i64 %o
  %o_low = load i64, ptr %o_low_p
  %o_offset = mul i64 %o, {slot}
  %o_slot = getelementptr i8, ptr %slots, i64 %o_offset
  %o_bytes_p = getelementptr i64, ptr %o_slot, i64 3
  %o_bytes = load i64, ptr %o_bytes_p
  %o_high = add i64 %o_low, %o_bytes
  %w_later = icmp ugt i64 %w_low, %o_low
  %later = select i1 %w_later, i64 %w_low, i64 %o_low
  %w_sooner = icmp ult i64 %w_high, %o_high
  %sooner = select i1 %w_sooner, i64 %w_high, i64 %o_high
  %meet = icmp ult i64 %later, %sooner
  %another = icmp ne i64 %w, %o
  %clash = and i1 %meet, %another
  br i1 %clash, label %misfit, label %apart

apart:
  %o_next = add i64 %o, 1
  br label %others

disjoint:
  %w_next = add i64 %w, 1
  br label %writers

go:
  call void @run(ptr %words, ptr %low)
  %true = call ptr @truth(ptr %words, i64 1)
  ret ptr %true

misfit:
  %false = call ptr @truth(ptr %words, i64 0)
  ret ptr %false
}}
"""
