"""What is shipped: the list of packages, and a wheel built from the sdist, used from elsewhere.

It builds without a network and installs into an environment that sees numpy and numba but not
this repository, so a module that is missing from the wheel cannot be found by accident.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
FOLDER_OF = PYPROJECT["tool"]["setuptools"]["package-dir"]
PACKAGES = PYPROJECT["tool"]["setuptools"]["packages"]

# A user's file: the language reads the source of what it decorates, so it cannot be passed as -c.
USE = """
import json
import sys

import numpy as np

import simdflow as sf
import simdflow.dsl
import simdflow.ops


@sf.kernel
def product(a, b, out):
    for m, n in sf.grid(out.shape):
        total = sf.i32(0)
        for k in sf.reduce(b.shape[:1]):
            total += a[m, k] * b[k, n]
        out[m, n] = total


a = np.arange(-15, 15, dtype=np.int8).reshape(3, 10)
b = np.arange(-20, 50, dtype=np.int8).reshape(10, 7)
ours = {name: module.__file__ for name, module in sys.modules.items()
        if name.partition(".")[0] == "simdflow"}
print(json.dumps({"files": ours, "product": product(a, b).tolist(),
                  "right": (a.astype(int) @ b.astype(int)).tolist()}))
"""


# The archives are built once: on one worker, when there are several.
pytestmark = pytest.mark.xdist_group("packaging")


def folder(package: str) -> Path:
    return ROOT / FOLDER_OF.get(package, package.replace(".", "/"))


def run(*command: str | Path, cwd: Path) -> str:
    """Standard output of a command that must succeed; its whole output if it does not."""
    done = subprocess.run([str(word) for word in command], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An sdist of a copy of the tree, so that no stale build/ or egg-info has a say in it."""
    copy = tmp_path_factory.mktemp("tree") / "simdflow"
    left_out = shutil.ignore_patterns(
        ".git", ".venv", "build", "dist", "*.egg-info", "__pycache__", ".*_cache", ".hypothesis"
    )
    shutil.copytree(ROOT, copy, ignore=left_out)
    out = tmp_path_factory.mktemp("sdist")
    build = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    run(sys.executable, "-c", build, out, cwd=copy)
    (archive,) = out.glob("*.tar.gz")
    return archive


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the sdist: what the sdist lacks, the wheel lacks."""
    unpacked = tmp_path_factory.mktemp("unpacked")
    shutil.unpack_archive(sdist, unpacked)
    (tree,) = unpacked.iterdir()
    out = tmp_path_factory.mktemp("wheel")
    options = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", out]
    run(sys.executable, "-m", "pip", "wheel", *options, ".", cwd=tree)
    (archive,) = out.glob("*.whl")
    return archive


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment's folder with the wheel in it and this one's dependencies in reach.

    A .pth file adds a folder to sys.path without running the .pth files in it, so the editable
    install of this repository is out of reach.
    """
    venv = tmp_path_factory.mktemp("venv")
    run(sys.executable, "-m", "venv", "--without-pip", venv, cwd=venv)
    (site,) = venv.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = ["-m", "pip", "--python", venv / "bin" / "python", "install", "--quiet"]
    run(sys.executable, *install, "--no-deps", "--no-index", wheel, cwd=venv)
    return venv


def test_the_list_of_packages_is_the_folders() -> None:
    found = {
        ".".join((prefix, *init.parent.relative_to(ROOT / top).parts))
        for prefix, top in [("simdflow", "simdflow"), *FOLDER_OF.items()]
        for init in (ROOT / top).rglob("__init__.py")
    }
    assert {"simdflow", "simdflow.dsl", "simdflow.ops"} <= found
    assert sorted(PACKAGES) == sorted(found)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_says_that_it_is_typed(package: str) -> None:
    assert (folder(package) / "py.typed").is_file()


def test_the_version_is_written_once_more_and_agrees() -> None:
    import simdflow

    version = PYPROJECT["project"]["version"]
    assert simdflow.__version__ == version
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)


def test_the_wheel_holds_every_module_and_nothing_else(wheel: Path) -> None:
    expected = {
        f"{package.replace('.', '/')}/{path.name}"
        for package in PACKAGES
        for path in [*folder(package).glob("*.py"), folder(package) / "py.typed"]
    }
    expected |= {
        f"{package.replace('.', '/')}/{path.relative_to(folder(package)).as_posix()}"
        for package in PACKAGES
        for pattern in PYPROJECT["tool"]["setuptools"]["package-data"].get(package, [])
        for path in folder(package).glob(pattern)
    }
    assert "simdflow/tuning/assets/page.html" in expected
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == expected


def test_the_sdist_holds_what_a_reader_needs(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {"LICENSE", "CHANGELOG.md", "Makefile", "pyproject.toml", "tools/environment.sh"}
    wanted |= {"tests/conftest.py", "dsl/__init__.py", "ops/__init__.py", ".ci/run"}
    wanted |= {"README.md", "DESIGN.md"}
    assert wanted - names == set()
    assert [name for name in names if name.endswith((".pyc", ".so", ".o"))] == []


def test_the_wheel_works_from_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "use.py").write_text(USE, encoding="utf-8")
    said = json.loads(run(installed / "bin" / "python", "-P", "use.py", cwd=tmp_path))
    assert {"simdflow", "simdflow.dsl", "simdflow.ops"} <= set(said["files"])
    elsewhere = [
        name for name, file in said["files"].items() if not Path(file).is_relative_to(installed)
    ]
    assert elsewhere == []
    assert said["product"] == said["right"]


def test_the_command_is_installed(installed: Path, tmp_path: Path) -> None:
    assert "usage: simdflow" in run(installed / "bin" / "simdflow", "--help", cwd=tmp_path)
