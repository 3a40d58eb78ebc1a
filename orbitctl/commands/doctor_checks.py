"""The checks of `orbitctl doctor` that need no daemon: files, folders, disks.

Each returns a `Finding`; none raises OSError, and none changes anything.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

from orbit_os.files import UnsafeFile, check_file, is_below_home, may_be_closed
from orbit_os.shell import typed
from orbit_protocol.settings import NotificationSettings
from orbitctl.ui.text import size

FAIL_BELOW = 64 << 20
WARN_BELOW = 512 << 20
"""Free bytes on the database's disk."""
FAIL_BELOW_FILES = 16
WARN_BELOW_FILES = 256
"""Free inodes there, where their number is limited."""
LINGER_FOLDER = "/var/lib/systemd/linger"
"""Where systemd-logind has a file for each user that lingers (loginctl(1))."""

NETWORK_FILE_SYSTEMS = frozenset((
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "afpfs", "webdav", "davfs", "fuse.davfs2", "fuse.sshfs", "9p", "afs",
    "ncpfs", "ceph", "fuse.ceph", "glusterfs", "fuse.glusterfs", "lustre", "beegfs", "gpfs", "fuse.rclone",
))  # fmt: skip

MODELESS_FILE_SYSTEMS = frozenset((
    "vfat", "msdos", "exfat", "fuseblk", "ntfs", "ntfs3", "cifs", "smb3", "smbfs", "9p", "drvfs", "vboxsf",
    "fuse.vmhgfs-fuse", "fuse.rclone", "webdav", "davfs", "fuse.davfs2",
))  # fmt: skip
"""Those that may show one mode for all, by how they are mounted."""


class Finding(Struct, frozen=True, kw_only=True):
    """One line of the report; `remedy` says what to do, and is empty if the state is ok."""

    check: str
    state: Literal["ok", "warn", "fail"]
    message: str
    remedy: str = ""


def folder(check: str, path: str) -> Finding:
    """Check that a folder is ours and closed to others; a missing one is ok, since orbitd makes it."""
    found = _lstat(check, path)
    if isinstance(found, Finding):
        return found
    if not stat.S_ISDIR(found.st_mode):
        what = "a symbolic link" if stat.S_ISLNK(found.st_mode) else "not a folder"
        return Finding(
            check=check, state="fail", message=f"{path} is {what}", remedy="Name or make a folder of its own."
        )
    return _check_private(check, path, found, "700", "fail")


def file(check: str, path: str) -> Finding:
    """Check that a file is ours and closed to others; a missing one is ok, since orbitd makes it.

    One that is open is no failure: its folder keeps others out, and orbitd closes it when it starts.
    """
    found = _lstat(check, path)
    return found if isinstance(found, Finding) else _check_private(check, path, found, "600", "warn")


def regular_file(check: str, path: str) -> Finding:
    """Check a file as `file` does, and that it is one: orbitd opens no link, FIFO or folder, and does not start."""
    found = file(check, path)
    if found.state == "fail":
        return found
    try:
        check_file(path)
    except UnsafeFile as error:
        message, _, remedy = str(error).rpartition("; ")
        return Finding(check=check, state="fail", message=message, remedy=f"{remedy.capitalize()}.")
    return found


def _lstat(check: str, path: str) -> os.stat_result | Finding:
    try:
        return os.lstat(path)
    except FileNotFoundError:
        return Finding(check=check, state="ok", message=f"{path} (not there yet)")
    except OSError as error:
        return Finding(
            check=check, state="fail", message=f"{path}: {error.strerror}", remedy="Make it readable to you."
        )


def _check_private(
    check: str, path: str, found: os.stat_result, mode: str, state_if_open: Literal["warn", "fail"]
) -> Finding:
    if found.st_uid != os.getuid():
        remedy = f"Name one of your own, or: {typed(f'sudo chown -R {os.getuid()}', path)}"
        if not is_below_home(path):  # /etc, say: to own all that is in it would ruin the machine
            remedy = "Name one of your own."
        return Finding(check=check, state="fail", message=f"{path} belongs to uid {found.st_uid}", remedy=remedy)
    if stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX:  # /tmp, where we are root
        message = f"{path} is a folder for everybody (mode {stat.S_IMODE(found.st_mode):04o})"
        return Finding(check=check, state=state_if_open, message=message, remedy="Name one of your own.")
    if found.st_mode & 0o077:
        message = f"{path} is open to others (mode {stat.S_IMODE(found.st_mode):04o})"
        if stat.S_ISDIR(found.st_mode) and not may_be_closed(path):  # /etc, say
            return Finding(check=check, state=state_if_open, message=message, remedy="Name one of your own.")
        remedy = typed(f"chmod {mode}", path)
        kind = _file_system(os.path.realpath(path))
        if kind in MODELESS_FILE_SYSTEMS:
            remedy += f"; if it stays open, {kind} keeps no modes here: configure a path on a local file system"
        return Finding(check=check, state=state_if_open, message=message, remedy=remedy)
    return Finding(check=check, state="ok", message=path)


def disk_room(path: str) -> Finding:
    """Check the free space on the disk of `path`."""
    try:
        found = os.statvfs(_existing(path))
    except OSError as error:
        return Finding(check="disk room", state="warn", message=f"{path}: {error.strerror}", remedy="Check the disk.")
    if found.f_flag & os.ST_RDONLY:
        remedy = "Remount it, or configure a path on another one."
        return Finding(check="disk room", state="fail", message=f"{path} is on a disk mounted read-only", remedy=remedy)
    # 0 in all are as many as are wanted (Btrfs, FAT). Without one the disk is as full as without a block (ENOSPC).
    if found.f_files and found.f_favail < WARN_BELOW_FILES:
        return Finding(
            check="disk room",
            state="fail" if found.f_favail < FAIL_BELOW_FILES else "warn",
            message=f"{found.f_favail} more files can be made on the disk of {path} (inodes: `df -i`)",
            remedy="Delete files there: without a free inode no session can be started or saved.",
        )
    free = found.f_bavail * found.f_frsize  # without the blocks that are reserved for root (statvfs(3))
    state: Literal["ok", "warn", "fail"] = "fail" if free < FAIL_BELOW else "warn" if free < WARN_BELOW else "ok"
    remedy = "" if state == "ok" else "Free some space: on a full disk sessions cannot be saved."
    return Finding(check="disk room", state=state, message=f"{size(free)} free for {path}", remedy=remedy)


def local_disk(path: str) -> Finding:
    """Check that `path` is on a local file system."""
    where = os.path.realpath(_existing(path))
    # All processes that use a WAL database must share memory (sqlite.org/wal.html), which machines do not.
    kind = _file_system(where)
    if kind in NETWORK_FILE_SYSTEMS:
        return Finding(
            check="file system",
            state="fail",
            message=f"{path} is on {kind}, a network file system: SQLite's WAL does not work there",
            remedy="Set database_path to a local disk (sqlite.org/wal.html).",
        )
    return Finding(check="file system", state="ok", message=f"{path} is on {kind or 'a local disk'}")


def live_sessions(features: list[str]) -> Finding:
    """Check that the daemon can run programs, which needs a terminal emulator for this platform."""
    if "live" in features:
        return Finding(check="live sessions", state="ok", message="orbitd can run programs")
    return Finding(
        check="live sessions",
        state="warn",
        message="orbitd cannot run programs here; sessions that other applications host are not affected",
        remedy="`pip install 'pyghostty>=0.1.3,<0.2'` in orbitd's environment (Linux with glibc, macOS from 13 on).",
    )


def lingering(user: str, folder: str = LINGER_FOLDER) -> Finding:
    """Check that systemd keeps the user's services, and what they have started, after the last logout."""
    if os.path.exists(os.path.join(folder, user)):
        return Finding(check="lingering", state="ok", message=f"on for {user}")
    return Finding(
        check="lingering",
        state="warn",
        message=f"off for {user}: systemd ends orbitd and every session's program at the last logout",
        remedy="loginctl enable-linger",
    )


def desktop_notifications(settings: NotificationSettings, environ: Mapping[str, str]) -> Finding:
    """Check whether notifications can be shown on a desktop; where there is none, nothing is wrong."""
    check = "notifications"
    if not settings.desktop:
        return Finding(check=check, state="ok", message="off (`desktop = false` in [notifications])")
    if sys.platform == "darwin":
        return Finding(check=check, state="ok", message="shown by osascript")
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    if not (environ.get("DBUS_SESSION_BUS_ADDRESS") or (runtime and os.path.exists(f"{runtime}/bus"))):
        return Finding(check=check, state="ok", message="none are shown: there is no desktop session here")
    program = shutil.which("notify-send", path=environ.get("PATH"))
    if program is None:
        return Finding(
            check=check,
            state="warn",
            message="none are shown: there is a desktop session, and no notify-send",
            remedy="Install it (Debian: libnotify-bin), or set `desktop = false` in [notifications].",
        )
    return Finding(check=check, state="ok", message=f"shown by {program}")


def _existing(path: str) -> str:
    """Return `path`, or the nearest folder above it that exists."""
    while not os.path.exists(path) and path != os.path.dirname(path):
        path = os.path.dirname(path)
    return path


def _file_system(path: str) -> str:
    """Return the type of the file system of `path`; an empty string if it is unknown."""
    mounts = _linux_mounts() if sys.platform == "linux" else _printed_mounts()
    # Of the mount points above `path` the longest is the one that it is on.
    best = max((point for point in mounts if _is_under(path, point)), key=len, default=None)
    return mounts[best] if best is not None else ""


def _is_under(path: str, point: str) -> bool:
    return path == point or path.startswith(point.rstrip("/") + "/")


def _linux_mounts() -> dict[str, str]:
    """Read proc_mounts(5): later mounts hide earlier ones on the same point; blanks are octal."""
    try:
        with open("/proc/mounts", encoding="utf-8", errors="surrogateescape") as file:
            fields = [line.split(" ") for line in file]
    except OSError:
        return {}
    return {point.replace("\\040", " "): kind for _, point, kind, *_ in fields}


def _printed_mounts() -> dict[str, str]:
    """Read what mount(8) prints on macOS and BSD: `DEVICE on POINT (TYPE, ...)`."""
    try:
        printed = subprocess.run(["/sbin/mount"], capture_output=True, text=True, timeout=5, check=False).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    found: dict[str, str] = {}
    for line in printed.splitlines():
        point, _, kind = line.partition(" on ")[2].rpartition(" (")
        found[point] = kind.partition(",")[0].rstrip(")")
    return found
