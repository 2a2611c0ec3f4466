"""Artifact: what it takes to call a compiled kernel, as plain data.

It goes into the cache beside the object code. Nothing here runs a stage: a cache hit makes an
Artifact from JSON and links it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..dsl.dataflow import Dataflow
from ..dsl.types import SCALARS, OperandType
from .packing import Packing
from .program import Memory, Program

if TYPE_CHECKING:
    from .plan import RegisterPlan


@dataclass(frozen=True)
class Artifact:
    """A kernel's native interface.

    Memories in argument order, packings, the parallel axis, the output's type, the dataflow.
    """

    symbol: str
    memories: tuple[Memory, ...]
    packings: tuple[Packing, ...]
    parallel: tuple[str, int, int]
    out_type: OperandType
    flow: Dataflow

    @staticmethod
    def of(plan: RegisterPlan, program: Program, flow: Dataflow) -> Artifact:
        """The artifact of a lowered plan."""
        out = plan.nest.out
        return Artifact(
            program.name,
            program.memories,
            plan.packings,
            program.parallel,
            plan.nest.type_of(out.name),
            flow,
        )

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "kernel": self.symbol,
            "memories": [[m.name, m.scalar.name, m.size, m.role, m.operand] for m in self.memories],
            "packings": [asdict(p) for p in self.packings],
            "parallel": list(self.parallel),
            "out": [self.out_type.scalar.name, self.out_type.shape, self.out_type.frame],
            "flow": asdict(self.flow),
        }

    @staticmethod
    def from_record(record: Mapping[str, Any]) -> Artifact:
        """From JSON; raises KeyError, TypeError or ValueError for what `record` does not write."""
        memories = tuple(
            Memory(str(name), SCALARS[scalar], int(size), str(role), str(operand))
            for name, scalar, size, role, operand in record["memories"]
        )
        packings = tuple(
            Packing(**{k: _tuples(v) for k, v in p.items()}) for p in record["packings"]
        )
        scalar, shape, frame = record["out"]
        axis, extent, step = record["parallel"]
        known = {f.name for f in fields(Dataflow)}
        flow = Dataflow(**{k: _tuples(v) for k, v in record["flow"].items() if k in known})
        return Artifact(
            str(record["kernel"]),
            memories,
            packings,
            (str(axis), int(extent), int(step)),
            replace(SCALARS[scalar][tuple(shape)], frame=_tuples(frame)),
            flow,
        )

    def packing(self, operand: str) -> Packing | None:
        """How an operand is packed, or None if it is read as it is."""
        return next((p for p in self.packings if p.operand == operand), None)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


def stored_dtype(kind: OperandType) -> np.dtype:
    """The dtype of that array: `uint8` for bits."""
    return kind.scalar.dtype
