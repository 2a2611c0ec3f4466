"""Suite "models": whole networks beside the peers, each run on an input that is already in place.

Every engine's output is checked first: ours against golden outputs, exactly for integers. Then all
take turns in one process. Also measured: the call with arrays, the compilation, and more threads.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import simdflow as sf
from simdflow.graph.buffers import Bound
from simdflow.graph.model import Model

from . import peers
from .cases import Run, Unsupported
from .model_cases import NETWORKS, QUICK, Network, network
from .peers import files
from .rows import Options, Result, Row, cpu_name, machine, number, table
from .summary import geometric_mean
from .timing import interleaved, pin

OURS = "ours"
# f32 networks: largest difference to the reference, of the largest value of the output.
TOLERANCE = 1e-4
# What engines that round in another way may differ by, of the range of 8-bit outputs.
PEER_TOLERANCE = 0.1


def run(options: Options) -> Result:
    """Measure the suite; progress goes to standard error."""
    pin(options.threads)
    rows, extra = list[Row](), list[str]()
    names = [n for n, _, _ in NETWORKS if options.only in n and (not options.quick or n in QUICK)]
    for at, name in enumerate(names, 1):
        print(f"[{at}/{len(names)}] {name}", file=sys.stderr, flush=True)
        try:
            row, line = _measure(network(name), options)
        except Unsupported as reason:
            row = Row("models", name, options.threads, None, cpu=cpu_name())
            line = f"{name}: left out, {reason}"
        rows.append(row)
        extra.append(line)
    about = {**machine(options), "peers": peers.versions() if options.peers else {}}
    lines = (f"{cpu_name()}, {options.threads} thread(s)", _table(rows), *extra, *_means(rows))
    return Result(tuple(rows), about, lines)


def _measure(case: Network, options: Options) -> tuple[Row, str]:
    model, cold, warm = _compiled(case, options.threads)
    ours = _run(model, case)
    why: dict[str, str] = {}
    expected = case.golden[0] if case.golden is not None else None
    runs: dict[str, Run] = {}
    approximate = tuple(files.APPROXIMATE) if case.weights_only else ()
    for name in (*files.ENGINES, *approximate) if options.peers else ():
        try:
            found = files.prepare(name, case.content, case.suffix, case.inputs, options.threads)
            found.call()
            if expected is None:
                expected = found.output()
            if wrong := _difference(found.output(), expected, PEER_TOLERANCE):
                why[name] = f"wrong: {wrong}"
                continue
            runs[name] = found
        except Unsupported as reason:
            why[name] = str(reason)
        except Exception as failure:  # a peer's failure is a remark, not the end of the run
            why[name] = f"{type(failure).__name__}: {str(failure).partition(chr(10))[0][:200]}"
    ours.call()
    wrong = (
        ""
        if expected is None
        else _difference(ours.output(), expected, 0.0 if case.integers else TOLERANCE)
    )
    if wrong:
        why[OURS] = f"wrong: {wrong}"
    arrays = [_input(case, p.name) for p in model.inputs]
    calls: dict[str, Callable[[], object]] = {OURS: ours.call, "arrays": lambda: model(*arrays)}
    one = None
    if options.threads > 1:
        one = _run(_compiled(case, 1)[0], case)
        calls["one"] = one.call
    timed = interleaved(calls | {n: r.call for n, r in runs.items()}, 0.1 if options.quick else 0.5)
    mine, copied = timed.pop(OURS), timed.pop("arrays")
    single = timed.pop("one", None)
    rounding = {name: timed.pop(name) for name in approximate if name in timed}
    fastest = min((t.min_us for t in timed.values()), default=None)
    row = Row(
        suite="models",
        case=case.name,
        threads=options.threads,
        ours_us=round(mine.min_us, 2),
        peers={name: round(t.min_us, 2) for name, t in timed.items()},
        ratio=fastest and round(fastest / mine.min_us, 3),
        exact=not wrong if case.integers else (False if wrong else None),
        target=model.target,
        cpu=cpu_name(),
        ours_median_us=round(mine.median_us, 2),
        peers_median_us={name: round(t.median_us, 2) for name, t in timed.items()},
        bar=case.bar,
        copying_us=round(copied.min_us, 2),
        why=why,
    )
    memory = model.network.memory
    line = (
        f"{case.name}: arrays passed +{copied.min_us - mine.min_us:.2f} us, cold {cold:.2f} s, "
        f"from the cache {warm:.3f} s, arena {memory.nbytes} bytes "
        f"({memory.nbytes / memory.bound:.3f} of the bound), {len(model.network.calls)} steps, "
        f"{len(model.network.kernels)} kernels"
    )
    if single:
        speedup = single.min_us / mine.min_us
        line += f", {options.threads} threads {speedup:.2f} times one ({model.threads} used)"
    for name, t in rounding.items():
        assert expected is not None, "where a peer ran, there is an output to compare with"
        line += f"\n    {name}: {t.min_us:.2f} us, not compared: its output "
        line += _difference(runs[name].output(), expected, 0.0) or "is equal"
    line += "".join(f"\n    {name}: {text}" for name, text in why.items())
    return row, line


def _compiled(case: Network, threads: int) -> tuple[Model, float, float]:
    """The model, seconds to compile it into an empty cache, and to load it again."""
    before = os.environ.get("SIMDFLOW_CACHE_DIR")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"model{case.suffix}"
        path.write_bytes(case.content)
        os.environ["SIMDFLOW_CACHE_DIR"] = str(Path(folder) / "cache")
        try:
            start = time.perf_counter()
            sf.load(path, threads=threads, **_options(case))
            middle = time.perf_counter()
            model = sf.load(path, threads=threads, **_options(case))
            end = time.perf_counter()
        finally:
            if before is None:
                del os.environ["SIMDFLOW_CACHE_DIR"]
            else:
                os.environ["SIMDFLOW_CACHE_DIR"] = before
    return model, middle - start, end - middle


def _options(case: Network) -> dict[str, Any]:
    """The shapes of inputs that a file leaves open."""
    if case.suffix != ".onnx" or "" in case.inputs:
        return {}
    return {"shapes": {name: a.shape for name, a in case.inputs.items()}}


def _run(model: Model, case: Network) -> Run:
    bound: Bound = model.bind()
    for name, place in bound.inputs.items():
        place[...] = _input(case, name)
    return Run(bound.run, lambda: next(iter(bound.outputs.values())).copy())


def _input(case: Network, name: str) -> np.ndarray:
    return case.inputs[""] if "" in case.inputs else case.inputs[name]


def _difference(found: np.ndarray, expected: np.ndarray, tolerance: float) -> str:
    """What is wrong with an output, or ''."""
    if found.size != expected.size:
        return f"{list(found.shape)} for {list(expected.shape)}"
    a, b = (v.reshape(-1).astype(np.float64) for v in (found, expected))
    largest = float(np.abs(a - b).max())
    scale = float(np.abs(b).max()) or 1.0
    return f"differs by {largest:g} of {scale:g}" if largest > tolerance * scale else ""


def _table(rows: list[Row]) -> str:
    names = sorted({name for row in rows for name in row.peers})
    lines = [
        [
            r.case,
            number(r.ours_us),
            number(r.ours_median_us),
            {True: "yes", False: "NO", None: "-"}[r.exact],
            *(number(r.peers.get(n)) for n in names),
            number(r.ratio),
            number(r.bar),
            ""
            if r.ratio is None or r.bar is None
            else ("reached" if r.ratio >= r.bar else "MISSED"),
        ]
        for r in sorted(rows, key=lambda r: (r.ratio is None, (r.ratio or 0) / (r.bar or 1)))
    ]
    return table(["network", "ours us", "median", "exact", *names, "ratio", "asked", ""], lines)


def _means(rows: list[Row]) -> list[str]:
    lines = []
    for kind in ("int8", "f32"):
        ratios = [r.ratio for r in rows if r.ratio and r.case.endswith(kind)]
        if ratios:
            lines.append(f"{kind}: geometric mean {geometric_mean(ratios):.3f} of {len(ratios)}")
    return lines
