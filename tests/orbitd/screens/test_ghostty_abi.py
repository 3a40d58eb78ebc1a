"""The cache of libghostty's interface: it is used when it is what was written, and nothing depends on it."""

from __future__ import annotations

import os
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from orbitd.screens import _ghostty_abi
from orbitd.screens._ghostty import Library
from orbitd.screens._ghostty_abi import CACHE_MAX_BYTES, CACHE_MAX_FILES, Tables, load
from orbitd.screens.model import TerminalUnavailable


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    """The tables that cffi makes, made once."""
    return _ghostty_abi._make(_ghostty_abi._origin(_ghostty_abi._package_folder()))


class Cache:
    """A cache folder of a test, and how often tables were made for it."""

    def __init__(self, base: Path, tables: Tables) -> None:
        self.folder, self.made = base / "orbit", 0
        self._tables = tables

    def make(self, origin: str) -> Tables:
        self.made += 1
        return msgspec.structs.replace(self._tables, origin=origin)

    @property
    def file(self) -> Path:
        """The only file in it."""
        [path] = self.folder.iterdir()
        return path


@pytest.fixture
def cache(tmp_path: Path, tables: Tables, monkeypatch: pytest.MonkeyPatch) -> Cache:
    """An empty cache."""
    found = Cache(tmp_path, tables)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(_ghostty_abi, "_make", found.make)
    return found


@pytest.fixture
def filled(cache: Cache) -> Cache:
    """A cache that a load has filled."""
    load()
    assert cache.made == 1
    return cache


def test_the_second_load_makes_nothing(filled: Cache) -> None:
    """The tables of the first load are kept, closed to others, and give the second the same interface."""
    assert filled.file.stat().st_mode & 0o777 == 0o600
    assert filled.folder.stat().st_mode & 0o777 == 0o700
    assert Library(*load()).cell_bits
    assert filled.made == 1


def damaged(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(change(path.read_bytes())) and None


def of_another_shape(data: bytes) -> bytes:
    body = msgspec.msgpack.encode(["", "1", b"", [], [], [], []])
    return b"ORBITABI 1 %08x\n" % zlib.crc32(body) + body


def of_another_version(path: Path) -> None:
    body = path.read_bytes().partition(b"\n")[2]
    other = msgspec.structs.replace(msgspec.msgpack.decode(body, type=Tables), origin="of another one")
    _ghostty_abi._write(str(path), other)


def made_a_link(path: Path) -> None:
    path.rename(path.parent.parent / "elsewhere")
    path.symlink_to(path.parent.parent / "elsewhere")


def made_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


ODD: dict[str, Callable[[Path], None]] = {
    "empty": damaged(lambda data: b""),
    "truncated": damaged(lambda data: data[:-1]),
    "a bit flipped": damaged(lambda data: data[:50_000] + bytes([data[50_000] ^ 1]) + data[50_001:]),
    "of another format": damaged(lambda data: data.replace(b"ORBITABI 1", b"ORBITABI 2", 1)),
    "too long": damaged(lambda data: data + bytes(CACHE_MAX_BYTES)),
    "of another shape": damaged(of_another_shape),
    "of another version": of_another_version,
    "readable by the group": lambda path: path.chmod(0o640),
    "writable by others": lambda path: path.chmod(0o602),
    "a link": made_a_link,
    "a pipe": made_a_pipe,
}


@pytest.mark.parametrize("change", ODD.values(), ids=ODD)
def test_a_file_that_is_not_what_was_written_is_replaced(filled: Cache, change: Callable[[Path], None]) -> None:
    """It is not used, whatever is odd about it; the tables are made, and kept in its place."""
    whole = filled.file.read_bytes()
    change(filled.file)
    load()
    assert filled.made == 2
    assert not filled.file.is_symlink()
    assert filled.file.stat().st_mode & 0o777 == 0o600
    assert filled.file.read_bytes() == whole


def test_the_file_of_another_user_is_not_used(filled: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its owner could write to it at any time."""
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    load()
    assert filled.made == 2


@pytest.mark.parametrize("change", ["open to others", "a link", "a file", "of another user"])
def test_a_folder_that_is_not_private_is_not_used(
    filled: Cache, change: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nothing is read from it or written to it, and the interface is loaded all the same."""
    filled.file.write_bytes(b"as it was")
    if change == "open to others":
        filled.folder.chmod(0o777)
    elif change == "of another user":
        owner = os.getuid()
        monkeypatch.setattr(os, "getuid", lambda: owner + 1)
    else:
        filled.folder.rename(tmp_path / "moved")
        if change == "a link":
            filled.folder.symlink_to(tmp_path / "moved")
        else:
            filled.folder.write_bytes(b"")
    assert Library(*load()).cell_bits
    assert filled.made == 2
    assert change == "a file" or filled.file.read_bytes() == b"as it was"


def test_what_cannot_be_written_is_not_kept(cache: Cache) -> None:
    """Nothing is left behind where the file cannot get its name, and each load makes the tables."""
    load()
    path = cache.file
    path.unlink()
    path.mkdir()
    load()
    load()
    assert cache.made == 3
    assert cache.file == path


def test_older_files_are_removed(filled: Cache) -> None:
    """Files of a few other versions stay, since several installations may take turns; other files are not touched."""
    path = filled.file
    path.unlink()
    (filled.folder / "something else").write_bytes(b"")
    for number in range(CACHE_MAX_FILES + 2):
        old = filled.folder / f"ghostty-{number:08x}.abi"
        old.write_bytes(b"")
        os.utime(old, (number, number))
    load()
    kept = [f"ghostty-{number:08x}.abi" for number in range(3, CACHE_MAX_FILES + 2)]
    assert sorted(os.listdir(filled.folder)) == sorted(["something else", path.name, *kept])


def test_the_cache_is_in_the_users_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """XDG_CACHE_HOME says where unless it is relative; then ~/.cache. Without a home there is no cache."""
    name = f"orbit/ghostty-{zlib.crc32(b'C'):08x}.abi"
    monkeypatch.setenv("XDG_CACHE_HOME", f"{tmp_path}/caches")
    assert _ghostty_abi.cache_path("C") == f"{tmp_path}/caches/{name}"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert _ghostty_abi.cache_path("C") == f"{tmp_path}/.cache/{name}"
    monkeypatch.setenv("HOME", "relative")
    assert _ghostty_abi.cache_path("C").startswith("/dev/null/")


def modules_after(code: str, base: Path) -> set[str]:
    """Return the modules that a new process has imported after it has run some code."""
    code += "; import sys; print(*sys.modules)"
    environment = {**os.environ, "XDG_CACHE_HOME": str(base)}
    command = [sys.executable, "-c", code]
    return set(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split())


def test_no_c_is_parsed_with_a_warm_cache(filled: Cache, tmp_path: Path) -> None:
    """The template imports neither a parser of C nor pyghostty, nor what else takes time and is not needed."""
    modules = modules_after("from orbitd.screens import template; assert template.load() == ''", tmp_path)
    assert "_cffi_backend" in modules
    unwanted = {"cffi", "pycparser", "pyghostty", "hashlib", "json", "html", "asyncio", "orbit_protocol.params"}
    assert modules & unwanted == set()


def test_no_c_is_parsed_in_the_template(tmp_path: Path) -> None:
    """With an empty cache a fork of the template parses it, and leaves the tables in the cache."""
    code = "from orbitd.screens import emulator, template; emulator.prepare(); assert template.load() == ''"
    assert modules_after(code, tmp_path) & {"cffi", "pycparser", "pyghostty"} == set()
    assert len(os.listdir(tmp_path / "orbit")) == 1


def test_a_fork_is_not_needed(tmp_path: Path) -> None:
    """Where nothing can be kept, the template parses the C text itself."""
    (tmp_path / "orbit").write_bytes(b"")
    code = "from orbitd.screens import emulator, template; emulator.prepare(); assert template.load() == ''"
    assert "pycparser" in modules_after(code, tmp_path)


def test_a_machine_without_pyghostty_says_so(filled: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when tables of an installation that is gone are still in the cache."""
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "pyghostty", raising=False)
    with pytest.raises(TerminalUnavailable, match=r"^pyghostty is not installed \(No module named 'pyghostty'\)$"):
        load()
    _ghostty_abi.fill_cache_in_fork()


def test_a_library_that_cannot_be_loaded_is_named(filled: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    """PYGHOSTTY_LIB is respected, as pyghostty does it."""
    monkeypatch.setenv("PYGHOSTTY_LIB", "/missing.so")
    with pytest.raises(TerminalUnavailable, match=r"^libghostty-vt cannot be loaded \(.*/missing\.so"):
        load()


@pytest.mark.parametrize("text", ["CDEF = 'int ('", "CDEF = 1", "", "syntax error", "CDEF = 'int f(...'"])
def test_another_interface_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Declarations that are missing, or that cffi cannot read, are another version of pyghostty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "_cdef.py").write_text(text)
    monkeypatch.setattr(_ghostty_abi, "_package_folder", lambda: str(tmp_path))
    with pytest.raises(TerminalUnavailable, match=r"^this version of pyghostty does not fit"):
        load()
    assert not (tmp_path / "orbit").exists()


def test_a_package_without_its_library_is_unavailable(
    filled: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An installation that has lost its shared library says which one is missing."""
    monkeypatch.delenv("PYGHOSTTY_LIB", raising=False)
    (tmp_path / "_cdef.py").write_text("CDEF = ''")
    monkeypatch.setattr(_ghostty_abi, "_package_folder", lambda: str(tmp_path))
    with pytest.raises(TerminalUnavailable, match=r"^libghostty-vt cannot be loaded \(libghostty-vt not found in "):
        load()
