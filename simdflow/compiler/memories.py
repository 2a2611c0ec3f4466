"""Memories: the native arguments of a planned kernel, in order: operands, packed ones, scratch.

Turns a plan into names, element types and sizes; it allocates nothing.
"""

from __future__ import annotations

import math

from ..dsl.types import BY_DTYPE, SCALARS
from .plan import RegisterPlan
from .program import Memory

SCRATCH = "scratch"


def memories_of(plan: RegisterPlan, scratch: int) -> tuple[Memory, ...]:
    """The memories of a plan that keeps so many sums in scratch."""
    nest = plan.nest
    found = []
    for o in nest.operands:
        t = nest.type_of(o.name)
        packing = plan.packing(o.name)
        if packing:
            stored = SCALARS[packing.stored]
            found.append(Memory(o.name, stored, packing.elements, "packed", o.name))
            if packing.sums:
                found.append(
                    Memory(f"{o.name}_sums", SCALARS["i32"], packing.sum_count, "sums", o.name)
                )
        elif t.storage == "csr":
            rows = t.shape[0] + 1
            for part, size, scalar in (
                ("indptr", rows, SCALARS["i32"]),
                ("indices", t.nonzeros, SCALARS["i32"]),
                ("data", t.nonzeros, t.scalar),
            ):
                found.append(Memory(f"{o.name}_{part}", scalar, size, part, o.name))
        else:
            scalar = BY_DTYPE[t.scalar.dtype] if t.scalar.kind == "b" else t.scalar
            size = math.prod(t.stored)
            found.append(Memory(o.name, scalar, size, "out" if o.role == "out" else "in", o.name))
    if scratch:
        assert nest.reduction is not None
        found.append(Memory(SCRATCH, nest.reduction.scalar, scratch, "scratch", ""))
    return tuple(found)
