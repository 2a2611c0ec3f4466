"""Damaged .tflite files: each gives a ModelError or a graph, in time and within the stated memory.

The copies are read in a process of their own (see `hostile_tflite`), whose memory is limited and
which reports any other exception, signal or hang.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("tflite", reason="reading .tflite files needs simdflow[tflite]")

MODELS = (
    "dscnn_kws_hybrid_f32act_int8w",
    "dscnn_kws_int8",
    "face_full_range_dense_f16",
    "face_full_range_sparse70_f16",
    "fcae_toyadmos_f32",
    "fcae_toyadmos_int8",
    "mobilenetv1_025_vww96_f32",
    "mobilenetv1_025_vww96_int8",
    "mobilenetv2_imagenet_int8",
    "resnet8_cifar10_f32",
    "resnet8_cifar10_int8",
)


def survived(path: Path, seed: int, count: int, sample: int, compiled: int) -> list[int]:
    """(copies that loaded, those of them that were evaluated, copies that were refused)."""
    child = [sys.executable, str(Path(__file__).with_name("hostile_tflite.py")), str(path)]
    numbers = [str(n) for n in (seed, count, sample, compiled)]
    done = subprocess.run([*child, *numbers], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"exit {done.returncode}: {done.stderr[-2000:]}"
    return [int(v) for v in done.stdout.split()]


@pytest.mark.parametrize("name", MODELS)
def test_some_damaged_copies_are_refused_or_evaluated(name: str, models_dir: Path) -> None:
    loaded, done, refused = survived(models_dir / "tflite" / f"{name}.tflite", 1, 25, 3, 0)
    assert loaded + refused == 25 and done and refused


def test_damaged_copies_give_the_same_compiled(models_dir: Path) -> None:
    path = models_dir / "tflite" / "fcae_toyadmos_int8.tflite"
    assert survived(path, 3, 25, 3, 3)[1] == 3


@pytest.mark.thorough
@pytest.mark.parametrize("name", MODELS)
def test_ten_thousand_damaged_copies_are(name: str, models_dir: Path) -> None:
    loaded, done, refused = survived(models_dir / "tflite" / f"{name}.tflite", 2, 10_000, 100, 10)
    assert loaded + refused == 10_000 and done == 100
