"""The folder that a program is in: as the kernel has it, else as the program has reported it (OSC 7)."""

from __future__ import annotations

import os
from urllib.parse import unquote_to_bytes

from orbit_protocol.types import MAX_PATH_LENGTH

_DELETED = b" (deleted)"


def folder_of(pid: int) -> bytes:
    """Return the folder that a process is in; of one that was deleted, the name that it had.

    Raises:
        OSError: The process has ended or is another user's, or this system has no /proc.
    """
    link = b"/proc/%d/cwd" % pid
    folder = os.readlink(link)
    if not folder.startswith(b"/"):  # it is not reached from the root, as after umount(8) --lazy
        raise FileNotFoundError(link)
    if folder.endswith(_DELETED) and not _is_called(link, folder):
        # proc(5) adds that to the name. So may a user: the folder that is called so is the one that the link leads to.
        return folder.removesuffix(_DELETED)
    return folder


def _is_called(link: bytes, folder: bytes) -> bool:
    try:
        return os.path.samefile(link, folder)
    except OSError:
        return False


def reported_folder(url: str) -> bytes | None:
    """Return the folder of this machine that a program has reported by OSC 7; None where it is none.

    Args:
        url: `file://HOST/PATH`, or a path alone. A shell that ssh has started reports one of its own host, which is no
            folder of this machine, though one may be called the same here.
    """
    path, is_encoded = url, True
    if not url.startswith("/"):
        # Not urlsplit: many a prompt prints the path as it is, and `?` and `#` are characters of a path.
        scheme, _, path = url.partition(":")
        if scheme.lower() not in ("file", "kitty-shell-cwd"):
            return None
        is_encoded = scheme.lower() == "file"
        if path.startswith("//"):
            host, slash, path = path[2:].partition("/")
            if not _is_this_host(host.lower()):
                return None
            path = slash + path
    folder = path.encode("utf-8", "surrogateescape")
    if is_encoded:  # a `%` that begins no byte stays as it is
        folder = unquote_to_bytes(folder)
    # A NUL is in no path, and neither execve nor a column of the store takes what is longer than PATH_MAX.
    return folder if folder.startswith(b"/") and b"\0" not in folder and len(folder) <= MAX_PATH_LENGTH else None


def _is_this_host(host: str) -> bool:
    own = os.uname().nodename.lower()
    return host in ("", "localhost", own, own.partition(".")[0])
