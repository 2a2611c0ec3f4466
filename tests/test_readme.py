"""The README's Python runs as it stands, from its first block to its last, and its links exist.

It turns the fenced blocks into one file and runs that file; it does not check the prose.
"""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from simdflow.cli.inspect import STAGES

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("scipy", reason="the sparse example needs scipy")
    blocks = re.findall(r"^```python\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 7
    file = tmp_path / "readme_examples.py"
    file.write_text("\n\n".join(blocks), encoding="utf-8")
    monkeypatch.chdir(tmp_path)  # some examples write files
    names = runpy.run_path(str(file))
    wanted = {"conv2d", "conv_u8", "max_pool", "sparse_product", "binary_dense", "network"}
    assert wanted <= set(names)


def test_every_stage_is_described() -> None:
    rows = re.findall(r"^\| (\w+) \| `fast", README, flags=re.MULTILINE)
    assert rows == list(STAGES)


def test_every_linked_file_exists() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    assert [link for link in links if ":" not in link and not (ROOT / link).exists()] == []
