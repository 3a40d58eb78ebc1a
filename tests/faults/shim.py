"""The library between a daemon and its disk and clock (`shim.c`): built once, directed through a mapped file."""

from __future__ import annotations

import atexit
import functools
import mmap
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

WRITE, SYNC, READ, TRUNCATE, OPEN, NAME = 1, 2, 4, 8, 16, 32
FOLDER_SYNC, MODE, LINK, LOCK, MAP, BIND = 64, 128, 256, 512, 1024, 2048
"""What some file systems cannot do: an fsync of a folder, a chmod, links, flock, shared memory, sockets."""
CHANGES = WRITE | SYNC | TRUNCATE | NAME

_FIELDS = ("fail_calls", "fail_errno", "fail_after", "kill_after", "changes", "realtime_shift", "monotonic_shift")
_RECORD = struct.Struct("=c3xIIIq")


@functools.cache
def library() -> Path:
    """Return the built library."""
    folder = Path(tempfile.mkdtemp(prefix="orbit-shim-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    target = folder / "shim.so"
    source = Path(__file__).with_name("shim.c")
    command = ["cc", "-shared", "-fPIC", "-O1", "-w", "-o", str(target), str(source), "-ldl", "-lpthread"]
    subprocess.run(command, check=True)
    return target


@dataclass(frozen=True)
class Record:
    """One change that happened, and where in the log it ends."""

    kind: str
    path: str
    other: str
    data: bytes
    offset: int
    end: int


class Shim:
    """One daemon's shim.

    Args:
        folder: Where its control file and log lie.
        watched: Changes below this folder count.
        record: Whether to keep a log of them.
    """

    def __init__(self, folder: Path, watched: Path, *, record: bool = False) -> None:
        self.log_path = folder / "shim.log"
        self._passed = 0
        control_path = folder / "shim.control"
        control_path.write_bytes(bytes(8 * len(_FIELDS)))
        self.environment = {
            "LD_PRELOAD": str(library()),
            "ORBIT_SHIM_CONTROL": str(control_path),
            "ORBIT_SHIM_FOLDER": str(watched),
        }
        if record:
            self.log_path.touch()
            self.environment["ORBIT_SHIM_LOG"] = str(self.log_path)
        with control_path.open("r+b") as file:
            self._control = mmap.mmap(file.fileno(), 8 * len(_FIELDS))

    def _set(self, name: str, value: int) -> None:
        struct.pack_into("=q", self._control, 8 * _FIELDS.index(name), value)

    def fail(self, calls: int, errno: int, *, after: int = 0) -> None:
        """Let these calls fail from now on, once `after` of them have gone well."""
        self._set("fail_errno", errno)
        self._set("fail_after", after)
        self._set("fail_calls", calls)

    def heal(self) -> None:
        """Let everything go well again."""
        self._set("fail_calls", 0)

    def kill_at(self, change: int) -> None:
        """Kill the process in its `change`-th change from now on; 0 for never."""
        self._set("kill_after", change)

    def shift_clock(self, secs: int) -> None:
        """Set the wall clock forth or back."""
        self._set("realtime_shift", secs)

    def pass_time(self, secs: int) -> None:
        """Let the monotonic clock jump: what was to happen within that time is due at the next event."""
        self._passed += secs
        self._set("monotonic_shift", self._passed)

    @property
    def changes(self) -> int:
        """How many changes there were."""
        (value,) = struct.unpack_from("=q", self._control, 8 * _FIELDS.index("changes"))
        return int(value)

    @property
    def position(self) -> int:
        """How long the log is now."""
        return self.log_path.stat().st_size

    def records(self) -> Iterator[Record]:
        """Go through the log."""
        with self.log_path.open("rb") as log:
            while head := log.read(_RECORD.size):
                kind, path, other, data, offset = _RECORD.unpack(head)
                texts = [log.read(length) for length in (path, other)]
                yield Record(kind.decode(), texts[0].decode(), texts[1].decode(), log.read(data), offset, log.tell())
