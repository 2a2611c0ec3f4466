"""Page: an Exploration as one HTML file that asks for nothing else, neither files nor a network.

Turns variants and the texts of their stages into JSON inside the template of `assets/`. Everything
that is seen is drawn in the browser from that JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..compiler.report import hot_loop
from ..compiler.weave import TOGETHER
from ..dsl.errors import SimdflowError
from .assembly import kind, roles
from .picture import far_bytes, heat_map, kept
from .ranking import correlations, counts, heading, types
from .verdict import BOUNDS, short
from .writing import written

if TYPE_CHECKING:
    from ..compiler.plan import RegisterPlan
    from .explore import Exploration, Progress, Variant

STYLES = ("base.css", "parts.css")
SCRIPTS = ("format.js", "plots.js", "table.js", "detail.js", "main.js")
TEXT_BYTES = 2_500_000  # of nests, programs and sources; the assembly comes on top
TEXTS, ASSEMBLIES = 150, 20  # variants that have them at most; an assembly costs a compilation


def html(e: Exploration, path: Path, progress: Progress | None = None) -> None:
    """Write the page. Raises OperandError where it cannot be written."""
    content = page(e, progress).encode()
    written(path, lambda file: file.write(content))


def page(e: Exploration, progress: Progress | None = None) -> str:
    """The page as text."""
    assets = files(__package__) / "assets"

    def joined(names: Sequence[str]) -> str:
        return "\n".join((assets / name).read_text(encoding="utf-8") for name in names)

    parts = {
        "title": escape(f"{e.name} on {e.space.target.name}"),
        "css": joined(STYLES),
        "js": joined(SCRIPTS),
        "data": embedded(described(e, progress)),
    }
    # Cut first, so that a marker in the data is data.
    first, *rest = (assets / "page.html").read_text(encoding="utf-8").split("{{")
    return first + "".join(
        parts[name] + after for name, _, after in (piece.partition("}}") for piece in rest)
    )


def embedded(value: Any) -> str:
    """JSON that may stand inside a script element: nothing in it can end the element."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def described(e: Exploration, progress: Progress | None = None) -> dict[str, Any]:
    """All that the page shows, as plain data."""
    texts: dict[str, int] = {}
    stages = _stages(e, texts, progress)
    target, nest = e.space.target, e.space.nest
    return {
        "name": e.name,
        "heading": heading(e),
        "types": types(e.space),
        "target": target.name,
        "registers": {"all": target.registers, "budget": target.budget, "width": target.width},
        "out": nest.out.name,
        "macs": max(nest.macs, 1),
        "products": e.gmac is not None,
        "peak": e.gmac,
        "clock": e.peaks.clock_ghz,
        "bandwidth": [
            {"level": b.level, "rate": b.gb_per_s, "capacity": b.capacity}
            for b in e.peaks.bandwidth
        ],
        "counts": counts(e),
        "count": e.count,
        "complete": e.complete,
        "refusals": [[why, n] for why, n in e.refusals.items()],
        "correlations": correlations(e),
        "verdict": list(e.verdict),
        "bounds": BOUNDS,
        "variants": [_row(e, i, v, stages.get(i, {})) for i, v in enumerate(e.variants)],
        "texts": list(texts),
    }


def _row(e: Exploration, i: int, v: Variant, stages: Mapping[str, Any]) -> dict[str, Any]:
    m = v.measurement
    return {
        "id": i,
        "flow": str(v.flow),
        "short": short(v.flow),
        "anchor": v.flow.anchor,
        "aux": kept(v),
        "lanes": v.plan.flow.lanes,
        "default": v.flow == e.default,
        "us": v.measured_us,
        "spread": m.spread if m else None,
        "calls": m.calls if m else 0,
        "why": v.why,
        "predicted": v.us,
        "cycles": v.cycles,
        "operations": v.operations,
        "bytes": far_bytes(v),
        "moved": _moved(v),
        "bound": v.parts.bound,
        "parts": vars(v.parts),
        "registers": v.plan.registers,
        "arithmetic": v.plan.arithmetic,
        "held": held(v.plan),
        "memory": v.plan.in_memory,
        "stages": stages,
    }


def _moved(v: Variant) -> float:
    """Bytes between registers and memory: whole registers, and 4 of each element or group that is
    broadcast.
    """
    ports = dict(v.cost.ports)
    whole = ports.get("load", 0.0) + ports.get("store", 0.0)
    return whole * v.plan.target.width / 8 + 4 * ports.get("broadcast", 0.0)


def held(plan: RegisterPlan) -> list[list[Any]]:
    """[name, role, registers] of what a plan keeps in registers, in the order it is drawn.

    role: sum, kept (across loops that do not mention it), loaded (anew in each pass), work
    """
    out: list[list[Any]] = []
    across, anew = dict(plan.hoisted), dict(plan.slots)
    for name in anew:
        out += [[name, "kept", across.get(name, 0)], [name, "loaded", anew[name]]]
    if plan.dot is not None and plan.dot.flip:
        out.append(["sign", "work", 1])
    if plan.woven:
        out.append(["weaving", "work", TOGETHER])
    if plan.dot is None:
        out.append(["working", "work", min(2, plan.registers)])
    sums = plan.registers - sum(n for _, _, n in out)
    name, role = plan.nest.out.name, "sum" if plan.nest.reduction else "work"
    return [[name, role, sums], *(x for x in out if x[2])]


def _stages(
    e: Exploration, texts: dict[str, int], progress: Progress | None
) -> dict[int, dict[str, Any]]:
    """Variant -> stage -> which of `texts`; assembly as its hot loop and what its registers are.

    First those in the heat map, then by rank.
    """
    place = {id(v): i for i, v in enumerate(e.variants)}
    first = [place[id(v)] for v in heat_map(e)[2].values()]
    order = list(dict.fromkeys([*range(min(3, len(place))), *first, *place.values()]))
    compiled = [i for i in order if e.variants[i].measured_us is not None][:ASSEMBLIES]
    compiled = compiled or order[: ASSEMBLIES // 4]
    found: dict[int, dict[str, Any]] = {}
    size = 0
    for i in order[:TEXTS]:
        made = e.made(e.variants[i])
        stages = {
            "nest": str(made.nest),
            "plan": f"{made.flow}\n{made.plan}",
            "program": str(made.program),
            "source": made.source,
        }
        size += sum(len(t) for t in stages.values() if t not in texts)
        if size > TEXT_BYTES:
            break
        found[i] = {name: texts.setdefault(t, len(texts)) for name, t in stages.items()}
    for done, i in enumerate(compiled, 1):
        try:
            asm = e.made(e.variants[i]).asm()
        except SimdflowError as error:  # it was measured, so this is worth a line in the page
            found.setdefault(i, {})["failure"] = str(error)
            continue
        loop = hot_loop(asm)
        lines = loop or [x for x in asm.splitlines() if kind(x) != "text"]
        found.setdefault(i, {})["asm"] = {
            "loop": bool(loop),
            "lines": [[kind(x), x.strip().replace("\t", " ")] for x in lines],
            "roles": roles(lines),
        }
        if progress:
            progress("assembly", done, len(compiled))
    return found
