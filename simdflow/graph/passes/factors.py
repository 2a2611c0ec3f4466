"""Products and sums with constants, read off chains of mul, div, neg, square and pow.

Turns the value at the end of such a chain into a constant and the values that it multiplies, so
that patterns need not list every order in which exporters write them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...dsl.types import f32
from ..graph import Node
from ..rewrite import Rewrite, op_of

# Patterns are no deeper, and no longer.
DEPTH, LENGTH = 5, 4


@dataclass(frozen=True)
class Product:
    """`constant` times the values `factors`, in the order of the chain."""

    constant: float
    factors: tuple[str, ...]


def product(at: Rewrite, name: str, node: Node | None = None, depth: int = DEPTH) -> Product:
    """The value `name` (made by `node`, if that is not in the graph yet) as a product of values of
    its own shape. A value that is none is a product of itself.
    """
    made = at.maker(name) if node is None else node
    one = Product(1.0, (name,))
    if made is None or depth == 0 or made.options.get("activation") not in (None, "none"):
        return one
    op = op_of(made)
    if op == "square" or (op == "pow" and made.options["exponent"] in (2, 3)):
        n = 2 if op == "square" else int(made.options["exponent"])
        return _times(one, *[product(at, str(made.inputs[0]), None, depth - 1)] * n)
    if op == "neg":
        return _times(one, product(at, str(made.inputs[0]), None, depth - 1), Product(-1.0, ()))
    if op not in ("div", "mul") or at.values[str(made.inputs[0])].type.scalar != f32:
        return one
    found = scalar(at, made)
    if found is not None:
        x, c = found
        if op == "div" and (x != made.inputs[0] or c == 0):
            return one
        factor = Product(c if op == "mul" else 1 / c, ())
        return _times(one, product(at, x, None, depth - 1), factor)
    a, b = (str(i) for i in made.inputs)
    if op == "div" or at.shape(a) != at.shape(b):
        return one
    return _times(one, product(at, a, None, depth - 1), product(at, b, None, depth - 1))


def _times(one: Product, *parts: Product) -> Product:
    """The product of products; `one` if it has too many factors."""
    factors = tuple(f for p in parts for f in p.factors)
    return one if len(factors) > LENGTH else Product(math.prod(p.constant for p in parts), factors)


def scalar(at: Rewrite, node: Node) -> tuple[str, float] | None:
    """(x, c) of a binary node with one operand of one constant, that does not widen the other."""
    a, b = (str(i) for i in node.inputs)
    for x, c in ((a, b), (b, a)):
        array = at.array(c)
        if array is not None and array.size == 1 and array.ndim <= len(at.shape(x)):
            return x, float(array.reshape(-1)[0])
    return None


def addend(at: Rewrite, name: str | None) -> tuple[str, float] | None:
    """(x, c) of a value that is x + c, c one constant."""
    made = at.maker(name, "add")
    if made is None or made.options.get("activation") not in (None, "none"):
        return None
    return scalar(at, made)
