"""Assembly: what each line of x86 assembly does, and what its vector registers are used for.

Turns the text that LLVM prints (AT&T syntax: the destination last) into kinds and roles; knows
vector instructions by their operands, not by a list of names.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

REGISTER = re.compile(r"%[xyz]mm(\d+)")
MOVES = re.compile(r"v?(mov|p?broadcast|pmov|insert|extract|gather|lddqu|maskmov)")
COPIES = re.compile(r"v?mov([au]p|dq|d$|q$|[sd]ldup)")
# Instructions that only read their last operand: they set flags or a mask.
COMPARES = re.compile(r"v?(u?comis|ptest|test)")


def kind(line: str) -> str:
    """What a line is: load, store, arithmetic, arithmetic-load (with an operand in memory), move
    (between registers), scalar, jump, or text (labels and directives).
    """
    code = line.split("#")[0].strip()
    if not line[:1].isspace() or not code or code[0] in ".#":
        return "text"
    name, _, rest = code.partition("\t")
    name, _, more = name.partition(" ")
    operands = _operands(more + rest)
    if re.match(r"j|call|ret", name):
        return "jump"
    if not REGISTER.search(code) or name.startswith("lea"):
        return "scalar"
    memory = [("(" in x) for x in operands]
    if memory and memory[-1]:
        return "store"
    if any(memory):
        return "load" if MOVES.match(name) else "arithmetic-load"
    return "move" if COPIES.match(name) else "arithmetic"


def roles(loop: Sequence[str]) -> dict[int, str]:
    """Vector register -> what a loop uses it for.

    sum        changed in place by arithmetic: it carries a value from pass to pass
    loaded     filled from memory in each pass
    kept       only read: it was filled before the loop
    temporary  written by arithmetic from other registers
    """
    read: set[int] = set()
    loaded: set[int] = set()
    written: set[int] = set()
    carried: set[int] = set()
    for line in loop:
        what = kind(line)
        if what in ("text", "jump", "scalar"):
            continue
        code = line.split("#")[0].strip()
        name = code.split()[0]
        *sources, last = _operands(code[len(name) :])
        used = {int(n) for x in sources for n in REGISTER.findall(x)}
        target = {int(n) for n in REGISTER.findall(last)}
        if what == "store" or COMPARES.match(name):
            read |= used | target
            continue
        if what == "load":
            read |= used | {n for n in target if "(" in last}
            loaded |= target
            continue
        # Fused and dot-product instructions add to their destination; others only if it is named.
        in_place = bool(re.match(r"vp?dp|vfn?m(add|sub)|vpternlog|vpmadd52", name))
        if in_place or target & used:
            carried |= {n for n in target if n not in loaded or in_place}
        read |= used
        written |= target
    found = {}
    for n in sorted(read | loaded | written | carried):
        if n in carried:
            found[n] = "sum"
        elif n in loaded:
            found[n] = "loaded"
        else:
            found[n] = "temporary" if n in written else "kept"
    return found


def _operands(text: str) -> list[str]:
    """Split at commas outside of parentheses and braces."""
    return [x.strip() for x in re.split(r",\s*(?![^({]*[)}])", text.strip()) if x.strip()]
