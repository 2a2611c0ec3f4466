"""Run by test_guarded in a process of its own: samples' machine code with guard pages all around.

Arguments: a target, then names of samples; each name is printed when it has survived. With
`--short`, one array ends earlier than the kernel was told, to show that the guard works.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from samples import BY_NAME, Sample

from simdflow import testing
from simdflow.compiler.compile import Request, Stages, compile_request
from simdflow.compiler.native import link
from simdflow.targets import Target, target
from simdflow.testing.checking import Case
from simdflow.testing.native import run_native


def survive(sample: Sample, on: Target, short: bool) -> None:
    """Call a few drawn specializations with every array guarded, at its end and at its start."""

    @settings(
        max_examples=4,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def attempt(data: st.DataObject) -> None:
        ...
