"""What a model shows: text, notebook cells, a picture, a trace; all that is in it, well-formed."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

import simdflow as sf
from simdflow import ops
from simdflow.graph.graph import LONGEST, Builder, short
from simdflow.graph.model import Model
from simdflow.graph.show import plot

RNG = np.random.default_rng(4)
W = RNG.normal(0, 1, (3, 3, 3, 8)).astype(np.float32)
SVG = "{http://www.w3.org/2000/svg}"
LONG = "a/very/long/scope/" * 5 + "<conv> & relu"


def two_ways(x: Any, y: Any) -> Any:
    a = ops.conv2d(x, W, padding="same", activation="relu")
    b = ops.max_pool2d(a, kernel=2)
    return ops.softmax(ops.dense(b.reshape(1, 128), np.ones((128, 5), np.float32))) + y, b


@pytest.fixture(scope="module")
def model() -> Model:
    return sf.compile(sf.trace(two_ways, sf.f32[1, 8, 8, 3], sf.f32[1, 5]))


def test_the_summary_has_every_step_and_the_sums(model: Model) -> None:
    head, columns, *rows, sums = model.summary().splitlines()
    assert head == (
        f"two_ways for {model.target}: x: f32[1, 8, 8, 3], y: f32[1, 5] -> add: f32[1, 5], "
        "max_pool2d: f32[1, 4, 4, 8]"
    )
    assert columns.split() == ["layers", "kernel", "result", "MMAC"]
    network = model.network
    assert len(rows) == len(network.calls) == len(network.tasks)
    for row, task in zip(rows, network.tasks, strict=True):
        assert row.startswith(" + ".join(task.nodes)[:60])
        assert task.out in row and row.endswith(f"{task.macs / 1e6:.3f}")
    assert all(any(name in row for row in rows) for name in ("conv2d", "dense", "softmax", "add"))
    macs = (8 * 8 * 8 * 27 + 128 * 5) / 1e6
    assert sums.startswith(f"{len(rows)} steps, {len(network.kernels)} kernels of ")
    assert f"{macs:.2f} MMAC" in sums
    assert sums.endswith(f"arena {network.memory.nbytes} bytes, 1 threads")
    assert str(model) == model.summary()


def test_the_repr_is_one_line(model: Model) -> None:
    assert repr(model) == (
        f"<model two_ways(x: f32[1, 8, 8, 3], y: f32[1, 5]) for {model.target}, threads=1>"
    )


def test_the_memory_map_has_every_tensor_inside_the_arena(model: Model) -> None:
    plan = model.network.memory
    head, axis, *rows = model.memory().splitlines()
    assert head.startswith(f"arena {plan.nbytes} bytes; no plan takes less than {plan.bound} (")
    assert axis.split()[:3] == ["offset", "bytes", "steps"]
    assert len(rows) == len(plan.slabs) > 0
    found = [re.match(r" *(\d+) +(\d+) +(\d+)-(\d+) +(#+)", row) for row in rows]
    for row in found:
        assert row is not None
        offset, size, first, last = (int(row[i]) for i in range(1, 5))
        assert offset + size <= plan.nbytes
        assert 0 <= first <= last < len(model.network.calls)
    assert {"x", "y"} <= {row.split()[-1] for row in rows}


def cells(table: str) -> list[list[str]]:
    """The rows of an HTML table that is well-formed."""
    root = ElementTree.fromstring(table)
    return [["".join(cell.itertext()) for cell in row] for row in root.iter("tr")]


def test_a_notebook_shows_the_steps(model: Model) -> None:
    head, *rows = cells(model._repr_html_())
    assert head == ["layers", "kernel", "result", "MMAC"]
    assert [r[2] for r in rows] == [t.out for t in model.network.tasks]
    head, *rows = cells(model.profile(seconds=0.01)._repr_html_())
    assert head == ["us", "share", "GMAC/s", "of peak", "layer"]
    assert len(rows) == len(model.network.tasks)
    assert sum(float(r[1].rstrip("%")) for r in rows) == pytest.approx(100, abs=1)


def test_the_picture_has_every_node_and_every_edge(model: Model, tmp_path: Path) -> None:
    model.plot(tmp_path / "two_ways.svg")
    root = ElementTree.parse(tmp_path / "two_ways.svg").getroot()
    titles = [e.text for e in root.iter(f"{SVG}title")]
    graph = model.graph
    assert sorted(titles) == sorted([*graph.inputs, *(n.output for n in graph.nodes)])
    texts = [e.text for e in root.iter(f"{SVG}text")]
    assert "x f32[1, 8, 8, 3]" in texts and "conv2d f32[1, 8, 8, 8]" in texts
    edges = sum(i not in graph.constants for n in graph.nodes for i in n.reads)
    assert len(list(root.iter(f"{SVG}line"))) == edges
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    places = []
    for box in root.iter(f"{SVG}g"):
        rect = box.find(f"{SVG}rect")
        assert rect is not None
        x, y, w, h = (float(rect.attrib[k]) for k in ("x", "y", "width", "height"))
        assert min(x, y) >= 0 and x + w <= width and y + h <= height
        assert all(abs(x - p) >= w or abs(y - q) >= h for p, q in places), "boxes overlap"
        places.append((x, y))


def test_names_of_exporters_are_shortened_and_escaped(tmp_path: Path) -> None:
    b = Builder("<g> & co")
    x = b.input("x<1>", sf.f32[1, 4, 4, 3])
    graph = b.graph(b.call(ops.conv2d, x, b.constant("w", W), output=LONG, name=LONG))
    plot(graph, tmp_path / "g.svg")
    titles = [e.text for e in ElementTree.parse(tmp_path / "g.svg").iter(f"{SVG}title")]
    assert titles == ["x<1>", LONG]
    model = sf.compile(graph)
    assert cells(model._repr_html_())[1][0] == short(LONG)
    assert len(short(LONG)) == LONGEST and LONG.endswith(short(LONG)[3:])
    cells(model.profile(seconds=0.01)._repr_html_())
    assert model.summary().splitlines()[2].startswith(short(LONG) + " ")


def test_a_graph_of_no_layers_is_shown_too(tmp_path: Path) -> None:
    b = Builder("nothing")
    graph = b.graph(b.input("x", sf.f32[4]))
    plot(graph, tmp_path / "g.svg")
    assert len(list(ElementTree.parse(tmp_path / "g.svg").iter(f"{SVG}g"))) == 1
    model = sf.compile(graph)
    assert "0 steps" in model.summary()
    assert cells(model._repr_html_()) == [["layers", "kernel", "result", "MMAC"]]
    assert model.memory().startswith("arena ")
    assert model.profile(seconds=0.0).lines == ()


def test_the_trace_has_the_steps_one_after_the_other(model: Model, tmp_path: Path) -> None:
    profile = model.profile(seconds=0.01)
    profile.trace(tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert [e["name"] for e in events] == [line.name for line in profile.lines]
    for before, after in pairwise(events):
        assert after["ts"] == pytest.approx(before["ts"] + before["dur"])
    shown = str(profile).splitlines()
    assert shown[0].startswith(f"two_ways on {model.target}: ") and shown[0].endswith(" us")
    assert len(shown) == 2 + len(profile.lines)
