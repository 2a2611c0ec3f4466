"""The statements of a loop nest to axes, accumulator, reduction, epilogue and store.

Reads them in order, with `indices` and `expressions` for what is inside; refuses each statement
that has no place in a nest, with the reason. Never runs the body.
"""

from __future__ import annotations

import ast
import copy
from dataclasses import dataclass, field

from . import loops
from .expressions import cast, load, value
from .indices import Scope, affine, mentions, shape, unparsed, word
from .nest import Axis, Dim, Let, Load, Reduction, Size, Store
from .source import refuse_reserved
from .types import Scalar, f32, i8, i16, i32, u8, u16

ACCUMULATORS = (i32, i16, u16, i8, u8, f32)
_STATEMENTS = {
    ast.While: "while",
    ast.If: "if",
    ast.Try: "try",
    ast.With: "with",
    ast.Return: "return",
    ast.FunctionDef: "a nested def",
    ast.ClassDef: "a class",
    ast.Import: "import",
    ast.ImportFrom: "import",
    ast.Raise: "raise",
    ast.Assert: "assert",
    ast.Delete: "del",
    ast.Pass: "pass",
    ast.Break: "break",
    ast.Continue: "continue",
    ast.Global: "global",
    ast.Nonlocal: "nonlocal",
    ast.AnnAssign: "an annotated assignment",
}
_STATEMENT_ADVICE = {
    ast.If: "Write `a if condition else b`.",
    ast.AnnAssign: "Write `name = value`.",
    ast.Return: "The result is what is stored; remove it.",
}
FORBIDDEN = tuple(_STATEMENTS)


def new_name(scope: Scope, node: ast.AST, name: str) -> None:
    """Refuse a local name that is reserved or already means something that cannot be reassigned."""
    refuse_reserved(scope.source, node, "name", name)
    for what, known in (
        ("an operand", scope.operands),
        ("a constant", scope.constants),
        ("an axis", {**scope.axes, **dict.fromkeys(scope.ended)}),
    ):
        if name in known:
            raise scope.source.error(
                node, f"name={name} is already {what}; a name has one meaning. Choose another name."
            )


def axes_of(scope: Scope, loop: ast.For, kind: str) -> tuple[Axis, ...]:
    """The axes of one `for ... in sf.grid/reduce/nonzeros(...)`, added to the scope."""
    source, call = scope.source, loop.iter
    if loop.orelse:
        raise source.error(loop.orelse[0], "for-else is not part of a nest. Remove the else.")
    function = word(scope, call.func) if isinstance(call, ast.Call) else None
    allowed = {"grid": (loops.grid,), "reduce": (loops.reduce, loops.nonzeros)}[kind]
    if not isinstance(call, ast.Call) or function not in allowed:
        words = " or ".join(f"sf.{f.__name__}(...)" for f in allowed)
        raise source.error(
            loop.iter,
            f"loop={unparsed(loop.iter)} is not {words}, which this loop must be. Use it.",
        )
    if call.keywords or not call.args:
        raise source.error(call, f"{unparsed(call)}: give the sizes by position.")
    elements = loop.target.elts if isinstance(loop.target, ast.Tuple) else [loop.target]
    names: list[str] = []
    for t in elements:
        if not isinstance(t, ast.Name):
            raise source.error(t, f"axis={unparsed(t)} is not a name. Name each axis.")
        refuse_reserved(source, t, "axis", t.id)
        if t.id in scope.names() or t.id in names:
            raise source.error(
                t, f"axis={t.id} shadows an earlier name; every axis has its own. Rename it."
            )
        names.append(t.id)
    if function is loops.nonzeros:
        axes: tuple[Axis, ...] = (_nonzeros(scope, call, names),)
    else:
        extents: list[Size] = []
        for a in call.args:
            extents += shape(scope, a)
        if len(extents) != len(names) or (isinstance(loop.target, ast.Tuple) and len(names) == 1):
            raise source.error(
                loop,
                f"{unparsed(loop.target)} in {unparsed(call)}: {len(names)} axes for "
                f"{len(extents)} extents; one name for each extent is needed"
                + (", without a comma for a single one" if len(extents) == 1 else "")
                + ". Correct the names.",
            )
        axes = tuple(Axis(n, e, kind) for n, e in zip(names, extents, strict=True))
    scope.axes |= {a.name: a.kind for a in axes}
    return axes


def _nonzeros(scope: Scope, call: ast.Call, names: list[str]) -> Axis:
    args = call.args
    first = args[0]
    if (
        len(args) != 2
        or len(names) != 1
        or not isinstance(first, ast.Name)
        or scope.operands.get(first.id) != 2
    ):
        raise scope.source.error(
            call,
            f"{unparsed(call)}: nonzeros takes an operand of two axes and a row, and gives one "
            "axis. Write `for ic in sf.nonzeros(w, oc)`.",
        )
    return Axis(names[0], Dim(first.id, 1), "nonzeros", first.id, affine(scope, args[1]))


def refused(scope: Scope, s: ast.AST) -> Exception:
    """The error for a statement that has no place in a nest."""
    what = _STATEMENTS.get(type(s))
    if what is None and isinstance(s, ast.Expr):
        what = f"the statement {unparsed(s.value)}"
    if what is None:
        what = unparsed(s).splitlines()[0]
    advice = _STATEMENT_ADVICE.get(type(s), "Remove it.")
    return scope.source.error(
        s,
        f"{what} is not part of a nest; sizes before the loop, and assignments, sf.reduce and one "
        f"store inside it, are allowed. {advice}",
    )


@dataclass
class Body:
    """The statements inside the grid loop, in order of reading."""

    scope: Scope
    reduction: Reduction | None = None
    lets: list[Let] = field(default_factory=list)
    store: Store | None = None

    def read(self, statements: list[ast.stmt]) -> None:
        """Take the statements apart into the reduction, the epilogue and the store.

        Raises KernelError for others.
        """
        source = self.scope.source
        loops_ = [i for i, s in enumerate(statements) if isinstance(s, ast.For)]
        if len(loops_) > 1:
            raise source.error(
                statements[loops_[1]],
                "two reductions in one nest; one is allowed (nested sf.reduce loops are one). "
                "Split the kernel in two.",
            )
        first = loops_[0] if loops_ else 0
        name = _updated(statements[first]) if loops_ else ""
        declared: tuple[ast.Assign, Scalar] | None = None
        for s in statements[:first]:
            target = self._target(s)
            if target != name:
                self._inline(s, target)
            else:
                declared = self._declaration(s, target)
        if loops_:
            loop = statements[first]
            assert isinstance(loop, ast.For)
            self._reduce(loop, name, declared)
        for s in statements[first + bool(loops_) :]:
            self._epilogue(s)

    def _target(self, s: ast.stmt) -> str:
        """The name an assignment gives; anything else is refused."""
        if isinstance(s, ast.AugAssign):
            raise self._augmented(s)
        if not isinstance(s, ast.Assign):
            raise refused(self.scope, s)
        target = s.targets[0]
        if len(s.targets) > 1 or not isinstance(target, ast.Name):
            if isinstance(target, ast.Subscript):
                raise self.scope.source.error(
                    s, "a store before the reduction is over; one store is allowed, last. Move it."
                )
            raise self.scope.source.error(
                s, f"{unparsed(s)}: several targets; one name or one store is allowed. Split it."
            )
        new_name(self.scope, target, target.id)
        return target.id

    def _augmented(self, s: ast.AugAssign) -> Exception:
        op, target = unparsed(s).split("=")[0].split()[-1], unparsed(s.target)
        if op == "+" and isinstance(s.target, ast.Subscript):
            what = f"{target} += reads the output; sum in an accumulator and store once"
            return self.scope.source.error(s, f"{what}. Write acc = sf.i32(0) before sf.reduce.")
        if op == "+":
            return self.scope.source.error(
                s,
                f"{target} += outside sf.reduce; += is for the accumulator inside it. "
                f"Write {target} = {target} + ....",
            )
        return self.scope.source.error(
            s,
            f"{target} {op}= is not a reduction; `acc += value`, `acc = sf.max(acc, value)` and "
            "`acc = sf.min(acc, value)` are. Rewrite it.",
        )

    def _inline(self, s: ast.stmt, name: str) -> None:
        """A name before or inside the reduction stands for its expression."""
        assert isinstance(s, ast.Assign)
        expanded = _expand(self.scope, s.value)
        if mentions(self.scope, expanded)[0]:
            affine(self.scope, expanded)
        else:
            value(self.scope, expanded)
        self.scope.inlined[name] = expanded

    def _declaration(self, s: ast.stmt, name: str) -> tuple[ast.Assign, Scalar]:
        assert isinstance(s, ast.Assign)
        called = s.value
        scalar = word(self.scope, called.func) if isinstance(called, ast.Call) else None
        if scalar not in ACCUMULATORS:
            allowed = ", ".join(a.name for a in ACCUMULATORS)
            raise self.scope.source.error(
                s,
                f"accumulator={name} is {unparsed(s.value)}; it is declared with its type, one of "
                f"{allowed}. Write {name} = sf.i32(0).",
            )
        return s, scalar

    def _reduce(self, loop: ast.For, name: str, declared: tuple[ast.Assign, Scalar] | None) -> None:
        scope = self.scope
        if declared is not None:
            call = declared[0].value
            assert isinstance(call, ast.Call)
            initial = cast(scope, call, declared[1])
        outer = dict(scope.inlined)
        axes = axes_of(scope, loop, "reduce")
        body = loop.body
        while isinstance(body[-1], ast.For):
            for s in body[:-1]:
                self._inline(s, self._target(s))
            axes += axes_of(scope, body[-1], "reduce")
            body = body[-1].body
        for s in body[:-1]:
            if isinstance(s, ast.AugAssign) or unparsed(s).startswith(f"{name} = "):
                raise scope.source.error(
                    s, "two updates in one reduction; one is allowed, last. Merge them."
                )
            self._inline(s, self._target(s))
        combine, update = self._update(body[-1], name)
        if declared is None:
            raise scope.source.error(
                body[-1],
                f"accumulator={name} is used before it is declared; it is declared just before "
                f"sf.reduce. Write {name} = sf.i32(0) there.",
            )
        mode = initial.mode
        if mode == "saturate":
            raise scope.source.error(
                declared[0],
                f"accumulator={name} saturates; sums are exact or wrap=True. Clip after the loop.",
            )
        if any(isinstance(n, ast.Name) and n.id == name for n in ast.walk(update)):
            raise scope.source.error(
                body[-1],
                f"{unparsed(body[-1])}: the value mentions {name} itself; a reduction adds values "
                "that do not depend on it. Rewrite it.",
            )
        body_value = value(scope, update)
        self.reduction = Reduction(
            name,
            declared[1],
            initial.arg,
            combine,
            axes,
            body_value,
            mode == "wrap",
            scope.source.first + body[-1].lineno - 1,
        )
        scope.ended |= {a.name for a in axes}
        scope.axes = {k: v for k, v in scope.axes.items() if v == "grid"}
        scope.inlined = outer
        scope.values[name] = name

    def _update(self, s: ast.stmt, name: str) -> tuple[str, ast.expr]:
        """(combine, value) of `acc += value` or `acc = sf.max(acc, value)`."""
        scope = self.scope
        if isinstance(s, ast.AugAssign) and isinstance(s.target, ast.Name):
            if isinstance(s.op, ast.Add):
                return "add", s.value
            raise self._augmented(s)
        if isinstance(s, ast.Assign) and isinstance(s.value, ast.Call) and _updated(s):
            function = word(scope, s.value.func)
            for i, a in enumerate(s.value.args):
                own = isinstance(a, ast.Name) and a.id == name
                if own and len(s.value.args) == 2 and function in (loops.max, loops.min):
                    return function.__name__, s.value.args[1 - i]
            if function not in (loops.max, loops.min):
                value(scope, s.value)
        if isinstance(s, ast.AugAssign) or isinstance(getattr(s, "targets", [0])[0], ast.Subscript):
            if isinstance(s, ast.AugAssign):
                raise self._augmented(s)
            raise scope.source.error(
                s,
                "a store inside the reduction; the store comes after it. Move it out of the loop.",
            )
        if not isinstance(s, ast.Assign):
            raise refused(scope, s)
        raise scope.source.error(
            s,
            f"{unparsed(s)}: not an update; a reduction ends with `acc += value`, "
            "`acc = sf.max(acc, value)` or `acc = sf.min(acc, value)`. Rewrite it.",
        )

    def _epilogue(self, s: ast.stmt) -> None:
        scope = self.scope
        is_store = isinstance(s, ast.Assign) and isinstance(s.targets[0], ast.Subscript)
        if self.store is not None:
            what = "a second store" if is_store else "a statement after the store"
            raise scope.source.error(
                s, f"{what}; a nest ends with its one store. Write a second kernel, or remove it."
            )
        if is_store and isinstance(s, ast.Assign) and len(s.targets) == 1:
            self.store = self._store(s)
            return
        name = self._target(s)
        assert isinstance(s, ast.Assign)
        expanded = _expand(scope, s.value)
        uses_axis, computed = mentions(scope, expanded)
        if uses_axis or not computed:
            self._inline(s, name)
            scope.values.pop(name, None)
            return
        fresh, k = name, 0
        taken = {*scope.names(), *(x.name for x in self.lets), *scope.values.values()}
        while fresh in taken:
            k += 1
            fresh = f"{name}_{k}"
        self.lets.append(Let(fresh, value(scope, expanded), scope.source.first + s.lineno - 1))
        scope.inlined.pop(name, None)
        scope.values[name] = fresh

    def _store(self, s: ast.Assign) -> Store:
        scope, target = self.scope, s.targets[0]
        assert isinstance(target, ast.Subscript)
        if not isinstance(target.value, ast.Name) or target.value.id not in scope.operands:
            raise scope.source.error(
                s, f"{unparsed(target)} is not an operand; the store goes to one of "
                f"{', '.join(scope.operands)}. Store to an operand."
            )  # fmt: skip
        for n in ast.walk(target.slice):
            if isinstance(n, ast.Name) and n.id in scope.ended:
                raise scope.source.error(
                    s,
                    f"{unparsed(target)}: the output index mentions the reduction axis {n.id}; "
                    "axes of "
                    f"sf.grid are allowed: {', '.join(scope.axes)}. Move {n.id} into the grid.",
                )
        found = load(scope, target)
        if not isinstance(found, Load):
            raise scope.source.error(
                s,
                f"{unparsed(target)}: the output index depends on data; axes are allowed. Rewrite "
                "it.",
            )
        stored = value(scope, s.value)
        return Store(found.operand, found.index, stored, scope.source.first + s.lineno - 1)


def _updated(s: ast.stmt) -> str:
    """The name that the innermost last statement of a loop updates; '' when it updates none."""
    while isinstance(s, ast.For):
        s = s.body[-1]
    if isinstance(s, ast.AugAssign) and isinstance(s.target, ast.Name):
        return s.target.id
    if isinstance(s, ast.Assign) and isinstance(s.targets[0], ast.Name):
        return s.targets[0].id
    return ""


def _expand(scope: Scope, node: ast.expr) -> ast.expr:
    """The expression with inlined names replaced, as they are now."""

    class Expand(ast.NodeTransformer):
        def visit_Name(self, n: ast.Name) -> ast.expr:
            return scope.inlined.get(n.id, n)

    return Expand().visit(copy.deepcopy(node))
