"""No kernel reads or writes outside its operands: every array ends, or begins, at a guard page.

The kernels run in a child process, on read-only inputs; a byte too far is a signal there. What is
packed, summed or scratch is guarded as well, because the native function is called directly.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from samples import SAMPLES

from simdflow.targets import host_targets

TARGETS = [t.name for t in host_targets()]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="guard pages need Linux mprotect")

CHILD = Path(__file__).with_name("guarded_child.py")


def run(*arguments: str) -> tuple[int, str]:
    """The child's exit code (minus a signal) and all that it printed."""
    child = subprocess.run(
        [sys.executable, "-W", "ignore", str(CHILD), *arguments],
        capture_output=True,
        text=True,
        timeout=240,
    )
    return child.returncode, child.stdout + child.stderr


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("part", range(4))
def test_no_byte_outside_the_operands_is_touched(part: int, target: str) -> None:
    names = [str(s) for s in SAMPLES[part::4]]
    code, printed = run(target, *names)
    assert code == 0, printed[-3000:]
    assert printed.splitlines()[-1].split() == names


def test_the_guard_finds_a_kernel_that_reads_too_far() -> None:
    code, printed = run("portable", "--short", "conv2d")
    assert code == -signal.SIGSEGV, printed
    assert "conv2d(" in printed
