"""The study as a table of numbers and as heat maps, in text and as a picture.

Turns cells into CSV, a text heat map (always) and a PNG (with matplotlib, the extra
`simdflow[plot]`). A cell of a map is a variant's time over the best of its layer.
"""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from .rows import table
from .study_claims import by_layer
from .study_measure import ENGINES, Cell

SHADES = " ░▒▓█"
DARKEST = 4.0  # times the best: everything above is as dark
CASE_FIELDS = ("network", "op", "h", "w", "ic", "oc", "k", "stride", "dtype")


def write_csv(path: Path, cells: Sequence[Cell]) -> None:
    """One line a cell."""
    with path.open("w", newline="") as file:
        writer: csv.DictWriter[str] | None = None
        for cell in cells:
            line = {"layer": cell.case.name}
            line |= {f: getattr(cell.case, f) for f in CASE_FIELDS}
            line |= {k: v for k, v in asdict(cell).items() if k != "case"}
            line["kept"] = "/".join(map(str, cell.kept))
            if writer is None:
                writer = csv.DictWriter(file, list(line))
                writer.writeheader()
            writer.writerow(line)


def text_map(cells: Sequence[Cell]) -> str:
    """Variants by filter size and stride: the geometric mean of time over the best, shaded."""
    parts = []
    for (dtype, target), layers in by_layer(cells).items():
        names = _variants(cells)
        logs: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for layer in layers:
            case = next(iter(layer.values())).case
            kind = "dw" if case.op != "conv2d" else case.network.split()[0]
            row = f"{kind} {case.k}x{case.k} s{case.stride}"
            for name, ratio in _relative(layer).items():
                logs[row][name].append(math.log(ratio))
        lines = [
            [row, *(_shaded(found.get(name, [])) for name in names)] for row, found in logs.items()
        ]
        parts.append(f"{dtype} {target}\n{table(['', *names], lines)}")
    return "\n\n".join(parts)


def write_png(path: Path, cells: Sequence[Cell]) -> str:
    """Draw every layer by every variant; "" or why there is no picture."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.colors import LogNorm
        from matplotlib.figure import Figure
    except ImportError:
        return f"no picture {path}: matplotlib is not installed; pip install 'simdflow[plot]'"
    groups = {key: layers for key, layers in by_layer(cells).items() if layers}
    if not groups:
        return f"no picture {path}: nothing was timed"
    names = _variants(cells)
    tallest = max(len(layers) for layers in groups.values())
    columns = min(len(groups), 2)
    lines = -(-len(groups) // columns)
    figure = Figure((columns * (2.5 + 0.45 * len(names)), lines * (1.8 + 0.2 * tallest)))
    figure.set_layout_engine("constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(lines, columns, squeeze=False).flat)
    for ax in axes[len(groups) :]:
        ax.set_axis_off()
    for ax, ((dtype, target), layers) in zip(axes, groups.items(), strict=False):
        values = [[_relative(x).get(n, math.nan) for n in names] for x in layers]
        image = ax.imshow(
            values, aspect="auto", cmap="viridis_r", norm=LogNorm(1, DARKEST), interpolation="none"
        )
        labels = [next(iter(x.values())).case.name.rpartition(" ")[0] for x in layers]
        ax.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
        ax.set_yticks(range(len(layers)), labels, fontsize=7)
        ax.set_title(f"{dtype} {target}")
        for (i, j), value in ((at, v) for at, v in _entries(values) if not math.isnan(v)):
            shade = "white" if value > math.sqrt(DARKEST) else "black"
            ax.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=5.5, color=shade)
    bar = figure.colorbar(image, ax=axes, label="time / best of the layer", shrink=0.6)
    bar.set_ticks([1, 1.5, 2, 3, 4], labels=["1", "1.5", "2", "3", "4 and more"])
    bar.minorticks_off()
    figure.savefig(path, dpi=130)
    return ""


def _entries(values: Sequence[Sequence[float]]) -> list[tuple[tuple[int, int], float]]:
    return [((i, j), v) for i, line in enumerate(values) for j, v in enumerate(line)]


def _variants(cells: Sequence[Cell]) -> list[str]:
    """In the order in which they were made; the engines are not dataflows."""
    return list(dict.fromkeys(c.name for c in cells if c.allocation not in ENGINES))


def _relative(layer: dict[str, Cell]) -> dict[str, float]:
    times = {n: c.us for n, c in layer.items() if c.us and c.allocation not in ENGINES}
    best = min(times.values(), default=1.0)
    return {name: us / best for name, us in times.items()}


def _shaded(logs: Sequence[float]) -> str:
    if not logs:
        return "-"
    ratio = math.exp(sum(logs) / len(logs))
    dark = min(math.log(ratio) / math.log(DARKEST), 1.0)
    return f"{ratio:.2f}{SHADES[round(dark * (len(SHADES) - 1))]}"
