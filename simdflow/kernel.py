"""Kernel: what `@sf.kernel` makes of a Python function.

Calling it with arrays looks up or makes the specialization for their types, a CompiledKernel, and
calls that. It compiles nothing itself.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import update_wrapper
from typing import Any

import numpy as np

from .arguments import Operand, check_count, operand_type, plain
from .compiled import CompiledKernel
from .compiler.request import Request
from .dsl.dataflow import Dataflow
from .dsl.errors import OperandError
from .dsl.interpret import interpret
from .dsl.parse import parse
from .dsl.types import OperandType
from .operands import Bits
from .placing import empty
from .targets import Target
from .targets import target as find_target


class Kernel:
    """A loop nest with a name. Call it with arrays, or `specialize` it for operand types.

    `kernel(x, w, stride=2)`: inputs in parameter order, constants by keyword; returns the output,
    or fills `out=`. `target=` and `dataflow=` choose the CPU and the dataflow. A symbolic operand
    gets the call, as in `ops.op.Op`.
    """

    def __init__(self, function: Callable[..., None], dataflow: Dataflow | None = None) -> None:
        self.function, self.dataflow = function, dataflow
        self.nest = parse(function)
        self.name = self.nest.name
        self._inputs = tuple(o.name for o in self.nest.operands if o.role == "in")
        self._constants = dict(self.nest.constants)
        self._made: dict[Any, CompiledKernel] = {}
        self._quick: dict[Any, CompiledKernel] = {}
        self._lock = threading.Lock()
        update_wrapper(self, function)

    def specialize(
        self,
        *,
        dataflow: Dataflow | None = None,
        target: str | Target | None = None,
        **given: OperandType | float,
    ) -> CompiledKernel:
        """The kernel for operand types: `conv2d.specialize(x=sf.u8[1, 58, 58, 64], w=sf.i8[3, 3,
        64, 64], stride=2)`.

        The output's type may be given by its name, else it is inferred. Compiles on the first call
        of the result. Raises KernelError, OperandError or DataflowError for what does not fit.
        """
        types = {k: v for k, v in given.items() if isinstance(v, OperandType)}
        constants = {k: v for k, v in given.items() if not isinstance(v, OperandType)}
        unknown = [
            k
            for k in given
            if k not in self._constants and k not in {o.name for o in self.nest.operands}
        ]
        if unknown:
            raise OperandError(
                f"{self.name}: {unknown[0]} is neither an operand nor a constant; they are "
                f"{', '.join([*(o.name for o in self.nest.operands), *self._constants])}. Use one "
                f"of them."
            )
        return self._specialized(types, constants, dataflow, target)

    def _specialized(
        self,
        types: Mapping[str, OperandType],
        constants: Mapping[str, Any],
        dataflow: Dataflow | None,
        choice: str | Target | None,
    ) -> CompiledKernel:
        request = Request(
            self.nest,
            tuple(sorted(types.items())),
            tuple(sorted((self._constants | dict(constants)).items())),
            dataflow or self.dataflow,
            find_target(choice),
        )
        with self._lock:
            found = self._made.get(request)
            if found is None:
                found = self._made[request] = CompiledKernel(request)
        return found

    def __call__(
        self,
        *operands: Operand,
        out: Operand = None,
        dataflow: Dataflow | None = None,
        target: str | Target | None = None,
        **constants: Any,
    ) -> Any:
        if constants and self.nest.out.name in constants:
            out = constants.pop(self.nest.out.name)
        if len(operands) == len(self._inputs) + 1 and out is None:
            place = [o.role for o in self.nest.operands].index("out")
            out = operands[place]
            operands = (*operands[:place], *operands[place + 1 :])
        try:
            key = (
                *((a.dtype, a.shape) if type(a) is np.ndarray else a.type for a in operands),
                tuple(constants.items()),
                dataflow,
                target,
            )
            made = self._quick.get(key)
        except (AttributeError, TypeError):
            key, made = None, None
        if made is None:
            for a in operands:
                if hasattr(a, "__simdflow_op__"):
                    return a.__simdflow_op__(self, operands, constants)
            made = self._for(operands, constants, dataflow, target)
            if key is not None:
                self._quick[key] = made
        return made(*operands, out=out)

    def _for(
        self,
        operands: tuple[Operand, ...],
        constants: Mapping[str, Any],
        flow: Dataflow | None,
        choice: Any,
    ) -> CompiledKernel:
        check_count(self.name, self._inputs, operands)
        types = {n: operand_type(a) for n, a in zip(self._inputs, operands, strict=True)}
        unknown = [k for k in constants if k not in self._constants]
        if unknown:
            raise OperandError(
                f"{self.name}: {unknown[0]}={constants[unknown[0]]!r} is not a constant of the "
                f"kernel; they are {', '.join(self._constants) or 'none'}. Remove it."
            )
        return self._specialized(types, constants, flow, choice)

    def refresh(self) -> None:
        """Forget the specializations of this process: the next call looks for tuning's choices."""
        with self._lock:
            self._made.clear()
            self._quick.clear()

    def shape(self, *operands: Operand | OperandType, **constants: Any) -> OperandType:
        """The operand type of the result, for operands or operand types; nothing is compiled.

        Raises OperandError and KernelError where `specialize` would.
        """
        from .compiler.bind import bind

        check_count(self.name, self._inputs, operands)
        types = {
            n: a if isinstance(a, OperandType) else operand_type(a)
            for n, a in zip(self._inputs, operands, strict=True)
        }
        return bind(self.nest, types, constants).type_of(self.nest.out.name)

    def interpret(self, *operands: Operand, out: Operand = None, **constants: Any) -> Any:
        """Run the body as Python, value by value, exactly; the oracle of every compiled form."""
        types = {n: operand_type(a) for n, a in zip(self._inputs, operands, strict=True)}
        from .compiler.bind import bind

        nest = bind(self.nest, types, constants)
        arrays = {n: plain(a) for n, a in zip(self._inputs, operands, strict=True)}
        result = empty(nest.type_of(nest.out.name)) if out is None else out
        arrays[nest.out.name] = result.words if isinstance(result, Bits) else result
        bits = {
            k: t
            for k, t in ((o.name, nest.type_of(o.name)) for o in nest.operands)
            if t.scalar.kind == "b"
        }
        interpret(self.function, arrays, dict(nest.constants), bits)
        return result

    def __reduce__(self) -> str:
        return str(self.function.__qualname__)  # pickled by its name, as a function is

    def __repr__(self) -> str:
        return f"<kernel {self.name}>"


def kernel(function: Callable[..., None] | None = None, *, dataflow: Dataflow | None = None) -> Any:
    """Make a Kernel of a Python loop nest; with or without `(dataflow=...)`.

    Raises KernelError with file and line.
    """
    if function is None:
        return lambda f: Kernel(f, dataflow)
    return Kernel(function, dataflow)
