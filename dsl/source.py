"""A Python function to its syntax tree and signature, or an error when it cannot be a kernel.

Knows where each line is, so that errors point at it; looks names up where Python would. Does not
look at the body.
"""

from __future__ import annotations

import ast
import inspect
import types
from dataclasses import dataclass
from typing import Any

from .errors import KernelError
from .loops import BINARY, LOOPS, UNARY
from .types import SCALARS, Scalar

RESERVED = frozenset(
    {"begin", "end", "load", "store", "zero", "dot", "broadcast", "range", "sf", "simdflow", "clip"}
    | {"select", *SCALARS, *LOOPS.values(), *BINARY.values(), *UNARY.values()}
)
MISSING = object()


@dataclass(frozen=True)
class Source:
    """A kernel's text: its name, file, first line's number, lines, and the parsed function."""

    name: str
    file: str
    first: int
    lines: tuple[str, ...]
    tree: ast.FunctionDef
    function: types.FunctionType

    def error(self, node: ast.AST | None, message: str) -> KernelError:
        """The error for a part of the function; for the `def` line when there is no part."""
        row = getattr(node or self.tree, "lineno", 1)
        text = self.lines[row - 1] if 0 < row <= len(self.lines) else ""
        return KernelError(f"{self.name}: {message}", self.file, self.first + row - 1, text)

    def lookup(self, name: str) -> Any:
        """What a free name of the function stands for, or MISSING."""
        free = self.function.__code__.co_freevars
        if name in free:
            cells = self.function.__closure__ or ()
            return dict(zip(free, cells, strict=True))[name].cell_contents
        return self.function.__globals__.get(name, MISSING)

    def resolve(self, node: ast.expr) -> Any:
        """The object a dotted name stands for, or MISSING; modules and scalar types are entered."""
        if isinstance(node, ast.Name):
            return self.lookup(node.id)
        if isinstance(node, ast.Attribute):
            base = self.resolve(node.value)
            if isinstance(base, (types.ModuleType, Scalar)):
                return getattr(base, node.attr, MISSING)
        return MISSING


def read(function: Any) -> Source:
    """The source of a plain Python function; KernelError for anything else or a missing text."""
    name = getattr(function, "__name__", type(function).__name__)
    if not isinstance(function, types.FunctionType):
        raise KernelError(
            f"{name}: {type(function).__name__} is not a function; a kernel is a plain `def`. "
            "Decorate the function itself."
        )
    code = function.__code__
    try:
        lines, first = inspect.getsourcelines(function)
        tree = _parsed(lines)
    except (OSError, TypeError, SyntaxError, IndexError):
        tree = None
    if isinstance(tree, ast.AsyncFunctionDef):
        raise KernelError(
            f"{name}: async def is not a kernel; a kernel is a plain `def`. Remove async.",
            code.co_filename,
            first + tree.lineno - 1,
            lines[tree.lineno - 1],
        )
    if name == "<lambda>":
        raise KernelError(
            "<lambda>: a lambda is not a kernel; a kernel is a plain `def` with one loop nest. "
            "Write a def.",
            code.co_filename,
            code.co_firstlineno,
        )
    if not isinstance(tree, ast.FunctionDef) or tree.name != name:
        raise KernelError(
            f"{name}: source not available; kernels are read from a file (or a notebook), not "
            "from exec or a plain interactive prompt. Put the function in a .py file.",
            code.co_filename,
            code.co_firstlineno,
        )
    source = Source(name, code.co_filename, first, tuple(lines), tree, function)
    for free in code.co_freevars:
        value = source.lookup(free)
        if not isinstance(value, (types.ModuleType, Scalar)) and not is_word(value):
            raise source.error(
                _first_use(tree, free),
                f"closure: {free!r} comes from the enclosing function, so its value is not part "
                "of the kernel; operands, keyword constants and module-level numbers are allowed. "
                f"Make it a keyword constant: `*, {free}=...`.",
            )
    return source


def _parsed(lines: list[str]) -> ast.AST:
    text = "".join(lines)
    if text[:1] in " \t":
        # A nested def: an enclosing `if` keeps the indentation legal and multi-line strings
        # untouched.
        block = ast.parse("if 1:\n" + text).body[0]
        assert isinstance(block, ast.If)
        return ast.increment_lineno(block.body[0], -1)
    return ast.parse(text).body[0]


def _first_use(tree: ast.AST, name: str) -> ast.AST | None:
    return next((n for n in ast.walk(tree) if isinstance(n, ast.Name) and n.id == name), None)


def is_word(value: Any) -> bool:
    """Whether the value is one of the functions of `loops`."""
    return isinstance(value, types.FunctionType) and value.__module__ == LOOPS_MODULE


LOOPS_MODULE = next(iter(LOOPS)).__module__


def signature(source: Source) -> tuple[tuple[str, ...], tuple[tuple[str, int | float], ...]]:
    """(operands, constants with their defaults) of a kernel, or KernelError."""
    a = source.tree.args
    for star, shown in ((a.vararg, "*"), (a.kwarg, "**")):
        if star:
            raise source.error(
                star,
                f"parameter={shown}{star.arg} has no fixed length; operands are named one by one. "
                "Name each operand.",
            )
    positional = (*a.posonlyargs, *a.args)
    if a.defaults:
        late = positional[-len(a.defaults)]
        raise source.error(
            late,
            f"parameter={late.arg} has a default; operands have none, constants come after `*`. "
            f"Write `*, {late.arg}=...` for a constant.",
        )
    defaults = source.function.__kwdefaults__ or {}
    constants: list[tuple[str, int | float]] = []
    for p in a.kwonlyargs:
        value = defaults.get(p.arg, MISSING)
        if value is MISSING:
            raise source.error(
                p, f"constant={p.arg} has no default; constants have one. Write `{p.arg}=1`."
            )
        if not isinstance(value, (bool, int, float)):
            raise source.error(
                p,
                f"constant={p.arg} has the default {value!r}; int, float and bool are allowed. "
                "Pass an array as an operand.",
            )
        constants.append((p.arg, value))
    for p in (*positional, *a.kwonlyargs):
        refuse_reserved(source, p, "parameter", p.arg)
    return tuple(p.arg for p in positional), tuple(constants)


def refuse_reserved(source: Source, node: ast.AST, what: str, name: str) -> None:
    """KernelError for a name that the generated code uses itself."""
    if name in RESERVED or "__" in name:
        why = "is a reserved word" if name in RESERVED else "contains `__`, which joins fused axes"
        raise source.error(node, f"{what}={name} {why}; any other name is allowed. Rename it.")
