"""The measured peaks: what the loops do, and the rates made of their times, for known targets only.

No test looks at a real clock: the machine may be shared.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from simdflow import peaks
from simdflow.dsl.errors import TargetError
from simdflow.targets.base import Dot, Target
from simdflow.targets.detect import host_targets

NAMES = [target.name for target in host_targets()]
FAKE_NS = {"f32": 3_000_000, "i8": 2_000_000, "bit": 1_500_000, "clock": 1_200_000}


@pytest.mark.parametrize("name", NAMES)
def test_rates_are_what_a_loop_does_over_its_time(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loops are compiled and run once; the clock is a made-up one."""

    def timed(runs: Sequence[Callable[[], None]], seconds: float) -> list[int]:
        for run in runs:
            run()
        return list(FAKE_NS.values()) if len(runs) > 1 else [1000]

    monkeypatch.setattr(peaks, "_best_ns", timed)
    monkeypatch.setattr(peaks, "STREAMED", 1 << 14)
    found = peaks.peaks(name)
    chosen = next(t for t in host_targets() if t.name == name)
    issued = peaks.PASSES * peaks.ACCUMULATORS
    products = (
        chosen.groups("u8", "i8", "i32", widened=False)[0] * chosen.width // 32 if peaks.X86 else 4
    )
    assert found.target == name
    assert found.f32_gmac == issued * (chosen.width // 32) / FAKE_NS["f32"]
    assert found.i8_gmac == issued * products / FAKE_NS["i8"]
    assert found.bit_gop == issued * chosen.width * 2 / FAKE_NS["bit"]
    assert found.clock_ghz == peaks.PASSES * peaks.CHAIN / FAKE_NS["clock"]
    assert [b.level for b in found.bandwidth] == ["L1", "L2", "L3", "DRAM"]
    assert all(b.gb_per_s >= 16 for b in found.bandwidth), "16 KB and more in the microsecond"


def test_rates_are_measured() -> None:
    found = peaks.peaks(seconds=0.002)
    rates = (found.f32_gmac, found.i8_gmac, found.bit_gop, found.clock_ghz)
    assert min(*rates, *(b.gb_per_s for b in found.bandwidth)) > 0


def test_the_best_time_is_the_shortest_of_each() -> None:
    done: list[str] = []
    found = peaks._best_ns([lambda: done.append("a"), lambda: done.append("b")], 0.0)
    assert len(found) == 2
    assert done == ["a", "b"]


def test_capacities_grow_from_level_to_level_and_half_of_each_is_read() -> None:
    *caches, memory = peaks._levels()
    sizes = [capacity for _, capacity, _ in caches]
    assert sizes == sorted(set(sizes))
    assert [read for _, _, read in caches] == [size // 2 for size in sizes]
    assert memory[1] == 0
    assert memory[2] > sizes[-1]


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


def test_the_clock_loop_does_the_additions_it_says() -> None:
    """Each of its dependent additions adds the first word of the data to a sum that starts at 1."""
    data = np.zeros(8, np.int64)
    data[0] = 3
    peaks._compile(host_targets()[0])["peak_clock"](50, data.ctypes.data)
    assert data[0] == 1 + 3 * 50 * peaks.CHAIN
    call, cycles = peaks.clock_loop(12000)
    call()
    assert cycles == 12000 * peaks.CHAIN


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
