"""Python expressions to the values of a nest: loads, constants, and operations and casts on them.

Reads one expression in a scope; indices and sizes inside it are `indices`' business, statements
are `parse`'s.
"""

from __future__ import annotations

import ast

from . import loops
from .indices import Scope, affine, mentions, number, size_or_shape, unknown, unparsed, word
from .nest import Call, Cast, Const, Dim, Expr, Load, Lookup, Pick, Ref
from .source import MISSING
from .types import Scalar

_BINARY: dict[type, str] = {
    ast.Add: "add",
    ast.Sub: "sub",
    ast.Mult: "mul",
    ast.Div: "div",
    ast.FloorDiv: "floordiv",
    ast.Mod: "mod",
    ast.LShift: "shl",
    ast.RShift: "shr",
    ast.BitAnd: "and",
    ast.BitOr: "or",
    ast.BitXor: "xor",
}
_COMPARE: dict[type, str] = {
    ast.Eq: "eq",
    ast.NotEq: "ne",
    ast.Lt: "lt",
    ast.LtE: "le",
    ast.Gt: "gt",
    ast.GtE: "ge",
}
_ADVICE = {"max": "sf.max", "min": "sf.min", "abs": "sf.abs", "round": "sf.round", "int": "sf.i32"}
_ADVICE |= {"float": "sf.f32 (or math.inf)", "sum": "`acc +=` in sf.reduce", "range": "sf.grid"}
_ADVICE |= {"pow": "x * x", "len": "a size such as x.shape[0]", "bool": "a comparison"}


def value(scope: Scope, node: ast.expr) -> Expr:
    """An expression over loads, constants and the names defined so far."""
    written = number(scope, node)
    if written is not None:
        return Const(written)
    match node:
        case ast.Name():
            return _name(scope, node)
        case ast.Subscript(value=ast.Name(id=name)) if name in scope.operands:
            return load(scope, node)
        case ast.Subscript(value=ast.Tuple(elts=several)) if mentions(scope, node.slice)[0]:
            return _pick(scope, node, several)
        case ast.Subscript() | ast.Attribute():
            found = size_or_shape(scope, node)
            if found is not None and not isinstance(found, tuple):
                return Const(found)
        case ast.UnaryOp(op=ast.USub()):
            inner = value(scope, node.operand)
            if isinstance(inner, Const) and isinstance(inner.value, (int, float)):
                return Const(-inner.value)
            return Call("neg", (inner,))
        case ast.UnaryOp(op=ast.UAdd()):
            return value(scope, node.operand)
        case ast.UnaryOp(op=ast.Not()):
            return Call("not", (value(scope, node.operand),))
        case ast.BinOp() if type(node.op) in _BINARY:
            return Call(_BINARY[type(node.op)], (value(scope, node.left), value(scope, node.right)))
        case ast.BinOp(op=ast.Pow()):
            raise scope.source.error(
                node,
                f"{unparsed(node)}: ** is not an operation of a nest. Write the product x * x.",
            )
        case ast.Compare():
            if len(node.ops) > 1:
                raise scope.source.error(
                    node,
                    f"{unparsed(node)}: a chained comparison; one comparison is allowed. "
                    "Write `a < b and b < c`.",
                )
            if type(node.ops[0]) in _COMPARE:
                left, right = value(scope, node.left), value(scope, node.comparators[0])
                return Call(_COMPARE[type(node.ops[0])], (left, right))
        case ast.BoolOp():
            op = "and" if isinstance(node.op, ast.And) else "or"
            parts = [value(scope, v) for v in node.values]
            result = parts[0]
            for p in parts[1:]:
                result = Call(op, (result, p))
            return result
        case ast.IfExp():
            return Call(
                "select",
                (value(scope, node.test), value(scope, node.body), value(scope, node.orelse)),
            )
        case ast.Call():
            return _call(scope, node)
    raise scope.source.error(
        node,
        f"{unparsed(node)}: not an expression of a nest; loads, numbers, arithmetic, comparisons, "
        "`a if c else b`, casts and the functions of simdflow are allowed. Rewrite it.",
    )


def _name(scope: Scope, node: ast.Name) -> Expr:
    name = node.id
    if name in scope.inlined:
        return value(scope, scope.inlined[name])
    if name in scope.values:
        return Ref(scope.values[name])
    if name in scope.constants:
        return Const(Dim("", 0, name))
    if name in scope.axes or name in scope.ended:
        raise scope.source.error(
            node,
            f"axis={name} is used as a value; axes are allowed in indices only. "
            "Pass an operand that holds the numbers.",
        )
    if name in scope.operands:
        raise scope.source.error(
            node, f"operand={name} is used without an index; index it: {name}[...]."
        )
    raise unknown(scope, node)


def load(scope: Scope, node: ast.Subscript) -> Load | Lookup:
    """`operand[index]`; one computed index into an operand of one axis is a table lookup."""
    assert isinstance(node.value, ast.Name)
    name = node.value.id
    parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    if len(parts) != scope.operands[name]:
        raise scope.source.error(
            node,
            f"{unparsed(node)}: {name} has {len(parts)} indices here and {scope.operands[name]} "
            "elsewhere; every use has the same number. Correct one of them.",
        )
    for p in parts:
        if isinstance(p, (ast.Slice, ast.Starred)) or getattr(p, "value", 0) is Ellipsis:
            raise scope.source.error(
                node,
                f"{unparsed(node)}: slices and `...` take many elements; a nest takes one. "
                "Write an index for every axis.",
            )
    if len(parts) == 1 and mentions(scope, parts[0])[1]:
        return Lookup(name, value(scope, parts[0]))
    return Load(name, tuple(affine(scope, p, loads=mentions(scope, p)[1]) for p in parts))


def _pick(scope: Scope, node: ast.Subscript, several: list[ast.expr]) -> Pick:
    """`(a, b, c)[i]`."""
    index = affine(scope, node.slice)
    reduced = sorted(a for a in index.axes if scope.axes[a] != "grid")
    if reduced:
        raise scope.source.error(
            node,
            f"{unparsed(node)}: the reduction axis {reduced[0]} picks a value; axes of sf.grid are "
            "allowed. Write the sum out.",
        )
    for v in several:
        if isinstance(v, ast.Starred):
            raise scope.source.error(v, f"{unparsed(v)}: write each value that is picked from.")
    return Pick(index, tuple(value(scope, v) for v in several))


def _call(scope: Scope, node: ast.Call) -> Expr:
    function = word(scope, node.func)
    shown = unparsed(node.func)
    if isinstance(function, Scalar):
        return cast(scope, node, function)
    if function is MISSING:
        raise scope.source.error(node, _not_a_word(scope, node.func, shown))
    arity = 3 if function in (loops.clip, loops.select) else 2 if function in loops.BINARY else 1
    if function in loops.LOOPS:
        raise scope.source.error(
            node, f"{shown} is a loop, not a value; write `for ... in {unparsed(node)}:`."
        )
    if (
        node.keywords
        or len(node.args) != arity
        or any(isinstance(a, ast.Starred) for a in node.args)
    ):
        raise scope.source.error(
            node, f"{unparsed(node)}: {shown} takes {arity} value{'s' * (arity > 1)}, by position."
        )
    args = tuple(value(scope, a) for a in node.args)
    if function is loops.clip:
        return Call("min", (Call("max", args[:2]), args[2]))
    return Call(function.__name__, args)


def _not_a_word(scope: Scope, func: ast.expr, shown: str) -> str:
    found = scope.source.resolve(func)
    if isinstance(func, ast.Name) and found is MISSING and shown in _ADVICE:
        return (
            f"{shown}() is Python's own, which a nest cannot run; the functions of simdflow can. "
            f"Use {_ADVICE[shown]}."
        )
    name = shown.rpartition(".")[2]
    if callable(found):
        ours = name in (*loops.UNARY.values(), *loops.BINARY.values(), "clip", "select")
        return (
            f"{shown}() is a function of its own; a kernel is one self-contained nest, because its "
            "text is what is compiled. "
            f"{f'Use sf.{name}' if ours else 'Write its expression here'}."
        )
    return (
        f"{shown}() is not known; scalar types and the functions of simdflow can be called "
        "(max, min, clip, select, round, exp, ...). Check the name."
    )


def cast(scope: Scope, node: ast.Call, scalar: Scalar) -> Cast:
    """`sf.u8(v)`, `sf.u8(v, saturate=True)` or `sf.u8(v, wrap=True)`."""
    flags: dict[str, bool] = {}
    given = [*zip(("saturate", "wrap"), node.args[1:], strict=False)]
    given += [(k.arg or "**", k.value) for k in node.keywords]
    for key, v in given:
        if (
            key in ("saturate", "wrap")
            and isinstance(v, ast.Constant)
            and isinstance(v.value, bool)
        ):
            flags[key] = v.value
        else:
            flags["?"] = True
    if not 1 <= len(node.args) <= 3 or "?" in flags or sum(flags.values()) > 1:
        raise scope.source.error(
            node,
            f"{unparsed(node)}: a cast takes one value, and saturate=True or wrap=True. "
            f"Write {scalar.name}(value, saturate=True).",
        )
    mode = next((k for k, on in flags.items() if on), "exact")
    return Cast(scalar, mode, value(scope, node.args[0]))
