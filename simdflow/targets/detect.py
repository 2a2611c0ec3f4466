"""Which targets this CPU can execute, by the features it really has and not by its name.

Turns LLVM's list of host features into Targets, best first, and a user's choice into one of them.
Compiles nothing.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from ..dsl.errors import TargetError
from .avx2 import NEEDS as AVX2_NEEDS
from .avx2 import avx2
from .avx512 import NEEDS as AVX512_NEEDS
from .avx512 import avx512
from .base import Target
from .core import caches, family
from .portable import PORTABLE

NEEDS = {"avx512": AVX512_NEEDS, "avx2": AVX2_NEEDS, "portable": ()}


@cache
def host_features() -> frozenset[str]:
    """What CPU and operating system offer, in LLVM's names; empty where LLVM cannot tell."""
    import llvmlite.binding as llvm

    try:
        found = llvm.get_host_cpu_features()
    except RuntimeError:
        return frozenset()
    return frozenset(name for name, present in found.items() if present)


@cache
def host_targets() -> tuple[Target, ...]:
    """The targets this CPU can execute, best first; `portable` is always the last."""
    import llvmlite.binding as llvm

    has = host_features()
    found: list[Target] = []
    name = llvm.get_host_cpu_name()
    if has.issuperset(AVX512_NEEDS):
        features = llvm.get_host_cpu_features().flatten()
        found.append(avx512(name, has, features))
    if has.issuperset(AVX2_NEEDS):
        found.append(avx2(has))
    core = replace(family(name), caches=caches())
    return tuple(replace(t, core=core) for t in (*found, PORTABLE))


def target(choice: str | Target | None = None) -> Target:
    """The target of this name, or the best one for None; a Target is checked and given back.

    Raises TargetError for an unknown name, and for a target whose instructions this CPU lacks.
    """
    if isinstance(choice, Target):
        _check_executable(choice)
        return choice
    here = {t.name: t for t in host_targets()}
    if choice is None:
        return host_targets()[0]
    if choice in here:
        return here[choice]
    allowed = f"allowed on this CPU are {', '.join(here)}"
    if choice not in NEEDS:
        raise TargetError(
            f"target: name={choice!r} is not known; {allowed}. "
            f"Choose one of them, or none for the best."
        )
    missing = ", ".join(f for f in NEEDS[choice] if f not in host_features())
    raise TargetError(
        f"target: name={choice!r} needs {missing}, which this CPU lacks; {allowed}. "
        f"Choose one of them, or none for the best."
    )


def _check_executable(chosen: Target) -> None:
    if chosen in host_targets():
        return
    wanted = {f[1:] for f in chosen.features.split(",") if f.startswith("+")}
    wanted |= set(NEEDS.get(chosen.name, ()))
    if missing := ", ".join(sorted(wanted - host_features())):
        allowed = ", ".join(t.name for t in host_targets())
        raise TargetError(
            f"target: name={chosen.name!r} needs {missing}, which this CPU lacks; "
            f"allowed on this CPU are {allowed}. Choose one of them, or none for the best."
        )


def features_string(chosen: Target) -> str:
    """What LLVM is told to compile for, and the core by which dataflows are chosen: part of a cache
    key.
    """
    return f"{chosen.cpu};{chosen.features};{chosen.core}"
