"""Ranges: which part of a tensor's values its 256 levels cover, by one of three rules.

Turns the spread of the values on samples into a range, and a range into a scale and a zero point.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .calibrate import Spread

LEVELS = 255
FRACTIONS = np.linspace(1.0, 0.3, 71)
Range = tuple[float, float]


def scale_of(low: float, high: float) -> tuple[float, int]:
    """(scale, zero point) of u8 for a range, widened to hold 0, which is then exact. 1 for a range
    that holds nothing else: whatever comes one day is at least rounded.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    if high == low:
        return 1.0, 0
    scale = max((high - low) / LEVELS, 1e-12)
    return scale, int(np.clip(round(-low / scale), 0, LEVELS))


def _minmax(s: Spread, _: float) -> Range:
    return s.low, s.high


def _percentile(s: Spread, percentile: float) -> Range:
    """The range without the rarest values at each end."""
    total = s.counts.sum()
    if not total:
        return s.low, s.high
    share = np.cumsum(s.counts) / total
    rest = 1 - percentile / 100
    step = (s.high - s.low) / len(s.counts)
    first, last = np.searchsorted(share, rest, "right"), np.searchsorted(share, 1 - rest)
    return s.low + step * float(first), s.low + step * float(min(int(last) + 1, len(s.counts)))


def _least_squares(s: Spread, _: float) -> Range:
    """The range, a fraction of the whole, for which the values of the bins are nearest to their
    quantized ones.
    """
    best, found = np.inf, (s.low, s.high)
    for fraction in FRACTIONS:
        low, high = s.low * fraction, s.high * fraction
        scale, zero = scale_of(low, high)
        q = np.clip(np.round(s.centres / scale) + zero, 0, LEVELS)
        error = float((((q - zero) * scale - s.centres) ** 2 * s.counts).sum())
        if error < best:  # of equals the widest, which is the first
            best, found = error, (low, high)
    return found


RULES: dict[str, Callable[[Spread, float], Range]] = {
    "minmax": _minmax,
    "percentile": _percentile,
    "mse": _least_squares,
}
