"""Plan: a flat nest, a dataflow and a target become loops, lanes, packings and registers.

It decides everything that lowering only writes down, and refuses, with the arithmetic, a dataflow
that does not fit the nest or the register file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ..dsl.dataflow import Dataflow, Sizes
from ..dsl.errors import DataflowError
from ..dsl.nest import Load, LoopNest, Run
from ..targets import Target
from ..targets.base import Dot
from .complete import complete, lanes_of, rounded
from .levels import Level, levels_of, outside
from .packing import Packing
from .period import straight
from .product import Shift, packings_of, product, shift_of, weaves
from .scalars import scalar_of
from .tile import tile_keys  # the same walk over the tile that lowering does
from .turn import turning
from .weave import TOGETHER


@dataclass(frozen=True)
class RegisterPlan:
    """What lowering needs, decided.

    lanes, group       elements per vector of the accumulator; reduction elements one instruction
                       sums per lane
    dot                the dot-product row when the reduction is a product, else None; `a`, `b` its
                       loads, in row order
    levels             loops, outermost first; `depth` of them are outside the accumulators
    in_memory          the accumulators live in scratch: a grid loop runs inside a reduction loop
    woven              tiles of whole blocks of vectors have their lanes interwoven (weave.py)
    slots              operand -> registers it may hold in the body
    hoisted            operand -> registers it holds across the loops that do not mention it
    target             as wide as the vectors of this plan
    registers          vector registers used at the most, and how they add up
    """

    nest: LoopNest
    flow: Dataflow
    target: Target
    lanes: int
    group: int
    dot: Dot | None
    a: Load | None
    b: Load | None
    levels: tuple[Level, ...]
    depth: int
    in_memory: bool
    packings: tuple[Packing, ...]
    shift: Shift | None
    woven: bool
    slots: tuple[tuple[str, int], ...]
    hoisted: tuple[tuple[str, int], ...]
    registers: int
    arithmetic: str

    @property
    def lanes_reduced(self) -> bool:
        """The lanes are spread over a reduction axis: a horizontal step follows."""
        return self.flow.lanes not in {a.name for a in self.nest.grid}

    @property
    def whole_window(self) -> bool:
        """The whole reduction of a product is in the body: a pass reads a window and moves on."""
        steps = {x.axis: x.step for x in self.levels if not x.block}
        r = self.nest.reduction
        return (
            self.dot is not None
            and r is not None
            and all(self.nest.extents[a.name] <= steps[a.name] for a in r.axes)
        )

    @property
    def sums_depth(self) -> int:
        """How many levels are outside every loop that sums: scratch serves one step of them at a
        time. Weight-anchored, that is one output channel's worth instead of the whole output.
        """
        free = {a.name for a in self.nest.grid} - {a for a, _ in self.flow.block}
        return next((i for i, x in enumerate(self.levels) if x.axis not in free), len(self.levels))

    @property
    def outside_sums(self) -> frozenset[str]:
        """The axes of those levels."""
        return frozenset(x.axis for x in self.levels[: self.sums_depth])

    def runs(self, level: Level) -> tuple[Run, ...]:
        """The runs of rows along a level's axis in which fewer steps of a reduction are needed, if
        it is inside: rows one at a time, and steps that no instruction sums. A side made unsigned
        has no zeros.
        """
        runs = dict(self.nest.edges).get(level.axis, ())
        axes = [x.axis for x in self.levels]
        blocked = {x.axis for x in self.levels if x.block}
        if not runs or self.in_memory or level.step > 1 or self.dot is None or self.dot.flip:
            return ()
        reduced = runs[0].reduced
        apart = {level.axis, reduced} & (blocked | {self.flow.group, self.flow.lanes})
        return () if apart or axes.index(reduced) < axes.index(level.axis) else runs

    def tile(self, axis: str) -> int:
        """How many points of an axis a register tile covers."""
        return dict(self.flow.tile).get(axis, 1)

    def packing(self, operand: str) -> Packing | None:
        """How an operand is packed, or None if it is read as it is."""
        return next((p for p in self.packings if p.operand == operand), None)

    def __str__(self) -> str:
        loops = " > ".join(f"{x.axis}{'(block)' if x.block else ''}:{x.step}" for x in self.levels)
        lines = [
            f"plan {self.nest.name} on {self.target.name}: lanes {self.flow.lanes} x {self.lanes}, "
            f"group {self.group}",
            f"  loops {loops}",
            f"  registers {self.registers}: {self.arithmetic}",
        ]
        if self.in_memory:
            lines.append("  accumulators in scratch memory")
        return "\n".join([*lines, *(f"  {p}" for p in self.packings)])


def plan(nest: LoopNest, flow: Dataflow, target: Target) -> RegisterPlan:
    """Decide how a flat nest is computed. Raises DataflowError for what does not fit."""
    flow = complete(nest, flow, target)
    lanes = lanes_of(nest, flow.width)
    r = nest.reduction
    found = product(nest, target, flow)
    dot, a, b = found if found else (None, None, None)
    group = dot.group if dot else 1
    flow = rounded(nest, flow, lanes, group)
    woven = weaves(nest, flow, lanes, found)
    levels, depth, in_memory = levels_of(nest, flow, woven)
    shift = shift_of(nest, flow, group, (a, b))
    woven = woven and not in_memory
    packings = packings_of(nest, flow, lanes, group, levels, dot, b, shift, woven)
    _check_repeating(nest, flow, found, packings)
    counted = _registers(nest, flow, target, lanes, found, levels, in_memory, shift, woven)
    slots, hoisted, registers, arithmetic = counted
    if registers > target.budget:
        raise DataflowError(
            f"{nest.name}: the tile needs {registers} vector registers ({arithmetic}); "
            f"{target.name} has {target.registers} and spills past {target.budget}. Lower a tile "
            f"size or an auxiliary count."
        )
    if r is None and flow.anchor != nest.out.name:
        raise DataflowError(
            f"{nest.name}: anchor={flow.anchor!r} needs a reduction; this nest has none. Use "
            f"{nest.out.name!r}."
        )
    return RegisterPlan(
        nest=nest,
        flow=flow,
        target=replace(target, width=flow.width),
        lanes=lanes,
        group=group,
        dot=dot,
        a=a,
        b=b,
        levels=levels,
        depth=depth,
        in_memory=in_memory,
        packings=packings,
        shift=shift,
        woven=woven,
        slots=slots,
        hoisted=hoisted,
        registers=registers,
        arithmetic=arithmetic,
    )


def _check_repeating(
    nest: LoopNest,
    flow: Dataflow,
    found: tuple[Dot, Load, Load] | None,
    packings: tuple[Packing, ...],
) -> None:
    """A side of a product that repeats along the lanes is read in the kernel's own order."""
    for load in found[1:] if found else ():
        repeats = flow.lanes in straight(nest, load.index[-1])[1]
        if repeats and all(p.operand != load.operand for p in packings):
            raise DataflowError(
                f"{nest.name}: lanes={flow.lanes!r} repeat {load.operand}, which cannot be packed; "
                f"a product's side that repeats is. Use another axis as lanes."
            )


def _registers(
    nest: LoopNest,
    flow: Dataflow,
    target: Target,
    lanes: int,
    found: tuple[Dot, Load, Load] | None,
    levels: tuple[Level, ...],
    in_memory: bool,
    shift: Shift | None,
    woven: bool,
) -> tuple[Sizes, Sizes, int, str]:
    """(slots, hoisted, count, how it adds up) of the largest tile."""
    tile = dict(flow.tile)
    points = math.prod(n for a, n in tile.items() if a != flow.lanes)
    vectors = max(1, -(-min(tile.get(flow.lanes, 1), nest.extents[flow.lanes]) // lanes))
    wide = max(1, lanes * _result_bits(nest) // target.width)
    aux = dict(flow.auxiliary)
    if found is None:
        count = wide * (points * vectors if nest.reduction else 1)
        count += wide * (turning(nest, flow, lanes) - 1)
        extra = 2 * wide
        return (), (), count + extra, f"{nest.out.name} {count}, working {extra}"
    dot, *loads = found
    accumulators = points * vectors
    if in_memory:
        accumulators = min(accumulators, max(aux.get(nest.out.name, 1), 1))
    slots, hoisted, parts = [], [], [f"{nest.out.name} {accumulators}"]
    total = accumulators
    lengths = {x.axis: x.step for x in levels if not x.block}
    for load in loads:
        keys = tile_keys(nest, flow, load, lanes, dot.group)
        if shift and shift.axis not in load.index[-1].axes:
            keys *= shift.count
        stays = _stays(nest, load, levels, lengths)
        anchored = flow.anchor == load.operand
        default = (
            keys if anchored and stays else vectors if flow.lanes in load.index[-1].axes else 1
        )
        count = min(keys, max(1, aux.get(load.operand, default)))
        held = 0
        if stays and (anchored or load.operand in aux):
            held = keys if count == keys else count - 1
        free = count - held
        slots.append((load.operand, free))
        hoisted.append((load.operand, held))
        total += free + held
        parts.append(f"{load.operand} {free + held}")
    if dot.flip:
        total += 1
        parts.append("sign 1")
    if woven:
        total += TOGETHER
        parts.append(f"weaving {TOGETHER}")
    return tuple(slots), tuple(hoisted), total, ", ".join(parts)


def hoist_level(plan: RegisterPlan, load: Load) -> int:
    """How many levels are outside the load's registers.

    It is hoisted out of every loop that it does not mention.
    """
    return outside(plan.nest, plan.levels, load)


def _stays(nest: LoopNest, load: Load, levels: tuple[Level, ...], lengths: dict[str, int]) -> bool:
    """Whether some loop that really runs is inside every loop the load mentions."""
    last = outside(nest, levels, load)
    return any(x.block or nest.extents[x.axis] > lengths[x.axis] for x in levels[last:])


def _result_bits(nest: LoopNest) -> int:
    if nest.reduction:
        return nest.reduction.scalar.bits
    return scalar_of(nest.store.value, nest).bits
