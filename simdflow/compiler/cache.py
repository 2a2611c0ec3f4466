"""Turns object code into one file per kernel, named by a hash of everything it depends on.

The folder is somebody else's memory: what is read is believed only if its owner, mode, name and
hash are right. The cache never raises and never runs what it reads; where it cannot work it warns
once and is a miss.

A file is `simdflow-object <format> <sha256>`, a line feed, one line of JSON (the key and the
record), and the object code; the hash covers everything after the first line. One file, not two,
because two processes that compile the same kernel make different bytes (symbol names differ), and
only one rename is atomic.
"""

import hashlib
import json
import os
import stat
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

from .. import dsl
from ..dsl.errors import CacheWarning

FORMAT = 1
MAGIC = f"simdflow-object {FORMAT} ".encode()
CAP = 512 * 2**20
MODES = ("off", "ro", "rw")
SUFFIX = ".kernel"
STALE_SECONDS = 3600.0
# All that reading a file can raise: the file system, the hash, and JSON whose hash is right but
# whose shape is not.
UNBELIEVABLE = (OSError, ValueError, KeyError, TypeError, RecursionError)

_warned: set[str] = set()
_serial = count()


@dataclass(frozen=True)
class Entry:
    """Object code with the JSON record that was stored beside it (symbol names, report figures)."""

    object: bytes
    record: dict[str, Any]


@dataclass(frozen=True)
class CacheInfo:
    """Folder, mode (off, ro, rw), number of entries, their bytes, and the cap on those bytes."""

    dir: Path
    mode: str
    entries: int
    bytes: int
    cap: int


@cache
def sources_hash() -> str:
    """SHA-256 over the Python files that decide what a kernel becomes: dsl, compiler, targets."""
    here = Path(__file__).parent
    digest = hashlib.sha256()
    for folder in (Path(dsl.__path__[0]), here, here.parent / "targets"):
        for path in sorted(folder.rglob("*.py")):
            content = path.read_bytes()
            digest.update(f"{path.relative_to(folder)} {len(content)}\n".encode() + content)
    return digest.hexdigest()


@cache
def environment() -> Mapping[str, str]:
    """What every key contains besides the kernel: versions, the CPU, its features, our sources."""
    import llvmlite.binding as llvm

    return {
        "cpu": llvm.get_host_cpu_name(),
        "features": llvm.get_host_cpu_features().flatten(),
        "format": str(FORMAT),
        "llvm": ".".join(map(str, llvm.llvm_version_info)),
        "llvmlite": _version("llvmlite"),
        "numba": _version("numba"),
        "python": "{}.{}".format(*sys.version_info),
        "sources": sources_hash(),
        "triple": llvm.get_process_triple(),
    }


def _version(package: str) -> str:
    """The version of an installed package, from the name of its folder of metadata where there is
    one: importing importlib.metadata takes 12 ms, a tenth of what a first call may.
    """
    found = find_spec(package)
    folder = Path(found.origin).parents[1] if found and found.origin else Path()
    names = [p.name for p in folder.glob(f"{package}-*.dist-info")]
    if len(names) == 1:
        return names[0].removeprefix(f"{package}-").removesuffix(".dist-info")
    from importlib.metadata import version

    return version(package)


def key(parts: Mapping[str, str]) -> str:
    """SHA-256 (64 hex digits) of the canonical JSON of `parts` and `environment()`.

    `parts` is the text of everything that is the kernel's own: nest, operand types, dataflow,
    target, options. The order of the mapping does not matter; no value of `parts` can pass for
    one of the environment.
    """
    text = json.dumps([dict(parts), dict(environment())], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _encode(key: str, code: bytes, record: Mapping[str, Any]) -> bytes:
    line = json.dumps({"key": key, "record": record}, sort_keys=True, separators=(",", ":"))
    body = line.encode() + b"\n" + code
    return MAGIC + hashlib.sha256(body).hexdigest().encode() + b"\n" + body


def _decode(key: str, content: bytes) -> Entry:
    """The entry in a file's bytes; ValueError says what is wrong with them."""
    head, _, body = content.partition(b"\n")
    if not head.startswith(MAGIC):
        raise ValueError(f"does not start with {MAGIC.decode().strip()!r}")
    if hashlib.sha256(body).hexdigest().encode() != head[len(MAGIC) :]:
        raise ValueError("its content does not have the hash it was stored with")
    line, _, code = body.partition(b"\n")
    header = json.loads(line)
    if header["key"] != key:
        raise ValueError("it was stored under another name")
    if not isinstance(header["record"], dict):
        raise ValueError("its record is not a JSON object")
    return Entry(code, header["record"])


def distrust(status: os.stat_result) -> str:
    """Why a file or folder cannot be believed, or "". Root is trusted, as for the interpreter."""
    if status.st_uid not in (os.geteuid(), 0):
        return f"is owned by user {status.st_uid}, not by user {os.geteuid()}"
    if status.st_mode & 0o022:
        return f"can be written by others (mode {stat.S_IMODE(status.st_mode):04o})"
    return ""


class Cache:
    """A folder of compiled kernels, at most `cap` bytes; `mode` is "rw", "ro" or "off".

    Several processes and threads may use one folder at once. The folder is created with mode 0700
    on the first `store`. No method raises for anything the folder or the file system does: it
    warns once (CacheWarning) for each folder and behaves as a miss.
    """

    def __init__(self, root: Path, mode: str = "rw", cap: int = CAP) -> None:
        self.root, self.mode, self.cap = Path(root), mode, cap

    def load(self, key: str) -> Entry | None:
        """The entry stored under `key`, or None if there is none that can be believed."""
        if self.mode == "off":
            return None
        try:
            with self._folder() as folder:
                entry = _decode(key, self._read(folder, key + SUFFIX))
                if self.mode == "rw":
                    with suppress(OSError):  # the time of use only orders eviction
                        os.utime(key + SUFFIX, dir_fd=folder)
                return entry
        except FileNotFoundError:
            return None
        except UNBELIEVABLE as error:
            self._warn(f"entry {key[:12]} cannot be used: {error}")
            return None

    def store(self, key: str, code: bytes, record: Mapping[str, Any]) -> bool:
        """Keep `code` and its JSON-able `record` under `key`, replacing the old; True if kept."""
        if self.mode != "rw":
            return False
        content = _encode(key, code, record)
        temporary = f".{key}.{os.getpid()}.{next(_serial)}.tmp"
        try:
            if len(content) > self.cap:
                raise OSError(f"{len(content)} bytes are more than the cap of {self.cap}")
            if not self.root.exists():
                self.root.parent.mkdir(parents=True, exist_ok=True)
                self.root.mkdir(mode=0o700, exist_ok=True)
            with self._folder() as folder:
                try:
                    _write(folder, temporary, content)
                    os.replace(temporary, key + SUFFIX, src_dir_fd=folder, dst_dir_fd=folder)
                except BaseException:
                    with suppress(OSError):
                        os.unlink(temporary, dir_fd=folder)
                    raise
                self._evict(folder, keep=key + SUFFIX)
        except OSError as error:
            self._warn(f"entry {key[:12]} cannot be stored: {error}")
            return False
        return True

    def info(self) -> CacheInfo:
        """Count what is there; the folder's contents are not read."""
        sizes: list[int] = []
        with suppress(OSError), self._folder() as folder:
            sizes = [status.st_size for name, status in _listing(folder) if name.endswith(SUFFIX)]
        return CacheInfo(self.root, self.mode, len(sizes), sum(sizes), self.cap)

    def clear(self) -> int:
        """Remove every entry and every left-over temporary file; the number of entries removed."""
        removed = 0
        if self.mode != "rw":
            return removed
        try:
            with self._folder() as folder:
                for name, _ in _listing(folder):
                    os.unlink(name, dir_fd=folder)
                    removed += name.endswith(SUFFIX)
        except FileNotFoundError:
            pass
        except OSError as error:
            self._warn(f"it cannot be cleared: {error}")
        return removed

    def verify(self) -> list[str]:
        """Read every entry and say, one line each, which cannot be believed and why."""
        problems: list[str] = []
        try:
            with self._folder() as folder:
                for name in sorted(os.listdir(folder)):
                    if name.endswith(SUFFIX):
                        try:
                            _decode(name.removesuffix(SUFFIX), self._read(folder, name))
                        except UNBELIEVABLE as error:
                            problems.append(f"{name}: {error}")
        except FileNotFoundError:
            pass
        except OSError as error:
            problems.append(f"{self.root}: {error}")
        return problems

    @contextmanager
    def _folder(self) -> Iterator[int]:
        """The folder, opened once and checked, so that what is checked is what is used."""
        folder = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if reason := distrust(os.fstat(folder)):
                raise PermissionError(f"the folder {reason}")
            yield folder
        finally:
            os.close(folder)

    def _read(self, folder: int, name: str) -> bytes:
        # O_NONBLOCK: a FIFO in place of the file must not hang the program.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(name, flags, dir_fd=folder)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise PermissionError("it is not a file")
            if reason := distrust(status):
                raise PermissionError(f"it {reason}")
            if status.st_size > self.cap:
                raise PermissionError(f"it has {status.st_size} bytes, the cap is {self.cap}")
            with open(descriptor, "rb", closefd=False) as file:
                return file.read(status.st_size)
        finally:
            os.close(descriptor)

    def _evict(self, folder: int, keep: str) -> None:
        """Remove what was not used for longest until the rest fits, and dead writers' files."""
        entries = []
        for name, status in _listing(folder):
            if name.endswith(SUFFIX):
                entries.append((name != keep, -status.st_mtime_ns, status.st_size, name))
            elif time.time() - status.st_mtime > STALE_SECONDS:
                _unlink(folder, name)
        total = 0
        for _, _, size, name in sorted(entries):
            total += size
            if total > self.cap:
                _unlink(folder, name)

    def _warn(self, what: str) -> None:
        if str(self.root) in _warned:
            return
        _warned.add(str(self.root))
        text = (
            f"cache: SIMDFLOW_CACHE_DIR={str(self.root)!r}: {what}; kernels are compiled in memory "
            "where needed. Run `simdflow cache verify`, or set SIMDFLOW_CACHE=off"
        )
        warnings.warn(text, CacheWarning, stacklevel=2)


def _write(folder: int, name: str, content: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(name, flags, 0o600, dir_fd=folder), "wb") as file:
        file.write(content)


def _listing(folder: int) -> Iterator[tuple[str, os.stat_result]]:
    """Our files in the folder, entries and temporaries; others' are never counted or removed."""
    for name in os.listdir(folder):
        if name.endswith(SUFFIX) or (name.startswith(".") and name.endswith(".tmp")):
            with suppress(FileNotFoundError):  # another process has just evicted it
                status = os.stat(name, dir_fd=folder, follow_symlinks=False)
                if not stat.S_ISDIR(status.st_mode):
                    yield name, status


def _unlink(folder: int, name: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)


def default_dir() -> Path:
    """$SIMDFLOW_CACHE_DIR, else $XDG_CACHE_HOME/simdflow, else ~/.cache/simdflow."""
    if chosen := os.environ.get("SIMDFLOW_CACHE_DIR"):
        return Path(chosen).absolute()
    base = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(base):  # the XDG specification: a relative path is to be ignored
        return Path(base, "simdflow")
    home = os.path.expanduser("~")
    # A user without a home (a bare container) must not get a folder called "~" where the program
    # was started.
    return Path(home if os.path.isabs(home) else "/nonexistent", ".cache", "simdflow")


def current() -> Cache:
    """The cache the environment asks for now: SIMDFLOW_CACHE is off, ro or rw, by default rw."""
    mode = os.environ.get("SIMDFLOW_CACHE", "") or "rw"
    store = Cache(default_dir(), mode if mode in MODES else "off")
    if mode not in MODES:
        store._warn(f"SIMDFLOW_CACHE={mode!r} is not a mode; {', '.join(MODES)} are. It is off")
    # Owner, mode and links can be checked by POSIX calls only, so there is no cache without them.
    return store if os.name == "posix" else Cache(store.root, "off")
