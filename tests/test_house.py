"""The rules of the house: who may import whom, how long a file may be, what no file may say.

It reads the source files as text and syntax trees and turns each broken rule into one line with
the file in it; the two tests of import cost are the only ones that run any of the code.
"""

from __future__ import annotations

import ast
import io
import os
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("dsl", "ops", "simdflow")
FOLDERS = (*ROOMS, "tests", "bench", "examples", "tools")
MAX_LINES = 400
BANNED_STEMS = {"utils", "util", "helpers", "helper", "common", "misc"}

# Lower may not import higher. A module is placed by the longest prefix listed; a new module of
# simdflow must be given its place here. simdflow/__init__.py collects the public names from
# everywhere below the command line, so its place is above what it collects.
LAYERS = {
    "simdflow.dsl": 0,
    "simdflow.targets": 1,
    "simdflow.compiler": 1,
    "simdflow.cache": 2,
    "simdflow.kernel": 2,
    "simdflow.compiled": 2,
    "simdflow.notebook": 2,
    "simdflow.arguments": 2,
    "simdflow.placing": 2,
    "simdflow.operands": 2,
    "simdflow.peaks": 2,
    "simdflow.testing": 3,
    "simdflow.ops": 3,
    "simdflow.graph": 4,
    "simdflow.frontends": 5,
    "simdflow.tuning": 5,
    "simdflow": 6,
    "simdflow.cli": 7,
    "simdflow.__main__": 8,
    "bench": 9,
    "examples": 9,
    "tests": 10,
}
# Importing these costs 0.2 s and more, and a process that finds its kernels in the cache needs
# neither numba nor, before its first call, llvmlite.
MAY_IMPORT = {
    "numba": (
        "simdflow/compiler/jit.py",
        "simdflow/compiler/numba_target.py",
        "simdflow/peaks.py",
    ),
    "llvmlite": ("simdflow/compiler/", "simdflow/targets/", "simdflow/peaks.py"),
}
# Imported late themselves, when something is compiled.
LATE = {"simdflow/compiler/codegen.py", "simdflow/compiler/numba_target.py"}
# Hosts that a link in this repository may name. A list of what is allowed, so that nobody has to
# write down what is not.
LINK_HOSTS = {
    "archive.ics.uci.edu",
    "arxiv.org",
    "creativecommons.org",
    "doi.org",
    "github.com",
    "keepachangelog.com",
    "semver.org",
    "www.apache.org",
    "www.w3.org",
}
TEXT_SUFFIXES = {".cfg", ".in", ".json", ".md", ".py", ".sh", ".toml", ".txt", ".yaml", ".yml"}


def python_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def text_files() -> list[Path]:
    inside = [path for folder in (*FOLDERS, ".ci") for path in (ROOT / folder).rglob("*")]
    return sorted(
        path
        for path in [*ROOT.iterdir(), *inside]
        if path.is_file() and (path.suffix in TEXT_SUFFIXES or path.name in {"Makefile", "run"})
    )


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=shown(path))


def module_name(path: Path) -> str:
    """``dsl/nest.py`` -> ``simdflow.dsl.nest``: the name a file is imported under."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    if parts[0] in ("dsl", "ops"):
        parts = ("simdflow", *parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def layer(module: str) -> int | None:
    """The layer of a module of ours, by its longest listed prefix; None if it has no place."""
    parts = module.split(".")
    if parts[0] == "simdflow" and len(parts) > 1:
        return LAYERS.get(".".join(parts[:2]))
    return LAYERS.get(parts[0])


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Every import of a file, wherever it stands in it, as (line, absolute module name)."""
    package = module_name(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            if module == "simdflow":  # `from .. import dsl` names the module, not the package
                for alias in node.names:
                    submodule = f"simdflow.{alias.name}"
                    yield node.lineno, submodule if layer(submodule) is not None else module
            else:
                yield node.lineno, module


def at_module_level(path: Path) -> Iterator[tuple[int, str]]:
    """The imports that run when the module is imported: those outside functions and type checks."""
    pending: list[ast.AST] = [parsed(path)]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.lineno, node.module or ""
        checking = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if not checking and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            pending.extend(ast.iter_child_nodes(node))


def test_every_module_has_a_place() -> None:
    modules = {module_name(path) for path in python_files(*ROOMS)}
    assert "simdflow.dsl" in modules
    assert sorted(name for name in modules if layer(name) is None) == []


def test_lower_layers_do_not_import_higher_ones() -> None:
    wrong = []
    for path in python_files(*ROOMS, "bench"):
        own = layer(module_name(path))
        for line, module in imports(path):
            other = layer(module)
            if own is not None and other is not None and other > own:
                wrong.append(f"{shown(path)}:{line}: {module_name(path)} imports {module}")
    assert wrong == []


def test_the_language_stands_alone() -> None:
    allowed = {*sys.stdlib_module_names, "numpy", "simdflow"}
    wrong = [
        f"{shown(path)}:{line}: {module}"
        for path in python_files("dsl")
        for line, module in imports(path)
        if module.split(".")[0] not in allowed
    ]
    assert wrong == []


def test_the_reference_shares_no_code_with_what_it_checks() -> None:
    allowed = {*sys.stdlib_module_names, "numpy"}
    files = [*ROOT.glob("ops/reference*.py"), *ROOT.glob("ops/reference/*.py")]
    wrong = [
        f"{shown(path)}:{line}: {module}"
        for path in files
        for line, module in imports(path)
        if module.split(".")[0] not in allowed and not module.startswith("simdflow.ops.reference")
    ]
    assert files
    assert wrong == []


def test_nothing_imports_the_folders_by_their_own_names() -> None:
    """``import dsl`` would load a second copy, whose classes are not those of simdflow.dsl."""
    wrong = [
        f"{shown(path)}:{line}: {module}"
        for path in python_files(*FOLDERS)
        for line, module in imports(path)
        if module.split(".")[0] in ("dsl", "ops")
    ]
    assert wrong == []


@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_heavy_packages_are_imported_in_few_places(package: str) -> None:
    wrong = [
        f"{shown(path)}:{line}: {module}"
        for path in python_files(*ROOMS)
        for line, module in imports(path)
        if module.split(".")[0] == package and not shown(path).startswith(MAY_IMPORT[package])
    ]
    assert wrong == []


def test_optional_and_heavy_packages_are_imported_late() -> None:
    allowed = {*sys.stdlib_module_names, "numpy", "simdflow"}
    wrong = [
        f"{shown(path)}:{line}: {module}"
        for path in python_files(*ROOMS)
        if shown(path) not in LATE and "testing" not in path.parts
        for line, module in at_module_level(path)
        if module.split(".")[0] not in allowed
    ]
    assert wrong == []


def loaded_after(statement: str, folder: Path) -> set[str]:
    """The top-level modules in a fresh interpreter after ``statement``."""
    code = f"{statement}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True
    )
    return set(run.stdout.split())


@pytest.mark.parametrize("statement", ["import simdflow", "import simdflow.ops"])
def test_importing_simdflow_imports_neither_numba_nor_llvmlite(
    statement: str, tmp_path: Path
) -> None:
    loaded = loaded_after(statement, tmp_path)
    assert "simdflow" in loaded
    assert loaded & {"numba", "llvmlite", "scipy", "hypothesis", "tflite", "pytest"} == set()


def test_no_file_is_too_long() -> None:
    lengths = {
        shown(path): len(path.read_text(encoding="utf-8").splitlines())
        for path in python_files(*FOLDERS)
    }
    assert {name: lines for name, lines in lengths.items() if lines > MAX_LINES} == {}


def test_no_file_has_a_name_that_says_nothing() -> None:
    wrong = [
        shown(path)
        for path in python_files(*FOLDERS)
        if BANNED_STEMS & {*path.relative_to(ROOT).with_suffix("").parts}
    ]
    assert wrong == []


def test_every_module_says_what_it_is_for() -> None:
    wrong = [
        shown(path)
        for path in python_files(*FOLDERS)
        if path.read_text(encoding="utf-8").strip() and not ast.get_docstring(parsed(path))
    ]
    assert wrong == []


def test_every_public_function_is_documented() -> None:
    wrong = [
        f"{shown(path)}:{node.lineno}: {node.name}"
        for path in python_files(*ROOMS)
        for node in parsed(path).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and not any("overload" in ast.unparse(decorator) for decorator in node.decorator_list)
        and not ast.get_docstring(node)
    ]
    assert wrong == []


def test_nothing_is_left_for_later() -> None:
    later = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
    wrong = []
    for path in python_files(*FOLDERS):
        source = io.StringIO(path.read_text(encoding="utf-8"))
        for token in tokenize.generate_tokens(source.readline):
            if token.type == tokenize.COMMENT and later.search(token.string):
                wrong.append(f"{shown(path)}:{token.start[0]}: {token.string}")
    assert wrong == []


def test_no_file_names_a_machine_or_a_place_to_install_from() -> None:
    place = re.compile(
        r"(?<![\w.}])/(home|opt|root|Users|work)/[\w.]|--(extra-)?index-url|--find-l"
    )
    link = re.compile(r"https?://([\w.-]+)")
    wrong = []
    for path in text_files():
        if path == Path(__file__).resolve():
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if place.search(line) or not set(link.findall(line)) <= LINK_HOSTS:
                wrong.append(f"{shown(path)}:{number}: {line.strip()[:80]}")
    assert wrong == []


def test_every_layer_has_a_reference() -> None:
    """Each layer that simdflow.ops exports has its namesake in simdflow.ops.reference."""
    import simdflow.ops
    import simdflow.ops.reference

    names = {
        name
        for name in simdflow.ops.__all__
        if isinstance(getattr(simdflow.ops, name), simdflow.ops.Op)
    }
    assert names
    assert sorted(name for name in names if not hasattr(simdflow.ops.reference, name)) == []


def test_compiling_loads_none_of_numbas_library(tmp_path: Path) -> None:
    """It takes 0.4 s, and a kernel calls none of it; the second kernel does not load it either."""
    (tmp_path / "two.py").write_text(
        "import sys\n"
        "import numpy as np\n"
        "from simdflow import ops\n"
        "for n in (5, 7):\n"
        "    ops.relu(np.zeros((2, n), np.float32))\n"
        "print('numba.core.compiler' in sys.modules, 'numba.np.arraymath' in sys.modules)\n"
    )
    run = subprocess.run(
        [sys.executable, str(tmp_path / "two.py")],
        env={**os.environ, "SIMDFLOW_CACHE": "off"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.split() == ["True", "False"]
