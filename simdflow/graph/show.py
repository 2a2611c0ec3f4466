"""Show: a network and its memory as text, as a notebook cell, as a picture.

It reads plans and graphs and draws; it computes nothing.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

from .graph import Graph, short
from .network import Network

COLUMNS = 64
BOX, GAP, CHARACTER = 26, 18, 7.3
COLOURS = {
    "conv2d": "#8ecae6", "depthwise_conv2d": "#a2d2ff", "dense": "#90be6d", "matmul": "#b5e48c",
    "add": "#ffd166", "mul": "#ffd166", "softmax": "#f4a261", "concat": "#cdb4db",
}  # fmt: skip


def summary(network: Network) -> str:
    """A line for each step: what it computes, its kernel, its result; then the sums."""
    rows = [
        (" + ".join(map(short, t.nodes)), t.kernel.split("__")[0], t.out, f"{t.macs / 1e6:.3f}")
        for t in network.tasks
    ]
    rows.insert(0, ("layers", "kernel", "result", "MMAC"))
    wide = [min(max(len(r[c]) for r in rows), 60) for c in range(4)]
    lines = [
        "  ".join((r[c][: wide[c]]).ljust(wide[c]) if c < 3 else r[c].rjust(wide[c])
                  for c in range(4)).rstrip()
        for r in rows
    ]  # fmt: skip
    macs = sum(t.macs for t in network.tasks)
    takes = ", ".join(map(str, network.inputs))
    gives = ", ".join(map(str, network.outputs))
    return "\n".join(
        [
            f"{network.name} for {network.target}: {takes} -> {gives}",
            *lines,
            f"{len(network.calls)} steps, {len(network.kernels)} kernels of "
            f"{sum(len(code) for _, code in network.kernels)} bytes, {macs / 1e6:.2f} MMAC, "
            f"weights {network.weights.nbytes} bytes, arena {network.memory.nbytes} bytes, "
            f"{network.threads} threads",
        ]
    )


def memory(network: Network) -> str:
    """The arena as bytes against steps: which tensor lies where, and for how long."""
    m = network.memory
    ratio = m.nbytes / m.bound if m.bound else 1.0
    lines = [
        f"arena {m.nbytes} bytes; no plan takes less than {m.bound} ({ratio:.3f} times that). "
        f"Weights {network.weights.nbytes} bytes.",
        f"{'offset':>9} {'bytes':>9}  {'steps':>9}  0{' ' * (COLUMNS - 2)}"
        f"{max(len(network.calls) - 1, 0)}",
    ]
    steps = max(len(network.calls), 1)
    for name, size, offset, first, last in sorted(m.slabs, key=lambda s: (s[2], s[3])):
        a, b = max(first, 0), min(last, steps - 1)
        begin, end = a * COLUMNS // steps, max((b + 1) * COLUMNS // steps, a * COLUMNS // steps + 1)
        bar = " " * begin + "#" * (end - begin)
        lines.append(f"{offset:9d} {size:9d}  {a:4d}-{b:<4d}  {bar.ljust(COLUMNS)}  {short(name)}")
    return "\n".join(lines)


def html(network: Network) -> str:
    """The summary as a table, for a notebook."""
    rows = "".join(
        f"<tr><td style='text-align:left'>{escape(' + '.join(map(short, t.nodes)))}</td>"
        f"<td style='text-align:left'>{escape(t.kernel.split('__')[0])}</td>"
        f"<td style='text-align:left'>{escape(t.out)}</td><td>{t.macs / 1e6:.3f}</td></tr>"
        for t in network.tasks
    )
    takes = ", ".join(map(str, network.inputs))
    gives = ", ".join(map(str, network.outputs))
    return (
        f"<table><caption>{escape(f'{network.name} for {network.target}: {takes} -> {gives}')}"
        f"</caption><tr><th>layers</th><th>kernel</th><th>result</th><th>MMAC</th></tr>{rows}"
        "</table>"
    )


def plot(graph: Graph, path: str | Path) -> None:
    """Write the graph as an SVG file: a box for each node, a line for each value that flows."""
    level: dict[str, int] = dict.fromkeys(graph.inputs, 0)
    for node in graph.nodes:
        level[node.output] = 1 + max((level.get(i, 0) for i in node.reads), default=0)
    column: dict[str, int] = {}
    used: dict[int, int] = {}
    for name in (*graph.inputs, *(n.output for n in graph.nodes)):
        column[name] = used.get(level[name], 0)
        used[level[name]] = column[name] + 1
    texts = {i: f"{short(i)} {graph.values[i].type}" for i in graph.inputs}
    texts |= {n.output: f"{n.op} {graph.values[n.output].type}" for n in graph.nodes}
    colours = {n.output: COLOURS.get(n.op, "#e9ecef") for n in graph.nodes}
    width = max(len(t) for t in texts.values()) * CHARACTER + 16
    at = {
        name: (20 + column[name] * (width + GAP), 20 + level[name] * (BOX + GAP)) for name in texts
    }
    lines = [
        f'<line x1="{at[i][0] + width / 2:.0f}" y1="{at[i][1] + BOX}" '
        f'x2="{at[n.output][0] + width / 2:.0f}" y2="{at[n.output][1]}" stroke="#888"/>'
        for n in graph.nodes
        for i in dict.fromkeys(n.reads)
        if i in at
    ]
    boxes = [
        f'<g><title>{escape(name)}</title><rect x="{x:.0f}" y="{y}" width="{width:.0f}" '
        f'height="{BOX}" rx="4" fill="{colours.get(name, "#fff")}" stroke="#555"/>'
        f'<text x="{x + 8:.0f}" y="{y + 17}">{escape(texts[name])}</text></g>'
        for name, (x, y) in at.items()
    ]
    right = max(x for x, _ in at.values()) + width + 20
    bottom = max(y for _, y in at.values()) + BOX + 20
    Path(path).write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{right:.0f}" height="{bottom:.0f}" '
        f'font-family="monospace" font-size="12"><rect width="100%" height="100%" fill="#fff"/>'
        f"{''.join(lines)}{''.join(boxes)}</svg>\n",
        encoding="utf-8",
    )
