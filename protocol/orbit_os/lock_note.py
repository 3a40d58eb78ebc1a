"""The note in the lock file of a database: which process holds the lock, and where it serves.

The lock itself is an flock(2), which says nothing about its holder, and a reader never tries to take it: a daemon
that starts in that moment would be refused. So the note has all that is needed to see whether the process that
wrote it still runs. Its text is lines of a key and a value;
`pid` and `socket` come first, and other programs may rely on that.

The note is replaced in place by one pwrite(2) of a fixed size, so that a full disk has room for it once it was there.
POSIX promises that a reader sees all or nothing of that; file systems do not keep the promise, so a checksum shows a
mix of two notes, and the reader reads again.
"""

from __future__ import annotations

import binascii
import os
from enum import Enum
from typing import NamedTuple

from orbit_os.processes import boot_id, pid_namespace, start_time

NOTE_BYTES = 1024
"""What one is padded to: within one page of the file, and more than the longest paths of sockets need."""
_ATTEMPTS = 10

STARTING, SERVING, STOPPING = "starting", "serving", "stopping"
"""The states of a daemon that a note has."""


class Holder(Enum):
    """Where the process is that wrote a note."""

    HERE = "it runs on this machine, and its pid means what it says"
    GONE = "it has ended"
    ELSEWHERE = "it belongs to another machine or container, whose processes are not visible here"
    UNKNOWN = "an older daemon wrote the note, which says too little"


class LockNote(NamedTuple):
    """What the holder of a lock says of itself. All but the pid may be empty: older daemons wrote less.

    Attributes:
        pid: The process, a number of its namespace of pids.
        socket: Where it listens now; a path.
        configured: Where it was to listen, if that is another path.
        supervisor: What started it: "systemd", "launchd", or empty.
        state: `STARTING` until clients are served, `SERVING`, then `STOPPING`.
        host: The name of the machine.
        boot: The id of its boot.
        namespace: The namespace of pids.
        started: The start time of the process, as `processes.start_time` has it.
    """

    pid: int
    socket: str = ""
    configured: str = ""
    supervisor: str = ""
    state: str = ""
    host: str = ""
    boot: str = ""
    namespace: str = ""
    started: str = ""

    def holder(self) -> Holder:
        """Return where the process that wrote this is."""
        if not self.started:
            return Holder.UNKNOWN
        # The boot comes before the host: containers of one kernel have its boot id and names of their own, and a
        # machine may get another name while it runs.
        if not self.boot or self.boot != boot_id():
            return Holder.ELSEWHERE if self.host != os.uname().nodename else Holder.GONE
        if self.namespace != pid_namespace():
            return Holder.ELSEWHERE
        return Holder.HERE if start_time(self.pid) == self.started else Holder.GONE

    def where(self) -> str:
        """Return where the process is, as ` on host X (pid N)`, or without the host if it is this one."""
        place = ""
        if self.holder() is Holder.ELSEWHERE:
            # Containers may have the name of their host.
            place = f" on host {self.host}" if self.host != os.uname().nodename else " in another container"
        return f"{place} (pid {self.pid})"


def note_of_this_process(socket: str, supervisor: str = "") -> LockNote:
    """Return the note of a daemon that is starting and will listen at `socket`."""
    pid = os.getpid()
    return LockNote(
        pid=pid,
        socket=socket,
        supervisor=supervisor,
        state=STARTING,
        host=os.uname().nodename,
        boot=boot_id(),
        namespace=pid_namespace(),
        started=start_time(pid),
    )


def format_note(note: LockNote | None) -> bytes:
    """Return the bytes of a note, padded to `NOTE_BYTES`; for None, blanks."""
    if note is None:
        return b" " * (NOTE_BYTES - 1) + b"\n"
    lines = [b"pid %d" % note.pid]
    for key in ("socket", "supervisor", "state", "host", "boot", "namespace", "started", "configured"):
        value = os.fsencode(getattr(note, key))
        if value and b"\n" not in value:  # a path may have one: it is left out, rather than read as lines of their own
            lines.append(key.encode() + b" " + value)
    text = b"\n".join(lines) + b"\n"
    return (text + b"sum %08x" % binascii.crc32(text)).ljust(NOTE_BYTES - 1) + b"\n"


def parse_note(data: bytes) -> LockNote | None:
    """Return the note in the bytes of a lock file; None if there is none.

    Raises:
        ValueError: The checksum does not match: the bytes are of two notes.
    """
    text, mark, checksum = data.rpartition(b"\nsum ")
    # Older daemons wrote a note without one, which is shorter.
    is_mixed = checksum.strip() != b"%08x" % binascii.crc32(text + b"\n") if mark else len(data) >= NOTE_BYTES
    if is_mixed and data.strip():
        raise ValueError("checksum mismatch")
    found: dict[str, str] = {}
    for line in (text if mark else data).split(b"\n"):
        key, _, value = line.partition(b" ")
        found.setdefault(key.decode("ascii", "replace"), os.fsdecode(value))
    pid = found.pop("pid", "")
    if not (pid.isascii() and pid.isdigit()) or int(pid) == 0:
        return None
    known = LockNote._fields
    return LockNote(pid=int(pid), **{key: value for key, value in found.items() if key in known})


def write_note(descriptor: int, note: LockNote | None) -> None:
    """Replace the note in a lock file that this process has locked.

    Raises:
        OSError: It cannot be written. A reader finds no note then, or the one before.
    """
    data = format_note(note)
    os.pwrite(descriptor, data, 0)
    if os.fstat(descriptor).st_size > len(data):
        os.ftruncate(descriptor, len(data))


def read_note(descriptor: int) -> LockNote | None:
    """Return the note in a lock file; None where there is none that can be read. Raises: OSError."""
    for _ in range(_ATTEMPTS):
        try:
            return parse_note(os.pread(descriptor, 8 * NOTE_BYTES, 0))
        except ValueError:
            continue
    return None
