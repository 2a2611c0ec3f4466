"""ONNX operators that work element by element: activations, arithmetic, comparisons, casts.

Each importer turns one node into calls of ops; what has no op of its own is composed of others by
its definition in the ONNX specification. Floats only, except for casts and comparisons.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from .. import ops
from ..dsl.types import f32, u8
from ..ops import Op
from .onnx_call import Call, Importer, Operator, Table
from .onnx_scope import Tensor, Unsupported, known
from .onnx_tensor import dtype_of


def number(value: float) -> Tensor:
    """An f32 constant without axes, which broadcasts to any shape."""
    return known(np.array(value, np.float32))


def _unary(name: str) -> Importer:
    return lambda n: n.emit(getattr(ops, name), n.floats(0))


def arithmetic(name: str) -> Callable[[Call, Tensor, Tensor], Tensor]:
    """A binary op of f32 operands; what it cannot broadcast is expanded first."""

    def made(n: Call, a: Tensor, b: Tensor) -> Tensor:
        op: Op = getattr(ops, name)
        try:
            return n.emit(op, a, b)
        except Unsupported:
            shape = np.broadcast_shapes(a.shape, b.shape)
            if a.shape == b.shape:
                raise
            return n.emit(op, n.expand(a, shape), n.expand(b, shape))

    return made


add, sub, mul, div = (arithmetic(name) for name in ("add", "sub", "mul", "div"))
maximum, minimum = arithmetic("maximum"), arithmetic("minimum")
greater, less, equal = (arithmetic(name) for name in ("greater", "less", "equal"))


def _binary(name: str) -> Importer:
    return lambda n: _broadcast(n, arithmetic(name), n.floats(0), n.floats(1))


def _broadcast(
    n: Call, do: Callable[[Call, Tensor, Tensor], Tensor], a: Tensor, b: Tensor
) -> Tensor:
    try:
        np.broadcast_shapes(a.shape, b.shape)
    except ValueError:
        raise Unsupported(f"{list(a.shape)} and {list(b.shape)} do not broadcast") from None
    return do(n, a, b)


def _folded(n: Call, name: str) -> Tensor:
    """All inputs through a binary op, from the first."""
    found = n.floats(0)
    for i in range(1, len(n.inputs)):
        found = _broadcast(n, arithmetic(name), found, n.floats(i))
    return found


def _variadic(name: str) -> Importer:
    return lambda n: _folded(n, name)


def _mean(n: Call) -> Tensor:
    return mul(n, _folded(n, "add"), number(1 / len(n.inputs)))


def _clip(n: Call) -> Tensor:
    x = n.floats(0)
    if n.opset < 11:
        limits = [number(n.real("min", -math.inf)), number(n.real("max", math.inf))]
    else:
        given = [n.given(1), n.given(2)]
        limits = [
            number(v) if t is None else t for t, v in zip(given, (-math.inf, math.inf), strict=True)
        ]
    low, high = limits
    if low.array is None or high.array is None or low.array.size != 1 or high.array.size != 1:
        x = x if n.given(1) is None and n.opset >= 11 else maximum(n, x, low)
        return x if high.array is not None and np.isinf(high.array).all() else minimum(n, x, high)
    first, last = float(low.array.item()), float(high.array.item())
    # Where the limits cross, every value is the upper one.
    return n.emit(ops.clip, x, low=min(first, last), high=last)


def _cast(n: Call) -> Tensor:
    to = dtype_of(n.integer("to"), n.node.label)
    n.integer("saturate", 1)
    n.text("round_mode", "up")
    return n.cast(n.need(0), to)


def _cast_like(n: Call) -> Tensor:
    n.integer("saturate", 1)
    n.text("round_mode", "up")
    return n.cast(n.need(0), n.need(1).dtype)


def _as_floats(n: Call, at: int) -> Tensor:
    """Input `at` for a comparison; integers of 8 bits and bool are exact in f32."""
    x = n.need(at)
    if x.dtype in (np.uint8, np.int8, np.bool_):
        return n.cast(x, np.float32) if x.array is None else known(x.array.astype(np.float32))
    return x


def truth(n: Call, x: Tensor) -> Tensor:
    """The u8 result of a comparison as bool."""
    return n.typed(x, np.bool_)


def _comparison(name: str) -> Importer:
    def imported(n: Call) -> Tensor:
        return truth(n, _broadcast(n, arithmetic(name), _as_floats(n, 0), _as_floats(n, 1)))

    return imported


def _either(n: Call, a: Tensor, b: Tensor) -> Tensor:
    """Whether one of two truths holds."""
    both = maximum(n, n.cast(a, np.float32), n.cast(b, np.float32))
    return truth(n, n.emit(ops.cast, both, to=u8))


def _or_equal(name: str) -> Importer:
    def imported(n: Call) -> Tensor:
        a, b = _as_floats(n, 0), _as_floats(n, 1)
        strictly = _broadcast(n, arithmetic(name), a, b)
        return _either(n, truth(n, strictly), truth(n, equal(n, a, b)))

    return imported


def inverse(n: Call, x: Tensor) -> Tensor:
    """not x."""
    made = truth(n, equal(n, n.cast(x, np.float32), number(0)))
    n.scope.inverses[str(made.name)] = x
    return made


def _logic(name: str) -> Importer:
    def imported(n: Call) -> Tensor:
        a, b = (n.cast(n.need(i), np.float32) for i in (0, 1))
        if name == "xor":
            both = n.emit(ops.abs, _broadcast(n, sub, a, b))
        else:
            both = _broadcast(n, minimum if name == "and" else maximum, a, b)
        return truth(n, n.emit(ops.cast, both, to=u8))

    return imported


def where(n: Call, condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """a where the condition holds, else b, broadcast."""
    try:
        shape = np.broadcast_shapes(condition.shape, a.shape, b.shape)
    except ValueError:
        raise Unsupported(
            f"{list(condition.shape)}, {list(a.shape)}, {list(b.shape)} do not broadcast"
        ) from None
    try:
        return n.emit(ops.where, condition, a, b)
    except Unsupported:
        if condition.shape == a.shape == b.shape:
            raise
        return n.emit(ops.where, *(n.expand(t, shape) for t in (condition, a, b)))


def _where(n: Call) -> Tensor:
    condition, a, b = n.need(0), n.floats(1), n.floats(2)
    opposite = n.scope.inverses.get(str(condition.name))
    return where(n, condition, a, b) if opposite is None else where(n, opposite, b, a)


def _pow(n: Call) -> Tensor:
    x, exponent = n.floats(0), n.constant(1)
    values = np.unique(exponent)
    if values.size != 1:
        raise Unsupported("exponents that differ")
    shape = np.broadcast_shapes(x.shape, exponent.shape)
    return n.emit(ops.pow, n.expand(x, shape), exponent=float(values[0]))


def _identity(n: Call) -> Tensor:
    return n.need(0)


def _dropout(n: Call) -> tuple[Tensor, ...]:
    n.integer("seed", 0)
    n.real("ratio", 0.5)
    training = n.optional(2)
    if training is not None and training.any():
        raise Unsupported("training")
    x = n.need(0)
    if len([o for o in n.node.outputs if o]) < 2:
        return (x,)
    return x, known(np.ones(x.shape, np.bool_))


def _is_nan(n: Call) -> Tensor:
    x = n.floats(0)
    return inverse(n, truth(n, equal(n, x, x)))


def _is_inf(n: Call) -> Tensor:
    x = n.floats(0)
    positive, negative = n.integer("detect_positive", 1), n.integer("detect_negative", 1)
    if positive and negative:
        x = n.emit(ops.abs, x)
    elif not positive and not negative:
        raise Unsupported("detect_positive=0 with detect_negative=0")
    edge = math.inf if positive else -math.inf
    return truth(n, equal(n, x, number(edge)))


def _sign(n: Call) -> Tensor:
    x = n.floats(0)
    above, below = (n.emit(ops.cast, do(n, x, number(0)), to=f32) for do in (greater, less))
    return sub(n, above, below)


def _selu(n: Call) -> Tensor:
    x = n.floats(0)
    curve = n.emit(ops.elu, x, alpha=n.real("alpha", 1.67326319217681884765625))
    return mul(n, curve, number(n.real("gamma", 1.05070102214813232421875)))


def _celu(n: Call) -> Tensor:
    x, alpha = n.floats(0), n.real("alpha", 1.0)
    if alpha == 0:
        raise Unsupported("alpha=0")
    # max(0, x) + min(0, alpha * (exp(x / alpha) - 1)) is alpha * elu(x / alpha).
    curve = n.emit(ops.elu, div(n, x, number(alpha)), alpha=1.0)
    return mul(n, curve, number(alpha))


def _thresholded(n: Call) -> Tensor:
    x = n.floats(0)
    above = greater(n, x, number(n.real("alpha", 1.0)))
    return where(n, above, x, number(0))


def _shrink(n: Call) -> Tensor:
    x, edge, bias = n.floats(0), n.real("lambd", 0.5), n.real("bias", 0.0)
    upper = where(n, greater(n, x, number(edge)), sub(n, x, number(bias)), number(0))
    lower = where(n, less(n, x, number(-edge)), add(n, x, number(bias)), upper)
    return lower


def _softsign(n: Call) -> Tensor:
    x = n.floats(0)
    return div(n, x, add(n, n.emit(ops.abs, x), number(1)))


def _mish(n: Call) -> Tensor:
    x = n.floats(0)
    return mul(n, x, n.emit(ops.tanh, n.emit(ops.softplus, x)))


def _gelu(n: Call) -> Tensor:
    kind = n.one("approximate", ("none", "tanh"), "none")
    return n.emit(ops.gelu, n.floats(0), approximate=kind == "tanh")


def _prelu(n: Call) -> Tensor:
    x, slope = n.floats(0), n.floats(1)
    if slope.rank == 1 < x.rank and slope.shape[0] == x.shape[1] != x.shape[-1]:
        # Exporters of the time when this operator did not broadcast give one slope a channel.
        slope = n.reshape(slope, (*slope.shape, *(1,) * (x.rank - 2)))
    return n.emit(ops.prelu, x, slope)


def _elu(n: Call) -> Tensor:
    return n.emit(ops.elu, n.floats(0), alpha=n.real("alpha", 1.0))


def _leaky(n: Call) -> Tensor:
    return n.emit(ops.leaky_relu, n.floats(0), slope=n.real("alpha", 0.01))


def _hard_sigmoid(n: Call) -> Tensor:
    alpha, beta = n.real("alpha", 0.2), n.real("beta", 0.5)
    return n.emit(ops.hard_sigmoid, n.floats(0), alpha=alpha, beta=beta)


_FLOAT = "f32 only"
_UNARY = {
    "Abs": "abs", "Ceil": "ceil", "Erf": "erf", "Exp": "exp", "Floor": "floor",
    "HardSwish": "hardswish", "Log": "log", "Neg": "neg", "Reciprocal": "reciprocal",
    "Relu": "relu", "Round": "round", "Sigmoid": "sigmoid", "Softplus": "softplus",
    "Sqrt": "sqrt", "Tanh": "tanh",
}  # fmt: skip
ELEMENTS: Table = {
    **{kind: Operator(_unary(name), note=_FLOAT) for kind, name in _UNARY.items()},
    "Add": Operator(_binary("add"), note=_FLOAT),
    "And": Operator(_logic("and")),
    "Cast": Operator(_cast, note="not to or from double, 16-bit and unsigned wide integers"),
    "CastLike": Operator(_cast_like, note="as Cast"),
    "Celu": Operator(_celu, note=_FLOAT),
    "Clip": Operator(_clip, note=_FLOAT),
    "Div": Operator(_binary("div"), note=_FLOAT),
    "Dropout": Operator(_dropout, (1, 2), note="inference only"),
    "Elu": Operator(_elu, note=_FLOAT),
    "Equal": Operator(_comparison("equal"), note="f32, 8 bits, bool"),
    "Gelu": Operator(_gelu, note=_FLOAT),
    "Greater": Operator(_comparison("greater"), note="f32, 8 bits"),
    "GreaterOrEqual": Operator(_or_equal("greater"), note="f32, 8 bits"),
    "HardSigmoid": Operator(_hard_sigmoid, note=_FLOAT),
    "Identity": Operator(_identity, note="tensors"),
    "IsInf": Operator(_is_inf, note=_FLOAT),
    "IsNaN": Operator(_is_nan, note=_FLOAT),
    "LeakyRelu": Operator(_leaky, note=_FLOAT),
    "Less": Operator(_comparison("less"), note="f32, 8 bits"),
    "LessOrEqual": Operator(_or_equal("less"), note="f32, 8 bits"),
    "Max": Operator(_variadic("maximum"), note=_FLOAT),
    "Mean": Operator(_mean, note=_FLOAT),
    "Min": Operator(_variadic("minimum"), note=_FLOAT),
    "Mish": Operator(_mish, note=_FLOAT),
    "Mul": Operator(_binary("mul"), note=_FLOAT),
    "Not": Operator(lambda n: inverse(n, n.need(0))),
    "Or": Operator(_logic("or")),
    "PRelu": Operator(_prelu, note=_FLOAT),
    "Pow": Operator(_pow, (1,), note="f32 to one constant exponent"),
    "Selu": Operator(_selu, note=_FLOAT),
    "Shrink": Operator(_shrink, note=_FLOAT),
    "Sign": Operator(_sign, note=_FLOAT),
    "Softsign": Operator(_softsign, note=_FLOAT),
    "Sub": Operator(_binary("sub"), note=_FLOAT),
    "Sum": Operator(_variadic("add"), note=_FLOAT),
    "ThresholdedRelu": Operator(_thresholded, note=_FLOAT),
    "Where": Operator(_where, note="f32 only"),
    "Xor": Operator(_logic("xor")),
}
