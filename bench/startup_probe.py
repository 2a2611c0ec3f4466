"""One startup figure, measured inside a fresh process: `python -m bench.startup_probe NAME`.

Prints {"us": ..., "target": ...} as JSON; bench/startup.py decides which cache the process finds.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

import numpy as np

from . import ours
from .cases import Case, Problem, Unsupported, problem

LAYER = Case("startup", "conv2d", 28, 28, 64, 64, k=3, dtype="int8")
OTHER = Case("startup", "conv2d", 14, 14, 64, 64, k=3, dtype="int8")  # another kernel
CALLS = 2000


def import_us() -> float:
    """`import simdflow`; numpy is there already."""
    return _us(lambda: __import__("simdflow"))


def first_call_us() -> float:
    """Import, parse a nest of the user's own, pack the weights, call it once."""
    given = problem(LAYER)
    return _us(lambda: _own_kernel(given))


def first_op_us() -> float:
    """Import the package and its layers, pack the weights, call one once: two kernels."""
    given = problem(LAYER)
    return _us(lambda: ours.eager(given)())


def second_kernel_us() -> float:
    """Make one more kernel in a process that has made one: compiling, or loading from the cache."""
    _own_kernel(problem(LAYER))
    from .nests import layer_nest  # imports simdflow, which `import_us` is about

    nest = layer_nest(problem(OTHER))
    return _us(lambda: nest.run(nest.made()).call())


def eager_us() -> float:
    """What a plain call on numpy arrays costs beyond the kernel itself, called through `bind`."""
    tiny = problem(Case("startup", "conv2d", 7, 7, 16, 16, dtype="int8"))
    bound, eager = ours.prepare(tiny, 1).call, ours.eager(tiny)
    return max(_best_us(eager, CALLS) - _best_us(bound, CALLS), 0.0)


PROBES: dict[str, Callable[[], float]] = {
    "import": import_us,
    "first_call": first_call_us,
    "first_op": first_op_us,
    "compile": second_kernel_us,
    "load": second_kernel_us,
    "eager": eager_us,
}


def _own_kernel(given: Problem) -> np.ndarray:
    import simdflow as sf

    @sf.kernel
    def conv2d(x, w, start, out):
        """A convolution without padding, to i32 sums."""
        for n, oh, ow, oc in sf.grid(out.shape):
            acc = sf.i32(start[oc], wrap=True)
            for kh, kw, ic in sf.reduce(w.shape[:3]):
                acc += x[n, oh + kh, ow + kw, ic] * w[kh, kw, ic, oc]
            out[n, oh, ow, oc] = acc

    return conv2d(given.x, sf.pack(given.w), given.bias)


def _us(call: Callable[[], object]) -> float:
    before = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - before) / 1e3


def _best_us(call: Callable[[], object], calls: int) -> float:
    return min(_us(call) for _ in range(calls))


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in PROBES:
        sys.exit(f"usage: python -m bench.startup_probe {'|'.join(PROBES)}")
    try:
        print(json.dumps({"us": PROBES[sys.argv[1]](), "target": ours.target()}))
    except Unsupported as reason:
        sys.exit(str(reason))
