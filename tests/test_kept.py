"""What defaults keep in registers, and how weights are stored: loads for a product, as counted.

That the results are right is checked where all dataflows are; nothing runs here but numpy.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_kernels import binary_conv, conv2d, requantized

import simdflow as sf
from simdflow.compiler.choose import Choice, choose
from simdflow.compiler.cost import cost
from simdflow.compiler.packing import Packing, pack
from simdflow.targets import Target
from simdflow.targets.avx2 import avx2
from simdflow.targets.avx512 import avx512
from simdflow.targets.core import family

FEATURES = {"avx512vnni", "avx512vpopcntdq"}
WIDE = replace(avx512("znver4", FEATURES, "+avx512f,+avx512vnni"), core=family("znver4"))
NARROW = replace(avx2({"avx2", "fma"}), core=family("znver4"))


@sf.kernel
def narrowed_depthwise(x, w, scale, out):
    for n, oh, ow, c in sf.grid(out.shape):
        acc = sf.i32(0)
        for kh, kw in sf.reduce(w.shape[:2]):
            acc += x[n, oh + kh, ow + kw, c] * w[kh, kw, c]
        scaled = sf.i32(sf.round(sf.f32(acc) * scale[c]), saturate=True)
        out[n, oh, ow, c] = sf.u8(scaled, saturate=True)


def chosen(kernel: Any, target: Target, **types: Any) -> Choice:
    return choose(kernel.specialize(**types).nest, target)


def loads_for_a_product(found: Choice) -> float:
    ports = dict(cost(found.plan, found.program).ports)
    products = ports.get("dot", 0.0) or ports["other"] / 3  # of bits: xor, count, add
    return (ports.get("load", 0.0) + ports.get("broadcast", 0.0)) / products


@pytest.mark.parametrize(("kernel", "size"), [(3, 56), (4, 56), (5, 30), (3, 7)])
def test_few_outputs_keep_the_weights_of_a_window(kernel: int, size: int) -> None:
    """A load and a broadcast for each product would be the bound, of 8 lanes as of 16."""
    pixels = size + kernel - 1
    x, w = sf.u8[1, pixels, pixels, 64], sf.i8[kernel, kernel, 64, 8]
    found = chosen(conv2d, WIDE, x=x, w=w)
    assert loads_for_a_product(found) < 0.6
    taps = {"kh": kernel, "kw": kernel}
    assert taps.items() & dict(found.flow.unroll).items()
    assert dict(found.flow.auxiliary)["w"] in (kernel, kernel**2)
    many = chosen(conv2d, WIDE, x=x, w=sf.i8[kernel, kernel, 64, 64])
    assert dict(many.flow.auxiliary)["w"] < kernel


def test_bits_keep_them_with_more_outputs() -> None:
    types = {
        "x": sf.bit[1, 16, 16, 256],
        "w": sf.bit[3, 3, 32, 256],
        "threshold": sf.i32[32],
    }
    found = chosen(binary_conv, WIDE, **types)
    assert loads_for_a_product(found) < 0.6
    assert dict(found.flow.auxiliary)["w"] >= 3


def test_depthwise_windows_slide() -> None:
    """Two of three woven columns stay: a third of the loads of a window for each pixel."""

    def counted(found: Choice) -> float:
        return dict(cost(found.plan, found.program).ports)["load"]

    types = {"x": sf.u8[1, 30, 30, 256], "w": sf.i8[3, 3, 256], "scale": sf.f32[256]}
    found = chosen(narrowed_depthwise, WIDE, **types, out=sf.u8[1, 28, 28, 256])
    assert found.plan.woven
    assert counted(found) < 28 * 28 * 4 * 9 / 2  # half of what the windows read by themselves


@pytest.mark.parametrize(
    ("x", "w", "words"),
    [
        (sf.u8[1, 16, 16, 64], sf.i8[1, 1, 64, 32], True),
        (sf.i8[1, 16, 16, 64], sf.i8[3, 3, 64, 17], True),
        (sf.u8[1, 1, 1, 512], sf.i8[1, 1, 512, 64], False),  # each weight serves one product
    ],
)
def test_weights_without_an_instruction_for_bytes_are_words(
    x: sf.OperandType, w: sf.OperandType, words: bool
) -> None:
    types = {"x": x, "w": replace(w, storage="packed")}
    types |= {"bias": sf.i32[w.shape[3]], "scale": sf.f32[w.shape[3]]}
    found = chosen(requantized, NARROW, **types)
    (packing,) = found.plan.packings
    assert packing.words == words
    (memory,) = (m for m in found.program.memories if m.role == "packed")
    assert memory.scalar.name == ("i16" if words else "i8")
    assert not any(p.words for p in chosen(requantized, WIDE, **types).plan.packings)


@given(
    groups=st.integers(1, 3),
    vectors=st.integers(1, 3),
    extent=st.integers(1, 24),
    seed=st.integers(0, 99),
)
def test_packed_words_are_the_even_bytes_then_the_odd_ones(
    groups: int, vectors: int, extent: int, seed: int
) -> None:
    """Against the definition, element by element; what is beyond the lanes or the group is 0."""
    lanes, depth = 8, groups * 4 - seed % 4
    w = np.random.default_rng(seed).integers(-128, 128, (depth, extent), np.int8)
    packing = Packing(
        operand="w",
        scalar="i8",
        lane="oc",
        lane_extent=extent,
        lanes=lanes,
        tile=lanes * vectors,
        group=4,
        group_axis="ic",
        axes=(("ic", depth),),
        coefficients=(("ic", extent), ("oc", 1)),
        start=0,
        reduced=("ic",),
        sums=False,
        words=True,
    )
    found = pack(w, packing).view(np.int16)
    at = 0
    for start, stop, size in packing.sections:
        for tile in range(start, stop, size):
            for group in range(groups):
                for vector in range(size // lanes):
                    for odd, lane, pair in np.ndindex(2, lanes, 2):
                        ic, oc = 4 * group + 2 * pair + odd, tile + vector * lanes + lane
                        inside = ic < depth and oc < extent
                        assert found[at] == (w[ic, oc] if inside else 0)
                        at += 1
    assert at == packing.elements == len(found[:at])
