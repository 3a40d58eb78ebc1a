"""orbitd's side of the keeper: types, the client with one method a request, and starting a keeper.

One client a daemon, used from the event loop's thread only. Every call is answered within
`ANSWER_SECONDS`, a spawn within `SPAWN_SECONDS`, or raises; a call that is cancelled or late
leaks no descriptor. The caller closes the masters that `spawn` and `take` return; a program
goes on if it does, because the keeper holds a descriptor of its own.

An exit is reported at least once: as a call of `on_exit` while connected, and in `programs()`
until it is forgotten, so an orbitd that starts later misses none. Store it, then
`acknowledge_exit`; read the master to its end (EIO), then `forget`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from orbit_os.sockets import peer_uid
from orbit_protocol.errors import (
    AlreadyRunning,
    Busy,
    InternalError,
    LiveUnavailable,
    NotRunning,
    OrbitError,
    RequestTimeout,
    SpawnFailed,
)
from orbit_protocol.text import to_text
from orbitd.descriptors import STARTED_WITH, exhausted, too_many
from orbitd.installation import RESTART, this_installation
from orbitd.keeper import place
from orbitd.keeper.channel import Channel
from orbitd.keeper.messages import VERSION, Message, Value, encode

ANSWER_SECONDS = 5.0
"""The keeper answers at once, unless it is stopped or its memory is swapped out."""

SPAWN_SECONDS = 30.0
"""A program on a network drive that hangs takes long to start."""

START_ATTEMPTS = 3
"""A keeper that has nothing left to keep may end between connect(2) and the hello."""

CALLED_SECONDS, CALL_AGAIN_SECONDS = 2.0, 0.02
"""How long a keeper without a socket is waited for, and how often it is looked for: one that was called needs a moment
to bind its path, and one that has nothing left to keep is seen until its process has ended."""

START_TIMEOUT_SECONDS = 20

_KEEPER_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH")
"""What Python may need to start. Nothing else is passed on: systemd's variables (NOTIFY_SOCKET, LISTEN_FDS)
are meant for orbitd alone, and a program gets the environment of its own request only."""

SignalTarget = Literal["program", "group", "foreground"]
"""The program itself, its process group, or the group at the terminal's foreground (what Ctrl-C reaches)."""


class ProgramNotFound(SpawnFailed):
    """There is no such program: ENOENT of execve(2), or nothing on the PATH."""


class KeeperGone(Busy):
    """The keeper has ended, does not answer, or serves another orbitd.

    Args:
        message: What happened.
        superseded: Another orbitd has taken over; the programs go on, but are not ours any more.
    """

    default_hint = "Start the session again; if the keeper has ended, its programs have too."

    def __init__(self, message: str, *, superseded: bool = False) -> None:
        super().__init__(message)
        self.superseded = superseded


class SocketLost(KeeperGone):
    """The keeper lives, and no path leads to it: it was asked to make its socket again."""


class UnsupportedRequest(InternalError):
    """The keeper does not know a request, being older, or its system cannot do it."""


class SpawnRequest(Struct, frozen=True, kw_only=True):
    """A program to start on a new terminal.

    Args:
        id: The session's id; one program of an id at a time.
        file: A path, or a name to look up on the PATH of `env`.
        argv: All arguments from argv[0] on; a login shell's begins with `-`.
        env: The whole environment.
        folders: It starts in the first of them that can be entered, and not at all if none can.
        umask: The user's, not the daemon's.
        limits: Soft limits, by the names of getrlimit(2) without RLIMIT_, in lower case; -1 is none.
    """

    id: str
    file: bytes
    argv: tuple[bytes, ...]
    env: Mapping[bytes, bytes]
    folders: tuple[bytes, ...]
    cols: int
    rows: int
    umask: int
    limits: Mapping[str, int] = {}


class Spawned(Struct, frozen=True, kw_only=True):
    """A program that runs: execve has succeeded.

    Args:
        master_fd: Of its terminal; the caller closes it.
        cwd: The directory that it could enter.
    """

    pid: int
    master_fd: int
    cwd: bytes


class KeptProgram(Struct, frozen=True, kw_only=True):
    """A program that the keeper has and has not been asked to forget; it runs while `ended_at` is None.

    It `has_memory` where its session is private: in the answer of `programs`, not in what reports its exit.
    """

    id: str
    pid: int
    started_at: datetime
    ended_at: datetime | None = None
    exit_code: int | None = None
    exit_signal: int | None = None
    acknowledged: bool = False
    has_memory: bool = False


class _Answer(Struct, frozen=True):
    message: Message
    programs: list[KeptProgram]
    descriptor: int | None


class _PendingRequest:
    def __init__(self) -> None:
        self.answer: asyncio.Future[_Answer] = asyncio.get_running_loop().create_future()
        self.programs: list[KeptProgram] = []  # the `program` messages that come before the `ok` of a list


class KeeperClient:
    """A connection to a keeper, made by `connect` or `connect_or_start`.

    Args:
        sock: Connected to the keeper.
        on_exit: Called on the loop with each program that ends.
        on_gone: Called once when the keeper is gone; not after `close`.
    """

    def __init__(
        self, sock: socket.socket, on_exit: Callable[[KeptProgram], None], on_gone: Callable[[KeeperGone], None]
    ) -> None:
        self.keeper_pid = 0
        self.takes_folders = False
        self._on_exit = on_exit
        self._on_gone = on_gone
        self._gone_reason = ""
        self._superseded = False
        self._pending: dict[str, _PendingRequest] = {}
        self._last_seq = 0
        self._loop = asyncio.get_running_loop()
        self._channel = Channel(sock, self._receive, self._lost)

    @classmethod
    async def connect(
        cls,
        socket_path: str,
        *,
        on_exit: Callable[[KeptProgram], None],
        on_gone: Callable[[KeeperGone], None],
        patient: bool = False,
    ) -> KeeperClient | None:
        """Connect to the keeper if there is one; an orbitd that is connected to it is superseded.

        Args:
            socket_path: The keeper's; absolute.
            on_exit: Called on the loop with each program that ends.
            on_gone: Called once when the keeper is gone.
            patient: Wait for its answer for as long as it takes: one that is stopped may go on at any time.

        Raises:
            KeeperGone: There is something that does not serve us.
            SocketLost: There is a keeper without its socket.
        """
        sock = _connect(socket_path)
        if sock is None:
            pid = await asyncio.to_thread(place.call_keeper, socket_path)
            if pid is None:
                return None
            words = f"the keeper (pid {pid})" if pid else "the keeper, whose process is not to be seen from here,"
            ending = f" (`kill -HUP {pid}` asks it to; `kill {pid}` ends it and its programs)" if pid else ""
            raise SocketLost(f"{words} has lost its socket {socket_path} and has not made it again{ending}")
        client = cls(sock, on_exit, on_gone)
        try:
            path = ("path", socket_path)  # a keeper's folder may have been moved since
            hello = await client._call("hello", ("version", VERSION), path, patient=patient)
            client.keeper_pid = hello.message.number("pid")
            client.takes_folders = bool(hello.message.number("folders", 0))
        except LiveUnavailable as exc:
            # A stopped process still accepts: the kernel queues connections up to the backlog.
            client.close()
            raise KeeperGone(f"the keeper at {socket_path} does not answer") from exc
        except KeeperGone:
            return None  # it had nothing left to keep and ended before it read the hello
        except BaseException:
            client.close()
            raise
        return client

    @classmethod
    async def connect_or_start(
        cls, socket_path: str, *, on_exit: Callable[[KeptProgram], None], on_gone: Callable[[KeeperGone], None]
    ) -> KeeperClient:
        """Connect to the keeper, and start one if there is none.

        Raises:
            SpawnFailed: It could not be started.
            KeeperGone: There is something that does not serve us.
        """
        for _ in range(START_ATTEMPTS):
            client = await cls._connect_called(socket_path, on_exit, on_gone)
            if client is not None:
                return client
            # Two orbitds may do this at the same time: the lock file lets one keeper listen, the other exits
            # with 0, and both connect to the first.
            await asyncio.to_thread(start_keeper, socket_path)
        client = await cls._connect_called(socket_path, on_exit, on_gone)
        if client is None:
            raise KeeperGone(f"the keeper at {socket_path} ended as soon as it was started")
        return client

    @classmethod
    async def _connect_called(
        cls, socket_path: str, on_exit: Callable[[KeptProgram], None], on_gone: Callable[[KeeperGone], None]
    ) -> KeeperClient | None:
        """Connect as `connect` does; wait a moment for a keeper without a socket to bind it again, or to have ended."""
        loop = asyncio.get_running_loop()
        until = loop.time() + CALLED_SECONDS
        while True:
            try:
                return await cls.connect(socket_path, on_exit=on_exit, on_gone=on_gone)
            except SocketLost:
                if loop.time() >= until:
                    raise
            await asyncio.sleep(CALL_AGAIN_SECONDS)

    @property
    def is_gone(self) -> bool:
        """Whether the connection is lost, or closed; `on_gone` may not have been called yet."""
        return bool(self._gone_reason)

    def close(self) -> None:
        """Disconnect; the keeper ends by itself once it has nothing to keep."""
        self._channel.close()
        self._fail_pending("the connection to the keeper is closed")

    async def spawn(self, request: SpawnRequest) -> Spawned:
        """Start a program on a new terminal.

        Raises:
            SpawnFailed: It could not be executed, or no folder entered; errno's words and the path are in the message.
            AlreadyRunning: The keeper has a program of this id (which may have ended but is not forgotten).
            RequestTimeout: It has not been executed in time; it may be later, and is in `programs()` then.
        """
        if not self.takes_folders:
            request = replace(request, folders=await asyncio.to_thread(_first_folder, request.folders))
        answer = await self._call("spawn", *_spawn_fields(request))
        if answer.descriptor is None:
            raise InternalError("the keeper sent no terminal")
        message = answer.message
        return Spawned(pid=message.number("pid"), master_fd=answer.descriptor, cwd=message.value("cwd"))

    async def programs(self) -> list[KeptProgram]:
        """Return every program that is not forgotten, the oldest first, those that have ended too."""
        return (await self._call("list")).programs

    async def take(self, program_id: str) -> int:
        """Return a descriptor of a program's master, which the caller closes.

        Raises:
            NotRunning: The keeper does not know the program.
        """
        descriptor = (await self._call("take", ("id", program_id))).descriptor
        if descriptor is None:
            raise InternalError("the keeper sent no terminal")
        return descriptor

    async def signal(self, program_id: str, number: int, target: SignalTarget = "group") -> None:
        """Send a signal to a program, never to another process that has got its pid since.

        Raises:
            NotRunning: It has ended.
        """
        await self._call("signal", ("id", program_id), ("signal", int(number)), ("target", target))

    async def acknowledge_exit(self, program_id: str) -> None:
        """Report that the exit is stored; the keeper may end without this program."""
        await self._call("ack_exit", ("id", program_id))

    async def forget(self, program_id: str) -> None:
        """Remove a program that has ended, with what was not read of its output.

        Raises:
            AlreadyRunning: It has not ended.
        """
        await self._call("forget", ("id", program_id))

    async def bind(self) -> None:
        """Have the keeper make its socket again. Raises: UnsupportedRequest, from an older keeper; InternalError."""
        await self._call("bind")

    async def landing(self) -> int | None:
        """Return a descriptor of the landing buffer, which the caller closes; None where this keeper has none."""
        try:
            return (await self._call("landing")).descriptor
        except UnsupportedRequest:
            return None

    async def memory(self, program_id: str, name: str) -> int:
        """Return a descriptor of a memory that the keeper holds for a program, which the caller closes.

        It is made by the first call, empty, and is there until the program is forgotten or could not be started.

        Raises:
            UnsupportedRequest: The keeper is older than this request, or its system has no such memory.
            TooManySessions: It has no descriptor left for it.
        """
        descriptor = (await self._call("memory", ("id", program_id), ("name", name))).descriptor
        if descriptor is None:
            raise InternalError("the keeper sent no memory")
        return descriptor

    async def _call(self, kind: str, *fields: tuple[str, Value], patient: bool = False) -> _Answer:
        # Calls may overlap. Each has a number of its own, and `_receive` finds by it whom an answer is for.
        if self._gone_reason:
            raise KeeperGone(self._gone_reason)
        self._last_seq += 1
        seq = str(self._last_seq)
        pending = _PendingRequest()
        try:
            frame = encode(kind, ("seq", seq), *fields)
        except ValueError as exc:
            raise SpawnFailed(f"the program cannot be described to execve: {exc}") from exc
        self._pending[seq] = pending
        try:
            self._channel.send(frame)
            async with asyncio.timeout(None if patient else SPAWN_SECONDS if kind == "spawn" else ANSWER_SECONDS):
                return await pending.answer
        # The answer may have been set in the same round of the loop that ended this wait: the future
        # has a result then, with a descriptor that nobody else will close.
        except TimeoutError as exc:
            _close_descriptor(pending.answer)
            if kind == "spawn":
                raise RequestTimeout(f"the program was not executed within {SPAWN_SECONDS:.0f} s") from exc
            reason = f"the keeper (pid {self.keeper_pid}) does not answer"
            raise LiveUnavailable(f"Live sessions are not available now: {reason}", data={"reason": reason}) from exc
        except asyncio.CancelledError:
            _close_descriptor(pending.answer)
            raise
        finally:
            del self._pending[seq]

    def _receive(self, message: Message, descriptor: int | None) -> None:
        """Handle one message; kinds that this version does not know are skipped."""
        pending = self._pending.get(message.text("seq", ""))
        if message.kind == "exited":
            # Not called at once: setting an answer only schedules the task that waits for it, and an exit
            # must not be handled before the spawn of its program has returned.
            self._loop.call_soon(self._on_exit, _parse_program(message))
        elif message.kind == "superseded":
            self._superseded = True
        elif pending is not None and not pending.answer.done():
            if message.kind == "program":
                pending.programs.append(_parse_program(message))
            elif message.kind == "error":
                pending.answer.set_exception(parse_error(message))
            else:
                pending.answer.set_result(_Answer(message, pending.programs, descriptor))
                return
        if descriptor is not None:
            os.close(descriptor)  # its request was cancelled or has timed out

    def _lost(self, reason: str) -> None:
        self._fail_pending("another orbitd has taken over" if self._superseded else f"the keeper is gone: {reason}")
        self._loop.call_soon(self._report_gone)

    def _report_gone(self) -> None:
        if self.keeper_pid:  # else it ended before it answered the hello, and `connect` returns None
            self._on_gone(KeeperGone(self._gone_reason, superseded=self._superseded))

    def _fail_pending(self, reason: str) -> None:
        self._gone_reason = self._gone_reason or reason
        for pending in self._pending.values():
            if not pending.answer.done():
                pending.answer.set_exception(KeeperGone(self._gone_reason))


def _connect(path: str) -> socket.socket | None:
    """Connect to a keeper of this user; return None if no process listens."""
    sock = socket.socket(socket.AF_UNIX)
    try:
        # connect(2) on a Unix socket is done at once, or fails with EAGAIN where the backlog is full:
        # a keeper that is stopped must not block the event loop.
        found = place.socket_path(path)
        if os.path.islink(found):
            raise OSError(errno.ELOOP, "a symbolic link is in its place")
        sock.setblocking(False)
        with place.socket_address(found) as address:
            sock.connect(address)
        uid = peer_uid(sock)
    except (FileNotFoundError, ConnectionRefusedError):
        sock.close()
        return None
    except OSError as exc:
        sock.close()
        raise KeeperGone(f"the keeper at {path} cannot be reached: {exc.strerror or exc}") from exc
    if uid != os.geteuid():
        sock.close()
        raise KeeperGone(f"{path} is served by uid {uid}, not by this user")
    return sock


def _close_descriptor(answer: asyncio.Future[_Answer]) -> None:
    """Close the descriptor of an answer, if there is one, that its caller will not get."""
    with contextlib.suppress(asyncio.CancelledError, asyncio.InvalidStateError, OrbitError):
        if (descriptor := answer.result().descriptor) is not None:
            os.close(descriptor)


def start_keeper(socket_path: str) -> None:
    """Start the keeper of a socket path; do nothing if there is one already.

    It listens once this returns. It is no child of this process, and in a session of its own.
    This blocks for as long as Python takes to start: call it in a thread.

    Raises:
        SpawnFailed: It could not be started; the message says why.
    """
    program = os.path.join(os.path.dirname(os.path.abspath(__file__)), "__main__.py")
    command = [sys.executable, "-I", "-S", program, os.path.abspath(socket_path)]
    environment = {name: os.environ[name] for name in _KEEPER_ENVIRONMENT if name in os.environ}
    environment["ORBIT_OPEN_FILES"] = str(STARTED_WITH[0])
    try:
        # run() returns at the end of file of both pipes, which is when the child that stays has replaced its
        # stdout and stderr: it listens then, and its errors until then are in `stderr`.
        started = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            cwd="/",
            env=environment,
            timeout=START_TIMEOUT_SECONDS,
            check=False,
        )
    except OSError as exc:
        raise too_many(exc, "the keeper could not be started") or _start_failed(socket_path, str(exc)) from exc
    except subprocess.TimeoutExpired as exc:
        raise _start_failed(socket_path, str(exc)) from exc
    if started.returncode != 0:
        lines = to_text(started.stderr).strip().splitlines() or [f"status {started.returncode}"]
        raise _start_failed(socket_path, lines[-1])


def _start_failed(socket_path: str, reason: str) -> SpawnFailed:
    change = this_installation.change()
    if change is None:
        hint = "Put that right, then start the session again."
        return SpawnFailed(f"the keeper of {socket_path} could not be started: {reason}", hint=hint)
    # The last line of Python's own words, which name a file or module that is gone, explains nothing then.
    return SpawnFailed(f"The keeper could not be started. {change}", hint=RESTART)


NO_TERMINAL = b"a terminal for it"
"""What a failed spawn names in the place of a path before there is a child."""

_FOLDER_HINT = "Make the folder, or start a session in another one (`--cwd`)."


def _first_folder(folders: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """Return the first folder that can be entered, for a keeper that would start a program in HOME where one cannot.

    Raises:
        SpawnFailed: None can.
    """
    first_error: OSError | None = None
    for folder in folders:
        try:
            os.stat(os.path.join(folder, b"."))  # as chdir(2), this needs a folder, and the permission to enter it
        except OSError as error:
            first_error = first_error or error
        else:
            return (folder,)
    if first_error is not None:
        raise _folder_failed(folders[0], first_error.errno or errno.EIO)
    return ()


def _folder_failed(folder: bytes, number: int) -> SpawnFailed:
    return SpawnFailed(f"The program cannot start in {to_text(folder)}: {os.strerror(number)}", hint=_FOLDER_HINT)


_ERRORS_BY_REASON: dict[str, type[OrbitError]] = {
    "spawn_failed": SpawnFailed,
    "exists": AlreadyRunning,
    "running": AlreadyRunning,
    "unknown_id": NotRunning,
    "ended": NotRunning,
    "not_active": KeeperGone,
    "unknown_request": UnsupportedRequest,
    "unsupported": UnsupportedRequest,
}


def _spawn_fields(request: SpawnRequest) -> list[tuple[str, Value]]:
    """Return the fields of a `spawn` message."""
    # os.execve raises for an empty name or one with `=`; one such variable must not fail the whole session.
    variables = [b"%s=%s" % (name, value) for name, value in request.env.items() if name and b"=" not in name]
    return [
        ("id", request.id),
        ("file", request.file),
        *(("argv", argument) for argument in request.argv),
        *(("env", variable) for variable in variables),
        *(("cwd", folder) for folder in request.folders),
        ("cols", request.cols),
        ("rows", request.rows),
        ("umask", request.umask),
        *(("limit", f"{name}={number}") for name, number in request.limits.items()),
    ]


def _parse_program(message: Message) -> KeptProgram:
    """Parse a `program` or `exited` message."""
    names = {name for name, _ in message.fields}
    return KeptProgram(
        id=message.text("id"),
        pid=message.number("pid"),
        started_at=_time(message, "started_at"),
        ended_at=_time(message, "ended_at") if "ended_at" in names else None,
        exit_code=message.number("exit_code") if "exit_code" in names else None,
        exit_signal=message.number("exit_signal") if "exit_signal" in names else None,
        acknowledged=message.number("acknowledged", 0) == 1,
        has_memory=message.number("memory", 0) == 1,
    )


def _time(message: Message, name: str) -> datetime:
    return datetime.fromtimestamp(float(message.value(name)), UTC)


def parse_error(message: Message) -> OrbitError:
    """Return the exception that an `error` message stands for."""
    words, reason = to_text(message.value("words", b"")), message.text("reason", "")
    number = message.number("errno", 0)
    is_terminal = message.value("path", b"") == NO_TERMINAL
    if reason in ("spawn_failed", "failed"):
        if is_terminal and number in (errno.ENOENT, errno.ENOSPC):
            return exhausted("terminals", f"The system has no terminal left for the program: {words}")
        if (error := too_many(OSError(number, words), "There is no room for the program")) is not None:
            return error
    if reason == "spawn_failed" and any(name == "cwd" for name, _ in message.fields):
        return _folder_failed(message.value("cwd"), number)
    if reason == "spawn_failed" and number == errno.ENOENT:
        return ProgramNotFound(words)
    return _ERRORS_BY_REASON.get(reason, InternalError)(words)
