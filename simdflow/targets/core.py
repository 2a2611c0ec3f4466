"""Core: what one core of a CPU family issues and moves in a cycle, and the caches that it has.

Turns LLVM's name of a CPU, and what the system tells of its caches, into the numbers of the cost
model. It times nothing: simdflow.peaks does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Rates:
    """Instructions issued per cycle, for registers of one width.

    dot        products and multiplications
    load       whole registers from L1
    broadcast  one element, or one group, to all lanes
    store      whole registers
    shuffle    permutes, packs and conversions
    other      all arithmetic together
    """

    dot: float = 2.0
    load: float = 2.0
    broadcast: float = 2.0
    store: float = 1.0
    shuffle: float = 2.0
    other: float = 4.0


@dataclass(frozen=True)
class Caches:
    """Bytes of each level that one core sees, and the ways of a set of the first."""

    l1: int = 32 << 10
    l2: int = 1 << 20
    l3: int = 16 << 20
    ways: int = 8


@dataclass(frozen=True)
class Core:
    """A CPU family: rates up to a width in bits, and bytes a cycle from L2, L3 and memory."""

    rates: tuple[tuple[int, Rates], ...] = ((1 << 30, Rates()),)
    l2_bytes: float = 32.0
    l3_bytes: float = 16.0
    memory_bytes: float = 6.0
    caches: Caches = field(default_factory=Caches)

    def at(self, width: int) -> Rates:
        """The rates for registers of `width` bits."""
        return next(rates for most, rates in self.rates if width <= most)


def family(cpu: str) -> Core:
    """The core that LLVM calls `cpu`, with caches of the usual size.

    Zen 4 and Zen 5 were measured (register loops for the rates, simdflow.peaks for the bytes). Zen
    4 has paths of 256 bits: wider registers take two passes. Intel's are from its optimization
    manual: with 512 bits, two of the three vector ports remain, one of which shuffles.
    """
    return _FAMILIES.get(cpu, Core())


_ZEN_5 = Core(l2_bytes=50.0, l3_bytes=24.0, memory_bytes=8.0)
_ZEN_4 = Core(
    rates=(
        (256, Rates()),
        (512, Rates(dot=1.0, load=1.0, broadcast=2.0, store=0.5, shuffle=1.0, other=2.0)),
    ),
    l2_bytes=30.0,
    l3_bytes=22.0,
    memory_bytes=8.0,
)
_INTEL = Core(
    rates=(
        (256, Rates(store=2.0, shuffle=1.5, other=3.0)),
        (512, Rates(store=1.0, shuffle=1.0, other=2.0)),
    ),
    l2_bytes=48.0,
    l3_bytes=10.0,
)
_FAMILIES = {
    "znver4": _ZEN_4,
    "znver5": _ZEN_5,
    **dict.fromkeys(
        ("skylake-avx512", "cascadelake", "cooperlake", "icelake-server", "sapphirerapids"), _INTEL
    ),
    **dict.fromkeys(("emeraldrapids", "graniterapids"), _INTEL),
}


@cache
def caches() -> Caches:
    """What the system says of core 0; the usual size where it says nothing, as in a container."""
    found: dict[str, int] = {}
    for index in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        try:
            kind, level, size, ways = (
                (index / entry).read_text().strip()
                for entry in ("type", "level", "size", "ways_of_associativity")
            )
            if kind != "Instruction":
                found[f"l{level}"] = int(size.rstrip("KM")) << {"K": 10, "M": 20}.get(size[-1], 0)
                if level == "1" and int(ways):
                    found["ways"] = int(ways)
        except (OSError, ValueError):
            continue
    usual = Caches()
    return Caches(*(found.get(name) or getattr(usual, name) for name in ("l1", "l2", "l3", "ways")))
