"""Ranking: an Exploration, or the predictions of a Space, as lines of text and as an HTML table.

It formats numbers and measures none.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from .verdict import short

if TYPE_CHECKING:
    from .explore import Exploration, Variant
    from .space import Space

PREDICTED = 24  # dataflows of a space that a notebook shows: 30 ms each
HEAD = ("", "us", "spread", "predicted", "GMAC/s", "of peak", "registers", "bound by", "dataflow")


def text(e: Exploration, most: int) -> str:
    """What was explored, the ranking, how good the predictions are, and the verdict."""
    rows = [HEAD, *(_cells(e, v, i) for i, v in enumerate(e.variants[:most], 1))]
    widths = [max(len(r[c]) for r in rows) for c in range(len(HEAD))]
    lines = [heading(e), counts(e), ""]
    lines += [
        "  ".join(
            cell.ljust(w) if c >= 7 else cell.rjust(w)
            for c, (cell, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    if len(e.variants) > most:
        lines.append(f"and {len(e.variants) - most} more")
    lines += ["", *correlations(e), *e.verdict]
    if e.recorded:
        lines.append("recorded: used from now on where no dataflow is given (simdflow cache info)")
    failed = [v for v in e.variants if v.why]
    lines += [f"without a time: {short(v.flow)}: {v.why}" for v in failed[:5]]
    if len(failed) > 5:
        lines.append(f"without a time: {len(failed) - 5} more")
    lines += [f"not legal: {n:6d}  {why}" for why, n in list(e.refusals.items())[:5]]
    return "\n".join(lines)


def heading(e: Exploration) -> str:
    """The kernel with its types and target."""
    return f"{e.name}({types(e.space)}) on {e.space.target.name}"


def types(space: Space) -> str:
    """Operand types and constants, as one line."""
    nest = space.nest
    shown = [f"{o.name}={nest.type_of(o.name)}" for o in nest.operands]
    constants = {k: v for k, v in space.given.items() if k in dict(nest.constants)}
    return ", ".join([*shown, *(f"{k}={v}" for k, v in constants.items())])


def counts(e: Exploration) -> str:
    """How many dataflows there are, and what was done with them."""
    refused = sum(e.refusals.values())
    more = "" if e.complete else "more than "
    over = f": the {e.budget:g} s were over" if e.budget and not e.measured else ""
    return (
        f"{more}{e.count} legal dataflows, {refused} candidates refused; {len(e.variants)} "
        f"predicted, {len(e.measured)} measured{over}"
    )


def correlations(e: Exploration) -> list[str]:
    """How well predictions order the measured times, one line each."""
    found = {
        "cost model": e.correlation(lambda v: v.cycles),
        "YFlows' memory operations": e.correlation(lambda v: v.operations),
    }
    return [
        f"rank correlation with the times: {name} {c:+.2f}"
        for name, c in found.items()
        if c is not None
    ]


def table(e: Exploration, most: int) -> str:
    """For a notebook."""
    rows = [_cells(e, v, i) for i, v in enumerate(e.variants[:most], 1)]
    said = "".join(f"<p>{escape(line)}</p>" for line in (*correlations(e), *e.verdict))
    return f"<p><b>{escape(heading(e))}</b><br>{escape(counts(e))}</p>{_table(HEAD, rows)}{said}"


def space_table(space: Space) -> str:
    """The best by the cost model of a sample of a space, for a notebook."""
    from .explore import predicted

    nest = space.nest
    head = ("", "cycles", "registers", "bound by", "dataflow")
    rows = [
        (str(i), f"{v.cycles:.0f}", str(v.plan.registers), v.parts.bound, short(v.flow))
        for i, v in enumerate(predicted(space, PREDICTED), 1)
    ]
    title = escape(f"{nest.name}({types(space)}) on {space.target.name}")
    note = f"at most {PREDICTED} dataflows, taken from all parts of the space, by predicted cycles"
    return f"<p><b>{title}</b><br>{note}</p>{_table(head, rows)}"


def _cells(e: Exploration, v: Variant, place: int) -> tuple[str, ...]:
    m = v.measurement
    us = f"{m.us:.2f}" if m and m.us is not None else "-"
    spread = f"{100 * m.spread:.0f} %" if m and m.spread is not None else ""
    share = e.share(v)
    return (
        f"{place}{'*' if v.flow == e.default else ''}",
        us,
        spread,
        f"{v.us:.2f}",
        f"{v.macs / v.measured_us / 1e3:.1f}" if v.measured_us else "",
        "" if share is None else f"{100 * share:.1f} %",
        str(v.plan.registers),
        v.parts.bound,
        short(v.flow),
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    left = " style='text-align:left'"
    heads = "".join(f"<th>{escape(h)}</th>" for h in head)
    body = "".join(
        "<tr>"
        + "".join(
            f"<td{left if c >= len(head) - 2 else ''}>{escape(x)}</td>" for c, x in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"
