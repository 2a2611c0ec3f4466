"""A small exploration for tests: real predictions, times that follow from the dataflow alone.

Nothing is compiled or timed, so what is checked is the same on every machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any
from zlib import crc32

import pytest
from tuned_kernels import dense

import simdflow as sf
from simdflow.dsl.dataflow import Dataflow
from simdflow.peaks import Peaks, peaks
from simdflow.targets import Target
from simdflow.tuning import explore as module
from simdflow.tuning.explore import Exploration
from simdflow.tuning.measure import Measurement
from simdflow.tuning.space import Space

PREDICTED = 36


def small(target: str = "portable") -> Space:
    """The space of a small dense layer."""
    return sf.dataflows(dense, target=target, x=sf.u8[5, 24], w=sf.i8[24, 32])


def time_of(flow: Dataflow) -> float:
    """Microseconds that follow from the text of a dataflow."""
    return 1.0 + crc32(str(flow).encode()) % 1000 / 100


class Measure:
    """Takes the place of `measure`: keeps what it was asked for; `fails` are those without a
    time, `ends` is after how many there is a Ctrl-C.
    """

    def __init__(self, fails: int = 0, ends: int = 10**6, ticks: Any = None) -> None:
        self.asked: list[Dataflow] = []
        self.fails, self.ends, self.ticks = fails, ends, ticks

    def __call__(
        self, space: Space, flows: Sequence[Dataflow], **options: Any
    ) -> Iterator[Measurement]:
        for flow in flows:
            if len(self.asked) == self.ends:
                raise KeyboardInterrupt
            self.asked.append(flow)
            if self.ticks is not None:
                self.ticks()
            if len(self.asked) <= self.fails:
                yield Measurement(flow, None, None, 0, "the worker was killed by SIGSEGV")
            else:
                yield Measurement(flow, time_of(flow), 0.01, 100, "", time_of(space.default))


@cache
def limits(target: Target, seconds: float = 0.0) -> Peaks:
    """Peaks, measured once for all tests."""
    return peaks(target, 0.005)


def explored(
    patch: pytest.MonkeyPatch, measure: Measure, budget: float = 60.0, space: Space | None = None
) -> Exploration:
    """The exploration of `small`, measured by `measure`."""
    patch.setattr(module, "measure", measure)
    patch.setattr(module, "PREDICTED", PREDICTED)
    patch.setattr(module, "peaks", limits)
    return module.explore(space or small(), budget=budget)
