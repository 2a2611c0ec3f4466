"""LoopNest: what is computed, as frozen data. `parse` makes it, `bind` gives it extents, everything later reads it.

Sizes may be symbolic (a shape of an operand, a keyword constant) until `bind` replaces them by integers. Knows nothing
of Python text, registers or machine code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from .types import OperandType, Scalar


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
    if isinstance(a, int) and isinstance(b, int):
        return _FOLD[op](a, b)
    if (op in "+-" and b == 0) or (op in ("*", "//") and b == 1):
        return a
    if (op == "+" and a == 0) or (op == "*" and a == 1):
        return b
    if op == "*" and (a == 0 or b == 0):
        return 0
    return Arith(op, a, b)


def resolve(value: Size, known: Callable[[Dim], int]) -> int:
    """The integer a size stands for; `known` answers for shapes and constants. ZeroDivisionError is the caller's."""
    if isinstance(value, int):
        return value
    if isinstance(value, Dim):
        return known(value)
    return _FOLD[value.op](resolve(value.a, known), resolve(value.b, known))


@dataclass(frozen=True)
class Quotient:
    """`inner // divisor` or `inner % divisor` as one term of an index (groups)."""

    op: str
    inner: Affine
    divisor: Size

    def __str__(self) -> str:
        plain = str(self.inner) in self.inner.axes
        return f"{self.inner if plain else f'({self.inner})'} {self.op} {self.divisor}"


@dataclass(frozen=True)
class Affine:
    """`const + sum(coefficient * term)`: an index. A term is an axis name or a Quotient; terms are in order of writing."""

    terms: tuple[tuple[str | Quotient, Size], ...] = ()
    const: Size = 0

    @staticmethod
    def axis(name: str) -> Affine:
        return Affine(((name, 1),), 0)

    def plus(self, other: Affine, sign: int = 1) -> Affine:
        terms = dict(self.terms)
        for term, c in other.terms:
            terms[term] = size("+", terms.get(term, 0), size("*", c, sign))
        kept = tuple((t, c) for t, c in terms.items() if c != 0)
        return Affine(kept, size("+", self.const, size("*", other.const, sign)))

    def times(self, factor: Size) -> Affine:
        if factor == 0:
            return Affine()
        terms = tuple((t, size("*", c, factor)) for t, c in self.terms)
        return Affine(terms, size("*", self.const, factor))

    @property
    def axes(self) -> frozenset[str]:
        """The axes it mentions, inside quotients too."""
        found: set[str] = set()
        for t, _ in self.terms:
            found |= {t} if isinstance(t, str) else t.inner.axes
        return frozenset(found)

    def coefficient(self, axis: str) -> int:
        """The coefficient of an axis outside quotients (bound sizes only)."""
        return sum(int(c) for t, c in self.terms if t == axis)  # type: ignore[arg-type, misc]

    def at(self, point: Mapping[str, int]) -> int:
        """The value at a point (bound sizes only)."""
        total = int(self.const)  # type: ignore[arg-type]
        for t, c in self.terms:
            if isinstance(t, str):
                v = point[t]
            else:
                v = _FOLD[t.op](t.inner.at(point), int(t.divisor))  # type: ignore[arg-type]
            total += int(c) * v  # type: ignore[arg-type]
        return total

    def bounds(self, extents: Mapping[str, int]) -> tuple[int, int]:
        """The smallest and the largest value over all points (bound; exact without quotients, else an enclosure)."""
        low = high = int(self.const)  # type: ignore[arg-type]
        for t, c in self.terms:
            if isinstance(t, str):
                a, b = 0, extents[t] - 1
            else:
                a, b = t.inner.bounds(extents)
                d = int(t.divisor)  # type: ignore[arg-type]
                if t.op == "//":
                    a, b = a // d, b // d
                else:
                    a, b = (a % d, b % d) if a // d == b // d else (0, d - 1)
            k = int(c)  # type: ignore[arg-type]
            low, high = low + min(k * a, k * b), high + max(k * a, k * b)
        return low, high

    def __str__(self) -> str:
        parts = []
        for t, c in self.terms:
            shown = str(t) if isinstance(t, str) else f"({t})"
            parts.append(shown if c == 1 else f"{shown}*{c}")
        if self.const != 0 or not parts:
            parts.append(str(self.const))
        return " + ".join(parts).replace(" + -", " - ")


@dataclass(frozen=True)
class Const:
    """A number in an expression; a plain number takes the type of the other side."""

    value: int | float | Size
    scalar: Scalar | None = None

    def __str__(self) -> str:
        return str(self.value)


@dataclass(frozen=True)
class Load:
    """`operand[index]`."""

    operand: str
    index: tuple[Affine, ...]

    def __str__(self) -> str:
        return f"{self.operand}[{', '.join(map(str, self.index))}]"


@dataclass(frozen=True)
class Lookup:
    """`table[value]`: a table of one axis, indexed by a computed integer; the index must be proven inside it."""

    operand: str
    index: Expr

    def __str__(self) -> str:
        return f"{self.operand}[{self.index}]"


@dataclass(frozen=True)
class Ref:
    """The accumulator, or a name bound before by a Let."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Cast:
    """A value made another type: 'exact' (proven to fit; float to integer truncates), 'saturate' or 'wrap'."""

    scalar: Scalar
    mode: str
    arg: Expr

    def __str__(self) -> str:
        return f"{self.scalar}({self.arg}{'' if self.mode == 'exact' else ', ' + self.mode})"


@dataclass(frozen=True)
class Call:
    """An operation. Names and arity:

    2  add sub mul div floordiv mod shl shr and or xor min max eq ne lt le gt ge xnor_popcount
    1  neg abs round floor ceil exp log tanh erf sigmoid sqrt rsqrt not
    3  select (condition, a, b)
    `min`/`max` give the other side when one is NaN (sf.min, sf.max), as IEEE minNum does; `round` is half to even.
    Comparisons give a truth value, which only select, and, or, not and a store into `bit` take.
    """

    op: str
    args: tuple[Expr, ...]

    def __str__(self) -> str:
        infix = INFIX.get(self.op)
        if infix and len(self.args) == 2:
            return f"({self.args[0]} {infix} {self.args[1]})"
        return f"{self.op}({', '.join(map(str, self.args))})"


Expr = Const | Load | Lookup | Ref | Cast | Call

INFIX = dict(add="+", sub="-", mul="*", div="/", floordiv="//", mod="%", shl="<<", shr=">>")
INFIX |= dict(eq="==", ne="!=", lt="<", le="<=", gt=">", ge=">=", xor="^")
INFIX |= {"and": "&", "or": "|"}


def walk(expr: Expr) -> Iterator[Expr]:
    """The expression and all parts of it, outside in."""
    yield expr
    if isinstance(expr, (Cast,)):
        yield from walk(expr.arg)
    elif isinstance(expr, Lookup):
        yield from walk(expr.index)
    elif isinstance(expr, Call):
        for a in expr.args:
            yield from walk(a)


def rewrite(expr: Expr, change: Callable[[Expr], Expr]) -> Expr:
    """The expression with `change` applied to every part, inside out."""
    if isinstance(expr, Cast):
        expr = replace(expr, arg=rewrite(expr.arg, change))
    elif isinstance(expr, Lookup):
        expr = replace(expr, index=rewrite(expr.index, change))
    elif isinstance(expr, Call):
        expr = replace(expr, args=tuple(rewrite(a, change) for a in expr.args))
    return change(expr)


@dataclass(frozen=True)
class Axis:
    """One loop. kind: 'grid' (an axis of the output), 'reduce', or 'nonzeros' (row `row` of the CSR operand `of`)."""

    name: str
    extent: Size
    kind: str = "grid"
    of: str = ""
    row: Affine = Affine()

    def __str__(self) -> str:
        where = f" in nonzeros({self.of}, {self.row})" if self.kind == "nonzeros" else ""
        return f"{self.name}<{self.extent}>{where}"


@dataclass(frozen=True)
class Reduction:
    """`acc = scalar(init); for axes: acc = combine(acc, value)`. combine: 'add', 'max' or 'min'."""

    name: str
    scalar: Scalar
    init: Expr
    combine: str
    axes: tuple[Axis, ...]
    value: Expr
    wrap: bool = False
    line: int = 0

    def __str__(self) -> str:
        loops = ", ".join(map(str, self.axes))
        return f"{self.name}: {self.scalar} = {self.init};  for {loops}: {self.name} = {self.combine}({self.name}, {self.value})"


@dataclass(frozen=True)
class Let:
    """`name = value` after the reduction."""

    name: str
    value: Expr
    line: int = field(default=0, compare=False)

    def __str__(self) -> str:
        return f"{self.name} = {self.value}"


@dataclass(frozen=True)
class Store:
    """`operand[index] = value`."""

    operand: str
    index: tuple[Affine, ...]
    value: Expr
    line: int = field(default=0, compare=False)

    def __str__(self) -> str:
        return f"{self.operand}[{', '.join(map(str, self.index))}] = {self.value}"


@dataclass(frozen=True)
class Operand:
    """A parameter of the kernel. `type` is None before bind. The output has role 'out'."""

    name: str
    role: str = "in"
    type: OperandType | None = None

    def __str__(self) -> str:
        return f"{self.name}: {self.type or '?'}{' (out)' if self.role == 'out' else ''}"


@dataclass(frozen=True)
class Origin:
    """Where the nest was written, for messages."""

    file: str = ""
    line: int = 0
    lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class LoopNest:
    """A layer: for each point of the grid, an optional reduction, then the epilogue (lets), then the store."""

    name: str
    operands: tuple[Operand, ...]
    constants: tuple[tuple[str, int | float], ...]
    grid: tuple[Axis, ...]
    reduction: Reduction | None
    epilogue: tuple[Let, ...]
    store: Store
    origin: Origin = Origin()

    def operand(self, name: str) -> Operand:
        return next(o for o in self.operands if o.name == name)

    def type_of(self, name: str) -> OperandType:
        """The type of a bound operand."""
        bound = self.operand(name).type
        assert bound is not None, f"{name} is not bound"
        return bound

    @property
    def out(self) -> Operand:
        return next(o for o in self.operands if o.role == "out")

    @property
    def axes(self) -> tuple[Axis, ...]:
        """Grid axes, then reduction axes."""
        return self.grid + (self.reduction.axes if self.reduction else ())

    @property
    def extents(self) -> dict[str, int]:
        """Axis -> extent (bound nests only)."""
        return {a.name: int(a.extent) for a in self.axes}  # type: ignore[arg-type]

    @property
    def macs(self) -> int:
        """Points of the whole iteration space (of the nonzeros only, for a compressed axis)."""
        total = 1
        for a in self.axes:
            total *= 1 if a.kind == "nonzeros" else int(a.extent)  # type: ignore[arg-type]
        for a in self.axes:
            if a.kind == "nonzeros":
                rows = math.prod(self.extents[r] for r in a.row.axes) or 1
                total = total // rows * self.type_of(a.of).nonzeros
        return total

    def loads(self) -> tuple[Load, ...]:
        """Every load of the body, once, in order: the reduction's, then the epilogue's."""
        found: dict[Load, None] = {}
        for e in self.expressions():
            found.update((x, None) for x in walk(e) if isinstance(x, Load))
        return tuple(found)

    def expressions(self) -> tuple[Expr, ...]:
        r = self.reduction
        first = (r.init, r.value) if r else ()
        return (*first, *(x.value for x in self.epilogue), self.store.value)

    def __str__(self) -> str:
        """The nest as text, one line a part."""
        lines = [f"nest {self.name}({', '.join(map(str, self.operands))})"]
        if self.constants:
            lines[0] += " with " + ", ".join(f"{k}={v}" for k, v in self.constants)
        lines.append(f"  for {', '.join(map(str, self.grid))}:")
        if self.reduction:
            lines.append(f"    {self.reduction}")
        lines += [f"    {x}" for x in (*self.epilogue, self.store)]
        return "\n".join(lines)
