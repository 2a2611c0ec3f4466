"""`simdflow explore`: what it prints, the files it writes, its exit codes, and its errors.

Measuring is replaced by `explored.Measure`; what is measured and ranked is tuning/test_explore's.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from explored import Measure, limits

from simdflow.cli import main
from simdflow.tuning import explore as module

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
def double(anchor, out):
    for i in sf.grid(out.shape):
        out[i] = anchor[i] * 2.0
"""
DENSE = ("dense", "--x", "4,32", "--w", "32,24", "--target", "portable")


@pytest.fixture(autouse=True)
def measure(monkeypatch: pytest.MonkeyPatch) -> Measure:
    found = Measure()
    monkeypatch.setattr(module, "measure", found)
    monkeypatch.setattr(module, "PREDICTED", 24)
    monkeypatch.setattr(module, "peaks", limits)
    return found


@pytest.fixture
def kernels(tmp_path: Path) -> Iterator[str]:
    file = tmp_path / "explored_kernels.py"
    file.write_text(KERNELS, encoding="utf-8")
    before = list(sys.path)
    yield str(file)
    sys.path[:] = before
    sys.modules.pop("explored_kernels", None)


def failure(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["explore", *arguments]) == 1
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.startswith("simdflow: ") and shown.err.count("\n") == 1
    return shown.err.removeprefix("simdflow: ").rstrip("\n")


def test_a_layer_is_ranked_and_drawn(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, measure: Measure
) -> None:
    pytest.importorskip("matplotlib")
    png, html = tmp_path / "a.png", tmp_path / "a.html"
    files = ["--png", str(png), "--html", str(html)]
    assert main(["explore", *DENSE, "--top", "7", *files]) == 0
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    assert lines[0].startswith("dense(x=u8[1, 1, 4, 32], w=i8[1, 1, 32, 24] packed, ")
    assert lines[0].endswith("on portable") and " legal dataflows, " in lines[1]
    ranks = [int(x.split()[0].rstrip("*")) for x in lines[4:11]]
    assert ranks == list(range(1, 8))
    times = [float(x.split()[1]) for x in lines[4:11]]
    assert times == sorted(times)
    assert any(x.startswith("Fastest (measured): ") for x in lines)
    assert any(x.startswith("rank correlation with the times: cost model ") for x in lines)
    assert lines[-2:] == [f"wrote {png}", f"wrote {html}"]
    assert png.read_bytes()[1:4] == b"PNG" and html.read_text().startswith("<!DOCTYPE html>")
    assert sorted(x.name for x in tmp_path.iterdir()) == ["a.html", "a.png"]
    assert "predicted 1 of " in shown.err and "measured " in shown.err and "\r" not in shown.err
    assert measure.asked


@pytest.mark.parametrize("option", [["--no-measure"], ["--budget", "0"]])
def test_predictions_alone(
    option: list[str], capsys: pytest.CaptureFixture[str], measure: Measure
) -> None:
    assert main(["explore", *DENSE, "--dtype", "f32", *option]) == 0
    assert "0 measured" in capsys.readouterr().out and not measure.asked


def test_kernels_of_a_file(kernels: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explore", kernels]) == 0
    assert capsys.readouterr().out.split() == ["product", "double"]
    place = [f"{kernels}:product", "--target", "portable", "--budget", "0"]
    for types in (
        ["--a", "u8[4,12]", "--b", "i8[12,20] packed"],
        ["--b", "12,20", "--a=4,12", "--dtype", "u8i8"],  # in the kernel's order
        ["--a", "4,12", "--b", "i8[12,20]", "--dtype", "u8"],
    ):
        assert main(["explore", *place, *types, "--constant", "scale=3"]) == 0
        shown = capsys.readouterr().out
        assert shown.startswith("product(a=u8[4, 12], b=i8[12, 20]"), types
        assert "scale=3" in shown.splitlines()[0]


def test_filters(capsys: pytest.CaptureFixture[str]) -> None:
    base = ["explore", *DENSE, "--budget", "0"]
    assert main([*base, "--anchor", "w,x", "--auxiliary", "no"]) == 0
    rows = [x for x in capsys.readouterr().out.splitlines() if "; lanes " in x and x[:1] in " 123"]
    assert rows and all(" w; " in x or " x; " in x for x in rows)
    assert main([*base, "--auxiliary", "w=2", "--registers", "9", "--lanes", "oc"]) == 0
    rows = [x for x in capsys.readouterr().out.splitlines() if "; lanes " in x and x[:1] in " 123"]
    assert rows and all("w2" in x and "lanes oc" in x for x in rows)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["conv2d", "--x", "1,8,8,16", "--w", "u8[3,3,16,8]"],
            "conv2d: w='u8[3,3,16,8]' is no shape; a layer takes sizes, and --dtype the types. "
            "Write e.g. 1,56,56,64",
        ),
        (
            ["conv2d", "--x", "1,8,8,16", "--w", "3,3,12,8"],
            "conv2d: x has 16 channels, w reads 12 in each of 1 groups; w.shape[2] = 16 / groups "
            "is needed. Correct w [kh, kw, c/groups, oc] or groups.",
        ),
        (
            ["conv4d", "--x", "1,8"],
            "explore: kernel='conv4d' is no layer; conv2d, depthwise_conv2d, dense, matmul are. "
            "Name one of them, or a kernel of a file: my_layers.py:my_kernel",
        ),
        (
            ["dense", "--x", "4,32", "--w"],
            "dense: w='' is no shape; a layer takes sizes, and --dtype the types. Write e.g. "
            "1,56,56,64",
        ),
        (
            [*DENSE, "--auxiliary", "w=many"],
            "arguments: auxiliary='w=many' is not a choice; yes, no, operands, or operands with "
            "numbers of registers are. Write e.g. w=4,x=2",
        ),
        (
            [*DENSE, "--html", "{folder}/none/a.html"],
            "arguments: file='{folder}/none/a.html' cannot be written; a file in a folder that "
            "exists is allowed. Name another, or make the folder",
        ),
        (
            ["{file}:product", "--a", "4,12", "--b", "12,20"],
            "product: a has a shape and no element type; --dtype gives one. Write e.g. --a "
            "u8[1,56,56,64], or add --dtype u8i8",
        ),
        (
            ["{file}:product", "--a", "4,12", "--b", "12,20", "--dtype", "u8i8i8"],
            "product: dtype='u8i8i8' names 3 element types for 2 shapes (a, b); one for all, or "
            "one for each is allowed. Correct it",
        ),
        (
            ["{file}:nothing"],
            "arguments: kernel='nothing' is not in {file}; product, double are. Name one of them",
        ),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_measured(
    arguments: list[str], said: str, kernels: str, tmp_path: Path, measure: Measure,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    places = {"file": kernels, "folder": tmp_path}
    found = failure(capsys, *(a.format(**places) for a in arguments))
    assert found == said.format(**places)
    assert not measure.asked


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([*DENSE, "--target", "avx9"], "name='avx9' is not known"),
        ([*DENSE, "--anchor", "q"], "anchors='q' chooses nothing"),
        (["{file}:product", "--a", "u8[4,12]"], "b has no type"),
        (["{file}:product", "--q", "u8[4,12]"], "q is neither an operand nor a constant"),
        (["{file}:double", "u8[4,12]"], "argument='u8[4,12]' is not an operand"),
        ([*DENSE, "--constant", "stride=2"], "dense: stride=2 is no option of it here"),
        (["{file}.py:product"], "cannot be run: FileNotFoundError"),
    ],
)
def test_other_errors_are_one_line(
    arguments: list[str], said: str, kernels: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in failure(capsys, *(a.format(file=kernels) for a in arguments))


def test_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    for option in (["--budget", "-1"], ["--budget", "inf"], ["--top", "0"], ["--registers", "x"]):
        with pytest.raises(SystemExit) as stopped:
            main(["explore", *DENSE, *option])
        assert stopped.value.code == 2
        assert "usage: simdflow explore" in capsys.readouterr().err
