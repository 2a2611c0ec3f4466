"""A Python function to a LoopNest with symbolic sizes, or a KernelError that shows the line.

    for n, oh, ow, oc in sf.grid(out.shape):          -> grid axes
        acc = sf.i32(bias[oc])                        -> Reduction.scalar, .init
        for kh, kw, ic in sf.reduce(w.shape[:3]):     -> Reduction.axes
            acc += x[...] * w[...]                    -> Reduction.combine, .value
        y = sf.clip(acc >> 8, 0, 255)                 -> Let
        out[n, oh, ow, oc] = sf.u8(y)                 -> Store

Reads the text only: the body is never run here, and nothing is known yet about types or extents.
"""

from __future__ import annotations

import ast
from typing import Any

from .indices import Scope, shape, unparsed
from .nest import LoopNest, Operand, Origin
from .source import Source, read, signature
from .statements import FORBIDDEN, Body, axes_of, new_name, refused


def parse(function: Any) -> LoopNest:
    """The nest a kernel function describes.

    Raises KernelError (file, line, source line, reason) for a function that is not one loop nest.
    """
    source = read(function)
    operands, constants = signature(source)
    body = list(source.tree.body)
    scope = Scope(source, {}, dict(constants))
    outside = [n for s in body for n in ast.walk(s) if isinstance(n, FORBIDDEN)]
    if outside:
        raise refused(scope, min(outside, key=lambda n: getattr(n, "lineno", 0)))
    if isinstance(body[0], ast.Expr) and isinstance(getattr(body[0].value, "value", 0), str):
        del body[0]
    scope.operands = _ranks(source, operands)
    at = next((i for i, s in enumerate(body) if isinstance(s, ast.For)), len(body))
    if at == len(body):
        raise source.error(
            None, "no loop; a kernel is one `for ... in sf.grid(out.shape):`. Write the loop."
        )
    for s in body[:at]:
        _name_size(scope, s)
    for s in body[at + 1 :]:
        if isinstance(s, ast.For):
            raise source.error(
                s, "two loop nests; a kernel is one. Write a kernel for each, or merge the loops."
            )
        raise refused(scope, s)
    nest_loop = body[at]
    assert isinstance(nest_loop, ast.For)
    grid = axes_of(scope, nest_loop, "grid")
    result = Body(scope)
    result.read(nest_loop.body)
    if result.store is None:
        raise source.error(
            nest_loop, "nothing is stored; a nest ends with `out[...] = value`. Add the store."
        )
    out = result.store.operand
    return LoopNest(
        source.name,
        tuple(Operand(o, "out" if o == out else "in") for o in operands),
        constants,
        grid,
        result.reduction,
        tuple(result.lets),
        result.store,
        Origin(source.file, source.first, tuple(t.rstrip("\n") for t in source.lines)),
    )


def _ranks(source: Source, operands: tuple[str, ...]) -> dict[str, int]:
    """Operand -> number of indices of its first use; one that is never indexed is refused."""
    ranks: dict[str, int] = {}
    for n in ast.walk(source.tree):
        if isinstance(n, ast.Subscript) and isinstance(n.value, ast.Name):
            elements = n.slice.elts if isinstance(n.slice, ast.Tuple) else [n.slice]
            ranks.setdefault(n.value.id, len(elements))
    for o in operands:
        if o not in ranks:
            raise source.error(
                None,
                f"operand={o} is never indexed; every operand is read or stored. Remove it, or "
                "make it a keyword constant.",
            )
    return {o: ranks[o] for o in operands}


def _name_size(scope: Scope, s: ast.stmt) -> None:
    """`kh, kw = w.shape[:2]` or `half = kh // 2` before the loop: names for sizes."""
    if not isinstance(s, ast.Assign) or len(s.targets) != 1:
        raise refused(scope, s)
    target = s.targets[0]
    sizes = shape(scope, s.value)
    if isinstance(target, ast.Name):
        new_name(scope, target, target.id)
        scope.inlined[target.id] = s.value
        return
    names = target.elts if isinstance(target, ast.Tuple) else []
    if len(names) != len(sizes) or not all(isinstance(n, ast.Name) for n in names):
        raise scope.source.error(
            s,
            f"{unparsed(target)} = {unparsed(s.value)} names {len(names)} of {len(sizes)} sizes; "
            "one name for each is needed. Correct the names.",
        )
    for i, n in enumerate(names):
        assert isinstance(n, ast.Name)
        new_name(scope, n, n.id)
        part = ast.Subscript(s.value, ast.Constant(i), ast.Load())
        scope.inlined[n.id] = ast.fix_missing_locations(ast.copy_location(part, n))
