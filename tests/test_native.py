"""Linking object code: from threads, after fork, without numba, and what cannot be."""

import ctypes
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from object_code import add_object, assembled, operands

from simdflow.compiler import call, native


def test_linked_code_runs() -> None:
    library = native.link(add_object(), ["add"])
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    kernel = ctypes.CFUNCTYPE(None, pointer, pointer, pointer, number, number)
    a, b, c = operands()
    kernel(library.address("add"))(a.ctypes.data, b.ctypes.data, c.ctypes.data, 0, 24)
    assert (c == a + b).all()


def test_one_object_can_be_linked_many_times() -> None:
    libraries = [native.link(add_object(), ["add"]) for _ in range(5)]
    assert len({library.address("add") for library in libraries}) == 5


def test_symbols_of_the_process_are_found() -> None:
    ir = "declare double @cbrt(double)\ndefine void @f(ptr %a, i64 %begin, i64 %end) {\n"
    ir += "  %x = load double, ptr %a\n  %y = call double @cbrt(double %x)\n"
    library = native.link(assembled(ir + "  store double %y, ptr %a\n  ret void\n}"), ["f"])
    value = np.array([27.0])
    assert call.bound(library.function("f"), [value], 0, 1)()
    assert value[0] == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("code", "symbols", "match"),
    [
        (b"", ["add"], "valid object file"),
        (b"\x7fELF junk", ["add"], "."),
        ("add", ["sub"], "sub"),
        ("declare void @nowhere_at_all()", ["f"], "f"),
    ],
)
def test_what_cannot_be_linked_is_an_error(
    code: bytes | str, symbols: list[str], match: str
) -> None:
    if code == "add":
        code = add_object()
    elif isinstance(code, str):
        code = assembled(
            f"{code}\ndefine void @f() {{\n  call void @nowhere_at_all()\n  ret void\n}}"
        )
    with pytest.raises(RuntimeError, match=match):
        native.link(code, symbols)


def test_address_of_a_symbol_that_was_not_asked_for() -> None:
    with pytest.raises(KeyError):
        native.link(add_object(), ["add"]).address("sub")


def test_linking_from_many_threads() -> None:
    results: list[bool] = []

    def work() -> None:
        for _ in range(20):
            function = native.link(add_object(), ["add"]).function("add")
            a, b, c = operands()
            call.bound(function, [a, b, c], 0, 24)()
            results.append(bool((c == a + b).all()))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 80


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_linking_after_fork_while_another_thread_is_linking(tmp_path: Path) -> None:
    # In a child process: pytest's own threads must not be forked. A lost lock shows as a time-out.
    code = """
import os, sys, threading
from simdflow.compiler import native
code = open(sys.argv[1], "rb").read()
native.link(code, ["add"])
stop = False
def work():
    while not stop:
        native.link(code, ["add"])
thread = threading.Thread(target=work)
thread.start()
for _ in range(40):
    child = os.fork()
    if not child:
        native.link(code, ["add"])
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
stop = True
thread.join()
print("done")
"""
    assert run_fresh(code, tmp_path) == "done"


def run_fresh(code: str, folder: Path) -> str:
    """Standard output of `code` in a new interpreter whose first argument is the object file."""
    path = folder / "add.o"
    path.write_bytes(add_object())
    command = [sys.executable, "-c", code, str(path)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (run.returncode, run.stderr) == (0, "")
    return run.stdout.strip()


def test_fresh_process_links_and_calls_without_numba(tmp_path: Path) -> None:
    code = """
import sys
import numpy as np
from simdflow.compiler import call, native
function = native.link(open(sys.argv[1], "rb").read(), ["add"]).function("add")
a = np.arange(24, dtype=np.int32)
c = np.zeros_like(a)
slot = call.Slot((24,), a.dtype)
assert call.caller(function, [slot, slot, call.Slot((24,), a.dtype, True)], 0, 24)(a, a, c)
print((c == 2 * a).all(), "numba" in sys.modules)
"""
    assert run_fresh(code, tmp_path) == "True False"
