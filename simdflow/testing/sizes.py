"""Turns extents of a nest's axes into shapes of its operands, by following the nest's own indices.

`x[oh*2 + kh]` with oh<5 and kh<3 makes x at least 11 long. It works on nests that are not bound
yet, and leaves to `bind` and `check` whether the result is right.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from ..dsl.nest import Affine, Arith, Dim, Fetched, Load, Lookup, LoopNest, Size, resolve, walk
from ..dsl.types import OperandType

# Elements of a table whose size is not given: one for each value of 8 bits.
TABLE = 256
# How long an axis is drawn at the most: in a window, along the last dimension, elsewhere.
WINDOW, LONG, SHORT = 3, 40, 6


class Shapes:
    """Finds the dimensions of operands from extents of axes, and extents from known dimensions."""

    def __init__(
        self, nest: LoopNest, kinds: Mapping[str, Any], constants: Mapping[str, int | float]
    ) -> None:
        self._nest, self._constants = nest, constants
        self._extents: dict[str, int] = {}
        self._dims: dict[tuple[str, int], int] = {}
        self._ranges = {k: (v.low, v.high) for k, v in kinds.items()}
        for name, kind in kinds.items():
            if isinstance(kind, OperandType):
                self._dims |= {(name, i): n for i, n in enumerate(kind.shape)}
        stored = Load(nest.store.operand, nest.store.index)
        self._accesses = (*nest.loads(), stored)
        tables = (e.operand for x in nest.expressions() for e in walk(x) if isinstance(e, Lookup))
        for name in tables:
            self._dims.setdefault((name, 0), TABLE)

    def filled(
        self, extent: Callable[[str, int, int, int], int], slack: Callable[[int], int]
    ) -> dict[str, tuple[int, ...]]:
        """operand -> shape; `extent(axis, low, high, points so far)` chooses what nothing else
        decides, and `slack(n)` how far past its last window an operand goes.
        """
        # Windows first: they are short, and the room that is left is for the others.
        order = {WINDOW: 0, LONG: 1, SHORT: 2}
        pending = sorted(self._nest.axes, key=lambda a: order[self._limit(a.name)])
        self._follow(slack)
        while pending := [a for a in pending if a.name not in self._extents]:
            axis = pending[0]
            taken = math.prod(self._extents.values())
            n = extent(axis.name, 1, self._limit(axis.name), taken)
            self._extents[axis.name] = n
            self._solve(axis.extent, n)
            self._follow(slack)
        for name, d in self._open_dims():
            # An index that mentions its own dimension, such as x[i, x.shape[1] - 1].
            taken = math.prod(self._extents.values())
            self._dims[name, d] = extent(f"{name}.shape[{d}]", 1, LONG, taken)
        ranks = {x.operand: len(x.index) for x in self._accesses}
        ranks |= {a.of: 2 for a in self._nest.axes if a.of}
        ranks |= {name: 1 for name, _ in self._dims if name not in ranks}
        return {o: tuple(self._dims[o, i] for i in range(n)) for o, n in ranks.items()}

    def _open_dims(self) -> list[tuple[str, int]]:
        """The dimensions that no extent decides."""
        every = {(x.operand, d): None for x in self._accesses for d in range(len(x.index))}
        return [k for k in every if k not in self._dims]

    def _limit(self, axis: str) -> int:
        """How long an axis is drawn at the most: short in a window, long where memory is
        contiguous.
        """
        indices = [i for x in self._accesses for i in x.index]
        reduced = self._nest.reduction and axis in {a.name for a in self._nest.reduction.axes}
        plain = [{t for t, _ in i.terms if isinstance(t, str)} for i in indices]
        if reduced and any(axis in terms and len(terms) > 1 for terms in plain):
            return WINDOW
        contiguous = any(axis in x.index[-1].axes for x in self._accesses if x.index)
        return LONG if contiguous else SHORT

    def _follow(self, slack: Callable[[int], int]) -> None:
        """Everything that the known extents and dimensions decide."""
        while any([*self._new_extents(), *self._new_dims(slack)]):
            pass

    def _new_extents(self) -> Iterator[bool]:
        for a in self._nest.axes:
            n = self._value(a.extent)
            if a.name not in self._extents and n is not None:
                self._extents[a.name] = n
                yield True
            if a.of and n is not None and (a.of, 1) not in self._dims:
                self._dims[a.of, 1] = n
                yield True
            if a.of and (a.of, 0) not in self._dims and a.row.axes <= self._extents.keys():
                self._dims[a.of, 0] = self._bound(a.row).bounds(self._extents)[1] + 1
                yield True

    def _new_dims(self, slack: Callable[[int], int]) -> Iterator[bool]:
        grid = {a.name for a in self._nest.grid}
        for x in self._accesses:
            for d in range(len(x.index)):
                if (x.operand, d) in self._dims:
                    continue
                same = [y.index[d] for y in self._accesses if y.operand == x.operand]
                bound = [self._known_index(i) for i in same]
                if any(i is None for i in bound):
                    continue
                reach = max(i.bounds(self._extents)[1] for i in bound if i is not None)
                steps = [
                    int(c)
                    for i in bound
                    if i
                    for t, c in i.terms
                    if t in grid and isinstance(c, int)
                ]
                more = slack(min(steps) - 1) if steps and min(steps) > 1 else 0
                self._dims[x.operand, d] = reach + 1 + more
                yield True

    def _known_index(self, index: Affine) -> Affine | None:
        """The index with integers, if its axes and sizes are known."""
        if not index.axes <= self._extents.keys():
            return None
        try:
            return self._bound(index)
        except KeyError:
            return None

    def _bound(self, index: Affine) -> Affine:
        total = Affine((), resolve(index.const, self._dim))
        for term, c in index.terms:
            if isinstance(term, Fetched):
                low, high = self._ranges[term.operand]
                term = replace(term, low=low, high=high)
            elif not isinstance(term, str):
                term = replace(
                    term, inner=self._bound(term.inner), divisor=resolve(term.divisor, self._dim)
                )
            total = total.plus(Affine(((term, resolve(c, self._dim)),)))
        return total

    def _dim(self, d: Dim) -> int:
        return self._dims[d.operand, d.axis] if d.operand else int(self._constants[d.name])

    def _value(self, size: Size) -> int | None:
        try:
            return resolve(size, self._dim)
        except KeyError:
            return None

    def _solve(self, size: Size, n: int) -> None:
        """What an extent of n says about the dimension it is made of."""
        if isinstance(size, Dim) and size.operand:
            self._dims[size.operand, size.axis] = n
        elif isinstance(size, Arith):
            other = self._value(size.b)
            if other is not None and size.op == "//":
                self._solve(size.a, n * other)
            elif other is not None and size.op in "+-":
                self._solve(size.a, n - other if size.op == "+" else n + other)
            elif other and size.op == "*" and n % other == 0:
                self._solve(size.a, n // other)
