"""Guard pages: the copy is faithful, and one byte past its guarded side kills the process."""

from __future__ import annotations

import signal
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simdflow.dsl.errors import OperandError, TargetError
from simdflow.dsl.types import Scalar, f32, f64, i8, i32
from simdflow.testing import arrays, guarded, layouts, shapes
from simdflow.testing.operands import Layout

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="guard pages need Linux mprotect")

CHILD = """
import ctypes, gc
import numpy as np
from simdflow.testing.guard import guarded
x = guarded(np.arange({n}, dtype=np.{dtype}), at_end={at_end}, read_only={read_only})
gc.collect()
first, last = x.ctypes.data, x.ctypes.data + x.nbytes - 1
assert ctypes.string_at(first, x.nbytes) == np.arange({n}, dtype=np.{dtype}).tobytes()
print("inside", flush=True)
{action}
print("survived", flush=True)
"""
READ_AFTER = "ctypes.string_at(last + 1, 1)"
READ_BEFORE = "ctypes.string_at(first - 1, 1)"
WRITE_AFTER = "ctypes.memset(last + 1, 0, 1)"
WRITE_INSIDE = "ctypes.memset(first, 0, 1); ctypes.memset(last, 0, 1)"


def run(
    action: str, n: int = 60, dtype: str = "float32", at_end: bool = True, read_only: bool = False
) -> tuple[str, int]:
    """What the child printed, and its exit code (minus the signal that ended it)."""
    code = CHILD.format(n=n, dtype=dtype, at_end=at_end, read_only=read_only, action=action)
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    return child.stdout, child.returncode


@linux_only
@pytest.mark.parametrize(("n", "dtype"), [(60, "float32"), (1, "int8"), (2048, "int16")])
@pytest.mark.parametrize(
    ("action", "at_end"), [(READ_AFTER, True), (READ_BEFORE, False), (WRITE_AFTER, True)]
)
def test_one_byte_too_far_is_a_segmentation_fault(
    n: int, dtype: str, action: str, at_end: bool
) -> None:
    assert run(action, n, dtype, at_end) == ("inside\n", -signal.SIGSEGV)


@linux_only
def test_a_whole_page_is_guarded_on_both_sides() -> None:
    for action in (READ_BEFORE, READ_AFTER):
        assert run(action, 1024, "float32") == ("inside\n", -signal.SIGSEGV)


@linux_only
def test_read_only_pages_refuse_a_native_write() -> None:
    assert run(WRITE_INSIDE, read_only=True) == ("inside\n", -signal.SIGSEGV)
    assert run(WRITE_INSIDE, read_only=False) == ("inside\nsurvived\n", 0)


@linux_only
@given(st.data(), st.booleans(), st.booleans(), layouts(), st.sampled_from([i8, i32, f32, f64]))
def test_the_copy_is_faithful(
    data: st.DataObject, at_end: bool, protect: bool, layout: Layout, scalar: Scalar
) -> None:
    array = layout(data.draw(arrays(shapes((0, 3), (1, 9), (1, 300)), scalar)))
    copy = guarded(array, at_end, protect)
    assert (copy.shape, copy.dtype) == (array.shape, array.dtype)
    assert copy.tobytes() == array.tobytes()
    assert copy.flags.c_contiguous
    assert copy.flags.aligned
    assert copy.flags.writeable is not protect
    edge = copy.ctypes.data + (copy.nbytes if at_end else 0)
    assert edge % 4096 == 0


@linux_only
def test_a_view_keeps_the_pages_alive() -> None:
    tail = guarded(np.arange(5000))[-3:]
    assert tail.tolist() == [4997, 4998, 4999]
    tail[0] = 1
    assert tail[0] == 1


def test_objects_are_refused() -> None:
    if sys.platform != "linux":
        pytest.skip("refused for the platform first")
    with pytest.raises(OperandError, match=r"guarded: array\.dtype=object holds Python objects"):
        guarded(np.array([None]))


def test_other_systems_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "plan9")
    with pytest.raises(TargetError, match="guarded: platform='plan9' has no guard pages here"):
        guarded(np.zeros(3))
