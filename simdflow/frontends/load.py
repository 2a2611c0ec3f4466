"""Load: a model file of any known format becomes a Graph, or a compiled Model.

It looks at the name's suffix and the first bytes, nothing else; the formats are read by `tflite_*`
and `onnx_*`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import graph, ops
from ..compiler.cache import current, key
from ..dsl.errors import ModelError
from ..graph.model import Model, checked_threads
from ..graph.network import Network
from ..targets import Target
from ..targets import target as find_target
from ..targets.detect import features_string

if TYPE_CHECKING:
    from ..graph.graph import Graph

# Larger ones would push everything else out of the cache: their kernels are in it anyway.
MAX_STORED = 1 << 26
SUFFIXES = (".tflite", ".onnx")
# What a record of another form gives, and object code without the functions it should have.
UNREADABLE = (LookupError, AttributeError, TypeError, ValueError, OverflowError, RuntimeError)


def from_file(path: str | os.PathLike[str], **options: Any) -> Graph:
    """The graph in a .tflite or .onnx file; `options` are those of `from_tflite` or `from_onnx`.

    Raises ModelError for another suffix, and for what these refuse.
    """
    suffix = Path(path).suffix.lower()
    if suffix == ".tflite":
        from .tflite_graph import from_tflite

        return from_tflite(path, **options)
    if suffix == ".onnx":
        from .onnx import from_onnx

        return from_onnx(path, **options)
    raise ModelError(
        f"load: path={os.fspath(path)!r} has suffix {suffix!r}; {' and '.join(SUFFIXES)} are "
        "known. Convert the model to one of them"
    )


def load(
    path: str | os.PathLike[str],
    *,
    batch: int | None = None,
    threads: int = 1,
    target: str | Target | None = None,
    **options: Any,
) -> Model:
    """The compiled model of a .tflite or .onnx file: `compile(from_file(path, **options), ...)`.

    What was compiled before on this CPU is taken from the cache. Raises ModelError for a file that
    is damaged, hostile or not supported, TargetError for a target that cannot run here.
    """
    chosen = find_target(target)
    name = _key(path, chosen, batch, checked_threads(threads), options)
    found = current().load(name)
    if found is not None:
        compiling = {"batch": batch, "threads": threads, "target": chosen.name}
        with suppress(*UNREADABLE):  # written by something else: compile again
            made = Network.restored(found.record["network"], found.object)
            repeats = int(found.record["repeats"])
            return Model(made, lambda: from_file(path, **options), compiling, repeats)
    from ..graph.compile import compile

    model = compile(from_file(path, **options), batch=batch, threads=threads, target=chosen)
    record, content = model.network.stored()
    if len(content) <= MAX_STORED:
        about = {"kernel": f"model {Path(path).name}", "network": record, "repeats": model.repeats}
        current().store(name, content, about)
    return model


def _key(
    path: str | os.PathLike[str],
    target: Target,
    batch: int | None,
    threads: int,
    options: Mapping[str, Any],
) -> str:
    """What a compiled model depends on: the file's bytes, the options, our own sources."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ModelError(
            f"load: path={os.fspath(path)!r} cannot be read: {error.strerror}. Give a readable file"
        ) from error
    return key(
        {
            "model": hashlib.sha256(content).hexdigest(),
            "name": Path(path).name,
            "target": f"{target.name};{features_string(target)}",
            "options": repr((batch, threads, sorted(options.items()))),
            "package": sources_hash(),
        }
    )


@cache
def sources_hash() -> str:
    """SHA-256 over the Python files of the layers, the graph and the frontends."""
    digest = hashlib.sha256()
    for folder in (Path(ops.__path__[0]), Path(graph.__path__[0]), Path(__file__).parent):
        for path in sorted(folder.rglob("*.py")):
            content = path.read_bytes()
            digest.update(f"{path.relative_to(folder)} {len(content)}\n".encode() + content)
    return digest.hexdigest()
