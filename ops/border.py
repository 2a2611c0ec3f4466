"""Borders: an array with elements added around it, and the step that gives an op's input one.

The `pad` kernel copies the inside; the border is written when a buffer is made and stays. A window
nest indexes the bordered array from 0.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..dsl import loops as sf
from ..dsl.errors import OperandError
from ..dsl.types import OperandType, Scalar, f32, i8, i32, u8
from ..kernel import kernel
from .layer import SLACK, Buffer, Layer, Step, filled
from .op import op
from .window import Pads, is_size, nonempty, typed

Border = tuple[tuple[int, int], ...]
PADDED = 4  # axes that are padded at once, with those between them left as they are


@kernel
def copy_inside(x, out, *, before_b=0, before_c=0, before_d=0, before_e=0):
    """out[a, b + before_b, c + before_c, d + before_d, e + before_e] = x[a, b, c, d, e]; the rest
    of `out` is its border.
    """
    for a, b, c, d, e in sf.grid(x.shape):
        out[a, b + before_b, c + before_c, d + before_d, e + before_e] = x[a, b, c, d, e]


@kernel
def fill_all(value, out):
    """out[a, b, c, d, e] = value[0]."""
    for a, b, c, d, e in sf.grid(out.shape):
        out[a, b, c, d, e] = value[0]


@dataclass(frozen=True)
class Source:
    """Where a window nest reads its input: the operand's name and type, and how it gets there.

    shape   in which the op's input itself is read
    """

    name: str
    kind: OperandType
    shape: tuple[int, ...]
    steps: tuple[Step, ...] = ()
    buffers: tuple[Buffer, ...] = ()


def source(
    op: str,
    name: str,
    x: OperandType,
    pads: Pads,
    value: float,
    target: Any,
    given: bool = False,
) -> Source:
    """The input `x` [n, h, w, c] of an op with a border of `value`; itself when there is none, or
    when it is `given`.
    """
    if pads == ((0, 0), (0, 0)):
        return Source(name, x, x.shape)
    border = ((0, 0), *pads, (0, 0))
    zeros = border if value == 0 else ()
    if given:
        return Source(name, replace(x, zeros=zeros), x.shape)
    if not x.scalar.low <= value <= x.scalar.high:
        raise OperandError(
            f"{op}: border value {value} is not a value of {x.scalar}; {x.scalar.low} to "
            f"{x.scalar.high} is allowed. Give the zero point of the stored type."
        )
    kind = x.scalar[_bordered(x.shape, border)]
    buffer = Buffer(f"{name}_bordered", kind.shape, x.scalar.dtype, value, name, border)
    shape, step = copied(op, x, border, name, buffer.name, target)
    kind = replace(kind, slack=SLACK, zeros=zeros)
    return Source(buffer.name, kind, shape, (step,), (buffer,))


def bordered(
    shape: tuple[int, ...], kind: Scalar, padding: Border, value: float = 0
) -> tuple[np.ndarray, np.ndarray]:
    """(whole, inside): an array of `shape` and its border in one memory, `inside` being a view.

    `padding[i]` is (before, after) along axis i, filled with `value` (an op's zero point). Written
    through `inside` and passed as `whole` with `padding=0`, it saves an op the copy that makes a
    border. `whole` has 64 readable bytes after it.
    """
    whole = filled(_bordered(shape, padding), kind.dtype, value)
    inside = tuple(slice(a, a + n) for (a, _), n in zip(padding, shape, strict=True))
    return whole, whole[inside]


def _bordered(shape: tuple[int, ...], border: Border) -> tuple[int, ...]:
    return tuple(n + a + b for n, (a, b) in zip(shape, border, strict=True))


def _merged(shape: tuple[int, ...], border: Border) -> tuple[tuple[int, ...], Border]:
    """Shape and border with every unpadded axis joined to the one before it."""
    sizes, pads = [1], [(0, 0)]
    for n, (a, b) in zip(shape, border, strict=True):
        if (a, b) == (0, 0):
            sizes[-1] *= n
            pads[-1] = pads[-1][0] * n, pads[-1][1] * n
        else:
            sizes.append(n)
            pads.append((a, b))
    return tuple(sizes), tuple(pads)


def _few(op: str, border: Border) -> None:
    """OperandError for a border along more axes than one step writes."""
    padded = sum(pair != (0, 0) for pair in map(tuple, border))
    if padded > PADDED:
        raise OperandError(
            f"{op}: pads={list(border)} border {padded} axes; at most {PADDED} are allowed. Pad in "
            "two calls."
        )


def copied(
    op: str, x: OperandType, border: Border, name: str, out: str, target: Any
) -> tuple[tuple[int, ...], Step]:
    """(the shape in which `x` is read, the step that copies it into the border), in as few axes as
    the border needs.
    """
    _few(op, border)
    shape, pads = _merged(x.shape, border)
    fill = PADDED + 1 - len(shape)
    shape, pads = (1,) * fill + shape, ((0, 0),) * fill + pads
    inside = x.scalar[shape]
    whole = inside.with_border(pads, 0)
    before = [p for p, _ in pads]
    copying = copy_inside.specialize(
        x=inside,
        out=whole,
        target=target,
        before_b=before[1],
        before_c=before[2],
        before_d=before[3],
        before_e=before[4],
    )
    return shape, Step(copying, (name,), out, whole.shape)


def _pad_shape(
    x: OperandType, *, pads: Border, value: float = 0, target: Any = None
) -> OperandType:
    typed("pad", "x", x, (f32, u8, i8, i32))
    nonempty("pad", "x", x)
    if len(pads) != len(x.shape) or not all(
        len(p) == 2 and is_size(p[0], 0) and is_size(p[1], 0) for p in pads
    ):
        raise OperandError(
            f"pad: pads={pads!r} is not one (before, after) for each of the {len(x.shape)} axes, "
            "in numbers of 0 or more. Give ((0, 0), (1, 1), ...)."
        )
    if not x.scalar.low <= value <= x.scalar.high or not (x.scalar.is_float or value == int(value)):
        raise OperandError(
            f"pad: value={value!r} is not a value of {x.scalar}; {x.scalar.low} to "
            f"{x.scalar.high} is allowed. Give such a value."
        )
    _few("pad", pads)
    return x.scalar[_bordered(x.shape, pads)]


@op(_pad_shape)
def pad(x: OperandType, *, pads: Border, value: float = 0, target: Any = None) -> Layer:
    """`x` with `pads[i] = (before, after)` elements of `value` added along axis i.

    f32, u8, i8 or i32; at most four axes are padded. Raises OperandError for other forms.
    """
    kind = _pad_shape(x, pads=pads, value=value)
    shape, copying = copied("pad", x, pads, "x", "out", target)
    assert copying.view is not None
    filling = fill_all.specialize(value=x.scalar[1], out=x.scalar[copying.view], target=target)
    constant = np.full(1, value, x.scalar.dtype)
    return Layer({"x": shape}, kind, (Step(filling, (constant,), "out", copying.view), copying))
