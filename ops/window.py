"""Where a sliding window stands: pads, strides and output sizes of convolutions and pools.

Turns the arguments `kernel`, `stride`, `padding` and `dilation` of an op and the type of its input
into a `Window`, or a typed error that names the argument. Moves no data.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeGuard

from ..dsl.errors import OperandError
from ..dsl.types import OperandType, Scalar

Pair = int | tuple[int, int]
Pads = tuple[tuple[int, int], tuple[int, int]]
Padding = int | str | tuple[int, int] | Pads


@dataclass(frozen=True)
class Window:
    """A window over the height and width of an NHWC operand; every pair is (vertical, horizontal).

    out   how many places it has
    """

    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    pads: Pads
    out: tuple[int, int]

    @property
    def constants(self) -> dict[str, int]:
        """The constants that window nests take."""
        return {
            "stride_h": self.stride[0],
            "stride_w": self.stride[1],
            "dilation_h": self.dilation[0],
            "dilation_w": self.dilation[1],
        }


def window(
    op: str,
    x: OperandType,
    kernel: tuple[int, ...],
    stride: Pair,
    padding: Padding,
    dilation: Pair = 1,
) -> Window:
    """The window of an op over `x` [n, h, w, c].

    With p padded elements along an axis: out = (size + p - (kernel-1)*dilation - 1) // stride + 1.
    "same" pads so that out = ceil(size / stride), the odd element last; "valid" pads nothing.

    Raises OperandError for arguments of another form, and a window larger than its input.
    """
    strides = _pair(op, "stride", stride, 1)
    dilations = _pair(op, "dilation", dilation, 1)
    reach = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True))
    sizes = x.shape[1:3]
    pads = _pads(op, padding, sizes, reach, strides)
    out = []
    for axis, size, (before, after), r, s in zip(
        ("height", "width"), sizes, pads, reach, strides, strict=True
    ):
        if size + before + after < r:
            raise OperandError(
                f"{op}: {axis}={size} with padding {before} + {after} is smaller than the window's "
                f"{r}; at least {r} elements are needed. Pad more, or use a smaller window."
            )
        out.append((size + before + after - r) // s + 1)
    return Window((kernel[0], kernel[1]), strides, dilations, pads, (out[0], out[1]))


def without_border(op: str, x: OperandType, padding: Padding) -> OperandType:
    """The type of what lies inside the border of `x` [n, h, w, c], of `padding` in numbers.

    Raises OperandError for "same", which depends on the answer, and for an input that is all
    border.
    """
    if padding == "same":
        raise OperandError(
            f"{op}: padding='same' of an input that has its border is not known; numbers are, such "
            "as ((top, bottom), (left, right)). Give the border's."
        )
    pads = _pads(op, padding, x.shape[1:3], (1, 1), (1, 1))
    n, h, w, c = x.shape
    inside = [size - before - after for size, (before, after) in zip((h, w), pads, strict=True)]
    if min(inside) < 1:
        raise OperandError(
            f"{op}: x.shape={list(x.shape)} has nothing inside a border of {pads}; more than the "
            "border is needed. Give the whole array, or bordered=False."
        )
    return replace(x, shape=(n, *inside, c))


def _pads(
    op: str, padding: Padding, sizes: tuple[int, ...], reach: tuple[int, ...], stride: Pair
) -> Pads:
    if padding == "valid":
        return (0, 0), (0, 0)
    if padding == "same":
        both = []
        for size, r, s in zip(sizes, reach, _pair(op, "stride", stride, 1), strict=True):
            total = max(0, (-(-size // s) - 1) * s + r - size)
            both.append((total // 2, total - total // 2))
        return both[0], both[1]
    if isinstance(padding, (tuple, list)) and len(padding) == 2:
        if all(isinstance(p, (tuple, list)) for p in padding):
            vertical, horizontal = padding
            return _pair(op, "padding", vertical, 0), _pair(op, "padding", horizontal, 0)
        vertical, horizontal = _pair(op, "padding", padding, 0)
        return (vertical, vertical), (horizontal, horizontal)
    if is_size(padding, 0):
        return (padding, padding), (padding, padding)
    raise OperandError(
        f"{op}: padding={padding!r} is not known; a number, (vertical, horizontal), ((top, "
        f"bottom), "
        '(left, right)), "same" and "valid" are. Use one of them.'
    )


def _pair(op: str, name: str, value: object, low: int) -> tuple[int, int]:
    if is_size(value, low):
        return value, value
    if isinstance(value, (tuple, list)) and len(value) == 2:
        first, second = value
        if is_size(first, low) and is_size(second, low):
            return first, second
    raise OperandError(
        f"{op}: {name}={value!r} is not one or two integers of {low} or more, which it must be. "
        "Give (vertical, horizontal), or one number for both."
    )


def window_size(op: str, value: object) -> tuple[int, int]:
    """The `kernel` argument of a pool: (height, width) of 1 or more."""
    return _pair(op, "kernel", value, 1)


def is_size(value: object, low: int) -> TypeGuard[int]:
    """Whether it is an integer (not a bool) of `low` or more."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= low


def rank(op: str, name: str, kind: OperandType, axes: str) -> None:
    """OperandError unless the operand has the axes, written as "n, h, w, c"."""
    wanted = axes.count(",") + 1
    if len(kind.shape) != wanted:
        raise OperandError(
            f"{op}: {name}.shape={list(kind.shape)} has {len(kind.shape)} axes; [{axes}] has "
            f"{wanted}. Reshape it."
        )


def typed(op: str, name: str, kind: OperandType, allowed: tuple[Scalar, ...]) -> None:
    """OperandError unless the operand's element type is one of those allowed."""
    if kind.scalar not in allowed:
        raise OperandError(
            f"{op}: {name}={kind.scalar} is not a type of this operand; "
            f"{', '.join(s.name for s in allowed)} are allowed. Convert it."
        )


def nonempty(op: str, name: str, kind: OperandType) -> None:
    """OperandError for an operand without elements."""
    if 0 in kind.shape:
        raise OperandError(
            f"{op}: {name}.shape={list(kind.shape)} has no elements; sizes of 1 or more are "
            "allowed. Skip the call for an empty batch."
        )
