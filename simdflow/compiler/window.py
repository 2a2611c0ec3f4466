"""Window: registers that a sliding window takes along to the innermost loop's next step.

before   for ow: load x[ow], x[ow + 1], x[ow + 2]; ...
after    load x[0], x[1];  for ow: use them; load x[ow + 2]; ...; what was x[ow + 1] is the next
         step's x[ow]

YFlows' auxiliary input stationarity. Where a pass of the loop takes several steps (an unrolled grid
axis), only the names rotate between them; YFlows' secondary unrolling takes as many as a row keeps
columns, and nothing moves.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..dsl.nest import Affine, Load
from .place import identity
from .program import Address
from .writer import Writer

if TYPE_CHECKING:
    from .lower import Tile
    from .place import Place


@dataclass(frozen=True)
class Carried:
    """One register: its name, what it holds in this step, and what it must hold in the next."""

    name: str
    key: Address
    following: Address


LoadSide = Callable[[Writer, "Tile", Load, "Place", str], None]


def slide(
    w: Writer,
    tile: Tile,
    points: list[dict[str, int]],
    var: str,
    start: int,
    step: int,
    load_side: LoadSide,
) -> None:
    """Before the loop over `var`: choose what is carried, and load it.

    As many registers as the dataflow allows.
    """
    plan = tile.plan
    wanted = dict(plan.flow.auxiliary)
    for load in (plan.a, plan.b):
        if load is None or wanted.get(load.operand, 0) < 2:
            continue
        places: dict[Address, Place] = {}
        for p in points:
            for spot in tile.spots:
                for j in range(tile.vectors):
                    place = tile.place(spot, j, p)
                    places.setdefault(identity(plan, load, place), place)
        along = [k for k in places if var in k.offset.axes]
        pairs = [(k, _moved(k, var, step)) for k in along]
        kept = [(k, n) for k, n in pairs if n in places][: wanted[load.operand] - 1]
        for i, (key, following) in enumerate(kept):
            name = f"{load.operand}_kept_{i}"
            place = places[key]
            first = replace(place, at={a: _fixed(v, var, start) for a, v in place.at.items()})
            load_side(w, tile, load, first, name)
            w.carried[key] = Carried(name, key, following)


def arrivals(w: Writer) -> dict[Address, str]:
    """What this step loads for the next one, and the registers it stays in."""
    fresh = [c.following for c in w.carried.values() if c.following not in w.carried]
    taken = {c.name for c in w.carried.values()}
    names = itertools.count()
    found = {}
    for key in fresh:
        name = next(n for i in names if (n := f"{key.operand}_next_{i}") not in taken)
        found[key] = name
    return found


def step_on(w: Writer, var: str, step: int) -> None:
    """After a step: its registers under the names of what they hold in the next one."""
    arriving = arrivals(w)
    following = [c.following for c in w.carried.values()]
    w.carried = {
        key: Carried(
            w.carried[key].name if key in w.carried else arriving[key], key, _moved(key, var, step)
        )
        for key in following
    }


def pass_on(w: Writer, first: Mapping[Address, Carried]) -> None:
    """At the end of a pass of the loop: what the next one expects goes into the registers in which
    its first step looks.

    All at once: one may be another's source. Nothing moves where the names came round (a body of as
    many steps as a row keeps columns): LLVM then gives both the same register.
    """
    kept = {c.name for c in first.values()}
    moves = []
    for target, source in zip(first.values(), w.carried.values(), strict=True):
        name = source.name
        if name in kept and name != target.name:
            name = w.assign(f"{name}_old", "copy", w.vecs[name], name)
        moves.append((target.name, name))
    for name, source_name in moves:
        if name != source_name:
            w.assign(name, "copy", w.vecs[source_name], source_name)
    w.carried = dict(first)


def _moved(key: Address, var: str, step: int) -> Address:
    """The address one step of `var` further on."""
    return replace(key, offset=key.offset.moved(key.offset.coefficient(var) * step))


def _fixed(value: Affine, var: str, start: int) -> Affine:
    c = value.coefficient(var)
    return value.plus(Affine.axis(var).times(c), -1).moved(c * start)
