"""The command line: `simdflow run | info | inspect | cache` as plain text on standard output.

It turns arguments into calls of the other rooms and their results into tables; it computes and
compiles nothing itself. Exit codes: 0, 1 for what a user can put right (one message on standard
error, no traceback), 2 for wrong usage.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.util
import os
import platform
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from . import cache
from .dsl.dataflow import Dataflow
from .dsl.errors import DataflowError, KernelError, ModelError, OperandError, SimdflowError
from .dsl.types import SCALARS, OperandType

if TYPE_CHECKING:
    from .compiled import CompiledKernel
    from .kernel import Kernel

STAGES: dict[str, Callable[[CompiledKernel], object]] = {
    "nest": lambda c: c.nest,
    "plan": lambda c: f"{c.flow}\n{c.plan}",
    "program": lambda c: c.program,
    "source": lambda c: c.source,
    "llvm": lambda c: c.llvm(),
    "asm": lambda c: c.asm(),
    "report": lambda c: c.report(),
}
# Of the hundreds that LLVM lists: those that a target asks for, or that tell CPUs apart.
FEATURES = (
    *("sse4.2", "popcnt", "fma", "avx", "avx2", "avxvnni", "avx512f", "avx512bw", "avx512vl"),
    *("avx512vnni", "avx512bf16", "avx512vpopcntdq", "amx-int8", "neon", "dotprod", "i8mm"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command in `arguments` (default: those of the process); returns the exit code."""
    parser = _parser()
    given, rest = parser.parse_known_args(arguments)
    if rest and given.command != "inspect":
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    given.rest = rest
    try:
        given.action(given)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, say `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except SimdflowError as error:
        print(f"simdflow: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="simdflow", description="Neural-network layers as kernels for this CPU."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    run = commands.add_parser(
        "run",
        help="run a .tflite or .onnx network on real inputs",
        description="Compiles a network, or takes it from the cache, runs it, and prints the top "
        "results and the time of each layer. Arrays of the model's own type go in as they are; "
        "other numbers are real values, which a quantized model's scale and zero point turn into "
        "its type.",
    )
    run.add_argument("model", metavar="MODEL", type=Path)
    run.add_argument("--input", required=True, type=Path, metavar="X", help=".npy or .npz file")
    run.add_argument("--key", help="array in a .npz (default: x, or the only one)")
    run.add_argument("--scale", type=float, default=1.0, help="multiply real values by this first")
    run.add_argument("--count", type=_positive, default=8, help="how many inputs to run (8)")
    run.add_argument("--top", type=_positive, default=3, help="how many results to print (3)")
    run.add_argument("--golden", type=Path, help=".npz or .npy with the expected outputs")
    run.add_argument("--golden-key", default="auto", help="array in it (auto)")
    run.add_argument(
        "--rounding",
        choices=["float", "tflite"],
        default="float",
        help="float: as LiteRT computes by default; tflite: as its reference kernels do",
    )
    run.add_argument("--target", help="compile for this target (default: the best)")
    run.add_argument("--threads", type=_positive, default=1, help="threads of a call (1)")
    run.add_argument("--trace", type=Path, help="write the times as a trace for Perfetto")
    run.set_defaults(action=_run)

    info = commands.add_parser("info", help="the CPU, its targets, its measured peaks, the cache")
    info.set_defaults(action=_info)

    inspect = commands.add_parser(
        "inspect",
        allow_abbrev=False,  # --d may be an operand's name
        help="print the stages of a kernel",
        usage="simdflow inspect KERNEL --OPERAND TYPE ... [--constant NAME=VALUE] "
        "[--dataflow TEXT] [--target NAME] [--stage STAGE]",
        description="Prints what a kernel becomes, e.g. `simdflow inspect layers.py:conv2d "
        "--x u8[1,58,58,64] --w i8[3,3,64,64] --constant stride=2`. The file is executed. Without "
        "a kernel's name, its kernels are listed.",
    )
    inspect.add_argument("kernel", metavar="KERNEL", help="FILE.py:NAME or MODULE:NAME")
    inspect.add_argument("--constant", action="append", default=[], metavar="NAME=VALUE")
    inspect.add_argument("--dataflow", help="as printed: \"anchor='out', tile={'ow': 6}\"")
    inspect.add_argument("--target", help="compile for this target (default: the best)")
    inspect.add_argument("--stage", choices=[*STAGES, "all"], default="report")
    inspect.add_argument("--time", action="store_true", help="time it, for --stage report")
    inspect.set_defaults(action=_inspect)

    stored = commands.add_parser("cache", help="the cache of compiled kernels")
    stored.add_argument("what", choices=["info", "clear", "verify", "forget"])
    stored.set_defaults(action=_cache)
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is less than 1")
    return value


# ---- run ----------------------------------------------------------------------------------------


def _run(given: argparse.Namespace) -> None:
    from .frontends import report, samples
    from .frontends.load import load

    options = {"rounding": given.rounding} if given.model.suffix == ".tflite" else {}
    model = load(given.model, threads=given.threads, target=given.target, **options)
    data = samples.arrays(given.input)
    chosen = samples.chosen(data, given.key, "x", given.input)
    values = samples.inputs(chosen[: given.count], model, given.scale)
    found = model.predict(values.inputs)
    outputs = found[0] if isinstance(found, tuple) else found
    print(report.heading(model))
    print(values.note)
    print()
    print(report.results(model, outputs, data.get("y"), given.top))
    wrong = ""
    if given.golden:
        golden = samples.chosen(
            samples.arrays(given.golden), given.golden_key, "auto", given.golden
        )
        wrong = report.difference(outputs, golden)
        print(f"{given.golden.name}: {wrong or f'the same bits on {len(outputs)} inputs'}")
    print()
    profile = model.profile(values.inputs[: model.inputs[0].type.shape[0]])
    print(profile)
    if given.trace:
        profile.trace(given.trace)
    if wrong and outputs.dtype.kind != "f":
        raise ModelError(f"run: golden={given.golden} is not matched: {wrong}")


# ---- info and cache -----------------------------------------------------------------------------


def _info(given: argparse.Namespace) -> None:
    from importlib.metadata import version

    from .peaks import peaks
    from .targets import host_features, host_targets

    packages = ", ".join(f"{p} {version(p)}" for p in ("numba", "llvmlite", "numpy"))
    print(f"simdflow {version('simdflow')}; Python {platform.python_version()}, {packages}")
    print(f"CPU       {_cpu_name()}")
    print(f"features  {' '.join(f for f in FEATURES if f in host_features()) or '(unknown)'}")
    print("targets   (the first is the default)")
    for t in host_targets():
        products = "/".join(str(g) for g in t.groups("u8", "i8", "i32"))
        print(
            f"  {t.name:9s} {t.width:4d} bits, {t.registers} registers ({t.budget} planned at "
            f"most), u8 x i8 products summed by one instruction: {products}"
        )
    print("peaks     measured now, one core")
    for t in host_targets():
        p = peaks(t, seconds=0.03)
        print(
            f"  {t.name:9s} f32 {p.f32_gmac:.0f} GMAC/s, u8 x i8 {p.i8_gmac:.0f} GMAC/s, "
            f"xnor-popcount {p.bit_gop:.0f} GOP/s at {p.clock_ghz:.2f} GHz"
        )
        if t is host_targets()[0]:
            rates = ", ".join(f"{b.level} {b.gb_per_s:.0f}" for b in p.bandwidth)
            print(f"  {'reading':9s} {rates} GB/s")
    _print_cache()


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux; the platform's word is the best there is
    return platform.processor() or platform.machine()


def _print_cache() -> None:
    c = cache.info()
    print(
        f"cache     {c.dir} ({c.mode}): {c.entries} kernels, {c.bytes / 2**20:.1f} of "
        f"{c.cap / 2**20:.0f} MB"
    )
    print(f"tuning    {cache.tuning()}")


def _cache(given: argparse.Namespace) -> None:
    if given.what == "info":
        _print_cache()
    elif given.what == "clear":
        print(f"{cache.clear()} kernels removed")
    elif given.what == "forget":
        print(f"{cache.forget()} tuning records removed")
    else:
        wrong = cache.verify()
        print("\n".join(wrong) or f"{cache.info().entries} kernels, all as they were stored")
        if wrong:
            raise OperandError(
                f"cache: entries={len(wrong)} would not be used; kernels are compiled again "
                "instead. Run `simdflow cache clear`"
            )


# ---- inspect ------------------------------------------------------------------------------------


def _inspect(given: argparse.Namespace) -> None:
    place, _, name = given.kernel.partition(":")
    kernels = _kernels(_module(place))
    if not name:
        print("\n".join(kernels) or f"{place} has no kernels")
        return
    if name not in kernels:
        raise OperandError(
            f"inspect: kernel={name!r} is not in {place}; {', '.join(kernels) or 'none'} "
            "are. Name one of them"
        )
    types = _operands(given.rest)
    compiled = kernels[name].specialize(
        target=given.target,
        dataflow=parse_dataflow(given.dataflow) if given.dataflow else None,
        **types,
        **_constants(given.constant),
    )
    for stage in STAGES if given.stage == "all" else [given.stage]:
        if given.stage == "all":
            print(f"---- {stage} ".ljust(80, "-"))
        timed = given.time and stage == "report"
        print(_timed_report(compiled) if timed else STAGES[stage](compiled))


def _timed_report(compiled: CompiledKernel) -> str:
    """The report with the time of a call on random operands, beside the peak measured now."""
    import numpy as np

    from .operands import Bits, PackedOperand, pack, pack_bits
    from .peaks import peaks

    rng = np.random.default_rng(0)
    out = compiled.nest.out.name

    def operand(kind: OperandType) -> np.ndarray | Bits | PackedOperand:
        if kind.storage == "packed":
            return pack(operand(replace(kind, storage="dense")))
        if kind.scalar.is_float:
            return rng.standard_normal(kind.shape).astype(kind.scalar.dtype)
        if kind.scalar.kind == "b":
            return pack_bits(rng.standard_normal(kind.shape))
        values = rng.integers(int(kind.low), int(kind.high), kind.shape, np.int64, endpoint=True)
        return values.astype(kind.scalar.dtype)

    types = {o.name: compiled.nest.type_of(o.name) for o in compiled.nest.operands}
    operands = {name: operand(kind) for name, kind in types.items() if name != out}
    run = compiled.bind(**operands, **{out: compiled(*operands.values())})
    clock, best = time.perf_counter_ns, 2**63
    end = clock() + 300_000_000
    while clock() < end:
        before = clock()
        run()
        best = min(best, clock() - before)
    measured = peaks(compiled.target)
    rates = {"f": measured.f32_gmac, "b": measured.bit_gop / 2}
    first = next(kind for name, kind in types.items() if name != out)
    rate = rates.get(first.scalar.kind, measured.i8_gmac)
    products = compiled.plan.dot is not None
    return compiled.report(best / 1e9, rate * 1e9 if products else None)


def _module(place: str) -> ModuleType:
    """The module at a path that ends in .py, or of a dotted name; running it may raise anything."""
    try:
        if not place.endswith(".py"):
            return importlib.import_module(place)
        path = Path(place)
        path.stat()
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules.setdefault(path.stem, module)
        sys.path.insert(0, str(path.resolve().parent))  # as `python FILE.py` would
        spec.loader.exec_module(module)
        return module
    except SimdflowError:
        raise
    except Exception as error:  # whatever the user's file does wrong is the user's to put right
        raise KernelError(
            f"inspect: file={place} cannot be run: {type(error).__name__}: {error}. Correct it"
        ) from error


def _kernels(module: ModuleType) -> dict[str, Kernel]:
    from .kernel import Kernel

    return {name: value for name, value in vars(module).items() if isinstance(value, Kernel)}


def _operands(words: Sequence[str]) -> dict[str, OperandType]:
    """`--x u8[1,58,58,64] --w=i8[...]` to operand types."""
    words = [part for word in words for part in word.split("=", 1)]
    found: dict[str, OperandType] = {}
    for flag, text in zip(words[::2], [*words[1::2], ""], strict=False):
        if not flag.startswith("--"):
            raise OperandError(
                f"inspect: argument={flag!r} is not an operand; `--x u8[1,58,58,64]` gives one. "
                "Write --NAME TYPE"
            )
        found[flag[2:]] = parse_type(flag[2:], text)
    return found


def parse_type(name: str, text: str) -> OperandType:
    """`u8[1,58,58,64]`, `i8.range(-7,7)[64,10]` or `i8[64,10] packed` to an operand type.

    Raises OperandError for anything else.
    """
    number = r"\s*(-?[\d.]+)\s*"
    form = rf"(\w+)(?:\.range\({number},{number}\))?\[([\d\s,]+)\]( packed)?"
    match = re.fullmatch(form, text.strip())
    if match is None or match[1] not in SCALARS:
        raise OperandError(
            f"inspect: {name}={text!r} is not an operand type; {', '.join(SCALARS)} with a shape "
            "are. Write e.g. u8[1,58,58,64] or i8.range(-7,7)[64,10]"
        )
    shape = tuple(int(n) for n in match[4].split(",") if n.strip())
    scalar = SCALARS[match[1]]
    kind = scalar.range(float(match[2]), float(match[3]))[shape] if match[2] else scalar[shape]
    return replace(kind, storage="packed") if match[5] else kind


def _constants(given: Sequence[str]) -> dict[str, Any]:
    found = {}
    for text in given:
        name, _, value = text.partition("=")
        try:
            found[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError) as error:
            raise OperandError(
                f"inspect: constant={text!r} has no value; a number has one. Write e.g. stride=2"
            ) from error
    return found


def parse_dataflow(text: str) -> Dataflow:
    """A dataflow from its own text, `Dataflow(anchor='out', tile={'ow': 6})`, or from the inside.

    Only literals are read, nothing is evaluated. Raises DataflowError for anything else.
    """
    inside = re.sub(r"^\s*(?:sf\.)?Dataflow\((.*)\)\s*$", r"\1", text, flags=re.DOTALL)
    try:
        call = ast.parse(f"Dataflow({inside})", mode="eval").body
        assert isinstance(call, ast.Call)
        if call.args:
            raise ValueError("every value has a name")
        return Dataflow(**{str(k.arg): ast.literal_eval(k.value) for k in call.keywords})
    except (ValueError, SyntaxError, TypeError) as error:
        if isinstance(error, DataflowError):
            raise
        names = ", ".join(f.name for f in fields(Dataflow))
        raise DataflowError(
            f"inspect: dataflow={text!r} cannot be read ({error}); allowed are {names} with plain "
            "values. Write e.g. anchor='out', tile={'ow': 6}"
        ) from error


if __name__ == "__main__":
    sys.exit(main())
