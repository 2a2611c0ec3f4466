"""simdflow: a kernel DSL for neural-network layers on CPUs.

Importing it compiles nothing and imports neither numba nor llvmlite.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

try:
    from .dsl import (
        CacheWarning,
        Dataflow,
        DataflowError,
        KernelError,
        LoopNest,
        ModelError,
        OperandError,
        OperandType,
        Scalar,
        SimdflowError,
        SimdflowWarning,
        TargetError,
        TuningWarning,
        abs,
        bit,
        ceil,
        clip,
        erf,
        exp,
        f32,
        f64,
        floor,
        grid,
        i8,
        i16,
        i32,
        i64,
        log,
        max,
        min,
        nonzeros,
        reduce,
        round,
        rsqrt,
        select,
        sigmoid,
        sqrt,
        tanh,
        u8,
        u16,
        u32,
        xnor_popcount,
    )
except ModuleNotFoundError as error:
    if error.name != "simdflow.dsl":
        raise
    # Run from the source tree without an installation.
    raise ImportError(
        "simdflow is not installed: simdflow.dsl is missing. Run `pip install -e .` in the "
        "repository."
    ) from error

from .dsl.version import VERSION

if TYPE_CHECKING:
    from . import cache, ops, testing
    from .compiled import CompiledKernel
    from .frontends.load import from_file, load
    from .frontends.onnx import from_onnx
    from .frontends.tflite_graph import from_tflite
    from .graph.compare import compare
    from .graph.compile import compile
    from .graph.graph import Graph
    from .graph.model import Model
    from .graph.quantize import quantize
    from .graph.trace import trace
    from .kernel import Kernel, kernel
    from .operands import Bits, PackedOperand, pack, pack_bits
    from .placing import empty
    from .targets import Target, host_targets, target
    from .tuning.explore import explore
    from .tuning.space import dataflows
    from .tuning.tune import tune

__version__ = VERSION

# Looked up when first used: the language costs a few milliseconds, the compiler's front more.
_LAZY = {
    "kernel": "kernel",
    "Kernel": "kernel",
    "CompiledKernel": "compiled",
    "pack": "operands",
    "pack_bits": "operands",
    "Bits": "operands",
    "PackedOperand": "operands",
    "target": "targets",
    "host_targets": "targets",
    "Target": "targets",
    "empty": "placing",
    "dataflows": "tuning.space",
    "explore": "tuning.explore",
    "trace": "graph.trace",
    "tune": "tuning.tune",
    "quantize": "graph.quantize",
    "compare": "graph.compare",
    "compile": "graph.compile",
    "Graph": "graph.graph",
    "Model": "graph.model",
    "load": "frontends.load",
    "from_file": "frontends.load",
    "from_onnx": "frontends.onnx",
    "from_tflite": "frontends.tflite_graph",
    "cache": "",
    "ops": "",
    "testing": "",
}

__all__ = [
    "Bits",
    "CacheWarning",
    "CompiledKernel",
    "Dataflow",
    "DataflowError",
    "Graph",
    "Kernel",
    "KernelError",
    "LoopNest",
    "Model",
    "ModelError",
    "OperandError",
    "OperandType",
    "PackedOperand",
    "Scalar",
    "SimdflowError",
    "SimdflowWarning",
    "Target",
    "TargetError",
    "TuningWarning",
    "abs",
    "bit",
    "cache",
    "ceil",
    "clip",
    "compare",
    "compile",
    "dataflows",
    "empty",
    "erf",
    "exp",
    "explore",
    "f32",
    "f64",
    "floor",
    "from_file",
    "from_onnx",
    "from_tflite",
    "grid",
    "host_targets",
    "i8",
    "i16",
    "i32",
    "i64",
    "kernel",
    "load",
    "log",
    "max",
    "min",
    "nonzeros",
    "ops",
    "pack",
    "pack_bits",
    "quantize",
    "reduce",
    "round",
    "rsqrt",
    "select",
    "sigmoid",
    "sqrt",
    "tanh",
    "target",
    "testing",
    "trace",
    "tune",
    "u8",
    "u16",
    "u32",
    "xnor_popcount",
]


class _Package(ModuleType):
    """Keeps `sf.kernel` the decorator: importing the submodule of that name would put it there."""

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, ModuleType) and _LAZY.get(name) == name:
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'simdflow' has no attribute {name!r}")
    from importlib import import_module

    place = _LAZY[name]
    module = import_module(f".{place or name}", __name__)
    value = getattr(module, name) if place else module
    globals()[name] = value
    return value
