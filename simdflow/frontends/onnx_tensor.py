"""Turns the TensorProtos of an ONNX model into read-only numpy arrays: bytes of the model itself or
of a file beside it.

Sizes are multiplied in Python integers and compared with the bytes that are there before anything
is allocated; a file outside the model's folder is never opened. Tensors of 4 bits, 8-bit floats and
strings are refused.
"""

from __future__ import annotations

import math
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ..dsl.errors import ModelError

MAX_RANK = 8
MAX_SIZE = 2**31 - 1
# The constants of one model in memory, all together.
MAX_CONSTANT_BYTES = 2**32

# ONNX's TensorProto.DataType: (its name, how raw_data stores it, the field for single values).
_TYPES: dict[int, tuple[str, str, str]] = {
    1: ("float", "<f4", "float_data"),
    2: ("uint8", "u1", "int32_data"),
    3: ("int8", "i1", "int32_data"),
    4: ("uint16", "<u2", "int32_data"),
    5: ("int16", "<i2", "int32_data"),
    6: ("int32", "<i4", "int32_data"),
    7: ("int64", "<i8", "int64_data"),
    9: ("bool", "u1", "int32_data"),
    10: ("float16", "<u2", "int32_data"),
    11: ("double", "<f8", "double_data"),
    12: ("uint32", "<u4", "uint64_data"),
    13: ("uint64", "<u8", "uint64_data"),
    16: ("bfloat16", "<u2", "int32_data"),
}
_LOCATION_KEYS = {"location", "offset", "length", "checksum"}


def dtype_of(code: int, what: str) -> np.dtype[Any]:
    """The numpy dtype of an ONNX element type; both 16-bit floats are widened to f32.

    Raises ModelError, with `what` in front, for the types that are refused.
    """
    if code not in _TYPES:
        names = ", ".join(name for name, _, _ in _TYPES.values())
        raise ModelError(
            f"{what}: type={code} is not supported; {names} are. Export the model in these"
        )
    name, stored, _ = _TYPES[code]
    if name in ("float16", "bfloat16"):
        return np.dtype(np.float32)
    return np.dtype(np.bool_) if name == "bool" else np.dtype(stored).newbyteorder("=")


@dataclass
class Reader:
    """Reads the tensors of one model and counts their bytes.

    folder   where files beside the model may lie; None if the model came as bytes
    """

    model: str
    folder: Path | None
    used: int = field(default=0, init=False)

    def array(self, proto: Any, what: str) -> np.ndarray:
        """The read-only array of a TensorProto. Raises ModelError for what is malformed, refused or
        too large.
        """
        what = f"{self.model}: {what}"
        shape = tuple(int(d) for d in proto.dims)
        checked_shape(shape, what)
        dtype = dtype_of(proto.data_type, what)
        _, stored, values = _TYPES[proto.data_type]
        wire = np.dtype(stored)
        count = math.prod(shape)
        self.used += count * max(dtype.itemsize, wire.itemsize)
        if self.used > MAX_CONSTANT_BYTES:
            raise ModelError(
                f"{what}: shape={list(shape)} brings the constants to {self.used} bytes; at most "
                f"{MAX_CONSTANT_BYTES} are allowed. Give a smaller model"
            )
        if proto.data_location == 1:
            raw = self._beside(proto, count * wire.itemsize, what)
            array = np.frombuffer(raw, wire)
        elif proto.HasField("raw_data"):
            raw = proto.raw_data
            _same(len(raw), count * wire.itemsize, "bytes", shape, what)
            array = np.frombuffer(raw, wire)
        else:
            array = self._values(getattr(proto, values), count, wire, shape, what)
        array = _meant(array, proto.data_type, dtype, what).reshape(shape)
        array.flags.writeable = False
        return array

    def _values(
        self, field_: Any, count: int, wire: np.dtype[Any], shape: tuple[int, ...], what: str
    ) -> np.ndarray:
        _same(len(field_), count, "values", shape, what)
        wide = np.array(field_, wire if wire.kind == "f" or wire.itemsize == 8 else np.int64)
        found = wide.astype(wire)
        if wire.kind != "f" and not np.array_equal(found, wide):
            raise ModelError(
                f"{what}: data={wide.min()} to {wide.max()} does not fit {wire}. "
                "Fetch the file again"
            )
        return found

    def _beside(self, proto: Any, size: int, what: str) -> bytes:
        """The bytes of a tensor that lies in a file in the model's folder."""
        given: dict[str, str] = {}
        for entry in proto.external_data:
            if entry.key in given or entry.key not in _LOCATION_KEYS:
                raise ModelError(
                    f"{what}: external_data={entry.key!r} is not known or comes twice; each of "
                    f"{', '.join(sorted(_LOCATION_KEYS))} is allowed once. Export the model again"
                )
            given[entry.key] = entry.value
        path = self._allowed(given.get("location", ""), what)
        try:
            offset, length = (int(given.get(k, d)) for k, d in (("offset", "0"), ("length", "-1")))
        except ValueError:
            raise ModelError(
                f"{what}: external_data={given} has an offset or length that is no number. "
                "Fetch the file again"
            ) from None
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        try:
            handle = os.open(path, flags | getattr(os, "O_BINARY", 0))
        except OSError as error:
            raise ModelError(
                f"{what}: location={given['location']!r} cannot be read: {error.strerror}. "
                "Put the file beside the model"
            ) from error
        with open(handle, "rb") as file:
            status = os.fstat(handle)
            length = status.st_size - offset if "length" not in given else length
            inside = min(offset, length) >= 0 and offset + length <= status.st_size
            if not stat.S_ISREG(status.st_mode) or not inside or length != size:
                raise ModelError(
                    f"{what}: external_data={given} does not name {size} bytes inside a regular "
                    f"file of {status.st_size}. Fetch the files again"
                )
            file.seek(offset)
            raw = file.read(size)
        _same(len(raw), size, "bytes", (), what)
        return raw

    def _allowed(self, location: str, what: str) -> Path:
        """The path of a file beside the model: below its folder, through no link."""
        if self.folder is None:
            raise ModelError(
                f"{what}: location={location!r} is a file, and the model came as bytes; a model "
                "that keeps tensors in files is loaded by its path. Give the path"
            )
        parts = PurePosixPath(location).parts
        plain = location and not set(location) & {"\\", ":", "\0"}
        if not plain or location.startswith("/") or ".." in parts:
            raise ModelError(
                f"{what}: location={location!r} is not allowed; a relative path without '..' is. "
                "Put the file beside the model"
            )
        path = self.folder
        for part in parts:
            path = path / part
            if path.is_symlink():
                raise ModelError(
                    f"{what}: location={location!r} leads through the link {part!r}; files and "
                    "folders are allowed. Put a copy of the file beside the model"
                )
        if not path.is_file():
            raise ModelError(
                f"{what}: location={location!r} is no file beside the model. Put it there"
            )
        return path


def checked_shape(shape: tuple[int, ...], what: str) -> None:
    """ModelError for a rank above 8, a size below 0, and 2^31 bytes or elements and more."""
    if len(shape) > MAX_RANK or any(not 0 <= d <= MAX_SIZE for d in shape):
        raise ModelError(
            f"{what}: shape={list(shape[:MAX_RANK])} has {len(shape)} axes; at most {MAX_RANK} of "
            f"0 to {MAX_SIZE} elements are allowed. Export a smaller model"
        )
    if math.prod(shape) > MAX_SIZE:
        raise ModelError(
            f"{what}: shape={list(shape)} has {math.prod(shape)} elements; at most {MAX_SIZE} are "
            "allowed. Export a smaller model"
        )


def _same(found: int, wanted: int, unit: str, shape: tuple[int, ...], what: str) -> None:
    if found != wanted:
        raise ModelError(
            f"{what}: data={found} {unit} do not fill shape {list(shape)}, which needs {wanted}. "
            "Fetch the file again"
        )


def _meant(array: np.ndarray, code: int, dtype: np.dtype[Any], what: str) -> np.ndarray:
    """The values that stored numbers mean, in the dtype of the tensor."""
    name = _TYPES[code][0]
    if name == "float16":
        return array.view("<f2").astype(dtype)
    if name == "bfloat16":
        return (array.astype(np.uint32) << 16).view(np.float32)
    if name == "bool":
        if array.size and array.max() > 1:
            raise ModelError(f"{what}: bool={array.max()} is not 0 or 1. Fetch the file again")
        return array.astype(dtype)
    return array if array.dtype == dtype else array.astype(dtype)
