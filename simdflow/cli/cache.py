"""`simdflow cache`: what is kept on disk, removed or looked over.

It prints what `simdflow.cache` says.
"""

from __future__ import annotations

import argparse

from .. import cache
from ..dsl.errors import OperandError
from .words import Commands


def add(commands: Commands) -> None:
    """Add the command's parser."""
    stored = commands.add_parser("cache", help="the cache of compiled kernels")
    stored.add_argument("what", choices=["info", "clear", "verify", "forget"])
    stored.set_defaults(action=_act)


def print_cache() -> None:
    """Where the cache and the tuning records are, and how full."""
    c = cache.info()
    print(
        f"cache     {c.dir} ({c.mode}): {c.entries} kernels, {c.bytes / 2**20:.1f} of "
        f"{c.cap / 2**20:.0f} MB"
    )
    print(f"tuning    {cache.tuning()}")


def _act(given: argparse.Namespace) -> None:
    if given.what == "info":
        print_cache()
    elif given.what == "clear":
        print(f"{cache.clear()} kernels removed")
    elif given.what == "forget":
        print(f"{cache.forget()} tuning records removed")
    else:
        wrong = cache.verify()
        print("\n".join(wrong) or f"{cache.info().entries} kernels, all as they were stored")
        if wrong:
            raise OperandError(
                f"cache: entries={len(wrong)} would not be used; kernels are compiled again "
                "instead. Run `simdflow cache clear`"
            )
