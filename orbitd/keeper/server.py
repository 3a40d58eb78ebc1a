"""The keeper's poll loop: connections of orbitds, their requests, and programs that end.

The rules in here: one thread; no file but those that name it; no wait but the one `poll`; a master is held and
handed out, never read or written; no request, peer or program may end the keeper. It ends
by itself once every exit has been acknowledged and no orbitd is connected; or once no program
runs and no orbitd can find it any more, as after its home was deleted. A program that runs is never
ended for that.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import math
import os
import select
import signal
import socket
import sys
import time

from orbit_os.sockets import peer_uid
from orbitd.keeper.messages import LANDING_BYTES, MAX_MEMORIES, VERSION, Framer, encode
from orbitd.keeper.program import Program, raise_open_files_limit, start_program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from orbitd.keeper.messages import Fields, Message, Value
    from orbitd.keeper.place import Place

MAX_CONNECTIONS = 8
"""Open at once, the active orbitd's included; beyond, the oldest idle one is closed."""

HELLO_TIMEOUT_MS = 60_000
"""How long a keeper stays that has never received a hello."""

FIRST_LOOK_MS, MAX_LOOK_MS = 5_000, 60_000
"""How often a keeper looks whether it can still be found, while no program runs and an orbitd is to ask how they ended:
seldomer each time."""

MAX_PROGRAMS = 4096
"""Programs held at once, if there are descriptors for so many; bounds the answer to `list`."""

MAX_ID = 100
"""Characters of a program's id; bounds the answer to `list` too."""

SPARE_FILES = 32
"""Descriptors kept free for connections and starting programs, so that accept(2) always has one."""

ACCEPT_RETRY_MS = 1_000
"""When accept(2) is tried again that found none all the same: the limit was lowered, or the system has none left."""

MAX_UNSENT = 1024 * 1024
"""Bytes that may wait for a peer; a waiting descriptor counts as `DESCRIPTOR_WEIGHT` of them."""

DESCRIPTOR_WEIGHT = 4096

_READ = 65536


class Connection:
    """A non-blocking connection to one orbitd, with its queue of unsent frames and descriptors.

    The keeper closes the connection on any OSError, BufferError or ValueError from here.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._framer = Framer()
        self._unsent: list[tuple[bytes, int]] = []
        self.descriptor = sock.fileno()

    def receive(self) -> Iterator[Message]:
        """Read once and yield the messages that are complete.

        Raises:
            OSError: The peer is gone.
            Malformed: It does not speak this protocol.
        """
        try:
            # recv, not recvmsg: without a control buffer the kernel closes any descriptor that a
            # peer sends (unix(7)).
            data = self._sock.recv(_READ)
        except BlockingIOError:
            return iter(())
        if not data:
            raise ConnectionResetError
        return self._framer.receive(data)

    def queue(self, data: bytes, descriptor: int = -1) -> None:
        """Queue a frame, with a descriptor that travels with its first byte.

        The descriptor is duplicated: the program may be forgotten, and its master closed,
        before the peer has read this frame.

        Raises:
            OSError: There is no descriptor left; nothing is queued.
        """
        self._unsent.append((data, os.dup(descriptor) if descriptor >= 0 else -1))

    def flush(self) -> bool:
        """Send what the socket takes now.

        Returns:
            Whether something is left.

        Raises:
            OSError: The peer is gone.
            BufferError: It does not read, and more than `MAX_UNSENT` waits for it.
        """
        while self._unsent:
            data, descriptor = self._unsent[0]
            rights = []
            if descriptor >= 0:
                rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptor.to_bytes(4, sys.byteorder))]
            try:
                sent = self._sock.sendmsg([data], rights)
            except BlockingIOError:
                break
            # The descriptor went out with the first byte, however much of the frame was taken: the
            # kernel holds a reference of its own for the receiver. The rest is sent without it.
            if descriptor >= 0:
                os.close(descriptor)
            self._unsent[:1] = [(data[sent:], -1)] if sent < len(data) else []
        if sum(len(data) + DESCRIPTOR_WEIGHT * (descriptor >= 0) for data, descriptor in self._unsent) > MAX_UNSENT:
            raise BufferError
        return bool(self._unsent)

    def close(self) -> None:
        """Close the socket and the descriptors that were not sent."""
        for _, descriptor in self._unsent:
            if descriptor >= 0:
                os.close(descriptor)
        self._unsent.clear()
        self._sock.close()


class RequestError(Exception):
    """A request cannot be carried out; sent as an `error` answer."""

    def __init__(self, reason: str, words: str, *fields: tuple[str, Value]) -> None:
        super().__init__(words)
        self.fields: Fields = (("reason", reason), ("words", words), *fields)


class Keeper:
    """The programs, the connections, and the loop that serves them.

    Args:
        place: Where it listens.
    """

    def __init__(self, place: Place) -> None:
        self.programs: dict[str, Program] = {}
        self.connections: list[Connection] = []
        self.active: Connection | None = None
        self.place = place
        self.listener = place.listener
        self.accepts = True
        self.look_ms = FIRST_LOOK_MS
        self.started_at = time.time()
        self.unmet_until = time.monotonic() + HELLO_TIMEOUT_MS / 1000
        self.received_hello = False
        self.max_files = raise_open_files_limit() - SPARE_FILES
        self.max_programs = min(self.max_files, MAX_PROGRAMS)
        self.landing_buffer = -1
        self.memories: dict[str, dict[str, int]] = {}  # of an id, by their names
        self.spawning: dict[str, tuple[Connection, str]] = {}  # who waits for the answer, and its seq
        self.handlers: dict[int, Callable[[int], None]] = {}
        self.poll = select.poll()
        # The self-pipe trick. A signal handler may call little (signal-safety(7)), so the
        # interpreter's C handler writes one byte here, and the loop does the work. Both ends are
        # non-blocking; where the pipe is full the loop is about to run anyway.
        self.wakeup, wakeup_write = os.pipe()
        os.set_blocking(self.wakeup, False)
        os.set_blocking(wakeup_write, False)
        signal.set_wakeup_fd(wakeup_write, warn_on_full_buffer=False)
        self._watch(self.wakeup, self._handle_signals)
        self._watch(self.listener.fileno(), self._accept)

    def run(self) -> None:
        """Serve until there is nothing left to keep."""
        while not self._is_done(timed_out=False):
            events = self.poll.poll(self._timeout())
            if not self.accepts:
                self.accepts = True
                self._watch(self.listener.fileno(), self._accept)
            if not events and self._is_done(timed_out=True):
                return
            for descriptor, event in events:
                # An earlier event of this round may have closed the descriptor, or closed it and opened
                # another one of the same number. The handler of that is then called for nothing; all
                # reads are non-blocking, so it reads nothing.
                if handler := self.handlers.get(descriptor):
                    handler(event)

    def _timeout(self) -> int | None:
        """Return for how many milliseconds to wait for events; None for as long as it takes."""
        if not self.accepts:
            return ACCEPT_RETRY_MS
        if not self.received_hello:
            return max(0, math.ceil(1000 * (self.unmet_until - time.monotonic())))
        return self.look_ms if self._only_reports() else None

    def _is_done(self, *, timed_out: bool) -> bool:
        """Return whether there is nothing left to keep, or nobody can ask for it any more."""
        if not self.received_hello:
            return timed_out and time.monotonic() >= self.unmet_until
        if not timed_out or not self._only_reports():
            return not self.connections and all(program.acknowledged for program in self.programs.values())
        self.look_ms = min(2 * self.look_ms, MAX_LOOK_MS)
        return self._look_after_socket() is False  # else its exits wait for who may still come

    def _only_reports(self) -> bool:
        """Return whether no program runs, and no orbitd is connected that could ask how they ended."""
        return not self.connections and all(program.exit_fields for program in self.programs.values())

    def _look_after_socket(self) -> bool | None:
        """Bind the socket again if its path does not lead here any more; return as `Place.look_after` does."""
        is_found = self.place.look_after()
        if self.place.listener is not self.listener:
            if self.accepts:
                self._unwatch(self.listener.fileno())
            self.listener.close()
            self.listener, self.accepts = self.place.listener, True
            self._watch(self.listener.fileno(), self._accept)
        return is_found

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
        except OSError as exc:
            # The peer waits in the backlog, and poll(2) would return at once, again and again.
            if exc.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                self.accepts = False
                self._unwatch(self.listener.fileno())
            return  # else the peer has closed its end already
        try:
            is_foreign = peer_uid(sock) != os.geteuid()
        except OSError:
            is_foreign = True  # it has gone
        if is_foreign:
            sock.close()
            return
        # An orbitd that hangs, or a peer that never says hello, must not keep the next one out.
        if len(self.connections) >= MAX_CONNECTIONS:
            self._drop(next(each for each in self.connections if each is not self.active))
        connection = Connection(sock)
        self.connections.append(connection)
        self._watch(connection.descriptor, lambda event: self._serve(connection, event))

    def _serve(self, connection: Connection, event: int) -> None:
        if event & select.POLLOUT:
            self._send(connection)
        # POLLHUP and POLLERR come unasked for (poll(2)); reading then returns the last messages
        # first, and the end of file or the error after them.
        if not event & ~select.POLLOUT or connection not in self.connections:
            return
        try:
            for message in connection.receive():
                if connection in self.connections:  # else dropped while the message before was answered
                    self._handle(connection, message)
        except (OSError, ValueError):  # gone, or not speaking this protocol
            self._drop(connection)

    def _send(self, connection: Connection, data: bytes = b"", descriptor: int = -1) -> None:
        if connection not in self.connections:
            return  # gone before its answer; the next orbitd asks for the list
        if data:
            connection.queue(data, descriptor)  # OSError is the caller's: nothing was queued
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

    def _handle(self, connection: Connection, message: Message) -> None:
        seq = message.text("seq", "0")
        try:
            handler = HANDLERS.get(message.kind)
            if handler is None:
                raise RequestError("unknown_request", f"no request {message.kind}")
            if connection is not self.active and message.kind != "hello":
                raise RequestError("not_active", "say hello first")
            handler(self, message, connection, seq)
        except RequestError as exc:
            self._send(connection, encode("error", ("seq", seq), *exc.fields))
        except OSError as exc:  # no descriptor is left for the answer's own
            failed = RequestError("failed", exc.strerror or repr(exc), ("errno", exc.errno or errno.EIO))
            self._send(connection, encode("error", ("seq", seq), *failed.fields))
        except Exception as exc:  # noqa: BLE001 - a fault in one request must not end the programs
            error = RequestError("bad_request", repr(exc))
            self._send(connection, encode("error", ("seq", seq), *error.fields))

    def _send_ok(self, connection: Connection, seq: str, *fields: tuple[str, Value], descriptor: int = -1) -> None:
        with_descriptor: Fields = (("fds", 1),) if descriptor >= 0 else ()
        self._send(connection, encode("ok", ("seq", seq), *fields, *with_descriptor), descriptor)

    def _find(self, message: Message) -> Program:
        program = self.programs.get(message.text("id"))
        if program is None:
            raise RequestError("unknown_id", f"no program {message.text('id')}")
        return program

    def _find_exited(self, message: Message) -> Program:
        program = self._find(message)
        if not program.exit_fields:
            raise RequestError("running", f"program {program.id} is running")
        return program

    def hello(self, message: Message, connection: Connection, seq: str) -> None:
        """Make this connection the active one; another one is superseded: its orbitd has been replaced, or is dead."""
        previous = self.active
        if previous is not None and previous is not connection:
            self._send(previous, encode("superseded"))
            self._drop(previous)
        self.active = connection
        self.received_hello = True
        for name in self.memories.keys() - self.programs.keys():  # of starts that an orbitd before this did not finish
            self._drop_memories(name)
        self.look_ms = FIRST_LOOK_MS
        self.place.follow(message.text("path", ""))
        about = (("version", VERSION), ("pid", os.getpid()), ("started_at", self.started_at), ("folders", 1))
        self._send_ok(connection, seq, *about)

    def spawn(self, message: Message, connection: Connection, seq: str) -> None:
        """Start a program; the answer is sent when the child's status pipe is at its end."""
        name = message.text("id")
        if not 0 < len(name) <= MAX_ID:
            raise RequestError("bad_request", f"an id has 1 to {MAX_ID} characters")
        if name in self.programs:
            raise RequestError("exists", f"program {name} is there already")
        try:
            # One that starts takes two more until it is executed.
            taken = len(self.programs) + 2 * len(self.spawning)
            if taken >= self.max_programs or taken + self._memory_count() >= self.max_files:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            started = start_program(message)
        except OSError as exc:
            raise _spawn_failed(exc.errno or errno.EIO, "a terminal for it") from exc
        program = self.programs[name] = Program(name, started)
        self.spawning[name] = (connection, seq)
        self._watch(program.status_pipe, lambda event: self._finish_spawn(program))

    def _finish_spawn(self, program: Program) -> None:
        if not program.read_status_pipe():
            return
        self._unwatch(program.status_pipe)
        status = program.close_status_pipe()
        connection, seq = self.spawning.pop(program.id)
        if b"errno" not in status:
            cwd = status.get(b"cwd", b"")
            try:
                self._send_ok(connection, seq, ("pid", program.pid), ("cwd", cwd), descriptor=program.master)
            except OSError as exc:  # no descriptor is left; nobody would have its terminal
                if not program.exit_fields:  # else its pid may be another's
                    with contextlib.suppress(OSError):
                        os.killpg(program.pid, signal.SIGKILL)
                error = _spawn_failed(exc.errno or errno.EIO, "a terminal for it")
            else:
                return
        else:
            error = _spawn_failed(int(status[b"errno"]), os.fsdecode(status.get(b"path", b"")))
            if b"no_cwd" in status:
                error.fields = (*error.fields, ("cwd", status[b"no_cwd"]))
        self._remove(program)  # its child has exited or is about to; `_reap` finds no program for that pid
        self._send(connection, encode("error", ("seq", seq), *error.fields))

    def list_programs(self, message: Message, connection: Connection, seq: str) -> None:
        """Send one `program` for each program that is not forgotten, then ok."""
        listed = (encode("program", ("seq", seq), *self._fields(program)) for program in self.programs.values())
        self._send(connection, b"".join(listed))
        self._send_ok(connection, seq)

    def _fields(self, program: Program) -> Fields:
        return (*program.fields(), ("memory", 1)) if program.id in self.memories else program.fields()

    def take(self, message: Message, connection: Connection, seq: str) -> None:
        """Send a descriptor of a program's master."""
        self._send_ok(connection, seq, descriptor=self._find(message).master)

    def signal(self, message: Message, connection: Connection, seq: str) -> None:
        """Send a signal to a program that has not ended."""
        program, target = self._find(message), message.text("target")
        if program.exit_fields:
            raise RequestError("ended", f"program {program.id} has ended")
        try:
            program.send_signal(target, message.number("signal"))
        except ProcessLookupError as exc:
            raise RequestError("ended", f"program {program.id} has no {target} to signal") from exc
        except OSError as exc:
            raise RequestError("failed", f"program {program.id}: {exc.strerror}") from exc
        self._send_ok(connection, seq)

    def ack_exit(self, message: Message, connection: Connection, seq: str) -> None:
        """Record that orbitd has stored how a program ended."""
        self._find_exited(message).acknowledged = True
        self._send_ok(connection, seq)

    def forget(self, message: Message, connection: Connection, seq: str) -> None:
        """Forget a program that has ended, and close its master with what was not read from it."""
        self._remove(self._find_exited(message))
        self._send_ok(connection, seq)

    def landing(self, message: Message, connection: Connection, seq: str) -> None:
        """Send a descriptor of the landing buffer, which is made when it is first asked for."""
        if self.landing_buffer < 0:
            try:
                self.landing_buffer = _create_landing_buffer()
            except (OSError, AttributeError) as exc:  # AttributeError: macOS has no memfd_create
                raise RequestError("unsupported", f"a landing buffer: {exc}") from exc
        self._send_ok(connection, seq, descriptor=self.landing_buffer)

    def memory(self, message: Message, connection: Connection, seq: str) -> None:
        """Send a descriptor of a memory of an id, which is made when it is first asked for."""
        name, memory = message.text("id"), message.text("name")
        if not (0 < len(name) <= MAX_ID and 0 < len(memory) <= MAX_ID):
            raise RequestError("bad_request", f"an id and a name have 1 to {MAX_ID} characters")
        found = self.memories.get(name, {}).get(memory)
        if found is None:
            found = self._create_memory(name, memory)
        self._send_ok(connection, seq, descriptor=found)

    def _create_memory(self, name: str, memory: str) -> int:
        if len(self.memories.get(name, ())) >= MAX_MEMORIES:
            raise RequestError("bad_request", f"{name} has {MAX_MEMORIES} memories already")
        if len(self.programs) + 2 * len(self.spawning) + self._memory_count() >= self.max_files:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        try:
            found = os.memfd_create("orbit-memory", os.MFD_CLOEXEC)
        except (OSError, AttributeError) as exc:  # AttributeError: macOS has no memfd_create
            raise RequestError("unsupported", f"memory: {exc}") from exc
        self.memories.setdefault(name, {})[memory] = found
        return found

    def _memory_count(self) -> int:
        return sum(len(each) for each in self.memories.values())

    def _drop_memories(self, name: str) -> None:
        for descriptor in self.memories.pop(name, {}).values():
            os.close(descriptor)

    def _remove(self, program: Program) -> None:
        del self.programs[program.id]
        os.close(program.master)
        self._drop_memories(program.id)

    def bind(self, message: Message, connection: Connection, seq: str) -> None:
        """Bind the socket again where its path does not lead here any more."""
        if not self._look_after_socket():
            raise RequestError("failed", f"{self.place.path} cannot be bound")
        self._send_ok(connection, seq)

    # Signals

    def _handle_signals(self, event: int) -> None:
        received = b""
        with contextlib.suppress(BlockingIOError):
            received = os.read(self.wakeup, 65536)  # the number of each
        if signal.SIGHUP in received:
            self._look_after_socket()
        self._reap()

    def _reap(self) -> None:
        """Collect every child that has ended."""
        # Pending signals of one kind are merged (signal(7)): one SIGCHLD may stand for many exits.
        with contextlib.suppress(ChildProcessError):  # no child is left
            while (reaped := os.waitpid(-1, os.WNOHANG))[0]:
                pid, wait_status = reaped
                # Programs that have ended are passed over: the kernel may have given their pid to this one.
                for program in [each for each in self.programs.values() if each.pid == pid and not each.exit_fields]:
                    program.set_exited(wait_status)
                    if program.id in self.spawning:
                        # The child has ended and the pipe with it, so this finishes the spawn: its answer
                        # goes out before the exit. If execve failed, it removes the program.
                        self._finish_spawn(program)
                    if self.active is not None and program.id in self.programs:
                        self._send(self.active, encode("exited", *program.fields()))


def _create_landing_buffer() -> int:
    """Return a memfd whose size nobody can change: a mapping of it can be touched without SIGBUS, always."""
    descriptor = os.memfd_create("orbit-landing", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.posix_fallocate(descriptor, 0, LANDING_BYTES)  # with its pages, so that no room for them is an error here
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _spawn_failed(number: int, path: str) -> RequestError:
    words = f"{path}: {os.strerror(number)}"
    return RequestError("spawn_failed", words, ("errno", number), ("path", path))


HANDLERS: dict[str, Callable[[Keeper, Message, Connection, str], None]] = {
    "hello": Keeper.hello,
    "spawn": Keeper.spawn,
    "list": Keeper.list_programs,
    "take": Keeper.take,
    "signal": Keeper.signal,
    "ack_exit": Keeper.ack_exit,
    "forget": Keeper.forget,
    "landing": Keeper.landing,
    "memory": Keeper.memory,
    "bind": Keeper.bind,
}
