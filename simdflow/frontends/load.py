"""Load: a model file of any known format becomes a Graph, or a compiled Model.

The name's suffix tells the format; the formats are read by `tflite_*` and `onnx_*`. Here is also
what a compiled model is kept under in the cache.
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

    What was compiled before on this CPU is taken from the cache, unless the file has its weights in
    other files. Raises ModelError for a file that
    is damaged, hostile or not supported, TargetError for a target that cannot run here.
    """
    chosen = find_target(target)
    content = _content(path)
    digest = hashlib.sha256(content).hexdigest()
    name = _key(path, digest, chosen, batch, checked_threads(threads), options)
    # ONNX weights in other files are not in the hash: each reference to them has this word in it.
    alone = Path(path).suffix.lower() != ".onnx" or b"location" not in content
    found = current().load(name) if alone else None
    if found is not None:
        compiling = {"batch": batch, "threads": threads, "target": chosen.name}
        with suppress(*UNREADABLE):  # written by something else: compile again
            made = Network.restored(found.record["network"], found.object)
            repeats = int(found.record["repeats"])
            if not made.current:  # a kernel was tuned since: compile again
                raise ValueError("its dataflows are not those of the tuning records")
            return Model(made, lambda: _again(path, digest, options), compiling, repeats)
    from ..graph.compile import compile

    model = compile(from_file(path, **options), batch=batch, threads=threads, target=chosen)
    record, image = model.network.stored()
    if alone and len(image) <= MAX_STORED:
        about = {"kernel": f"model {Path(path).name}", "network": record, "repeats": model.repeats}
        current().store(name, image, about)
    return model


def _again(path: str | os.PathLike[str], digest: str, options: Mapping[str, Any]) -> Graph:
    """The graph of a file that a model from the cache was made of; ModelError if it has changed."""
    if hashlib.sha256(_content(path)).hexdigest() != digest:
        raise ModelError(
            f"load: path={os.fspath(path)!r} has changed since the model was loaded; its graph is "
            "needed now. Load the file again"
        )
    return from_file(path, **options)


def _key(
    path: str | os.PathLike[str],
    digest: str,
    target: Target,
    batch: int | None,
    threads: int,
    options: Mapping[str, Any],
) -> str:
    """What a compiled model depends on: the file's bytes, the options, our own sources."""
    return key(
        {
            "model": digest,
            "name": Path(path).name,
            "target": f"{target.name};{features_string(target)}",
            "options": repr((batch, threads, sorted(options.items()))),
            "package": sources_hash(),
        }
    )


def _content(path: str | os.PathLike[str]) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ModelError(
            f"load: path={os.fspath(path)!r} cannot be read: {error.strerror}. Give a readable file"
        ) from error


@cache
def sources_hash() -> str:
    """SHA-256 over the Python files of the layers, the graph and the frontends."""
    digest = hashlib.sha256()
    for folder in (Path(ops.__path__[0]), Path(graph.__path__[0]), Path(__file__).parent):
        for path in sorted(folder.rglob("*.py")):
            content = path.read_bytes()
            digest.update(f"{path.relative_to(folder)} {len(content)}\n".encode() + content)
    return digest.hexdigest()
