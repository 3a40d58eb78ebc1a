"""Load libghostty-vt and its C interface in milliseconds, out of a cache of what cffi makes of the header.

pyghostty gives its 80 kB of declarations to `ffi.cdef`, which parses them in Python: 0.2 s and 5 MB in each process,
and each type that is named later is parsed the same way. cffi's other form, "out-of-line, ABI level", is made once:
tables of types, functions and constants, with which `_cffi_backend`, in C, does everything. They are kept in
`$XDG_CACHE_HOME/orbit`, as data; nothing of that file is executed.

Where they cannot be kept, or what is there is not what was written, they are made and everything else is the same.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import zlib
from contextlib import suppress
from typing import Any

import msgspec
from msgspec import Struct

from orbit_os.files import UnsafeFolder, check_private, open_private, private_folder
from orbit_os.places import HomeUnusable, Places
from orbitd.screens.model import TerminalUnavailable

# cffi cannot pass a struct with a union by value (see pyghostty/_ffi.py). These have the same size and alignment with a
# struct in the union's place; the functions are cast to types that take them.
_BY_VALUE_STRUCTS = """
typedef struct { GhosttyPointTag tag; struct { uint16_t x; uint32_t y; uint64_t pad; } value; } OrbitPoint;
typedef struct { GhosttyTerminalScrollViewportTag tag; struct { uint64_t row; uint64_t pad; } value; } OrbitScroll;
"""

MODULE_NAME = "orbitd.screens._ghostty_abi"
"""What error messages of cffi call it."""

CACHE_MAX_BYTES = 4 << 20
CACHE_MAX_FILES = 4
"""Environments of several versions may take turns; what is older than these is removed."""

_PREFIX, _SUFFIX = "ghostty-", ".abi"
_MAGIC = b"ORBITABI 1 "


class Tables(Struct, frozen=True, kw_only=True, array_like=True):
    """What cffi's generated module passes to `_cffi_backend.FFI`, which checks nothing of it: the decoder must.

    Attributes:
        origin: Everything that the tables depend on.
        version: Of the format of the others, by cffi.
        types: Opcodes, 4 bytes each.
        names: Of functions and constants, each with its value or 0.
        structs: Structs and unions, with their fields.
        enums: Enums, with their names.
        typenames: Typedefs.
    """

    origin: str
    version: int
    types: bytes
    names: tuple[bytes | int, ...]
    structs: tuple[tuple[bytes, ...], ...]
    enums: tuple[bytes, ...]
    typenames: tuple[bytes, ...]


_decoder = msgspec.msgpack.Decoder(Tables)


def load() -> tuple[Any, Any]:
    """Return cffi's `ffi` and `lib` of libghostty-vt.

    Raises:
        TerminalUnavailable: There is no build for this machine, or cffi cannot read its declarations.
    """
    try:
        import _cffi_backend

        folder = _package_folder()
        tables = _cached_tables(_origin(folder))
        ffi = _cffi_backend.FFI(
            MODULE_NAME,
            _version=tables.version,
            _types=tables.types,
            _globals=tables.names,
            _struct_unions=tables.structs,
            _enums=tables.enums,
            _typenames=tables.typenames,
        )
        return ffi, ffi.dlopen(_library_path(folder))
    except ImportError as exc:
        raise TerminalUnavailable(f"pyghostty is not installed ({exc})") from exc
    except OSError as exc:
        raise TerminalUnavailable(f"libghostty-vt cannot be loaded ({exc})") from exc


def fill_cache_in_fork() -> None:
    """Make the tables in a fork where they are missing: cffi's parser leaves 8 MB, which are gone with it.

    For a process without threads. Where this does nothing, `load` makes them itself, and says what is wrong.
    """
    try:
        path = cache_path(_origin(_package_folder()))
        # Otherwise they would be made twice.
        if os.path.lexists(path) or not os.access(private_folder(os.path.dirname(path)), os.W_OK):
            return
        pid = os.fork()
    except (ImportError, OSError, ValueError, UnsafeFolder, TerminalUnavailable):
        return
    if pid == 0:
        try:
            load()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)


def _package_folder() -> str:
    """Return the folder of pyghostty, which is not imported: it would parse everything. Raises: ImportError."""
    found = importlib.util.find_spec("pyghostty")
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError("No module named 'pyghostty'")
    return found.submodule_search_locations[0]


def _library_path(folder: str) -> str:
    """Return the path of the library, as pyghostty finds it. Raises: OSError."""
    if path := os.environ.get("PYGHOSTTY_LIB"):
        return path
    for suffix in (".dylib", ".so"):
        path = os.path.join(folder, "_lib", f"libghostty-vt{suffix}")
        if os.path.exists(path):
            return path
    raise OSError(f"libghostty-vt not found in {os.path.join(folder, '_lib')}")


def _declarations(folder: str) -> str:
    """Return pyghostty's C declarations. Raises: TerminalUnavailable."""
    try:
        # By its file: its bytecode is found beside it, and `pyghostty` itself is not imported.
        spec = importlib.util.spec_from_file_location("_cdef", os.path.join(folder, "_cdef.py"))
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        declarations = module.CDEF
        assert isinstance(declarations, str)
    except Exception as exc:
        raise TerminalUnavailable(f"this version of pyghostty does not fit ({exc!r})") from exc
    return declarations


def _origin(folder: str) -> str:
    """Return everything that the tables depend on, as C text. Raises: TerminalUnavailable, ImportError."""
    from _cffi_backend import __version__

    machine = f"cffi {__version__}, {sys.implementation.cache_tag}, {sys.platform} {os.uname().machine}"
    return f"{_declarations(folder)}\n{_BY_VALUE_STRUCTS}\n/* {machine} */\n"


def _cached_tables(origin: str) -> Tables:
    """Return the tables out of the cache, or make them and put them there. Raises: TerminalUnavailable, ImportError."""
    path = cache_path(origin)
    tables = _read(path)
    # All of it is compared, so that the CRC in the file's name need not tell two versions apart.
    if tables is None or tables.origin != origin:
        tables = _make(origin)
        _write(path, tables)
    return tables


def cache_path(origin: str) -> str:
    """Return the path of the cache for an origin, after the XDG Base Directory Specification.

    The name and the checksum are CRCs: they are against accidents. Whoever could forge them owns the folder. And
    hashlib loads OpenSSL, which takes longer than all the rest, and a megabyte.
    """
    try:
        places = Places(os.environ)
        folder = places.folder("XDG_CACHE_HOME", ".cache")
        places.check()
    except HomeUnusable:
        folder = os.devnull  # nothing is found in there, and nothing can be made: each start makes the tables
    return os.path.join(folder, f"{_PREFIX}{zlib.crc32(origin.encode()):08x}{_SUFFIX}")


def _read(path: str) -> Tables | None:
    """Return the tables of a file, or None unless it is whole, of ours, and closed to others."""
    try:
        check_private(os.path.dirname(path))
        # `open_private` closes a file that is open to others; here it may have been written to already.
        if os.lstat(path).st_mode & 0o077:
            return None
        with open(open_private(path, os.O_RDONLY), "rb") as file:
            data = file.read(CACHE_MAX_BYTES + 1)
        head, _, body = data.partition(b"\n")
        if len(data) > CACHE_MAX_BYTES or head != _head(body):
            return None
        return _decoder.decode(body)
    except (OSError, ValueError, UnsafeFolder, msgspec.DecodeError):
        return None


def _write(path: str, tables: Tables) -> None:
    """Put the tables into a file, where that is possible, and remove those of older versions.

    It appears under its name at once and whole, by rename(2). It is not synced: what a power cut leaves of it has a
    wrong checksum.
    """
    body = msgspec.msgpack.encode(tables)
    temporary = f"{path}.{os.getpid()}"
    try:
        folder = private_folder(os.path.dirname(path))
        with open(open_private(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "wb") as file:
            file.write(_head(body) + b"\n" + body)
        os.rename(temporary, path)
        # Names left by a crash have the prefix too.
        ours = [os.path.join(folder, name) for name in os.listdir(folder) if name.startswith(_PREFIX)]
        for old in sorted(ours, key=lambda one: os.lstat(one).st_mtime, reverse=True)[CACHE_MAX_FILES:]:
            os.unlink(old)
    except (OSError, ValueError, UnsafeFolder):  # a read-only or full disk, no home: the next start makes them again
        with suppress(OSError, ValueError):
            os.unlink(temporary)


def _head(body: bytes) -> bytes:
    return _MAGIC + b"%08x" % zlib.crc32(body)


def _make(origin: str) -> Tables:
    """Parse the declarations. Raises: TerminalUnavailable, ImportError."""
    import ast
    import io

    from cffi import FFI
    from cffi.recompiler import Recompiler

    try:
        builder = FFI()
        builder.cdef(origin)
        # What FFI.emit_python_code does, without a file: it writes a module with one call of _cffi_backend.FFI, whose
        # arguments are literals.
        recompiler = Recompiler(builder, MODULE_NAME, target_is_python=True)
        recompiler.collect_type_table()
        recompiler.collect_step_tables()
        text = io.StringIO()
        recompiler.write_source_to_f(text, None)
        [call] = [node for node in ast.walk(ast.parse(text.getvalue())) if isinstance(node, ast.Call)]
        found = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
        tables = Tables(
            origin=origin,
            version=found.pop("_version"),
            types=found.pop("_types"),
            names=found.pop("_globals"),
            structs=found.pop("_struct_unions"),
            enums=found.pop("_enums"),
            typenames=found.pop("_typenames"),
        )
        if found:
            raise ValueError(f"cffi has made {sorted(found)} too")
        return _decoder.decode(msgspec.msgpack.encode(tables))  # a Struct that is made here is not checked
    except Exception as exc:
        raise TerminalUnavailable(f"this version of pyghostty does not fit ({exc!r})") from exc
