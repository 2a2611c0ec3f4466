"""Kernels written as text: modules made from it, and the golden files of texts that are refused."""

from __future__ import annotations

import importlib.util
import itertools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from simdflow import dsl as sf
from simdflow.dsl.types import OperandType

GOLDEN = Path(__file__).parent / "golden"
# The text of every kernel starts on line 6.
HEAD = "import numpy as np\n\nfrom simdflow import dsl as sf\n\n\n"
_numbers = itertools.count()


@dataclass(frozen=True)
class Refusal:
    """One case of a golden file: the kernel's text, what it is given, and the error."""

    name: str
    text: str
    given: dict[str, Any]
    error: str

    @property
    def types(self) -> dict[str, OperandType]:
        return {k: v for k, v in self.given.items() if isinstance(v, OperandType)}

    @property
    def constants(self) -> dict[str, Any]:
        return {k: v for k, v in self.given.items() if not isinstance(v, OperandType)}


def refusals(file: str) -> list[Refusal]:
    """The cases of a golden file: `## name`, `given: x=..., stride=2`, the text, `>> Type:
    message`.
    """
    cases = []
    for block in (GOLDEN / file).read_text().split("## ")[1:]:
        name, _, rest = block.partition("\n")
        text, _, error = rest.partition("\n>> ")
        given: dict[str, Any] = {}
        if text.startswith("given: "):
            values, _, text = text.removeprefix("given: ").partition("\n")
            given = eval(f"dict({values})", {"sf": sf, "csr": csr})
        cases.append(Refusal(name, text, given, error.rstrip("\n")))
    return cases


def csr(kind: OperandType, nonzeros: int = 5) -> OperandType:
    """The compressed form of a dense type."""
    return replace(kind, storage="csr", nonzeros=nonzeros)


def kernel_of(text: str, folder: Path) -> Any:
    """The object `k` of a module with this text, written to a file as kernels must be."""
    path = folder / f"k{next(_numbers)}.py"
    path.write_text(f"{HEAD}{text}\n")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.k


def shown(error: Exception, function: Any) -> str:
    """`Type: message` with the kernel's file called k.py."""
    code = getattr(function, "__code__", None)
    text = str(error).replace(code.co_filename, "k.py") if code else str(error)
    return f"{type(error).__name__}: {text}"
