"""Turn: lanes that lie apart in memory, read as rows that a square of registers turns round.

before   16 vectors, each of 64 elements a row apart
after    64 rows of 16 bytes, four of them in a register; four rounds of interleaving

A transposed load is so made of whole rows: 9 bytes an instruction instead of a half. Nothing is
read but what the lanes name, and their order is the plain one.
"""

from __future__ import annotations

from ..dsl.dataflow import Dataflow
from ..dsl.nest import Load, LoopNest
from ..dsl.types import SCALARS
from .period import straight
from .program import Address, Vec
from .writer import Writer

PIECE = 128  # bits: what x86 interleaves within
NEAR = 4  # elements a few apart are gathered by loading what lies between them, too


def square(vec: Vec) -> int:
    """Rows and columns of the square that is turned: elements of 16 bytes."""
    return PIECE // max(SCALARS[vec.scalar].bits, 8)


def turns(vec: Vec) -> bool:
    """Whether a register is made of whole rows."""
    return square(vec) > 1 and vec.lanes % square(vec) == 0


def contiguous_axis(nest: LoopNest, load: Load, lanes: str) -> str:
    """The grid axis of a linearized nest along which a load is contiguous while its lanes lie
    apart; '' where there is none, or where lanes are near each other.
    """
    index = straight(nest, load.index[-1])[0]
    if abs(index.coefficient(lanes)) <= NEAR:
        return ""
    uneven = {a for t, _ in index.terms if not isinstance(t, str) for a in t.axes}
    extents = nest.extents
    found = [a.name for a in nest.grid if extents[a.name] > 1 and index.coefficient(a.name) == 1]
    return next((a for a in found if a not in uneven), "")


def turning(nest: LoopNest, flow: Dataflow, lanes: int) -> int:
    """Registers that hold the columns of the largest square of a tile; 1 where none is turned."""
    most = 1
    for load in nest.loads():
        vec = Vec(nest.type_of(load.operand).scalar.name, lanes)
        along = contiguous_axis(nest, load, flow.lanes)
        if along and turns(vec):
            most = max(most, min(dict(flow.tile).get(along, 1), square(vec)))
    return most


def turned(
    w: Writer, vec: Vec, corner: Address, stride: int, rows: int, columns: int, column: int
) -> str:
    """The register of `column` of the square at `corner`: its lane i is row i, `stride` elements
    from the one before. Of the lanes `rows` exist, of each row `columns` elements.

    Columns of one square share what makes them: the writer knows equal instructions.
    """
    n = square(vec)

    def register(round_: int, k: int) -> str:
        if round_ == 0:
            where = Address(corner.operand, corner.offset.moved(k * stride))
            count = len(range(k, rows, n))
            if not count:
                return w.op("const", vec, 0)
            return w.op("rows", vec, where, n * stride, count, columns)
        pair = register(round_ - 1, k // 2), register(round_ - 1, k // 2 + n // 2)
        return w.op("zip", vec, *pair, k % 2, 1)

    return register(n.bit_length() - 1, column)
