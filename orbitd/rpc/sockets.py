"""The listening socket: bound in a private folder, or inherited from systemd or launchd, and removed at the end.

A daemon binds only while it holds the database's lock. So a socket file that is there already
is left over from one that was killed, unless another database's daemon answers on it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from dataclasses import dataclass

from orbit_os.files import PRIVATE_FILE, private_folder, set_mode
from orbit_os.sockets import SocketPathTooLong, check_socket_path

BACKLOG = 1024  # a full backlog makes connect(2) fail at once for clients that do not block


class SocketUnusable(Exception):
    """The socket cannot be made; the text names path and next step."""


@dataclass(frozen=True)
class Listener:
    """A listening socket, and the inode of its file; None where a supervisor made it, who owns the file too."""

    socket: socket.socket
    path: str
    inode: int | None

    def close(self) -> None:
        """Stop listening; unlink the file if we made it and it has not been replaced."""
        self.socket.close()
        if self.inode is not None:
            with contextlib.suppress(OSError):
                if os.lstat(self.path).st_ino == self.inode:
                    os.unlink(self.path)

    def is_reachable(self) -> bool:
        """Return whether the file at the path is still this socket's."""
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
    try:
        check_socket_path(path)
    except SocketPathTooLong as error:
        raise SocketUnusable(str(error)) from error
    private_folder(os.path.dirname(path))
    _remove_stale(path)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _bind(listening, path)
        # The folder is 0700 already; the mode counts where the socket is moved or its folder opened later.
        set_mode(path, PRIVATE_FILE)
        listening.listen(BACKLOG)
        listening.setblocking(False)
        return Listener(listening, path, os.lstat(path).st_ino)
    except BaseException:
        listening.close()
        raise


def _bind(listening: socket.socket, path: str) -> None:
    """Bind a socket. Raises: SocketUnusable, which has the path, as the error of bind(2) has not."""
    try:
        listening.bind(path)
    except OSError as error:
        # EPERM or ENOTSUP: FAT, CIFS and some FUSE file systems hold no sockets (mknod(2)).
        raise SocketUnusable(
            f"{path} cannot be made ({error.strerror}); configure a socket_path in a folder of yours on a local "
            "file system"
        ) from error


def inherited_listener(inherited: socket.socket) -> Listener:
    """Return the listener of a socket that a supervisor passed to us; its file stays the supervisor's."""
    inherited.setblocking(False)
    return Listener(inherited, str(inherited.getsockname()), None)


def _remove_stale(path: str) -> None:
    """Remove a socket file that no process listens on; refuse to remove anything else. Raises: SocketUnusable."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise SocketUnusable(f"{path} is in the way and no socket; move it, or configure another socket_path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)  # a full backlog makes connect(2) wait
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
