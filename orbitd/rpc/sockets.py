"""The listening socket: made safely, or handed in by systemd or launchd, and taken away again.

Binding happens only under the database's lock, so that a socket file in the way is known
to be a leftover, unless another database's daemon answers on it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import sys
from dataclasses import dataclass

from orbit_os.files import PRIVATE_FILE, private_folder

BACKLOG = 1024  # a full backlog makes connect(2) fail at once for clients that do not block
MAX_PATH_BYTES = 103 if sys.platform == "darwin" else 107  # sizeof(sun_path) - 1: unix(7)


class SocketUnusable(Exception):
    """The socket cannot be made; the text names path and next step."""


@dataclass(frozen=True)
class Listener:
    """A listening socket and what is needed to take its file away; `inode` is None if it was handed in."""

    socket: socket.socket
    path: str
    inode: int | None

    def close(self) -> None:
        """Stop listening; remove the file if we made it and nobody replaced it."""
        self.socket.close()
        if self.inode is not None:
            with contextlib.suppress(OSError):
                if os.lstat(self.path).st_ino == self.inode:
                    os.unlink(self.path)

    def is_reachable(self) -> bool:
        """Tell whether clients still find us at the path."""
        try:
            return self.inode is None or os.lstat(self.path).st_ino == self.inode
        except OSError:
            return False


def listen(path: str) -> Listener:
    """Bind and listen at `path`, with mode 0600 in a private folder.

    Raises:
        SocketUnusable: The path is too long, something else is in the way, or somebody serves there.
        UnsafeFolder: The folder cannot be trusted.
        OSError: The file system refuses.
    """
    length = len(os.fsencode(path))
    if length > MAX_PATH_BYTES:
        raise SocketUnusable(f"socket path is too long ({length} bytes, at most {MAX_PATH_BYTES}): {path}")
    private_folder(os.path.dirname(path))
    _clear(path)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listening.bind(path)
        os.chmod(path, PRIVATE_FILE)
        listening.listen(BACKLOG)
        listening.setblocking(False)
        return Listener(listening, path, os.lstat(path).st_ino)
    except BaseException:
        listening.close()
        raise


def adopt(handed_in: socket.socket) -> Listener:
    """Use a socket that a supervisor listens on for us; its file stays the supervisor's."""
    handed_in.setblocking(False)
    return Listener(handed_in, str(handed_in.getsockname()), None)


def _clear(path: str) -> None:
    """Remove a leftover socket; refuse to remove anything else."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise SocketUnusable(f"{path} is in the way and no socket; move it, or configure another socket_path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise SocketUnusable(
                f"{path} cannot be checked ({error.strerror}); remove it if nobody serves it"
            ) from error
        else:
            raise SocketUnusable(f"somebody serves {path} already, for another database; configure another socket_path")
