"""Thousands of dataflows through bind, check, plan, lower and emit, with numpy meanings and no JIT.

The oracle is each kernel's body run as Python, itself held against a numpy reference.
"""

from __future__ import annotations

import pytest
from samples import SAMPLES, Sample

from simdflow import testing
from simdflow.compiler import jit


@pytest.fixture(autouse=True)
def without_jit(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise AssertionError("a test of the lowering compiled something")

    monkeypatch.setattr(jit, "compile_program", refused)


@pytest.mark.parametrize("sample", SAMPLES, ids=str)
def test_text_and_body_and_reference_agree(sample: Sample) -> None:
    testing.check(
        sample.kernel, reference=sample.reference, examples=20, compiled=0, **sample.given
    )


@pytest.mark.thorough
@pytest.mark.parametrize("sample", SAMPLES, ids=str)
def test_text_and_body_agree_on_many_more(sample: Sample) -> None:
    for seed in range(10):
        testing.check(sample.kernel, examples=100, compiled=0, seed=seed, **sample.given)
