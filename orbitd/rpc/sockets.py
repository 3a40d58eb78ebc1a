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

from orbit_os.files import PRIVATE_FILE, UnsafeFolder, private_folder, set_mode
from orbit_os.sockets import SocketPathTooLong, check_socket_path
from orbit_protocol.text import path_text

BACKLOG = 1024  # a full backlog makes connect(2) fail at once for clients that do not block


class SocketUnusable(Exception):
    """The socket cannot be made; the text names path and next step."""


class SocketTaken(SocketUnusable):
    """Somebody serves there, or something else is in the way: who is meant by the path is the user's to decide."""


@dataclass(frozen=True)
class Listener:
    """A listening socket.

    Attributes:
        path: Where its file is, or was.
        file: Device and inode of the file; None for one that has none (an abstract name).
        is_ours: Whether we made it; else a supervisor did, who owns the file too.
    """

    socket: socket.socket
    path: str
    file: tuple[int, int] | None
    is_ours: bool = True

    def close(self) -> None:
        """Stop listening; unlink the file if we made it and it has not been replaced."""
        self.socket.close()
        if self.is_ours and self.file is not None and _file_at(self.path) == self.file:
            with contextlib.suppress(OSError):
                os.unlink(self.path)

    def is_reachable(self) -> bool:
        """Return whether the file at the path is still this socket's."""
        return not self.path.startswith("/") or (self.file is not None and _file_at(self.path) == self.file)


def _reason(error: OSError | UnsafeFolder | SocketUnusable) -> str:
    """Return why `listen` has failed, in words."""
    return (isinstance(error, OSError) and error.strerror) or str(error)


def _file_at(path: str) -> tuple[int, int] | None:
    if not path.startswith("/"):  # an abstract name (unix(7)), or none
        return None
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


class Sockets:
    """What a daemon listens on, and where it listens instead when a socket's file or folder has been removed.

    Args:
        listeners: Those of the start; none before `listen_first`.
        paths: Where clients look for the daemon; the first one is what the lock names.
        spare_path: Where to listen while there can be no socket at the first of them.

    Attributes:
        obstacle: Why there is no socket at the first path, if there is none.
    """

    def __init__(self, listeners: list[Listener], paths: list[str], spare_path: str) -> None:
        self.listeners = listeners
        self._paths = paths
        self._spare_path = spare_path
        self.obstacle = ""

    @property
    def path(self) -> str:
        """Where clients reach the daemon: the first path, or the spare one."""
        reachable = [listener.path for listener in self.listeners if listener.is_reachable()]
        return reachable[0] if reachable else self._paths[0]

    def listen_first(self, *, may_move: bool) -> None:
        """Listen at the first path.

        Args:
            may_move: Whether to listen at the spare path where there can be no socket: not where it was chosen.

        Raises:
            SocketTaken, UnsafeFolder: The first path is in use, or its folder is not ours alone.
            SocketUnusable, OSError: It cannot listen, nor at the spare path where it may.
        """
        path = self._paths[0]
        if may_move and path != self._spare_path:
            self.listeners = self._listen_or_move(path, is_start=True)
        else:
            self.listeners = [listen(path)]

    def _listen_or_move(self, path: str, *, is_start: bool = False) -> list[Listener]:
        """Return the new listener at a path, or that at the spare one; none where that serves already."""
        try:
            return [listen(path)]
        except (OSError, UnsafeFolder, SocketUnusable) as error:
            # A folder that is unsafe is refused while there is somebody to read why.
            if is_start and isinstance(error, (SocketTaken, UnsafeFolder)):
                raise
            self.obstacle = _reason(error)
        moves = path == self._paths[0] and path != self._spare_path and not self._is_reached(self._spare_path)
        return [listen(self._spare_path)] if moves else []

    def listen_again(self) -> tuple[list[Listener], list[Listener]]:
        """Listen again at each path that no client can reach any more, and put modes right that keep clients out.

        A socket that was handed over stays open beside the new one: its supervisor still holds it, and may hand it to
        the next daemon.

        Returns:
            The listeners that are new, and those that have been given up, which the caller closes.

        Raises:
            SocketUnusable, UnsafeFolder, OSError: Nor can it listen at the spare path.
        """
        for listener in self.listeners:
            if listener.is_ours and listener.file is not None and listener.is_reachable():
                with contextlib.suppress(OSError):  # not to be changed: clients say that they may not use it
                    set_mode(listener.path, PRIVATE_FILE)  # connect(2) needs to write
        added: list[Listener] = []
        for path in self._paths:
            if not self._is_reached(path):
                added += self._listen_or_move(path)
        served = {listener.path for listener in (*self.listeners, *added) if listener.is_reachable()}
        # The spare one is closed once the first path is there again; connections stay.
        given_up = [
            listener
            for listener in self.listeners
            if listener.is_ours
            and (not listener.is_reachable() or (listener.path not in self._paths and self._paths[0] in served))
        ]
        kept = [listener for listener in self.listeners if listener not in given_up]
        # The spare one comes last: `path` returns the first that is reachable.
        self.listeners = sorted([*kept, *added], key=lambda listener: listener.path not in self._paths)
        return added, given_up

    def _is_reached(self, path: str) -> bool:
        return any(listener.path == path and listener.is_reachable() for listener in self.listeners)

    def warnings(self, supervisor: str) -> list[str]:
        """Return what is wrong with the sockets, in sentences with their remedy.

        Args:
            supervisor: Who handed sockets over: "systemd", "launchd" or "none".
        """
        remedy = _REMEDIES.get(supervisor, "restart the program that handed it over")
        found = [
            f"The socket {path_text(listener.path)} that was handed over has been deleted; orbitd listens beside it "
            f"itself. To have it back: {remedy}"
            for listener in self.listeners
            if not listener.is_ours and not listener.is_reachable()
        ]
        if not self._is_reached(self._paths[0]):
            found.append(
                f"There can be no socket at {path_text(self._paths[0])} ({self.obstacle}); orbitd listens at "
                f"{path_text(self.path)}, where orbitctl finds it. It moves back when that folder is there, yours and "
                "with mode 0700"
            )
        return found


_REMEDIES = {
    "systemd": "`systemctl --user restart orbitd.socket orbitd.service`",
    "launchd": "`orbitctl service uninstall`, then `orbitctl service install`",
}


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
        return Listener(listening, path, _file_at(path))
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
    # Clients see the process that called listen(2) last as their peer (unix(7), SO_PEERCRED), and the lock's note
    # names this one.
    inherited.listen(BACKLOG)
    path = os.fsdecode(inherited.getsockname())
    return Listener(inherited, path, _file_at(path), is_ours=False)


def _remove_stale(path: str) -> None:
    """Remove a socket file that no process listens on; refuse to remove anything else. Raises: SocketUnusable."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise SocketTaken(f"{path} is in the way and no socket; move it, or configure another socket_path")
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
            raise SocketTaken(f"somebody serves {path} already, for another database; configure another socket_path")
