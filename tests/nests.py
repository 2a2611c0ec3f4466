"""Kernels of every kind the language has, as users write them."""

from __future__ import annotations

import math

from simdflow import dsl as sf

GAIN = 3


def conv2d(x, w, out, *, stride=1):
    """out[n,oh,ow,oc] = sum over kh,kw,ic of x[n,oh*stride+kh,ow*stride+kw,ic] * w[kh,kw,ic,oc]"""
    for n, oh, ow, oc in sf.grid(out.shape):
        acc = sf.i32(0)
        for kh, kw, ic in sf.reduce(w.shape[:3]):
            acc += x[n, oh * stride + kh, ow * stride + kw, ic] * w[kh, kw, ic, oc]
        out[n, oh, ow, oc] = acc


def grouped(x, w, bias, out, *, stride=1, groups=1):
    KH, KW, ICG, OC = w.shape
    og = OC // groups
    for n, oh, ow, oc in sf.grid(out.shape):
        first = oc // og * ICG
        acc = sf.i32(bias[oc])
        for kh, kw in sf.reduce(KH, KW):
            for ic in sf.reduce(ICG):
                acc += x[n, oh * stride + kh, ow * stride + kw, first + ic] * w[kh, kw, ic, oc]
        acc = acc >> 8
        y = sf.clip(acc, -128, 127)
        out[n, oh, ow, oc] = sf.i8(y)


def depthwise(x, w, out, *, dilation=1):
    for n, oh, ow, c in sf.grid(out.shape):
        acc = sf.i16(0, wrap=True)
        for kh, kw in sf.reduce(w.shape[:2]):
            acc += x[n, oh + kh * dilation, ow + kw * dilation, c] * w[kh, kw, c]
        out[n, oh, ow, c] = acc


def matmul(a, b, out):
    for q, m, n in sf.grid(out.shape):
        acc = sf.f32(0)
        for k in sf.reduce(a.shape[-1]):
            acc += a[q, m, k] * b[q, n, k]
        out[q, m, n] = acc


def min_pool(x, out, *, size=2):
    for n, h, w, c in sf.grid(out.shape):
        acc = sf.i8(127)
        for kh, kw in sf.reduce(size, size):
            acc = sf.min(x[n, h * size + kh, w * size + kw, c], acc)
        out[n, h, w, c] = acc


def avg_pool(x, out, *, size=2):
    for n, h, w, c in sf.grid(out.shape):
        acc = sf.f32(0)
        for kh, kw in sf.reduce((size, size)):
            acc += x[n, h * size + kh, w * size + kw, c]
        out[n, h, w, c] = acc * (1.0 / (size * size))


def row_max(x, out):
    for i in sf.grid(x.shape[0]):
        acc = sf.f32(-math.inf)
        for j in sf.reduce(x.shape[1]):
            acc = sf.max(acc, x[i, j])
        out[i] = acc * GAIN


def row_sum(x, m, out):
    for i in sf.grid(out.shape):
        acc = sf.f32(0)
        for j in sf.reduce(x.shape[1]):
            d = x[i, j] - m[i]
            acc += sf.exp(d)
        out[i] = acc


def requantize(x, multiplier, out, *, shift=31, zero_point=3):
    for i, c in sf.grid(out.shape):
        v = (sf.i64(x[i, c]) * multiplier[c] + (1 << (shift - 1))) >> shift
        v = sf.clip(v + zero_point, -128, 127)
        out[i, c] = sf.i8(v)


def add(a, b, out, *, sa=0.5, sb=0.25, za=1, relu=True):
    for i in sf.grid(a.shape[0]):
        v = sf.f32(a[i] - za) * sa + sf.f32(b[i]) * sb
        v = sf.max(v, 0) if relu else v
        out[i] = sf.u8(sf.round(v), saturate=True)


def table(x, t, out):
    for i, j in sf.grid(x.shape):
        out[i, j] = t[x[i, j] + 128]


def threshold(x, t, out):
    for i, c in sf.grid(out.shape):
        out[i, c] = x[i, c] > t[c] and not x[i, c] <= 7


def xnor(x, w, out):
    for n, oh, ow, oc in sf.grid(out.shape):
        acc = sf.i32(0)
        for kh, kw, ic in sf.reduce(w.shape[1:]):
            acc += sf.xnor_popcount(x[n, oh + kh, ow + kw, ic], w[oc, kh, kw, ic])
        out[n, oh, ow, oc] = acc


def sparse(w, x, out):
    for m, oc in sf.grid(out.shape):
        acc = sf.f32(0)
        for ic in sf.nonzeros(w, oc):
            acc += w[oc, ic] * x[m, ic]
        out[m, oc] = sf.max(acc, 0)


def shuffle(x, out, *, block=4):
    for n, c in sf.grid(x.shape):
        out[n, c // block, c % block] = x[n, c]
