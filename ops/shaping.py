"""Values in other places of one array: reshape, transpose, expand, slice, depth_to_space and
space_to_depth.

Turns each of them into one nest that reads the flat input with a step for every axis of the
result; a step may be 0 or negative. Values are copied as they are, so that a quantized array keeps
its quantization.
"""

from __future__ import annotations

import math
from typing import Any

from ..dsl import loops as sf
from ..dsl.errors import OperandError
from ..dsl.types import OperandType, f32, i8, i32, i64, u8
from ..kernel import kernel
from .layer import Layer, Step
from .op import op
from .window import is_size, nonempty, rank, typed

MOVED = (f32, u8, i8, i32, i64)
MAX_AXES = 6
MAX_RANK = 8


@kernel
def strided(
    x, out, *, base=0, step_a=0, step_b=0, step_c=0, step_d=0, step_e=0, step_f=0
):  # fmt: skip
    """out[a,b,c,d,e,f] = x[base + a*step_a + b*step_b + c*step_c + d*step_d + e*step_e +
    f*step_f].
    """
    for a, b, c, d, e, f in sf.grid(out.shape):
        first = base + a * step_a + b * step_b + c * step_c
        out[a, b, c, d, e, f] = x[first + d * step_d + e * step_e + f * step_f]


def movable(name: str, operand: str, x: OperandType) -> None:
    """OperandError unless the operand has elements of a type that is moved, and at most 8 axes."""
    typed(name, operand, x, MOVED)
    nonempty(name, operand, x)
    if len(x.shape) > MAX_RANK:
        raise OperandError(
            f"{name}: {operand}.shape={list(x.shape)} has {len(x.shape)} axes; at most {MAX_RANK} "
            "are allowed. Join neighbouring axes first."
        )


def integers(name: str, option: str, values: object, count: int | None = None) -> tuple[int, ...]:
    """The option as a tuple of integers, `count` of them. Raises OperandError for another thing."""
    if isinstance(values, (tuple, list)) and count in (None, len(values)):
        found = tuple(v for v in values if isinstance(v, int) and not isinstance(v, bool))
        if len(found) == len(values):
            return found
    wanted = "integers" if count is None else f"{count} integers, one for each axis"
    raise OperandError(
        f"{name}: {option}={values!r} is not a tuple of {wanted}. Give such a tuple."
    )


def _merged(sizes: tuple[int, ...], steps: tuple[int, ...]) -> tuple[list[int], list[int]]:
    """(sizes, steps) of as few axes as reach the same elements in the same order."""
    found: list[tuple[int, int]] = []
    for n, step in zip(sizes, steps, strict=True):
        if n == 1:
            continue
        if found and found[-1][1] == step * n:
            found[-1] = found[-1][0] * n, step
        else:
            found.append((n, step))
    return [n for n, _ in found], [step for _, step in found]


def _moved(
    name: str,
    x: OperandType,
    out: tuple[int, ...],
    sizes: tuple[int, ...],
    steps: tuple[int, ...],
    target: Any,
    base: int = 0,
) -> Layer:
    """`x` to the shape `out`, whose elements in C order are those of `sizes`: element a, b, ... of
    these is element base + a*steps[0] + b*steps[1] + ... of the flat `x`.
    """
    merged, strides = _merged(sizes, steps)
    if len(merged) > MAX_AXES:
        raise OperandError(
            f"{name}: x.shape={list(x.shape)} to {list(out)} moves {len(merged)} groups of axes "
            f"apart from each other; at most {MAX_AXES} are allowed. Do it in two calls."
        )
    missing = MAX_AXES - len(merged)
    view = (*[1] * missing, *merged)
    constants = {f"step_{k}": s for k, s in zip("abcdef", [0] * missing + strides, strict=True)}
    made = strided.specialize(
        x=x.scalar[x.size],
        out=x.scalar[view],
        target=target,
        base=base,
        **constants,
    )
    return Layer({"x": (x.size,)}, x.scalar[out], (Step(made, ("x",), "out", view),))


def _reshape_shape(x: OperandType, *, shape: tuple[int, ...], **_: Any) -> OperandType:
    movable("reshape", "x", x)
    wanted = integers("reshape", "shape", shape)
    known = math.prod(n for n in wanted if n != -1)
    if wanted.count(-1) == 1 and known > 0 and x.size % known == 0:
        wanted = tuple(x.size // known if n == -1 else n for n in wanted)
    if any(n < 0 for n in wanted) or math.prod(wanted) != x.size:
        raise OperandError(
            f"reshape: shape={shape!r} does not have the {x.size} elements of x {list(x.shape)}; "
            "sizes with this product are allowed, one of them -1. Give such a shape."
        )
    movable("reshape", "shape", x.scalar[wanted])
    return x.scalar[wanted]


@op(_reshape_shape)
def reshape(x: OperandType, *, shape: tuple[int, ...], target: Any = None) -> Layer:
    """The elements of `x` in C order as `shape`, of which one size may be -1.

    f32, u8, i8, i32 or i64. Raises OperandError for a shape with another number of elements.
    """
    kind = _reshape_shape(x, shape=shape)
    return _moved("reshape", x, kind.shape, (x.size,), (1,), target)


def _transpose_shape(x: OperandType, *, axes: tuple[int, ...], **_: Any) -> OperandType:
    movable("transpose", "x", x)
    order = integers("transpose", "axes", axes, len(x.shape))
    if sorted(order) != list(range(len(x.shape))):
        raise OperandError(
            f"transpose: axes={axes!r} is not an order of the axes 0 to {len(x.shape) - 1} of x "
            f"{list(x.shape)}; each is named once. Correct the axes."
        )
    return x.scalar[tuple(x.shape[a] for a in order)]


@op(_transpose_shape)
def transpose(x: OperandType, *, axes: tuple[int, ...], target: Any = None) -> Layer:
    """Axis axes[k] of `x` becomes axis k of the result, as np.transpose does.

    f32, u8, i8, i32 or i64. Raises OperandError for `axes` that are not an order of all axes.
    """
    kind = _transpose_shape(x, axes=axes)
    steps = tuple(x.scalar[x.shape].strides[a] for a in axes)
    return _moved("transpose", x, kind.shape, kind.shape, steps, target)


def _expand_shape(x: OperandType, *, shape: tuple[int, ...], **_: Any) -> OperandType:
    movable("expand", "x", x)
    wanted = integers("expand", "shape", shape)
    ahead = len(wanted) - len(x.shape)
    seen = (1,) * ahead + x.shape
    if ahead < 0 or any(n < 1 or s not in (1, n) for s, n in zip(seen, wanted, strict=False)):
        raise OperandError(
            f"expand: x {list(x.shape)} does not repeat to shape={shape!r}; along each axis, "
            "counted from the last, the sizes are equal or that of x is 1. Correct the shape."
        )
    movable("expand", "shape", x.scalar[wanted])
    return x.scalar[wanted]


@op(_expand_shape)
def expand(x: OperandType, *, shape: tuple[int, ...], target: Any = None) -> Layer:
    """`x` repeated along its axes of size 1, and along new first axes, as np.broadcast_to does.

    f32, u8, i8, i32 or i64. Raises OperandError for a shape that `x` does not repeat to.
    """
    kind = _expand_shape(x, shape=shape)
    ahead = len(kind.shape) - len(x.shape)
    strides = x.scalar[x.shape].strides
    steps = tuple(0 if n == 1 else s for n, s in zip(x.shape, strides, strict=True))
    return _moved("expand", x, kind.shape, kind.shape, (0,) * ahead + steps, target)


def _slice_shape(
    x: OperandType,
    *,
    starts: tuple[int, ...],
    stops: tuple[int, ...],
    steps: tuple[int, ...],
    **_: Any,
) -> OperandType:
    movable("slice", "x", x)
    given = [
        integers("slice", key, values, len(x.shape))
        for key, values in (("starts", starts), ("stops", stops), ("steps", steps))
    ]
    shape = []
    for axis, (n, start, stop, step) in enumerate(zip(x.shape, *given, strict=True)):
        forward = step >= 1 and 0 <= start < stop <= n
        backward = step <= -1 and -1 <= stop < start < n
        if not (forward or backward):
            raise OperandError(
                f"slice: axis={axis} from {start} to {stop} by {step} takes nothing, or leaves the "
                f"{n} elements of the axis; 0 <= start < stop <= {n} with a step of 1 or more, and "
                f"{n} > start > stop >= -1 with a negative one, are allowed. Give what Python's "
                "slice.indices gives."
            )
        shape.append(len(range(start, stop, step)))
    return x.scalar[tuple(shape)]


@op(_slice_shape)
def slice(
    x: OperandType,
    *,
    starts: tuple[int, ...],
    stops: tuple[int, ...],
    steps: tuple[int, ...],
    target: Any = None,
) -> Layer:
    """The elements range(starts[k], stops[k], steps[k]) of every axis k of `x`.

    f32, u8, i8, i32 or i64. Starts and stops are what Python's `slice.indices` gives: not counted
    from the end. Raises OperandError for those that leave `x`, and for a result without elements.
    """
    kind = _slice_shape(x, starts=starts, stops=stops, steps=steps)
    strides = x.scalar[x.shape].strides
    base = sum(a * s for a, s in zip(starts, strides, strict=True))
    taken = tuple(a * s for a, s in zip(steps, strides, strict=True))
    return _moved("slice", x, kind.shape, kind.shape, taken, target, base)


ORDERS = ("dcr", "crd")


def _block(name: str, x: OperandType, block: object) -> int:
    movable(name, "x", x)
    rank(name, "x", x, "n, h, w, c")
    if not is_size(block, 1):
        raise OperandError(f"{name}: block={block!r} is not an integer of 1 or more. Give one.")
    return block


def _depth_to_space_shape(
    x: OperandType, *, block: int, order: str = "dcr", **_: Any
) -> OperandType:
    side = _block("depth_to_space", x, block)
    if order not in ORDERS:
        raise OperandError(
            f"depth_to_space: order={order!r} is not known; 'dcr' and 'crd' are. Use one."
        )
    n, h, w, c = x.shape
    if c % (side * side):
        raise OperandError(
            f"depth_to_space: x has {c} channels, which block={side} does not divide into "
            f"{side}*{side} parts; a multiple of {side * side} is allowed. Correct the block."
        )
    return x.scalar[n, h * side, w * side, c // (side * side)]


@op(_depth_to_space_shape)
def depth_to_space(x: OperandType, *, block: int, order: str = "dcr", target: Any = None) -> Layer:
    """[n, h, w, c] to [n, h*block, w*block, C], C = c/block^2.

    out[n, h*block + i, w*block + j, k] = x[n, h, w, (i*block + j)*C + k] for `order="dcr"` (TFLite,
    ONNX's default) and x[n, h, w, (k*block + i)*block + j] for "crd" (PyTorch's pixel shuffle).
    f32, u8, i8, i32 or i64. Raises OperandError for other forms.
    """
    kind = _depth_to_space_shape(x, block=block, order=order)
    n, h, w, c = x.shape
    deep = kind.shape[3]
    down, right, channel = (block * deep, deep, 1) if order == "dcr" else (block, 1, block * block)
    sizes = n * h, block, w, block, deep
    return _moved("depth_to_space", x, kind.shape, sizes, (w * c, down, c, right, channel), target)


def _space_to_depth_shape(x: OperandType, *, block: int, **_: Any) -> OperandType:
    side = _block("space_to_depth", x, block)
    n, h, w, c = x.shape
    if h % side or w % side:
        raise OperandError(
            f"space_to_depth: height={h}, width={w} are not multiples of block={side}, which they "
            "must be. Pad or correct the block."
        )
    return x.scalar[n, h // side, w // side, c * side * side]


@op(_space_to_depth_shape)
def space_to_depth(x: OperandType, *, block: int, target: Any = None) -> Layer:
    """[n, h, w, c] to [n, h/block, w/block, c*block^2]: out[n, h, w, (i*block + j)*c + k] =
    x[n, h*block + i, w*block + j, k].

    f32, u8, i8, i32 or i64. Raises OperandError for other forms.
    """
    kind = _space_to_depth_shape(x, block=block)
    n, h, w, c = x.shape
    sizes = n * h // block, w // block, block, block, c
    steps = block * w * c, block * c, w * c, c, 1
    return _moved("space_to_depth", x, kind.shape, sizes, steps, target)
