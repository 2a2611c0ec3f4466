"""`simdflow info`: the CPU, what it can execute, what it reaches, and the cache.

It prints what targets, peaks and cache say; the peaks are measured while it runs.
"""

from __future__ import annotations

import argparse
import platform
from pathlib import Path

from .cache import print_cache
from .words import Commands

# Of the hundreds that LLVM lists: those that a target asks for, or that tell CPUs apart.
FEATURES = (
    *("sse4.2", "popcnt", "fma", "avx", "avx2", "avxvnni", "avx512f", "avx512bw", "avx512vl"),
    *("avx512vnni", "avx512bf16", "avx512vpopcntdq", "amx-int8", "neon", "dotprod", "i8mm"),
)


def add(commands: Commands) -> None:
    """Add the command's parser."""
    info = commands.add_parser("info", help="the CPU, its targets, its measured peaks, the cache")
    info.set_defaults(action=_act)


def _act(given: argparse.Namespace) -> None:
    from importlib.metadata import version

    from ..peaks import peaks
    from ..targets import host_features, host_targets

    packages = ", ".join(f"{p} {version(p)}" for p in ("numba", "llvmlite", "numpy"))
    print(f"simdflow {version('simdflow')}; Python {platform.python_version()}, {packages}")
    print(f"CPU       {cpu_name()}")
    print(f"features  {' '.join(f for f in FEATURES if f in host_features()) or '(unknown)'}")
    print("targets   (the first is the default)")
    for t in host_targets():
        products = "/".join(str(g) for g in t.groups("u8", "i8", "i32", widened=False))
        print(
            f"  {t.name:9s} {t.width:4d} bits, {t.registers} registers ({t.budget} planned at "
            f"most), u8 x i8 products summed by one instruction: {products}"
        )
    print("peaks     measured now, one core")
    for t in host_targets():
        p = peaks(t, seconds=0.03)
        print(
            f"  {t.name:9s} f32 {p.f32_gmac:.0f} GMAC/s, u8 x i8 {p.i8_gmac:.0f} GMAC/s, "
            f"xnor-popcount {p.bit_gop:.0f} GOP/s at {p.clock_ghz:.2f} GHz"
        )
        if t is host_targets()[0]:
            rates = ", ".join(f"{b.level} {b.gb_per_s:.0f}" for b in p.bandwidth)
            print(f"  {'reading':9s} {rates} GB/s")
    print_cache()


def cpu_name() -> str:
    """What the system calls the CPU."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux; the platform's word is the best there is
    return platform.processor() or platform.machine()
