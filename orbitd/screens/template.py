"""The template: a process that has loaded libghostty, and is forked for each screens process and each search.

Starting Python and loading the library takes 50 ms and 9 MB; a fork takes milliseconds, and shares that memory. The
template itself draws nothing that a program has printed, so that it cannot be harmed; it has no threads, and opens no
database, so that it may be forked. It ends with orbitd, and ends its forks first: one that hangs in the library does
not see that its own socket has been closed.
"""

from __future__ import annotations

import gc
import os
import resource
import select
import signal
import socket
import sys
from contextlib import suppress
from typing import NoReturn

import msgspec

from orbit_os.python import name_process
from orbitd.history import search_child
from orbitd.keeper.frames import Framer, Malformed, receive
from orbitd.screens import process
from orbitd.screens.emulator import Emulator, prepare, unavailable_reason
from orbitd.screens.messages import MAX_FRAME, Exited, Fork, Forked, Hello, encode

_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE)
_SOFTWARE_ERROR = 70  # EX_SOFTWARE of sysexits(3)

_decoder = msgspec.msgpack.Decoder(Fork)


class Template:
    """The loop of the template.

    Args:
        sock: To orbitd, blocking: messages to it are a few bytes, and without orbitd there is nothing to do.
        unavailable: Why there is no terminal emulation, or "".
    """

    def __init__(self, sock: socket.socket, unavailable: str) -> None:
        self._sock, self._unavailable = sock, unavailable
        self._framer = Framer(MAX_FRAME)
        self._descriptors: list[int] = []
        self._numbers: dict[int, int] = {}  # of orbitd's, by the pid
        self._woken, self._wake = os.pipe()
        for fd in (self._woken, self._wake):
            os.set_blocking(fd, False)

    def run(self) -> None:
        """Fork until orbitd closes the socket, then end all forks. Raises: Malformed, OSError."""
        # Python writes a byte into this pipe for each signal that has a handler; the handler itself does nothing.
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        try:
            self._sock.sendall(encode(Hello(pid=os.getpid(), unavailable=self._unavailable)))
            poll = select.poll()
            poll.register(self._sock, select.POLLIN)
            poll.register(self._woken, select.POLLIN)
            while True:
                ready = {fd for fd, _ in poll.poll()}
                if self._woken in ready:
                    self._reap()
                if self._sock.fileno() in ready and not self._receive():
                    return
        finally:
            for pid in self._numbers:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def _receive(self) -> bool:
        """Handle what has come. Return False at the end of the socket. Raises: Malformed, OSError."""
        data, descriptors = receive(self._sock)
        self._descriptors += descriptors
        for payload in self._framer.receive(data):
            try:
                message = _decoder.decode(payload)
            except msgspec.DecodeError as exc:
                raise Malformed(str(exc)) from exc
            if len(self._descriptors) < message.descriptors:
                raise Malformed("a fork without its descriptors")
            given = self._descriptors[: message.descriptors]
            del self._descriptors[: message.descriptors]
            self._fork(message, given)
        return bool(data)

    def _fork(self, message: Fork, descriptors: list[int]) -> None:
        pid, reason = 0, self._unavailable if message.kind == "screens" else ""
        if not reason:
            try:
                pid = os.fork()
            except OSError as exc:
                reason = exc.strerror or str(exc)
            else:
                if pid == 0:
                    _become(message, descriptors)
                self._numbers[pid] = message.number
        for fd in descriptors:
            os.close(fd)
        self._sock.sendall(encode(Forked(number=message.number, pid=pid, reason=reason)))

    def _reap(self) -> None:
        """Report the forks that have ended."""
        with suppress(BlockingIOError):
            while os.read(self._woken, 512):
                pass
        while self._numbers:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            number = self._numbers.pop(pid)
            self._sock.sendall(encode(Exited(number=number, status=os.waitstatus_to_exitcode(status))))


def _become(message: Fork, descriptors: list[int]) -> NoReturn:
    """Be what was asked for in this fork, and end it. Nothing of the template's stack is returned to."""
    code = _SOFTWARE_ERROR
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        # The template's end of its socket too: orbitd must see when the template is gone.
        _close_all_but({0, 1, 2, *descriptors})
        if message.kind == "search":
            name_process("orbit-search")
            search_child.serve(descriptors[0])
        else:
            process.serve(*descriptors)
        code = 0
    finally:
        os._exit(code)


def _close_all_but(kept: set[int]) -> None:
    try:
        found = {int(name) for name in os.listdir("/dev/fd")}
    except OSError:  # a chroot without /proc
        found = set(range(os.sysconf("SC_OPEN_MAX")))
    for fd in found - kept:
        with suppress(OSError):  # the listing's own is closed already
            os.close(fd)


def _leave_parent(sock_fd: int) -> None:
    """Depend on nothing of orbitd's but the socket."""
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    with suppress(PermissionError):  # it leads a session already
        os.setsid()
    os.chdir("/")
    os.umask(0o077)
    # What a program has printed does not belong into a core dump.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):  # stderr too: a panic of the library could block on it, or fill the log
        os.dup2(null, fd)
    _close_all_but({0, 1, 2, sock_fd})
    os.set_inheritable(sock_fd, False)
    name_process("orbit-screens")


def warm_up() -> None:
    """Use what every picture uses, so that what is made at a first use is made once, in memory that forks share."""
    with Emulator(2, 2) as emulator:
        state = emulator.encode()
        emulator.repaint(1, state=state)
        emulator.screen("text")
        emulator.screen("html")
        Emulator.decode(state).close()


def load() -> str:
    """Load the library and use it once; return why that is not possible, or ""."""
    try:
        if reason := unavailable_reason():
            return reason
        warm_up()
    except Exception as exc:  # noqa: BLE001 - of a version with another interface, say: orbitd must hear why
        return f"libghostty-vt does not work here ({exc!r})"
    return ""


def main() -> None:
    """Be the template; the argument is the descriptor of its socket."""
    sock_fd = int(sys.argv[1])
    _leave_parent(sock_fd)
    prepare()
    unavailable = load()
    gc.collect()
    gc.freeze()  # a collection in a fork would write to the shared pages of all objects
    Template(socket.socket(fileno=sock_fd), unavailable).run()


if __name__ == "__main__":
    main()
