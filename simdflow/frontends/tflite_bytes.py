"""The bytes of a .tflite file with a budget: turns counts, vectors and texts in it into checked
values.

It knows flatbuffers and the form of an error, and none of the tables of a model.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..dsl.errors import ModelError

MAX_ENTRIES = 65_536
# What all densified tensors of one file may have together: a few bytes of sparse indices can stand
# for any number of zeros, so the file's own size is no bound.
MAX_DENSE_BYTES = 1 << 28


class FileBytes:
    """The bytes with a budget: all vectors read from them together may not be longer than the file
    allows.

    In an honest file every vector has bytes of its own, so four times the file is generous; a
    malicious one lets many tables share one long vector, and reading it would take quadratic time.
    """

    def __init__(self, content: bytes, name: str, schema: ModuleType) -> None:
        self.content, self.name, self.schema = content, name, schema
        self.budget = 4 * len(content)
        self.dense_budget = MAX_DENSE_BYTES

    def refuse(
        self, field: str, value: object, rest: str, remedy: str = "Fetch the file again"
    ) -> ModelError:
        """The error that says what is wrong with a field; for the caller to raise."""
        return ModelError(f"{self.name}: {field}={value} {rest}. {remedy}")

    def charge(self, count: int, itemsize: int, field: str) -> int:
        """`count`, if that many elements can be in the file at all."""
        self.budget -= count * itemsize
        if count < 0 or count * itemsize > len(self.content) or self.budget < 0:
            raise self.refuse(
                field,
                count,
                f"elements of {itemsize} bytes cannot be in a file of {len(self.content)} bytes",
            )
        return count

    def charge_dense(self, nbytes: int, field: str) -> None:
        """Take `nbytes` of what sparse tensors may become."""
        self.dense_budget -= nbytes
        if self.dense_budget < 0:
            raise self.refuse(
                field,
                nbytes,
                f"bytes of a sparse tensor are too many; {MAX_DENSE_BYTES} for all are allowed",
                "Store it as dense",
            )

    def entries(self, count: int, field: str) -> int:
        """`count`, if a vector of that many tables is possible."""
        if count > MAX_ENTRIES:
            raise self.refuse(field, count, f"is too many; at most {MAX_ENTRIES} are allowed")
        return self.charge(count, 4, field)

    def vector(self, table: Any, method: str, itemsize: int, field: str) -> NDArray[Any]:
        """A vector of numbers of a table, possibly empty."""
        count = self.charge(getattr(table, f"{method}Length")(), itemsize, field)
        return np.asarray(getattr(table, f"{method}AsNumpy")()) if count else np.empty(0, np.int64)

    def integers(self, table: Any, method: str, itemsize: int, field: str) -> tuple[int, ...]:
        """The same as a tuple of ints."""
        return tuple(int(v) for v in self.vector(table, method, itemsize, field))

    def text(self, raw: bytes | None, field: str) -> str:
        """A string of a table; "" if absent."""
        raw = raw or b""
        self.charge(len(raw), 1, field)
        return raw.decode("utf-8")
