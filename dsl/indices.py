"""Python expressions to sizes and indices, and the scope that gives their names a meaning.

A size is made of integers, shapes and integer constants; an index is affine in the axes. Does not
look at values or at statements.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from typing import Any

from .nest import Affine, Dim, Fetched, Quotient, Size, size
from .source import MISSING, Source, is_word
from .types import Scalar

_SIZE: dict[type, str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.FloorDiv: "//",
    ast.Mod: "%",
}


@dataclass
class Scope:
    """What each name means at one place of the body.

    operands   name -> rank (how many indices its uses give it)
    constants  keyword constants
    axes       axes in scope -> 'grid', 'reduce' or 'nonzeros'; `ended` are the reduction's after
               its loop
    inlined    name -> expression: sizes, indices and values named before the reduction
    values     name -> the accumulator's or a Let's name
    """

    source: Source
    operands: dict[str, int]
    constants: dict[str, int | float]
    axes: dict[str, str] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    inlined: dict[str, ast.expr] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)

    def names(self) -> set[str]:
        """Every name that means something here."""
        known = (self.operands, self.constants, self.axes, self.inlined, self.values)
        return set().union(*known, self.ended)


def unparsed(node: ast.AST) -> str:
    """The expression as one line of text."""
    return ast.unparse(node)


def word(scope: Scope, node: ast.expr) -> Any:
    """What a called name is: a function of `loops`, a Scalar, or MISSING (as locals are)."""
    root = node
    while isinstance(root, ast.Attribute):
        root = root.value
    if isinstance(root, ast.Name) and root.id in scope.names():
        return MISSING
    found = scope.source.resolve(node)
    return found if isinstance(found, Scalar) or is_word(found) else MISSING


def unknown(scope: Scope, node: ast.Name) -> Exception:
    """The error for a name that means nothing here."""
    known = [f"operands {', '.join(scope.operands)}"]
    for what, names in (("constants", scope.constants), ("axes", scope.axes)):
        if names:
            known.append(f"{what} {', '.join(names)}")
    local = [*scope.inlined, *scope.values]
    if local:
        known.append(f"names {', '.join(dict.fromkeys(local))}")
    return scope.source.error(
        node,
        f"name={node.id} is not known here; known are {'; '.join(known)}. "
        "Define it in the kernel, or at module level as a number.",
    )


def number(scope: Scope, node: ast.expr) -> int | float | None:
    """The value of a number written out, or defined at module level."""
    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        return node.value
    root = node
    while isinstance(root, ast.Attribute):
        root = root.value
    if isinstance(root, ast.Name) and root.id not in scope.names():
        found = scope.source.resolve(node)
        if isinstance(found, (int, float)):
            return found
    return None


def shape(scope: Scope, node: ast.expr) -> tuple[Size, ...]:
    """A tuple of sizes: `w.shape[:3]`, `(n, 2)`, sums of tuples; one size is a tuple of one."""
    found = size_or_shape(scope, node)
    if found is None:
        raise scope.source.error(
            node,
            f"extent={unparsed(node)} is not a size; shapes of operands, integers and integer "
            "constants are allowed, with + - * // %. Write for example w.shape[:3].",
        )
    return found if isinstance(found, tuple) else (found,)


def size_or_shape(scope: Scope, node: ast.expr) -> Size | tuple[Size, ...] | None:
    """A size or a tuple of sizes; None for anything else."""
    if isinstance(node, ast.Name) and node.id in scope.inlined:
        return size_or_shape(scope, scope.inlined[node.id])
    if isinstance(node, ast.Name) and node.id in scope.constants:
        return Dim("", 0, node.id)
    if (found := number(scope, node)) is not None:
        return found if isinstance(found, int) else None
    if isinstance(node, ast.Attribute) and node.attr == "shape":
        if isinstance(node.value, ast.Name) and node.value.id in scope.operands:
            name = node.value.id
            return tuple(Dim(name, i) for i in range(scope.operands[name]))
        return None
    if isinstance(node, ast.Subscript):
        return _part_of_shape(scope, node)
    if isinstance(node, (ast.Tuple, ast.List)):
        items: list[Size] = []
        for e in node.elts:
            part = size_or_shape(scope, e.value if isinstance(e, ast.Starred) else e)
            if part is None or isinstance(part, tuple) != isinstance(e, ast.Starred):
                return None
            items += part if isinstance(part, tuple) else (part,)
        return tuple(items)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = size_or_shape(scope, node.operand)
        return None if inner is None or isinstance(inner, tuple) else size("-", 0, inner)
    if isinstance(node, ast.BinOp) and type(node.op) in _SIZE:
        a, b = size_or_shape(scope, node.left), size_or_shape(scope, node.right)
        if isinstance(a, tuple) and isinstance(b, tuple) and isinstance(node.op, ast.Add):
            return a + b
        if a is None or b is None or isinstance(a, tuple) or isinstance(b, tuple):
            return None
        return _folded(scope, node, _SIZE[type(node.op)], a, b)
    return None


def _folded(scope: Scope, node: ast.AST, op: str, a: Size, b: Size) -> Size:
    if b == 0 and op in ("//", "%"):
        raise scope.source.error(
            node, f"size={unparsed(node)} divides by zero; use a divisor of 1 or more."
        )
    return size(op, a, b)


def _part_of_shape(scope: Scope, node: ast.Subscript) -> Size | tuple[Size, ...] | None:
    base = size_or_shape(scope, node.value)
    if not isinstance(base, tuple):
        return None
    at = node.slice
    if isinstance(at, ast.Slice):
        limits = [None if p is None else _integer(scope, p) for p in (at.lower, at.upper, at.step)]
        return base[slice(*limits)]
    i = _integer(scope, at)
    if not -len(base) <= i < len(base):
        raise scope.source.error(
            node,
            f"size={unparsed(node)} does not exist; {unparsed(node.value)} has {len(base)} axes. "
            f"Use an axis from 0 to {len(base) - 1}.",
        )
    return base[i]


def _integer(scope: Scope, node: ast.expr) -> int:
    found = size_or_shape(scope, node)
    if not isinstance(found, int):
        raise scope.source.error(
            node, f"axis={unparsed(node)} is not a whole number. Write the number of the axis."
        )
    return found


def mentions(scope: Scope, node: ast.expr) -> tuple[bool, bool]:
    """(whether it uses an axis outside an operand's brackets, whether it uses a computed value)."""
    axis = value = False
    stack: list[ast.AST] = [node]
    while stack:
        n = stack.pop()
        if isinstance(n, ast.Subscript) and isinstance(n.value, ast.Name):
            value = True
            continue
        if isinstance(n, ast.Subscript) and isinstance(n.value, ast.Tuple):
            # One of several values, picked by an axis; of several sizes, by a number.
            value |= mentions(scope, n.slice)[0]
            stack += n.value.elts
            continue
        if isinstance(n, ast.Name):
            if n.id in scope.inlined:
                stack.append(scope.inlined[n.id])
            axis |= n.id in scope.axes or n.id in scope.ended
            value |= n.id in scope.values
        value |= isinstance(n, (ast.Call, ast.Compare, ast.BoolOp, ast.IfExp))
        stack += ast.iter_child_nodes(n)
    return axis, value


def affine(scope: Scope, node: ast.expr, loads: bool = False) -> Affine:
    """An index: axes times sizes, sums of those, and // and % by sizes.

    With `loads`, integers that operands hold may be added: `ids[i]`, times sizes.
    """
    found = _affine(scope, node)
    if found is None:
        if loads:
            raise scope.source.error(
                node,
                f"index={unparsed(node)} depends on data; a loaded integer, such as ids[i], times "
                "a size and plus an affine index is allowed, and any integer for tables of one "
                "axis. Load it in the index, or flatten the table.",
            )
        raise scope.source.error(
            node,
            f"index={unparsed(node)} is not affine in the loop axes {', '.join(scope.axes)}; sums "
            "of axes times sizes, and // and % by sizes, are allowed. Rewrite the index.",
        )
    if found.fetched and not loads:
        raise scope.source.error(
            node,
            f"index={unparsed(node)} depends on data; that is allowed where an operand of several "
            "axes is read. Rewrite the index.",
        )
    return found


def _fetched(scope: Scope, node: ast.Subscript) -> Affine | None:
    """`ids[i]` as an index: None for other things with brackets, and for indices of indices."""
    if not isinstance(node.value, ast.Name) or node.value.id not in scope.operands:
        return None
    name = node.value.id
    parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    inside = [_affine(scope, p) for p in parts]
    index = tuple(i for i in inside if i is not None and not i.fetched)
    if len(index) != len(parts) or len(parts) != scope.operands[name]:
        return None
    return Affine(((Fetched(name, index), 1),))


def _affine(scope: Scope, node: ast.expr) -> Affine | None:
    if isinstance(node, ast.Name):
        if node.id in scope.axes:
            return Affine.axis(node.id)
        if node.id in scope.ended:
            raise scope.source.error(
                node,
                f"axis={node.id} belongs to the reduction, which is over here; axes of sf.grid are "
                f"allowed: {', '.join(scope.axes)}. Move it into the grid, or use it inside the "
                "loop.",
            )
        if node.id in scope.inlined:
            return _affine(scope, scope.inlined[node.id])
        if node.id not in scope.names() and number(scope, node) is None:
            raise unknown(scope, node)
    constant = size_or_shape(scope, node)
    if constant is not None:
        return None if isinstance(constant, tuple) else Affine((), constant)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = _affine(scope, node.operand)
        return inner.times(-1) if inner is not None else None
    if isinstance(node, ast.Subscript):
        return _fetched(scope, node)
    if not isinstance(node, ast.BinOp):
        return None
    a, b = _affine(scope, node.left), _affine(scope, node.right)
    if a is None or b is None:
        return None
    op = node.op
    if isinstance(op, (ast.Add, ast.Sub)):
        return a.plus(b, 1 if isinstance(op, ast.Add) else -1)
    if isinstance(op, ast.Mult) and not (a.terms and b.terms):
        return a.times(b.const) if a.terms else b.times(a.const)
    if isinstance(op, (ast.FloorDiv, ast.Mod)) and not b.terms and not a.fetched:
        symbol = _SIZE[type(op)]
        if b.const == 0:
            _folded(scope, node, symbol, 1, 0)
        return Affine(((Quotient(symbol, a, b.const), 1),), 0)
    return None
