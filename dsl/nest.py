"""LoopNest: what is computed, as frozen data.

`parse` makes it, `bind` gives it extents, everything later reads it. Sizes may be symbolic (a shape
of an operand, a keyword constant) until `bind` replaces them by integers. Knows nothing of Python
text, registers or machine code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType

from .index import ZERO, Affine, Arith, Dim, Fetched, Quotient, Size, integer, number, resolve, size
from .types import OperandType, Scalar

__all__ = [
    "INFIX",
    "ZERO",
    "Affine",
    "Arith",
    "Axis",
    "Call",
    "Cast",
    "Const",
    "Dim",
    "Expr",
    "Fetched",
    "Let",
    "Load",
    "Lookup",
    "LoopNest",
    "Operand",
    "Origin",
    "Pick",
    "Quotient",
    "Reduction",
    "Ref",
    "Size",
    "Store",
    "integer",
    "number",
    "resolve",
    "rewrite",
    "size",
    "walk",
]


@dataclass(frozen=True)
class Const:
    """A number in an expression; a plain number takes the type of the other side."""

    value: int | float | Size
    scalar: Scalar | None = None

    def __str__(self) -> str:
        return str(self.value)


@dataclass(frozen=True)
class Load:
    """`operand[index]`, also `table[ids[i], j]`: an index may hold integers of other operands."""

    operand: str
    index: tuple[Affine, ...]

    def __str__(self) -> str:
        return f"{self.operand}[{', '.join(map(str, self.index))}]"


@dataclass(frozen=True)
class Lookup:
    """`table[value]`: a table of one axis at a computed integer, which must be proven inside it."""

    operand: str
    index: Expr

    def __str__(self) -> str:
        return f"{self.operand}[{self.index}]"


@dataclass(frozen=True)
class Pick:
    """`(a, b, c)[i]`: the value whose number the grid axes give."""

    index: Affine
    values: tuple[Expr, ...]

    def __str__(self) -> str:
        return f"({', '.join(map(str, self.values))})[{self.index}]"


@dataclass(frozen=True)
class Ref:
    """The accumulator, or a name bound before by a Let."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Cast:
    """A value made another type.

    Modes: 'exact' (proven to fit; float to integer truncates), 'saturate', 'wrap'.
    """

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
    `min`/`max` give the other side when one is NaN (sf.min, sf.max), as IEEE minNum does; `round`
    is half to even. Comparisons give a truth value, which only select, and, or, not and a store
    into `bit` take.
    """

    op: str
    args: tuple[Expr, ...]

    def __str__(self) -> str:
        infix = INFIX.get(self.op)
        if infix and len(self.args) == 2:
            return f"({self.args[0]} {infix} {self.args[1]})"
        return f"{self.op}({', '.join(map(str, self.args))})"


Expr = Const | Load | Lookup | Pick | Ref | Cast | Call

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
    elif isinstance(expr, (Call, Pick)):
        for a in expr.args if isinstance(expr, Call) else expr.values:
            yield from walk(a)


def rewrite(expr: Expr, change: Callable[[Expr], Expr]) -> Expr:
    """The expression with `change` applied to every part, inside out."""
    if isinstance(expr, Cast):
        expr = replace(expr, arg=rewrite(expr.arg, change))
    elif isinstance(expr, Lookup):
        expr = replace(expr, index=rewrite(expr.index, change))
    elif isinstance(expr, Pick):
        expr = replace(expr, values=tuple(rewrite(a, change) for a in expr.values))
    elif isinstance(expr, Call):
        expr = replace(expr, args=tuple(rewrite(a, change) for a in expr.args))
    return change(expr)


@dataclass(frozen=True)
class Axis:
    """One loop.

    kind: 'grid' (an axis of the output), 'reduce', or 'nonzeros' (row `row` of the CSR operand
    `of`).
    """

    name: str
    extent: Size
    kind: str = "grid"
    of: str = ""
    row: Affine = ZERO

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
        step = f"{self.name} = {self.combine}({self.name}, {self.value})"
        return f"{self.name}: {self.scalar} = {self.init};  for {loops}: {step}"


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
class Run:
    """From `start` to `stop` along a grid axis, `count` steps of the axis `reduced` from `first` on
    read anything but promised zeros.
    """

    start: int
    stop: int
    reduced: str = ""
    first: int = 0
    count: int = 0


@dataclass(frozen=True)
class LoopNest:
    """A layer: for each point of the grid a reduction or none, the epilogue (lets), the store.

    edges   grid axis -> its runs, where products with zeros may be left out (linearized nests)
    """

    name: str
    operands: tuple[Operand, ...]
    constants: tuple[tuple[str, int | float], ...]
    grid: tuple[Axis, ...]
    reduction: Reduction | None
    epilogue: tuple[Let, ...]
    store: Store
    origin: Origin = Origin()
    edges: tuple[tuple[str, tuple[Run, ...]], ...] = ()

    def operand(self, name: str) -> Operand:
        """The operand of that name. Raises StopIteration if there is none."""
        return next(o for o in self.operands if o.name == name)

    def type_of(self, name: str) -> OperandType:
        """The type of a bound operand."""
        bound = self.operand(name).type
        assert bound is not None, f"{name} is not bound"
        return bound

    @property
    def out(self) -> Operand:
        """The output."""
        return next(o for o in self.operands if o.role == "out")

    @property
    def axes(self) -> tuple[Axis, ...]:
        """Grid axes, then reduction axes."""
        return self.grid + (self.reduction.axes if self.reduction else ())

    @cached_property
    def extents(self) -> Mapping[str, int]:
        """Axis -> extent (bound nests only). Kept: planning one dataflow asks 40 times."""
        return MappingProxyType({a.name: integer(a.extent) for a in self.axes})

    def __getstate__(self) -> dict[str, object]:
        return {k: v for k, v in self.__dict__.items() if k not in ("extents", "picking")}

    @property
    def macs(self) -> int:
        """Points of the whole iteration space (of the nonzeros only, for a compressed axis)."""
        total = 1
        for a in self.axes:
            total *= 1 if a.kind == "nonzeros" else integer(a.extent)
        for a in self.axes:
            if a.kind == "nonzeros":
                rows = math.prod(self.extents[r] for r in a.row.axes) or 1
                total = total // rows * self.type_of(a.of).nonzeros
        return total

    def loads(self) -> tuple[Load, ...]:
        """Every load of the body, once, in order: the reduction's, then the epilogue's.

        Those of an index stand before the load that has it.
        """
        found: dict[Load, None] = {}
        for x in (x for e in self.expressions() for x in walk(e) if isinstance(x, Load)):
            given = (t for i in x.index for t in i.fetched)
            found.update((Load(t.operand, t.index), None) for t in given)
            found[x] = None
        return tuple(found)

    @property
    def accesses(self) -> tuple[Load | Store, ...]:
        """Every load, then the store."""
        return (*self.loads(), self.store)

    def expressions(self) -> tuple[Expr, ...]:
        """Every expression, in the order of the text."""
        r = self.reduction
        first = (r.init, r.value) if r else ()
        return (*first, *(x.value for x in self.epilogue), self.store.value)

    @cached_property
    def picking(self) -> frozenset[str]:
        """The axes that pick one of several values."""
        picks = (e for x in self.expressions() for e in walk(x) if isinstance(e, Pick))
        return frozenset[str]().union(*(e.index.axes for e in picks))

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
