"""CPUs as the compiler sees them: registers, vector widths, issue rates and instruction tables."""

from .base import Dot, Instruction, Target
from .detect import features_string, host_features, host_targets, target

__all__ = [
    "Dot",
    "Instruction",
    "Target",
    "features_string",
    "host_features",
    "host_targets",
    "target",
]
