"""The command line of the bench: turns its options into one suite's run, a table and a JSON file.

python -m bench layers|algorithms|models|batches|dataflows|choice|startup|team
    [--quick] [--peers] [--threads N] [--only TEXT] [--json FILE]
    [--target NAME] [--csv FILE] [--png FILE]
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from .rows import Options, write_json

SUITES = {
    "layers": "each layer of three networks, beside other engines with --peers",
    "algorithms": "3x3 convolutions of f32, direct and by Winograd's tiles",
    "models": "whole networks, beside other engines with --peers",
    "batches": "networks of several images a call, and what compiling takes cold",
    "dataflows": "the YFlows study: anchors and auxiliary registers on the paper's layers",
    "choice": "the default dataflow beside the best of its design space",
    "startup": "import, compile, load from the cache, call",
    "team": "what a barrier between threads costs",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one suite, print its table and summary, write its JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="suites:\n" + "\n".join(f"  {name:10s} {what}" for name, what in SUITES.items()),
    )
    parser.add_argument("suite", choices=tuple(SUITES))
    parser.add_argument("--quick", action="store_true", help="a few cases, under a minute")
    parser.add_argument("--peers", action="store_true", help="other engines beside simdflow")
    parser.add_argument("--threads", type=int, default=1, help="threads of every engine (1)")
    parser.add_argument("--only", default="", metavar="TEXT", help="cases whose name contains TEXT")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to FILE")
    parser.add_argument(
        "--target", default="", metavar="NAME", help="dataflows, choice, algorithms: only it"
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="dataflows: every number")
    parser.add_argument("--png", type=Path, metavar="FILE", help="dataflows: the heat map")
    given = parser.parse_args(arguments)
    if given.threads < 1:
        parser.error(f"--threads {given.threads}: at least 1")
    # Figures are of the compiler's own choices, not of what somebody tuned on this machine.
    os.environ.setdefault("SIMDFLOW_TUNING", "off")
    options = Options(
        given.quick,
        given.peers,
        given.threads,
        given.only,
        given.target,
        given.json,
        given.csv,
        given.png,
    )
    result = import_module(f"bench.{given.suite}").run(options)
    print("\n".join(result.lines))
    if given.json:
        write_json(given.json, result)


if __name__ == "__main__":
    main()
