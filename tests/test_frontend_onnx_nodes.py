"""ONNX's own node tests through the importer and the numpy evaluation of the graph."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx_cases import cases, table

from simdflow.frontends.onnx import FOLDED_ONLY, STANDARD_OPERATORS

DOCS = Path(__file__).resolve().parents[1] / "docs" / "onnx_operators.md"
# Evaluated on shapes of other models; ONNX has no node test of them, or only with random results.
WITHOUT_TESTS: set[str] = set()


@pytest.mark.parametrize("kind", sorted({*STANDARD_OPERATORS, *FOLDED_ONLY}))
def test_node_cases_of(kind: str) -> None:
    group = cases().get(kind, ())
    assert bool(group) != (kind in WITHOUT_TESTS)
    failed = {}
    for case in group:
        if not case.reason:
            try:
                case.check()
            except Exception as error:
                failed[case.name] = f"{type(error).__name__}: {str(error)[:300]}"
    assert failed == {}
    assert any(not case.reason for case in group)


@pytest.mark.parametrize("kind", sorted({*STANDARD_OPERATORS, *FOLDED_ONLY}))
def test_excluded_cases_cannot_be_run(kind: str) -> None:
    stale = [c.name for c in cases().get(kind, ()) if c.reason and not c.excluded_rightly()]
    assert stale == []


def test_the_table_of_operators_is_that_of_the_documentation() -> None:
    assert DOCS.read_text(encoding="utf-8") == table()
