"""Build: a stored schedule becomes a Network: kernels, addresses, weights, the entry function.

Turns steps into calls with fixed offsets in one arena and one image of weights. Kernels come from
the cache or are compiled; equal ones are one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..compiled import CompiledKernel
from ..compiler.assemble import assembled
from ..compiler.flatten import value_operands
from ..compiler.packing import aligned
from ..compiler.program import Memory as KernelMemory
from ..compiler.records import key_of
from ..compiler.workers import compile_all
from ..operands import Bits, PackedOperand, pack, packed_parts
from ..targets import Target
from .arena import Arena, border, plan
from .arrays_ir import arrays_ir
from .bands import Pair, pairs
from .entry import ENTRY, Call, Rolled, entry_ir
from .network import SLACK, Memory, Network, Port, Task, port_places
from .steps import Read, Step, compiled
from .storage import Slab, Stored

ALIGNMENT = 64
# A step with less work than this many cycles stays on one thread: a barrier costs 200 to 900. A
# network is shared where that saves more than it takes to start and end the team's run.
SHARED_CYCLES, BARRIER_CYCLES, TEAM_CYCLES = 1500, 500, 3000


def network(stored: Stored, target: Target, threads: int) -> Network:
    """Compile every kernel, plan the memory, and compile the entry function."""
    schedule = stored.schedule
    numbers: dict[object, int] = {}
    kernels: list[CompiledKernel] = []
    of_step: list[int] = []
    for step in schedule.steps:
        made = compiled(step, step.nest, target)
        number = numbers.setdefault(made.request, len(kernels))
        if number == len(kernels):
            kernels.append(made)
        of_step.append(number)
    built = compile_all([k.resolved for k in kernels])
    for kernel in kernels:
        kernel.adopt(*built[kernel.resolved])
    # Rows would have to be shared between threads: they take whole tensors.
    rolled = pairs(stored, [kernels[n].artifact for n in of_step]) if threads == 1 else ()
    stored = replace(stored, slabs={**stored.slabs, **{p.slot: p.slab for p in rolled}})
    scratch = {
        f"{at}.{m.name}": (Slab(m.scalar[m.size]), at)
        for at, n in enumerate(of_step)
        for m in kernels[n].artifact.memories
        if m.role == "scratch"
    }
    of_call = [at - sum(p.at < at for p in rolled) for at in range(len(of_step))]
    arena = plan(stored, scratch, of_call)
    image = _Image()
    graph = schedule.graph
    inputs, outputs = (
        tuple(_port(stored, name, arena) for name in names)
        for names in (graph.inputs, graph.outputs)
    )
    ports = port_places((*inputs, *outputs))
    every = [
        _call(stored, step, kernels[n], n, at, arena, image, ports)
        for at, (step, n) in enumerate(zip(schedule.steps, of_step, strict=True))
    ]
    for at, names in arena.refilled.items():
        first = of_call.index(at)
        borders = tuple((arena.offsets[n], border(stored.slabs[n])) for n in names)
        every[first] = replace(every[first], borders=borders)
    tasks = [_task(s, kernels[n]) for s, n in zip(schedule.steps, of_step, strict=True)]
    for pair in reversed(rolled):
        _roll(pair, every, tasks, kernels)
    calls = tuple(every)
    used = threads if _gain(schedule.steps, every) > TEAM_CYCLES else 1
    return Network(
        graph.name,
        target.name,
        used,
        calls,
        tuple(tasks),
        tuple((k.artifact.symbol, k.object) for k in kernels),
        assembled(entry_ir(calls, used) + arrays_ir(inputs, outputs), ENTRY),
        _memory(arena),
        image.array(),
        inputs,
        outputs,
        tuple(
            (key_of(k.request), k.tuned.date if k.tuned else "")
            for k in kernels
            if k.request.flow is None
        ),
    )


def _gain(steps: tuple[Step, ...], calls: Sequence[Call]) -> float:
    """Roughly the cycles that a second thread saves in one run; 0 where no step is shared."""
    return sum(
        cycles_of(step) / 2 - BARRIER_CYCLES
        for step, call in zip(steps, calls, strict=False)
        if call.split
    )


def _task(step: Step, kernel: CompiledKernel) -> Task:
    nest = step.nest
    sides = value_operands(nest.reduction.value) if nest.reduction else None
    factor = "" if sides is None else nest.type_of(sides[1].operand).scalar.name
    macs = nest.macs if factor else 0
    out = str(replace(nest.type_of(nest.out.name), frame=(), storage="dense"))
    return Task(step.nodes, kernel.artifact.symbol, macs, factor, out)


def _roll(pair: Pair, calls: list[Call], tasks: list[Task], kernels: list[CompiledKernel]) -> None:
    """Make one call, and one task, of a producer and its consumer."""
    at = pair.at
    producer, consumer = calls[at], calls[at + 1]
    first, second = tasks[at], tasks[at + 1]
    memories = [kernels[c.kernel].artifact.memories for c in (producer, consumer)]
    written = next(i for i, m in enumerate(memories[0]) if m.role == "out")
    read = next(i for i, m in enumerate(memories[1]) if m.operand == pair.operand)
    kind = pair.slab.kind
    row = kind.memory[2] * kind.memory[3] * kind.scalar.dtype.itemsize
    pattern = np.array(pair.slab.fill, kind.scalar.dtype).tobytes()
    rolled = Rolled(consumer, written, read, row, pattern, pair.bands)
    calls[at : at + 2] = [replace(producer, split=False, rolled=rolled)]
    tasks[at : at + 2] = [
        Task(
            (*first.nodes, *second.nodes),
            f"{first.kernel} + {second.kernel}",
            first.macs + second.macs,
            first.factor or second.factor,
            second.out,
        )
    ]


def _memory(arena: Arena) -> Memory:
    slabs = [(n, x.size, arena.offsets[n], x.first, x.last) for n, x in arena.lives.items()]
    fills = [
        (arena.offsets[n], x.slab.nbytes, border(x.slab).pattern)
        for n, x in arena.lives.items()
        if x.slab.bordered
    ]
    return Memory(arena.nbytes, arena.bound, tuple(slabs), tuple(fills))


def _port(stored: Stored, name: str, arena: Arena) -> Port:
    place = stored.schedule.place(name)
    root = stored.slabs[place.root].kind
    if place.frame:
        frame = root.frame or ((0, 0),) * len(root.shape)
        left = tuple((a + p, b + q) for (a, b), (p, q) in zip(frame, place.frame, strict=True))
        root = replace(root, shape=place.shape, frame=left)
    value = stored.schedule.graph.values[name]
    meaning = None
    if value.quantization is not None:
        q = value.quantization
        meaning = tuple(float(v) for v in q.scales.reshape(-1)), q.zero_point
    return Port(name, value.type, meaning, arena.offsets[place.root], root)


def _call(
    stored: Stored,
    step: Step,
    kernel: CompiledKernel,
    number: int,
    at: int,
    arena: Arena,
    image: _Image,
    ports: Sequence[int],
) -> Call:
    def shared(slot: str) -> tuple[str, int]:
        offset = arena.offsets[stored.schedule.root(slot)]
        return ("ports", ports.index(offset)) if offset in ports else ("arena", offset)

    addresses = []
    for m in kernel.artifact.memories:
        given = step.reads.get(m.operand)
        if m.role == "scratch":
            addresses.append(("arena", arena.offsets[f"{at}.{m.name}"]))
        elif m.role == "out":
            addresses.append(shared(step.writes))
        elif isinstance(given, Read):
            addresses.append(shared(given.slot))
        else:
            assert given is not None
            addresses.append(("weights", image.offset(given, m, kernel)))
    _, extent, unit = kernel.artifact.parallel
    split = extent > unit and cycles_of(step) >= SHARED_CYCLES
    return Call(number, tuple(addresses), extent, unit, split)


def cycles_of(step: Step) -> float:
    """Roughly how long a step takes: products at full rate, or bytes through L1."""
    nest = step.nest
    types = [nest.type_of(o.name) for o in nest.operands]
    nbytes = sum(t.size * max(t.scalar.bits, 1) / 8 for t in types)
    wide = max((t.scalar.bits for t in types[:2]), default=32)
    return max(nest.macs * wide / 8 / 128 if nest.reduction else 0.0, nbytes / 32)


class _Image:
    """Constants, each once, on 64-byte boundaries."""

    def __init__(self) -> None:
        self._parts: list[np.ndarray] = []
        self._size = 0
        self._known: dict[object, tuple[int, object]] = {}

    def offset(
        self, given: np.ndarray | PackedOperand, m: KernelMemory, kernel: CompiledKernel
    ) -> int:
        """Where the memory `m` of a kernel lies, of the constant that the kernel is given."""
        packing = kernel.artifact.packing(m.operand)
        name = (id(given), m.role, m.name if m.role == "sums" else "", packing)
        if name not in self._known:
            # The constant is kept with its offset, so that nothing else gets its identity.
            self._known[name] = self._add(_part(given, m, kernel)), given
        return self._known[name][0]

    def _add(self, array: np.ndarray) -> int:
        at = self._size
        raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        self._parts.append(raw)
        self._size = -(-(at + raw.size + SLACK) // ALIGNMENT) * ALIGNMENT
        return at

    def array(self) -> np.ndarray:
        whole = aligned(max(self._size, ALIGNMENT))
        at = 0
        for part in self._parts:
            whole[at : at + part.size] = part
            at = -(-(at + part.size + SLACK) // ALIGNMENT) * ALIGNMENT
        whole.flags.writeable = False
        return whole


def _part(given: np.ndarray | PackedOperand, m: KernelMemory, kernel: CompiledKernel) -> np.ndarray:
    """The array that a kernel reads as its memory `m`."""
    packing = kernel.artifact.packing(m.operand)
    if m.role in ("indptr", "indices", "data"):
        csr = (given if isinstance(given, PackedOperand) else pack(given)).csr
        assert csr is not None
        return csr[m.role]
    if isinstance(given, Bits):
        given = pack(given)
    plain = given.array if isinstance(given, PackedOperand) else given
    assert plain is not None
    if packing is None:
        return plain
    parts = (
        given.parts(packing) if isinstance(given, PackedOperand) else packed_parts(plain, packing)
    )
    return parts[1] if m.role == "sums" else parts[0]
