"""Kernels as users call them: arguments, outputs, packing, binding, errors, threads and processes.

What the machine code computes is test_compiled's matter; here the ways in and out are tested.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import sample_kernels as samples
from scipy import sparse

import simdflow as sf

X = np.random.default_rng(0).integers(0, 256, (2, 7, 9, 5), np.uint8)
W = np.random.default_rng(1).integers(-128, 128, (3, 3, 5, 18), np.int8)
Y = samples.conv(X, W).astype(np.int32)
conv2d = samples.conv2d
made = conv2d.specialize(x=sf.u8[X.shape], w=sf.i8[W.shape])


def test_a_kernel_keeps_the_name_and_the_function() -> None:
    def doubled(x, out):
        """Twice."""
        for i in sf.grid(x.shape[0]):
            out[i] = x[i] * 2.0

    kernel = sf.kernel(doubled)
    assert (kernel.name, kernel.__doc__, kernel.function) == ("doubled", "Twice.", doubled)
    assert repr(kernel) == "<kernel doubled>"
    assert kernel(np.float32([1, 2])).tolist() == [2, 4]


def test_the_decorator_takes_a_dataflow_and_a_call_overrides_it() -> None:
    flow, other = sf.Dataflow(tile={"oh": 2}), sf.Dataflow(anchor="w")
    kernel = sf.kernel(dataflow=flow)(conv2d.function)
    assert kernel.specialize(x=sf.u8[X.shape], w=sf.i8[W.shape]).flow == flow
    given = {"x": sf.u8[X.shape], "w": sf.i8[W.shape]}
    assert kernel.specialize(dataflow=other, **given).flow == other
    assert np.array_equal(kernel(X, W), Y)
    assert np.array_equal(kernel(X, W, dataflow=other), Y)


def test_constants_are_given_by_keyword() -> None:
    assert np.array_equal(conv2d(X, W, stride=2, dilation=1), samples.conv(X, W, 2, 1))
    assert np.array_equal(conv2d(X, W, dilation=2), samples.conv(X, W, 1, 2))


@pytest.mark.parametrize("how", ["positional", "out", "name"])
def test_an_output_may_be_given(how: str) -> None:
    def copied(x, y):
        for i, j in sf.grid(x.shape):
            y[i, j] = x[i, j]

    kernel, x = sf.kernel(copied), np.arange(12, dtype=np.int32).reshape(3, 4)
    y = np.full((3, 4), 7, np.int32)
    ways: dict[str, Callable[[], Any]] = {
        "positional": lambda: kernel(x, y),
        "out": lambda: kernel(x, out=y),
        "name": lambda: kernel(x, y=y),
    }
    assert ways[how]() is y
    assert np.array_equal(y, x)


def test_an_output_of_any_strides_is_filled() -> None:
    big = np.zeros((*Y.shape[:-1], 2 * Y.shape[-1]), np.int32)
    assert conv2d(X, W, out=big[..., ::2]) is not None
    assert np.array_equal(big[..., ::2], Y)
    assert not big[..., 1::2].any()


def test_a_specialization_is_made_once() -> None:
    assert conv2d.specialize(x=sf.u8[X.shape], w=sf.i8[W.shape]) is made
    assert conv2d.specialize(x=sf.u8[X.shape], w=sf.i8[W.shape], stride=2) is not made
    assert conv2d.specialize(x=sf.i8[X.shape], w=sf.i8[W.shape]) is not made
    assert repr(made).startswith("<compiled conv2d(w=i8[3, 3, 5, 18], x=u8[2, 7, 9, 5]) for ")
    assert made.out_type == sf.i32[Y.shape]


def test_every_stage_can_be_read() -> None:
    assert "x[n, oh + kh, ow + kw, ic]" in str(made.nest)
    assert made.flow.anchor == "out"
    assert f"plan conv2d on {made.target.name}" in str(made.plan)
    assert made.program.name in made.source
    assert "def conv2d_" in made.source
    assert "define" in made.llvm()
    assert "ret" in made.asm()
    report = made.report()
    assert "spills" in report
    assert "w is packed on every call; use sf.pack(w)" in report
    packed = conv2d.specialize(x=sf.u8[X.shape], w=sf.pack(W).type)
    assert "is packed on every call" not in packed.report()


def test_the_text_runs_as_python() -> None:
    assert np.array_equal(made.run_text(X, W), Y)


def test_any_strides_and_byte_order_are_taken() -> None:
    assert np.array_equal(conv2d(X[:, ::-1, ::2], W), samples.conv(X[:, ::-1, ::2], W))
    assert np.array_equal(conv2d(np.asfortranarray(X), W[..., ::-1]), Y[..., ::-1])
    a = np.arange(6, dtype=">i2").reshape(2, 3)
    b = np.ones((3, 2), np.int8)
    assert samples.transposed_add(b, a[0, :2]).tolist() == [[1, 1, 1], [2, 2, 2]]


def test_an_array_of_no_elements_gives_what_numpy_would() -> None:
    assert conv2d(X[:0], W).shape == (0, *Y.shape[1:])
    assert conv2d(X, W[..., :0]).shape == (*Y.shape[:-1], 0)
    nothing = conv2d(X[..., :0], W[:, :, :0])
    assert nothing.shape == Y.shape
    assert not nothing.any()


# Packed operands.


def test_a_packed_operand_is_a_copy_that_nobody_changes() -> None:
    w = W.copy()
    packed = sf.pack(w)
    w[:] = 0
    assert np.array_equal(conv2d(X, packed), Y)
    assert sf.pack(packed) is packed
    assert packed.array is not None
    with pytest.raises(ValueError, match="read-only"):
        packed.array[0] = 1


def test_one_packed_operand_serves_many_kernels() -> None:
    packed = sf.pack(W)
    for target in sf.host_targets():
        for flow in (None, sf.Dataflow(anchor="w"), sf.Dataflow(lanes="ow"), sf.Dataflow()):
            assert np.array_equal(conv2d(X, packed, target=target, dataflow=flow), Y)


def test_bits_go_in_and_come_out() -> None:
    rng = np.random.default_rng(2)
    x, w = (rng.choice([-1, 1], s).astype(np.int8) for s in ((1, 5, 6, 37), (3, 3, 11, 37)))
    threshold = np.zeros(11, np.int32)
    y = samples.binary_conv(sf.pack_bits(x), sf.pack_bits(w), threshold)
    assert isinstance(y, sf.Bits)
    assert y.shape == (1, 3, 4, 11)
    assert np.array_equal(y.values(), samples.binary(x, w, threshold, 1))
    again = samples.binary_conv(sf.pack_bits(x), sf.pack(sf.pack_bits(w)), threshold)
    assert np.array_equal(again.words, y.words)


def test_a_scipy_matrix_goes_in() -> None:
    rng = np.random.default_rng(3)
    w = sparse.random_array((20, 30), density=0.2, rng=rng, dtype=np.float32, format="csr")
    x = rng.standard_normal((30, 21)).astype(np.float32)
    for given in (w, sf.pack(w)):
        y = samples.sparse_relu(given, x)
        assert np.allclose(y, np.maximum(w @ x, 0), atol=1e-5)


# Bound buffers and native code.


def test_bound_buffers_are_read_again_at_every_call() -> None:
    x, out = X.copy(), np.empty_like(Y)
    run = made.bind(x=x, w=sf.pack(W), out=out)
    run()
    assert np.array_equal(out, Y)
    x[:] = 1
    run()
    assert np.array_equal(out, samples.conv(x, W))


def test_a_buffer_that_does_not_lie_in_c_order_cannot_be_bound() -> None:
    out = np.empty_like(Y)
    with pytest.raises(sf.OperandError, match="x does not lie in C order; a bound buffer must"):
        made.bind(x=np.asfortranarray(X), w=W, out=out)
    with pytest.raises(sf.OperandError, match="out overlaps x"):
        samples.leaky.specialize(x=sf.f32[2, 3]).bind(x=(x := np.zeros((2, 3), np.float32)), out=x)


def test_a_kernel_is_called_from_native_code() -> None:
    numba = pytest.importorskip("numba")
    inner = made.njit(w=sf.pack(W))

    @numba.njit
    def twice(x: Any, out: Any) -> int:
        inner(x, out)
        inner(x, out)
        return out[0, 0, 0, 0]

    out = np.empty_like(Y)
    assert twice(X, out) == Y[0, 0, 0, 0]
    assert np.array_equal(out, Y)
    with pytest.raises(sf.OperandError, match=r"inside native code it must be\s+fixed"):
        made.njit()


# Refusals.


def refused(message: str, call: Callable[[], Any], kind: type[Exception] = sf.OperandError) -> None:
    with pytest.raises(kind) as caught:
        call()
    assert message in str(caught.value)


def test_wrong_operands_are_refused_before_native_code() -> None:
    refused("conv2d: 1 operands given; it takes 2: x, w.", lambda: conv2d(X))
    refused(
        "conv2d: x is u8[2, 7, 9, 4]; compiled for u8[2, 7, 9, 5].", lambda: made(X[..., 1:], W)
    )
    refused("conv2d: w is i32[3, 3, 5, 18]; compiled for i8", lambda: made(X, W.astype(np.int32)))
    refused("x=u8[7, 9, 5] has 3 axes; the nest indexes it with 4.", lambda: conv2d(X[0], W))
    refused("dtype=complex128 is not an element type", lambda: conv2d(X.astype(complex), W))
    refused("dtype=object is not an element type", lambda: conv2d([[None]], W))
    refused("x.shape[1]=2 is too small for index", lambda: conv2d(X[:, :2], W))


def test_wrong_outputs_are_refused() -> None:
    refused("conv2d: out is int64", lambda: conv2d(X, W, out=np.empty(Y.shape, np.int64)))
    refused("conv2d: out is int32[1]", lambda: conv2d(X, W, out=np.empty(1, np.int32)))
    refused("conv2d: out is list", lambda: made(X, W, out=[1]))
    fixed = np.empty_like(Y)
    fixed.flags.writeable = False
    refused("conv2d: out is read-only", lambda: conv2d(X, W, out=fixed))


def test_an_output_that_overlaps_an_input_is_refused() -> None:
    x = np.zeros((4, 5), np.float32)
    refused("hardswish: out overlaps x; an output must be", lambda: samples.hardswish(x, out=x))
    both = np.zeros(30, np.float32)
    a, b = both[:20].reshape(4, 5), both[10:].reshape(4, 5)
    refused("out overlaps x", lambda: samples.hardswish(a, out=b))
    refused("out overlaps x", lambda: samples.hardswish(a[:, ::-1], out=b))


def test_wrong_constants_and_names_are_refused() -> None:
    refused("conv2d: stries=2 is not a constant of the kernel", lambda: conv2d(X, W, stries=2))
    refused("conv2d: y is neither an operand nor", lambda: conv2d.specialize(y=sf.u8[1]))
    refused("stride=1.5 is not an int", lambda: conv2d(X, W, stride=1.5), sf.KernelError)
    refused("stride='a' is not an int", lambda: conv2d(X, W, stride="a"), sf.KernelError)
    refused("target: name='vax' is not known", lambda: conv2d(X, W, target="vax"), sf.TargetError)
    flow = sf.Dataflow(anchor="z")
    refused("anchor='z' is not an operand", lambda: conv2d(X, W, dataflow=flow), sf.DataflowError)


def test_a_promised_range_is_checked_at_every_call() -> None:
    ranged = {"x": sf.i8.range(-7, 7)[2, 3], "w": sf.i8.range(-7, 7)[3, 4]}
    kernel = samples.narrow_sum.specialize(**ranged)
    x, w = np.full((2, 3), 7, np.int8), np.full((3, 4), -7, np.int8)
    assert (kernel(x, w) == -147).all()
    x[1, 2] = 8
    refused("narrow_sum: x has values from 7 to 8; its type promises -7 to 7", lambda: kernel(x, w))
    refused("promises -7 to 7", lambda: sf.pack(x, sf.i8.range(-7, 7)))
    assert (kernel(x - 1, sf.pack(w, sf.i8.range(-7, 7)))[0] == -126).all()
    refused("its type promises", lambda: kernel(x, sf.pack(w)))


def csr(indptr: list[int], indices: list[int]) -> Any:
    """A matrix of 2 x 4 with these lists, however wrong they are."""
    matrix = sparse.csr_array((2, 4), dtype=np.float32)
    matrix.indptr, matrix.indices = np.array(indptr), np.array(indices)
    matrix.data = np.ones(len(indices), np.float32)
    return matrix


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (csr([0, 2, 2], [1, 1]), "indices are duplicate in row 0: 1 then 1"),
        (csr([0, 1, 3], [3, 2, 0]), "indices are unsorted in row 1: 2 then 0"),
        (csr([0, 1, 2], [0, 4]), "indices run from 0 to 4; 0 to 3 is allowed"),
        (csr([0, 1, 2], [0, -1]), "indices run from -1 to 0; 0 to 3 is allowed"),
        (csr([0, 2, 1], [0]), "indptr falls at row 1"),
        (csr([0, 1, 9], [0, 1]), "indptr has 3 entries ending in 9 for 2 rows"),
        (csr([1, 1, 2], [0, 1]), "entries"),
    ],
)
def test_a_malformed_compressed_operand_is_refused(matrix: Any, message: str) -> None:
    x = np.ones((4, 3), np.float32)
    refused(message, lambda: sf.pack(matrix))
    refused(message, lambda: samples.sparse_relu(matrix, x))


def test_dense_for_compressed_and_compressed_for_dense_are_refused() -> None:
    x, w = np.ones((4, 3), np.float32), np.ones((2, 4), np.float32)
    refused("needs CSR", lambda: samples.sparse_relu(w, x))
    refused(
        "is compressed; the nest indexes every element",
        lambda: samples.hardswish(csr([0, 1, 1], [2])),
    )


# Threads and processes.


@pytest.mark.parametrize("anchor", ["out", "w"])
def test_threads_call_one_kernel_at_once(anchor: str) -> None:
    """The weight-anchored one accumulates in scratch memory, which each thread has for itself."""
    kernel = conv2d.specialize(
        x=sf.u8[X.shape], w=sf.i8[W.shape], dataflow=sf.Dataflow(anchor=anchor)
    )
    images = [np.roll(X, i, axis=2) for i in range(4)]
    expected = [samples.conv(x, W) for x in images]
    wrong: list[int] = []

    def work(i: int) -> None:
        for _ in range(200):
            if not np.array_equal(kernel(images[i], W), expected[i]):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_kernel_works_after_fork() -> None:
    made(X, W)
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(made(X, W), Y) else 1)
    assert os.waitpid(child, 0)[1] == 0


PROCESS = """
import sys
import numpy as np
import simdflow as sf

@sf.kernel
def scaled(x, out, *, by=3.0):
    for i in sf.grid(x.shape[0]):
        out[i] = x[i] * by

print(scaled(np.arange(5, dtype=np.float32)).tolist(), "numba" in sys.modules)
"""


def test_the_second_process_compiles_nothing(tmp_path: Any) -> None:
    script = tmp_path / "scaled.py"
    script.write_text(PROCESS)
    environment = os.environ | {"SIMDFLOW_CACHE_DIR": str(tmp_path / "cache")}

    def run() -> str:
        done = subprocess.run(
            [sys.executable, str(script)], capture_output=True, text=True, env=environment
        )
        return done.stdout + done.stderr

    assert run() == "[0.0, 3.0, 6.0, 9.0, 12.0] True\n"
    assert run() == "[0.0, 3.0, 6.0, 9.0, 12.0] False\n"


def test_interpret_runs_the_body() -> None:
    assert np.array_equal(conv2d.interpret(X[:, :4, :4], W), samples.conv(X[:, :4, :4], W))
    out = np.zeros((1, 1, 1, 18), np.int32)
    assert conv2d.interpret(X[:1, :3, :3], W, out=out) is out
    assert np.array_equal(out, samples.conv(X[:1, :3, :3], W))
