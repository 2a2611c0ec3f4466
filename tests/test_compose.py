"""The example of a whole network runs, and says what it should."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

import simdflow as sf
from examples import compose
from simdflow.graph.evaluate import evaluate

ROOT = Path(__file__).resolve().parents[1]


def test_the_example_runs(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "examples" / "compose.py"), str(tmp_path)]
    shown = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert shown.startswith("network for ")
    assert "gated" in shown and "same answer for " in shown and "no plan takes less than" in shown
    found = re.search(
        r"f32 [\d.]+ us, 8 bits [\d.]+ us, probabilities within ([\d.]+)$", shown.strip()
    )
    assert found is not None and float(found[1]) < 0.02
    events = json.loads((tmp_path / "compose.json").read_text())["traceEvents"]
    assert any("gated" in event["name"] for event in events)
    assert ElementTree.parse(tmp_path / "compose.svg").getroot().tag.endswith("svg")


def test_the_network_computes_what_its_text_says() -> None:
    graph = sf.trace(compose.network, sf.f32[1, 64, 64, 3])
    x = np.random.default_rng(1).random((1, 64, 64, 3), dtype=np.float32)
    (expected,) = evaluate(graph, {"image": x}).values()
    np.testing.assert_allclose(sf.compile(graph)(x), expected, atol=1e-5)
