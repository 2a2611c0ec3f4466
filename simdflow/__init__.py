"""simdflow: a kernel DSL for neural-network layers on CPUs.

Importing it compiles nothing and imports neither numba nor llvmlite.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

try:
    from . import dsl
except ImportError as error:  # run from the source tree without an installation
    raise ImportError(
        "simdflow is not installed: simdflow.dsl is missing. Run `pip install -e .` in the repository."
    ) from error

from .dsl import *  # noqa: F403
from .dsl import __all__ as _language

if TYPE_CHECKING:
    from . import cache, ops, testing
    from .kernel import CompiledKernel, Kernel, kernel
    from .operands import Bits, PackedOperand, pack, pack_bits
    from .targets import Target, target

__version__ = "0.1.0"

# Looked up when first used: the language costs a few milliseconds, the compiler's front more.
_LAZY = {
    "kernel": "kernel",
    "Kernel": "kernel",
    "CompiledKernel": "kernel",
    "pack": "operands",
    "pack_bits": "operands",
    "Bits": "operands",
    "PackedOperand": "operands",
    "target": "targets",
    "host_targets": "targets",
    "Target": "targets",
    "dataflows": "dataflows",
    "cache": "",
    "ops": "",
    "testing": "",
}

__all__ = [n for n in (*_language, *_LAZY) if n not in ("parse", "interpret", "unpack_bits")]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'simdflow' has no attribute {name!r}")
    from importlib import import_module

    place = _LAZY[name]
    module = import_module(f".{place or name}", __name__)
    value = getattr(module, name) if place else module
    globals()[name] = value
    return value


