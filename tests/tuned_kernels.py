"""The kernels that the tests of tuning tune: small, and in a file that child processes import."""

from __future__ import annotations

from typing import Any

import simdflow as sf


@sf.kernel
def dense(x: Any, w: Any, out: Any) -> None:
    """out[m,n] = sum over k of x[m,k] * w[k,n], as i32."""
    for m, n in sf.grid(out.shape):
        acc = sf.i32(0)
        for k in sf.reduce(w.shape[0]):
            acc += x[m, k] * w[k, n]
        out[m, n] = acc


@sf.kernel
def dense_f32(x: Any, w: Any, out: Any) -> None:
    """out[m,n] = sum over k of x[m,k] * w[k,n]."""
    for m, n in sf.grid(out.shape):
        acc = sf.f32(0)
        for k in sf.reduce(w.shape[0]):
            acc += x[m, k] * w[k, n]
        out[m, n] = acc


@sf.kernel
def relu(x: Any, out: Any) -> None:
    """out[m,n] = max(x[m,n], 0)."""
    for m, n in sf.grid(out.shape):
        out[m, n] = sf.max(x[m, n], sf.f32(0))
