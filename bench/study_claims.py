"""YFlows' claims beside what was measured here, one line each, and why those that fail do.

Turns cells into lines of text. The paper's figures are of 8-bit sums that wrap around and of
released programs whose outputs are wrong, on a simulated Arm core and a Neoverse; ours are exact.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import mean, median

from simdflow.tuning.verdict import rank_correlation

from .rows import table
from .study_measure import ENGINES, Cell
from .study_variants import BOTH, LEFT, NAIVE, OWN

TIE = 1.02  # two times within 2 % are equal: the spread of repeats on a quiet machine
PAPER = ("OS", "WS", "IS")
NOTHING = "-"

Layer = dict[str, Cell]  # variant -> cell with a time


@dataclass(frozen=True)
class Claim:
    """What the paper says, and the same of layers measured here."""

    text: str
    paper: str
    ours: Callable[[Sequence[Layer]], str]


def by_layer(cells: Sequence[Cell]) -> dict[tuple[str, str], list[Layer]]:
    """(dtype, target) -> its layers, each a mapping of variants that have a time."""
    found: dict[tuple[str, str], dict[str, dict[str, Cell]]] = defaultdict(dict)
    for c in cells:
        layers = found[c.case.dtype, c.target]
        layers.setdefault(c.case.name, {})
        if c.us is not None:
            layers[c.case.name][c.name] = c
    return {key: [x for x in layers.values() if x] for key, layers in found.items()}


def fastest(layer: Layer, anchor: str = "", allocations: Sequence[str] = ()) -> Cell | None:
    """The quickest of the paper's variants: of an anchor, of some allocations; never the one that
    LLVM improves by itself.
    """
    mine = [
        c
        for c in layer.values()
        if c.anchor in ((anchor,) if anchor else PAPER)
        and c.allocation != LEFT
        and (not allocations or c.allocation in allocations)
    ]
    return min(mine, key=lambda c: c.us or 0.0, default=None)


def auxiliary(layer: Layer, anchor: str) -> Cell | None:
    """The quickest variant of an anchor with auxiliary registers."""
    names = {c.allocation for c in layer.values() if c.anchor == anchor} - {NAIVE, LEFT}
    return fastest(layer, anchor, sorted(names)) if names else None


def ratios(
    layers: Sequence[Layer],
    slow: Callable[[Layer], Cell | None],
    fast: Callable[[Layer], Cell | None],
) -> list[float]:
    """How many times as long `slow` takes as `fast`, for the layers that have both."""
    pairs = [(slow(x), fast(x)) for x in layers]
    return [a.us / b.us for a, b in pairs if a and b and a.us and b.us]


def share(values: Sequence[float], least: float = 1.0) -> str:
    """The share of values of at least `least`."""
    return f"{100 * sum(v >= least for v in values) / len(values):.0f} %" if values else NOTHING


def named(name: str) -> Callable[[Layer], Cell | None]:
    """Picks a layer's variant of that name."""
    return lambda layer: layer.get(name)


def _stride(layers: Sequence[Layer], stride: int) -> list[Layer]:
    return [x for x in layers if next(iter(x.values())).case.stride == stride]


def _against(slow: str, fast: str) -> Callable[[Sequence[Layer]], str]:
    def text(layers: Sequence[Layer]) -> str:
        parts = [ratios(_stride(layers, s), named(slow), named(fast)) for s in (1, 2)]
        medians = [f"{median(p):.2f}x s{s}" for s, p in zip((1, 2), parts, strict=True) if p]
        return ", ".join([share([*parts[0], *parts[1]]), *medians])

    return text


def both_best(layers: Sequence[Layer]) -> list[bool]:
    """For each layer, whether OS with both reuses is the quickest of the paper's variants."""
    found = []
    for layer in layers:
        mine, best = fastest(layer, "OS", BOTH), fastest(layer)
        if mine and best and mine.us and best.us:
            found.append(mine.us <= best.us * TIE)
    return found


def gains(layers: Sequence[Layer]) -> list[float]:
    """Basic over the best auxiliary allocation, for every anchor of every layer."""
    found = []
    for anchor in PAPER:
        found += ratios(layers, named(f"{anchor} {NAIVE}"), partial(auxiliary, anchor=anchor))
    return found


def _gains(layers: Sequence[Layer]) -> str:
    values = gains(layers)
    return f"{mean(values):.3f} / {median(values):.3f}" if values else NOTHING


def _gain_of(anchor: str) -> Callable[[Sequence[Layer]], str]:
    def text(layers: Sequence[Layer]) -> str:
        values = ratios(layers, named(f"{anchor} {NAIVE}"), lambda x: auxiliary(x, anchor))
        return f"{median(values):.2f}x, at most {max(values):.2f}x" if values else NOTHING

    return text


def _optimised(other: str) -> Callable[[Sequence[Layer]], str]:
    def text(layers: Sequence[Layer]) -> str:
        return share(ratios(layers, lambda x: auxiliary(x, other), lambda x: auxiliary(x, "OS")))

    return text


def _best_gain(slow: Callable[[Layer], Cell | None]) -> Callable[[Sequence[Layer]], str]:
    """The largest ratio over a layer's quickest dataflow, ours included, and its layer."""

    def text(layers: Sequence[Layer]) -> str:
        found = []
        for layer in layers:
            a, best = (
                slow(layer),
                min(
                    (c for c in layer.values() if c.allocation not in (LEFT, *ENGINES)),
                    key=lambda c: c.us or 0.0,
                    default=None,
                ),
            )
            if a and best and a.us and best.us:
                found.append((a.us / best.us, a.case.name))
        return "{:.2f}x ({})".format(*max(found)) if found else NOTHING

    return text


def _engine(layer: Layer) -> Cell | None:
    mine = [c for c in layer.values() if c.allocation in ENGINES]
    return min(mine, key=lambda c: c.us or 0.0, default=None)


def _over(
    slow: Callable[[Layer], Cell | None], fast: Callable[[Layer], Cell | None]
) -> Callable[[Sequence[Layer]], str]:
    def text(layers: Sequence[Layer]) -> str:
        values = ratios(layers, slow, fast)
        if not values:
            return NOTHING
        return f"{median(values):.2f}x ({min(values):.2f} to {max(values):.2f})"

    return text


def _ranks(model: Callable[[Cell], float]) -> Callable[[Sequence[Layer]], str]:
    """Rank correlation of a model with the times of a layer's variants: median and lowest."""

    def text(layers: Sequence[Layer]) -> str:
        found = []
        for layer in layers:
            mine = [c for c in layer.values() if c.anchor in PAPER and c.allocation != LEFT]
            if len(mine) > 2:
                times = [c.us or 0.0 for c in mine]
                found.append(rank_correlation([model(c) for c in mine], times) or 0.0)
        return f"{median(found):.2f}, lowest {min(found):.2f}" if found else NOTHING

    return text


CLAIMS = (
    Claim(
        "OS with both reuses is the best (within 2 %)",
        "consistently",
        lambda x: share([float(v) for v in both_best(x)]),
    ),
    Claim("basic: OS beats IS*", "100 %, 1.72x s1, 3.42x s2", _against("IS basic", "OS basic")),
    Claim("basic: OS beats WS", "96.9 %, 4.58x s1, 2.63x s2", _against("WS basic", "OS basic")),
    Claim("basic: WS beats IS*", "35 %", _against("IS basic", "WS basic")),
    Claim("optimised: OS beats IS*", "93 % (or 79 %)", _optimised("IS")),
    Claim("optimised: OS beats WS*", "(not given)", _optimised("WS")),
    Claim("gain of the best auxiliary allocation, mean / median", "1.587 / 1.453", _gains),
    Claim("  of OS", "(not given)", _gain_of("OS")),
    Claim("  of WS*", "(not given)", _gain_of("WS")),
    Claim("  of IS*", "(not given)", _gain_of("IS")),
    Claim(
        "OS inputs first / weights first",
        "within 2 %",
        _over(named("OS inputs first"), named("OS weights first")),
    ),
    Claim(
        "best gain over the naive WS program",
        "4.78x binary, 3.69x 8-bit",
        _best_gain(named("WS basic")),
    ),
    Claim(
        "OS left to LLVM / OS weights",
        "(not given)",
        _over(named(f"OS {LEFT}"), named("OS weights")),
    ),
    Claim(
        "best of the paper's / simdflow's default",
        "(ours)",
        _over(lambda x: fastest(x), named(OWN)),
    ),
    Claim(
        "best engine / the paper's best, u8 out**",
        "up to 3x (TVM)",
        _over(_engine, lambda x: fastest(x)),
    ),
    Claim("best engine / simdflow, u8 out**", "(ours)", _over(_engine, named(OWN))),
    Claim("rank correlation: memory operations", "(heuristic)", _ranks(lambda c: c.operations)),
    Claim("rank correlation: cost model", "(ours)", _ranks(lambda c: c.cycles)),
)
NOTES = (
    "s1, s2: stride 1 and 2. *: WS and IS are as far as a Dataflow can say them, see below.",
    "**: engines requantize to u8: a product and a rounding more for each output, and 1 byte "
    "stored in the place of 4; they use whatever this CPU has, and are timed beside the widest "
    "target. int8 only.",
    "the paper's 8-bit kernels sum in 8 bits that wrap around, its released outputs are wrong "
    "(accumulators not cleared, input caches loaded from wrong places): its figures tell of an "
    "instruction mix. Its baseline OS sums horizontally at every tap; ours once an output.",
)


def claims(cells: Sequence[Cell]) -> str:
    """The paper's claims beside ours, a column for each type and target."""
    groups = by_layer(cells)
    header = ["claim", "paper", *(f"{dtype} {target}" for dtype, target in groups)]
    lines = [
        [claim.text, claim.paper, *(claim.ours(layers) for layers in groups.values())]
        for claim in CLAIMS
    ]
    return "\n".join((table(header, lines), *NOTES))
