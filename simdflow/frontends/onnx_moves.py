"""ONNX operators that move elements: reshapes, slices, joins, gathers, pads, and the shapes that
are known when the model is imported.

Each importer turns one node into moves of simdflow, or into a constant. Shapes, axes, starts and
pads must be known.
"""

from __future__ import annotations

import math

import numpy as np

from .. import ops
from .onnx_call import Call, Operator, Table
from .onnx_scope import Tensor, Unsupported, counted, known


def _reshape(n: Call) -> Tensor:
    x = n.need(0)
    wanted = [int(d) for d in n.constant(1).reshape(-1)]
    if not n.integer("allowzero", 0):
        if any(d == 0 and i >= x.rank for i, d in enumerate(wanted)):
            raise Unsupported(f"shape {wanted} copies an axis that {list(x.shape)} has not")
        wanted = [x.shape[i] if d == 0 else d for i, d in enumerate(wanted)]
    if wanted.count(-1) == 1:
        rest = math.prod(d for d in wanted if d != -1)
        if not rest or math.prod(x.shape) % rest:
            raise Unsupported(f"shape {list(x.shape)} does not become {wanted}")
        wanted = [math.prod(x.shape) // rest if d == -1 else d for d in wanted]
    if any(d < 0 for d in wanted):
        raise Unsupported(f"shape {wanted}")
    return n.reshape(x, tuple(wanted))


def _flatten(n: Call) -> Tensor:
    x = n.need(0)
    axis = n.integer("axis", 1)
    axis = axis if axis == x.rank else counted(axis, x.rank) if x.rank else 0
    return n.reshape(x, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))


def _squeeze(n: Call) -> Tensor:
    x, axes = n.need(0), n.whole(1, "axes")
    if axes is None:
        axes = tuple(i for i, d in enumerate(x.shape) if d == 1)
    gone = {counted(a, x.rank) for a in axes}
    if any(x.shape[a] != 1 for a in gone):
        raise Unsupported(f"axes {sorted(gone)} of {list(x.shape)} are not of size 1")
    return n.reshape(x, tuple(d for i, d in enumerate(x.shape) if i not in gone))


def _unsqueeze(n: Call) -> Tensor:
    x, axes = n.need(0), n.whole(1, "axes") or ()
    rank = x.rank + len(axes)
    new = {counted(a, rank) for a in axes}
    if len(new) != len(axes):
        raise Unsupported(f"axes {axes} come twice")
    rest = iter(x.shape)
    return n.reshape(x, tuple(1 if i in new else next(rest) for i in range(rank)))


def _transpose(n: Call) -> Tensor:
    x = n.need(0)
    axes = n.ints("perm", tuple(range(x.rank))[::-1])
    if sorted(axes) != list(range(x.rank)):
        raise Unsupported(f"perm {axes} of {x.rank} axes")
    return n.transpose(x, axes)


def _concat(n: Call) -> Tensor:
    tensors = tuple(n.need(i) for i in range(len(n.inputs)))
    axis = n.axis(tensors[0].rank, 1)
    if any(t.dtype != tensors[0].dtype for t in tensors):
        raise Unsupported("parts of different types")
    # Empty parts add nothing, and no op takes them.
    full = tuple(t for t in tensors if 0 not in t.shape)
    return n.concat(full, axis) if full else tensors[0]


def _split(n: Call) -> tuple[Tensor, ...]:
    x = n.need(0)
    axis = n.axis(x.rank, 0)
    parts = n.integer("num_outputs", len(n.node.outputs))
    sizes = n.whole(1, "split")
    if sizes is None:
        if not 0 < parts == len(n.node.outputs):
            raise Unsupported(f"{parts} parts for {len(n.node.outputs)} outputs")
        each = -(-x.shape[axis] // parts)
        sizes = tuple(max(0, min(each, x.shape[axis] - i * each)) for i in range(parts))
    if len(sizes) != len(n.node.outputs) or sum(sizes) != x.shape[axis] or min(sizes) < 0:
        raise Unsupported(f"parts {sizes} of {x.shape[axis]}")
    ends = np.cumsum(sizes).tolist()
    return tuple(n.slice(x, axis, end - size, end) for size, end in zip(sizes, ends, strict=True))


def _slice(n: Call) -> Tensor:
    x = n.need(0)
    starts, stops = n.whole(1, "starts") or (), n.whole(2, "ends") or ()
    axes = n.whole(3, "axes")
    axes = tuple(range(len(starts))) if axes is None else axes
    steps = n.whole(4, "steps") or (1,) * len(starts)
    if not len(starts) == len(stops) == len(axes) == len(steps) or 0 in steps:
        raise Unsupported(f"starts {starts}, ends {stops}, axes {axes}, steps {steps}")
    for a, start, stop, step in zip(axes, starts, stops, steps, strict=True):
        axis = counted(a, x.rank)
        x = n.slice(x, axis, *slice(start, stop, step).indices(x.shape[axis]))
    return x


def _gather(n: Call) -> Tensor:
    x, at = n.need(0), n.need(1)
    axis = n.axis(x.rank, 0)
    shape = (*x.shape[:axis], *at.shape, *x.shape[axis + 1 :])
    if at.array is None:
        if at.dtype not in (np.int32, np.int64):
            raise Unsupported(f"indices of {at.dtype}")
        flat = n.reshape(at, (1,)) if at.rank == 0 else at
        return n.typed(n.reshape(n.emit(ops.gather, x, flat, axis=axis), shape), x.dtype)
    places = at.array.reshape(-1).astype(np.int64)
    size = x.shape[axis]
    if places.size and not -size <= places.min() <= places.max() < size:
        raise Unsupported(f"indices {places.min()} to {places.max()} of {size}")
    return n.reshape(n.gather(x, places % max(size, 1), axis), shape)


def _from_flat(
    n: Call, x: Tensor, axes: int, at: tuple[np.ndarray, ...], out: tuple[int, ...]
) -> Tensor:
    """x[at[0], at[1], ...] over the first axes, which become one; `at` may be negative."""
    for places, size in zip(at, x.shape, strict=False):
        if places.size and not -size <= places.min() <= places.max() < size:
            raise Unsupported(f"indices {places.min()} to {places.max()} of {size}")
    flat = n.reshape(x, (math.prod(x.shape[:axes]), *x.shape[axes:]))
    within = tuple(p % max(d, 1) for p, d in zip(at, x.shape, strict=False))
    places = np.ravel_multi_index(within, x.shape[:axes]).reshape(-1)
    return n.reshape(n.gather(flat, places.astype(np.int64), 0), out)


def _gather_nd(n: Call) -> Tensor:
    x, at, batch = n.need(0), n.constant(1), n.integer("batch_dims", 0)
    depth = batch + (at.shape[-1] if at.ndim else 0)
    if not 0 <= batch < at.ndim or not 0 < depth <= x.rank or at.shape[:batch] != x.shape[:batch]:
        raise Unsupported(f"indices {list(at.shape)} of {list(x.shape)}, batch_dims {batch}")
    n.scope.charge(8 * at.size * (depth + 1))
    outer = np.indices(at.shape[:-1])[:batch]
    inner = [at[..., i].astype(np.int64) for i in range(at.shape[-1])]
    return _from_flat(n, x, depth, (*outer, *inner), (*at.shape[:-1], *x.shape[depth:]))


def _gather_elements(n: Call) -> Tensor:
    x, at = n.need(0), n.constant(1)
    axis = n.axis(x.rank, 0)
    fits = at.ndim == x.rank and all(
        a <= b for i, (a, b) in enumerate(zip(at.shape, x.shape, strict=True)) if i != axis
    )
    if not fits:
        raise Unsupported(f"indices {list(at.shape)} of {list(x.shape)}")
    n.scope.charge(8 * at.size * (x.rank + 1))
    grid: list[np.ndarray] = list(np.indices(at.shape))
    grid[axis] = at.astype(np.int64)
    return _from_flat(n, x, x.rank, tuple(grid), at.shape)


def _expand(n: Call) -> Tensor:
    x = n.need(0)
    wanted = tuple(int(d) for d in n.constant(1).reshape(-1))
    if any(d < 0 for d in wanted):
        raise Unsupported(f"shape {wanted}")
    try:
        shape = np.broadcast_shapes(x.shape, wanted)
    except ValueError:
        raise Unsupported(f"{list(x.shape)} does not broadcast to {wanted}") from None
    return n.expand(x, shape)


def _tile(n: Call) -> Tensor:
    x = n.need(0)
    repeats = tuple(int(r) for r in n.constant(1).reshape(-1))
    if len(repeats) != x.rank or min(repeats, default=1) < 1:
        raise Unsupported(f"repeats {repeats} of {list(x.shape)}")
    # Axis by axis: an op repeats few axes that stand apart.
    for axis, times in enumerate(repeats):
        if times > 1:
            d, before, after = x.shape[axis], x.shape[:axis], x.shape[axis + 1 :]
            apart = n.reshape(x, (*before, 1, d, *after))
            x = n.reshape(
                n.expand(apart, (*before, times, d, *after)), (*before, times * d, *after)
            )
    return x


def _pad(n: Call) -> Tensor:
    x = n.need(0)
    mode = n.one("mode", ("constant", "reflect", "edge", "wrap"), "constant")
    pads = n.whole(1, "pads") or ()
    value = n.optional(2)
    fill = n.real("value", 0.0) if value is None or not value.size else value.reshape(-1)[0]
    given = n.whole(3, "axes")
    axes = tuple(counted(a, x.rank) for a in (range(x.rank) if given is None else given))
    if len(pads) != 2 * len(axes) or len(set(axes)) != len(axes):
        raise Unsupported(f"pads {pads} of axes {axes}")
    border = [(0, 0)] * x.rank
    for axis, before, after in zip(axes, pads[: len(axes)], pads[len(axes) :], strict=True):
        size = x.shape[axis]
        if min(before, 0) + min(after, 0) + size < 1:
            raise Unsupported(f"pads {pads} of {list(x.shape)} leave nothing")
        x = n.slice(x, axis, max(-before, 0), size - max(-after, 0))
        border[axis] = max(before, 0), max(after, 0)
    if mode != "constant":
        for axis, (before, after) in enumerate(border):
            if before or after:
                n.scope.charge(8 * (x.shape[axis] + before + after))
                places = np.pad(np.arange(x.shape[axis]), (before, after), mode)
                x = n.gather(x, places, axis)
        return x
    if not any(sum(p) for p in border):
        return x
    if x.array is not None:
        shape = tuple(d + a + b for d, (a, b) in zip(x.shape, border, strict=True))
        n.scope.charge(math.prod(shape) * x.dtype.itemsize)
        return known(np.pad(x.array, border, constant_values=fill))
    plain = float(fill) if x.is_float else int(fill)
    return n.typed(n.emit(ops.pad, x, pads=tuple(border), value=plain), x.dtype)


def _shape(n: Call) -> Tensor:
    shape = n.need(0).shape
    end = n.integer("end", len(shape))
    return known(np.array(shape[slice(n.integer("start", 0), end)], np.int64))


def _size(n: Call) -> Tensor:
    return known(np.array(math.prod(n.need(0).shape), np.int64))


def _constant(n: Call) -> Tensor:
    kind = {
        "value_float": np.float32, "value_floats": np.float32,
        "value_int": np.int64, "value_ints": np.int64,
    }  # fmt: skip
    for name, dtype in kind.items():
        if name in n.node.attributes:
            n.unread.discard(name)
            return known(np.array(n.node.attributes[name], dtype))
    if not isinstance(n.node.attributes.get("value"), np.ndarray):
        raise Unsupported("a constant that is no tensor of numbers")
    return known(n.array("value", np.zeros(0)))


def _spread(n: Call, block: int, order: str, forward: bool) -> Tensor:
    x = n.need(0)
    if x.rank != 4:
        raise Unsupported(f"{x.rank} axes; [n, c, h, w] is supported")
    inner = n.transpose(x, (0, 2, 3, 1))
    if forward:
        made = n.emit(ops.depth_to_space, inner, block=block, order=order)
    else:
        made = n.emit(ops.space_to_depth, inner, block=block)
    return n.transpose(made, (0, 3, 1, 2))


def _depth_to_space(n: Call) -> Tensor:
    mode = n.one("mode", ("DCR", "CRD"), "DCR")
    return _spread(n, n.integer("blocksize"), mode.lower(), True)


def _space_to_depth(n: Call) -> Tensor:
    n.one("mode", ("DCR",), "DCR")
    return _spread(n, n.integer("blocksize"), "dcr", False)


_MOVED = "f32, int8, uint8, int32, int64, bool"
MOVES: Table = {
    "Concat": Operator(_concat, note=_MOVED),
    "Constant": Operator(_constant, note="tensors and numbers"),
    "DepthToSpace": Operator(_depth_to_space, note="4 axes"),
    "Expand": Operator(_expand, (1,), note=_MOVED),
    "Flatten": Operator(_flatten, note=_MOVED),
    "Gather": Operator(_gather, note=_MOVED + "; computed indices are not negative"),
    "GatherElements": Operator(_gather_elements, (1,), note=_MOVED),
    "GatherND": Operator(_gather_nd, (1,), note=_MOVED),
    "Pad": Operator(_pad, (1, 2, 3), note="f32, int8, uint8, int32"),
    "Reshape": Operator(_reshape, (1,), note=_MOVED),
    "Shape": Operator(_shape),
    "Size": Operator(_size),
    "Slice": Operator(_slice, (1, 2, 3, 4), note=_MOVED),
    "SpaceToDepth": Operator(_space_to_depth, note="4 axes"),
    "Split": Operator(_split, (1,), note=_MOVED),
    "Squeeze": Operator(_squeeze, (1,), note=_MOVED),
    "Tile": Operator(_tile, (1,), note=_MOVED),
    "Transpose": Operator(_transpose, note=_MOVED),
    "Unsqueeze": Operator(_unsqueeze, (1,), note=_MOVED),
}
