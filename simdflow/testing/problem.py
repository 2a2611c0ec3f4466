"""Turns a kernel and a few words about its operands into problems: types, constants and values.

Sizes are drawn for the axes of the nest, and every operand is given the shape that the nest's own
indices reach, so operands always fit each other. Runs no kernel.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from ..compiler.bind import bind
from ..compiler.check import check as check_nest
from ..dsl.errors import OperandError, SimdflowError
from ..dsl.nest import LoopNest
from ..dsl.types import SCALARS, OperandType, RangedScalar, Scalar, bit
from ..kernel import Kernel
from ..operands import Bits, PackedOperand, pack, pack_bits
from .operands import EDGES, extremes
from .sizes import Shapes

# A size or a constant: fixed, (smallest, largest), or a list of choices.
Sizes = int | tuple[int, int] | list[int]
Fill = str
FILLS: tuple[Fill, ...] = ("ones", "random", "extremes")
# What is tried for an operand whose element type is not given.
CANDIDATES = tuple(SCALARS[name] for name in ("f32", "i8", "u8", "i32", "i16", "bit"))


@dataclass(frozen=True)
class Problem:
    """Everything that decides a kernel's operands, in a form that fits on a line.

    types       operand -> type (storage 'packed' for one passed through `sf.pack`, 'csr' for a
                compressed one); the output only where it must be given
    fill, seed  what the values are; see `values`
    """

    types: tuple[tuple[str, OperandType], ...]
    constants: tuple[tuple[str, int | float], ...] = ()
    fill: Fill = "random"
    seed: int = 0

    def operands(self, kernel: Kernel) -> dict[str, Any]:
        """Input -> what the kernel is called with: an array, Bits, or a PackedOperand."""
        types = dict(self.types)
        names = [o.name for o in kernel.nest.operands if o.role == "in"]
        return {n: operand(types[n], self.fill, (self.seed, i)) for i, n in enumerate(names)}

    def nest(self, kernel: Kernel) -> LoopNest:
        """The kernel's nest for this problem, bound and checked."""
        nest = bind(kernel.nest, dict(self.types), dict(self.constants))
        check_nest(nest)
        return nest


def operand(kind: OperandType, fill: Fill, seed: tuple[int, ...]) -> Any:
    """What a kernel takes for an operand type: an array, Bits for `bit`, a PackedOperand for packed
    and compressed ones. The border of a type holds its border value.
    """
    rng = np.random.default_rng(seed)
    ranged = RangedScalar(kind.scalar, kind.low, kind.high)
    if kind.storage == "csr":
        places = np.sort(rng.permutation(kind.size)[: kind.nonzeros])
        rows, columns = np.divmod(places, kind.shape[1])
        starts = np.searchsorted(rows, np.arange(kind.shape[0] + 1))
        data = values((kind.nonzeros,), kind.scalar, kind.low, kind.high, fill, rng)
        return pack(
            _Csr(kind.shape, starts.astype(np.int32), columns.astype(np.int32), data), ranged
        )
    array = values(kind.shape, kind.scalar, kind.low, kind.high, fill, rng)
    if kind.border:
        inner = tuple(slice(a, n - b) for n, (a, b) in zip(kind.shape, kind.border, strict=True))
        bordered = np.full_like(array, kind.border_value)
        bordered[inner] = array[inner]
        array = bordered
    if kind.scalar == bit:
        bits = pack_bits(array)
        return pack(bits) if kind.storage == "packed" else bits
    return pack(array, ranged) if kind.storage == "packed" else array


@dataclass(frozen=True)
class _Csr:
    """What `sf.pack` reads of a SciPy matrix, without SciPy."""

    shape: tuple[int, ...]
    indptr: np.ndarray
    indices: np.ndarray
    data: np.ndarray


def values(
    shape: tuple[int, ...],
    scalar: Scalar,
    low: float,
    high: float,
    fill: Fill,
    rng: np.random.Generator,
) -> np.ndarray:
    """An array of a fill: 'ones', 'random' over the range (floats: normal, cut to it), or
    'extremes' of the range (floats: of -4 to 4, so that sums stay finite). dtype i8 for `bit`.
    """
    if scalar == bit:
        signs = rng.integers(0, 2, shape) * 2 - 1
        return (np.ones(shape) if fill == "ones" else signs).astype(np.int8)
    dtype = scalar.dtype
    if scalar.is_float:
        near = (max(low, -4.0), min(high, 4.0))
        if fill == "extremes":
            found = [v for v in extremes(RangedScalar(scalar, *near)) if v == 0 or abs(v) > 1e-6]
            return rng.choice(np.array(found, dtype), shape)
        drawn = np.ones(shape) if fill == "ones" else rng.standard_normal(shape)
        return np.clip(drawn, *near).astype(dtype)
    if fill == "extremes":
        return rng.choice(np.array(extremes(RangedScalar(scalar, low, high)), dtype), shape)
    if fill == "ones":
        return np.full(shape, min(max(1, int(low)), int(high)), dtype)
    return rng.integers(int(low), int(high), shape, dtype, endpoint=True)


def dense(given: Any) -> np.ndarray:
    """An operand as a numpy reference takes it: bits as i8 of +1 and -1, compressed rows with their
    zeros.
    """
    if isinstance(given, Bits):
        return given.values()
    if isinstance(given, PackedOperand) and given.csr is not None:
        parts = given.csr
        array = np.zeros(given.shape, parts["data"].dtype)
        rows = np.repeat(np.arange(given.shape[0]), np.diff(parts["indptr"]))
        array[rows, parts["indices"]] = parts["data"]
        return array
    if isinstance(given, PackedOperand):
        assert given.array is not None
        if given.type.scalar == bit:
            return Bits(given.array, given.type.shape).values()
        return given.array
    return np.asarray(given)


@st.composite
def problems(draw: st.DrawFn, /, kernel: Kernel, *, most: int = 4000, **given: Any) -> Problem:
    """Problems of a kernel; each keyword names an operand, a constant or an axis of its nest.

        problems(conv2d, x=sf.u8, w=[sf.i8, sf.i8.range(-7, 7)], stride=[1, 2], kh=3, ic=(1, 40))

    operand    an element type, with or without a range; a whole operand type, which fixes the
               shape; or a list of choices. Left out: every type that the nest accepts
    axis       its extent: a number, (smallest, largest), or a list of choices. Left out: up to 3
               for a window, up to 40 along the last dimension of an operand, up to 6 elsewhere
    constant   a number, or a list of choices. Left out: its default

    The points of the nest are held near `most`. Shrinks to the smallest sizes and simplest values.
    Raises OperandError for a keyword that names nothing of the kernel.
    """
    _known(kernel, given)
    constants = {k: v for k, v in kernel.nest.constants}
    for name in constants:
        if name in given:
            choice = given[name]
            constants[name] = draw(st.sampled_from(choice)) if isinstance(choice, list) else choice
    kinds = {k: given[k] for k in _operands(kernel) if k in given}
    kinds = {k: draw(st.sampled_from(v)) if isinstance(v, list) else v for k, v in kinds.items()}
    missing = [o.name for o in kernel.nest.operands if o.role == "in" and o.name not in kinds]
    if missing:
        found = accepted(kernel, tuple(kinds.items()), tuple(constants.items()))
        kinds |= dict(draw(st.sampled_from(found)))

    def extent(name: str, low: int, high: int, taken: int) -> int:
        choice = given.get(name, (low, high))
        if isinstance(choice, list):
            return draw(st.sampled_from(choice))
        if isinstance(choice, int):
            return choice
        # Cut after drawing, so that shrinking one size does not give others a new meaning.
        low, high = choice
        drawn = draw(st.sampled_from(_sizes(low, high)))
        return max(low, min(drawn, most // max(taken, 1)))

    def slack(most_slack: int) -> int:
        return draw(st.integers(0, most_slack))

    problem = _problem(kernel, kinds, constants, extent, slack)
    assume(problem is not None)
    assert problem is not None
    types = dict(problem.types)
    for name, kind in types.items():
        if kind.storage == "csr":
            types[name] = replace(kind, nonzeros=draw(st.integers(0, kind.size)))
        elif kernel.nest.operand(name).role == "in" and draw(st.booleans()):
            types[name] = replace(kind, storage="packed")
    fill, seed = draw(st.sampled_from(FILLS)), draw(st.integers(0, 255))
    return replace(problem, types=tuple(types.items()), fill=fill, seed=seed)


@lru_cache(maxsize=64)
def _sizes(low: int, high: int) -> tuple[int, ...]:
    """The sizes from low to high; one time in three a small one, in three one at a vector's edge.

    One list, in which the first is the simplest: it shrinks better than a choice of strategies.
    """
    every = range(low, high + 1)
    small = range(low, min(high, low + 7) + 1)
    edges = [e for e in EDGES if low <= e <= high] or [low]
    times = len(every) // len(small), len(every) // len(edges)
    return (*every, *(tuple(small) * times[0]), *(tuple(edges) * times[1]))


def _operands(kernel: Kernel) -> list[str]:
    return [o.name for o in kernel.nest.operands]


def _known(kernel: Kernel, given: Mapping[str, Any]) -> None:
    names = [*_operands(kernel), *(k for k, _ in kernel.nest.constants)]
    names += [a.name for a in kernel.nest.axes]
    for name in given:
        if name not in names:
            raise OperandError(
                f"{kernel.name}: {name}={given[name]!r} is no operand, constant or axis; they are "
                f"{', '.join(names)}. Use one of them."
            )


@lru_cache(maxsize=256)
def accepted(
    kernel: Kernel,
    kinds: tuple[tuple[str, Any], ...],
    constants: tuple[tuple[str, int | float], ...],
) -> tuple[tuple[tuple[str, Scalar], ...], ...]:
    """The element types of the operands not given with which the nest passes its check, at most 16.

    Raises OperandError when there are none.
    """
    names = [o.name for o in kernel.nest.operands if o.role == "in"]
    missing = [n for n in names if n not in dict(kinds)]
    found = []
    for scalars in itertools.product(CANDIDATES, repeat=len(missing)):
        tried = tuple(zip(missing, scalars, strict=True))
        small = _problem(kernel, dict(kinds) | dict(tried), dict(constants), _smallest, _none)
        if small is not None:
            found.append(tried)
        if len(found) == 16:
            break
    if not found:
        raise OperandError(
            f"{kernel.name}: {', '.join(missing)} fit no element type of "
            f"{', '.join(map(repr, CANDIDATES))}. Give the types, as in {missing[0]}=sf.f32."
        )
    return tuple(found)


def _smallest(name: str, low: int, high: int, taken: int) -> int:
    return low


def _none(most: int) -> int:
    return 0


def _problem(
    kernel: Kernel,
    kinds: Mapping[str, Any],
    constants: Mapping[str, int | float],
    extent: Callable[[str, int, int, int], int],
    slack: Callable[[int], int],
) -> Problem | None:
    """A problem with shapes from the nest's indices, or None when the nest refuses them."""
    try:
        return _made(kernel, kinds, constants, extent, slack)
    except (SimdflowError, ZeroDivisionError):
        return None


def _made(
    kernel: Kernel,
    kinds: Mapping[str, Any],
    constants: Mapping[str, int | float],
    extent: Callable[[str, int, int, int], int],
    slack: Callable[[int], int],
) -> Problem:
    """The same; raises what `bind` and `check` raise."""
    nest = kernel.nest
    shapes = Shapes(nest, kinds, constants).filled(extent, slack)
    types = {}
    for o in nest.operands:
        kind = kinds.get(o.name)
        if isinstance(kind, OperandType):
            types[o.name] = kind
        elif kind is not None:
            types[o.name] = kind[shapes[o.name]]
        if any(a.of == o.name for a in nest.axes):
            types[o.name] = replace(types[o.name], storage="csr", nonzeros=types[o.name].size)
    problem = Problem(tuple(types.items()), tuple(constants.items()))
    problem.nest(kernel)
    return problem


def refusal(kernel: Kernel, given: Mapping[str, Any]) -> str:
    """Why the nest refuses the problem that has the first of all choices, and small sizes."""

    def first(choice: Any) -> Any:
        return choice[0] if isinstance(choice, list) else choice

    def extent(name: str, low: int, high: int, taken: int) -> int:
        choice = first(given.get(name, (low, high)))
        return choice if isinstance(choice, int) else min(choice[0] + 2, choice[1])

    kinds = {k: first(given[k]) for k in _operands(kernel) if k in given}
    constants = {k: first(given.get(k, v)) for k, v in kernel.nest.constants}
    inputs = [o.name for o in kernel.nest.operands if o.role == "in"]
    if any(name not in kinds for name in inputs):
        kinds |= dict(accepted(kernel, tuple(kinds.items()), tuple(constants.items()))[0])
    try:
        _made(kernel, kinds, constants, extent, _none)
    except (SimdflowError, ZeroDivisionError) as error:
        return str(error)
    return "no reason that holds for small sizes"
