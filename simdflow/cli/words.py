"""Words of a command line as values: kernels of a file, operand types, constants, dataflows.

Only a file of kernels is executed; everything else is read as literals.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.util
import re
import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ..dsl.dataflow import Dataflow
from ..dsl.errors import DataflowError, KernelError, OperandError, SimdflowError
from ..dsl.types import SCALARS, OperandType

if TYPE_CHECKING:
    from ..kernel import Kernel

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]
else:
    Commands = object


def positive(text: str) -> int:
    """A whole number from 1 on."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is less than 1")
    return value


def _module(place: str) -> ModuleType:
    """The module at a path that ends in .py, or of a dotted name; running it may raise anything."""
    try:
        if not place.endswith(".py"):
            return importlib.import_module(place)
        path = Path(place)
        path.stat()
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules.setdefault(path.stem, module)
        sys.path.insert(0, str(path.resolve().parent))  # as `python FILE.py` would
        spec.loader.exec_module(module)
        return module
    except SimdflowError:
        raise
    except Exception as error:  # whatever the user's file does wrong is the user's to put right
        raise KernelError(
            f"arguments: file={place} cannot be run: {type(error).__name__}: {error}. Correct it"
        ) from error


def kernels_of(place: str) -> dict[str, Kernel]:
    """The kernels of FILE.py or of a module, by name; the file is executed.

    Raises KernelError for one that cannot be.
    """
    from ..kernel import Kernel

    found = vars(_module(place)).items()
    return {name: value for name, value in found if isinstance(value, Kernel)}


def kernel_of(place: str, name: str) -> Kernel:
    """The kernel of that name in FILE.py or a module. Raises OperandError where there is none."""
    kernels = kernels_of(place)
    if name not in kernels:
        raise OperandError(
            f"arguments: kernel={name!r} is not in {place}; {', '.join(kernels) or 'none'} "
            "are. Name one of them"
        )
    return kernels[name]


def operands(words: Sequence[str]) -> dict[str, OperandType]:
    """`--x u8[1,58,58,64] --w=i8[...]` to operand types."""
    return {name: parse_type(name, text) for name, text in pairs(words).items()}


def pairs(words: Sequence[str]) -> dict[str, str]:
    """`--x TEXT --w=TEXT` to texts by name. Raises OperandError for words without a name."""
    words = [part for word in words for part in word.split("=", 1)]
    found: dict[str, str] = {}
    for flag, text in zip(words[::2], [*words[1::2], ""], strict=False):
        if not flag.startswith("--"):
            raise OperandError(
                f"arguments: argument={flag!r} is not an operand; `--x u8[1,58,58,64]` gives one. "
                "Write --NAME TYPE"
            )
        found[flag[2:]] = text
    return found


def parse_type(name: str, text: str) -> OperandType:
    """`u8[1,58,58,64]`, `i8.range(-7,7)[64,10]` or `i8[64,10] packed` to an operand type.

    Raises OperandError for anything else.
    """
    number = r"\s*(-?[\d.]+)\s*"
    form = rf"(\w+)(?:\.range\({number},{number}\))?\[([\d\s,]+)\]( packed)?"
    match = re.fullmatch(form, text.strip())
    if match is None or match[1] not in SCALARS:
        raise OperandError(
            f"arguments: {name}={text!r} is not an operand type; {', '.join(SCALARS)} with a shape "
            "are. Write e.g. u8[1,58,58,64] or i8.range(-7,7)[64,10]"
        )
    shape = tuple(int(n) for n in match[4].split(",") if n.strip())
    scalar = SCALARS[match[1]]
    kind = scalar.range(float(match[2]), float(match[3]))[shape] if match[2] else scalar[shape]
    return replace(kind, storage="packed") if match[5] else kind


def constants(given: Sequence[str]) -> dict[str, Any]:
    """`stride=2` and the like to numbers by name."""
    found = {}
    for text in given:
        name, _, value = text.partition("=")
        try:
            found[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError) as error:
            raise OperandError(
                f"arguments: constant={text!r} has no value; a number has one. Write e.g. stride=2"
            ) from error
    return found


def parse_dataflow(text: str) -> Dataflow:
    """A dataflow from its own text, `Dataflow(anchor='out', tile={'ow': 6})`, or from the inside.

    Only literals are read, nothing is evaluated. Raises DataflowError for anything else.
    """
    inside = re.sub(r"^\s*(?:sf\.)?Dataflow\((.*)\)\s*$", r"\1", text, flags=re.DOTALL)
    try:
        call = ast.parse(f"Dataflow({inside})", mode="eval").body
        assert isinstance(call, ast.Call)
        if call.args:
            raise ValueError("every value has a name")
        return Dataflow(**{str(k.arg): ast.literal_eval(k.value) for k in call.keywords})
    except (ValueError, SyntaxError, TypeError) as error:
        if isinstance(error, DataflowError):
            raise
        names = ", ".join(f.name for f in fields(Dataflow))
        raise DataflowError(
            f"arguments: dataflow={text!r} cannot be read ({error}); allowed are {names} with "
            "plain values. Write e.g. anchor='out', tile={'ow': 6}"
        ) from error
