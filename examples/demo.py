"""What simdflow does, in a minute: one convolution under three dataflows, then real digits.

It turns one loop nest into three kernels, prints their times beside the peak of this core, and
runs the int8 classifier of `digits` on the images it was not trained on. Run it with `make demo`.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from digits import network, predict

import simdflow as sf
from simdflow.peaks import peaks

SHADES = " .:-=+*#%@"


@sf.kernel
def conv2d(x, w, out, *, stride=1):
    """out[n,oh,ow,oc] = sum over kh,kw,ic of x[n, oh*s + kh, ow*s + kw, ic] * w[kh,kw,ic,oc]"""
    for n, oh, ow, oc in sf.grid(out.shape):
        acc = sf.i32(0)
        for kh, kw, ic in sf.reduce(w.shape[:3]):
            acc += x[n, oh * stride + kh, ow * stride + kw, ic] * w[kh, kw, ic, oc]
        out[n, oh, ow, oc] = acc


def fastest_us(call: Callable[[], object], seconds: float = 0.2) -> float:
    """The shortest of many calls, in microseconds."""
    clock, best = time.perf_counter_ns, 2**63
    end = clock() + int(seconds * 1e9)
    while clock() < end:
        before = clock()
        call()
        best = min(best, clock() - before)
    return best / 1e3


def expected(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """The convolution in numpy, as a sum of matrix products over the window."""
    height, width = x.shape[1] - w.shape[0] + 1, x.shape[2] - w.shape[1] + 1
    total = np.zeros((len(x), height, width, w.shape[3]), np.int64)
    for kh in range(w.shape[0]):
        for kw in range(w.shape[1]):
            part = x[:, kh : kh + height, kw : kw + width].astype(np.int64)
            total += part @ w[kh, kw].astype(np.int64)
    return total


def anchored(anchor: str, x: sf.OperandType, w: sf.OperandType) -> sf.CompiledKernel:
    """The convolution with this operand's tile in registers, as much of it as they hold.

    "out" is the dataflow that the cost model chooses; the others accumulate in memory.
    """
    if anchor == "out":
        return conv2d.specialize(x=x, w=w)
    lanes = sf.target().width // 32
    for depth in (16, 8, 4, 2):  # reduced channels that a tile covers: the first that fits
        tile = {"oc": 4 * lanes} if anchor == "w" else {"ow": 4}
        flow = sf.Dataflow(anchor=anchor, tile=tile, lanes="oc", group="ic", unroll={"ic": depth})
        try:
            compiled = conv2d.specialize(x=x, w=w, dataflow=flow)
            compiled.plan  # noqa: B018 - planning refuses what does not fit
            return compiled
        except sf.DataflowError:
            continue
    raise sf.DataflowError(f"demo: anchor={anchor} fits in no size; choose another")


def three_dataflows() -> None:
    """The table of the three anchors."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (1, 30, 30, 64), dtype=np.uint8)
    w = rng.integers(-128, 128, (3, 3, 64, 64)).astype(np.int8)
    weights, want = sf.pack(w), expected(x, w)
    macs = want.size * w[..., 0].size
    print(f"A 3x3 convolution, u8[1, 30, 30, 64] by i8[3, 3, 64, 64], {macs / 1e6:.1f} MMAC:\n")
    print("\n".join(conv2d.nest.origin.lines[3:]) + "\n")
    print("One text, three dataflows: the anchor is the operand whose tile stays in registers.\n")
    print("anchor  time us  of peak  exact  registers  dataflow")
    peak, rows = peaks(seconds=0.05).i8_gmac, []
    for anchor in ("out", "w", "x"):
        compiled = anchored(anchor, sf.u8[x.shape], weights.type)
        out = np.empty(want.shape, np.int32)
        us = fastest_us(compiled.bind(x=x, w=weights, out=out))
        rows.append((anchor, us, "yes" if np.array_equal(out, want) else "NO", compiled))
    peak = max(peak, peaks(seconds=0.05).i8_gmac)  # the clock may have moved meanwhile
    for anchor, us, exact, compiled in rows:
        flow = str(compiled.flow).removeprefix("Dataflow(").removesuffix(")")
        print(
            f"{anchor:6s}  {us:7.1f}  {macs / us / 1e3 / peak:6.1%}  {exact:>5s}  "
            f"{compiled.plan.registers:9d}  {flow}"
        )
    print(f"\nPeak: {peak:.0f} GMAC/s of u8 x i8, measured now on one core ({sf.target().name}).")


def drawn(images: np.ndarray, captions: list[str]) -> str:
    """Images u8[n, 8, 8, 1] of 0..16 side by side, as characters, captions below."""
    rows = []
    for row in range(images.shape[1]):
        cells = [
            "".join(SHADES[int(v) * (len(SHADES) - 1) // 16] * 2 for v in image[row, :, 0])
            for image in images
        ]
        rows.append("  ".join(cells))
    rows.append("  ".join(caption.center(2 * images.shape[2]) for caption in captions))
    return "\n".join("    " + row.rstrip() for row in rows)


def digits(shown: int = 4) -> None:
    """The classifier: accuracy, latency, and a few images."""
    data = network.load()
    classify = predict.prepare(data.layers)
    logits = np.concatenate([classify(image[np.newaxis]) for image in data.images])
    guesses = logits.argmax(axis=1)
    right = guesses == data.labels
    same = np.array_equal(logits, network.predict_reference(data.layers, data.images))
    us = fastest_us(lambda: classify(data.images[:1]))
    print(
        f"\nHandwritten digits, int8 ({len(data.layers)} layers), {len(right)} held-out images:\n"
    )
    some = [*np.flatnonzero(right)[: shown - 1], *np.flatnonzero(~right)[:1]]
    captions = [f"{guesses[i]}" + ("" if right[i] else f" (is {data.labels[i]})") for i in some]
    print(drawn(data.images[some], captions))
    print(
        f"\n{int(right.sum())} of {len(right)} right ({right.mean():.1%}), {us:.1f} us an image, "
        f"{'the same bits as' if same else 'NOT the bits of'} the numpy reference."
    )


if __name__ == "__main__":
    three_dataflows()
    digits()
