"""Writer: collects a program's statements, names registers, never computes a thing twice.

Within a straight-line stretch an instruction with the same name, type and arguments is written
once. Inputs are never written by a kernel, so their loads count too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..dsl.nest import Affine, Fetched
from .program import Address, Arg, Fetch, Loop, Op, Statement, Vec

if TYPE_CHECKING:
    from .window import Carried


class Writer:
    """Statements so far, the type of every register, and the values known in the open scopes."""

    def __init__(self) -> None:
        self._bodies: list[list[Statement]] = [[]]
        self._known: list[dict[tuple, str]] = [{}]
        self._count = 0
        self._versions: dict[str, int] = {}
        self.vecs: dict[str, Vec] = {}
        self.ranges: dict[str, tuple[int, int]] = {}
        self.carried: dict[Address, Carried] = {}  # see window.py; empty outside such a loop
        self.held: dict[
            object, str
        ] = {}  # address -> register, for loads hoisted out of the loops open now

    @property
    def statements(self) -> tuple[Statement, ...]:
        """What was written, once every loop is closed."""
        assert len(self._bodies) == 1
        return tuple(self._bodies[0])

    def op(self, name: str, vec: Vec, *args: Arg) -> str:
        """The register that holds name(args); written unless it is known."""
        key = (
            name,
            vec,
            tuple((a, self._versions.get(a, 0)) if isinstance(a, str) else a for a in args),
        )
        fleeting = any(a in self._versions for a in args if isinstance(a, str))
        for known in self._known[-1:] if fleeting else self._known:
            if key in known:
                return known[key]
        dst = f"v{self._count}"
        self._count += 1
        self._write(dst, name, vec, args)
        self._known[-1][key] = dst
        return dst

    def assign(self, dst: str, name: str, vec: Vec, *args: Arg) -> str:
        """`dst = name(args)`, always written; dst may be assigned again (accumulators, slots)."""
        self._versions[dst] = self._versions.get(dst, 0) + 1
        return self._write(dst, name, vec, args)

    def _write(self, dst: str, name: str, vec: Vec, args: tuple[Arg, ...]) -> str:
        self._bodies[-1].append(Op(dst, vec, name, args))
        self.vecs[dst] = vec
        return dst

    def store(self, name: str, vec: Vec, *args: Arg) -> None:
        """An instruction without a result."""
        self._bodies[-1].append(Op("", vec, name, args))

    def fetch(self, var: str, operand: str, offset: Affine, limit: int) -> None:
        """`var = operand[offset]`, an integer from 0 to `limit`."""
        self._bodies[-1].append(Fetch(var, operand, offset))
        self.ranges[var] = (0, limit)

    def fetched(self, term: Fetched) -> str:
        """The variable that holds an integer of an index; read unless it is known."""
        key = ("fetch", term)
        for known in self._known:
            if key in known:
                return known[key]
        var = f"{term.operand}_at_{self._count}"
        self._count += 1
        (offset,) = term.index
        limits = term.low, term.high
        self._bodies[-1].append(Fetch(var, term.operand, offset, limits))
        self.ranges[var] = limits
        self._known[-1][key] = var
        return var

    def forget(self) -> None:
        """What was written may have changed what memory holds, or names will be assigned anew."""
        self._known[-1].clear()

    @contextmanager
    def loop(
        self, var: str, start: int | str, stop: int | str, step: int, parallel: bool, last: int
    ) -> Iterator[None]:
        """Everything written inside becomes a loop's body; `last` is the variable's largest."""
        self.ranges[var] = (start if isinstance(start, int) else 0, last)
        self._bodies.append([])
        self._known.append({})
        yield
        self._known.pop()
        body = tuple(self._bodies.pop())
        self._bodies[-1].append(Loop(var, start, stop, step, body, parallel))

    def highest(self, address: Address) -> int:
        """The largest offset an address takes."""
        extents = {v: last + 1 for v, (_, last) in self.ranges.items()}
        return address.offset.bounds(extents)[1]
