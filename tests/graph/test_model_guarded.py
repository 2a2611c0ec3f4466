"""No byte outside the arena and the weights is touched: a child process would die of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

from simdflow.targets.detect import host_targets

TESTS = Path(__file__).resolve().parents[1]
EXAMPLES = max(settings().max_examples // 25, 1)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="guard pages need Linux mprotect")


def child(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The child process, ended."""
    return subprocess.run(
        [sys.executable, str(TESTS / "guarded_model.py"), *arguments],
        capture_output=True, text=True, timeout=1800, cwd=TESTS, env=os.environ,
    )  # fmt: skip


@pytest.mark.parametrize("target", [t.name for t in host_targets()])
def test_networks_stay_inside_their_memory(target: str) -> None:
    done = child(target, str(EXAMPLES))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def test_the_guard_catches_an_arena_that_is_too_short() -> None:
    done = child("portable", "--short")
    assert done.returncode == -signal.SIGSEGV, done.stdout[-1000:] + done.stderr[-3000:]
