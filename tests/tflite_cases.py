"""Small .tflite models, one or more for each operator that `from_tflite` takes.

For tests only: `golden/make_litert_graphs.py` writes what LiteRT answers to them, and
`test_frontend_tflite_operators.py` compares.
"""

from __future__ import annotations

import tflite_element_cases
import tflite_move_cases
import tflite_product_cases
from tflite_case import Case

_CASES = {
    **tflite_element_cases.CASES,
    **tflite_move_cases.CASES,
    **tflite_product_cases.CASES,
}


def names() -> tuple[str, ...]:
    """All cases; a name is the operator's, and after a colon what is special."""
    return tuple(_CASES)


def make(name: str) -> Case:
    """The model and its inputs."""
    return _CASES[name]()
