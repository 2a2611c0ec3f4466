"""Index: sizes and affine indices, as frozen data with arithmetic.

Before `bind` a size may name a shape or a keyword constant; after it, every size is an integer.
Knows nothing of loops or operands beyond their names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Dim:
    """`operand.shape[axis]`, before bind. `operand == ""` is a keyword constant called `name`."""

    operand: str
    axis: int = 0
    name: str = ""

    def __str__(self) -> str:
        return f"{self.operand}.shape[{self.axis}]" if self.operand else self.name


@dataclass(frozen=True)
class Arith:
    """`a op b` of sizes, before bind; op is one of `+ - * // %`."""

    op: str
    a: Size
    b: Size

    def __str__(self) -> str:
        return f"({self.a} {self.op} {self.b})"


Size = int | Dim | Arith

_FOLD: Mapping[str, Callable[[int, int], int]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "//": lambda a, b: a // b,
    "%": lambda a, b: a % b,
}


def size(op: str, a: Size, b: Size) -> Size:
    """`a op b`, folded when both are integers or when it changes nothing."""
    if type(a) is int and type(b) is int:
        return _FOLD[op](a, b)
    if (op in "+-" and b == 0) or (op in ("*", "//") and b == 1):
        return a
    if (op == "+" and a == 0) or (op == "*" and a == 1):
        return b
    if op == "*" and (a == 0 or b == 0):
        return 0
    return Arith(op, a, b)


def resolve(value: Size, known: Callable[[Dim], int]) -> int:
    """The integer a size stands for; `known` answers for shapes and constants.

    ZeroDivisionError is the caller's.
    """
    if isinstance(value, int):
        return value
    if isinstance(value, Dim):
        return known(value)
    return _FOLD[value.op](resolve(value.a, known), resolve(value.b, known))


def number(value: float | Size) -> int | float:
    """The number that a bound size or constant is.

    Raises TypeError for a size that still has names.
    """
    if isinstance(value, Dim | Arith):
        raise TypeError(
            f"size {value} is not bound; only bind() gives it a value. Bind the nest first."
        )
    return value


def integer(value: float | Size) -> int:
    """The integer that a bound size is. Raises TypeError for a size that still has names."""
    return value if type(value) is int else int(number(value))


@dataclass(frozen=True)
class Quotient:
    """`inner // divisor` or `inner % divisor` as one term of an index (groups)."""

    op: str
    inner: Affine
    divisor: Size

    @property
    def axes(self) -> frozenset[str]:
        """The axes it mentions."""
        return self.inner.axes

    def __str__(self) -> str:
        plain = str(self.inner) in self.inner.axes
        return f"{self.inner if plain else f'({self.inner})'} {self.op} {self.divisor}"


@dataclass(frozen=True)
class Fetched:
    """`operand[index]` as one term of an index: an integer that an operand holds (gathering).

    low, high   the values it can have, of the operand's type; known once the nest is bound
    """

    operand: str
    index: tuple[Affine, ...]
    low: int = 0
    high: int = 0

    @property
    def axes(self) -> frozenset[str]:
        """The axes that choose the integer."""
        return frozenset[str]().union(*(i.axes for i in self.index))

    def __str__(self) -> str:
        return f"{self.operand}[{', '.join(map(str, self.index))}]"


Term = str | Quotient | Fetched


@dataclass(frozen=True)
class Affine:
    """`const + sum(coefficient * term)`: an index.

    A term is an axis name, a Quotient or a Fetched; terms are in order of writing.
    """

    terms: tuple[tuple[Term, Size], ...] = ()
    const: Size = 0

    @staticmethod
    def axis(name: str) -> Affine:
        """The index that is one axis."""
        return Affine(((name, 1),), 0)

    def plus(self, other: Affine, sign: int = 1) -> Affine:
        """`self + sign * other`; terms that cancel are left out."""
        # Sums of bound indices are a third of the time it takes to choose a dataflow: numbers are
        # added here, and only sizes with names in `size`.
        if not other.terms:
            return self.moved(size("*", other.const, sign))
        terms = dict(self.terms)
        for term, c in other.terms:
            had = terms.get(term, 0)
            if type(had) is int and type(c) is int:
                terms[term] = had + sign * c
            else:
                terms[term] = size("+", had, size("*", c, sign))
        kept = tuple([t for t in terms.items() if t[1] != 0])
        return Affine(kept, size("+", self.const, size("*", other.const, sign)))

    def moved(self, by: Size) -> Affine:
        """`self + by`."""
        if by == 0:
            return self
        if type(by) is int and type(self.const) is int:
            return Affine(self.terms, self.const + by)
        return Affine(self.terms, size("+", self.const, by))

    def times(self, factor: Size) -> Affine:
        """`factor * self`."""
        if factor == 0:
            return Affine()
        if factor == 1:
            return self
        terms = tuple([(t, size("*", c, factor)) for t, c in self.terms])
        return Affine(terms, size("*", self.const, factor))

    @property
    def axes(self) -> frozenset[str]:
        """The axes it mentions, inside quotients too."""
        found: set[str] = set()
        for t, _ in self.terms:
            found |= {t} if isinstance(t, str) else t.axes
        return frozenset(found)

    @property
    def fetched(self) -> tuple[Fetched, ...]:
        """The integers that operands give to it."""
        return tuple(t for t, _ in self.terms if isinstance(t, Fetched))

    def mapped(self, change: Callable[[Fetched], Term]) -> Affine:
        """The index with `change` applied to every integer that an operand gives to it."""
        if not self.fetched:
            return self
        total = Affine((), self.const)
        for t, c in self.terms:
            total = total.plus(Affine(((change(t) if isinstance(t, Fetched) else t, c),)))
        return total

    def coefficient(self, axis: str) -> int:
        """The coefficient of an axis outside quotients (bound sizes only)."""
        return sum(integer(c) for t, c in self.terms if t == axis)

    def at(self, point: Mapping[str, int]) -> int:
        """The value at a point (bound sizes only, and nothing fetched)."""
        total = integer(self.const)
        for t, c in self.terms:
            if isinstance(t, str):
                v = point[t]
            else:
                assert isinstance(t, Quotient), f"{t} is known when the kernel runs"
                v = _FOLD[t.op](t.inner.at(point), integer(t.divisor))
            total += integer(c) * v
        return total

    def bounds(self, extents: Mapping[str, int]) -> tuple[int, int]:
        """The smallest and the largest value over all points (bound sizes only).

        Exact without quotients, else an enclosure.
        """
        low = high = integer(self.const)
        for t, c in self.terms:
            if isinstance(t, str):
                a, b = 0, extents[t] - 1
            elif isinstance(t, Fetched):
                a, b = t.low, t.high
            else:
                a, b = t.inner.bounds(extents)
                d = integer(t.divisor)
                if t.op == "//":
                    a, b = a // d, b // d
                else:
                    a, b = (a % d, b % d) if a // d == b // d else (0, d - 1)
            k = integer(c)
            low, high = low + min(k * a, k * b), high + max(k * a, k * b)
        return low, high

    def __str__(self) -> str:
        parts = []
        for t, c in self.terms:
            shown = f"({t})" if isinstance(t, Quotient) else str(t)
            parts.append(shown if c == 1 else f"{shown}*{c}")
        if self.const != 0 or not parts:
            parts.append(str(self.const))
        return " + ".join(parts).replace(" + -", " - ")


ZERO = Affine()
