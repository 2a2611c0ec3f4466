"""Tuning records against everything a file can go through, and what later processes make of them.

The records are written here by hand; nothing is measured.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tuned_kernels import dense, dense_f32

import simdflow as sf
from simdflow import cli
from simdflow.compiler import journal, records
from simdflow.compiler.records import Record
from simdflow.compiler.request import Request

ROOT = Path(__file__).resolve().parents[2]
TYPES: dict[str, Any] = {"x": sf.u8[5, 24], "w": sf.i8[24, 32]}
FLOW = sf.Dataflow(tile={"n": 16, "m": 3}, lanes="n", group="k", auxiliary={"w": 2})
RNG = np.random.default_rng(0)
X = RNG.integers(0, 255, (5, 24), dtype=np.uint8)
W = RNG.integers(-128, 127, (24, 32), dtype=np.int8)
RIGHT = X.astype(np.int64) @ W.astype(np.int64)


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file of records of this test's own, in a folder that does not exist yet."""
    file = tmp_path / "records" / "tuning.jsonl"
    monkeypatch.setenv("SIMDFLOW_TUNING", str(file))
    dense.refresh()
    yield file
    dense.refresh()


def request(kernel: sf.Kernel = dense, **given: Any) -> Request:
    return kernel.specialize(**(given or TYPES)).request


def record(flow: sf.Dataflow = FLOW, asked: Request | None = None, **changes: Any) -> Record:
    asked = asked or request()
    made = Record(
        key=records.key_of(asked),
        place=records.here(),
        choice=True,
        date=records.now(),
        kernel=asked.nest.name,
        flow=flow,
        us=12.5,
        spread=0.01,
        calls=100,
        reference=20.0,
        why="",
        session="s",
        about={**records.described(asked), **records.machine()},
    )
    return replace(made, **changes)


def run(code: str, **environment: str) -> str:
    """The output of a fresh process that runs `code` in the folder of the tests."""
    env = {**os.environ, **environment, "PYTHONPATH": f"{ROOT / 'tests'}{os.pathsep}{ROOT}"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


USE = """
import numpy as np, tuned_kernels as t
x, w = (np.load({folder!r} + f"/{{n}}.npy") for n in "xw")
made = t.dense._for((x, w), {{}}, None, None)
print(made(x, w).sum(), str(made.flow))
"""


def test_a_choice_is_used_by_a_process_that_says_nothing(file: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "w.npy", W)
    code = USE.format(folder=str(tmp_path))
    before = run(code).split(maxsplit=1)
    assert records.append(record())
    after = run(code).split(maxsplit=1)
    again = run(code).split(maxsplit=1)  # from the cache of object code
    off = run(code, SIMDFLOW_TUNING="off").split(maxsplit=1)
    assert before[0] == after[0] == again[0] == str(RIGHT.sum())
    assert before[1] == off[1] != after[1] == again[1] == f"{FLOW}\n"


def test_a_choice_is_for_calls_without_a_dataflow_of_their_own(file: Path) -> None:
    records.append(record())
    assert dense.specialize(**TYPES).flow == FLOW
    other = sf.Dataflow(tile={"n": 16})
    assert dense.specialize(**TYPES, dataflow=other).flow == other
    assert sf.kernel(dense.function, dataflow=other).specialize(**TYPES).flow == other
    packed = dense.specialize(x=TYPES["x"], w=sf.pack(W).type)
    assert packed.flow == FLOW
    assert dense.specialize(**TYPES, out=sf.i32[5, 32]).flow == FLOW
    assert dense.specialize(x=sf.u8[6, 24], w=TYPES["w"]).tuned is None
    if len(sf.host_targets()) > 1:
        assert dense.specialize(**TYPES, target="portable").tuned is None
    np.testing.assert_array_equal(dense(X, W), RIGHT)
    assert "12.50 us, the default 20.00 us, measured 20" in dense.specialize(**TYPES).report()


def test_the_newest_choice_of_this_machine_counts(file: Path) -> None:
    slower = replace(FLOW, tile=(("m", 1), ("n", 32)))
    other = replace(FLOW, tile=(("m", 2), ("n", 32)))
    records.append(record(other, date="2026-03-01T00:00:00.000000+00:00"))
    records.append(record(FLOW, date="2026-02-01T00:00:00.000000+00:00", us=1.0))
    records.append(record(slower, place="0" * 16, date="2027-01-01T00:00:00.000000+00:00"))
    records.append(record(slower, choice=False))
    assert dense.specialize(**TYPES).flow == other
    dense.refresh()
    merged = file.read_bytes()
    file.write_bytes(merged + record(slower).line() + b"\n" + merged)  # merged by concatenation
    assert dense.specialize(**TYPES).flow == slower


def test_another_machine_or_version_is_another_place() -> None:
    about = records.machine()
    assert records.place_of(about) == records.here()
    for name in ("cpu", "features", "caches", "simdflow", "numba", "llvmlite", "llvm"):
        assert records.place_of({**about, name: "other"}) != records.here()


def test_a_dataflow_that_is_not_possible_any_more_is_a_warning(file: Path) -> None:
    records.append(record(sf.Dataflow(tile={"n": 16, "m": 5}, lanes="n", auxiliary={"q": 3})))
    with pytest.warns(sf.TuningWarning) as caught:
        made = dense.specialize(**TYPES)
        np.testing.assert_array_equal(made(X, W), RIGHT)
    assert made.tuned is None
    (warning,) = caught
    text = str(warning.message)
    assert text.startswith("dense: dataflow=Dataflow(anchor='out', auxiliary={'q': 3}")
    assert "is not possible any more: dense: auxiliary='q' is not an operand" in text
    assert text.endswith("Tune the kernel again, or run `simdflow cache forget`")


def test_every_record_reads_back() -> None:
    for flow in sf.dataflows(dense, **TYPES).sample(40):
        made = record(flow, us=None, spread=None, why='killed: "SIGSEGV"\n')
        assert records.HEAD.fullmatch(made.line())
        assert Record.parsed(made.line()) == made
        assert len(made.line()) < 2000


@given(st.data())
def test_damaged_lines_are_passed_over_and_the_others_are_not(data: st.DataObject) -> None:
    file = records.path()
    assert file is not None
    good = record(FLOW)
    victim = record(replace(FLOW, unroll=(("k", 8),))).line()
    at = data.draw(st.integers(0, len(victim) - 1))
    end = data.draw(st.integers(at, min(len(victim), at + 40)))
    broken = victim[:at] + data.draw(st.binary(max_size=30)) + victim[end:]
    journal.clear(file)
    records.append(good)
    with open(file, "ab") as f:
        f.write(broken + data.draw(st.sampled_from([b"\n", b""])))
    records.append(replace(good, choice=False))
    # Whatever the damage, nothing is raised; what still reads as a choice may be one.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sf.TuningWarning)
        found = list(records.every())
        dense.refresh()
        assert dense.specialize(**TYPES).resolved.nest == dense.nest
        np.testing.assert_array_equal(dense.specialize(**TYPES)(X, W), RIGHT)
    whole = [r for r in found if isinstance(r, Record)]
    assert whole[0] == good
    assert whole[-1] == replace(good, choice=False)


HOSTILE = [
    {"flow": {"unroll": [["k", 1 << 30]]}},
    {"flow": {"__class__": "os.system"}},
    {"flow": {"tile": [["n", "16"]]}},
    {"flow": "import os"},
    {"us": float("1e300")},
    {"us": "quick"},
    {"about": []},
    {"about": {"types": 1}},
]


@pytest.mark.parametrize("change", HOSTILE, ids=str)
def test_a_hostile_choice_is_passed_over_and_the_one_before_it_counts(
    change: dict[str, Any], file: Path
) -> None:
    records.append(record())
    line = json.loads(record().line()) | change
    with open(file, "ab") as f:
        f.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")
    made = dense.specialize(**TYPES)
    np.testing.assert_array_equal(made(X, W), RIGHT)
    assert made.flow == FLOW
    info = sf.cache.tuning()
    assert (info.measurements, len(info.damaged)) == (1, 1)
    assert "1 kernels of this machine tuned, 1 lines that cannot be used\n  dense(" in str(info)


def test_long_and_binary_lines_are_counted(file: Path) -> None:
    records.append(record())
    with open(file, "ab") as f:
        f.write(b"[" * 100_000 + b"\n\x00\xff\n" + b'{"a":1}\n')
        f.write(record(session="x" * records.LINE).line() + b"\n")
    info = sf.cache.tuning()
    assert (info.measurements, len(info.damaged), len(info.kernels)) == (1, 4, 1)
    assert info.kernels[0].startswith("dense(w=i8[24, 32], x=u8[5, 24]): 12.50 us")
    assert dense.specialize(**TYPES).flow == FLOW


def test_what_others_can_write_is_not_believed(file: Path) -> None:
    records.append(record())
    file.chmod(0o622)
    with pytest.warns(sf.TuningWarning, match="can be written by others"):
        assert dense.specialize(**TYPES).tuned is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not records.append(record())
    file.unlink()
    os.mkfifo(file)
    dense.refresh()
    assert dense.specialize(**TYPES).tuned is None


def test_a_torn_last_line_does_not_swallow_the_next(file: Path) -> None:
    records.append(record())
    whole = file.read_bytes()
    file.write_bytes(whole + record().line()[:70])
    records.append(record(replace(FLOW, unroll=(("k", 8),))))
    assert file.read_bytes().startswith(whole)
    found = list(records.every())
    assert [isinstance(r, Record) for r in found] == [True, False, True]
    assert dict(dense.specialize(**TYPES).flow.unroll) == {"k": 8}


def test_a_full_disk_is_a_warning_and_loses_nothing(file: Path) -> None:
    records.append(record())
    size = file.stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, before[1]))
    try:
        with pytest.warns(sf.TuningWarning) as caught:
            assert not records.append(record())
            assert not records.append(record())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, old)
    assert len(caught) == 1
    assert "a measurement cannot be kept: the disk took 100 of" in str(caught[0].message)
    assert records.append(record(replace(FLOW, unroll=(("k", 8),))))
    found = list(records.every())
    assert [isinstance(r, Record) for r in found] == [True, False, True]


WRITER = """
import sys
from simdflow.compiler import journal
from pathlib import Path
for i in range(200):
    journal.append(Path(sys.argv[1]), f"{sys.argv[2]} {i} ".encode() + sys.argv[2].encode() * 3000)
"""


def test_several_writers_lose_nothing_even_if_one_is_killed(file: Path) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(file), name], cwd=ROOT)
        for name in "abc"
    ]
    while not file.exists() or b"c 20 " not in journal.content(file):
        assert writers[2].poll() is None
    os.kill(writers[2].pid, signal.SIGKILL)
    assert [w.wait() for w in writers] == [0, 0, -signal.SIGKILL]
    lines = journal.content(file).split(b"\n")
    for name in "ab":
        own = [line for line in lines if line.startswith(name.encode())]
        assert own == [f"{name} {i} {name * 3000}".encode() for i in range(200)]


def test_records_are_shown_and_forgotten(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = request(dense_f32, x=sf.f32[4, 8], w=sf.f32[8, 16])
    records.append(record())
    records.append(record(sf.Dataflow(), asked, us=3.0))
    assert cli.main(["cache", "info"]) == 0
    shown = capsys.readouterr().out
    assert f"tuning    {file}: 2 measurements, 2 kernels of this machine tuned\n" in shown
    assert "  dense_f32(w=f32[8, 16], x=f32[4, 8]): 3.00 us" in shown
    assert cli.main(["cache", "forget"]) == 0
    assert capsys.readouterr().out == "2 tuning records removed\n"
    assert sf.cache.tuning().measurements == 0
    dense.refresh()
    assert dense.specialize(**TYPES).tuned is None
    assert sf.cache.forget() == 0


def test_without_a_file_a_lookup_is_one_stat(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    real = os.stat
    monkeypatch.setattr(records.os, "stat", lambda p: calls.append(p) or real(p))
    monkeypatch.setattr(records, "key_of", None)
    asked = Request(dense.nest, tuple(sorted(TYPES.items())), (), None, sf.target())
    assert records.resolved(asked) == (asked, None)
    assert calls == [file]


def test_a_file_is_read_once_until_it_changes(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records.append(record())
    reads = []
    real = journal.content
    monkeypatch.setattr(journal, "content", lambda f: reads.append(f) or real(f))
    asked = request()
    for _ in range(3):
        assert records.resolved(asked)[1] is not None
    assert len(reads) == 1
    records.append(record(replace(FLOW, unroll=(("k", 8),))))
    assert dict(records.resolved(asked)[0].flow.unroll) == {"k": 8}
    assert len(reads) == 2
