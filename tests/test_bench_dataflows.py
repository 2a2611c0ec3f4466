"""The bench suite "dataflows": its variants are the paper's and exact, its claims are arithmetic.

Layers of a few pixels, compiled in this process; claims are computed from cells with made-up times.
"""

from __future__ import annotations

import csv
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import simdflow as sf
from bench import dataflows, study_kernels, study_layers, study_measure
from bench.cases import Case, Run
from bench.compiling import code, compile_kernels
from bench.rows import Options
from bench.study_claims import CLAIMS, both_best, by_layer, claims, gains
from bench.study_kernels import Layer
from bench.study_measure import Cell, measure, prepare
from bench.study_pictures import text_map, write_csv, write_png
from bench.study_reasons import by_itself, reasons, same_code
from bench.study_variants import LEFT, OWN, Variant, _Shape, variants
from simdflow.compiler.report import hot_loop
from simdflow.peaks import Bandwidth, Peaks
from simdflow.targets import host_targets

TARGETS = [t.name for t in host_targets() if t.name != "portable"] or ["portable"]
HOST = sf.target()
PEAKS = Peaks("avx512", 100.0, 400.0, 4000.0, 4.0, (Bandwidth("L1", 1 << 15, 256.0),))
PAPER = [*("OS basic", "OS left to LLVM", "OS weights", "OS inputs"), "OS weights first"]
PAPER += ["OS inputs first", "WS basic", "WS outputs", "IS basic", "IS outputs first"]


def tiny(dtype: str, target: sf.Target = HOST, **changed: int) -> Case:
    c = study_layers.vector_channels(target, dtype)
    return replace(Case("sweep", "conv2d", 4, 5, c, 4, 3, 1, False, dtype), **changed)


@pytest.fixture
def pool() -> ThreadPoolExecutor:
    """Compiles in this process: a worker takes a second to start."""
    return ThreadPoolExecutor(1)


def test_the_layers_are_the_papers() -> None:
    found = study_layers.sweep(HOST)
    for dtype in study_layers.DTYPES:
        mine = [c for c in found if c.dtype == dtype]
        assert len(mine) == len({c.name for c in mine}) == 2 * 3 * 2 * 4
        assert {(c.h, c.k, c.stride, c.oc) for c in mine} >= {(56, 3, 1, 8), (112, 5, 2, 64)}
        assert {c.ic for c in mine} == {study_layers.vector_channels(HOST, dtype)}
    assert {c.network.split()[0] for c in study_layers.networks()} == {
        "vgg19",
        "resnet",
        "mobilenet",
    }
    assert len(study_layers.layers(HOST, quick=True)) == 6


@pytest.mark.parametrize(
    ("registers", "f", "weights_first", "inputs_first"),
    [
        (29, 3, (9, 6), (9, 6)),  # (weights, inputs), as the paper's examples give them
        (13, 3, (9, 4), (7, 6)),
        (5, 3, (5, 0), (0, 5)),
        (29, 5, (25, 4), (9, 20)),
    ],
)
def test_registers_are_given_away_as_in_the_paper(
    registers: int, f: int, weights_first: tuple[int, int], inputs_first: tuple[int, int]
) -> None:
    target = replace(HOST, budget=registers + 3)
    shape = _Shape(tiny("int8", k=f), target)
    assert shape.shared(weights_first=True) == weights_first
    assert shape.shared(weights_first=False) == inputs_first


def test_the_variants_of_a_layer_keep_what_their_names_say() -> None:
    found = {v.name: v for v in variants(tiny("int8"), HOST)}
    assert list(found) == [*PAPER, OWN]
    assert found["OS basic"].kept == (0, 0, 0)
    assert found["OS basic"].barriers
    assert not found[f"OS {LEFT}"].barriers
    assert found["OS basic"].flow == found[f"OS {LEFT}"].flow
    assert found["OS weights"].kept[0] > 0 == found["OS weights"].kept[1]
    assert found["OS inputs"].kept[1] > 0 == found["OS inputs"].kept[0]
    assert min(found["OS weights first"].kept[:2]) > 0
    assert found[OWN].flow is None


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dtype", ["int8", "bit", "depthwise"])
def test_every_variant_is_exact_and_counted(
    target: str, dtype: str, pool: ThreadPoolExecutor
) -> None:
    case = tiny("bit" if dtype == "bit" else "int8", sf.target(target), stride=2)
    if dtype == "depthwise":
        case = replace(case, op="depthwise_conv2d", ic=20, oc=20)
    (prepared,) = prepare([case], target, pool)
    cells = {c.name: c for c in measure(prepared, 0.0)}
    assert {n: c.why for n, c in cells.items() if c.why} == {}
    expected = PAPER if dtype != "depthwise" else [n for n in PAPER if not n.startswith("IS")]
    assert list(cells) == [*expected, OWN]
    assert all(c.us and c.us > 0 and c.code and c.cycles > 0 for c in cells.values())
    assert cells["WS basic"].operations > cells["OS basic"].operations
    assert cells["OS basic"].operations > cells["OS weights first"].operations
    if dtype != "depthwise":
        outputs = case.outputs
        assert cells["OS basic"].horizontal == outputs
        assert cells["OS basic"].operations == outputs * (2 * 9 + 1)


def test_a_wrong_variant_has_a_reason_and_no_time(
    pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = [v for v in variants(tiny("int8"), HOST) if v.name in ("OS basic", OWN)]
    monkeypatch.setattr(study_measure, "variants", lambda case, target: few)
    right = Layer.run

    def off_by_one(layer: Layer, variant: Variant, made: sf.CompiledKernel) -> Run:
        run = right(layer, variant, made)
        return replace(run, output=lambda: run.output() + (variant.name == "OS basic"))

    monkeypatch.setattr(Layer, "run", off_by_one)
    (prepared,) = prepare([tiny("int8")], HOST.name, pool)
    cells = {c.name: c for c in measure(prepared, 0.0)}
    assert cells["OS basic"].us is None
    assert cells["OS basic"].why == "wrong: 80 of 80 sums differ"
    assert cells[OWN].us is not None
    row = dataflows.row(list(cells.values()))
    assert row.exact is False
    assert row.peers == {}


def test_the_sums_are_those_of_the_definition() -> None:
    for dtype in ("int8", "bit"):
        case = Case("sweep", "conv2d", 3, 4, 64 if dtype == "bit" else 5, 2, 2, 1, False, dtype)
        layer = study_kernels.layer(case)
        made = layer.kernel(Variant("", OWN, (0, 0, 0), None), "portable")
        assert np.array_equal(made.run_text(layer.x, layer.w), layer.expected)


def test_barriers_keep_a_naive_program_naive(pool: ThreadPoolExecutor) -> None:
    layer = study_kernels.layer(tiny("int8", w=40))
    found = {v.name: v for v in variants(layer.case, HOST)}
    names = ["OS basic", f"OS {LEFT}", "OS weights"]
    kernels = {n: layer.kernel(found[n], HOST.name) for n in names}
    again = layer.kernel(found["OS basic"], HOST.name)
    _, why = compile_kernels(pool, kernels | {"again": again}, ["OS basic", "again"])
    assert why == {}
    assert code(again) == code(kernels["OS basic"])
    # LLVM keeps the weights of a naive program: its innermost loop becomes that of the one whose
    # plan keeps them (in a loop around it they are loaded again where LLVM cannot tell that it
    # runs).
    assert code(kernels["OS basic"]) != code(kernels[f"OS {LEFT}"])
    left, kept = (hot_loop(layer.kernel(found[n], HOST.name).asm()) for n in names[1:])
    assert [line.split()[0] for line in left] == [line.split()[0] for line in kept]


def test_a_kernel_that_does_not_compile_is_a_remark(pool: ThreadPoolExecutor) -> None:
    layer = study_kernels.layer(tiny("int8"))
    flow = sf.Dataflow(tile={"oc": 4, "oh": 4, "ow": 5}, lanes="ic", group="ic")
    made = layer.kernel(Variant("OS", "too large", (0, 0, 0), flow), HOST.name)
    counts, why = compile_kernels(pool, {"large": made})
    assert counts == {}
    assert why["large"].startswith("DataflowError: sums: the tile needs ")


def cell(case: Case, name: str, us: float | None, **more: object) -> Cell:
    anchor, _, allocation = name.partition(" ")
    if name in (OWN, "onnxruntime"):
        anchor, allocation = "", name
    made = Cell("avx512", case, anchor, allocation, us=us, clock_ghz=4.0, products=100.0)
    return replace(made, **{"code": name, "operations": us or 0.0, "cycles": -(us or 0.0), **more})


def synthetic() -> list[Cell]:
    """Two layers, one of each stride; in the second IS wins."""
    first, second = tiny("int8", h=56), tiny("int8", h=56, stride=2)
    times = {
        "OS basic": (20.0, 10.0),
        f"OS {LEFT}": (1.0, 1.0),
        "OS weights": (10.0, 8.0),
        "OS weights first": (5.0, 5.0),
        "OS inputs first": (5.0, 6.0),
        "WS basic": (40.0, 40.0),
        "WS outputs": (20.0, 20.0),
        "IS basic": (30.0, 5.0),
        "IS outputs first": (10.0, 4.0),
        OWN: (4.0, 8.0),
        "onnxruntime": (8.0, 12.0),
    }
    return [
        cell(case, name, us[i], horizontal=0.0 if name == OWN else 10.0)
        for i, case in enumerate((first, second))
        for name, us in times.items()
    ]


def test_claims_are_computed_by_hand() -> None:
    (layers,) = by_layer(synthetic()).values()
    assert both_best(layers) == [True, False]
    # Basic over best auxiliary: OS 20/5 and 10/5, WS 40/20 twice, IS 30/10 and 5/4.
    assert sorted(gains(layers)) == [1.25, 2.0, 2.0, 2.0, 3.0, 4.0]
    found = {c.text: c.ours(layers) for c in CLAIMS}
    assert found["OS with both reuses is the best (within 2 %)"] == "50 %"
    assert found["basic: OS beats IS*"] == "50 %, 1.50x s1, 0.50x s2"
    assert found["basic: OS beats WS"] == "100 %, 2.00x s1, 4.00x s2"
    assert found["basic: WS beats IS*"] == "0 %, 0.75x s1, 0.12x s2"
    assert found["optimised: OS beats IS*"] == "50 %"
    assert found["gain of the best auxiliary allocation, mean / median"] == "2.375 / 2.000"
    assert found["OS inputs first / weights first"] == "1.10x (1.00 to 1.20)"
    # What LLVM makes of a naive program does not count: it would be 40x.
    best = "10.00x (sweep conv3x3s2 56x5x64-4 int8)"
    assert found["best gain over the naive WS program"] == best
    assert found["best of the paper's / simdflow's default"] == "0.88x (0.50 to 1.25)"
    assert found["best engine / simdflow, u8 out**"] == "1.75x (1.50 to 2.00)"
    # The made-up operations are the times, the made-up predictions their opposite.
    assert found["rank correlation: memory operations"] == "1.00, lowest 1.00"
    assert found["rank correlation: cost model"] == "-1.00, lowest -1.00"
    text = claims(synthetic())
    assert "1.587 / 1.453" in text and "2.375 / 2.000" in text
    assert "outputs are wrong" in text


def test_reasons_are_computed_from_counts_and_peaks() -> None:
    cells = [replace(c, target=HOST.name) for c in synthetic()]
    found = "\n".join(reasons(cells, {HOST.name: PEAKS}))
    # OS basic: 20 operations in 20 us at 4 GHz and 10 in 10; both cells have 100 products.
    assert "memory operations a product: OS basic 0.15, OS with both 0.05, WS basic 0.40" in found
    assert "loads are not its limit" in found
    assert "one for 10 products with OS; simdflow's default has 0 layers with any" in found
    assert "OS with both is beaten on 1 of 2 layers (IS outputs first 1), by 1.25x" in found
    loading = [replace(c, operations=1e6) for c in cells]
    assert "loads limit the basic program" in "\n".join(reasons(loading, {HOST.name: PEAKS}))
    busy = [replace(c, products=c.case.macs / 1.0, us=0.001) for c in cells]
    assert "more reuse could save 0 % at most" in "\n".join(reasons(busy, {HOST.name: PEAKS}))


def test_equal_code_is_reported() -> None:
    cells = synthetic()
    assert same_code(cells) == ["same machine code: no two variants of any layer"]
    both = ("OS weights first", "OS inputs first")
    equal = [replace(c, code="x" if c.name in both else c.code) for c in cells]
    (same,) = same_code(equal)
    assert same.endswith("int8 avx512: OS weights first = OS inputs first in 2 of 2 layers")
    (line,) = by_itself(cells)
    assert "int8 avx512: OS basic becomes 15.00x as fast (10.00 to 20.00)" in line


def test_numbers_and_heat_maps_are_saved(tmp_path: Path) -> None:
    cells = [*synthetic(), cell(tiny("int8", h=56), "OS inputs", None, why="wrong: 1")]
    write_csv(tmp_path / "cells.csv", cells)
    with (tmp_path / "cells.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(cells)
    assert lines[0]["layer"] == cells[0].case.name
    assert (lines[0]["anchor"], lines[0]["us"], lines[0]["stride"]) == ("OS", "20.0", "1")
    assert (lines[-1]["us"], lines[-1]["why"]) == ("", "wrong: 1")
    text = text_map(cells)
    assert "sweep 3x3 s1" in text and "sweep 3x3 s2" in text
    assert "onnxruntime" not in text
    # OS basic takes 20 where the quickest takes 1.
    assert "20.00█" in text and "1.00 " in text
    why = write_png(tmp_path / "map.png", cells)
    if why:
        assert "pip install 'simdflow[plot]'" in why
    else:
        assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")
    assert "nothing was timed" in write_png(tmp_path / "none.png", []) or why


def test_the_suite_runs_from_layers_to_files(
    tmp_path: Path, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = ("OS basic", "OS weights first", "WS basic", OWN)
    chosen = study_measure.variants
    monkeypatch.setattr(
        study_measure, "variants", lambda c, t: [v for v in chosen(c, t) if v.name in few]
    )
    monkeypatch.setattr(dataflows, "layers", lambda target, quick: [tiny("int8", target)])
    monkeypatch.setattr(dataflows, "compilers", lambda: pool)
    options = Options(
        target=HOST.name, json=tmp_path / "rows.json", csv=tmp_path / "c.csv", png=tmp_path / "p"
    )
    result = dataflows.run(options)
    (row,) = result.rows
    assert row.exact is True
    assert set(row.peers) == set(few) - {OWN}
    assert row.case in (tmp_path / "rows.json").read_text()
    assert (tmp_path / "c.csv").exists()
    text = "\n".join(result.lines)
    assert "variants without a time: 0" in text
    assert "IS by input position" in text
    assert "OS with both reuses is the best" in text


def test_targets_are_those_of_the_study_that_this_cpu_has() -> None:
    assert dataflows.chosen_targets("portable") == ("portable",)
    names = {t.name for t in host_targets()}
    assert set(dataflows.chosen_targets("")) == (names & {"avx512", "avx2"} or {HOST.name})
    with pytest.raises(sf.SimdflowError):
        dataflows.chosen_targets("none")
