"""Records: what tuning measured, one line of JSON a measurement, in one file that only grows.

Turns a Request without a dataflow into the recorded choice for this very CPU and these versions, if
there is one. Files are merged by concatenation. Reading runs nothing of what is read: a line that
is torn, hostile or foreign is passed over. Nothing here measures.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from ..dsl.dataflow import Dataflow
from ..dsl.errors import DataflowError, SimdflowError, TuningWarning
from ..dsl.nest import LoopNest, Origin
from ..dsl.version import VERSION
from ..targets.core import caches
from ..targets.detect import features_string
from . import journal
from .cache import default_dir, environment
from .request import Request, stored

LINE = 16 << 10  # longer lines are not ours
# The start of each line has fixed widths, so that a big file is searched without parsing it.
HEAD = re.compile(
    rb'^\{"key":"[0-9a-f]{64}","place":"(?P<place>[0-9a-f]{16})","choice":(?P<choice>true|false),'
    rb'"date":"[0-9T:.+-]{32}","kernel":"\w{1,200}",[^\n]*\}$',
    re.MULTILINE,
)
# All that a line of another form raises once it is taken for JSON.
UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, RecursionError, SimdflowError)


@dataclass(frozen=True)
class Record:
    """One measurement of one dataflow.

    key        of the kernel: nest, operand types, constants and target, hashed
    place      of the measurement: CPU and versions, hashed
    choice     whether it is what the kernel shall use; the newest such line of a place counts
    date       ISO 8601, UTC
    us         least time of a call in microseconds, None for a candidate that failed (`why`)
    spread     (median - least) / least
    reference  the default dataflow's least time in the same rounds
    session    the tuning run
    about      what people want to read: text hash, types, constants, target, CPU, versions
    """

    key: str
    place: str
    choice: bool
    date: str
    kernel: str
    flow: Dataflow
    us: float | None
    spread: float | None
    calls: int
    reference: float | None
    why: str
    session: str
    about: Mapping[str, Any]

    def line(self) -> bytes:
        """As it stands in the file, without the line feed."""
        about = {f.name: getattr(self, f.name) for f in fields(self)}
        about["flow"] = {
            f.name: value
            for f in fields(Dataflow)
            if (value := getattr(self.flow, f.name)) != f.default
        }
        return json.dumps(about, separators=(",", ":"), allow_nan=False).encode()

    def __str__(self) -> str:
        shown = f"{self.us:.2f} us" if self.us is not None else self.why
        beside = f", the default {self.reference:.2f} us" if self.reference is not None else ""
        return f"{shown}{beside}, measured {self.date[:10]}"

    @staticmethod
    def parsed(line: bytes) -> Record:
        """A line read back. Raises one of UNREADABLE for anything that `line` does not write."""
        found = json.loads(line)
        texts = {n: str(found[n]) for n in ("key", "place", "date", "kernel", "why", "session")}
        about = found["about"]
        if type(found["choice"]) is not bool or not all(
            isinstance(part, dict) for part in (about, about["types"], about["constants"])
        ):
            raise ValueError("about is no object, or choice no truth value")
        return Record(
            choice=found["choice"],
            flow=_flow(found["flow"]),
            us=_number(found["us"]),
            spread=_number(found["spread"]),
            calls=int(found["calls"]),
            reference=_number(found["reference"]),
            about=about,
            **texts,
        )


def _number(value: Any) -> float | None:
    if value is None:
        return None
    number = float(value)
    if not 0 <= number < 1e15:
        raise ValueError(f"{number} is no time")
    return number


def _flow(given: Mapping[str, Any]) -> Dataflow:
    """A dataflow whose names and counts are at least of the right kind; the planner sees to sense.

    Counts are bounded, because a body with millions of steps would be compiled for hours.
    """
    if not set(given) <= {f.name for f in fields(Dataflow)}:
        raise ValueError(f"{', '.join(given)} are not all fields of a dataflow")
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name in ("auxiliary", "tile", "block", "unroll"):
            pairs = [(str(axis), n) for axis, n in value]
            steps = 1
            for _, n in pairs:
                if type(n) is not int:
                    raise ValueError(f"{name} counts {n!r}")
                steps *= max(n, 1)
            if steps > 1 << 16 and name != "block":
                raise ValueError(f"{name} of {steps} steps")
            values[name] = tuple(pairs)
        elif name == "order":
            values[name] = tuple(str(a) for a in value)
        elif name == "width":
            values[name] = int(value)
        else:
            values[name] = str(value)
    return Dataflow(**values)


# ---- whose measurement, and where ----------------------------------------------------------------


def key_of(r: Request) -> str:
    """The name of a kernel in the records: its bound nest and its target.

    The same for weights that are packed and those that are not, for an output type that is given
    and one that follows, and wherever the text stands in a file. Raises what binding raises.
    """
    from .bind import bind

    nest = _canonical(bind(r.nest, dict(r.types), dict(r.constants)))
    parts = [repr(nest), r.target.name, features_string(r.target)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _canonical(nest: LoopNest) -> LoopNest:
    operands = tuple(
        replace(o, type=replace(o.type, storage="dense"))
        if o.type is not None and o.type.storage == "packed"
        else o
        for o in nest.operands
    )
    return replace(nest, origin=Origin(), operands=operands)


@cache
def machine() -> Mapping[str, Any]:
    """This CPU and these versions: a time measured under others says nothing here."""
    found = environment()
    return {
        "cpu": found["cpu"],
        "features": hashlib.sha256(found["features"].encode()).hexdigest()[:16],
        "caches": str(caches()),
        "simdflow": VERSION,
        "numba": found["numba"],
        "llvmlite": found["llvmlite"],
        "llvm": found["llvm"],
    }


def place_of(about: Mapping[str, Any]) -> str:
    """16 hex digits of a `machine()`."""
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]


@cache
def here() -> str:
    """The place of this process."""
    return place_of(machine())


def described(r: Request) -> dict[str, Any]:
    """What a record says about its kernel for people."""
    text = hashlib.sha256(repr(replace(r.nest, origin=Origin(), constants=())).encode())
    return {
        "text": text.hexdigest()[:16],
        "types": {name: str(kind) for name, kind in r.types},
        "constants": dict(r.constants),
        "target": r.target.name,
    }


def now() -> str:
    """The date of a record."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


# ---- the file ------------------------------------------------------------------------------------


def path() -> Path | None:
    """$SIMDFLOW_TUNING, else tuning.jsonl in the cache's folder; None for "off"."""
    chosen = os.environ.get("SIMDFLOW_TUNING", "")
    if chosen == "off":
        return None
    return Path(chosen).absolute() if chosen else default_dir() / "tuning.jsonl"


def append(record: Record) -> bool:
    """Add a line; True if it is there. Warns once (TuningWarning) where it cannot be."""
    file = path()
    return file is not None and journal.append(file, record.line())


def resolved(asked: Request) -> tuple[Request, Record | None]:
    """A request with the dataflow that tuning chose, and the record of it; as it was, and None,
    where a dataflow was given or there is no such record.

    A recorded dataflow that is not possible any more is passed over with a TuningWarning. Nothing
    is planned if the kernel is in the cache.
    """
    record = _choice(asked) if asked.flow is None else None
    if record is None:
        return asked, None
    tuned = replace(asked, flow=record.flow)
    if stored(tuned) is not None:
        return tuned, record
    from .compile import Stages

    try:
        _ = Stages(tuned).plan
    except DataflowError as error:
        warnings.warn(
            f"{asked.nest.name}: dataflow={record.flow} was recorded by tuning on "
            f"{record.date[:10]} and is not possible any more: {error} The default is used. Tune "
            "the kernel again, or run `simdflow cache forget`",
            TuningWarning,
            stacklevel=3,
        )
        return asked, None
    return tuned, record


def _choice(r: Request) -> Record | None:
    """The newest line of this machine that is a choice for the request, or None."""
    file = path()
    index = _index(file) if file is not None else None
    if index is None or r.nest.name not in index.kernels:
        return None
    return of_key(key_of(r))


def of_key(key: str) -> Record | None:
    """The recorded choice of a kernel by its key, on this machine."""
    file = path()
    index = _index(file) if file is not None else None
    if index is None:
        return None
    return index.choices.get(key)


def every() -> Iterator[Record | str]:
    """The records of the file in order, and for each line that is none, what is wrong with it."""
    file = path()
    content = journal.content(file) if file is not None else b""
    for line in content.split(b"\n"):
        if line:
            try:
                yield _believed(line)
            except UNREADABLE as error:
                yield f"{type(error).__name__}: {error}"


@dataclass(frozen=True)
class _Index:
    """What a file said when it was read: its state then, this machine's newest choice by key, and
    the kernels that have one.
    """

    state: tuple[int, ...]
    choices: Mapping[str, Record]
    kernels: frozenset[str]


_indices: dict[Path, _Index] = {}


def _index(file: Path) -> _Index | None:
    """The choices in a file, read again when it has changed: one `stat` where there is no file."""
    try:
        status = os.stat(file)
    except OSError:
        return None
    state = status.st_ino, status.st_size, status.st_mtime_ns
    known = _indices.get(file)
    if known is None or known.state != state:
        choices: dict[str, Record] = {}
        for m in HEAD.finditer(journal.content(file)):
            if m["choice"] == b"true" and m["place"] == here().encode():
                with suppress(*UNREADABLE):  # an older choice that can be read still counts
                    record = _believed(m.group())
                    if record.key not in choices or record.date >= choices[record.key].date:
                        choices[record.key] = record
        kernels = frozenset(r.kernel for r in choices.values())
        known = _indices[file] = _Index(state, choices, kernels)
    return known


def _believed(line: bytes) -> Record:
    """A line of the file as a record. Raises one of UNREADABLE."""
    if len(line) > LINE:
        raise ValueError(f"{len(line)} bytes, {LINE} are the most")
    if not HEAD.fullmatch(line):
        raise ValueError("it does not begin as a record does")
    return Record.parsed(line)
