"""`simdflow run`: a network from a file on inputs from a file, its results and its times.

It turns the options into a model and arrays, and prints what the frontends' report makes of them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ..dsl.errors import ModelError
from .words import Commands, positive


def add(commands: Commands) -> None:
    """Add the command's parser."""
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
    run.add_argument("--count", type=positive, default=8, help="how many inputs to run (8)")
    run.add_argument("--top", type=positive, default=3, help="how many results to print (3)")
    run.add_argument("--golden", type=Path, help=".npz or .npy with the expected outputs")
    run.add_argument("--golden-key", default="auto", help="array in it (auto)")
    run.add_argument(
        "--rounding",
        choices=["float", "tflite"],
        default="float",
        help="float: as LiteRT computes by default; tflite: as its reference kernels do",
    )
    run.add_argument("--target", help="compile for this target (default: the best)")
    run.add_argument("--threads", type=positive, default=1, help="threads of a call (1)")
    run.add_argument("--trace", type=Path, help="write the times as a trace for Perfetto")
    run.set_defaults(action=_act)


def _act(given: argparse.Namespace) -> None:
    from ..frontends import report, samples
    from ..frontends.load import load

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
