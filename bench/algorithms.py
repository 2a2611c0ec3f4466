"""Suite "algorithms": 3x3 convolutions of f32, direct and by Winograd's tiles, and what is chosen.

Both are checked against numpy, within the error bound of a direct sum, then take turns with the
peers. The cost model's ratio of the two is beside the measured one: `algorithm="auto"` and networks
follow it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from simdflow import ops
from simdflow.ops.op import described
from simdflow.placing import placed
from simdflow.targets import target as find_target

from . import ours, peers
from .cases import Case, Problem, Run, Unsupported, mismatch, problem
from .networks import resnet50, vgg16
from .rows import Options, Result, Row, cpu_name, machine, number, table
from .timing import interleaved, pin

DIRECT, WINOGRAD = "direct", "winograd"
SECONDS, QUICK_SECONDS = 0.2, 0.08
# Height and width, input and output channels: those of small networks, and what is hard for tiles.
SMALL = ((32, 16, 16), (16, 32, 32), (8, 64, 64), (32, 8, 8), (32, 3, 16), (13, 96, 40))
HARD = ((1, 128, 128), (2, 256, 256), (4, 512, 512), (7, 64, 64), (128, 16, 16), (224, 3, 64))
QUICK = 5


def layers() -> list[Case]:
    """The layers of ResNet-50 and VGG-16 that either algorithm can compute, and others."""
    found = {
        (c.h, c.ic, c.oc): c
        for c in (*resnet50(), *vgg16())
        if c.op == "conv2d" and (c.k, c.stride) == (3, 1)
    }
    for h, ic, oc in (*HARD, *SMALL):
        found.setdefault((h, ic, oc), Case("other", "conv2d", h, h, ic, oc, k=3))
    return [replace(c, dtype="f32") for c in found.values()]


def run(options: Options) -> Result:
    """Measure the suite; progress goes to standard error."""
    pin(options.threads)
    cases = [c for c in layers() if options.only in c.name]
    cases = cases[-QUICK:] if options.quick else cases
    rows = list[Row]()
    for at, case in enumerate(cases, 1):
        print(f"[{at}/{len(cases)}] {case.name}", file=sys.stderr, flush=True)
        rows.append(_measure(case, options))
    return Result(tuple(rows), machine(options), (algorithm_table(rows), summary(rows)))


def _measure(case: Case, options: Options) -> Row:
    given, target = problem(case), find_target(options.target or None).name
    engines: dict[str, Callable[[Problem, int], Run]] = {
        name: partial(_prepared, name, target) for name in (DIRECT, WINOGRAD)
    }
    if options.peers:
        engines |= {name: partial(peers.prepare, name) for name in peers.PACKAGES}
    runs, why = dict[str, Run](), dict[str, str]()
    for name, prepare in engines.items():
        try:
            made = prepare(given, options.threads)
        except Unsupported as reason:
            why[name] = str(reason)
            continue
        made.call()
        wrong = mismatch(made.output(), given, 0)
        if wrong:
            why[name] = f"wrong: {wrong}"
        else:
            runs[name] = made
    seconds = QUICK_SECONDS if options.quick else SECONDS
    timed = interleaved({name: made.call for name, made in runs.items()}, seconds)
    us = {name: round(t.min_us, 2) for name, t in timed.items()}
    best = min((us[n] for n in us if n not in (DIRECT, WINOGRAD)), default=None)
    predicted = _cycles(case, given, DIRECT, target) / _cycles(case, given, WINOGRAD, target)
    mine = us.get(WINOGRAD if predicted > 1 else DIRECT)
    return Row(
        suite="algorithms",
        case=case.name,
        threads=options.threads,
        ours_us=mine,
        peers=us,
        ratio=best and mine and round(best / mine, 3),
        target=target,
        cpu=cpu_name(),
        notes={"predicted": f"{predicted:.3f}"},
        why=why,
    )


def _prepared(algorithm: str, target: str, given: Problem, threads: int) -> Run:
    """The layer by one algorithm; the border is made in the call, as the peers make it."""
    if threads != 1:
        raise Unsupported(f"threads={threads}: a single layer runs on one thread")
    x, settings, weights = given.x, ours.settings_of(given), ours.weights_of(given)
    out = placed(given.expected.shape, x.dtype, x)
    chosen = {**settings, "algorithm": algorithm, "target": target}
    call = ops.conv2d.bind(x, weights, given.bias, out=out, **chosen)
    return Run(call, out.copy)


def _cycles(case: Case, given: Problem, algorithm: str, target: str) -> float:
    chosen = {**ours.settings_of(given), "algorithm": algorithm, "target": target}
    return ops.conv2d.layer(described(given.x), ours.weights_of(given), **chosen).cycles


def times_as_fast(row: Row) -> float | None:
    """The direct algorithm's time over that of tiles."""
    if DIRECT not in row.peers or WINOGRAD not in row.peers:
        return None
    return row.peers[DIRECT] / row.peers[WINOGRAD]


def algorithm_table(rows: list[Row]) -> str:
    """The rows, those first where what was chosen is slower than the other."""
    names = sorted({name for row in rows for name in row.peers} - {DIRECT, WINOGRAD})
    header = ["case", "direct us", "tiles us", "tiles, times as fast", "predicted", *names, "ratio"]

    def lost(row: Row) -> float:
        return (row.ours_us or 0.0) / min((row.peers[n] for n in (DIRECT, WINOGRAD)), default=1.0)

    lines = [
        [
            row.case,
            number(row.peers.get(DIRECT), 1),
            number(row.peers.get(WINOGRAD), 1),
            number(times_as_fast(row)),
            f"{float(row.notes['predicted']):.2f}",
            *(number(row.peers.get(name), 1) for name in names),
            number(row.ratio),
        ]
        for row in sorted(rows, key=lost, reverse=True)
    ]
    return table(header, lines)


def summary(rows: list[Row]) -> str:
    """How often the cost model takes the faster one, and what it loses where it does not."""
    known = [(times_as_fast(row), float(row.notes["predicted"])) for row in rows]
    pairs = [(measured, predicted) for measured, predicted in known if measured is not None]
    right = [(m > 1) == (p > 1) for m, p in pairs]
    losses = [max(m, 1 / m) for (m, _), ok in zip(pairs, right, strict=True) if not ok]
    near = sum(abs(m - p) <= 0.15 for m, p in pairs)
    return (
        f"the faster algorithm is chosen for {sum(right)} of {len(pairs)} layers, of the others at "
        f"most {max(losses, default=1.0):.2f} is lost; the predicted ratio is within 0.15 of the "
        f"measured one for {near}"
    )
