"""The measured peaks: plausible against each other and the clock, quick, for known targets only.

Absolute rates depend on the machine, so every test compares figures of one measurement.
"""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace

import pytest

from simdflow import peaks
from simdflow.dsl.errors import TargetError
from simdflow.targets.base import Dot, Target
from simdflow.targets.detect import host_targets

NAMES = [target.name for target in host_targets()]


@pytest.mark.parametrize("name", NAMES)
def test_rates_fit_the_clock_and_the_vector_width(name: str) -> None:
    found = peaks.peaks(name, seconds=0.02)
    lanes = {t.name: t.width // 32 for t in host_targets()}[name]
    per_cycle = found.f32_gmac / found.clock_ghz / lanes
    assert 0.4 < per_cycle < 4.2, "f32 instructions a cycle"
    assert found.target == name
    assert 0.5 < found.clock_ghz < 8
    assert found.i8_gmac > found.f32_gmac * 0.2
    assert found.bit_gop > found.f32_gmac


def test_bandwidth_falls_from_level_to_level() -> None:
    found = peaks.peaks(seconds=0.02).bandwidth
    assert [b.level for b in found] == ["L1", "L2", "L3", "DRAM"]
    assert found[0].gb_per_s > found[2].gb_per_s > found[3].gb_per_s > 0


def test_level_is_the_smallest_that_holds_the_bytes() -> None:
    levels = tuple(
        peaks.Bandwidth(name, capacity, 1.0)
        for name, capacity in (("L1", 10), ("L2", 100), ("DRAM", 0))
    )
    found = peaks.Peaks("portable", 1.0, 1.0, 1.0, 1.0, levels)
    assert [found.level(n).level for n in (0, 10, 11, 100, 101, 10**12)] == [
        "L1",
        "L1",
        "L2",
        "L2",
        "DRAM",
        "DRAM",
    ]


def test_the_whole_measurement_takes_less_than_two_seconds() -> None:
    before = time.perf_counter()
    peaks.peaks()
    assert time.perf_counter() - before < 2


def test_the_clock_loop_takes_the_cycles_it_says() -> None:
    call, cycles = peaks.clock_loop()
    longer, more = peaks.clock_loop(12000)

    def best(run: peaks.Loop) -> int:
        took = []
        for _ in range(100):
            before = time.perf_counter_ns()
            run()
            took.append(time.perf_counter_ns() - before)
        return min(took)

    assert more == 2 * cycles
    assert best(longer) / best(call) == pytest.approx(2, rel=0.1)


def test_an_unknown_target_is_refused() -> None:
    with pytest.raises(TargetError, match="'z80' is not known"):
        peaks.peaks("z80")


@pytest.mark.skipif(not peaks.X86, reason="the dot-product instructions here are those of x86-64")
def test_each_dot_product_is_the_instruction_meant() -> None:
    import llvmlite.binding as llvm

    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    llvm.initialize_native_asmparser()

    def assembly(width: int, cpu: str, features: str, group: int) -> str:
        dots = (Dot("u8", "i8", "i32", group),)
        base = next(t for t in host_targets() if t.name == "portable")
        target = replace(base, name="probe", width=width, cpu=cpu, features=features, dots=dots)
        machine = llvm.Target.from_triple("x86_64-unknown-linux-gnu").create_target_machine(
            cpu=target.cpu, features=target.features, opt=3
        )
        module = llvm.parse_assembly(peaks._module(target))
        return machine.emit_assembly(module)

    def count(text: str, mnemonic: str) -> int:
        return sum(mnemonic in line for line in text.splitlines())

    n = peaks.ACCUMULATORS
    assert count(assembly(512, "icelake-server", "", 4), "vpdpbusd") == n
    assert count(assembly(256, "haswell", "+avxvnni", 4), "vpdpbusd") == n
    assert count(assembly(512, "skylake-avx512", "", 2), "vpmaddwd") == n
    assert count(assembly(256, "haswell", "", 2), "vpmaddwd") == n


def test_neither_numba_nor_llvmlite_is_imported_with_the_module() -> None:
    code = "import sys, simdflow.peaks; print({'numba', 'llvmlite'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_target_is_taken_as_it_is() -> None:
    best: Target = host_targets()[0]
    assert peaks.peaks(best, seconds=0.002).target == best.name
