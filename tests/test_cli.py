"""The command line: what each command prints, its exit codes, and that a user's error is one line.

The commands run in this process, through `main`; one test runs the module as a program. Networks
are the business of test_run_tflite.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import simdflow as sf
from simdflow.cli import main
from simdflow.cli.inspect import STAGES
from simdflow.cli.words import parse_dataflow, parse_type

KERNELS = """
import simdflow as sf


@sf.kernel
def product(a, b, out, *, scale=1):
    for m, n in sf.grid(out.shape):
        acc = sf.i32(0)
        for k in sf.reduce(b.shape[:1]):
            acc += a[m, k] * b[k, n]
        out[m, n] = acc


@sf.kernel
def double(d, out):
    for i in sf.grid(out.shape):
        out[i] = d[i] * 2.0
"""


@pytest.fixture
def kernels(tmp_path: Path) -> Iterator[str]:
    file = tmp_path / "my_kernels.py"
    file.write_text(KERNELS, encoding="utf-8")
    before = list(sys.path)
    yield str(file)
    sys.path[:] = before
    sys.modules.pop("my_kernels", None)


def failure(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one message of a command that a user can put right."""
    assert main(arguments) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("simdflow: ")
    assert "Traceback" not in shown
    return shown


def test_help_and_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    assert "usage: simdflow" in capsys.readouterr().out
    for arguments in ([], ["fly"], ["info", "--loud"], ["run", "m.tflite"], ["cache", "eat"]):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 2, arguments
        assert "usage: simdflow" in capsys.readouterr().err


def test_it_is_a_program(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "simdflow.cli", "cache", "info"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("cache ")
    wrong = subprocess.run([*command[:3], "run", "x.onnx", "--input", "y.npy"], capture_output=True)
    assert wrong.returncode == 1


def test_a_reader_that_stops_is_no_error(tmp_path: Path) -> None:
    command = f"{sys.executable} -m simdflow.cli --help | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_info_names_the_cpu_its_targets_and_peaks(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    shown = capsys.readouterr().out
    assert [line.split()[0] for line in shown.splitlines() if not line.startswith(" ")] == [
        "simdflow", "CPU", "features", "targets", "peaks", "cache", "tuning"
    ]  # fmt: skip
    names = [t.name for t in sf.host_targets()]
    rows = [line.split()[0] for line in shown.splitlines() if line.startswith("  ")]
    assert rows[: len(names)] == names  # the targets, best first
    assert shown.count("GMAC/s") == 2 * len(names)


def test_cache_commands(capsys: pytest.CaptureFixture[str], kernels: str) -> None:
    assert main(["cache", "verify"]) == 0
    assert "as they were stored" in capsys.readouterr().out
    assert main(["cache", "info"]) == 0
    assert str(sf.cache.info().dir) in capsys.readouterr().out


def test_cache_clear_and_a_damaged_entry(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from simdflow.compiler.cache import Cache

    store = Cache(tmp_path / "kernels")
    monkeypatch.setattr("simdflow.cache.current", lambda: store)
    assert store.store("a" * 64, b"code", {})
    (entry,) = store.root.iterdir()
    entry.write_bytes(entry.read_bytes()[:-1])
    message = failure(capsys, "cache", "verify")
    assert "entries=1 would not be used" in message
    assert main(["cache", "clear"]) == 0
    assert capsys.readouterr().out == "1 kernels removed\n"
    assert main(["cache", "verify"]) == 0


@pytest.mark.parametrize("stage", STAGES)
def test_inspect_prints_each_stage(
    stage: str, kernels: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--a", "u8[4,12]", "--b=i8[12,20]", "--target", "portable", "--stage", stage]
    assert main(["inspect", f"{kernels}:product", *arguments]) == 0
    shown = capsys.readouterr().out
    telling = {
        "nest": "u8[4, 12]",
        "plan": "registers",
        "program": "program product",
        "source": "def ",
        "llvm": "define",
        "asm": "ret",
        "report": "spills",
    }
    assert telling[stage] in shown


def test_inspect_all_lists_and_dataflow(kernels: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", kernels]) == 0
    assert capsys.readouterr().out.split() == ["product", "double"]
    flow = "anchor='out', tile={'m': 2, 'n': 4}, lanes='n'"
    arguments = ["--a", "f32[4,12]", "--b", "f32[12,20]", "--stage", "all", "--target", "portable"]
    # f32 products do not fit the i32 accumulator: the kernel's own error, not a traceback.
    assert "i32" in failure(capsys, "inspect", f"{kernels}:product", *arguments)
    arguments = ["--a", "i8[4,12]", "--b", "i8[12,20]", "--stage", "all", "--target", "portable"]
    arguments += ["--constant", "scale=3", "--dataflow", flow]
    assert main(["inspect", f"{kernels}:product", *arguments]) == 0
    shown = capsys.readouterr().out
    headings = [line.split()[1] for line in shown.splitlines() if line.startswith("----")]
    assert headings == list(STAGES)
    assert "tile={'m': 2, 'n': 4}" in shown


@pytest.mark.parametrize(
    ("name", "types"),
    [
        ("product", {"a": "u8[8,64]", "b": "i8[64,32] packed"}),
        ("product", {"a": "i16.range(-9,9)[8,64]", "b": "i16.range(-9,9)[64,32]"}),
        ("double", {"d": "f32[64]"}),
    ],
)
def test_inspect_times_a_kernel(
    name: str, types: dict[str, str], kernels: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [part for operand, kind in types.items() for part in (f"--{operand}", kind)]
    assert main(["inspect", f"{kernels}:{name}", *arguments, "--time"]) == 0
    shown = capsys.readouterr().out
    assert ("% of the measured peak" in shown) == (name == "product")
    assert " us, " in shown
    assert ("packed on every call" in shown) == (name == "product" and "packed" not in types["b"])


def test_inspect_takes_operands_whose_names_begin_like_options(
    kernels: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--d", "f32[40]", "--stage", "nest"]
    assert main(["inspect", f"{kernels}:double", *arguments]) == 0
    assert "f32[40]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{file}:nothing"], "kernel='nothing' is not in"),
        (["{file}:product", "--a", "u9[4]"], "a='u9[4]' is not an operand type"),
        (["{file}:product", "--a"], "a='' is not an operand type"),
        (["{file}:product", "u8[4]"], "argument='u8[4]' is not an operand"),
        (["{file}:product", "--q", "u8[4,12]"], "q is neither an operand nor a constant"),
        (["{file}:product", "--a", "u8[4,12]"], "b has no type"),
        (["{file}:product", "--constant", "scale"], "constant='scale' has no value"),
        (["{file}:product", "--dataflow", "tile=("], "cannot be read"),
        (["{file}:product", "--dataflow", "speed=9"], "cannot be read"),
        (["{file}:product", "--dataflow", "anchor=__import__('os')"], "cannot be read"),
        (["{file}:product", "--target", "avx9"], "name='avx9' is not known"),
        (["{file}.py:product"], "cannot be run: FileNotFoundError"),
        (["no.such.module:product"], "cannot be run: ModuleNotFoundError"),
    ],
)
def test_inspect_explains_what_is_wrong(
    arguments: list[str], said: str, kernels: str, capsys: pytest.CaptureFixture[str]
) -> None:
    place, *rest = arguments
    assert said in failure(capsys, "inspect", place.format(file=kernels), *rest)


def test_inspect_of_a_file_that_raises(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "broken_kernels.py"
    file.write_text("1 / 0\n", encoding="utf-8")
    assert "ZeroDivisionError" in failure(capsys, "inspect", str(file))


def test_types_and_dataflows_are_read_as_they_are_printed() -> None:
    packed = sf.pack(np.zeros((3, 4), np.int8), sf.i8.range(-7, 7)).type
    for kind in (sf.u8[1, 58, 58, 64], sf.i8.range(-7, 7)[64, 10], sf.f32[5], packed):
        assert parse_type("x", str(kind)) == kind
    for flow in (sf.Dataflow(), sf.Dataflow(anchor="w", tile={"oc": 32}, order=("n", "oc"))):
        assert parse_dataflow(str(flow)) == flow
        assert parse_dataflow(f"sf.{flow}") == flow
    assert parse_dataflow("tile={'ow': 6}") == sf.Dataflow(tile={"ow": 6})
    with pytest.raises(sf.DataflowError, match="is not a count"):
        parse_dataflow("tile={'ow': -6}")
