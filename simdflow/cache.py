"""Turns the object-code cache of this process into something to look at: `simdflow.cache`.

It reads and removes files of the cache's folder and nothing else; what is kept there and when it
is believed is `simdflow.compiler.cache`'s business. SIMDFLOW_CACHE (off, ro, rw) and
SIMDFLOW_CACHE_DIR choose the cache.
"""

from .compiler.cache import CacheInfo, current

__all__ = ["CacheInfo", "clear", "info", "verify"]


def info() -> CacheInfo:
    """The folder, the mode, the number of compiled kernels, their bytes, and the cap."""
    return current().info()


def clear() -> int:
    """Remove every compiled kernel; returns how many there were (0 if the mode is not rw)."""
    return current().clear()


def verify() -> list[str]:
    """One line for each entry that would not be used: flipped bits, wrong owner or mode, a link."""
    return current().verify()
