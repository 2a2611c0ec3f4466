"""The object-code cache against every folder it may meet: hostile, full, read-only, shared."""

import errno
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simdflow.compiler import cache
from simdflow.compiler.cache import Cache, CacheInfo, Entry
from simdflow.dsl.errors import CacheWarning

KEY = "ab" * 32
OTHER = "cd" * 32
CODE = bytes(range(256)) * 5 + b"\n\n"
RECORD = {"symbol": "f", "registers": 31}
NOBODY = 65534

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away or mount")


@pytest.fixture
def store(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "a" / "kernels")


@pytest.fixture
def filled(store: Cache) -> Cache:
    assert store.store(KEY, CODE, RECORD)
    return store


def entry_path(store: Cache, key: str = KEY) -> Path:
    return store.root / f"{key}.kernel"


def misses_with_one_warning(store: Cache, match: str, key: str = KEY) -> None:
    """A load that is a miss and says why; the second says nothing more."""
    with pytest.warns(CacheWarning, match=match) as caught:
        assert store.load(key) is None
        assert store.load(key) is None
    assert len(caught) == 1


def test_what_is_stored_is_loaded(filled: Cache) -> None:
    assert filled.load(KEY) == Entry(CODE, RECORD)
    assert filled.load(OTHER) is None
    assert filled.verify() == []


def test_folder_and_files_are_private(filled: Cache) -> None:
    assert filled.root.stat().st_mode & 0o777 == 0o700
    assert entry_path(filled).stat().st_mode & 0o777 == 0o600
    assert sorted(os.listdir(filled.root)) == [f"{KEY}.kernel"]


def test_entry_is_text_then_object_code_and_no_pickle(filled: Cache) -> None:
    magic, line, code = entry_path(filled).read_bytes().split(b"\n", 2)
    assert magic.startswith(b"simdflow-object 1 ")
    assert json.loads(line) == {"key": KEY, "record": RECORD}
    assert code == CODE


def test_storing_again_replaces(filled: Cache) -> None:
    assert filled.store(KEY, b"new", {})
    assert filled.load(KEY) == Entry(b"new", {})


@given(position=st.integers(0, len(cache._encode(KEY, CODE, RECORD)) - 1), bit=st.integers(0, 7))
def test_one_flipped_bit_anywhere_is_refused(position: int, bit: int) -> None:
    content = bytearray(cache._encode(KEY, CODE, RECORD))
    content[position] ^= 1 << bit
    with pytest.raises(ValueError):
        cache._decode(KEY, bytes(content))


@given(st.integers(0, len(cache._encode(KEY, CODE, RECORD)) - 1))
def test_truncation_anywhere_is_refused(length: int) -> None:
    with pytest.raises(ValueError):
        cache._decode(KEY, cache._encode(KEY, CODE, RECORD)[:length])


def test_damaged_file_is_a_miss_and_is_repaired_by_the_next_store(filled: Cache) -> None:
    content = bytearray(entry_path(filled).read_bytes())
    content[-1] ^= 1
    entry_path(filled).write_bytes(content)
    assert filled.verify() == [
        f"{KEY}.kernel: its content does not have the hash it was stored with"
    ]
    misses_with_one_warning(filled, "does not have the hash")
    assert filled.store(KEY, CODE, RECORD)
    assert filled.load(KEY) == Entry(CODE, RECORD)


def test_file_under_another_name_is_not_believed(filled: Cache) -> None:
    os.rename(entry_path(filled), entry_path(filled, OTHER))
    misses_with_one_warning(filled, "stored under another name", OTHER)


@pytest.mark.parametrize("header", [[], {}, {"key": KEY}, {"key": KEY, "record": 3}, 7])
def test_right_hash_over_a_wrong_record_is_a_miss(filled: Cache, header: object) -> None:
    body = json.dumps(header).encode() + b"\n" + CODE
    digest = cache.hashlib.sha256(body).hexdigest().encode()
    entry_path(filled).write_bytes(cache.MAGIC + digest + b"\n" + body)
    misses_with_one_warning(filled, "cannot be used")


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_file_that_others_can_write_is_refused(filled: Cache, mode: int) -> None:
    entry_path(filled).chmod(mode)
    misses_with_one_warning(filled, f"mode {mode:04o}")


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_folder_that_others_can_write_is_refused(filled: Cache, mode: int) -> None:
    filled.root.chmod(mode)
    misses_with_one_warning(filled, f"the folder can be written by others \\(mode {mode:04o}")
    assert not filled.store(OTHER, CODE, RECORD)
    assert [problem for problem in filled.verify() if "written by others" in problem]


@as_root
def test_file_of_another_user_is_refused(filled: Cache) -> None:
    os.chown(entry_path(filled), NOBODY, NOBODY)
    misses_with_one_warning(filled, f"owned by user {NOBODY}")


@as_root
def test_folder_of_another_user_is_refused(filled: Cache) -> None:
    os.chown(filled.root, NOBODY, NOBODY)
    misses_with_one_warning(filled, f"the folder is owned by user {NOBODY}")


def test_symbolic_link_in_place_of_the_file_is_refused_and_its_target_untouched(
    filled: Cache, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    os.rename(entry_path(filled), target)
    entry_path(filled).symlink_to(target)
    before = target.read_bytes()
    misses_with_one_warning(filled, "cannot be used")
    assert filled.store(KEY, b"new", {})
    assert not entry_path(filled).is_symlink()
    assert target.read_bytes() == before


def test_symbolic_link_in_place_of_the_folder_is_refused(filled: Cache, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(filled.root)
    misses_with_one_warning(Cache(link), "cannot be used")
    assert not Cache(link).store(OTHER, CODE, RECORD)
    assert filled.load(OTHER) is None


def test_directory_in_place_of_the_file(store: Cache) -> None:
    store.root.mkdir(parents=True, mode=0o700)
    entry_path(store).mkdir()
    misses_with_one_warning(store, "not a file")
    assert not store.store(KEY, CODE, RECORD)
    assert os.listdir(store.root) == [f"{KEY}.kernel"]
    assert store.store(OTHER, CODE, RECORD)


def test_fifo_in_place_of_the_file_does_not_hang(store: Cache) -> None:
    store.root.mkdir(parents=True, mode=0o700)
    os.mkfifo(entry_path(store))
    misses_with_one_warning(store, "not a file")


def test_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = Cache(tmp_path / "file")
    misses_with_one_warning(store, "cannot be used")
    assert not store.store(KEY, CODE, RECORD)
    assert (tmp_path / "file").read_text() == ""


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="descriptors are counted in /proc")
def test_refused_files_leak_no_descriptor(filled: Cache) -> None:
    entry_path(filled, OTHER).mkdir()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        assert filled.verify() == [f"{OTHER}.kernel: it is not a file"]
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("failing", ["write", "open", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_store_that_fails_warns_once_and_leaves_nothing(
    filled: Cache, monkeypatch: pytest.MonkeyPatch, failing: str, code: int
) -> None:
    def fail(*arguments: object, **keywords: object) -> None:
        raise OSError(code, os.strerror(code))

    real_open = os.open

    def fail_to_create(path: str, flags: int, *arguments: int, **keywords: int) -> int:
        if flags & os.O_CREAT:
            fail()
        return real_open(path, flags, *arguments, **keywords)

    with monkeypatch.context() as patch:
        if failing == "write":
            patch.setattr(cache, "_write", fail)
        elif failing == "open":
            patch.setattr(os, "open", fail_to_create)
        else:
            patch.setattr(os, "replace", fail)
        with pytest.warns(CacheWarning, match=os.strerror(code)) as caught:
            assert not filled.store(OTHER, CODE, RECORD)
            assert not filled.store(OTHER, CODE, RECORD)
    assert len(caught) == 1
    assert os.listdir(filled.root) == [f"{KEY}.kernel"]
    assert filled.load(KEY) == Entry(CODE, RECORD)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB; to mount one takes a permission that containers may lack."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs", str(folder)]
    result = subprocess.run(mount, capture_output=True, text=True)
    if result.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {result.stderr}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@as_root
def test_a_disk_that_is_really_full(small_disk: Path) -> None:
    store = Cache(small_disk / "kernels")
    assert store.store(KEY, b"x" * 30_000, RECORD)
    with pytest.warns(CacheWarning, match="No space left") as caught:
        assert not store.store(OTHER, b"y" * 60_000, RECORD)
        assert not store.store(OTHER, b"y" * 60_000, RECORD)
    assert len(caught) == 1
    assert os.listdir(store.root) == [f"{KEY}.kernel"]
    assert store.load(KEY) == Entry(b"x" * 30_000, RECORD)


@as_root
def test_a_disk_that_is_really_read_only(small_disk: Path) -> None:
    store = Cache(small_disk / "kernels")
    assert store.store(KEY, CODE, RECORD)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert store.load(KEY) == Entry(CODE, RECORD)
    with pytest.warns(CacheWarning, match="Read-only") as caught:
        assert not store.store(OTHER, CODE, RECORD)
        assert not Cache(small_disk / "kernels").store(OTHER, CODE, RECORD)
    assert len(caught) == 1


STORE_MANY = """
import pathlib, sys
from simdflow.compiler.cache import Cache
root, key, mark = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
for i in range(100):
    assert Cache(root).store(key, bytes([mark]) * 20_000, {"mark": mark})
"""


def test_two_processes_storing_one_entry_at_once(tmp_path: Path) -> None:
    store, seen = Cache(tmp_path / "k"), 0
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", STORE_MANY, str(store.root), KEY, str(mark)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for mark in (1, 2)
    ]
    for writer in writers:
        assert writer.stdout is not None and writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        while any(writer.poll() is None for writer in writers):
            if entry := store.load(KEY):
                assert entry.object == bytes([entry.record["mark"]]) * 20_000
                seen += 1
    for writer in writers:
        writer.communicate()
    assert [writer.returncode for writer in writers] == [0, 0]
    assert seen > 0
    assert os.listdir(store.root) == [f"{KEY}.kernel"]


def names(count: int) -> list[str]:
    return [f"{i:064x}" for i in range(count)]


def test_the_cap_evicts_what_was_used_longest_ago(tmp_path: Path) -> None:
    size = len(cache._encode(KEY, CODE, RECORD))
    store = Cache(tmp_path / "k", cap=3 * size)
    for age, name in enumerate(names(3)):
        assert store.store(name, CODE, RECORD)
        os.utime(entry_path(store, name), (1000 + age, 1000 + age))
    assert store.load(names(3)[0])  # a use makes it the youngest
    assert store.store(KEY, CODE, RECORD)
    kept = [name for name in names(3) if entry_path(store, name).exists()]
    assert kept == [names(3)[0], names(3)[2]]
    assert store.info() == CacheInfo(store.root, "rw", 3, 3 * size, 3 * size)


def test_a_clock_that_went_back_does_not_evict_what_was_just_stored(tmp_path: Path) -> None:
    store = Cache(tmp_path / "k", cap=2 * len(cache._encode(KEY, CODE, RECORD)))
    for name in names(2):
        assert store.store(name, CODE, RECORD)
        os.utime(entry_path(store, name), (2**32, 2**32))
    assert store.store(KEY, CODE, RECORD)
    assert store.load(KEY) == Entry(CODE, RECORD)
    assert store.info().entries == 2


def test_an_entry_above_the_cap_is_not_stored_and_evicts_nothing(tmp_path: Path) -> None:
    store = Cache(tmp_path / "k", cap=4000)
    assert store.store(KEY, CODE, RECORD)
    with pytest.warns(CacheWarning, match="more than the cap of 4000"):
        assert not store.store(OTHER, CODE * 4, RECORD)
    assert store.load(KEY) == Entry(CODE, RECORD)


def test_a_dead_writers_file_goes_and_a_live_ones_and_others_stay(filled: Cache) -> None:
    for name, age in ((".dead.tmp", 0), (".live.tmp", None), ("notes.txt", 0)):
        (filled.root / name).write_text("x")
        if age is not None:
            os.utime(filled.root / name, (age, age))
    assert filled.store(OTHER, CODE, RECORD)
    left = {".live.tmp", "notes.txt", f"{KEY}.kernel", f"{OTHER}.kernel"}
    assert set(os.listdir(filled.root)) == left
