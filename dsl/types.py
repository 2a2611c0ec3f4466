"""Scalar types, and operand types: a scalar type with shape, value range, border and storage.

Calling a scalar type is its meaning as Python (`interpret`); indexing it makes an operand type.
Knows nothing of loop nests or machine code.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import numpy as np

from .errors import OperandError


@dataclass(frozen=True)
class Scalar:
    """An element type: `u8 i8 u16 i16 u32 i32 i64 f32 f64 bit`.

    `sf.u8[1, 58, 58, 64]` is an operand type. `sf.i32(v)` in a nest is a cast that must be proven
    to fit; `saturate=True` clamps, `wrap=True` keeps the low bits. A float becomes an integer by
    truncation toward zero, as in C; write `sf.round(v)` first for another rounding. `bit` is +1 or
    -1, stored 1 for +1.
    """

    name: str
    kind: str  # 'u' unsigned, 'i' signed, 'f' float, 'b' bit
    bits: int

    @property
    def low(self) -> float:
        """The smallest value: 0, -2^(n-1), -inf, -1."""
        return {"u": 0, "i": -(1 << self.bits - 1), "f": -math.inf, "b": -1}[self.kind]

    @property
    def high(self) -> float:
        """The largest value; infinity for floats."""
        return {"u": (1 << self.bits) - 1, "i": (1 << self.bits - 1) - 1, "f": math.inf, "b": 1}[
            self.kind
        ]

    @property
    def is_float(self) -> bool:
        """Whether it is `f32` or `f64`."""
        return self.kind == "f"

    @property
    def dtype(self) -> np.dtype:
        """The numpy type of one element; of a word of 8 for `bit`."""
        return np.dtype("u1" if self.kind == "b" else f"{self.kind}{self.bits // 8}")

    def __getitem__(self, shape: int | tuple[int, ...]) -> OperandType:
        return OperandType(self, _checked_shape(shape), self.low, self.high)

    def range(self, low: float, high: float) -> RangedScalar:
        """The same type with a promise about its values, for the overflow proof: `sf.i8.range(-7,
        7)[3, 3, 64, 64]`.

        The promise is checked when an array is passed.
        """
        if not self.low <= low <= high <= self.high:
            raise OperandError(
                f"{self.name}: range=({low}, {high}) is not inside the type; "
                f"allowed is {self.low} to {self.high}. Give low <= high inside it."
            )
        return RangedScalar(self, low, high)

    def __call__(self, value: object, saturate: bool = False, wrap: bool = False) -> Exact:
        return Exact.of(value).cast(self, saturate, wrap)

    def __repr__(self) -> str:
        return self.name


@dataclass(frozen=True)
class RangedScalar:
    """A scalar type with a promised value range; index it with a shape."""

    scalar: Scalar
    low: float
    high: float

    def __getitem__(self, shape: int | tuple[int, ...]) -> OperandType:
        return OperandType(self.scalar, _checked_shape(shape), self.low, self.high)


def _checked_shape(shape: int | tuple[int, ...]) -> tuple[int, ...]:
    shape = shape if isinstance(shape, tuple) else (shape,)
    for n in shape:
        if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 0:
            raise OperandError(
                f"operand: shape={shape} has {n!r}; sizes are integers of 0 or more."
            )
    return tuple(int(n) for n in shape)


u8, u16, u32 = Scalar("u8", "u", 8), Scalar("u16", "u", 16), Scalar("u32", "u", 32)
i8, i16, i32, i64 = (Scalar(f"i{n}", "i", n) for n in (8, 16, 32, 64))
f32, f64 = Scalar("f32", "f", 32), Scalar("f64", "f", 64)
bit = Scalar("bit", "b", 1)
SCALARS = {s.name: s for s in (u8, u16, u32, i8, i16, i32, i64, f32, f64, bit)}
BY_DTYPE = {s.dtype: s for s in (u8, u16, u32, i8, i16, i32, i64, f32, f64)}


@dataclass(frozen=True)
class OperandType:
    """An operand: element type, logical shape (border included), value range and storage.

    border        per axis (before, after): how much of the shape is border, filled with
                  `border_value`; an array without it is given one by a copy
    storage       'dense' (C order; brought into the order the kernel reads it on each call, if that
                  is another), 'packed' (in that order already: `sf.pack`), 'computed' (C order, as
                  another kernel leaves it: read as it is), 'csr'
    slack         bytes readable after the last element (buffers made by simdflow have 64)
    nonzeros      for 'csr': how many
    zeros         per axis (before, after): how much of the shape is zero in every array that is
                  passed, a promise that products with it may be left out
    frame         per axis (before, after): memory around the shape that the nest neither reads nor
                  writes, such as the border that another layer reads; the array that is passed is
                  the whole memory
    """

    scalar: Scalar
    shape: tuple[int, ...]
    low: float
    high: float
    border: tuple[tuple[int, int], ...] = ()
    border_value: float = 0
    storage: str = "dense"
    slack: int = 0
    nonzeros: int = 0
    frame: tuple[tuple[int, int], ...] = ()
    zeros: tuple[tuple[int, int], ...] = ()

    @property
    def size(self) -> int:
        """How many elements it has."""
        return math.prod(self.shape)

    def with_border(self, border: tuple[tuple[int, int], ...], value: float) -> OperandType:
        """The bordered type of a type without one: shapes grow by the border."""
        shape = tuple(n + a + b for n, (a, b) in zip(self.shape, border, strict=True))
        return replace(self, shape=shape, border=border, border_value=value)

    @property
    def memory(self) -> tuple[int, ...]:
        """The shape of the memory: the shape and its frame."""
        if not self.frame:
            return self.shape
        return tuple(n + a + b for n, (a, b) in zip(self.shape, self.frame, strict=True))

    @property
    def stored(self) -> tuple[int, ...]:
        """The shape of the array that holds a dense operand: bits are bytes along the last axis."""
        sizes = self.memory
        if self.scalar.kind == "b" and sizes:
            return (*sizes[:-1], -(-sizes[-1] // 8))
        return sizes

    @property
    def inside(self) -> tuple[slice, ...]:
        """Where the shape lies in its memory, as an index of the whole array."""
        frame = self.frame or ((0, 0),) * len(self.shape)
        return tuple(slice(a, a + n) for n, (a, _) in zip(self.shape, frame, strict=True))

    @property
    def strides(self) -> tuple[int, ...]:
        """C-order strides of the memory in elements; rows of bits are whole bytes."""
        sizes = self.memory
        if self.scalar.kind == "b" and sizes:
            sizes = (*sizes[:-1], -(-sizes[-1] // 8) * 8)
        return tuple(math.prod(sizes[i + 1 :]) for i in range(len(sizes)))

    @property
    def origin(self) -> int:
        """The offset of the first element in the memory, in elements."""
        return sum(a * s for (a, _), s in zip(self.frame, self.strides, strict=False))

    def __str__(self) -> str:
        extra = "" if self.storage == "dense" else f" {self.storage}"
        limits = (
            ""
            if (self.low, self.high) == (self.scalar.low, self.scalar.high)
            else f".range({self.low:g}, {self.high:g})"
        )
        if self.frame:
            extra += f" in [{', '.join(map(str, self.memory))}]"
        return f"{self.scalar.name}{limits}[{', '.join(map(str, self.shape))}]{extra}"


@dataclass(frozen=True)
class Exact:
    """One exact value while a body runs as Python: an unbounded integer, or a float of a stated
    width.

    Integers never wrap; f32 arithmetic rounds after every operation, as the type says. An integer
    meets a float only through a cast. `scalar` None is a plain Python number, which takes the other
    side's type. `wraps` marks an accumulator declared with `wrap=True`, whose `+=` keeps the low
    bits.
    """

    value: int | float
    scalar: Scalar | None = field(default=None)
    wraps: bool = field(default=False, compare=False)

    @staticmethod
    def of(value: object) -> Exact:
        """A Python or numpy number as an exact value; numpy ones keep their type.

        TypeError for others.
        """
        if isinstance(value, Exact):
            return value
        if isinstance(value, (bool, np.bool_)):
            return Exact(int(value))
        if isinstance(value, (int, float)):
            return Exact(value)
        if isinstance(value, np.generic):
            scalar = BY_DTYPE[value.dtype]
            return Exact(float(value) if scalar.is_float else int(value), scalar)
        raise TypeError(f"{value!r} is not a number")

    @property
    def is_float(self) -> bool:
        """Whether it is a float, of a type or plain."""
        return self.scalar.is_float if self.scalar else isinstance(self.value, float)

    def cast(self, to: Scalar, saturate: bool = False, wrap: bool = False) -> Exact:
        """The value as another type; without `saturate` or `wrap` it must fit."""
        v = self.value
        if to.is_float:
            return Exact(_rounded(float(v), to), to)
        if isinstance(v, float):
            if math.isnan(v):
                v = 0
            elif math.isinf(v):
                v = int(to.high if v > 0 else to.low) if saturate else 0
            else:
                v = int(Fraction(v))
        if to.kind == "b":
            return Exact(1 if v > 0 else -1, to)
        low, high = int(to.low), int(to.high)
        if saturate:
            v = min(max(v, low), high)
        elif wrap:
            return Exact((v - low) % (1 << to.bits) + low, to, wraps=True)
        elif not low <= v <= high:
            raise OverflowError(f"{v} does not fit {to.name} ({low} to {high})")
        return Exact(v, to)

    def apply(
        self, other: object, operation: Callable[[Any, Any], int | float], symbol: str
    ) -> Exact:
        """`operation(self, other)`, rounded as the wider type says.

        Raises TypeError when an integer meets a float.
        """
        b = Exact.of(other)
        for x, y in ((self, b), (b, self)):
            if x.scalar and not x.is_float and y.is_float:
                raise TypeError(f"{self} {symbol} {b}: an integer meets a float; cast one side")
        floats = [s for s in (self.scalar, b.scalar) if s and s.is_float]
        scalar = max(floats, key=lambda s: s.bits) if floats else (self.scalar or b.scalar)
        if scalar and scalar.is_float:
            p, q = _rounded(float(self.value), scalar), _rounded(float(b.value), scalar)
            return Exact(_rounded(operation(p, q), scalar), scalar)
        return Exact(operation(self.value, b.value), scalar)

    def __add__(self, other: object) -> Exact:
        return self.apply(other, lambda a, b: a + b, "+")

    def __sub__(self, other: object) -> Exact:
        return self.apply(other, lambda a, b: a - b, "-")

    def __mul__(self, other: object) -> Exact:
        return self.apply(other, lambda a, b: a * b, "*")

    def __floordiv__(self, other: object) -> Exact:
        return self.apply(other, lambda a, b: a // b, "//")

    def __mod__(self, other: object) -> Exact:
        return self.apply(other, lambda a, b: a % b, "%")

    def __truediv__(self, other: object) -> Exact:
        b = Exact.of(other)
        if (self.scalar or b.scalar) and not (self.is_float or b.is_float):
            raise TypeError(f"{self} / {b}: integers; cast to a float or use //")
        return self.apply(b, _divided, "/")

    def __rshift__(self, other: object) -> Exact:
        return self.apply(other, lambda a, b: a >> b, ">>")

    def __lshift__(self, other: object) -> Exact:
        return self.apply(other, lambda a, b: a << b, "<<")

    def __and__(self, other: object) -> Exact:
        return self.apply(other, lambda a, b: a & b, "&")

    def __or__(self, other: object) -> Exact:
        return self.apply(other, lambda a, b: a | b, "|")

    def __xor__(self, other: object) -> Exact:
        return self.apply(other, lambda a, b: a ^ b, "^")

    def __iadd__(self, other: object) -> Exact:
        """The accumulator's `+=`: the sum keeps its declared type, which must hold it or wrap."""
        if self.scalar is None:
            return self + other
        total = self + other
        if total.scalar != self.scalar and (total.is_float or self.is_float):
            raise TypeError(f"{self.scalar.name} += {total.scalar}: cast the value")
        return total.cast(self.scalar, wrap=self.wraps)

    def __radd__(self, other: object) -> Exact:
        return Exact.of(other) + self

    def __rsub__(self, other: object) -> Exact:
        return Exact.of(other) - self

    def __rmul__(self, other: object) -> Exact:
        return Exact.of(other) * self

    def __rtruediv__(self, other: object) -> Exact:
        return Exact.of(other) / self

    def __rfloordiv__(self, other: object) -> Exact:
        return Exact.of(other) // self

    def __rmod__(self, other: object) -> Exact:
        return Exact.of(other) % self

    def __rlshift__(self, other: object) -> Exact:
        return Exact.of(other) << self

    def __rrshift__(self, other: object) -> Exact:
        return Exact.of(other) >> self

    def __neg__(self) -> Exact:
        return Exact(-self.value, self.scalar)

    def __abs__(self) -> Exact:
        return Exact(abs(self.value), self.scalar)

    def __lt__(self, other: object) -> bool:
        return self.value < Exact.of(other).value

    def __le__(self, other: object) -> bool:
        return self.value <= Exact.of(other).value

    def __gt__(self, other: object) -> bool:
        return self.value > Exact.of(other).value

    def __ge__(self, other: object) -> bool:
        return self.value >= Exact.of(other).value

    def __eq__(self, other: object) -> bool:
        return self.value == Exact.of(other).value

    def __hash__(self) -> int:
        return hash(self.value)

    def __str__(self) -> str:
        return f"{self.scalar.name}({self.value})" if self.scalar else str(self.value)

    def __bool__(self) -> bool:
        raise TypeError(f"{self} is not a condition; compare it with something")

    def __index__(self) -> int:
        if not isinstance(self.value, int):
            raise TypeError(f"{self.value!r} is not an index")
        return self.value

    def __float__(self) -> float:
        return float(self.value)


def _divided(a: float, b: float) -> float:
    """IEEE division, where Python raises on zero."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return float(np.divide(a, b))


def _rounded(value: float, scalar: Scalar) -> float:
    with np.errstate(over="ignore"):
        return float(np.float32(value)) if scalar.bits == 32 else value
