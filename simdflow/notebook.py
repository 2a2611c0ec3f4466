"""Notebook: a CompiledKernel as HTML, its stages folded up.

It shows what costs no compilation; machine code is named, and made only when asked for.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from .dsl.errors import DataflowError

if TYPE_CHECKING:
    from .compiled import CompiledKernel

STYLE = "max-height:32em;overflow:auto;margin:0.3em 0 0.8em 1em;font-size:0.9em"


def stages_html(kernel: CompiledKernel) -> str:
    """The kernel in a line, and below it each stage in a `details` element; the reason instead,
    where its dataflow does not fit.
    """
    head = f"<p><code>{escape(repr(kernel))}</code></p>"
    try:
        stages = {
            "nest": str(kernel.nest),
            "plan": f"{kernel.flow}\n{kernel.plan}",
            "program": str(kernel.program),
            "source": kernel.source,
        }
    except DataflowError as error:
        return f"{head}<p>{escape(str(error))}</p>"
    folded = "".join(
        f"<details><summary>{name}</summary><pre style='{STYLE}'>{escape(text)}</pre></details>"
        for name, text in stages.items()
    )
    return (
        f"{head}{folded}<p>Compiled when asked for: <code>llvm()</code>, <code>asm()</code>, "
        "<code>report()</code>.</p>"
    )
