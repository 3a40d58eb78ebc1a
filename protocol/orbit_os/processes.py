"""Which process is meant: a pid alone is given to another process once its owner has ended.

A pid stands for one process only together with the time at which that process started, the boot of the
machine, and the namespace of pids that the number was read in (a container has its own).
Beside that, what a process hands on to those that it starts: its umask and its limits.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_PROC_PIDTBSDINFO = 3  # sys/proc_info.h
_BSD_INFO_BYTES = 136
_START_TIME_OFFSET = 120  # of pbi_start_tvsec and pbi_start_tvusec, two uint64 at the end of struct proc_bsdinfo
_STATUS_OFFSET = 4
_BSD_ZOMBIE = 5  # SZOMB, sys/proc.h


def start_time(pid: int) -> str:
    """Return when a process started, as text that only compares equal for the same process of one boot.

    Args:
        pid: Any process that this one may see.

    Returns:
        An empty string where there is no such process, where it has ended and waits to be reaped, or where the
        system does not know.
    """
    if sys.platform == "darwin":
        return mac_start_time(pid)
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # proc(5), from the state on: the name before it, in parentheses, may hold anything.
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return ""
    if not fields or fields[0] in (b"Z", b"X"):
        return ""
    return fields[19].decode("ascii")  # starttime, in clock ticks since the boot


def boot_id() -> str:
    """Return the id of this boot of the machine; an empty string where the system has none."""
    if sys.platform == "darwin":
        return mac_boot_id()
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def pid_namespace() -> str:
    """Return the name of this process's namespace of pids (pid_namespaces(7)); empty where there are none."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def own_umask() -> int:
    """Return this process's umask. What another thread makes at the same moment is private."""
    mask = os.umask(0o077)  # umask(2) can only be read by setting it
    os.umask(mask)
    return mask


def soft_limits() -> dict[str, int]:
    """Return this process's soft limits, by their names in getrlimit(2) without RLIMIT_ in lower case; -1 is none."""
    import resource  # an extension module that most commands do not need

    names = [name for name in dir(resource) if name.startswith("RLIMIT_") and name != "RLIMIT_OFILE"]  # is NOFILE
    return {name.removeprefix("RLIMIT_").lower(): resource.getrlimit(getattr(resource, name))[0] for name in names}


def mac_start_time(pid: int, library: Any = None) -> str:
    """Return what `start_time` does, from proc_pidinfo(3) of macOS; `library` stands for libproc in tests."""
    import ctypes  # on macOS only: it costs the daemon memory elsewhere

    library = library or ctypes.CDLL("/usr/lib/libproc.dylib")
    buffer = ctypes.create_string_buffer(_BSD_INFO_BYTES)
    size = library.proc_pidinfo(pid, _PROC_PIDTBSDINFO, ctypes.c_uint64(0), buffer, _BSD_INFO_BYTES)
    if size != _BSD_INFO_BYTES:
        return ""
    status = int.from_bytes(buffer.raw[_STATUS_OFFSET : _STATUS_OFFSET + 4], sys.byteorder)
    times = buffer.raw[_START_TIME_OFFSET:_BSD_INFO_BYTES]
    seconds, microseconds = (int.from_bytes(times[at : at + 8], sys.byteorder) for at in (0, 8))
    return "" if status == _BSD_ZOMBIE else f"{seconds}.{microseconds:06d}"


def mac_boot_id(library: Any = None) -> str:
    """Return what `boot_id` does, from sysctlbyname(3) of macOS; `library` stands for the C library in tests."""
    import ctypes  # as above

    library = library or ctypes.CDLL(None)
    buffer = ctypes.create_string_buffer(64)
    size = ctypes.c_size_t(len(buffer))
    if library.sysctlbyname(b"kern.bootsessionuuid", buffer, ctypes.byref(size), None, ctypes.c_size_t(0)) != 0:
        return ""
    return buffer.value.decode("ascii", "replace")
