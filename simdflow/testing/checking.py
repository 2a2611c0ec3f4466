"""`check`: any kernel against its own body, as emitted text and as machine code, on every target.

It draws problems and dataflows, compares results and turns the first difference, shrunk, into one
line of Python that `reproduce` runs again. Decides nothing about what a kernel should compute.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable

from ..compiled import CompiledKernel
from ..dsl.dataflow import Dataflow
from ..dsl.errors import OperandError, TargetError
from ..dsl.types import OperandType
from ..kernel import Kernel
from ..operands import Bits
from ..targets import Target, host_targets, target
from .flows import dataflows
from .operands import LAYOUTS, Layout, contiguous
from .oracle import Oracle, plain, poisoned
from .problem import Problem, problems, refusal

Reference = Callable[..., Any]
STAGES = ("reference", "text", "compiled")
# Seconds that a failure of machine code may take to shrink.
SHRINKING = 40.0


class Mismatch(AssertionError):
    """A stage of a kernel disagrees with the one before it; the message holds the line that shows
    it again.
    """


@dataclass(frozen=True)
class Case:
    """One comparison: a problem, a stage, and how that stage was made."""

    problem: Problem
    stage: str
    target: str = ""
    flow: Dataflow | None = None
    layout: str = "contiguous"

    def line(self, kernel: Kernel) -> str:
        """The Python line that runs this case again, for a kernel in scope under its own name."""
        shown = [f"{name}={_shown(kind)}" for name, kind in self.problem.types]
        defaults = dict(kernel.nest.constants)
        shown += [f"{k}={v!r}" for k, v in self.problem.constants if defaults[k] != v]
        packed = [n for n, k in self.problem.types if k.storage == "packed"]
        stored = {n: k.nonzeros for n, k in self.problem.types if k.storage == "csr"}
        shown += [f"packed={packed!r}"] if packed else []
        shown += [f"nonzeros={stored!r}"] if stored else []
        shown += [
            f"fill={self.problem.fill!r}",
            f"seed={self.problem.seed}",
            f"stage={self.stage!r}",
        ]
        if self.stage != "reference":
            shown += [f"target={self.target!r}"]
            shown += [f"dataflow=sf.{self.flow}"] if self.flow is not None else []
        if self.layout != "contiguous":
            shown += [f"layout={self.layout!r}"]
        return f"sf.testing.reproduce({kernel.name}, {', '.join(shown)})"


def _shown(kind: OperandType) -> str:
    """An operand type as Python, without its storage."""
    base = f"sf.{replace(kind, storage='dense')}"
    if not kind.border:
        return base
    inner = tuple(n - a - b for n, (a, b) in zip(kind.shape, kind.border, strict=True))
    base = f"sf.{replace(kind, shape=inner, border=(), storage='dense')}"
    return f"{base}.with_border({kind.border!r}, {kind.border_value!r})"


def specialized(kernel: Kernel, case: Case) -> CompiledKernel:
    """The kernel for a case; compiled when it is first called."""
    given: dict[str, Any] = {**dict(case.problem.types), **dict(case.problem.constants)}
    return kernel.specialize(dataflow=case.flow, target=case.target, **given)


def verify(
    kernel: Kernel, case: Case, reference: Reference | None = None, oracle: Oracle | None = None
) -> None:
    """Run one case; Mismatch when the stage disagrees with the body, leaves output unwritten or
    changes an input.
    """
    try:
        found = _verified(kernel, case, reference, oracle or Oracle(kernel, case.problem))
    except Exception as error:
        raise Mismatch(_message(kernel, case, f"{type(error).__name__}: {error}")) from error
    if found:
        raise Mismatch(_message(kernel, case, found))


def _message(kernel: Kernel, case: Case, what: str) -> str:
    stages = {"reference": "the body and the reference", "text": "the emitted text and the body"}
    who = stages.get(case.stage, "the compiled kernel and the body")
    verb = "meet an error" if "Error: " in what else "disagree"
    return f"{kernel.name}: {who} {verb}: {what}. Reproduce:\n{case.line(kernel)}"


def _verified(kernel: Kernel, case: Case, reference: Reference | None, oracle: Oracle) -> str:
    if case.stage == "reference":
        assert reference is not None
        return oracle.difference(_referred(reference, oracle), near_only=True)
    made = specialized(kernel, case)
    if case.stage == "text":
        return oracle.difference(plain(made.run_text(*oracle.operands.values())))
    layout = next(f for f in LAYOUTS if f.__name__ == case.layout)
    operands = [_laid(a, layout) for a in oracle.operands.values()]
    before = [_bytes(a) for a in operands]
    kind = oracle.nest.type_of(oracle.nest.out.name)
    for poison in (0x55, 0xAA):
        out = poisoned(kind, poison)
        given = made(*operands, out=out)
        if given is not out:
            return "the array given as output is not the one returned"
        for name, operand, was in zip(oracle.operands, operands, before, strict=True):
            if _bytes(operand) != was:
                return f"input {name} was changed"
        if found := oracle.difference(plain(out)):
            return found
    return _unused_bits(out) if isinstance(out, Bits) else ""


def _referred(reference: Reference, oracle: Oracle) -> np.ndarray:
    """The reference's result; it is given those constants that it has parameters for."""
    parameters = inspect.signature(reference).parameters
    keywords = any(p.kind == p.VAR_KEYWORD for p in parameters.values())
    constants = {k: v for k, v in oracle.nest.constants if keywords or k in parameters}
    return np.asarray(reference(*oracle.inputs.values(), **constants))


def _laid(given: Any, layout: Layout) -> Any:
    return layout(given) if isinstance(given, np.ndarray) else given


def _bytes(given: Any) -> bytes:
    if isinstance(given, np.ndarray):
        return given.tobytes()
    if isinstance(given, Bits):
        return given.words.tobytes()
    if given.csr is not None:
        return b"".join(part.tobytes() for part in given.csr.values())
    return bytes(given.array.tobytes())


def _unused_bits(out: Bits) -> str:
    """The bits after the last channel are 0, as `pack_bits` leaves them."""
    channels = out.shape[-1] if out.shape else 0
    unpacked = np.unpackbits(out.words, axis=-1, bitorder="little")
    return "bits after the last channel are set" if unpacked[..., channels:].any() else ""


def reproduce(
    kernel: Kernel,
    *,
    stage: str,
    target: str = "",
    dataflow: Dataflow | None = None,
    fill: str = "random",
    seed: int = 0,
    layout: str = "contiguous",
    packed: Iterable[str] = (),
    nonzeros: Mapping[str, int] | None = None,
    reference: Reference | None = None,
    **given: Any,
) -> None:
    """Run the one case that a line printed by `check` describes; Mismatch if it still fails.

    stage      'reference' (the body against `reference=`, which has to be added to the line),
               'text' (the emitted text against the body) or 'compiled'
    given      operand types and constants; `packed` names the operands passed through `sf.pack`,
               `nonzeros` says how many elements a compressed operand stores
    """
    types, stored = {}, nonzeros or {}
    for name, kind in given.items():
        if isinstance(kind, OperandType):
            kind = replace(kind, storage="packed") if name in packed else kind
            if name in stored:
                kind = replace(kind, storage="csr", nonzeros=stored[name])
            types[name] = kind
    constants = dict(kernel.nest.constants) | {k: v for k, v in given.items() if k not in types}
    problem = Problem(tuple(types.items()), tuple(constants.items()), fill, seed)
    verify(kernel, Case(problem, stage, target, dataflow, layout), reference)


@st.composite
def _cases(
    draw: st.DrawFn,
    kernel: Kernel,
    stage: str,
    targets: tuple[str, ...],
    flows: int,
    most: int,
    given: Mapping[str, Any],
) -> tuple[Case, ...]:
    """One problem with up to `flows` dataflows, all on one target."""
    problem = draw(problems(kernel, most=most, **given))
    if stage == "reference":
        return (Case(problem, stage),)
    nest = problem.nest(kernel)
    chosen = draw(st.sampled_from(targets))
    layout = (
        draw(st.sampled_from([f.__name__ for f in LAYOUTS]))
        if stage == "compiled"
        else contiguous.__name__
    )
    # One time in six the dataflow that the cost model chooses.
    flow = st.integers(0, 5).flatmap(lambda n: dataflows(nest, target(chosen)) if n else st.none())
    drawn = draw(st.lists(flow, min_size=1, max_size=flows))
    return tuple(Case(problem, stage, chosen, flow, layout) for flow in drawn)


def check(
    kernel: Kernel,
    *,
    reference: Reference | None = None,
    examples: int = 40,
    compiled: int = 4,
    targets: Iterable[str | Target] | None = None,
    most: int = 4000,
    seed: int | None = None,
    **given: Any,
) -> None:
    """Test a kernel on problems and dataflows drawn by Hypothesis; Mismatch for the first failure.

        sf.testing.check(conv2d, reference=numpy_conv2d, x=sf.u8, w=sf.i8, stride=[1, 2])

    1. the body against `reference(*inputs, **constants)`, if given: it gets numpy arrays in the
       order of the parameters (`bit` as i8 of +1 and -1, compressed operands dense)
    2. the emitted text, with numpy meanings, against the body: `examples` problems with up to 6
       dataflows each
    3. the machine code against the body: `compiled` problems on each target, inputs in any layout
       and unchanged, the output filled with two poisons first

    Integers and bits are equal; floats agree to twice the error that f32 arithmetic in any order
    can make (`bounds`). targets: None for all that this CPU executes. `given` describes operands,
    axes and constants as for `problems`; left out, all that the nest accepts is drawn. `most` is
    about how many points a nest has. The same problems are drawn every time, others with another
    `seed`.

    The message of a Mismatch ends in one line that reproduces it, shrunk.
    """
    found = [target(t) for t in targets] if targets is not None else host_targets()
    chosen = tuple(t.name for t in found)
    if not chosen:
        raise TargetError(
            f"check: targets={targets!r} is empty; allowed are names of targets. Leave it out."
        )
    stages = [("reference", chosen, examples)] if reference else []
    stages += [("text", chosen, examples), *(("compiled", (t,), compiled) for t in chosen)]
    for stage, on, count in stages:
        if count:
            flows = 6 if stage == "text" else 1
            cases = _cases(kernel, stage, on, flows, most, given)
            try:
                _search(kernel, cases, count, reference, seed)
            except Unsatisfiable:
                raise OperandError(
                    f"{kernel.name}: no problem that was drawn is accepted by the nest; sizes and "
                    f"types that fit it are. Give others. One refusal: {refusal(kernel, given)}"
                ) from None


def _search(
    kernel: Kernel,
    cases: st.SearchStrategy[tuple[Case, ...]],
    examples: int,
    reference: Reference | None,
    seed: int | None,
) -> None:
    """Let Hypothesis look for a failing case and shrink it; raise its Mismatch."""
    seen: dict[Case, Mismatch | None] = {}
    state: dict[str, Any] = {"deadline": None, "best": None}

    def attempt(drawn: tuple[Case, ...]) -> None:
        oracle: Oracle | None = None
        for case in drawn:
            if case not in seen:
                if state["deadline"] is not None and time.monotonic() > state["deadline"]:
                    continue  # out of time: what is not known to fail ends the shrinking
                seen[case] = None
                try:
                    oracle = oracle or _answer(kernel, case)
                    verify(kernel, case, reference, oracle)
                except Mismatch as error:
                    seen[case] = error.with_traceback(None)
                    state["deadline"] = state["deadline"] or time.monotonic() + SHRINKING
            if (failure := seen[case]) is not None:
                state["best"] = failure
                raise Mismatch(str(failure))

    run = settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=seed is None,
        print_blob=False,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )(given(cases)(attempt))
    if seed is not None:
        from hypothesis import seed as seeded

        run = seeded(seed)(run)
    try:
        run()
    except Mismatch:
        # Hypothesis prints the case in its own words too; the message says all.
        raise Mismatch(str(state["best"])) from None


def _answer(kernel: Kernel, case: Case) -> Oracle:
    """The body's result; a body that fails is a failure of the case."""
    try:
        return Oracle(kernel, case.problem)
    except Exception as error:
        raise Mismatch(
            f"{kernel.name}: the body raises {type(error).__name__}: {error}. Reproduce:\n"
            f"{case.line(kernel)}"
        ) from error
