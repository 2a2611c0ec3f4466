"""The command line: `simdflow run | explore | info | inspect | cache`, plain text in and out.

Each command is a file: `add` gives it a parser, whose action turns arguments into calls of the
other rooms and their results into tables; it computes and compiles nothing itself. Exit codes: 0, 1
for what a user can put right (one message on standard error, no traceback), 2 for wrong usage, 130
after Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from ..dsl.errors import SimdflowError
from . import cache, explore, info, inspect, run

COMMANDS = (run, explore, info, inspect, cache)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command in `arguments` (default: those of the process); returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="simdflow", description="Neural-network layers as kernels for this CPU."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    given, rest = parser.parse_known_args(arguments)
    if rest and not hasattr(given, "rest"):
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
    except KeyboardInterrupt:
        print("simdflow: interrupted", file=sys.stderr)
        return 130
    return 0
