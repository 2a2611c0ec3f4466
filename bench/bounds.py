"""What a layer could take at best on this core, and the share of it that the bars ask for.

The bounds come from measured peaks and, for the epilogue, from the issue slots that its
instructions take; nothing is measured here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from simdflow.peaks import Peaks

from .cases import Case

# Slots of a multiply-accumulate instruction (two a cycle) that the epilogue takes for each output
# vector of 32-bit lanes, measured on Zen 5: a multiplication 0.35 cycles, three quarters of a pack
# 0.17, half a saturating addition 0.2 where there is a zero point to add. Conversions issue beside
# the dot products, and stores beside both.
MULTIPLY_SLOTS, PACK_SLOTS, ZERO_SLOTS = 0.70, 0.35, 0.40
RELU_SLOTS = 1.0  # f32: one maximum; the bias is the accumulator's first value and costs nothing
GROUP = {"f32": 1, "int8": 4}  # products summed by one lane of one instruction

BOUND_STATEMENT = (
    "bound: an output vector takes its multiply-accumulate instructions at the measured peak, plus "
    "for its epilogue the slots of 1.05 (int8, zero point 0), 1.45 (int8) or 1 (f32 relu) of them"
)


@dataclass(frozen=True)
class Bound:
    """The shortest time that a case can take, and the share of it that is asked for.

    limit       what limits it
    peak_us     its products at the measured peak, or its weights at the measured bandwidth
    bound_us    the same with the epilogue counted
    bar         the share asked for; None where there is no bar
    bar_on      of which it is a share: "peak" or "bound"
    """

    limit: str
    peak_us: float
    bound_us: float
    bar: float | None = None
    bar_on: str = "peak"


def at_clock(peaks: Peaks, clock_ghz: float, threads: int) -> Peaks:
    """`peaks` of `threads` cores at another clock: a virtual machine's clock moves during a run.

    The third-level cache and memory have a clock of their own and are shared.
    """
    ratio = threads * clock_ghz / peaks.clock_ghz
    return replace(
        peaks,
        f32_gmac=peaks.f32_gmac * ratio,
        i8_gmac=peaks.i8_gmac * ratio,
        bit_gop=peaks.bit_gop * ratio,
        clock_ghz=clock_ghz,
        bandwidth=tuple(
            replace(b, gb_per_s=b.gb_per_s * ratio) if b.level in ("L1", "L2") else b
            for b in peaks.bandwidth
        ),
    )


def bound(case: Case, peaks: Peaks) -> Bound:
    """The limit of `case` and the issue's bar for it."""
    if case.op == "dense":
        level = peaks.level(case.weight_bytes)
        us = case.weight_bytes / level.gb_per_s / 1e3
        return Bound(f"{level.level} bandwidth", us, us, 0.85)
    if case.dtype == "bit":
        us = 2 * case.macs / peaks.bit_gop / 1e3
        return Bound("xnor-popcount peak", us, us, 0.85 if case.oc >= 128 else None)
    gmac, group = (peaks.f32_gmac, 1) if case.dtype == "f32" else (peaks.i8_gmac, GROUP["int8"])
    if case.dtype == "f32":
        slots = RELU_SLOTS if case.relu else 0.0
    else:
        slots = MULTIPLY_SLOTS + PACK_SLOTS + (0.0 if case.relu else ZERO_SLOTS)
    padded = -(-case.reduction // group) * group
    peak_us = case.macs / gmac / 1e3
    bound_us = case.outputs * (padded + slots * group) / gmac / 1e3
    limit = f"{case.dtype} peak"
    if case.op == "depthwise_conv2d":
        return Bound(limit, peak_us, bound_us)
    if case.macs > 10e6 and case.oc >= 64:
        if case.reduction >= 256:
            return Bound(limit, peak_us, bound_us, 0.90)
        return Bound(limit, peak_us, bound_us, 0.90, "bound")
    return Bound(limit, peak_us, bound_us, 0.70)
