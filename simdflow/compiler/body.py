"""Body: the straight-line code of one tile step, the only place where products are summed.

Every register of the tile is named here: accumulators acc_i_j (grid spot i, vector j), slots a_n
and b_n of the two sides of a product, and the registers hoisted out of the loop. The order of the
products follows which side is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..dsl.nest import Load
from .express import express
from .place import Place, identity, product_load
from .program import Address, Vec
from .tile import Slots, points
from .window import arrivals
from .writer import Writer

if TYPE_CHECKING:
    from .lower import Tile

NEUTRAL = {"add": 0, "max": "low", "min": "high"}


def reduction_points(tile: Tile) -> list[dict[str, int]]:
    """The tile's reduction points, a group at a time (a vector of groups for reduced lanes)."""
    plan = tile.plan
    r = plan.nest.reduction
    assert r is not None
    order = [x.axis for x in plan.levels if not x.block]
    names = sorted((a.name for a in r.axes), key=order.index)
    steps = {plan.flow.group: plan.group} if plan.flow.group else {}
    if plan.lanes_reduced:
        wide = plan.group if plan.flow.lanes == plan.flow.group else 1
        steps[plan.flow.lanes] = tile.lanes * wide
    return list(points({a: tile.sizes[a] for a in names}, steps))


def accumulate(w: Writer, tile: Tile, memory: bool, scratch: Callable | None) -> None:
    """Add the tile's reduction points to its accumulators, in registers or in scratch."""
    spots, vectors = tile.spots, tile.vectors
    steps = reduction_points(tile)
    accumulators = [(i, j) for i in range(len(spots)) for j in range(vectors)]
    if tile.plan.dot is None:
        uses = [(i, j, p) for p in steps for i, j in accumulators]
    elif memory:
        uses = [(i, j, p) for i, j in accumulators for p in steps]
    elif _keeps_broadcasts(tile):
        uses = [(i, j, p) for p in steps for j in range(vectors) for i in range(len(spots))]
    else:
        uses = [(i, j, p) for p in steps for i, j in accumulators]
        uses = _streamed(tile, uses)
    add = _products(w, tile, uses) if tile.plan.dot else _values(w, tile)
    last = {(i, j): n for n, (i, j, _) in enumerate(uses)}
    begun = set()
    for n, (i, j, p) in enumerate(uses):
        if memory and (i, j) not in begun:
            assert scratch is not None
            vec, where = scratch(tile, spots[i], j)
            w.assign(f"acc_{i}_{j}", "load", vec, where)
            begun.add((i, j))
        add(n, i, j, p)
        if memory and last[i, j] == n:
            assert scratch is not None
            vec, where = scratch(tile, spots[i], j)
            w.store("store", vec, where, f"acc_{i}_{j}")


def _keeps_broadcasts(tile: Tile) -> bool:
    """The side without lanes is kept for the whole tile; the other streams through a register."""
    plan, aux = tile.plan, dict(tile.plan.flow.auxiliary)
    assert plan.a is not None and plan.b is not None
    wide = [x for x in (plan.a, plan.b) if plan.flow.lanes in x.index[-1].axes]
    narrow = [x for x in (plan.a, plan.b) if x not in wide]
    if not wide or not narrow:
        return False
    return aux.get(narrow[0].operand, 1) >= len(tile.spots) > 1 and aux.get(wide[0].operand, 0) == 1


def _streamed(tile: Tile, uses: list) -> list:
    """Where one side is wholly in registers: the products in the order in which the other side's
    registers first occur, so that each of those is loaded once for all its uses. Where both sides
    run along the lanes (depthwise), one vector after the other, so that one vector's weights are
    enough.
    """
    plan = tile.plan
    assert plan.a is not None and plan.b is not None
    both = all(plan.flow.lanes in x.index[-1].axes for x in (plan.a, plan.b) if len(x.index) == 1)
    if not both:
        return _streamed_once(tile, uses, None)
    moving = max((plan.a, plan.b), key=lambda x: len(x.index[-1].axes)).operand
    if tile.woven:
        return _streamed_once(tile, uses, moving)
    groups = [[u for u in uses if u[1] == j] for j in range(tile.vectors)]
    ordered = [_streamed_once(tile, group, None) for group in groups]
    if ordered == groups and tile.vectors > 1:
        return _streamed_once(tile, uses, moving)
    return [use for group in ordered for use in group]


def _streamed_once(tile: Tile, uses: list, moving: str | None) -> list:
    """By the first occurrence of the registers of `moving`.

    None: of the side that is not held, if one is.
    """
    plan = tile.plan
    slots = dict(plan.slots)
    keys: dict[str, list] = {}
    for load in (plan.a, plan.b):
        assert load is not None
        keys[load.operand] = _identities(tile, load, uses)
    held = [n for n, mine in keys.items() if not 0 < slots.get(n, 1) < len(set(mine))]
    if len(keys) == 1 or (not held and moving is None):
        return uses
    streamed = moving or next(name for name in keys if name != held[-1])
    first: dict[object, int] = {}
    rank = [first.setdefault(k, len(first)) for k in keys[streamed]]
    return [use for _, use in sorted(zip(rank, uses, strict=True), key=lambda x: x[0])]


def _identities(tile: Tile, load: Load, uses: list) -> list[Address]:
    """What tells the register of one side apart, for each product.

    Computed once in a tile for all products that differ in nothing the load's index mentions: half
    of the time that it takes to lower a tile otherwise.
    """
    plan, spots = tile.plan, tile.spots
    packing = plan.packing(load.operand)
    axes = set(load.index[-1].axes) | {a for a, _ in (packing.axes if packing else ())}
    axes |= {packing.lane} if packing and packing.lane else set()
    axes |= {plan.shift.axis} if plan.shift else set()
    along, order = plan.flow.lanes in axes, sorted(axes)
    known = tile.known.setdefault(load, {})
    found = []
    for i, j, p in uses:
        at = {**spots[i], **p}
        same = (j if along else 0, *[at.get(a, 0) for a in order])
        if same not in known:
            known[same] = identity(plan, load, tile.place(spots[i], j, p))
        found.append(known[same])
    return found


def hoist(w: Writer, tile: Tile, load: Load, count: int) -> None:
    """Load up to `count` registers of one side of the product for every tile step inside."""
    plan = tile.plan
    found: dict[object, None] = {}
    for p in reduction_points(tile):
        for spot in tile.spots:
            for j in range(tile.vectors):
                place = tile.place(spot, j, p)
                where = identity(plan, load, place)
                if where in found or len(found) == count:
                    continue
                name = f"{load.operand}_held_{len(found)}"
                found[where] = None
                load_side(w, tile, load, place, name)
                w.held[where] = name


def load_side(w: Writer, tile: Tile, load: Load, place: Place, name: str) -> None:
    """Load one side of the product; the side that an instruction takes as unsigned is made so."""
    plan = tile.plan
    product_load(w, plan, load, place, name)
    if plan.dot is not None and plan.dot.flip and load is plan.a:
        w.assign(name, "flip", Vec("u8", w.vecs[name].lanes), name)


def _products(w: Writer, tile: Tile, uses: list) -> Callable:
    plan = tile.plan
    assert plan.dot is not None and plan.a is not None and plan.b is not None
    spots = tile.spots
    r = plan.nest.reduction
    assert r is not None
    packed = [plan.packing(x.operand) for x in (plan.a, plan.b)]
    words = [p is not None and p.words for p in packed]
    dot = "dotbits" if plan.dot.a == "bit" else "dot_words" if any(words) else "dot"

    def side(load: Load, name: str) -> Callable:
        keys = _identities(tile, load, uses)
        carried = sum(c.key.operand == load.operand for c in w.carried.values())
        slots = Slots(name, max(1, dict(plan.slots).get(load.operand, 1) - carried), keys)
        arriving, arrived = arrivals(w), set()

        def register(n: int) -> str:
            if keys[n] in w.held:
                return w.held[keys[n]]
            if keys[n] in w.carried:
                return w.carried[keys[n]].name
            i, j, p = uses[n]
            if keys[n] in arriving:
                if keys[n] not in arrived:
                    arrived.add(keys[n])
                    load_side(w, tile, load, tile.place(spots[i], j, p), arriving[keys[n]])
                return arriving[keys[n]]
            got, missing = slots.take(keys[n], n)
            if missing:
                load_side(w, tile, load, tile.place(spots[i], j, p), got)
            return got

        return register

    a, b = side(plan.a, plan.a.operand), side(plan.b, plan.b.operand)
    vec = Vec(r.scalar.name, tile.lanes)

    def add(n: int, i: int, j: int, p: dict) -> None:
        acc = f"acc_{i}_{j}"
        x, y = a(n), b(n)
        w.assign(acc, dot, vec, acc, *((y, x) if words[0] else (x, y)))

    return add


def _values(w: Writer, tile: Tile) -> Callable:
    """Reductions of any expression: sums, maxima, minima."""
    plan = tile.plan
    r = plan.nest.reduction
    assert r is not None
    spots = tile.spots
    vec = Vec(r.scalar.name, tile.lanes)
    combine = {"add": "add", "max": "max_into", "min": "min_into"}[r.combine]

    def add(n: int, i: int, j: int, p: dict) -> None:
        place = tile.place(spots[i], j, p)
        value = express(w, plan, r.value, place, {})
        if w.vecs[value].scalar != r.scalar.name:
            value = w.op("convert", vec, value)
        if plan.lanes_reduced and place.valid < tile.lanes:
            value = w.op("tail", vec, value, neutral(w, tile), place.valid)
        acc = f"acc_{i}_{j}"
        w.assign(acc, combine, vec, acc, value)

    return add


def neutral(w: Writer, tile: Tile) -> str:
    """A register of the value that changes nothing: 0, or the type's end."""
    r = tile.plan.nest.reduction
    assert r is not None
    what = NEUTRAL[r.combine]
    number = what if isinstance(what, int) else getattr(r.scalar, str(what))
    return w.op("const", Vec(r.scalar.name, tile.lanes), number)
