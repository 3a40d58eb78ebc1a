"""The keeper's loop: which programs are held, which have ended, and which orbitd is served.

The rules of this room: one thread; no disk; no wait but the one `poll`; a master is never
read or written here, only held and handed out; no request, peer or program may end the
keeper. It ends by itself once every exit has been acknowledged and nobody is connected.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import time

from orbit_os.sockets import peer_uid
from orbitd.keeper import spawn
from orbitd.keeper.connection import Connection
from orbitd.keeper.messages import VERSION, encode
from orbitd.keeper.program import Program

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from orbitd.keeper.messages import Message, Value

    Fields = tuple[tuple[str, Value], ...]

CONNECTIONS = 8
"""Open at once, the active orbitd's included; beyond, the eldest idle one goes."""

FIRST_HELLO_MS = 60_000
"""How long a keeper that no orbitd ever spoke to stays."""

MAX_PROGRAMS = 4096
"""Kept at once, if there are files for so many; bounds the answer to `list`."""

MAX_ID = 100
"""Characters of a program's id; bounds the same."""

SPARE_FILES = 32
"""Descriptors kept free for connections and spawns under way, so that accept(2) always has one."""


class Refused(Exception):
    """The request cannot be carried out; becomes an `error` answer."""

    def __init__(self, reason: str, words: str, *fields: tuple[str, Value]) -> None:
        super().__init__(words)
        self.fields: Fields = (("reason", reason), ("words", words), *fields)


class Keeper:
    """Everything that is kept, and the loop around it."""

    def __init__(self, listener: socket.socket) -> None:
        self.programs: dict[str, Program] = {}
        self.connections: list[Connection] = []
        self.active: Connection | None = None
        self.listener = listener
        self.started_at = time.time()
        self.served = False
        self.limit = min(spawn.raise_files_limit() - SPARE_FILES, MAX_PROGRAMS)
        self.handlers: dict[int, Callable[[int], None]] = {}
        self.poll = select.poll()
        self.wakeup, alarm = os.pipe()
        os.set_blocking(self.wakeup, False)
        os.set_blocking(alarm, False)
        signal.set_wakeup_fd(alarm, warn_on_full_buffer=False)
        self._watch(self.wakeup, self._reap)
        self._watch(listener.fileno(), self._accept)

    def run(self) -> None:
        """Serve until nothing is left to keep."""
        while events := self.poll.poll(None if self.served else FIRST_HELLO_MS):
            for descriptor, event in events:
                if handler := self.handlers.get(descriptor):  # else closed by an earlier event of this round
                    handler(event)
            kept = any(not program.acknowledged for program in self.programs.values())
            if self.served and not self.connections and not kept:
                return

    def _watch(self, descriptor: int, handler: Callable[[int], None]) -> None:
        self.handlers[descriptor] = handler
        self.poll.register(descriptor, select.POLLIN)

    def _unwatch(self, descriptor: int) -> None:
        del self.handlers[descriptor]
        self.poll.unregister(descriptor)

    # Connections

    def _accept(self, event: int) -> None:
        try:
            sock, _ = self.listener.accept()
            uid = peer_uid(sock)
        except OSError:
            return  # the peer has given up already
        if uid != os.geteuid():
            sock.close()
            return
        if len(self.connections) >= CONNECTIONS:
            self._drop(next(one for one in self.connections if one is not self.active))
        connection = Connection(sock)
        self.connections.append(connection)
        self._watch(connection.descriptor, lambda event: self._serve(connection, event))

    def _serve(self, connection: Connection, event: int) -> None:
        if event & select.POLLOUT:
            self._send(connection)
        if not event & ~select.POLLOUT or connection not in self.connections:
            return
        try:
            for message in connection.receive():
                if connection in self.connections:  # else dropped while the one before was answered
                    self._answer(connection, message)
        except (OSError, ValueError):  # gone, or not speaking this protocol
            self._drop(connection)

    def _send(self, connection: Connection, data: bytes = b"", master: int = -1) -> None:
        if connection not in self.connections:
            return  # whoever asked is gone; the next one will ask for the list
        if data:
            connection.queue(data, master)
        try:
            unsent = connection.flush()
        except (OSError, BufferError):
            self._drop(connection)
        else:
            self.poll.modify(connection.descriptor, select.POLLIN | (select.POLLOUT if unsent else 0))

    def _drop(self, connection: Connection) -> None:
        if connection in self.connections:
            self.connections.remove(connection)
            self._unwatch(connection.descriptor)
            connection.close()
        if self.active is connection:
            self.active = None

    # Requests

    def _answer(self, connection: Connection, message: Message) -> None:
        seq = message.text("seq", "0")
        try:
            handler = REQUESTS.get(message.kind)
            if handler is None:
                raise Refused("unknown_request", f"no request {message.kind}")
            if connection is not self.active and message.kind != "hello":
                raise Refused("not_active", "say hello first")
            handler(self, message, connection, seq)
        except Refused as exc:
            self._send(connection, encode("error", ("seq", seq), *exc.fields))
        except Exception as exc:  # noqa: BLE001 - whatever is wrong with one request must not end the programs
            refused = Refused("bad_request", repr(exc))
            self._send(connection, encode("error", ("seq", seq), *refused.fields))

    def _ok(self, connection: Connection, seq: str, *fields: tuple[str, Value], master: int = -1) -> None:
        carried: Fields = (("fds", 1),) if master >= 0 else ()
        self._send(connection, encode("ok", ("seq", seq), *fields, *carried), master)

    def _find(self, message: Message) -> Program:
        program = self.programs.get(message.text("id"))
        if program is None:
            raise Refused("unknown_id", f"no program {message.text('id')}")
        return program

    def hello(self, message: Message, connection: Connection, seq: str) -> None:
        """Serve this orbitd from now on; the one before is presumably dead."""
        elder = self.active
        if elder is not None and elder is not connection:
            self._send(elder, encode("superseded"))
            self._drop(elder)
        self.active = connection
        self.served = True
        self._ok(connection, seq, ("version", VERSION), ("pid", os.getpid()), ("started_at", self.started_at))

    def spawn(self, message: Message, connection: Connection, seq: str) -> None:
        """Start a program; the answer follows when the child has told how execve went."""
        name = message.text("id")
        if not 0 < len(name) <= MAX_ID:
            raise Refused("bad_request", f"an id has 1 to {MAX_ID} characters")
        if name in self.programs:
            raise Refused("exists", f"program {name} is there already")
        try:
            if len(self.programs) >= self.limit:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            started = spawn.start(message)
        except OSError as exc:
            raise _spawn_failed(exc.errno or errno.EIO, "a terminal for it") from exc
        program = Program(name, started, (connection, seq))
        self.programs[name] = program
        self._watch(program.report, lambda event: self._hear(program))

    def _hear(self, program: Program) -> None:
        if program.hear():
            self._unwatch(program.report)
            self._tell_spawned(program, program.report_ended())

    def _tell_spawned(self, program: Program, told: dict[bytes, bytes]) -> None:
        connection, seq = program.asked_by
        if b"errno" not in told:
            self._ok(connection, seq, ("pid", program.pid), ("cwd", told.get(b"cwd", b"")), master=program.master)
            return
        self._remove(program)
        refused = _spawn_failed(int(told[b"errno"]), os.fsdecode(told.get(b"path", b"")))
        self._send(connection, encode("error", ("seq", seq), *refused.fields))

    def list_programs(self, message: Message, connection: Connection, seq: str) -> None:
        """Tell of every program that is not forgotten."""
        told = (encode("program", ("seq", seq), *program.fields()) for program in self.programs.values())
        self._send(connection, b"".join(told))
        self._ok(connection, seq)

    def take(self, message: Message, connection: Connection, seq: str) -> None:
        """Hand out a program's master."""
        self._ok(connection, seq, master=self._find(message).master)

    def signal(self, message: Message, connection: Connection, seq: str) -> None:
        """Send a signal to a program that has not ended."""
        program, target = self._find(message), message.text("target")
        if program.ended:
            raise Refused("ended", f"program {program.id} has ended")
        try:
            program.signal(target, message.number("signal"))
        except ProcessLookupError as exc:
            raise Refused("ended", f"program {program.id} has no {target} to signal") from exc
        except OSError as exc:
            raise Refused("failed", f"program {program.id}: {exc.strerror}") from exc
        self._ok(connection, seq)

    def ack_exit(self, message: Message, connection: Connection, seq: str) -> None:
        """Note that orbitd has stored how a program ended."""
        self._find_ended(message).acknowledged = True
        self._ok(connection, seq)

    def forget(self, message: Message, connection: Connection, seq: str) -> None:
        """Close the master of a program that has ended, and what was left to read with it."""
        self._remove(self._find_ended(message))
        self._ok(connection, seq)

    def _find_ended(self, message: Message) -> Program:
        program = self._find(message)
        if not program.ended:
            raise Refused("running", f"program {program.id} is running")
        return program

    def _remove(self, program: Program) -> None:
        del self.programs[program.id]
        os.close(program.master)

    # Exits

    def _reap(self, event: int) -> None:
        """Note who has ended, and tell the active orbitd."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.wakeup, 65536)
        with contextlib.suppress(ChildProcessError):  # no child is left
            while (reaped := os.waitpid(-1, os.WNOHANG))[0]:
                for program in [one for one in self.programs.values() if one.pid == reaped[0] and not one.ended]:
                    self._end(program, reaped[1])

    def _end(self, program: Program, status: int) -> None:
        if program.report >= 0:
            self._hear(program)  # its other end is closed by now; the answer to the spawn goes out before the exit
        program.end(status)
        if self.active is not None and program.id in self.programs:
            self._send(self.active, encode("exited", *program.fields()))


def _spawn_failed(number: int, path: str) -> Refused:
    words = f"{path}: {os.strerror(number)}"
    return Refused("spawn_failed", words, ("errno", number), ("path", path))


REQUESTS: dict[str, Callable[[Keeper, Message, Connection, str], None]] = {
    "hello": Keeper.hello,
    "spawn": Keeper.spawn,
    "list": Keeper.list_programs,
    "take": Keeper.take,
    "signal": Keeper.signal,
    "ack_exit": Keeper.ack_exit,
    "forget": Keeper.forget,
}
