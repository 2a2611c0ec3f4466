"""The command line of the bench: turns its options into one suite's run, a table and a JSON file.

python -m bench layers|models|dataflows|startup|team
    [--quick] [--peers] [--threads N] [--only TEXT] [--json FILE]
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from .rows import Options, write_json

SUITES = ("layers", "models", "dataflows", "startup", "team")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one suite, print its table and summary, write its JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("suite", choices=SUITES)
    parser.add_argument("--quick", action="store_true", help="a few cases, under a minute")
    parser.add_argument("--peers", action="store_true", help="other engines beside simdflow")
    parser.add_argument("--threads", type=int, default=1, help="threads of every engine (1)")
    parser.add_argument("--only", default="", metavar="TEXT", help="cases whose name contains TEXT")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to FILE")
    given = parser.parse_args(arguments)
    if given.threads < 1:
        parser.error(f"--threads {given.threads}: at least 1")
    # Figures are of the compiler's own choices, not of what somebody tuned on this machine.
    os.environ.setdefault("SIMDFLOW_TUNING", "off")
    options = Options(given.quick, given.peers, given.threads, given.only)
    result = import_module(f"bench.{given.suite}").run(options)
    print("\n".join(result.lines))
    if given.json:
        write_json(given.json, result)


if __name__ == "__main__":
    main()
