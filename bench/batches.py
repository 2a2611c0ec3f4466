"""Suite "batches": networks of several images a call, and what compiling takes with all cores.

Batches of 8 and 32 take turns with batch 1, and each image's output is checked against batch 1's.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

import simdflow as sf

from .cases import Unsupported
from .model_cases import NETWORKS, QUICK, Network, network
from .rows import Options, Result, Row, cpu_name, machine, number, table
from .timing import interleaved, pinned

BATCHES = (8, 32)
TOLERANCE = 1e-4  # f32: of the largest output
SLOWER = 1.0  # of an image in a batch, beside batch 1: asked for is none
COMPILED_WITHIN = 3.0  # seconds, cold, of a small network
SMALL = ("resnet8", "dscnn", "mobilenetv1", "autoencoder")
COLD = """
import sys, time
import simdflow as sf
begin = time.perf_counter()
sf.load(sys.argv[1], threads=int(sys.argv[2]))
print(time.perf_counter() - begin)
"""


def run(options: Options) -> Result:
    """Measure the suite; progress goes to standard error."""
    rows, whole = list[Row](), [n for n, _, _ in NETWORKS if "minilm" not in n]
    names = [n for n in whole if options.only in n and (not options.quick or n in QUICK)]
    for at, name in enumerate(names, 1):
        print(f"[{at}/{len(names)}] {name}", file=sys.stderr, flush=True)
        try:
            case = network(name)
        except Unsupported as reason:
            rows.append(Row("batches", name, options.threads, None, why={"ours": str(reason)}))
            continue
        rows.append(_measure(case, options, 0.1 if options.quick else 0.5))
    return Result(tuple(rows), machine(options), (_table(rows), *_verdicts(rows)))


def _measure(case: Network, options: Options, seconds: float) -> Row:
    row = Row("batches", case.name, options.threads, None, cpu=cpu_name())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"model{case.suffix}"
        path.write_bytes(case.content)
        row.notes["cold_s"] = f"{_cold(path, options.threads):.3f}"
        models = {
            n: sf.load(path, threads=options.threads, batch=n if n > 1 else None)
            for n in (1, *BATCHES)
        }
    bound = {n: m.bind() for n, m in models.items()}
    for n, b in bound.items():
        (place,) = b.inputs.values()
        (x,) = case.inputs.values()
        place[...] = np.concatenate([x] * n).reshape(place.shape)
        b.run()
    outputs = {n: next(iter(b.outputs.values())) for n, b in bound.items()}
    images = {n: y.reshape(n, -1) for n, y in outputs.items()}
    tolerance = 0.0 if case.integers else TOLERANCE * float(np.abs(images[1]).max())
    right = all(
        np.allclose(y, np.repeat(images[1], n, 0), rtol=0, atol=tolerance)
        for n, y in images.items()
    )
    with pinned(options.threads):
        timed = interleaved({str(n): b.run for n, b in bound.items()}, seconds)
    each = {n: t.min_us / int(n) for n, t in timed.items()}
    row.peers.update({f"batch {n}": round(us, 2) for n, us in each.items() if n != "1"})
    slowest = max(us for n, us in each.items() if n != "1")
    return replace(
        row,
        ours_us=round(each["1"], 2),
        ratio=round(each["1"] / slowest, 3),
        exact=right if case.integers or not right else None,
        target=models[1].target,
    )


def _cold(path: Path, threads: int) -> float:
    """Seconds of `sf.load` into an empty cache, in a process of its own that may use every core."""
    with tempfile.TemporaryDirectory() as cache:
        done = subprocess.run(
            [sys.executable, "-c", COLD, str(path), str(threads)],
            env={**os.environ, "SIMDFLOW_CACHE": "rw", "SIMDFLOW_CACHE_DIR": cache},
            capture_output=True,
            text=True,
            check=True,
            timeout=600,
        )
    return float(done.stdout)


def _table(rows: list[Row]) -> str:
    header = ["network", "batch 1 us", *(f"{n}: us/image" for n in BATCHES), "times", "exact"]
    lines = [
        [
            r.case,
            number(r.ours_us),
            *(number(r.peers.get(f"batch {n}")) for n in BATCHES),
            number(r.ratio),
            {True: "yes", False: "NO", None: "-"}[r.exact],
            r.notes.get("cold_s", ""),
        ]
        for r in sorted(rows, key=lambda r: (r.ratio is None, r.ratio or 0.0))
    ]
    return table([*header, "cold s"], lines)


def _verdicts(rows: list[Row]) -> list[str]:
    """What is asked for: no image slower in a batch; small networks compiled in three seconds."""
    slow = [r for r in rows if r.ratio is not None and r.ratio < SLOWER]
    lines = [f"slower in a batch than alone: {len(slow)} of {len(rows)}"]
    lines += [f"    {r.case}: {r.ratio}" for r in slow]
    late = [
        r
        for r in rows
        if r.case.startswith(SMALL) and float(r.notes.get("cold_s", 0)) > COMPILED_WITHIN
    ]
    lines.append(f"small networks that take more than {COMPILED_WITHIN:.0f} s cold: {len(late)}")
    lines += [f"    {r.case}: {r.notes['cold_s']}" for r in late]
    lines += [f"not run ({r.case}): {r.why['ours']}" for r in rows if r.why]
    return lines
