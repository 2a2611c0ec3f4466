"""+1/-1 values to packed words and back: one bit a value, 1 for +1, little-endian in the last axis.

The layout is `numpy.packbits(..., bitorder="little")`: channel c of a pixel is bit `c % 8` of byte
`c // 8`, and the bits after the last channel are 0. Computes nothing with them.
"""

from __future__ import annotations

import numpy as np

from .errors import OperandError


def pack_bits(values: np.ndarray) -> np.ndarray:
    """`(..., C)` values, positive for +1, to `(..., ceil(C/8))` uint8 words."""
    values = np.asarray(values)
    if values.ndim == 0:
        raise OperandError("pack_bits: values has no axis; at least one is packed. Pass an array.")
    return np.packbits(values > 0, axis=-1, bitorder="little")


def unpack_bits(words: np.ndarray, channels: int) -> np.ndarray:
    """`(..., ceil(channels/8))` uint8 words to `(..., channels)` int8 values of +1 and -1."""
    words = np.asarray(words)
    if words.dtype != np.uint8 or words.ndim == 0 or words.shape[-1] != -(-channels // 8):
        raise OperandError(
            f"unpack_bits: words is {words.dtype}{list(words.shape)}; {channels} channels are "
            f"uint8[..., {-(-channels // 8)}]. Pass what pack_bits made."
        )
    ones = np.unpackbits(words, axis=-1, count=channels, bitorder="little")
    return (ones.astype(np.int8) * 2 - 1).astype(np.int8)
