"""Turns the object-code cache of this process into something to look at: `simdflow.cache`.

It reads and removes files of the cache's folder and the tuning records and nothing else; what is
kept there and when it is believed is the business of `simdflow.compiler.cache` and `.records`.
SIMDFLOW_CACHE (off, ro, rw) and SIMDFLOW_CACHE_DIR choose the cache, SIMDFLOW_TUNING (a file, or
off) the records.
"""

from dataclasses import dataclass
from pathlib import Path

from .compiler import journal, records
from .compiler.cache import CacheInfo, current

__all__ = ["CacheInfo", "TuningInfo", "clear", "forget", "info", "tuning", "verify"]


@dataclass(frozen=True)
class TuningInfo:
    """The file of tuning records (None: off), its measurements, the kernels of which this machine
    uses a recorded dataflow, and what is wrong with each line that cannot be used.
    """

    path: Path | None
    measurements: int
    kernels: tuple[str, ...]
    damaged: tuple[str, ...]

    def __str__(self) -> str:
        damaged = f", {len(self.damaged)} lines that cannot be used" if self.damaged else ""
        shown = (
            f"{self.path or 'off'}: {self.measurements} measurements, {len(self.kernels)} kernels "
            f"of this machine tuned{damaged}"
        )
        return "\n  ".join((shown, *self.kernels))


def info() -> CacheInfo:
    """The folder, the mode, the number of compiled kernels, their bytes, and the cap."""
    return current().info()


def clear() -> int:
    """Remove every compiled kernel; returns how many there were (0 if the mode is not rw)."""
    return current().clear()


def verify() -> list[str]:
    """One line for each entry that would not be used: flipped bits, wrong owner or mode, a link."""
    return current().verify()


def tuning() -> TuningInfo:
    """Read all tuning records."""
    found = list(records.every())
    good = [r for r in found if isinstance(r, records.Record)]
    here = records.here() if good else ""
    chosen = {r.key: r for r in good if r.choice and r.place == here}
    kernels = tuple(
        f"{r.kernel}({', '.join(f'{k}={v}' for k, v in r.about.get('types', {}).items())}): {r}"
        for r in chosen.values()
    )
    return TuningInfo(
        records.path(), len(good), kernels, tuple(r for r in found if isinstance(r, str))
    )


def forget() -> int:
    """Remove every tuning record; returns how many lines there were. Raises OSError."""
    file = records.path()
    return journal.clear(file) if file is not None else 0
