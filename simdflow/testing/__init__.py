"""Property tests for kernels, public: Hypothesis strategies for operands, and memory that bites.

It makes inputs (shapes, values with their extremes, memory layouts, guard pages). It is not
imported by `import simdflow` and needs the extra `simdflow[testing]`.
"""

from .guard import guarded
from .operands import arrays, extremes, layouts, shapes

__all__ = ["arrays", "extremes", "guarded", "layouts", "shapes"]
