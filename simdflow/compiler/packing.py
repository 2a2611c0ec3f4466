"""Packing: an operand in a kernel's order, as a description and as the numpy code for it.

packed   for each tile of the lane axis: [axes in loop order][vector of the tile][lane][group
         element] then, where the instruction needs them, one i32 per lane and other grid point: the
         start of its sum
Lane and group tails are zero. Knows nothing of registers.
"""

from __future__ import annotations

import itertools
import math
import mmap
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from ..dsl.nest import Affine, Quotient, integer
from ..dsl.types import SCALARS
from .weave import woven_order

LARGE_PAGE = 1 << 21  # bytes


@dataclass(frozen=True)
class Packing:
    """How one operand is laid out for a kernel.

    axes           (axis, extent) of every axis it mentions but the lanes', in loop order
    coefficients   axis -> elements of the dense operand per step
    sums           -128 * sum over the reduction is appended, for instructions that take one side as
                   unsigned
    shifts         so many versions, each with its group elements `shift_stride` further on (see
                   plan.Shift)
    period         the lanes repeat after so many, and the tile is the same everywhere; 0 if not
    woven          lanes in the order of four interwoven vectors, where whole blocks of them are
                   (see weave.py)
    words          bytes as 16-bit numbers, of each vector the even group elements before the odd
                   ones, for an instruction that multiplies words (`dot_words`)
    """

    operand: str
    scalar: str
    lane: str
    lane_extent: int
    lanes: int
    tile: int
    group: int
    group_axis: str
    axes: tuple[tuple[str, int], ...]
    coefficients: tuple[tuple[str, int], ...]
    start: int
    reduced: tuple[str, ...]
    sums: bool
    shifts: int = 1
    shift_stride: int = 0
    period: int = 0
    woven: bool = False
    words: bool = False

    @property
    def stored(self) -> str:
        """The type of a stored element."""
        return "u8" if self.scalar == "bit" else "i16" if self.words else self.scalar

    @property
    def unit(self) -> int:
        """Stored elements per logical element: bits are stored as bytes."""
        return 8 if self.scalar == "bit" else 1

    @property
    def sections(self) -> tuple[tuple[int, int, int], ...]:
        """(start, stop, padded size) of the lane axis: whole tiles, the rest in whole vectors."""
        if not self.lane:
            return ((0, 1, 1),)
        step = self.lanes * (self.group if self.lane == self.group_axis else 1)
        whole = self.lane_extent - self.lane_extent % self.tile
        parts = [(0, whole, self.tile)] if whole else []
        rest = self.lane_extent - whole
        return tuple(parts + ([(whole, self.lane_extent, -(-rest // step) * step)] if rest else []))

    @property
    def inner_group(self) -> int:
        """Group elements beside each lane: 1 when the lanes run along the group axis itself."""
        return 1 if self.lane == self.group_axis and self.lane else self.group

    def counts(self) -> tuple[tuple[str, int], ...]:
        """(axis, steps): the group axis counts groups."""
        return tuple((a, -(-n // self.group) if a == self.group_axis else n) for a, n in self.axes)

    @property
    def elements(self) -> int:
        """Stored elements (bytes for bits), without the sums."""
        outer = math.prod(n for _, n in self.counts())
        lanes = sum(-(-(stop - start) // size) * size for start, stop, size in self.sections)
        return outer * lanes * self.inner_group // self.unit * self.shifts

    @property
    def bytes(self) -> int:
        """Bytes of the packed operand, sums included."""
        return self.sums_at + (4 * self.sum_count if self.sums else 0)

    @property
    def sums_at(self) -> int:
        """Where the sums begin, in bytes: the next multiple of 64."""
        size = self.elements * SCALARS[self.stored].bits // 8
        return -(-size // 64) * 64 if self.sums else size

    @property
    def sum_axes(self) -> tuple[tuple[str, int], ...]:
        """The axes that the sums are kept for: those that are not reduced."""
        return tuple((a, n) for a, n in self.axes if a not in self.reduced)

    @property
    def padded_lanes(self) -> int:
        """The lane axis in whole vectors."""
        return -(-self.lane_extent // self.lanes) * self.lanes

    @property
    def sum_count(self) -> int:
        """How many sums there are."""
        return math.prod(n for _, n in self.sum_axes) * self.padded_lanes

    def offset(self, base: dict[str, Affine], lane_start: int, size: int, shift: int = 0) -> Affine:
        """Where the tile that starts at these axis values begins, in stored elements.

        base        axis -> its value, affine in the loop variables
        lane_start  first element of the lane section; size its tile
        """
        if not self.lane:
            size = 1
        elif self.period:
            size = self.tile
        inner = size * self.inner_group
        total = Affine()
        stride = inner
        for axis, n in reversed(self.counts()):
            value = base[axis]
            if axis == self.group_axis:
                total = total.plus(scaled(value, stride, self.group))
            else:
                total = total.plus(value.times(stride))
            stride *= n
        per_section = stride
        if self.lane and not self.period:
            done = sum(
                -(-(stop - start) // s) * s * (per_section // size)
                for start, stop, s in self.sections
                if start < lane_start
            )
            position = base[self.lane].moved(-lane_start)
            total = total.plus(position.times(per_section // size)).moved(done)
        total = total.moved(shift * (self.elements // self.shifts) * self.unit)
        return scaled(total, 1, self.unit)

    def __str__(self) -> str:
        order = [f"{self.lane}/{self.tile}"] if self.lane else []
        order += [f"{a}/{self.group}" if a == self.group_axis else a for a, _ in self.axes]
        order += [f"{self.tile}{self.lane}"] if self.lane else []
        order += [f"{self.inner_group}{self.group_axis}"] if self.inner_group > 1 else []
        return f"{self.operand} packed [{', '.join(order)}], {self.bytes} bytes"


def scaled(value: Affine, factor: int, divisor: int) -> Affine:
    """value * factor / divisor, for values that are multiples of `divisor` in every loop."""
    terms = value.times(factor)
    sizes = [(t, integer(c)) for t, c in terms.terms]
    const = integer(terms.const)
    if all(n % divisor == 0 for n in (*(c for _, c in sizes), const)):
        return Affine(tuple((t, c // divisor) for t, c in sizes), const // divisor)
    return Affine(((Quotient("//", value, divisor), factor),))


def pack(array: np.ndarray, packing: Packing) -> np.ndarray:
    """The packed bytes (u8, 64-byte aligned) of a dense operand given as a flat, C-ordered array of
    its elements.

    A `bit` operand is given as its bytes.
    """
    p = packing
    flat = array
    if p.scalar == "bit":
        flat = np.unpackbits(array.ravel().view(np.uint8), bitorder="little")
    flat = flat.ravel()
    names = [a for a, _ in p.axes] + ([p.lane] if p.lane else [])
    sizes = [n for _, n in p.axes] + ([p.period or p.lane_extent] if p.lane else [])
    steps = dict(p.coefficients)
    dense = np.lib.stride_tricks.as_strided(
        flat[p.start :], sizes, [steps[a] * flat.itemsize for a in names], writeable=False
    )
    if not p.lane:
        dense = dense[..., None]
    if p.period:
        dense = np.concatenate([dense] * (p.lane_extent // p.period), axis=-1)
    out, at = aligned(p.bytes), 0
    for shift, (start, stop, size) in itertools.product(range(p.shifts), p.sections):
        panels = _panels(dense[..., start:stop], p, size, shift * p.shift_stride)
        raw = (
            np.packbits(panels, bitorder="little")
            if p.scalar == "bit"
            else panels.ravel().view(np.uint8)
        )
        out[at : at + raw.nbytes] = raw
        at += raw.nbytes
    assert at == p.elements * SCALARS[p.stored].bits // 8, (at, p.elements)
    if p.sums:
        axes = tuple(i for i, (a, _) in enumerate(p.axes) if a in p.reduced)
        sums = -128 * dense.sum(axis=axes, dtype=np.int64)
        padded = np.zeros((*sums.shape[:-1], p.padded_lanes), np.int32)
        padded[..., : p.lane_extent] = sums.astype(np.int32)
        out[p.sums_at :].view(np.int32)[:] = padded.ravel()
    return out


def _panels(dense: np.ndarray, p: Packing, size: int, shift: int) -> np.ndarray:
    """[axes..., lanes] to [tile][axes..., groups][lane][group element], zero-padded."""
    lead = [(0, 0)] * (dense.ndim - 1)
    tiles = -(-dense.shape[-1] // size)
    if p.woven and dense.shape[-1] % (4 * p.lanes) == 0:
        dense = dense[..., woven_order(dense.shape[-1], p.lanes)]
    dense = np.pad(dense, [*lead, (0, tiles * size - dense.shape[-1])])
    names = [a for a, _ in p.axes]
    split = p.inner_group > 1
    if split:
        g = names.index(p.group_axis)
        n = dense.shape[g]
        pad = [(0, 0)] * dense.ndim
        pad[g] = (shift, -(shift + n) % p.group)
        dense = np.pad(dense, pad)
        shape = (*dense.shape[:g], dense.shape[g] // p.group, p.group, *dense.shape[g + 1 :])
        dense = np.moveaxis(dense.reshape(shape), g + 1, -1)
        dense = dense.reshape(*dense.shape[:-2], tiles, size, p.group)
        dense = np.moveaxis(dense, -3, 0)
    else:
        dense = np.moveaxis(dense.reshape(*dense.shape[:-1], tiles, size), -2, 0)
    if p.words:
        pairs = dense.reshape(*dense.shape[:-2], -1, p.lanes, p.group // 2, 2).astype(np.int16)
        dense = np.moveaxis(pairs, -1, -3)
    return np.ascontiguousarray(dense)


def aligned(size: int, alignment: int = 64) -> np.ndarray:
    """`size` zero bytes at a multiple of `alignment`, so that no vector load crosses a line.

    From 2 MB on they lie in large pages, where Linux has some: numpy adds up 8 MB in 327 us so, in
    pages of 4 KB in 427 (one Zen 4 core in a virtual machine).
    """
    if size < LARGE_PAGE or not hasattr(mmap, "MADV_HUGEPAGE"):
        raw = np.zeros(size + alignment, np.uint8)
        start = -raw.ctypes.data % alignment
        return raw[start : start + size]
    # Unmapped when no array looks at it any more; shared memory would have no large pages.
    memory = mmap.mmap(-1, size + LARGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a kernel without large pages
        memory.madvise(mmap.MADV_HUGEPAGE)
    raw = np.frombuffer(memory, np.uint8)
    start = -raw.ctypes.data % LARGE_PAGE
    return raw[start : start + size]
