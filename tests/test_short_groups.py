"""Groups at the end of a kernel row are short, and may begin where a whole one of a neighbour does:
with a stride of 2 the third tap of one output is the first of the next.
"""

from __future__ import annotations

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sample_kernels import depth, depthwise

import simdflow as sf


@settings(max_examples=60)
@given(data=st.data())
def test_short_and_whole_groups_are_different_registers(data: st.DataObject) -> None:
    taps = data.draw(st.integers(2, 6), label="taps")
    stride = data.draw(st.integers(1, 4), label="stride")
    size = data.draw(st.integers(1, 5), label="size")
    channels = data.draw(st.sampled_from([3, 8, 16, 40]), label="channels")
    random = np.random.default_rng(data.draw(st.integers(0, 9), label="seed"))
    side = (size - 1) * stride + taps
    x = random.integers(0, 256, (1, side, side, channels)).astype(np.uint8)
    w = random.integers(-128, 128, (taps, taps, channels)).astype(np.int8)
    flow = sf.Dataflow(
        anchor=data.draw(st.sampled_from(["out", "w", "x"]), label="anchor"),
        tile={"ow": data.draw(st.integers(1, 4), label="tile")},
        lanes="c",
        group="kw",
        unroll={"kw": taps, "kh": data.draw(st.sampled_from([1, taps]), label="rows")},
    )
    target = data.draw(st.sampled_from(["avx512", "avx2", "portable"]), label="target")
    try:
        made = depthwise.specialize(
            x=sf.u8[x.shape], w=sf.i8[w.shape], stride=stride, dataflow=flow, target=target
        )
        found = made.run_text(x, w)
    except (sf.DataflowError, sf.TargetError):
        assume(False)
    np.testing.assert_array_equal(found, depth(x, w, stride, 1))
