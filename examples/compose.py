"""A network of layers and a kernel of one's own: traced, compiled, profiled, quantized.

Run it with `python examples/compose.py [folder]`; the trace (for Perfetto) and the picture go into
the folder. The weights are random, so the network knows nothing; the steps are those of a real one.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

import simdflow as sf
from simdflow import ops

RNG = np.random.default_rng(0)


def weights(*shape: int) -> np.ndarray:
    """Random f32 weights that keep the size of what they multiply."""
    return (RNG.standard_normal(shape) / np.sqrt(np.prod(shape[:-1]))).astype(np.float32)


FIRST, FIRST_BIAS, LAST = weights(3, 3, 3, 32), weights(32), weights(32, 10)
BLOCKS = [(weights(3, 3, 32), weights(1, 1, 32, 32)) for _ in range(3)]


@sf.kernel
def gated(x, gate, out):
    """out[n,h,w,c] = x[n,h,w,c] * clip(gate[n,h,w,c] + 0.5, 0, 1)"""
    for n, h, w, c in sf.grid(x.shape):
        out[n, h, w, c] = x[n, h, w, c] * sf.clip(gate[n, h, w, c] + 0.5, 0.0, 1.0)


def network(image: Any) -> Any:
    """Three residual blocks, in each of which one branch gates the other."""
    x = ops.conv2d(image, FIRST, FIRST_BIAS, stride=2, padding="same", activation="relu")
    for depthwise, pointwise in BLOCKS:
        y = ops.depthwise_conv2d(x, depthwise, padding="same")
        x = x + gated(ops.conv2d(y, pointwise), y)  # the layers and the kernel, as functions
    return ops.softmax(ops.dense(ops.global_avg_pool2d(x).reshape(1, 32), LAST))


def main(folder: Path) -> None:
    """Every step, and what it shows."""
    graph = sf.trace(network, sf.f32[1, 64, 64, 3])
    model = sf.compile(graph)
    images = RNG.random((32, 64, 64, 3), dtype=np.float32)
    print(model.summary(), end="\n\n")
    profile = model.profile(images[:1])
    print(profile, end="\n\n")
    profile.trace(folder / "compose.json")
    model.plot(folder / "compose.svg")

    small = sf.quantize(graph, images[:16])
    print(sf.compare(graph, small, images[16:]), end="\n\n")
    quick = sf.compile(small)
    print(quick.memory(), end="\n\n")
    difference = np.abs(quick.predict(images) - model.predict(images)).max()
    times = profile.whole_us, quick.profile(images[:1]).whole_us
    print(f"f32 {times[0]:.1f} us, 8 bits {times[1]:.1f} us, probabilities within {difference:.4f}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
