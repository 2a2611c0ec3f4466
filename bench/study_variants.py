"""The paper's anchors and auxiliary allocations as Dataflows.

Turns a layer and a target into named variants: lanes along the reduced channels, one accumulator
for an output, no register tile. It compiles nothing. What the paper has and a Dataflow cannot say
is in INEXPRESSIBLE.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from simdflow.dsl.dataflow import Dataflow
from simdflow.targets import Target

from .cases import Case

WORKING = 3  # registers for an accumulator and the two operands of the current product
LONGEST = 100  # products in a body that is worth repeating, so that names rotate and nothing moves
NAIVE = "basic"  # the allocation without auxiliary registers
LEFT = "left to LLVM"  # the same program as basic, without barriers
OWN = "simdflow"  # the variant that is not the paper's: what the cost model picks by itself
BOTH = ("weights first", "inputs first")  # OS with auxiliary registers for both operands

INEXPRESSIBLE = (
    "IS by input position (for k, ih, iw: for r, s: out[ih - r, iw - s] += ...), outputs rotating "
    "through registers: a loop runs over an axis of the nest, and ih = oh * stride + r is none. "
    "IS here keeps an input over the output channels instead; it is the same count of operations "
    "a product, with K in the place of R.",
    "IS weights first: without input positions every tap has a weight of its own.",
    "WS with the first N positions of an image kept over all taps: a kept register serves a whole "
    "loop. The paper's own count gives it 2 N (R - 1) of 3 R E operations, below 2 %. WS here "
    "keeps the outputs over a row of taps instead.",
    "OS with a horizontal sum at every tap (the paper's baseline): a Dataflow sums lanes once. The "
    "gains here are without that part.",
)


@dataclass(frozen=True)
class Variant:
    """One program of a layer.

    anchor      "OS", "WS", "IS", or "" for our own choice
    allocation  "basic", or who gets the auxiliary registers
    kept        registers of (weights, inputs, outputs) that are kept besides the working ones
    flow        None: the default dataflow
    barriers    LLVM may keep nothing in registers besides (barrier.py)
    """

    anchor: str
    allocation: str
    kept: tuple[int, int, int]
    flow: Dataflow | None
    barriers: bool = True

    @property
    def name(self) -> str:
        return f"{self.anchor} {self.allocation}".strip()


def variants(case: Case, target: Target) -> list[Variant]:
    """The paper's variants of a layer in a fixed order, then our own."""
    shape = _Shape(case, target)
    found = [
        shape.os(NAIVE, 0, 0),
        replace(shape.os(LEFT, 0, 0), barriers=False),
        shape.os("weights", min(shape.free, shape.weights), 0),
        shape.os("inputs", 0, min(shape.free, shape.reused)),
        shape.os("weights first", *shape.shared(weights_first=True)),
        shape.os("inputs first", *shape.shared(weights_first=False)),
        shape.ws(1, NAIVE),
        shape.ws(case.k, "outputs"),
    ]
    if case.op == "conv2d":
        found += [shape.is_(1, NAIVE), shape.is_(shape.outputs(), "outputs first")]
    return [*found, Variant("", OWN, (0, 0, 0), None, barriers=False)]


class _Shape:
    """YFlows' counts for one layer and target: registers that are free, taps, inputs used again."""

    def __init__(self, case: Case, target: Target) -> None:
        self.case = case
        self.deep = case.op == "conv2d"
        self.width = _width(case, target)
        lanes = self.width // 32
        groups = target.groups("u8", "i8", "i32", widened=False) if self.deep else (1,)
        self.vector = self.width if case.dtype == "bit" else lanes * max(groups)
        blocks = -(-case.ic // self.vector) if self.deep else 1
        # The paper has 32 registers but 3; LLVM spills before all are planned, so of the budget.
        self.free = target.budget - WORKING
        self.weights = case.k * case.k * blocks
        self.reused = case.k * max(case.k - case.stride, 0) * blocks
        self.lanes = "ic" if self.deep else "c"
        self.group = "ic" if self.deep and (case.dtype == "bit" or max(groups) > 1) else ""
        self.filters = "oc" if self.deep else "c"
        self.taps = {"kh": case.k, "kw": case.k}

    def shared(self, weights_first: bool) -> tuple[int, int]:
        """(weights, inputs) kept when one operand gets its registers before the other."""
        if weights_first:
            kept = min(self.free, self.weights)
            return kept, min(self.free - kept, self.reused)
        inputs = min(self.free, self.reused)
        return min(self.free - inputs, self.weights), inputs

    def outputs(self) -> int:
        """Output channels of one pixel kept in registers: the largest divisor of K that fits."""
        k = self.case.oc
        return max(n for n in range(1, min(k, self.free) + 1) if k % n == 0)

    def os(self, allocation: str, weights: int, inputs: int) -> Variant:
        """The whole window in the body; the loop over columns unrolled so that inputs rotate."""
        unroll = {**self.taps, **self._depth(self.case.ic)}
        columns = max(self.case.k - self.case.stride, 1)
        if inputs and self.weights <= LONGEST:
            unroll["ow"] = columns
        registers = {"x": inputs + 1}  # one more than is kept, for what is not
        if weights:
            registers["w"] = min(weights + 1, self.weights)
            weights = self.weights if registers["w"] == self.weights else weights
        flow = self._flow("out", ("kh", "kw"), unroll, registers)
        return Variant("OS", allocation, (weights, inputs, 0), flow)

    def ws(self, taps: int, allocation: str) -> Variant:
        """Weights of `taps` neighbouring taps stay for all outputs; sums are in memory."""
        unroll = {"kw": taps, **self._depth(self.vector)}
        # The reduction outside the image: each weight is loaded once.
        order = (self.filters, "kh", "kw", *self._inner(), "oh", "ow")
        flow = self._made("w", order, unroll, {}, {"x": 1})
        return Variant("WS", allocation, (taps - 1, 0, int(taps > 1)), flow)

    def is_(self, outputs: int, allocation: str) -> Variant:
        """An input stays for all output channels, or for those whose sums are in registers."""
        unroll = self._depth(self.vector)
        if outputs == 1:
            order = ("oh", "ow", "kh", "kw", "ic", "oc")
            return Variant(
                "IS", allocation, (0, 0, 0), self._made("x", order, unroll, {}, {"w": 1})
            )
        order = ("oc", "oh", "ow", "kh", "kw", "ic")
        tile = {"oc": outputs}
        return Variant(
            "IS", allocation, (0, 0, outputs - 1), self._made("x", order, unroll, tile, {"w": 1})
        )

    def _inner(self) -> tuple[str, ...]:
        return ("ic",) if self.deep else ()

    def _depth(self, channels: int) -> dict[str, int]:
        return {"ic": channels} if self.deep else {}

    def _flow(
        self, anchor: str, taps: tuple[str, ...], unroll: dict[str, int], registers: dict[str, int]
    ) -> Dataflow:
        order = (self.filters, "oh", "ow", *taps, *self._inner())
        return self._made(anchor, order, unroll, {}, registers)

    def _made(
        self,
        anchor: str,
        order: tuple[str, ...],
        unroll: dict[str, int],
        tile: dict[str, int],
        registers: dict[str, int],
    ) -> Dataflow:
        return Dataflow(
            anchor=anchor,
            order=order,
            unroll=unroll,
            tile=tile,
            auxiliary=registers,
            lanes=self.lanes,
            group=self.group,
            width=self.width,
        )


def _width(case: Case, target: Target) -> int:
    """The widest vector that the channels fill."""
    if case.dtype != "bit" or case.op != "conv2d":
        return target.width
    return max((n for n in (64, 128, 256, 512) if n <= min(case.ic, target.width)), default=64)
