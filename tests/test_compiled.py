"""Machine code on every target this CPU executes, against each kernel's body.

A few problems and dataflows of every sample; thousands go through the same comparison without JIT
in test_lowering.
"""

from __future__ import annotations

import re

import numpy as np
import pytest
from samples import BY_NAME, SAMPLES, Sample

import simdflow as sf
from simdflow import testing
from simdflow.targets import host_targets

TARGETS = [t.name for t in host_targets()]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("sample", SAMPLES, ids=str)
def test_machine_code_and_body_agree(sample: Sample, target: str) -> None:
    testing.check(sample.kernel, examples=0, compiled=3, targets=[target], **sample.given)


@pytest.mark.thorough
@pytest.mark.parametrize("sample", SAMPLES, ids=str)
def test_machine_code_and_body_agree_on_many_more(sample: Sample) -> None:
    testing.check(sample.kernel, examples=0, compiled=60, seed=1, **sample.given)


def test_every_target_gives_the_same_integers_and_machine_code_of_its_own() -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (1, 9, 11, 19), np.uint8)
    w = rng.integers(-128, 128, (3, 3, 19, 35), np.int8)
    made = [
        BY_NAME["conv2d"].kernel.specialize(x=sf.u8[x.shape], w=sf.i8[w.shape], target=t)
        for t in TARGETS
    ]
    results = [kernel(x, w) for kernel in made]
    assert all(np.array_equal(r, results[0]) for r in results)
    assert len({kernel.asm() for kernel in made}) == len(TARGETS)


@pytest.mark.parametrize("target", TARGETS)
def test_no_register_is_wider_than_the_target(target: str) -> None:
    made = BY_NAME["conv2d"].kernel.specialize(
        x=sf.u8[1, 8, 8, 64], w=sf.i8[3, 3, 64, 64], target=target
    )
    wide = {"avx512": "zmm", "avx2": "ymm", "portable": "xmm"}
    wider = {"avx512": "tmm", "avx2": "zmm", "portable": "[yz]mm"}
    assert re.search(wide[target], made.asm())
    assert not re.search(wider[target], made.asm())


def test_sums_of_floats_do_not_depend_on_the_place_in_a_batch() -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((4, 6, 7, 37)).astype(np.float32)
    x[:] = x[2]
    w = rng.standard_normal((3, 3, 37, 33)).astype(np.float32)
    bias = rng.standard_normal(33).astype(np.float32)
    for target in TARGETS:
        y = BY_NAME["conv2d_f32"].kernel(x, w, bias, target=target)
        assert all(y[i].tobytes() == y[0].tobytes() for i in range(4))
