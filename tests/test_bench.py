"""The bench harness itself: its reference, its bounds, its turns, its tables, and what it reports.

No peer is needed: an engine made of numpy stands for ours and for the peers.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench import (
    __main__,
    bounds,
    cases,
    layers,
    networks,
    ours,
    peers,
    startup,
    startup_probe,
    summary,
    timing,
)
from bench.cases import Case, Problem, Run, Unsupported
from bench.rows import Options, Row
from simdflow.peaks import Bandwidth, Peaks

PEAKS = Peaks(
    target="avx512",
    f32_gmac=100.0,
    i8_gmac=400.0,
    bit_gop=5000.0,
    clock_ghz=4.0,
    bandwidth=(Bandwidth("L1", 1 << 15, 400.0), Bandwidth("DRAM", 0, 40.0)),
)
SMALL = Case("test", "conv2d", 7, 6, 3, 5, k=3, stride=2)


def plain(problem: Problem, x: np.ndarray, w: np.ndarray, border: int) -> np.ndarray:
    """The layer's sums by the definition, one output after the other, in Python integers or f64."""
    case = problem.case
    (top, _), (left, _) = case.padding
    out = np.zeros((1, case.oh, case.ow, case.oc))
    for _, oh, ow, oc in np.ndindex(out.shape):
        for kh, kw in np.ndindex(case.k, case.k):
            h, v = oh * case.stride + kh - top, ow * case.stride + kw - left
            inside = 0 <= h < case.h and 0 <= v < case.w
            if case.op == "depthwise_conv2d":
                value = float(x[0, h, v, oc]) if inside else border
                out[0, oh, ow, oc] += value * float(w[kh, kw, oc])
                continue
            for ic in range(case.ic):
                value = float(x[0, h, v, ic]) if inside else border
                out[0, oh, ow, oc] += value * float(w[kh, kw, ic, oc])
    return out


@pytest.mark.parametrize("op", ["conv2d", "depthwise_conv2d"])
@pytest.mark.parametrize("size", [(7, 6), (8, 8), (3, 1)])
@pytest.mark.parametrize(("k", "stride"), [(1, 1), (3, 1), (3, 2), (7, 2), (1, 2)])
def test_the_reference_is_the_definition(
    op: str, size: tuple[int, int], k: int, stride: int
) -> None:
    oc = 3 if op == "depthwise_conv2d" else 4
    case = Case("test", op, *size, 3, oc, k=k, stride=stride, relu=False)
    given = cases.problem(case)
    expected = plain(given, given.x, given.w, 0) + given.bias
    assert given.tolerance is not None
    assert np.allclose(given.expected, expected, rtol=1e-12, atol=1e-12)


def test_the_border_of_bits_is_plus_one() -> None:
    given = cases.problem(replace(SMALL, dtype="bit", relu=False))
    assert set(np.unique(given.x)) == {-1, 1}
    assert np.array_equal(given.expected, plain(given, given.x, given.w, 1))


@pytest.mark.parametrize("relu", [True, False])
def test_int8_is_rounded_by_the_definition_and_is_not_degenerate(relu: bool) -> None:
    given = cases.problem(replace(SMALL, dtype="int8", relu=relu, h=20, w=20, oc=16))
    sums = (plain(given, given.x, given.w, 0) + given.bias).astype(np.int32)
    real = sums.astype(np.float32) * given.multiplier
    expected = np.clip(np.rint(real) + given.y_zero, 0, 255)
    assert given.expected.dtype == np.uint8
    assert np.array_equal(given.expected, expected)
    assert len(np.unique(given.expected)) > 100


def test_dense_takes_one_row() -> None:
    given = cases.problem(Case("test", "dense", 1, 1, 2500, 7, relu=False))
    expected = given.x.astype(np.float64) @ given.w.astype(np.float64) + given.bias
    assert given.expected.shape == (1, 7)
    assert np.allclose(given.expected, expected, rtol=1e-12, atol=1e-12)


def test_mismatch_finds_each_kind_of_error() -> None:
    whole = cases.problem(replace(SMALL, dtype="int8"))
    off = np.where(whole.expected > 100, whole.expected - 1, whole.expected + 1).astype(np.uint8)
    assert cases.mismatch(whole.expected, whole, 0) == ""
    assert cases.mismatch(off, whole, 1) == ""
    assert "differs by up to 1" in cases.mismatch(off, whole, 0)
    assert "shape" in cases.mismatch(off[0], whole, 1)
    real = cases.problem(SMALL)
    found = real.expected.astype(np.float32)
    assert cases.mismatch(found, real, 0) == ""
    found[0, 0, 0, 0] = np.nan
    assert cases.mismatch(found, real, 0).startswith("1 outputs beyond")


def test_the_networks_have_their_known_sizes() -> None:
    found = networks.layers()
    assert len(found) == len({case.name for case in found}) == 116
    # Published multiply-accumulates: VGG-16 15.5e9 (of which the 5 repeated layers appear once).
    repeated = {"56x56x256-256": 2, "28x28x512-512": 2, "14x14x512-512": 3}
    vgg = sum(
        case.macs * next((n for shape, n in repeated.items() if shape in case.name), 1)
        for case in found
        if case.network == "vgg16" and case.dtype == "f32"
    )
    assert vgg == 15_470_264_320
    assert {case.name for case in networks.layers(quick=True)} == networks.QUICK


def test_each_bar_stands_on_its_class() -> None:
    long = Case("test", "conv2d", 56, 56, 64, 64, k=3)
    found = bounds.bound(long, PEAKS)
    assert (found.bar, found.bar_on) == (0.90, "peak")
    assert found.peak_us == pytest.approx(long.macs / 100e3)
    short = bounds.bound(replace(long, k=1, dtype="int8"), PEAKS)
    assert (short.bar, short.bar_on) == (0.90, "bound")
    assert short.bound_us == pytest.approx(short.peak_us * (16 + 1.05) / 16)
    assert bounds.bound(replace(long, oc=32), PEAKS).bar == 0.70
    assert bounds.bound(replace(long, op="depthwise_conv2d"), PEAKS).bar is None
    dense = bounds.bound(Case("test", "dense", 1, 1, 1000, 1000), PEAKS)
    assert (dense.limit, dense.bar) == ("DRAM bandwidth", 0.85)
    assert dense.peak_us == pytest.approx(100.0)
    bits = replace(long, dtype="bit")
    assert bounds.bound(bits, PEAKS).bar is None
    assert bounds.bound(replace(bits, ic=128, oc=128), PEAKS).bar == 0.85


def test_peaks_follow_the_clock_but_memory_does_not() -> None:
    found = bounds.at_clock(PEAKS, 2.0, threads=1)
    assert (found.f32_gmac, found.i8_gmac, found.bit_gop) == (50.0, 200.0, 2500.0)
    assert [b.gb_per_s for b in found.bandwidth] == [200.0, 40.0]


def test_turns_time_every_engine() -> None:
    counts = {"a": 0, "b": 0}

    def call(name: str) -> None:
        counts[name] += 1

    found = timing.interleaved({n: lambda n=n: call(n) for n in counts}, 0.001, rounds=3)
    assert set(found) == {"a", "b"}
    for name, timed in found.items():
        assert 3 <= timed.calls < counts[name]
        assert 0 < timed.min_us <= timed.median_us


def engine(problem: Problem, threads: int) -> Run:
    dtype = np.float32 if problem.case.dtype == "f32" else problem.expected.dtype
    out = problem.expected.astype(dtype)
    return Run(lambda: None, out.copy)


def broken(problem: Problem, threads: int) -> Run:
    return Run(lambda: None, lambda: problem.expected + np.ones_like(problem.expected))


def refused(problem: Problem, threads: int) -> Run:
    raise Unsupported("not today")


def fails(problem: Problem, threads: int) -> Run:
    raise RuntimeError


@pytest.mark.parametrize(
    ("prepare", "exact", "why"),
    [
        (engine, True, None),
        (broken, False, "wrong: output differs by up to"),
        (refused, None, "not today"),
        (fails, None, "RuntimeError: "),
    ],
)
def test_a_row_says_what_happened(
    monkeypatch: pytest.MonkeyPatch, prepare: object, exact: bool | None, why: str | None
) -> None:
    monkeypatch.setattr(ours, "prepare", prepare)
    monkeypatch.setattr(peers, "PACKAGES", {"numpy": "numpy"})
    monkeypatch.setattr(peers, "prepare", lambda name, *rest: engine(*rest))
    case = replace(SMALL, dtype="int8")
    row = layers._measure(case, Options(peers=True), PEAKS, 0.001)
    assert row.exact is exact
    assert (row.ratio is not None) == (why is None) == (row.ours_us is not None)
    assert row.why.get("ours", "").startswith(why or "")
    assert ("ours" in row.why) == (why is not None)
    assert row.peers["numpy"] > 0
    assert case.name in layers.layer_table([row])


def test_the_command_line_writes_what_it_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ours, "prepare", engine)
    monkeypatch.setattr(timing, "pin", lambda threads: None)
    monkeypatch.setattr(layers, "pin", lambda threads: None)
    file = tmp_path / "rows.json"
    __main__.main(["layers", "--quick", "--only", "dw3x3s2", "--json", str(file)])
    written = json.loads(file.read_text())
    (row,) = written["rows"]
    assert row["case"] == "mobilenet dw3x3s2 14x14x512-512 int8"
    wanted = {"suite", "case", "threads", "ours_us", "peers", "ratio", "peak_fraction"}
    assert wanted | {"exact", "target", "cpu"} <= row.keys()
    assert row["exact"] is True
    assert row["case"] in capsys.readouterr().out


@pytest.mark.parametrize(
    ("op", "dtype"),
    [
        ("conv2d", "f32"),
        ("conv2d", "int8"),
        ("conv2d", "bit"),
        ("depthwise_conv2d", "f32"),
        ("depthwise_conv2d", "int8"),
        ("dense", "f32"),
        ("dense", "int8"),
    ],
)
def test_ours_computes_the_layer_and_says_how_it_reads_its_input(op: str, dtype: str) -> None:
    shapes = {
        "conv2d": {"h": 7, "w": 6, "ic": 8, "oc": 24, "k": 3},
        "depthwise_conv2d": {"h": 7, "w": 6, "ic": 24, "oc": 24, "k": 3, "stride": 2},
        "dense": {"h": 1, "w": 1, "ic": 40, "oc": 24},
    }
    case = Case("test", op, **shapes[op], dtype=dtype, relu=dtype != "bit")
    given = cases.problem(case)
    run = ours.prepare(given, 1)
    run.call()
    assert cases.mismatch(run.output(), given, 0) == ""
    assert run.note == ("" if op == "dense" else "bordered")
    assert (run.copying is not None) == (op != "dense" and dtype != "bit")


def test_the_copying_form_reads_an_input_without_a_border() -> None:
    case = replace(SMALL, dtype="int8")
    given = cases.problem(case)
    run = ours.prepare(given, 1)
    assert run.copying is not None
    run.copying()
    assert cases.mismatch(run.output(), given, 0) == ""
    given.x[...] = 255 - given.x  # bound, so read again by the next call; the bordered one is not
    run.copying()
    assert cases.mismatch(run.output(), given, 0) != ""
    run.call()
    assert cases.mismatch(run.output(), given, 0) == ""
    row = layers._measure(case, Options(), PEAKS, 0.001)
    assert row.input == "bordered"
    assert row.copying_us is not None


def test_the_summary_says_what_making_the_border_costs() -> None:
    rows = [
        Row("layers", "a", 1, ours_us=10.0, copying_us=20.0),
        Row("layers", "b", 1, ours_us=10.0, copying_us=80.0),
        Row("layers", "c", 1, ours_us=10.0),
    ]
    assert "its border: 4.00 times as long, geometric mean over 2" in "\n".join(
        summary.summary(rows)
    )


def test_the_summary_counts_and_names() -> None:
    def row(case: str, ratio: float, share: float, bar: float | None) -> Row:
        return Row(
            "layers",
            case,
            1,
            ours_us=1.0,
            ratio=ratio,
            peak_fraction=share,
            bound_fraction=share,
            limit="int8 peak",
            bar=bar,
            bar_on="peak",
        )

    rows = [
        row("net conv3x3 a int8", 2.0, 0.95, 0.90),
        row("net conv3x3 b int8", 0.5, 0.80, 0.90),
        row("net dw3x3 c int8", 3.0, 0.1, None),
        row("net conv3x3 d f32", 1.21, 0.95, 0.70),
    ]
    text = "\n".join(summary.summary(rows))
    assert "int8 dense convolution: geometric mean 1.000 over 2 layers, asked 1.10: MISSED" in text
    assert "int8 depthwise: geometric mean 3.000 over 1 layers, asked 1.50: reached" in text
    assert "below 0.95 of the best peer: 1 of 4\n    net conv3x3 b int8 0.5" in text
    assert (
        "at least 90% of int8 peak: 1 of 2 layers, lowest 0.80\n    misses: net conv3x3 b" in text
    )
    assert "at least 70% of int8 peak: 1 of 1 layers" in text
    assert "doubtful" not in text
    doubtful = summary.summary([row("net conv3x3 e f32", 1.0, 1.2, None)])
    assert "doubtful: 1\n    net conv3x3 e f32" in "\n".join(doubtful)


def test_a_missing_peer_is_a_remark() -> None:
    with pytest.raises(Unsupported, match="not installed"):
        peers.prepare("no_such_engine", cases.problem(SMALL), 1)


def test_a_probe_that_fails_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert float(startup._probe("import", str(tmp_path))["us"]) > 0
    assert "usage" in str(startup._probe("nothing", str(tmp_path))["why"])


def test_startup_probes_measure_with_a_cache_of_their_own(tmp_path: Path) -> None:
    """The first process compiles into the given folder; the second links what it finds there."""
    first, second = (startup._probe("first_call", str(tmp_path)) for _ in range(2))
    assert any(tmp_path.rglob("*"))
    assert 0 < float(second["us"]) < float(first["us"])
    assert {m.probe for m in startup.MEASURES} == set(startup_probe.PROBES)


def test_batches_take_turns_with_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from bench import batches
    from bench.model_cases import models

    try:
        models()
    except Unsupported as reason:
        pytest.skip(str(reason))
    monkeypatch.setattr(batches, "BATCHES", (3,))
    result = batches.run(Options(quick=True, only="autoencoder int8"))
    (row,) = result.rows
    assert row.exact
    assert row.ours_us is not None
    assert row.ratio == pytest.approx(row.ours_us / row.peers["batch 3"], rel=0.02)
    assert float(row.notes["cold_s"]) > 0
    assert any(line.startswith("slower in a batch than alone: ") for line in result.lines)


def test_algorithms_are_checked_and_compared_with_the_prediction() -> None:
    from bench import algorithms

    names = [case.name for case in algorithms.layers()]
    assert len(set(names)) == len(names)
    result = algorithms.run(Options(quick=True, only="32x32x8-8"))
    (row,) = result.rows
    assert not row.why  # both are right
    assert set(row.peers) == {"direct", "winograd"}
    chosen = "winograd" if float(row.notes["predicted"]) > 1 else "direct"
    assert row.ours_us == row.peers[chosen]
    measured = row.peers["direct"] / row.peers["winograd"]
    agree = (measured > 1) == (chosen == "winograd")
    lines = "\n".join(result.lines)
    assert f"the faster algorithm is chosen for {int(agree)} of 1 layers" in lines
