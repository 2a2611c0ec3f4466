"""Weave: four vectors whose lanes are interwoven, because that is how registers of bytes interlock.

A dot product of 4 bytes wants [lane][4 rows]; four rows of 64 bytes in memory become that by two
rounds of interleaving inside 16 bytes, one load and two instructions a register. Vector k of the
four then holds, of every 16 channels, the four from 4k on. Weights are packed and scales loaded in
that order, and narrowing to bytes puts it right again at no cost. Only the order is here.
"""

from __future__ import annotations

import numpy as np

TOGETHER = 4  # vectors, and lanes that stay neighbours


def places(vector: int, lanes: int, woven: bool) -> list[int]:
    """Where each 4 neighbouring lanes of a vector lie along the lanes' axis, from the tile on."""
    if not woven:
        return [vector * lanes + 4 * c for c in range(lanes // 4)]
    block, k = divmod(vector, TOGETHER)
    return [block * TOGETHER * lanes + 16 * c + 4 * k for c in range(lanes // 4)]


def woven_order(size: int, lanes: int) -> np.ndarray:
    """For each place of whole blocks of vectors, which element along the lanes is there."""
    starts = [p for v in range(size // lanes) for p in places(v, lanes, True)]
    return (np.array(starts)[:, None] + np.arange(4)).ravel()


def whole(size: int, lanes: int) -> bool:
    """Whether a tile of that many elements is blocks of four vectors."""
    return size % (TOGETHER * lanes) == 0
