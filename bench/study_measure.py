"""One layer of the study: every variant compiled, checked against numpy, counted and timed.

Turns layers into Cells. A variant whose sums are wrong, or which does not fit the register file, is
a cell without a time that says why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace

import simdflow as sf
from simdflow.peaks import clock_loop

from . import peers
from .cases import Case, Run, mismatch, problem
from .compiling import Counts, code, compile_kernels
from .layers import PEER_LSB
from .study_kernels import Layer, layer
from .study_variants import Variant, variants
from .timing import interleaved

ENGINES = tuple(peers.PACKAGES)
AT_ONCE = 8  # layers compiled together: 88 kernels are worth the start of the workers, a second


@dataclass(frozen=True)
class Cell:
    """One variant of one layer on one target.

    us              the shortest call; None: `why`
    operations      vector memory operations of a call (YFlows' count)
    cycles          predicted by the cost model
    products, horizontal, broadcasts    instructions of a call
    clock_ghz       while it was timed
    code            a hash of the machine instructions
    """

    target: str
    case: Case
    anchor: str
    allocation: str
    kept: tuple[int, int, int] = (0, 0, 0)
    flow: str = ""
    us: float | None = None
    operations: float = 0.0
    cycles: float = 0.0
    products: float = 0.0
    horizontal: float = 0.0
    broadcasts: float = 0.0
    clock_ghz: float = 0.0
    code: str = ""
    why: str = ""

    @property
    def name(self) -> str:
        return f"{self.anchor} {self.allocation}".strip()


@dataclass(frozen=True)
class Prepared:
    """A layer, its variants, their kernels, and the cells so far; a cell with a `why` is done."""

    layer: Layer
    variants: Mapping[str, Variant]
    kernels: Mapping[str, sf.CompiledKernel]
    cells: Mapping[str, Cell]


def prepare(cases: Sequence[Case], target: str, pool: Executor) -> list[Prepared]:
    """A few layers with all kernels compiled, none run."""
    planned = []
    for case in cases:
        given = layer(case)
        chosen = {v.name: v for v in variants(case, sf.target(target))}
        kernels = {n: given.kernel(v, target) for n, v in chosen.items()}
        planned.append(Prepared(given, chosen, kernels, {}))
    named = {(i, n): k for i, p in enumerate(planned) for n, k in p.kernels.items()}
    apart = [_key(i, n) for i, n in named if planned[i].variants[n].barriers]
    counts, why = compile_kernels(pool, {_key(*at): k for at, k in named.items()}, apart)
    found = []
    for i, p in enumerate(planned):
        cells = {
            n: _cell(p, n, target, counts.get(_key(i, n)), why.get(_key(i, n), ""))
            for n in p.variants
        }
        found.append(replace(p, cells=cells))
    return found


def _key(layer: int, variant: str) -> str:
    return f"{layer} {variant}"


def _cell(p: Prepared, name: str, target: str, counts: Counts | None, why: str) -> Cell:
    variant = p.variants[name]
    cell = Cell(target, p.layer.case, variant.anchor, variant.allocation, variant.kept)
    if counts is None or why:
        return replace(cell, why=why)
    times = counts.instructions
    return replace(
        cell,
        flow=counts.flow,
        operations=counts.operations,
        cycles=counts.cycles,
        products=times.get("dot", 0) + times.get("dotbits", 0),
        horizontal=times.get("hadd", 0),
        broadcasts=times.get("broadcast", 0),
        code=code(p.kernels[name]),
    )


def measure(prepared: Prepared, seconds: float, engines: bool = False) -> list[Cell]:
    """The cells of one layer: each variant checked once, then all timed by turns, with the other
    engines if they are asked for.
    """
    cells, runs = dict(prepared.cells), dict[str, Run]()
    for name, kernel in prepared.kernels.items():
        if cells[name].why:
            continue
        run = prepared.layer.run(prepared.variants[name], kernel)
        run.call()
        if wrong := prepared.layer.wrong(run.output()):
            cells[name] = replace(cells[name], why=f"wrong: {wrong}")
        else:
            runs[name] = run
    if engines:
        others, refused = _engines(prepared.layer.case)
        target, case = sf.target().name, prepared.layer.case
        runs |= others
        cells |= {n: Cell(target, case, "", n, why=refused.get(n, "")) for n in ENGINES}
    clock, cycles = clock_loop()
    calls = {"clock": clock, **{n: r.call for n, r in runs.items()}}
    timed = interleaved(calls, seconds)
    ghz = cycles / timed.pop("clock").min_us / 1e3
    for name, timing in timed.items():
        cells[name] = replace(cells[name], us=round(timing.min_us, 3), clock_ghz=round(ghz, 3))
    return list(cells.values())


def _engines(case: Case) -> tuple[dict[str, Run], dict[str, str]]:
    """The other engines on the layer with u8 outputs, checked; and why some do not run."""
    runs, why = dict[str, Run](), dict[str, str]()
    given = problem(case)
    for name in ENGINES:
        try:
            run = peers.prepare(name, given, 1)
            run.call()
            if wrong := mismatch(run.output(), given, PEER_LSB):
                why[name] = f"wrong: {wrong}"
            else:
                runs[name] = run
        except Exception as failure:  # one engine's failure is a remark in its cell
            why[name] = f"{type(failure).__name__}: {str(failure).partition(chr(10))[0][:200]}"
    return runs, why
