"""`make demo` runs and says what it should; the digit classifier is exact."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np

from examples.digits import network, predict

ROOT = Path(__file__).resolve().parents[1]


def test_the_classifier_has_the_bits_of_the_reference() -> None:
    data = network.load()
    classify = predict.prepare(data.layers)
    expected = network.predict_reference(data.layers, data.images)
    assert np.array_equal(classify(data.images), expected)
    assert np.array_equal(classify(data.images[7:8]), expected[7:8])
    assert np.mean(expected.argmax(axis=1) == data.labels) > 0.95


def test_the_demo_shows_three_exact_dataflows_and_the_digits(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "examples" / "demo.py")]
    shown = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    rows = re.findall(r"^(out|w|x) +[\d.]+ +([\d.]+)% +(\w+) ", shown, flags=re.MULTILINE)
    assert [(anchor, exact) for anchor, _, exact in rows] == [
        ("out", "yes"), ("w", "yes"), ("x", "yes")
    ]  # fmt: skip
    assert all(1 < float(share) < 130 for _, share, _ in rows)
    assert re.search(r"\d+ of 360 right \(9\d\.\d%\)", shown)
    assert "the same bits as the numpy reference" in shown
