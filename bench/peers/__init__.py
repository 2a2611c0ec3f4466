"""The engines simdflow is compared with: one file each, with `prepare(problem, threads) -> Run`.

A file imports its engine inside `prepare`, so that a missing package is a remark in a row and no
more. The files measure nothing.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

from ..cases import Problem, Run, Unsupported

PACKAGES = {"litert": "ai-edge-litert", "onnxruntime": "onnxruntime", "openvino": "openvino"}


def prepare(peer: str, problem: Problem, threads: int) -> Run:
    """`problem` ready to run in `peer`.

    Raises:
        Unsupported: the package is missing, or the engine cannot run this case.
    """
    try:
        return import_module(f".{peer}", __name__).prepare(problem, threads)
    except ModuleNotFoundError as missing:
        raise Unsupported(f"not installed: {missing.name}") from missing


def versions() -> dict[str, str]:
    """The installed version of each peer, "not installed" for the rest."""
    found = {}
    for peer, package in PACKAGES.items():
        try:
            found[peer] = version(package)
        except PackageNotFoundError:
            found[peer] = "not installed"
    return found
