"""The nests of the study, with arrays and results: sums of int8 or binary products.

Turns a case into a Layer, which makes the kernel of any variant and runs it on buffers of its own.
Every variant has the same accumulator, i32, and none requantizes; the paper's released kernels sum
in 8 bits that wrap around, and their outputs are wrong. It times nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

import simdflow as sf
from simdflow.tuning.space import Space

from .cases import Case, Run, sums_of
from .study_variants import OWN, Variant

SEED = 2024


def sums(x, w, out, *, stride=1):
    """out[oc,oh,ow] = sum of x[oh*stride + kh, ow*stride + kw, ic] * w[oc,kh,kw,ic]

    The paper's layout: filters [K][R][S][c], and outputs [K][OH][OW], a filter's in one piece.
    """
    for n, oc, oh, ow in sf.grid(out.shape):
        acc = sf.i32(0)
        for kh, kw, ic in sf.reduce(w.shape[1:]):
            acc += x[n, oh * stride + kh, ow * stride + kw, ic] * w[oc, kh, kw, ic]
        out[n, oc, oh, ow] = acc


def bit_sums(x, w, out, *, stride=1):
    """The same over +1 and -1."""
    for n, oc, oh, ow in sf.grid(out.shape):
        acc = sf.i32(0)
        for kh, kw, ic in sf.reduce(w.shape[1:]):
            acc += sf.xnor_popcount(x[n, oh * stride + kh, ow * stride + kw, ic], w[oc, kh, kw, ic])
        out[n, oc, oh, ow] = acc


def own_sums(x, w, out, *, stride=1):
    """The same sums in simdflow's layout: channels last, in the output too."""
    for n, oh, ow, oc in sf.grid(out.shape):
        acc = sf.i32(0)
        for kh, kw, ic in sf.reduce(w.shape[1:]):
            acc += x[n, oh * stride + kh, ow * stride + kw, ic] * w[oc, kh, kw, ic]
        out[n, oh, ow, oc] = acc


def own_bit_sums(x, w, out, *, stride=1):
    """The same over +1 and -1."""
    for n, oh, ow, oc in sf.grid(out.shape):
        acc = sf.i32(0)
        for kh, kw, ic in sf.reduce(w.shape[1:]):
            acc += sf.xnor_popcount(x[n, oh * stride + kh, ow * stride + kw, ic], w[oc, kh, kw, ic])
        out[n, oh, ow, oc] = acc


def depthwise_sums(x, w, out, *, stride=1):
    """out[oh,ow,c] = sum of x[oh*stride + kh, ow*stride + kw, c] * w[kh,kw,c]"""
    for n, oh, ow, c in sf.grid(out.shape):
        acc = sf.i32(0)
        for kh, kw in sf.reduce(w.shape[:2]):
            acc += x[n, oh * stride + kh, ow * stride + kw, c] * w[kh, kw, c]
        out[n, oh, ow, c] = acc


@dataclass(frozen=True, eq=False)
class Layer:
    """A case with its numbers.

    x           the input inside its border: u8, or bits packed along the channels
    w           [oc, kh, kw, ic]; depthwise [kh, kw, c]
    expected    i32 sums, [1, oh, ow, oc]
    """

    case: Case
    x: Any
    w: sf.PackedOperand
    expected: np.ndarray

    def kernel(self, variant: Variant, target: str) -> sf.CompiledKernel:
        """The kernel of a variant. Its stages raise DataflowError if the variant does not fit."""
        function = sf.kernel(self._function(self._filters_first(variant)))
        given = self._given(self._filters_first(variant))
        return function.specialize(target=target, dataflow=variant.flow, **given)

    def space(self, target: str) -> Space:
        """The dataflows of the nest in simdflow's layout."""
        return sf.dataflows(sf.kernel(self._function(False)), target=target, **self._given(False))

    def run(self, variant: Variant, made: sf.CompiledKernel) -> Run:
        """The kernel bound to an output of its own, in which no sum is right at first."""
        first = self._filters_first(variant)
        shape = np.transpose(self.expected, (0, 3, 1, 2)).shape if first else self.expected.shape
        out = np.full(shape, np.iinfo(np.int32).min, np.int32)
        call = made.bind(x=self.x, w=self.w, out=out)
        return Run(call, lambda: (out.transpose(0, 2, 3, 1) if first else out).copy())

    def wrong(self, found: np.ndarray) -> str:
        """Why a result is not numpy's, or ""."""
        differing = int(np.count_nonzero(found != self.expected))
        return f"{differing} of {self.expected.size} sums differ" if differing else ""

    @cached_property
    def _x_type(self) -> sf.OperandType:
        if self.case.dtype == "bit":
            found: sf.OperandType = self.x.type
            return found
        return sf.u8[self.x.shape]

    def _given(self, filters_first: bool) -> dict[str, Any]:
        out = self.expected.shape
        if filters_first:
            out = (out[0], out[3], out[1], out[2])
        types = {"x": self._x_type, "w": self.w.type, "out": sf.i32[out]}
        return {**types, "stride": self.case.stride}

    def _filters_first(self, variant: Variant) -> bool:
        return variant.name != OWN and self.case.op == "conv2d"

    def _function(self, filters_first: bool) -> Any:
        if self.case.op != "conv2d":
            return depthwise_sums
        bits = self.case.dtype == "bit"
        if filters_first:
            return bit_sums if bits else sums
        return own_bit_sums if bits else own_sums


def layer(case: Case) -> Layer:
    """Random numbers for a case, and its sums by numpy in float64, which are exact."""
    rng = np.random.default_rng(SEED)
    deep = case.op == "conv2d"
    shape = (case.k, case.k, case.ic, case.oc) if deep else (case.k, case.k, case.ic)
    at = (1, case.h, case.w, case.ic)
    border = ((0, 0), *case.padding, (0, 0))
    order = (3, 0, 1, 2) if deep else (0, 1, 2)
    if case.dtype == "bit":
        x, w = (rng.integers(0, 2, s, np.int8) * 2 - 1 for s in (at, shape))
        expected = sums_of(case, x, w, border=1).astype(np.int32)
        packed = sf.pack_bits(np.pad(x, border, constant_values=1))
        return Layer(case, packed, sf.pack(sf.pack_bits(w.transpose(order))), expected)
    x, w = rng.integers(0, 256, at, np.uint8), rng.integers(-127, 128, shape, np.int8)
    expected = sums_of(case, x, w).astype(np.int32)
    inside = np.ascontiguousarray(np.pad(x, border))
    return Layer(case, inside, sf.pack(np.ascontiguousarray(w.transpose(order))), expected)
