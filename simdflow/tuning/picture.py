"""Picture: an Exploration as one figure: predicted against measured, a roofline, a heat map.

Needs matplotlib (extra `plot`), which is imported when a figure is drawn.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..dsl.errors import OperandError
from .ranking import correlations, counts, heading
from .verdict import short
from .writing import written

if TYPE_CHECKING:
    from .explore import Exploration, Variant

# Okabe and Ito's colours, told apart by colour-blind people, and a mark for each as well.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
MARKS = ("o", "s", "^", "D")


def png(e: Exploration, path: Path) -> None:
    """Write the figure. Raises OperandError without matplotlib or where it cannot be written."""
    figure = figure_of()
    figure.suptitle(f"{heading(e)}\n{counts(e)}", fontsize=11)
    scatter, roofline, heat = figure.subplots(1, 3)
    anchors = list(dict.fromkeys(sorted(v.flow.anchor for v in e.variants)))
    _scatter(e, scatter, anchors)
    _roofline(e, roofline, anchors)
    _heat(e, heat)
    written(path, lambda file: figure.savefig(file, format="png", dpi=110))


def figure_of() -> Any:
    """An empty figure that no window shows. Raises OperandError without matplotlib."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise OperandError(
            "explore: png needs matplotlib, which cannot be imported; the extra `plot` has it. Run "
            "pip install 'simdflow[plot]'"
        ) from error
    figure = Figure(figsize=(18, 6.2), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def heat_map(e: Exploration) -> tuple[list[str], list[str], dict[tuple[str, str], Variant]]:
    """(anchors, auxiliary operands, cell -> its fastest variant), the fastest ones first.

    Of measured variants if there are any, else of predicted ones.
    """
    best: dict[tuple[str, str], Variant] = {}
    for v in e.measured or e.variants:
        best.setdefault((v.flow.anchor, kept(v)), v)
    anchors = list(dict.fromkeys(anchor for anchor, _ in best))
    kinds = sorted({aux for _, aux in best}, key=lambda aux: (aux != "none", len(aux), aux))
    return anchors, kinds, best


def kept(v: Variant) -> str:
    """The operands with auxiliary registers, as one word."""
    return "+".join(name for name, n in v.flow.auxiliary if n) or "none"


def intensity(v: Variant) -> float:
    """Multiply-accumulates per byte that comes from beyond L1, the operands' own bytes at least."""
    return v.macs / far_bytes(v)


def far_bytes(v: Variant) -> float:
    """Bytes from beyond L1: predicted ones, and each operand once at least."""
    nest = v.plan.nest
    kinds = [nest.type_of(o.name) for o in nest.operands]
    return max(v.cost.far_bytes, sum(k.size * k.scalar.bits / 8 for k in kinds))


def _styles(anchors: list[str], anchor: str) -> dict[str, Any]:
    i = anchors.index(anchor) % len(COLORS)
    return {"marker": MARKS[i], "edgecolors": COLORS[i], "linewidths": 1.2, "s": 34}


def _points(e: Exploration, axes: Any, anchors: list[str], x: Any, y: Any) -> None:
    for v in e.measured:
        style = _styles(anchors, v.flow.anchor)
        inside = style["edgecolors"] if kept(v) != "none" else "none"
        axes.scatter(x(v), y(v), facecolors=inside, **style)
    for anchor in anchors:
        style = _styles(anchors, anchor)
        axes.scatter([], [], facecolors=style["edgecolors"], label=f"anchor {anchor}", **style)


def _logarithmic(axes: Any) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set(xscale="log", yscale="log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7), numticks=9))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())


def _scatter(e: Exploration, axes: Any, anchors: list[str]) -> None:
    axes.set(title="Predicted against measured", xlabel="predicted (us)", ylabel="measured (us)")
    if not e.measured:
        axes.text(0.5, 0.5, "nothing was measured", ha="center", transform=axes.transAxes)
        return
    _points(e, axes, anchors, lambda v: v.us, lambda v: v.measured_us)
    _logarithmic(axes)
    times = [t for v in e.measured for t in (v.us, v.time_us)]
    ends = [min(times), max(times)]
    axes.plot(ends, ends, color="gray", lw=0.8, ls="--", label="measured as predicted")
    axes.legend(fontsize=8)
    axes.set_title("\n".join(["Predicted against measured", *correlations(e)]), fontsize=9)


def _roofline(e: Exploration, axes: Any, anchors: list[str]) -> None:
    shown = e.measured or e.variants
    axes.set(
        title="Roofline",
        xlabel="multiply-accumulates per byte from beyond L1 (predicted)",
        ylabel="GMAC/s" if e.measured else "GMAC/s (no variant was measured)",
    )
    if not shown:
        axes.text(0.5, 0.5, "nothing was predicted", ha="center", transform=axes.transAxes)
        return
    _points(e, axes, anchors, intensity, lambda v: v.macs / v.time_us / 1e3)
    xs = [intensity(v) for v in shown]
    low, high = min(xs) / 4, max(xs) * 4
    top = e.gmac or math.inf
    for b in e.peaks.bandwidth[1:]:
        if low * b.gb_per_s >= top:
            continue  # above the peak in all of the picture
        knee = min(max(top / b.gb_per_s, low), high) if top < math.inf else high
        axes.plot([low, knee], [low * b.gb_per_s, knee * b.gb_per_s], color="gray", lw=1)
        axes.annotate(f"{b.level} {b.gb_per_s:.0f} GB/s", (low, low * b.gb_per_s), fontsize=7)
    if e.gmac:
        axes.axhline(e.gmac, color="black", lw=1)
        axes.annotate(f"measured peak {e.gmac:.0f} GMAC/s", (low, e.gmac * 1.05), fontsize=7)
    axes.set_xlim(low, high)
    _logarithmic(axes)
    if e.measured:
        axes.legend(fontsize=8, loc="lower right")


def _heat(e: Exploration, axes: Any) -> None:
    anchors, kinds, best = heat_map(e)
    what = "measured" if e.measured else "predicted"
    axes.set(title=f"Best {what} time (us)", xlabel="auxiliary registers for", ylabel="anchor")
    if not best:
        return
    grid = [[best[a, k].time_us if (a, k) in best else math.nan for k in kinds] for a in anchors]
    logs = [[math.log10(x) for x in row] for row in grid]
    known = [x for row in logs for x in row if not math.isnan(x)]
    # Twice the time is the whole scale at least, so that a difference of a percent looks like one.
    ends = {"vmin": min(known), "vmax": max(*known, min(known) + math.log10(2))}
    image = axes.imshow(logs, cmap="cividis_r", aspect="auto", **ends)
    axes.set_xticks(range(len(kinds)), kinds)
    axes.set_yticks(range(len(anchors)), anchors)
    low, high = image.get_clim()
    for i, row in enumerate(grid):
        for j, us in enumerate(row):
            dark = not math.isnan(us) and high > low and (logs[i][j] - low) / (high - low) > 0.5
            color = "white" if dark else "black"
            shown = "-" if math.isnan(us) else f"{us:.1f}"
            axes.text(j, i, shown, ha="center", va="center", color=color)
    winner = e.best
    if winner is not None:
        axes.set_title(f"Best {what} time (us)\nfastest: {short(winner.flow)}", fontsize=8)
