"""Lay out simdflow as mypy expects it: a tree of symbolic links with dsl and ops inside simdflow.

mypy and pyright do not follow the import hook of an editable install, so they cannot see that the
folder ``dsl`` is ``simdflow.dsl``. This turns pyproject.toml's list of packages into such a tree,
beside which ``bench`` is linked too; it checks nothing itself.
"""

from __future__ import annotations

import shutil
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def lay_out(tree: Path) -> None:
    """Replace ``tree`` by a fresh one: real folders for packages, links for their modules."""
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = setuptools["package-dir"]
    if tree.exists():
        shutil.rmtree(tree)
    for package in setuptools["packages"]:
        source = ROOT / folders.get(package, package.replace(".", "/"))
        target = tree / package.replace(".", "/")
        target.mkdir(parents=True, exist_ok=True)
        for module in [*source.glob("*.py"), *source.glob("py.typed")]:
            (target / module.name).symlink_to(module)
    if (ROOT / "bench").is_dir():
        (tree / "bench").symlink_to(ROOT / "bench")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python tools/typing_tree.py FOLDER")
    lay_out(Path(sys.argv[1]))
