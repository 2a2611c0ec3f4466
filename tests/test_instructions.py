"""Every row of every instruction table: its machine code against its numpy meaning.

Each executable target is tried with all the types a row takes, at full and at odd widths, on data
with the extremes of the type; the functions of vectormath over the whole range of f32.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from instruction_code import Memory, Use, meaning, run
from instruction_uses import TARGETS, uses

from simdflow.compiler.program import Vec
from simdflow.dsl.types import SCALARS
from simdflow.targets import host_targets
from simdflow.targets.emission import dtype, is_float
from simdflow.targets.vectormath import MAX_ULP

# A CPU without its optional instructions differs in these rows only.
OPTIONAL = ("dot", "dot_words", "dotbits", "gather")
CASES = [
    (name, row)
    for name in TARGETS
    for row in uses(name)
    if not name.endswith("_bare") or row in OPTIONAL
]


def extremes(scalar: str) -> st.SearchStrategy:
    if scalar == "bool":
        return st.booleans()
    if is_float(scalar):
        bits = SCALARS[scalar].bits
        info = np.finfo(dtype(scalar))
        special = [0.0, -0.0, 0.5, 1.5, 2.5, -0.5, 127.5, 255.5, -128.5, 2.0**23 + 1, 1e9, -1e18]
        special += [float(v) for v in (info.max, info.min, info.tiny, info.smallest_subnormal)]
        special += [
            2.0**31,
            2.0**31 - 128,
            -(2.0**31),
            2.0**63,
            -(2.0**63),
            np.inf,
            -np.inf,
            np.nan,
        ]
        return st.sampled_from(special) | st.floats(width=bits, allow_nan=False)
    s = SCALARS[scalar]
    low, high = int(s.low), int(s.high)
    near = {low, low + 1, high, high - 1, 0, 1, 2, 127, 128, 255, 32767, 32768} | {-1, -128, -129}
    return st.sampled_from(sorted(v for v in near if low <= v <= high)) | st.integers(low, high)


def arrays(vec: Vec) -> st.SearchStrategy:
    values = extremes(vec.scalar)
    return hnp.arrays(dtype(vec.scalar), vec.lanes, elements=values, fill=values)


MEMORY_SIZE = 1024


@st.composite
def operands(draw: st.DrawFn, use: Use) -> list[np.ndarray]:
    """Arrays for the registers and memories of a use, inside what the row promises to take."""
    found = []
    for a in use.arguments:
        if isinstance(a, Vec):
            found.append(draw(arrays(a)))
        elif isinstance(a, Memory):
            found.append(draw(arrays(Vec(a.scalar, MEMORY_SIZE))))
    return defined(use, found)


def defined(use: Use, found: list[np.ndarray]) -> list[np.ndarray]:
    """The same, without what the compiler proves never to happen."""
    scalar = use.vec.scalar
    if use.name in ("floordiv", "mod") and not is_float(scalar):
        x, y = found
        y[y == 0] = 1
        if scalar.startswith("i"):
            x[(y == -1) & (x == np.iinfo(x.dtype).min)] = 5
    if use.name in ("shl", "shr"):
        found[1] %= SCALARS[scalar].bits
    if use.name in ("max_into", "min_into") and is_float(scalar):
        found[0][np.isnan(found[0])] = 0
    if use.name == "dot" and is_float(scalar):
        found = [np.where(np.abs(x) < 1e6, x, 1).astype(x.dtype) for x in found]
    if use.name == "convert" and not is_float(scalar) and found[0].dtype.kind == "f":
        s = SCALARS[scalar]
        edge = 2.0 ** min(s.bits - 1, 22)
        x = found[0]
        found = [np.where((x >= max(s.low, -edge)) & (x < edge), x, 0).astype(x.dtype)]
    return found


def same(use: Use, got: np.ndarray, wanted: np.ndarray, given: list[np.ndarray]) -> bool:
    if use.name in MAX_ULP:
        return ulps(got, wanted).max() <= MAX_ULP[use.name]
    if use.name == "dot" and is_float(use.vec.scalar):
        acc, x, y = (v.astype(np.float64) for v in given)
        slack = 4 * np.finfo(got.dtype).eps * (np.abs(acc) + np.abs(x * y))
        return bool((np.abs(got - wanted) <= slack).all())
    return np.array_equal(got, wanted, equal_nan=got.dtype.kind == "f")


def ulps(got: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """How many f32 values apart; NaN and NaN are 0, NaN and a number are many."""

    def line(x: np.ndarray) -> np.ndarray:
        bits = x.view(np.int32).astype(np.int64)
        return np.where(bits < 0, -(bits & 0x7FFFFFFF), bits)

    nan = np.isnan(got), np.isnan(wanted)
    apart = np.abs(line(got) - line(wanted))
    return np.where(nan[0] & nan[1], 0, np.where(nan[0] ^ nan[1], 2**31, apart))


@pytest.mark.parametrize(("name", "row"), CASES, ids=[f"{n}-{r}" for n, r in CASES])
@settings(max_examples=settings().max_examples // 3)
@given(data=st.data())
def test_code_does_what_the_meaning_says(name: str, row: str, data: st.DataObject) -> None:
    use = data.draw(st.sampled_from(uses(name)[row]))
    given_arrays = data.draw(operands(use))
    by_numpy = [a.copy() for a in given_arrays]
    wanted = meaning(TARGETS[name], use, *by_numpy)
    got = run(TARGETS[name], use, *given_arrays)
    if wanted is None:
        assert np.array_equal(
            given_arrays[0], by_numpy[0], equal_nan=is_float(use.arguments[0].scalar)
        )
    else:
        assert wanted.dtype == got.dtype and wanted.shape == got.shape
        assert same(use, got, wanted, given_arrays), f"{got} is not {wanted}"


def samples() -> list[tuple[str, np.ndarray]]:
    """Where a function may be wrong: every 2^14th f32, and densely where its formula changes."""
    everywhere = np.arange(0, 2**32, 2**14, dtype=np.uint64).astype(np.uint32).view(np.float32)
    dense = [np.linspace(low, high, 40_000) for low, high in ((-110, 95), (-5, 5), (0, 2))]
    edges = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 2.0**-126, 88.72283, -103.98]
    return [
        ("everywhere", everywhere),
        *((f"dense {i}", d.astype(np.float32)) for i, d in enumerate(dense)),
        ("edges", np.resize(np.array(edges, np.float32), 64)),
    ]


@pytest.mark.parametrize("row", MAX_ULP)
@pytest.mark.parametrize("name", [t.name for t in host_targets()])
def test_functions_are_as_exact_as_they_say(name: str, row: str) -> None:
    vec = Vec("f32", 64)
    use = Use(row, vec, (vec,))
    for where, values in samples():
        values = np.resize(values, -(-len(values) // 64) * 64)
        got = np.concatenate([run(TARGETS[name], use, part) for part in values.reshape(-1, 64)])
        apart = ulps(got, TARGETS[name].table[row].meaning(vec, values))
        worst = int(apart.argmax())
        assert apart[worst] <= MAX_ULP[row], f"{where}: {row}({values[worst]!r}) = {got[worst]!r}"


def test_limits_of_the_functions() -> None:
    x = np.array([-np.inf, np.inf, np.nan, 0], np.float32)
    vec = Vec("f32", 4)
    wanted = {
        "exp": [0, np.inf, np.nan, 1],
        "log": [np.nan, np.inf, np.nan, -np.inf],
        "tanh": [-1, 1, np.nan, 0],
        "erf": [-1, 1, np.nan, 0],
        "sigmoid": [0, 1, np.nan, 0.5],
        "rsqrt": [np.nan, 0, np.nan, np.inf],
    }
    assert wanted.keys() == MAX_ULP.keys()
    for name, chosen in TARGETS.items():
        for row, values in wanted.items():
            got = run(chosen, Use(row, vec, (vec,)), x)
            assert np.array_equal(got, np.array(values, np.float32), equal_nan=True), (name, row)


@pytest.mark.parametrize("row", ["saturate", "round_saturate"])
@pytest.mark.parametrize("name", [t.name for t in host_targets()])
def test_floats_saturate_at_the_very_limits(name: str, row: str) -> None:
    limits = [2.0**n + d for n in (7, 8, 15, 16, 31, 32, 63) for d in (-1, -0.5, -0.49, 0, 0.5, 1)]
    wide = np.array([*limits, np.inf, np.nan, 0.5, 1.5, 2.0**31 - 128])
    for use in uses(name)[row]:
        (source,) = use.arguments
        if isinstance(source, Vec) and is_float(source.scalar):
            signed = np.concatenate([wide, -wide]).astype(dtype(source.scalar))
            values = np.resize(signed, -(-len(signed) // source.lanes) * source.lanes)
            for part in values.reshape(-1, source.lanes):
                got, wanted = (f(TARGETS[name], use, part) for f in (run, meaning))
                assert np.array_equal(got, wanted), f"{use} of {part}: {got} is not {wanted}"
