"""Loop nests whose indices are integers that an operand holds, or that permute axes; see
`sample_kernels`.
"""

from __future__ import annotations

import simdflow as sf


@sf.kernel
def embedded(table, ids, bias, out):
    for n, i, c in sf.grid(ids.shape[0], ids.shape[1], table.shape[1]):
        out[n, i, c] = table[ids[n, i], c] + bias[i, c]


@sf.kernel
def bags(table, ids, out):
    for n, c in sf.grid(ids.shape[0], table.shape[1]):
        acc = sf.i32(0)
        for i in sf.reduce(ids.shape[1]):
            acc += table[ids[n, i] * 2 + 1, c]
        out[n, c] = acc


@sf.kernel
def channels_last(x, y, out):
    for h, w, c in sf.grid(out.shape):
        out[h, w, c] = sf.max(x[c, h, w], y[h, w, c])
