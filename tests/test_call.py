"""Calling machine code with numpy arrays: run if they fit, touch nothing if not."""

import gc
import itertools
import pickle
import sys
import threading
import weakref
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from object_code import add_object, assembled, gather_object, operands

from simdflow.compiler import call, native
from simdflow.compiler.call import Slot
from simdflow.dsl.errors import OperandError

I32 = np.dtype(np.int32)


@cache
def add() -> native.Function:
    return native.link(add_object(), ["add"]).function("add")


@pytest.fixture(params=["machine code", "ctypes"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to call; the second is what other interpreters get."""
    if request.param == "ctypes":
        monkeypatch.setattr(call, "layout_holds", lambda: False)
    return request.param


def adder(shape: tuple[int, ...] = (2, 3, 4)) -> Callable[..., bool]:
    slots = [Slot(shape, I32), Slot(shape, I32), Slot(shape, I32, written=True)]
    return call.caller(add(), slots, 0, int(np.prod(shape)))


def test_this_interpreter_is_called_by_machine_code() -> None:
    assert call.layout_holds()
    assert type(adder()).__name__ == "builtin_function_or_method"


def test_caller_runs_the_kernel(way: str) -> None:
    a, b, c = operands()
    assert adder()(a, b, c) is True
    assert (c == a + b).all()
    assert (a == np.arange(24).reshape(2, 3, 4)).all()


def test_bound_runs_its_range_of_its_arrays(way: str) -> None:
    a, b, c = operands()
    run = call.bound(add(), [a, b, c], 5, 9)
    assert run() is True
    assert (c.ravel()[5:9] == (a + b).ravel()[5:9]).all()
    assert (np.delete(c.ravel(), np.s_[5:9]) == -1).all()
    a += 1
    assert run() is True
    assert (c.ravel()[5:9] == (a + b).ravel()[5:9]).all()


@pytest.mark.parametrize("arrays", range(1, call.MAX_ARRAYS + 3))
def test_every_number_of_arrays(arrays: int) -> None:
    function = native.link(gather_object(arrays), ["gather"]).function("gather")
    inputs = [np.array([10 + i], np.int64) for i in range(arrays - 1)]
    expected = [-5, 7, *range(10, 9 + arrays)]
    slots = [Slot((1,), np.dtype(np.int64))] * (arrays - 1)
    result = Slot((arrays + 1,), np.dtype(np.int64), written=True)
    out = np.zeros(arrays + 1, np.int64)
    assert call.caller(function, [*slots, result], -5, 7)(*inputs, out)
    assert out.tolist() == expected
    again = np.zeros(arrays + 1, np.int64)
    assert call.bound(function, [*inputs, again], -5, 7)()
    assert again.tolist() == expected


class Subclass(np.ndarray):
    pass


def read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


def unaligned(array: np.ndarray) -> np.ndarray:
    room = np.empty(array.nbytes + 1, np.uint8)
    moved = room[1:].view(array.dtype).reshape(array.shape)
    moved[...] = array
    return moved


MISFITS: dict[str, Callable[[np.ndarray], object]] = {
    "none": lambda a: None,
    "a number": lambda a: 3,
    "a list": lambda a: a.tolist(),
    "its memory": lambda a: memoryview(a),
    "a scalar": lambda a: a[0, 0, 0],
    "a subclass": lambda a: a.view(Subclass),
    "shorter": lambda a: a[:1],
    "longer": lambda a: np.concatenate([a, a]),
    "last axis longer": lambda a: np.concatenate([a, a], -1),
    "lower rank": lambda a: a.reshape(6, 4),
    "higher rank": lambda a: a[None],
    "rank 0": lambda a: np.array(5, I32),
    "empty": lambda a: np.zeros((0, 3, 4), I32),
    "other dtype, same size": lambda a: a.astype(np.float32),
    "unsigned": lambda a: a.astype(np.uint32),
    "wider": lambda a: a.astype(np.int64),
    "other byte order": lambda a: a.astype(">i4"),
    "reversed": lambda a: a[::-1],
    "transposed strides": lambda a: np.asfortranarray(a),
    "every second": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "broadcast": lambda a: np.broadcast_to(a[:1], a.shape),
    "unaligned": unaligned,
}


@pytest.mark.parametrize("position", range(3))
@pytest.mark.parametrize("kind", MISFITS)
def test_an_argument_that_does_not_fit_is_refused_and_nothing_touched(
    way: str, kind: str, position: int
) -> None:
    arguments: list[object] = list(operands())
    out = arguments[2]
    assert isinstance(out, np.ndarray)
    arguments[position] = MISFITS[kind](operands()[position])
    assert adder()(*arguments) is False
    assert (out == -1).all()


def test_read_only_fits_an_input_and_not_an_output(way: str) -> None:
    a, b, c = operands()
    assert adder()(read_only(a), read_only(b), c) is True
    assert adder()(a, b, read_only(c.copy())) is False


@pytest.mark.parametrize("count", [0, 1, 2, 4, 5])
def test_wrong_number_of_arguments_is_refused(way: str, count: int) -> None:
    assert adder()(*[np.zeros((2, 3, 4), I32) for _ in range(count)]) is False


def test_keywords_are_refused() -> None:
    a, b, c = operands()
    with pytest.raises(TypeError):
        adder()(a, b, out=c)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40))
def test_an_output_that_overlaps_an_input_is_refused(x: int, y: int, z: int) -> None:
    room = np.arange(64, dtype=I32)
    a, b, c = room[x : x + 10], room[y : y + 10], room[z : z + 10]
    clash = bool(set(range(z, z + 10)) & {*range(x, x + 10), *range(y, y + 10)})
    before, expected = room.copy(), a + b
    slots = (Slot((10,), I32), Slot((10,), I32), Slot((10,), I32, written=True))
    for run in (call.caller(add(), slots, 0, 10), call._portable_caller(add(), slots, 0, 10)):
        room[:] = before
        assert run(a, b, c) is not clash
        assert (room == before).all() if clash else (c == expected).all()


def test_empty_arrays_overlap_nothing(way: str) -> None:
    room = np.zeros((4, 0), I32)
    assert adder((4, 0))(room, room, room) is True


@pytest.mark.parametrize("rank", range(0, call.MAX_RANK + 2))
def test_every_rank(way: str, rank: int) -> None:
    shape = (2,) * rank
    a, b, c = (np.asarray(array) for array in operands(shape))
    run = adder(shape)
    assert run(a, b, c) is True
    assert (c == a + b).all()
    for axis in range(rank):
        wrong = tuple(3 if i == axis else 2 for i in range(rank))
        assert run(np.zeros(wrong, I32), b, c) is False


def test_arrays_that_were_pickled_fit(way: str) -> None:
    a, b, c = pickle.loads(pickle.dumps(operands()))
    slots = [Slot(x.shape, x.dtype, x is c) for x in (a, b, c)]
    run = call.caller(add(), slots, 0, 24)
    ready = [call.conform(x, slot) for x, slot in zip((a, b, c), slots, strict=True)]
    assert run(*ready) is True
    assert (ready[2] == a + b).all()


@pytest.mark.parametrize(
    "kind", ["a subclass", "other byte order", "reversed", "every second", "broadcast", "unaligned"]
)
def test_conform_makes_fit_what_is_only_laid_out_differently(way: str, kind: str) -> None:
    a, b, c = operands()
    odd = MISFITS[kind](a)
    assert isinstance(odd, np.ndarray)
    fit = call.conform(odd, Slot((2, 3, 4), I32))
    assert adder()(fit, b, c) is True
    assert (c == odd + b).all()


def test_conform_returns_what_fits_and_refuses_what_is_something_else() -> None:
    a = operands()[0]
    assert call.conform(a, Slot((2, 3, 4), I32)) is a
    with pytest.raises(OperandError, match=r"int64\[2, 3, 4\] is not what the kernel"):
        call.conform(a.astype(np.int64), Slot((2, 3, 4), I32))
    with pytest.raises(OperandError, match="int16"):  # a safe cast is a cast, too
        call.conform(a.astype(np.int16), Slot((2, 3, 4), I32))
    with pytest.raises(OperandError, match=r"int32\[1, 3, 4\] .* int32\[2, 3, 4\] is"):
        call.conform(a[:1], Slot((2, 3, 4), I32))


def test_callables_keep_code_and_arrays_alive_and_let_them_go(way: str) -> None:
    library = native.link(add_object(), ["add"])
    a, b, c = operands()
    watched = [weakref.ref(library), weakref.ref(c)]
    slots = [Slot(a.shape, I32), Slot(a.shape, I32), Slot(a.shape, I32, written=True)]
    run = call.bound(library.function("add"), [a, b, c], 0, 24)
    check = call.caller(library.function("add"), slots, 0, 24)
    del library, c
    gc.collect()
    assert all(reference() is not None for reference in watched)
    assert run() is True
    del run
    gc.collect()
    assert watched[1]() is None
    out = np.zeros_like(a)
    assert check(a, b, out) is True
    assert (out == a + b).all()
    del check
    gc.collect()
    assert watched[0]() is None


def test_calls_leak_no_reference(way: str) -> None:
    a, b, c = operands()
    run, fixed = adder(), call.bound(add(), [a, b, c], 0, 24)
    before = [sys.getrefcount(x) for x in (a, b, c, I32, np.ndarray)]
    for _ in range(1000):
        run(a, b, c)
        run(a, b, 3)
        fixed()
    after = [sys.getrefcount(x) for x in (a, b, c, I32, np.ndarray)]
    assert before == after


def test_the_gil_is_released_while_a_kernel_runs(way: str) -> None:
    # The kernel spins until another thread, which needs the GIL to do so, sets its array.
    spin = "define void @spin(ptr %a, i64 %begin, i64 %end) {\n  br label %again\nagain:\n"
    spin += "  %x = load atomic i64, ptr %a seq_cst, align 8\n  %set = icmp ne i64 %x, 0\n"
    spin += "  br i1 %set, label %out, label %again\nout:\n  ret void\n}"
    library = native.link(assembled(spin), ["spin"])
    flag = np.zeros(1, np.int64)
    timer = threading.Timer(0.05, flag.__setitem__, (0, 1))
    timer.start()
    assert call.bound(library.function("spin"), [flag], 0, 1)() is True
    timer.join()


def test_threads_may_share_a_callable(way: str) -> None:
    run = adder((1000,))
    outs = [np.zeros(1000, I32) for _ in range(4)]
    failures: list[int] = []

    def work(index: int) -> None:
        a = np.full(1000, index, I32)
        for turn in range(200):
            b = np.full(1000, turn, I32)
            if run(a, b, outs[index]) is not True or (outs[index] != index + turn).any():
                failures.append(index)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_disjoint_ranges_add_up(way: str) -> None:
    a, b, c = operands((100,))
    edges = [0, 1, 17, 17, 64, 100]
    for begin, end in itertools.pairwise(edges):
        assert call.bound(add(), [a, b, c], begin, end)()
    assert (c == a + b).all()
