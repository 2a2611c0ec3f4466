"""The few kinds of error a user can meet, and the one warning.

Every message has the form `kernel: field=value what is wrong; what is allowed. What to do`, with
numbers. An `assert` that fails inside simdflow is a bug of simdflow, never the user's fault.
"""


class SimdflowError(Exception):
    """Base of every error simdflow raises on purpose."""


class KernelError(SimdflowError):
    """The Python function is not a loop nest simdflow accepts.

    It carries file, line and the source line.
    """

    def __init__(self, message: str, file: str = "", line: int = 0, text: str = "") -> None:
        self.file, self.line, self.text = file, line, text
        where = f"{file}:{line}: " if file else ""
        super().__init__(f"{where}{message}" + (f"\n    {text.strip()}" if text else ""))


class DataflowError(SimdflowError, ValueError):
    """The nest is fine but the dataflow does not fit it, or does not fit the CPU's registers."""


class OperandError(SimdflowError, ValueError):
    """An operand has a wrong rank, size, type, order or content."""


class TargetError(SimdflowError, ValueError):
    """The target is unknown, or this CPU cannot execute it."""


class ModelError(SimdflowError, ValueError):
    """A model file is malformed or uses something that is not supported."""


class SimdflowWarning(UserWarning):
    """Something works in a lesser way than asked for (said once)."""


class CacheWarning(SimdflowWarning):
    """The object-code cache cannot be used; kernels are compiled in memory."""


class TuningWarning(SimdflowWarning):
    """A tuning record cannot be written, or cannot be used; speed suffers, results do not."""
