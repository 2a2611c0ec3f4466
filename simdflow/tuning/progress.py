"""Progress: what a tuning run shows while it runs: a bar on a terminal, else plain lines.

Turns seconds spent and a text into output on standard error. The bar needs the extra
`simdflow[progress]` (rich); without it a terminal gets plain lines too.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Show = Callable[[float, str], None]  # (seconds spent, text)


@contextmanager
def shown(budget: float, progress: Callable[[str], object] | bool | None) -> Iterator[Show]:
    """A function to be told how far a run is.

    progress  None: a bar or lines on standard error; False: nothing; a function: called with each
              line
    """
    if progress is False:
        yield lambda spent, text: None
    elif callable(progress):
        yield _lines(budget, progress)
    elif sys.stderr.isatty() and _has_rich():
        with _bar(budget) as show:
            yield show
    else:
        yield _lines(budget, lambda line: print(line, file=sys.stderr, flush=True))


def _has_rich() -> bool:
    from importlib.util import find_spec

    return find_spec("rich") is not None


def _lines(budget: float, say: Callable[[str], object]) -> Show:
    last = ""

    def show(spent: float, text: str) -> None:
        nonlocal last
        if text != last:
            last = text
            say(f"[{spent:4.0f} of {budget:.0f} s] {text}")

    return show


@contextmanager
def _bar(budget: float) -> Iterator[Show]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=budget)
        yield lambda spent, text: bar.update(
            task, completed=min(spent, budget), description=text.replace("[", "\\[")
        )
