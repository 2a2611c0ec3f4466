"""Suite "dataflows": the YFlows study on this CPU.

Every anchor with and without auxiliary registers, on the paper's layers, in int8 and binary, for
the targets avx512 and avx2; each variant exact. Prints the paper's claims beside what was measured,
and why those that fail do; `--csv` and `--png` keep the numbers and a heat map.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterator, Sequence

import simdflow as sf
from simdflow.peaks import peaks

from .cases import Case
from .compiling import compilers
from .rows import Options, Result, Row, cpu_name, machine, write_json
from .study_claims import by_layer, claims, fastest
from .study_layers import layers
from .study_measure import AT_ONCE, ENGINES, Cell, Prepared, measure, prepare
from .study_pictures import text_map, write_csv, write_png
from .study_reasons import by_itself, reasons, same_code
from .study_variants import INEXPRESSIBLE, OWN
from .timing import pinned

TARGETS = ("avx512", "avx2")


def run(options: Options) -> Result:
    """Measure the suite; progress goes to standard error, rows into --json as they come."""
    targets = chosen_targets(options.target)
    todo = [
        (target, case)
        for target in targets
        for case in layers(sf.target(target), options.quick)
        if options.only in case.name
    ]
    limits = {target: peaks(target) for target in targets}
    about = {**machine(options), "targets": list(targets)}
    cells, rows = list[Cell](), list[Row]()
    for mine in measured(todo, options):
        cells += mine
        rows.append(row(mine))
        if options.json:
            write_json(options.json, Result(tuple(rows), about, ()))
    text = [claims(cells), "", *reasons(cells, limits), *by_itself(cells), *same_code(cells), ""]
    text += ["what the paper has and a Dataflow cannot say:", *(f"- {x}" for x in INEXPRESSIBLE)]
    text += ["", "time over the best of the layer, geometric means:", text_map(cells)]
    if options.csv:
        write_csv(options.csv, cells)
    if options.png and (why := write_png(options.png, cells)):
        text.append(why)
    failed = [f"    {c.case.name} {c.target}, {c.name}: {c.why}" for c in cells if c.why]
    text += ["", f"variants without a time: {len(failed)}", *failed]
    return Result(tuple(rows), about, tuple(text))


def chosen_targets(given: str) -> tuple[str, ...]:
    """The targets to measure: the one that was given, else those of the study this CPU has.

    Raises SimdflowError for a target that it lacks.
    """
    if given:
        return (sf.target(given).name,)
    found = []
    for name in TARGETS:
        try:
            found.append(sf.target(name).name)
        except sf.SimdflowError:
            continue
    return tuple(found) or (sf.target().name,)


def measured(todo: Sequence[tuple[str, Case]], options: Options) -> Iterator[list[Cell]]:
    """The cells of one layer after the other: a few are compiled, then those are timed."""
    begin, done = time.monotonic(), 0
    for target, group in itertools.groupby(todo, key=lambda x: x[0]):
        cases = [case for _, case in group]
        for at in range(0, len(cases), AT_ONCE):
            with compilers() as pool:
                ready = prepare(cases[at : at + AT_ONCE], target, pool)
            for prepared in ready:
                with pinned(1):
                    yield measure(prepared, 0.0, _with_engines(prepared, target, options))
                done += 1
                _progress(prepared, target, done, len(todo), time.monotonic() - begin)


def _with_engines(prepared: Prepared, target: str, options: Options) -> bool:
    """Engines choose their instructions by themselves: they stand beside the widest target."""
    case = prepared.layer.case
    return options.peers and case.dtype == "int8" and target == sf.target().name


def _progress(prepared: Prepared, target: str, done: int, total: int, seconds: float) -> None:
    left = seconds / done * (total - done)
    line = f"[{done}/{total}] {prepared.layer.case.name} {target}, {left:.0f} s left"
    print(line, file=sys.stderr, flush=True)


def row(cells: Sequence[Cell]) -> Row:
    """One layer on one target: simdflow's default as ours, the paper's variants as peers."""
    layer = next(iter(by_layer(cells).values()))[0] if any(c.us for c in cells) else {}
    own, best = layer.get(OWN), fastest(layer)
    wrong = any(c.why.startswith("wrong") for c in cells if c.allocation not in ENGINES)
    return Row(
        suite="dataflows",
        case=cells[0].case.name,
        threads=1,
        ours_us=own.us if own else None,
        peers={name: c.us for name, c in layer.items() if name != OWN and c.us},
        ratio=round(best.us / own.us, 3) if best and own and best.us and own.us else None,
        exact=not wrong,
        target=cells[0].target,
        cpu=cpu_name(),
        clock_ghz=next((c.clock_ghz for c in layer.values()), None),
        notes={c.name: c.flow for c in cells if c.flow},
        why={c.name: c.why for c in cells if c.why},
    )
