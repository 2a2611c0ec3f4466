"""`simdflow explore`: the design space of a layer, ranked, explained, and drawn.

It turns a layer's name or a kernel of a file, with shapes and filters, into a Space; what is found
goes to standard output, progress to standard error, pictures to the files named.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..dsl.errors import OperandError
from ..dsl.types import OperandType
from .words import Commands, constants, kernel_of, kernels_of, pairs, parse_type

Shape = tuple[int, ...]


def add(commands: Commands) -> None:
    """Add the command's parser."""
    explore = commands.add_parser(
        "explore",
        allow_abbrev=False,  # --a may be an operand's name
        help="predict, measure and rank the dataflows of a layer",
        usage="simdflow explore LAYER --OPERAND SHAPE ... [--dtype u8i8] [--constant NAME=VALUE] "
        "[--target NAME] [--budget SECONDS] [--png FILE] [--html FILE]",
        description="Shows the design space of a layer: which dataflow is the fastest, and why. "
        "LAYER is conv2d, depthwise_conv2d, dense or matmul, or a kernel of a file, e.g. `simdflow "
        "explore conv2d --x 1,56,56,64 --w 3,3,64,64 --dtype u8i8` or `simdflow explore "
        "my_layers.py:my_kernel --x u8[1,56,56,64]`. The file is executed.",
    )
    explore.add_argument("kernel", metavar="LAYER", help="a layer, FILE.py:NAME or MODULE:NAME")
    explore.add_argument(
        "--dtype",
        help="element types of shapes that have none, in order: u8i8 (the default of layers), "
        "i8i8, f32, bit; u8i8u8 requantizes the result to u8",
    )
    explore.add_argument(
        "--constant",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="of the kernel; of a layer: stride, padding, dilation, groups",
    )
    explore.add_argument("--target", help="explore for this target (default: the best)")
    explore.add_argument(
        "--budget", type=_seconds, default=60.0, metavar="SECONDS", help="in all (60)"
    )
    explore.add_argument(
        "--no-measure", action="store_true", help="predict only, as --budget 0 does"
    )
    explore.add_argument("--top", type=_count, default=20, help="lines of the ranking (20)")
    filters = explore.add_argument_group("which dataflows")
    filters.add_argument("--anchor", help="operands, e.g. out,w")
    filters.add_argument("--lanes", help="axes, e.g. oc,ow")
    filters.add_argument("--auxiliary", help="yes, no, operands (w,x) or registers (w=4,x=2)")
    filters.add_argument("--registers", type=_count, help="planned at most")
    filters.add_argument("--width", type=_count, help="bits of a vector, if not the widest")
    explore.add_argument("--png", type=Path, metavar="FILE", help="a figure (needs matplotlib)")
    explore.add_argument("--html", type=Path, metavar="FILE", help="a page to explore by oneself")
    explore.set_defaults(action=_act, rest=[])


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not 0 or more seconds")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is less than 1")
    return value


def _act(given: argparse.Namespace) -> None:
    from ..tuning.explore import explore
    from ..tuning.ranking import text
    from ..tuning.space import dataflows

    place, _, name = given.kernel.partition(":")
    if not name and place.endswith(".py"):
        print("\n".join(kernels_of(place)) or f"{place} has no kernels")
        return
    words = pairs(given.rest)
    numbers = constants(given.constant)
    kernel, arguments = (
        _of_file(place, name, words, given.dtype, numbers)
        if name
        else _layer(place, words, given.dtype, numbers)
    )
    for file in (given.png, given.html):
        if file is not None:
            _check_place(file)
    if given.png is not None:
        _check_matplotlib()
    space = dataflows(kernel, target=given.target, **arguments).where(**_filters(given))
    budget = 0.0 if given.no_measure else given.budget
    tell = _progress()
    found = explore(space, budget=budget, progress=tell, name=name or place)
    print(text(found, given.top), flush=True)
    if given.png is not None:
        found.png(given.png)
        print(f"wrote {given.png}")
    if given.html is not None:
        found.html(given.html, progress=tell)
        print(f"wrote {given.html}")


def _layer(
    name: str, words: Mapping[str, str], dtype: str | None, options: Mapping[str, Any]
) -> tuple[Any, dict[str, Any]]:
    from ..tuning.layers import DEFAULT, layer

    shapes = {}
    for operand, text in words.items():
        shape = _shape(text)
        if shape is None:
            raise OperandError(
                f"{name}: {operand}={text!r} is no shape; a layer takes sizes, and --dtype the "
                "types. Write e.g. 1,56,56,64"
            )
        shapes[operand] = shape
    return layer(name, shapes, dtype or DEFAULT, options)


def _of_file(
    place: str,
    name: str,
    words: Mapping[str, str],
    dtype: str | None,
    options: Mapping[str, Any],
) -> tuple[Any, dict[str, Any]]:
    """A kernel of a file; operands that are shapes alone get the types of `dtype` in order."""
    kernel = kernel_of(place, name)
    bare = [o.name for o in kernel.nest.operands if _shape(words.get(o.name, "")) is not None]
    bare += [n for n, text in words.items() if _shape(text) is not None and n not in bare]
    kinds = dict(zip(bare, _kinds(name, bare, dtype), strict=True))
    types: dict[str, OperandType] = {}
    for operand, text in words.items():
        shape = _shape(text)
        types[operand] = parse_type(operand, text) if shape is None else kinds[operand][shape]
    return kernel, {**types, **options}


def _kinds(name: str, bare: list[str], dtype: str | None) -> list[Any]:
    from ..tuning.layers import scalars_of

    if not bare:
        return []
    if dtype is None:
        raise OperandError(
            f"{name}: {bare[0]} has a shape and no element type; --dtype gives one. Write e.g. "
            f"--{bare[0]} u8[1,56,56,64], or add --dtype u8i8"
        )
    kinds = scalars_of(dtype)
    if len(kinds) not in (1, len(bare)):
        raise OperandError(
            f"{name}: dtype={dtype!r} names {len(kinds)} element types for {len(bare)} shapes "
            f"({', '.join(bare)}); one for all, or one for each is allowed. Correct it"
        )
    return list(kinds * len(bare))[: len(bare)]


def _shape(text: str) -> Shape | None:
    """`1,56,56,64` as sizes; None for anything else."""
    if not re.fullmatch(r"\s*\d+\s*(,\s*\d+\s*)*,?\s*", text):
        return None
    return tuple(int(n) for n in text.split(",") if n.strip())


def _filters(given: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for option, keyword in (("anchor", "anchors"), ("lanes", "lanes")):
        text = getattr(given, option)
        if text is not None:
            found[keyword] = tuple(x.strip() for x in text.split(","))
    found |= {n: v for n in ("registers", "width") if (v := getattr(given, n)) is not None}
    if given.auxiliary is not None:
        found["auxiliary"] = _auxiliary(given.auxiliary)
    return found


def _auxiliary(text: str) -> bool | dict[str, int] | tuple[str, ...]:
    if text in ("yes", "no"):
        return text == "yes"
    parts = [x.strip() for x in text.split(",")]
    if not any("=" in x for x in parts):
        return tuple(parts)
    try:
        return {n.strip(): int(k) for n, _, k in (x.partition("=") for x in parts)}
    except ValueError as error:
        raise OperandError(
            f"arguments: auxiliary={text!r} is not a choice; yes, no, operands, or operands with "
            "numbers of registers are. Write e.g. w=4,x=2"
        ) from error


def _check_place(file: Path) -> None:
    """Raise OperandError now, and not after a minute of measuring."""
    if not file.absolute().parent.is_dir() or file.is_dir():
        raise OperandError(
            f"arguments: file={str(file)!r} cannot be written; a file in a folder that exists is "
            "allowed. Name another, or make the folder"
        )


def _check_matplotlib() -> None:
    from ..tuning.picture import figure_of

    figure_of()


def _progress() -> Callable[[str, int, int], None]:
    """One line that is written over, on a terminal; else a line now and then."""
    terminal = sys.stderr.isatty()
    said: dict[str, int] = {}

    def tell(what: str, done: int, total: int) -> None:
        if terminal:
            end = "\n" if done == total or what == "stopped" else ""
            print(f"\r\033[K{what} {done} of {total}", end=end, file=sys.stderr, flush=True)
        elif what not in said or done == total or done >= said[what] + max(total // 4, 1):
            said[what] = done
            print(f"{what} {done} of {total}", file=sys.stderr, flush=True)

    return tell
