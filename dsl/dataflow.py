"""Dataflow: how a nest is computed, as one frozen, hashable, ordered value.

It decides speed, never meaning.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from .errors import DataflowError

Sizes = tuple[tuple[str, int], ...]


@dataclass(frozen=True, order=True)
class Dataflow:
    """How a nest is computed.

    anchor      the operand whose tile stays in registers: the output (OS), the weights (WS) or the
                input (IS)
    auxiliary   operand -> how many registers it may keep besides (YFlows' auxiliary stationarity)
    tile        axis -> how many of its points a register tile covers
    block       axis -> cache block; a blocked reduction accumulates through scratch
    lanes       the axis spread over a vector
    width       vector width in bits; 0 is the target's widest
    group       the reduction axis of which one instruction sums several elements per lane; '' for
                one at a time
    unroll      axis -> how many steps of its loop the body repeats; for an axis of the output,
                whole tiles, between which the registers of a window only change names
    order       loop order, outermost first; () follows from the anchor
    parallel    the axis that is cut into ranges for threads; '' is the outermost one that can be

    Axis names joined by `__` (`oh__ow`) are fused into one axis, where the memory allows it. As
    lanes they may be fused, too, where an operand mentions the inner ones alone: it repeats.
    Mappings are given as dictionaries and kept as sorted tuples.
    """

    anchor: str = "out"
    auxiliary: Sizes = ()
    tile: Sizes = ()
    block: Sizes = ()
    lanes: str = ""
    width: int = 0
    group: str = ""
    unroll: Sizes = ()
    order: tuple[str, ...] = ()
    parallel: str = ""

    if TYPE_CHECKING:  # what it takes is more than what it keeps

        def __init__(
            self,
            anchor: str = "out",
            auxiliary: Mapping[str, int] | Sizes = (),
            tile: Mapping[str, int] | Sizes = (),
            block: Mapping[str, int] | Sizes = (),
            lanes: str = "",
            width: int = 0,
            group: str = "",
            unroll: Mapping[str, int] | Sizes = (),
            order: Iterable[str] = (),
            parallel: str = "",
        ) -> None: ...

    def __post_init__(self) -> None:
        for name in ("auxiliary", "tile", "block", "unroll"):
            object.__setattr__(self, name, _sorted(name, getattr(self, name)))
        object.__setattr__(self, "order", tuple(self.order))

    def axes(self) -> tuple[str, ...]:
        """Every axis the dataflow names, once, in a stable order."""
        named = [a for sizes in (self.tile, self.block, self.unroll) for a, _ in sizes]
        named += [a for a in (self.lanes, self.group, self.parallel, *self.order) if a]
        return tuple(dict.fromkeys(named))

    def __str__(self) -> str:
        shown = []
        for f in fields(self):
            value = getattr(self, f.name)
            if value != f.default or f.name == "anchor":
                value = dict(value) if f.name in ("auxiliary", "tile", "block", "unroll") else value
                shown.append(f"{f.name}={value!r}")
        return f"Dataflow({', '.join(shown)})"


def _sorted(field: str, sizes: Mapping[str, int] | Sizes) -> Sizes:
    pairs = sorted(dict(sizes).items())
    for axis, n in pairs:
        if isinstance(n, bool) or not isinstance(n, int) or n < (0 if field == "auxiliary" else 1):
            raise DataflowError(
                f"dataflow: {field}[{axis!r}]={n!r} is not a count; whole numbers from "
                f"{0 if field == 'auxiliary' else 1} are. Give an integer."
            )
    return tuple(pairs)
