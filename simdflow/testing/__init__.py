"""Property tests for kernels, public: Hypothesis strategies, and `check`, which tests any kernel.

It makes inputs (shapes, values with their extremes, memory layouts, guard pages) and legal
dataflows, and compares every stage of a kernel with its body. Needs the extra `simdflow[testing]`.
"""

from .checking import Mismatch, check, reproduce
from .flows import dataflows, legal
from .guard import guarded
from .operands import arrays, extremes, layouts, shapes
from .problem import Problem, problems

__all__ = [
    "Mismatch",
    "Problem",
    "arrays",
    "check",
    "dataflows",
    "extremes",
    "guarded",
    "layouts",
    "legal",
    "problems",
    "reproduce",
    "shapes",
]
