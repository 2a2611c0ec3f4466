"""Which uses of every instruction are tried, on which targets.

Lists, for each row of the instruction tables, the types, widths and immediates that kernels may ask
for; it runs none of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from instruction_code import Memory, Use

from simdflow.compiler.program import Vec
from simdflow.dsl.types import SCALARS
from simdflow.targets import Target, host_features, host_targets
from simdflow.targets.avx2 import avx2
from simdflow.targets.avx512 import avx512
from simdflow.targets.emission import is_float
from simdflow.targets.vectormath import MAX_ULP

INTEGERS = ("u8", "i8", "u16", "i16", "u32", "i32", "i64")
FLOATS = ("f32", "f64")


def without(chosen: Target) -> Iterator[Target]:
    """The same target on a CPU that lacks its optional instructions: they run here as well."""
    has = host_features() - {"avx512vnni", "avx512vpopcntdq", "avx512vbmi", "avxvnni"}
    if chosen.name == "avx512":
        features = chosen.features
        for gone in host_features() - has:
            features = features.replace(f"+{gone}", f"-{gone}")
        yield avx512("skylake-avx512", has, features)
    if chosen.name == "avx2":
        yield avx2(has)


TARGETS = {t.name: t for t in host_targets()}
TARGETS |= {f"{t.name}_bare": bare for t in host_targets() for bare in without(t)}


def vectors(chosen: Target, scalar: str) -> tuple[Vec, ...]:
    """A full register, a half, one lane, and twice a register."""
    full = chosen.width // (8 if scalar == "bool" else SCALARS[scalar].bits)
    return tuple(Vec(scalar, n) for n in sorted({1, full // 2, full, 2 * full}))


def lane_by_lane(chosen: Target) -> Iterator[Use]:
    both = (*INTEGERS, *FLOATS)
    binary = {
        **dict.fromkeys(("add", "sub", "mul", "floordiv", "mod", "max", "min"), both),
        **dict.fromkeys(("max_into", "min_into"), both),
        **dict.fromkeys(("and", "or", "xor"), (*INTEGERS, "bool")),
        **dict.fromkeys(("shl", "shr"), INTEGERS),
        "div": FLOATS,
    }
    unary = {
        **dict.fromkeys(("neg", "abs", "copy"), both),
        **dict.fromkeys(("round", "floor", "ceil", "sqrt"), FLOATS),
        "splat": both,
        "not": (*INTEGERS, "bool"),
        **dict.fromkeys(MAX_ULP, ("f32",)),
    }
    for arity, listed in ((2, binary), (1, unary)):
        for name, scalars in listed.items():
            for scalar in scalars:
                for vec in vectors(chosen, scalar):
                    yield Use(name, vec, (vec,) * arity)
    for scalar in both:
        for vec in vectors(chosen, scalar):
            mask = Vec("bool", vec.lanes)
            for name in ("eq", "ne", "lt", "le", "gt", "ge"):
                yield Use(name, mask, (vec, vec))
            yield Use("select", vec, (mask, vec, vec))
            yield Use("tail", vec, (vec, vec, vec.lanes // 2))
            yield Use("const", vec, (-1.5 if is_float(scalar) else 77,))
    for vec in vectors(chosen, "u8"):
        yield Use("flip", vec, (Vec("i8", vec.lanes),))
        if vec.lanes >= 16:
            yield Use("unweave", vec, (vec,))
            yield Use("join", vec, (vec, vec.lanes // 4, *(vec.lanes // 8,) * 4))
            for half, size in ((0, 1), (1, 1), (0, 2), (1, 2)):
                yield Use("zip", vec, (vec, vec, half, size))
    for scalar in both:
        for vec in vectors(chosen, scalar):
            if vec.lanes * SCALARS[scalar].bits >= 128:
                for half in (0, 1):
                    yield Use("zip", vec, (vec, vec, half, 1))
            for parts in (2, 3, 4) if vec.lanes > 1 else ():
                yield Use("interleave", Vec(scalar, parts * vec.lanes), (vec,) * parts)


def conversions(chosen: Target) -> Iterator[Use]:
    scalars = (*INTEGERS, *FLOATS)
    for have in scalars:
        for want in scalars:
            for vec in vectors(chosen, want):
                source = (Vec(have, vec.lanes),)
                yield Use("convert", vec, source)
                if not is_float(want):
                    yield Use("saturate", vec, source)
                    if is_float(have):
                        yield Use("round_saturate", vec, source)
                    else:
                        yield Use("wrap", vec, source)
    for want in scalars:
        for vec in vectors(chosen, want):
            yield Use("convert", vec, (Vec("bool", vec.lanes),))


def reductions(chosen: Target) -> Iterator[Use]:
    for lanes in {1, 4, 8, chosen.width // 32, chosen.width // 16}:
        for a in ("u8", "i8", "i16"):
            for b in ("u8", "i8", "i16"):
                for group in (1, 2, 4):
                    x, y = Vec(a, lanes * group), Vec(b, lanes * group)
                    for acc in (Vec("i32", lanes), Vec("i16", lanes)):
                        yield Use("dot", acc, (acc, x, y))
        for scalar in FLOATS:
            acc = Vec(scalar, lanes)
            yield Use("dot", acc, (acc, acc, acc))
        acc = Vec("i32", lanes)
        yield Use("dotbits", acc, (acc, Vec("u8", 4 * lanes), Vec("u8", 4 * lanes)))
        for kind in ("u8", "i8"):
            words = Vec(kind, 4 * lanes), Vec("i16", 4 * lanes)
            yield Use("dot_words", acc, (acc, *words))
        for parts in (1, 2, 3, 4, 6):
            for want in ("u8", "i8", "i16"):
                vec = Vec(want, parts * lanes)
                yield Use("narrow", vec, (acc,) * parts)
                for zero_point in (-128, 3, 255, 32512, -32513, 40000):
                    yield Use("narrow_add", vec, (*(acc,) * parts, zero_point))
    for scalar in (*INTEGERS, *FLOATS):
        for vec in vectors(chosen, scalar):
            for name in ("hadd", "hmax", "hmin"):
                yield Use(name, Vec(scalar, 1), (vec,))


def memory_rows(chosen: Target) -> Iterator[Use]:
    for scalar in ("u8", "i8", "i16", "i32", "i64", "f32", "f64"):
        here = Memory(scalar, 3)
        for vec in vectors(chosen, scalar):
            half = max(vec.lanes // 2, 1)
            yield Use("load", vec, (here,))
            yield Use("store", vec, (here, vec))
            yield Use("broadcast", vec, (here, 1))
            for valid in {half, vec.lanes - 1} - {0}:
                yield Use("load", vec, (here, valid))
                yield Use("store", vec, (here, vec, valid))
            for first in {half} - {vec.lanes}:
                yield Use("store", vec, (here, vec, vec.lanes - first, first))
            for places in ((0, 16), (8, 0, 8, 4)) if vec.lanes >= 4 else ():
                yield Use("pieces", vec, (here, *places))
            for stride in (2, 5):
                yield Use("scatter", vec, (here, vec, stride, half))
            for stride in (1, 2, 3, 4, 5, -1, -3):
                ahead = here if stride > 0 else Memory(scalar, 3 * vec.lanes)
                for some in {half, vec.lanes}:
                    yield Use("gather", vec, (ahead, 1, stride, 1, some, 1))
            row = 128 // SCALARS[scalar].bits
            for count in {vec.lanes // row, 1} if vec.lanes >= row else ():
                for valid in {row, row - 1, 1} - {0}:
                    yield Use("rows", vec, (here, 7, count, valid))
            for group in {2, 4} if vec.lanes >= 4 else ():
                yield Use("broadcast", vec, (here, group))
                yield Use("broadcast", vec, (here, group, group - 1))
                for jump in range(1, group):
                    steps = [g + 9 * (g >= jump) for g in range(group)]
                    yield Use("collect", vec, (here, group, *steps))
                    yield Use("collect", vec, (here, group, *steps[: group - 1]))
                lanes = vec.lanes // group
                for lane_stride, group_stride in ((1, 7), (1, 64), (5, 1), (3, 2)):
                    for valid in (group, group - 1, 1):
                        for some in {lanes, max(lanes // 2, 1)}:
                            strides = (group, lane_stride, group_stride)
                            yield Use("gather", vec, (here, *strides, some, valid))
            yield Use("lookup", vec, (here, Vec("u8", vec.lanes)))
    for vec in vectors(chosen, "bool"):
        for valid in {1, vec.lanes - 1, vec.lanes} - {0}:
            yield Use("store_bits", vec, (Memory("u8", 3), vec, valid))


@cache
def uses(name: str) -> dict[str, list[Use]]:
    """Every use tried, by row."""
    chosen = TARGETS[name]
    found: dict[str, list[Use]] = {}
    for family in (lane_by_lane, conversions, reductions, memory_rows):
        for use in family(chosen):
            found.setdefault(use.name, []).append(use)
    return found
