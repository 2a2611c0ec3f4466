"""Turns the stored values of a sparse .tflite tensor into a dense array.

A sparse tensor lists its values in the order of a tree with one level for each axis, or part of an
axis for blocks; a level is dense, or compressed like the rows of a CSR matrix. Reads the levels and
checks them; stores nothing in a compressed form.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .tflite_bytes import FileBytes


@dataclass(frozen=True, eq=False)
class Level:
    """One level of the tree: `size` children of every node when dense, else the children of node p
    are `indices[segments[p]:segments[p + 1]]`.
    """

    size: int
    segments: NDArray[np.int64] | None = None
    indices: NDArray[np.int64] | None = None


@dataclass(frozen=True, eq=False)
class Sparsity:
    """The tree of a tensor: `order[l]` is the axis of level l, counted past the rank for the inner
    part of a blocked axis; `blocks[i]` is the axis whose inner part is axis rank + i.
    """

    order: tuple[int, ...]
    blocks: tuple[int, ...]
    levels: tuple[Level, ...]


def read_sparsity(file: FileBytes, entry: Any, field: str) -> Sparsity:
    """The tree in a SparsityParameters table; ModelError for levels of an unknown kind."""
    order = file.integers(entry, "TraversalOrder", 4, f"{field}.traversal_order")
    blocks = file.integers(entry, "BlockMap", 4, f"{field}.block_map")
    count = file.entries(entry.DimMetadataLength(), f"{field}.dim_metadata")
    levels = tuple(_level(file, entry.DimMetadata(i), f"{field}[{i}]") for i in range(count))
    return Sparsity(order, blocks, levels)


def _level(file: FileBytes, entry: Any, field: str) -> Level:
    kinds = file.schema.DimensionType
    if entry.Format() == kinds.DENSE:
        return Level(int(entry.DenseSize()))
    if entry.Format() != kinds.SPARSE_CSR:
        raise file.refuse(f"{field}.format", entry.Format(), "is not known; 0 and 1 are")
    found = []
    for part in ("Segments", "Indices"):
        kind = getattr(entry, f"Array{part}Type")()
        table = getattr(entry, f"Array{part}")()
        names = {"Int32Vector": 4, "Uint16Vector": 2, "Uint8Vector": 1}
        known = {getattr(file.schema.SparseIndexVector, n): n for n in names}
        if kind not in known or table is None:
            raise file.refuse(f"{field}.{part.lower()}_type", kind, "is not known; 1 to 3 are")
        vector = getattr(file.schema, known[kind])()
        vector.Init(table.Bytes, table.Pos)
        values = file.vector(vector, "Values", names[known[kind]], f"{field}.{part.lower()}")
        found.append(values.astype(np.int64))
    return Level(0, *found)


def densified(
    file: FileBytes, tree: Sparsity, values: NDArray[Any], shape: tuple[int, ...], field: str
) -> NDArray[Any]:
    """The dense, read-only array of `shape` that has `values` where the tree says, zero elsewhere.

    Nothing larger than a few times the file and the array itself is made. Raises ModelError for a
    tree that does not fit the shape or the number of values.
    """
    axes, sizes = _axes(file, tree, shape, field)
    file.charge_dense(math.prod(shape) * values.itemsize, f"{field}.shape")
    # The nodes of a level, as their coordinates along the levels above.
    nodes = 1
    at: list[NDArray[np.int64]] = []
    for number, (level, size) in enumerate(zip(tree.levels, sizes, strict=True)):
        where = f"{field}.levels[{number}]"
        if level.segments is None or level.indices is None:
            if nodes * size > max(len(file.content), 1):
                raise file.refuse(where, nodes * size, "nodes are more than the file has bytes")
            at = [a.repeat(size) for a in at]
            at.append(np.tile(np.arange(size), nodes))
            nodes *= size
            continue
        segments, indices = level.segments, level.indices
        fits = (
            len(segments) == nodes + 1
            and segments[0] == 0
            and segments[-1] == len(indices)
            and np.all(np.diff(segments) >= 0)
            and (len(indices) == 0 or (indices.min() >= 0 and indices.max() < size))
        )
        if not fits:
            raise file.refuse(where, len(segments), f"segments do not fit {nodes} nodes of {size}")
        at = [a.repeat(np.diff(segments)) for a in at]
        at.append(indices)
        nodes = len(indices)
    if nodes != len(values):
        raise file.refuse(f"{field}.values", len(values), f"do not fit a tree of {nodes} leaves")
    out = np.zeros(shape, values.dtype)
    index = [np.zeros(nodes, np.int64) for _ in shape]
    # An outer level comes before the inner part of its axis, whose size it is multiplied by.
    for axis, size, coordinate in zip(axes, sizes, at, strict=True):
        index[axis] = index[axis] * size + coordinate
    out[tuple(index)] = values
    out.flags.writeable = False
    return out


def _axes(
    file: FileBytes, tree: Sparsity, shape: tuple[int, ...], field: str
) -> tuple[list[int], list[int]]:
    """(axis of the tensor, size) of every level.

    A compressed level does not say its size: it is the axis' own, divided by its block's.
    """
    rank, order = len(shape), tree.order
    if (
        not shape
        or len(tree.levels) != len(order)
        or sorted(order) != list(range(rank + len(tree.blocks)))
        or len(set(tree.blocks)) != len(tree.blocks)
        or any(not 0 <= b < rank for b in tree.blocks)
    ):
        raise file.refuse(f"{field}.traversal_order", order, f"does not fit shape {shape}")
    inner = {}
    for i, axis in enumerate(tree.blocks):
        place = order.index(rank + i)
        inner[axis] = tree.levels[place].size
        outer = order.index(axis)
        if tree.levels[place].segments is not None or inner[axis] < 1 or place < outer:
            raise file.refuse(f"{field}.block_map", tree.blocks, "has a block that is not dense")
    axes = [d if d < rank else tree.blocks[d - rank] for d in order]
    sizes = [
        inner[a] if d >= rank else shape[a] // inner.get(a, 1)
        for d, a in zip(order, axes, strict=True)
    ]
    for axis, block in inner.items():
        if shape[axis] % block:
            raise file.refuse(f"{field}.block_map", block, f"does not divide axis {axis}")
    for level, size in zip(tree.levels, sizes, strict=True):
        if level.segments is None and level.size != size:
            raise file.refuse(f"{field}.dense_size", level.size, f"does not fit; {size} does")
    return axes, sizes
