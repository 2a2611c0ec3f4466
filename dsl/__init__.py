"""The language: types, loops, and the nest that a kernel's text becomes.

Pure Python and numpy; compiles nothing.
"""

from .bits import pack_bits, unpack_bits
from .dataflow import Dataflow
from .errors import (
    CacheWarning,
    DataflowError,
    KernelError,
    ModelError,
    OperandError,
    SimdflowError,
    SimdflowWarning,
    TargetError,
    TuningWarning,
)
from .interpret import interpret
from .loops import (
    abs,
    ceil,
    clip,
    erf,
    exp,
    floor,
    grid,
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
    xnor_popcount,
)
from .nest import LoopNest
from .parse import parse
from .types import OperandType, Scalar, bit, f32, f64, i8, i16, i32, i64, u8, u16, u32

__all__ = [
    "CacheWarning",
    "Dataflow",
    "DataflowError",
    "KernelError",
    "LoopNest",
    "ModelError",
    "OperandError",
    "OperandType",
    "Scalar",
    "SimdflowError",
    "SimdflowWarning",
    "TargetError",
    "TuningWarning",
    "abs",
    "bit",
    "ceil",
    "clip",
    "erf",
    "exp",
    "f32",
    "f64",
    "floor",
    "grid",
    "i8",
    "i16",
    "i32",
    "i64",
    "interpret",
    "log",
    "max",
    "min",
    "nonzeros",
    "pack_bits",
    "parse",
    "reduce",
    "round",
    "rsqrt",
    "select",
    "sigmoid",
    "sqrt",
    "tanh",
    "u8",
    "u16",
    "u32",
    "unpack_bits",
    "xnor_popcount",
]
