"""The screens processes of a daemon, found by the kernel's tables: children of the template, a child of orbitd."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from support import DaemonProcess


def children(pid: int) -> list[int]:
    """Return the processes that any thread of a process has started and not reaped."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that has just ended
            found += map(int, (task / "children").read_text().split())
    return sorted(found)


def template(daemon: DaemonProcess) -> int:
    """Return the template's pid, 0 while there is none."""
    for pid in children(daemon.pid):
        try:
            if b"orbitd.screens.template" in Path(f"/proc/{pid}/cmdline").read_bytes() and _state(pid) != "Z":
                return pid
        except (FileNotFoundError, ProcessLookupError):  # it has just been reaped
            continue
    return 0


def wait_for_template(daemon: DaemonProcess) -> int:
    """Return the template's pid once there is one: one that has ended is started again within a second or so."""
    with daemon.client() as client:
        while not (pid := template(daemon)):
            client.call("daemon.ping")
    return pid


def screens_processes(daemon: DaemonProcess) -> list[int]:
    """Return the pids of the screens processes that run now, the oldest first."""
    pid = template(daemon)
    return [] if not pid else [child for child in children(pid) if _state(child) != "Z"]


def descriptors(pid: int) -> dict[int, str]:
    """Return what a process has open: descriptor -> what it leads to, as /proc shows it."""
    folder = Path(f"/proc/{pid}/fd")
    found = {}
    for each in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            found[int(each.name)] = os.readlink(each)
    return found


def process_of(daemon: DaemonProcess, session_id: str) -> int:
    """Return the screens process that follows a session's journal."""
    found = [
        pid
        for pid in screens_processes(daemon)
        if any(path.partition(" ")[0].endswith(f"/journal/{session_id}") for path in descriptors(pid).values())
    ]
    assert len(found) == 1, f"session {session_id} is in {found}"
    return found[0]


def _state(pid: int) -> str:
    """Return the letter of proc(5): Z is one that has ended and is not reaped."""
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
