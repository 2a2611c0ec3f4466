"""Measures what one core can do at best: multiply-accumulate rates, read bandwidth and clock.

Each figure comes from a loop of LLVM IR that works on registers only (or, for bandwidth, only
loads), compiled for one of the targets and timed for some hundredths of a second. It times no
kernel of a user.
"""

from __future__ import annotations

import ctypes
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np

from .dsl.types import Scalar
from .targets.base import Target
from .targets.core import caches
from .targets.detect import target as choose

ACCUMULATORS = 12  # two a cycle at a latency of 4 or 5 want 10; and AVX2 has 16 registers in all
STREAMS = 8  # vectors loaded in one pass of the streaming loop
LINE = 64  # bytes of a vector it loads: a cache line
CHAIN = 64  # dependent additions in one pass of the clock loop
PASSES = 60_000  # of a loop in one call: long beside the cost of the call
STREAMED = 1 << 24  # bytes read in one call, at least: the same
X86 = platform.machine().lower() in ("x86_64", "amd64")

Loop = Callable[..., None]


@dataclass(frozen=True)
class Bandwidth:
    """Rate of sequential reads from one level, for data of at most `capacity` bytes (0: any)."""

    level: str
    capacity: int
    gb_per_s: float


@dataclass(frozen=True)
class Peaks:
    """Measured limits of one core, for the instructions of one target.

    f32_gmac    f32 multiply-accumulates, 1e9 a second
    i8_gmac     u8 x i8 products summed in i32, 1e9 a second
    bit_gop     xnor-popcount, 1e9 operations a second; one bit counts two, a product and a sum
    clock_ghz   cycles, told by additions that wait for each other
    bandwidth   smallest level first; the last one is memory
    """

    target: str
    f32_gmac: float
    i8_gmac: float
    bit_gop: float
    clock_ghz: float
    bandwidth: tuple[Bandwidth, ...]

    def gmac(self, scalar: Scalar) -> float:
        """1e9 multiply-accumulates a second for factors of an element type; 16-bit integers are
        given the rate of 8-bit ones.
        """
        rates = {"f": self.f32_gmac, "b": self.bit_gop / 2}
        return rates.get(scalar.kind, self.i8_gmac)

    def level(self, nbytes: int) -> Bandwidth:
        """The smallest level that holds `nbytes`."""
        return next(b for b in self.bandwidth if b.capacity == 0 or nbytes <= b.capacity)


def peaks(target: str | Target | None = None, seconds: float = 0.05) -> Peaks:
    """Measure the core that this runs on, in about ten times `seconds`.

    Args:
        target: a target or its name; None takes the best that this CPU can execute.
        seconds: time for each figure, which is the best of the repetitions that fit.

    Raises:
        TargetError: the target is unknown, or needs instructions that this CPU lacks.
    """
    chosen = choose(target)
    library, scratch = _compile(chosen), _aligned(32 * LINE)
    scratch[:] = 0  # neither infinities nor denormals, which may be slower
    at = scratch.ctypes.data
    names = ("peak_f32", "peak_i8", "peak_bit", "peak_clock")
    loops = [partial(library[name], PASSES, at) for name in names]
    f32_ns, i8_ns, bit_ns, clock_ns = _best_ns(loops, len(loops) * seconds)
    nbytes = PASSES * ACCUMULATORS * chosen.width // 8
    return Peaks(
        target=chosen.name,
        f32_gmac=nbytes / 4 / f32_ns,
        i8_gmac=nbytes / 4 * _group(chosen) / i8_ns,
        bit_gop=2 * 8 * nbytes / bit_ns,
        clock_ghz=PASSES * CHAIN / clock_ns,
        bandwidth=tuple(
            Bandwidth(level, capacity, _stream_rate(size, seconds))
            for level, capacity, size in _levels()
        ),
    )


def clock_loop(passes: int = 6000) -> tuple[Loop, int]:
    """(call, cycles): a call without arguments that takes `cycles` clock cycles.

    To be timed beside what one relates to the clock: a clock that moves while something long is
    measured moves every arithmetic peak with it.
    """
    scratch = _aligned(LINE)
    run, at = _compile(choose(None))["peak_clock"], scratch.ctypes.data

    def call(kept: np.ndarray = scratch) -> None:
        run(passes, at)

    return call, passes * CHAIN


# ---- the loops, as LLVM IR ----------------------------------------------------------------------


def _group(target: Target) -> int:
    """How many u8 x i8 products one instruction of the target sums in each lane."""
    return target.groups("u8", "i8", "i32", widened=False)[0] if X86 else 1


def _dot(target: Target) -> tuple[str, str]:
    """(declaration, step) of the u8 x i8 product, its operands already in registers.

    The step makes %new from %old, %a and %b, all vectors of i32; `#` stands for a number.
    """
    bits, acc, group = target.width, f"<{target.width // 32} x i32>", _group(target)
    if group == 1:  # one product a lane; the masks let LLVM see that 16 bits are enough
        return (
            "",
            f"""  %a_# = and {acc} %a#, splat (i32 255)
  %b_# = and {acc} %b, splat (i32 127)
  %p# = mul {acc} %a_#, %b_#
  %new# = add {acc} %old#, %p#""",
        )
    narrow = f"<{bits // 8} x i8>" if group == 4 else f"<{bits // 16} x i16>"
    casts = f"""  %a_# = bitcast {acc} %a# to {narrow}
  %b_# = bitcast {acc} %b to {narrow}
"""
    if group == 4:
        name = f"@llvm.x86.avx512.vpdpbusd.{bits}"
        step = f"  %new# = call {acc} {name}({acc} %old#, {narrow} %a_#, {narrow} %b_#)"
        return f"declare {acc} {name}({acc}, {narrow}, {narrow})", casts + step
    name = "@llvm.x86.avx2.pmadd.wd" if bits == 256 else f"@llvm.x86.avx512.pmaddw.d.{bits}"
    step = f"""  %p# = call {acc} {name}({narrow} %a_#, {narrow} %b_#)
  %new# = add {acc} %old#, %p#"""
    return f"declare {acc} {name}({narrow}, {narrow})", casts + step


def _module(target: Target) -> str:
    """All loops for one target."""
    lanes = target.width // 32
    f32, i32, i64 = f"<{lanes} x float>", f"<{lanes} x i32>", f"<{lanes // 2} x i64>"
    fma, ctpop = f"@llvm.fma.v{lanes}f32", f"@llvm.ctpop.v{lanes // 2}i64"
    fused = f"  %new# = call {f32} {fma}({f32} %a#, {f32} %b, {f32} %old#)"
    if target.name == "portable":  # llvm.fma is a call of the C library where there is none
        fused = f"  %p# = fmul {f32} %a#, %b\n  %new# = fadd {f32} %old#, %p#"
    declare_dot, dot = _dot(target)
    bits = f"""  %x# = xor {i64} %a#, %b
  %c# = call {i64} {ctpop}({i64} %x#)
  %new# = add {i64} %old#, %c#"""
    hidden = ("v" if target.width == 512 else "x") if X86 else "w"
    return "\n".join(
        (
            f"declare {f32} {fma}({f32}, {f32}, {f32})",
            f"declare {i64} {ctpop}({i64})",
            declare_dot,
            _register_loop("peak_f32", f32, fused, hidden),
            _register_loop("peak_i8", i32, dot, hidden),
            _register_loop("peak_bit", i64, bits, hidden),
            _clock_loop(),
            _stream_loop(),
        )
    )


def _numbered(template: str, count: int) -> str:
    """`template` once for each number, which replaces `#`."""
    return "\n".join(template.replace("#", str(n)) for n in range(count))


def _register_loop(name: str, vector: str, step: str, hidden: str) -> str:
    """void name(passes, data): `step` on every accumulator, passes times."""
    steps, before = [], "%first"
    for n in range(ACCUMULATORS):
        # An empty piece of assembly: no instruction, but LLVM believes that the value changed, and
        # so hoists nothing out of the loop.
        hide = f'  %a{n} = call {vector} asm sideeffect "", "={hidden},0"({vector} {before})'
        steps += [hide, step.replace("#", str(n))]
        before = f"%a{n}"
    body = "\n".join(steps)
    phis = f"  %old# = phi {vector} [zeroinitializer, %entry], [%new#, %body]"
    stores = f"""  %to# = getelementptr {vector}, ptr %data, i64 #
  store {vector} %new#, ptr %to#"""
    return f"""define void @{name}(i64 %passes, ptr %data) {{
entry:
  %first = load {vector}, ptr %data
  %b = load {vector}, ptr %data
  br label %body
body:
  %i = phi i64 [0, %entry], [%next, %body]
{_numbered(phis, ACCUMULATORS)}
{body}
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %passes
  br i1 %more, label %body, label %exit
exit:
{_numbered(stores, ACCUMULATORS)}
  ret void
}}"""


def _clock_loop() -> str:
    """void peak_clock(passes, data): CHAIN additions in a row, each waiting for the one before."""
    chain = [
        f'  %h{n} = call i64 asm sideeffect "", "=r,0"(i64 %x{n})\n  %x{n + 1} = add i64 %h{n}, %by'
        for n in range(CHAIN)
    ]
    body = "\n".join(chain)
    return f"""define void @peak_clock(i64 %passes, ptr %data) {{
entry:
  %by = load i64, ptr %data
  br label %body
body:
  %i = phi i64 [0, %entry], [%next, %body]
  %x0 = phi i64 [1, %entry], [%x{CHAIN}, %body]
{body}
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %passes
  br i1 %more, label %body, label %exit
exit:
  store i64 %x{CHAIN}, ptr %data
  ret void
}}"""


def _stream_loop() -> str:
    """void stream(at, passes, repeat, out): reads passes * STREAMS lines, repeat times over."""
    vector = f"<{LINE // 8} x i64>"
    outer = f"  %s# = phi {vector} [zeroinitializer, %entry], [%r#, %outer_end]"
    inner = f"  %o# = phi {vector} [%s#, %outer], [%r#, %body]"
    load = f"""  %p# = getelementptr {vector}, ptr %line, i64 #
  %v# = load {vector}, ptr %p#
  %r# = or {vector} %o#, %v#"""
    store = f"""  %q# = getelementptr {vector}, ptr %out, i64 #
  store {vector} %r#, ptr %q#"""
    return f"""define void @stream(ptr %at, i64 %passes, i64 %repeat, ptr %out) {{
entry:
  br label %outer
outer:
  %k = phi i64 [0, %entry], [%k_next, %outer_end]
{_numbered(outer, STREAMS)}
  %start = call ptr asm sideeffect "", "=r,0"(ptr %at)
  br label %body
body:
  %i = phi i64 [0, %outer], [%next, %body]
{_numbered(inner, STREAMS)}
  %offset = mul i64 %i, {STREAMS * LINE}
  %line = getelementptr i8, ptr %start, i64 %offset
{_numbered(load, STREAMS)}
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %passes
  br i1 %more, label %body, label %outer_end
outer_end:
  %k_next = add i64 %k, 1
  %again = icmp slt i64 %k_next, %repeat
  br i1 %again, label %outer, label %exit
exit:
{_numbered(store, STREAMS)}
  ret void
}}"""


# ---- compiling and timing -----------------------------------------------------------------------

_KEPT: list[Any] = []  # a library's code lives as long as the object that linked it


@cache
def _compile(target: Target) -> Mapping[str, Loop]:
    """The loops as functions, compiled once in a process."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    llvm.initialize_native_asmparser()
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=target.cpu, features=target.features, opt=3, jit=True
    )
    module = llvm.parse_assembly(_module(target))
    module.verify()
    number, pointer = ctypes.c_int64, ctypes.c_void_p
    arguments = {f"peak_{name}": (number, pointer) for name in ("f32", "i8", "bit", "clock")}
    signatures = {**arguments, "stream": (pointer, number, number, pointer)}
    builder = llvm.JITLibraryBuilder().add_object_img(machine.emit_object(module))
    for name in signatures:
        builder = builder.export_symbol(name)
    linker = llvm.create_lljit_compiler(machine)
    library = builder.link(linker, f"simdflow_peaks_{target.name}")
    _KEPT.append((linker, library))
    return {
        name: ctypes.CFUNCTYPE(None, *types)(library[name]) for name, types in signatures.items()
    }


def _stream_rate(size: int, seconds: float) -> float:
    """GB/s of reading about `size` bytes over and over, by the widest loads this CPU has."""
    passes = size // (STREAMS * LINE)
    nbytes = passes * STREAMS * LINE
    buffer, out = _aligned(nbytes), _aligned(STREAMS * LINE)
    repeat = max(1, STREAMED // nbytes)
    stream = _compile(choose(None))["stream"]
    run = partial(stream, buffer.ctypes.data, passes, repeat, out.ctypes.data)
    (best,) = _best_ns([run], seconds)
    return nbytes * repeat / best


def _best_ns(runs: Sequence[Callable[[], None]], seconds: float) -> list[int]:
    """The shortest time of each; they take turns, so that all see the same clock."""
    clock = time.perf_counter_ns
    best: list[int] = []
    end = clock() + int(seconds * 1e9)
    while not best or clock() < end:
        took = []
        for run in runs:
            before = clock()
            run()
            took.append(clock() - before)
        best = [min(pair) for pair in zip(best or took, took, strict=True)]
    return best


def _aligned(nbytes: int) -> np.ndarray:
    """Bytes from a multiple of LINE on; written once, so that every page is really there."""
    raw = np.ones(nbytes + LINE, np.uint8)
    start = -raw.ctypes.data % LINE
    return raw[start : start + nbytes]


def _levels() -> list[tuple[str, int, int]]:
    """(level, capacity, bytes to read) of the caches of core 0 and of memory, smallest first."""
    found = caches()
    memory = min(max(4 * found.l3, 64 << 20), 256 << 20)
    sizes = {"L1": found.l1, "L2": found.l2, "L3": found.l3}
    return [*((level, n, n // 2) for level, n in sizes.items()), ("DRAM", 0, memory)]
