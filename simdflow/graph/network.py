"""Network: a compiled network as plain data, which can be stored, loaded and linked.

Object code of its kernels and of the entry function, an image of the weights, a plan of the arena,
and what each call is. Nothing here compiles, plans or reads a model file; a process that finds a
Network in the cache needs none of the code that does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from ..compiler.native import Function, link
from ..compiler.packing import aligned
from ..compiler.records import of_key
from ..dsl.types import SCALARS, OperandType
from .entry import ARRAYS, ENTRY, TEAM, Band, Border, Call, Rolled, step_symbol, symbol

SLACK = 64  # bytes behind a tensor that may be read: they are somebody's
Quant = tuple[tuple[float, ...], int] | None


@dataclass(frozen=True)
class Port:
    """An input or output: its name, type and quantization (scales, zero point), and where it lies
    in the arena: `root` is the type of the memory, its frame with it.
    """

    name: str
    type: OperandType
    quantization: Quant
    offset: int
    root: OperandType

    @property
    def ranged(self) -> bool:
        """Whether the type promises more about the values than that they are of it."""
        return (self.type.low, self.type.high) != (self.type.scalar.low, self.type.scalar.high)

    @property
    def nbytes(self) -> int:
        """Bytes of the memory."""
        return int(np.prod(self.root.stored, dtype=np.int64)) * self.root.scalar.dtype.itemsize

    def view(self, arena: np.ndarray) -> np.ndarray:
        """The tensor inside an arena (u8), as an array of its shape and strides."""
        return self.views(arena[self.offset :], 1)

    def views(self, memory: np.ndarray, count: int) -> np.ndarray:
        """The tensors in `count` memories (u8) that lie one behind the other, as one array: the
        first axis goes on from each to the next.
        """
        memory = memory[: count * self.nbytes].view(self.root.scalar.dtype)
        every = memory.reshape(count, *self.root.stored)
        # The ellipsis keeps a tensor without axes a view: indexed by () it would be a number.
        if count == 1:
            index: Any = (0, *self.root.inside, ...)
            shape = self.type.stored
        else:
            index = (slice(None), *self.root.inside)
            shape = (count * self.type.stored[0], *self.type.stored[1:])
        inside = every[index]
        return inside if inside.shape == shape else inside.reshape(shape)

    def __str__(self) -> str:
        return f"{self.name}: {self.type}"


def port_places(ports: Sequence[Port]) -> tuple[int, ...]:
    """Where in the arena the memories of inputs and outputs are, each once: the order of the table
    that the entry function is given.
    """
    return tuple(sorted({p.offset for p in ports}))


@dataclass(frozen=True)
class Task:
    """What a call computes: the graph's nodes, the name of the kernel, its multiply-accumulates and
    the element type of their second factor ("" where it multiplies nothing), its output.
    """

    nodes: tuple[str, ...]
    kernel: str
    macs: int
    factor: str
    out: str


@dataclass(frozen=True)
class Memory:
    """The arena: bytes, the least any plan could do with, the largest slabs, and what to fill once:
    (offset, bytes, pattern).
    """

    nbytes: int
    bound: int
    slabs: tuple[tuple[str, int, int, int, int], ...]
    fills: tuple[tuple[int, int, bytes], ...]

    def make(self) -> np.ndarray:
        """A fresh arena (u8) with its borders filled."""
        arena = aligned(max(self.nbytes, 64))
        for offset, nbytes, pattern in self.fills:
            arena[offset : offset + nbytes] = np.frombuffer(
                pattern * (nbytes // len(pattern)), np.uint8
            )
        return arena


class Linked(NamedTuple):
    """Native functions: the entry on arena, weights and ports, and each call alone; the entry on
    arena, weights, and arrays that inputs are copied from and outputs to.
    """

    entry: Function
    arrays: Function
    steps: tuple[Function, ...]


@dataclass(frozen=True, eq=False)
class Network:
    """What runs.

    calls, tasks   one each for every step, in order
    kernels        (symbol, object code) of each different kernel
    entry          object code of the entry function
    weights        u8, every constant that a kernel reads, each on a 64-byte boundary
    choices        for each kernel whose dataflow was not given, its key in the tuning records and
                   the date of the record that was used, "" for none
    """

    name: str
    target: str
    threads: int
    calls: tuple[Call, ...]
    tasks: tuple[Task, ...]
    kernels: tuple[tuple[str, bytes], ...]
    entry: bytes
    memory: Memory
    weights: np.ndarray
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    choices: tuple[tuple[str, str], ...] = ()

    @property
    def current(self) -> bool:
        """Whether the tuning records would choose the same dataflows today."""
        found = ((date, of_key(key)) for key, date in self.choices)
        return all(date == (record.date if record else "") for date, record in found)

    def linked(self) -> Linked:
        """Its functions, ready to be called."""
        kernels = tuple(link(code, [name]).function(name) for name, code in self.kernels)
        imports = {symbol(n): k.address for n, k in enumerate(kernels)}
        owners: list[object] = [*kernels]
        if self.threads > 1:
            from .team import symbols, team

            workers = team(self.threads)
            imports |= {**symbols(), TEAM: workers.address}
            owners.append(workers)
        names = [step_symbol(at) for at in range(len(self.calls))]
        names = [ENTRY, ARRAYS, *names]
        library = link(self.entry, names, imports)
        entry, arrays, *steps = (Function(library.address(n), (library, owners)) for n in names)
        return Linked(entry, arrays, tuple(steps))

    def stored(self) -> tuple[dict[str, Any], bytes]:
        """(what JSON can hold, everything else in one piece)."""
        parts = [self.entry, *(code for _, code in self.kernels), self.weights.tobytes()]
        record = {
            "name": self.name,
            "target": self.target,
            "threads": self.threads,
            "calls": [_stored_call(c) for c in self.calls],
            "tasks": [asdict(t) for t in self.tasks],
            "symbols": [name for name, _ in self.kernels],
            "sizes": [len(p) for p in parts],
            "memory": asdict(self.memory)
            | {"fills": [[o, n, p.hex()] for o, n, p in self.memory.fills]},
            "inputs": [_port(p) for p in self.inputs],
            "outputs": [_port(p) for p in self.outputs],
            "choices": self.choices,
        }  # fmt: skip
        return record, b"".join(parts)

    @staticmethod
    def restored(record: Mapping[str, Any], content: bytes) -> Network:
        """What `stored` was given. Raises LookupError, AttributeError, TypeError or ValueError for
        anything else.
        """
        if sum(record["sizes"]) != len(content):
            raise ValueError(f"its parts are {sum(record['sizes'])} bytes, not {len(content)}")
        parts, at = [], 0
        for size in record["sizes"]:
            parts.append(content[at : at + size])
            at += size
        entry, *codes, raw = parts
        weights = aligned(max(len(raw), 64))
        weights[: len(raw)] = np.frombuffer(raw, np.uint8)
        weights.flags.writeable = False
        m = record["memory"]
        return Network(
            str(record["name"]),
            str(record["target"]),
            int(record["threads"]),
            tuple(_call(c) for c in record["calls"]),
            tuple(Task(**(t | {"nodes": tuple(t["nodes"])})) for t in record["tasks"]),
            tuple(zip(record["symbols"], codes, strict=True)),
            entry,
            Memory(
                int(m["nbytes"]),
                int(m["bound"]),
                tuple(tuple(s) for s in m["slabs"]),
                tuple((o, n, bytes.fromhex(p)) for o, n, p in m["fills"]),
            ),
            weights,
            tuple(_restored_port(p) for p in record["inputs"]),
            tuple(_restored_port(p) for p in record["outputs"]),
            tuple((str(key), str(date)) for key, date in record["choices"]),
        )


def _border(offset: int, border: Border) -> list[Any]:
    return [offset, asdict(border) | {"pattern": border.pattern.hex()}]


def _stored_call(c: Call) -> dict[str, Any]:
    found = asdict(c) | {"borders": [_border(o, b) for o, b in c.borders]}
    if c.rolled is not None:
        rolled = asdict(c.rolled) | {"consumer": _stored_call(c.rolled.consumer)}
        found["rolled"] = rolled | {"pattern": c.rolled.pattern.hex()}
    return found


def _call(c: Mapping[str, Any]) -> Call:
    borders = tuple(
        (o, Border(**(b | {"pattern": bytes.fromhex(b["pattern"])}))) for o, b in c["borders"]
    )
    addresses = tuple((str(a), int(o)) for a, o in c["addresses"])
    rolled = None
    if c["rolled"] is not None:
        r = c["rolled"]
        bands = tuple(
            Band(**(b | {"filled": tuple((x, n) for x, n in b["filled"])})) for b in r["bands"]
        )
        pattern = bytes.fromhex(r["pattern"])
        rolled = Rolled(_call(r["consumer"]), r["written"], r["read"], r["row"], pattern, bands)
    return Call(c["kernel"], addresses, c["extent"], c["step"], c["split"], borders, rolled)


def _type(kind: OperandType) -> list[Any]:
    bounds = [None, None] if kind.scalar.is_float else [kind.low, kind.high]
    return [kind.scalar.name, kind.shape, bounds, kind.frame]


def _restored_type(record: Sequence[Any]) -> OperandType:
    name, shape, (low, high), frame = record
    kind = SCALARS[name][tuple(shape)]
    if low is not None:
        kind = replace(kind, low=low, high=high)
    return replace(kind, frame=tuple((a, b) for a, b in frame))


def _port(p: Port) -> list[Any]:
    return [p.name, _type(p.type), p.quantization, p.offset, _type(p.root)]


def _restored_port(record: Sequence[Any]) -> Port:
    name, kind, meaning, offset, root = record
    quantization = None if meaning is None else (tuple(meaning[0]), int(meaning[1]))
    return Port(name, _restored_type(kind), quantization, offset, _restored_type(root))
