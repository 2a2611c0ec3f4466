"""Candidates: what a bound nest offers to choose from, in a stable order, legal or not.

Turns a nest and a target into lanes x anchors x groups x tiles x unrolling x auxiliary allocations.
Plans nothing: which of them are legal is for `space` to ask.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from ..compiler.candidates import group_options, repeated
from ..compiler.complete import compressed_rows, default_lanes, lanes_of, quotient_axes
from ..compiler.flatten import flatten, fuse_named, fused_run, fusing_refused, value_operands
from ..compiler.plan import RegisterPlan
from ..dsl.dataflow import Dataflow
from ..dsl.nest import LoopNest, integer
from ..targets import Target

ROWS, PAIRS = (1, 2, 3, 4, 6, 8, 12), ((2, 2), (2, 4), (4, 3))
VECTORS = (1, 2, 3, 4, 6)
TAPS = 7  # a reduction axis up to this long is a window's, and may be wholly in the body
STEPS = (4, 16)  # of a longer one
WIDTHS = (128, 256, 512)


@dataclass(frozen=True)
class Candidate:
    """A dataflow whose auxiliary registers may still be open.

    fill  the operands that get the registers which are left, in this order (YFlows); () leaves the
          dataflow as it is
    """

    flow: Dataflow
    fill: tuple[str, ...] = ()

    @property
    def stratum(self) -> tuple[str, str, bool]:
        """(anchor, lanes, with or without auxiliary registers)."""
        return self.flow.anchor, self.flow.lanes, bool(self.fill or self.flow.auxiliary)


class Axes:
    """What a bound nest offers to choose from."""

    def __init__(self, nest: LoopNest, target: Target) -> None:
        self.flat, self.target = flatten(nest, Dataflow()), target
        r = self.flat.reduction
        self.sides = (value_operands(r.value) if r and r.combine == "add" else None) or ()
        self.out = self.flat.out.name
        self.operands = list(dict.fromkeys([self.out, *(x.operand for x in self.sides)]))
        self.anchors = ["out", *self.operands[1:]]
        self.lanes = self._lanes()
        self._fused: dict[tuple[str, ...], LoopNest] = {}
        self.last: tuple[Dataflow, RegisterPlan] | None = None  # candidates with one base are near

    def fused(self, flow: Dataflow) -> LoopNest:
        """The flat nest with the axes fused that a dataflow names; few are, and each is kept."""
        names = tuple(a for a in flow.axes() if "__" in a)
        key = (flow.lanes, *names) if flow.lanes in names else ("", *names)
        if key not in self._fused:
            self._fused[key] = fuse_named(self.flat, flow)
        return self._fused[key]

    def _lanes(self) -> list[str]:
        """The output's contiguous axis, pixels, reduced channels (the paper's), and fused ones."""
        flat = self.flat
        barred = quotient_axes(flat) | compressed_rows(flat)
        first = default_lanes(flat)
        grid = [a.name for a in flat.grid if flat.extents[a.name] > 1]
        reduced = (
            [a.name for a in flat.reduction.axes if a.kind == "reduce"] if flat.reduction else []
        )
        fused = [repeated(flat, self.target, first)] if self.sides else fused_run(flat, grid)[-1:]
        names = dict.fromkeys([first, *grid[::-1][:2], *reduced[-1:], *fused])
        return [a for a in names if a and a not in barred]

    def of(self, lanes: str, anchor: str, width: int) -> Iterator[Candidate]:
        """The candidates with these lanes and this anchor."""
        flat = fuse_named(self.flat, Dataflow(lanes=lanes))
        groups = group_options(flat, self.target, lanes) if self.sides else [("", 1)]
        # The last reduced axis alone, too: then the taps of a window can be unrolled.
        groups += [(axis.split("__")[-1], g) for axis, g in groups if "__" in axis]
        widths = [width] if width else self._widths(flat, lanes)
        for bits, (axis, group) in itertools.product(widths, groups):
            wide = lanes_of(flat, bits or self.target.width)
            unrolls = self._unrolls(flat, lanes, wide, axis, group)
            for tile, unroll in itertools.product(list(self._tiles(flat, lanes, wide)), unrolls):
                base = Dataflow(
                    anchor=anchor,
                    tile=tile,
                    lanes=lanes,
                    width=bits,
                    group=axis if group > 1 else "",
                    unroll=unroll,
                )
                yield Candidate(base)
                for fill in self._fills(anchor):
                    yield Candidate(base, fill)

    def _fills(self, anchor: str) -> list[tuple[str, ...]]:
        """Who gets the registers that are left first: each of the two others (YFlows)."""
        others = [
            a for a in self.operands if a not in (anchor, self.out if anchor == "out" else "")
        ]
        return list(itertools.permutations(others)) if self.sides else []

    def _widths(self, flat: LoopNest, lanes: str) -> list[int]:
        """The widest vectors, and narrower ones where the lanes do not fill those."""
        n = flat.extents[lanes]
        narrow = [w for w in WIDTHS if w < self.target.width and n <= lanes_of(flat, w)]
        return [0, *narrow[:1]]

    def _tiles(self, flat: LoopNest, lanes: str, wide: int) -> Iterator[dict[str, int]]:
        """Rows of the last other grid axes (fused where they can be) by vectors along the lanes."""
        grid = [a.name for a in flat.grid]
        alone = compressed_rows(flat)
        extents = flat.extents
        rest = [a for a in grid if a != lanes and a not in alone and extents[a] > 1]
        rows = fused_run(flat, rest)[-2:]
        most = self.target.budget
        inside = lanes in grid
        for v in VECTORS if inside else (1,):
            if inside and (v - 1) * wide >= extents[lanes]:
                break
            along = {lanes: v * wide} if inside else {}
            yield along
            # Reduced lanes (YFlows): the columns of a window without another output channel, too.
            for axis in rows[-1:] if inside else rows:
                for n in ROWS[1:]:
                    if n * v <= most and n <= _extent(flat, axis):
                        yield {**along, axis: n}
            for outer, n in PAIRS if len(rows) == 2 else ():
                if outer * n * v <= most and n <= _extent(flat, rows[1]):
                    yield {**along, rows[0]: outer, rows[1]: n}

    def _unrolls(
        self, flat: LoopNest, lanes: str, wide: int, axis: str, group: int
    ) -> list[dict[str, int]]:
        """Nothing; all taps of a window; those of a row; a few steps of the longest axis."""
        r = flat.reduction
        if axis and fusing_refused(flat, tuple(axis.split("__"))):
            return [{}]  # an axis that jumps is one step
        if r is not None and axis:
            r = fuse_named(flat, Dataflow(unroll={axis: 1})).reduction
        if r is None:
            return [{}]
        extents = {a.name: integer(a.extent) for a in r.axes if a.kind == "reduce"}
        units = {a: (wide if a == lanes else 1) * (group if a == axis else 1) for a in extents}
        plain = [a for a, n in extents.items() if n > units[a]]
        small = {a: extents[a] for a in plain if extents[a] <= TAPS}
        options: list[dict[str, int]] = [{}]
        if small:
            options += [small, dict(list(small.items())[-1:])]
        long = [a for a in plain if a not in small]
        if long:
            most = axis if axis in long else long[-1]
            options += [{most: min(n * units[most], extents[most])} for n in STEPS]
        return [dict(o) for o in dict.fromkeys(tuple(o.items()) for o in options)]


def _extent(flat: LoopNest, name: str) -> int:
    return fuse_named(flat, Dataflow(unroll={name: 1})).extents[name]
