"""Default dataflows of channels that do not fill a register: how wide their vectors are.

The results of such layers are checked where all layers are; here is what decides.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_kernels import conv2d

import simdflow as sf
from simdflow.compiler.candidates import candidates
from simdflow.compiler.choose import choose
from simdflow.compiler.complete import lanes_of
from simdflow.dsl.nest import LoopNest
from simdflow.targets import Target
from simdflow.targets.avx512 import avx512
from simdflow.targets.core import Core, family

HALVES, WHOLE = family("znver4"), family("znver5")  # paths of 256 bits, and of 512


def on(core: Core) -> Target:
    """AVX-512 with VNNI on that core. Nothing runs on it."""
    return replace(avx512("icelake-server", {"avx512vnni"}, "+avx512f,+avx512vnni"), core=core)


def layer(channels: int) -> LoopNest:
    """A 1x1 convolution of 16 x 16 pixels and 32 input channels."""
    types = {
        "x": sf.u8[1, 16, 16, 32],
        "w": sf.i8[1, 1, 32, channels],
        "out": sf.i32[1, 16, 16, channels],
    }
    return conv2d.specialize(**types).nest


@pytest.mark.parametrize(
    ("core", "channels", "width"),
    [
        (HALVES, 3, 128),
        (HALVES, 8, 256),
        (HALVES, 16, 512),
        (HALVES, 24, 256),
        (HALVES, 40, 256),
        (HALVES, 32, 512),
        (WHOLE, 8, 256),
        (WHOLE, 24, 512),
        (WHOLE, 40, 512),
    ],
)
def test_width_of_the_default(core: Core, channels: int, width: int) -> None:
    target = on(core)
    assert (choose(layer(channels), target).flow.width or target.width) == width


@given(channels=st.integers(2, 70))
def test_narrow_candidates_have_fewer_empty_lanes(channels: int) -> None:
    target, nest = on(HALVES), layer(channels)
    widths = {f.width or target.width for _, f in candidates(nest, target) if f.lanes == "oc"}

    def computed(width: int) -> int:
        return -(-channels // lanes_of(nest, width)) * lanes_of(nest, width)

    assert all(computed(w) < computed(2 * w) for w in widths - {target.width})
    assert min(computed(w) for w in widths) <= computed(256)
