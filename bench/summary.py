"""The lines below the layer table: means against the peers, the bars, and what misses them.

Reads rows only; the classes and bars are those that the project has set itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from .bounds import BOUND_STATEMENT
from .rows import Row

MEANS = (  # class, starts of words that the case's name has, geometric mean asked for
    ("int8 dense convolution", ("conv", "int8"), 1.10),
    ("int8 depthwise", ("dw", "int8"), 1.50),
    ("f32", ("f32",), 1.03),
    ("int8 dense layer", ("dense", "int8"), None),
)
SLOWEST = 0.95  # no layer may be slower than this, best peer / ours
# Of the bound, which counts every product: more is a fault of the measurement until shown
# otherwise. Rows of zeros are left out: a tenth of a 3x3 layer of 7x7 pixels, the most here.
IMPOSSIBLE = 1.15


def summary(rows: Sequence[Row]) -> tuple[str, ...]:
    """One line for each mean, for the slow layers, and for each class of bars."""
    lines = []
    for name, words, asked in MEANS:
        ratios = [r.ratio for r in rows if r.ratio and all(_has(r, word) for word in words)]
        if ratios:
            mean = geometric_mean(ratios)
            verdict = "" if asked is None else f", asked {asked:.2f}: {_verdict(mean >= asked)}"
            lines.append(f"{name}: geometric mean {mean:.3f} over {len(ratios)} layers{verdict}")
    slower = [r.copying_us / r.ours_us for r in rows if r.copying_us and r.ours_us]
    if slower:
        lines.append(
            f"with the copy that gives the input its border: {geometric_mean(slower):.2f} times as "
            f"long, geometric mean over {len(slower)} layers"
        )
    compared = [r for r in rows if r.ratio]
    if compared:
        slow = [r for r in compared if r.ratio and r.ratio < SLOWEST]
        lines.append(
            f"below {SLOWEST} of the best peer: {len(slow)} of {len(compared)}{_names(slow)}"
        )
    for name, members in _classes(rows).items():
        measured = [r for r in members if r.ours_us is not None]
        if measured:
            missed = [r for r in measured if _share(r) < (r.bar or 0)]
            reached = min(_share(r) for r in measured)
            lines.append(
                f"{name}: {len(measured) - len(missed)} of {len(measured)} layers, "
                f"lowest {reached:.2f}"
                + "".join(f"\n    misses: {r.case} {_share(r):.2f}" for r in missed)
            )
    beyond = [r for r in rows if (r.bound_fraction or 0) > IMPOSSIBLE and "peak" in r.limit]
    if beyond:
        lines.append(f"faster than the measured peak, so doubtful: {len(beyond)}{_names(beyond)}")
    wrong = [r for r in rows if r.exact is False]
    lines.append(f"wrong results of ours: {len(wrong)}{_names(wrong)}")
    reasons: dict[str, list[str]] = {}
    for row in rows:
        for engine, reason in row.why.items():
            reasons.setdefault(f"{engine}: {reason}", []).append(row.case)
    for reason, cases in reasons.items():
        which = cases[0] if len(cases) == 1 else f"{len(cases)} cases"
        lines.append(f"not run ({which}): {reason}")
    return (BOUND_STATEMENT, *lines)


def geometric_mean(values: Sequence[float]) -> float:
    """exp(mean(log(values)))."""
    return math.exp(sum(map(math.log, values)) / len(values))


def _classes(rows: Sequence[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        if row.bar:
            what = row.limit if row.bar_on == "peak" else f"{row.limit} with epilogue"
            if "bandwidth" in what:
                what = "streaming bandwidth"
            found.setdefault(f"at least {row.bar:.0%} of {what}", []).append(row)
    return found


def _share(row: Row) -> float:
    return (row.peak_fraction if row.bar_on == "peak" else row.bound_fraction) or 0.0


def _has(row: Row, word: str) -> bool:
    """Whether a word of the case's name starts with `word`."""
    return any(part.startswith(word) for part in row.case.split())


def _names(rows: Sequence[Row]) -> str:
    return "".join(f"\n    {row.case} {'' if row.ratio is None else row.ratio}" for row in rows)


def _verdict(good: bool) -> str:
    return "reached" if good else "MISSED"
