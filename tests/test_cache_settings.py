"""What the object-code cache takes from its surroundings: mode, folder, key, and simdflow.cache."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import simdflow.cache
from simdflow.compiler import cache
from simdflow.compiler.cache import CacheInfo, Entry
from simdflow.dsl.errors import CacheWarning

KEY = "ab" * 32
OTHER = "cd" * 32
CODE = b"object code"
RECORD = {"symbol": "f"}


def names(count: int) -> list[str]:
    return [f"{i:064x}" for i in range(count)]


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SIMDFLOW_CACHE_DIR", str(tmp_path / "chosen"))
    monkeypatch.delenv("SIMDFLOW_CACHE", raising=False)
    return tmp_path / "chosen"


def test_mode_ro_reads_and_writes_nothing(
    environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cache.current().store(KEY, CODE, RECORD)
    os.utime(environment / f"{KEY}.kernel", (1000, 1000))
    monkeypatch.setenv("SIMDFLOW_CACHE", "ro")
    assert cache.current().load(KEY) == Entry(CODE, RECORD)
    assert not cache.current().store(OTHER, CODE, RECORD)
    assert simdflow.cache.clear() == 0
    assert os.listdir(environment) == [f"{KEY}.kernel"]
    assert (environment / f"{KEY}.kernel").stat().st_mtime == 1000


def test_mode_off_touches_nothing(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIMDFLOW_CACHE", "off")
    assert not cache.current().store(KEY, CODE, RECORD)
    assert not environment.exists()
    monkeypatch.delenv("SIMDFLOW_CACHE")
    assert cache.current().store(KEY, CODE, RECORD)
    monkeypatch.setenv("SIMDFLOW_CACHE", "off")
    assert cache.current().load(KEY) is None


def test_unknown_mode_is_off_with_a_warning(
    environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIMDFLOW_CACHE", "yes")
    with pytest.warns(CacheWarning, match="SIMDFLOW_CACHE='yes' is not a mode; off, ro, rw are"):
        assert cache.current().mode == "off"


def test_where_the_folder_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/u")
    monkeypatch.delenv("SIMDFLOW_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache.default_dir() == Path("/x/simdflow")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache.default_dir() == Path("/u/.cache/simdflow")
    monkeypatch.setenv("SIMDFLOW_CACHE_DIR", "here")
    assert cache.default_dir() == Path.cwd() / "here"
    monkeypatch.delenv("SIMDFLOW_CACHE_DIR")
    monkeypatch.setenv("HOME", "~")
    assert cache.default_dir() == Path("/nonexistent/.cache/simdflow")


def test_public_functions(environment: Path) -> None:
    assert simdflow.cache.info() == CacheInfo(environment, "rw", 0, 0, 512 * 2**20)
    assert simdflow.cache.verify() == []
    assert simdflow.cache.clear() == 0
    for name in names(3):
        assert cache.current().store(name, CODE, RECORD)
    (environment / "notes.txt").write_text("mine")
    (environment / f"{names(3)[1]}.kernel").write_bytes(b"junk")
    assert simdflow.cache.info().entries == 3
    assert simdflow.cache.verify() == [
        f"{names(3)[1]}.kernel: does not start with 'simdflow-object 1'"
    ]
    assert simdflow.cache.clear() == 3
    assert os.listdir(environment) == ["notes.txt"]


def test_key_depends_on_every_part_and_not_on_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = cache.key({"nest": "n", "dataflow": "d"})
    assert plain == cache.key({"dataflow": "d", "nest": "n"})
    assert len(plain) == 64
    others = [{"nest": "n"}, {"nest": "nd", "dataflow": ""}, {"nest": "n", "dataflow": "e"}]
    assert len({plain, *map(cache.key, others)}) == 4
    here = dict(cache.environment())
    assert all(here.values())
    for name in here:
        monkeypatch.setattr(cache, "environment", lambda name=name: {**here, name: "other"})
        assert cache.key({"nest": "n", "dataflow": "d"}) != plain


def test_key_is_the_same_in_another_process() -> None:
    code = "from simdflow.compiler.cache import key; print(key({'nest': 'n'}))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == cache.key({"nest": "n"})


def test_sources_hash_follows_the_compilers_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("compiler", "targets", "dsl"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.py").write_text("x = 1\n")
    monkeypatch.setattr(cache, "__file__", str(tmp_path / "compiler" / "cache.py"))
    monkeypatch.setattr(cache.dsl, "__path__", [str(tmp_path / "dsl")])
    seen = {cache.sources_hash.__wrapped__()}
    for folder in ("compiler", "targets", "dsl"):
        (tmp_path / folder / "a.py").write_text("x = 2\n")
        seen.add(cache.sources_hash.__wrapped__())
    os.rename(tmp_path / "dsl" / "a.py", tmp_path / "dsl" / "b.py")
    seen.add(cache.sources_hash.__wrapped__())
    assert len(seen) == 5


def test_importing_the_cache_imports_no_compiler() -> None:
    code = "import sys, simdflow.cache; print({'numba', 'llvmlite'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
