"""orbitd's side of the conversation with its keeper.

One client a daemon, used from the event loop's thread only. Every call is answered within
`REQUEST_SECONDS` or raises; a call that is cancelled or late leaks no descriptor. The
masters that `spawn` and `take` return are the caller's to close; a program goes on if it
does, because the keeper holds its own.

An exit is told at least once: as a call of `on_exit` while connected, and in `programs()`
until it is forgotten, so an orbitd that comes back loses none. Store it, then
`acknowledge_exit`; read the master to its end (EIO), then `forget`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable

from msgspec import Struct

from orbit_os.sockets import peer_uid
from orbit_protocol.errors import InternalError, OrbitError, RequestTimeout, SpawnFailed
from orbitd.keeper.channel import Channel
from orbitd.keeper.launch import start_keeper
from orbitd.keeper.messages import VERSION, Message, Value, encode
from orbitd.keeper.structs import (
    KeeperGone,
    KeptProgram,
    SignalTarget,
    Spawned,
    SpawnRequest,
    error_of,
    kept_program,
    spawn_fields,
)

REQUEST_SECONDS = 30.0
"""The keeper answers at once; only a program on a network drive that hangs takes this long to start."""

START_ATTEMPTS = 3
"""A keeper may end, its work done, between being found and being greeted."""


class _Answer(Struct, frozen=True):
    message: Message
    programs: list[KeptProgram]
    descriptor: int | None


class _Pending:
    def __init__(self) -> None:
        self.answer: asyncio.Future[_Answer] = asyncio.get_running_loop().create_future()
        self.programs: list[KeptProgram] = []


class KeeperClient:
    """A connection to a keeper; made by `connect` or `connect_or_start`.

    Args:
        sock: Connected to the keeper.
        on_exit: Called on the loop with each program that ends.
        on_gone: Called once when the keeper is gone; not after `close`.
    """

    def __init__(
        self, sock: socket.socket, on_exit: Callable[[KeptProgram], None], on_gone: Callable[[KeeperGone], None]
    ) -> None:
        self.keeper_pid = 0
        self._on_exit = on_exit
        self._on_gone = on_gone
        self._gone = ""
        self._superseded = False
        self._pending: dict[str, _Pending] = {}
        self._asked = 0
        self._loop = asyncio.get_running_loop()
        self._channel = Channel(sock, self._receive, self._lost)

    @classmethod
    async def connect(
        cls, socket_path: str, *, on_exit: Callable[[KeptProgram], None], on_gone: Callable[[KeeperGone], None]
    ) -> KeeperClient | None:
        """Connect to the keeper if there is one, and take over from any orbitd before.

        Raises:
            KeeperGone: There is something that does not serve us.
        """
        sock = _connected(socket_path)
        if sock is None:
            return None
        client = cls(sock, on_exit, on_gone)
        try:
            await client._greet()
        except RequestTimeout as exc:
            client.close()
            raise KeeperGone(f"the keeper at {socket_path} does not answer") from exc
        except KeeperGone:
            return None  # it was about to end
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
            client = await cls.connect(socket_path, on_exit=on_exit, on_gone=on_gone)
            if client is not None:
                return client
            await asyncio.to_thread(start_keeper, socket_path)
        client = await cls.connect(socket_path, on_exit=on_exit, on_gone=on_gone)
        if client is None:
            raise KeeperGone(f"the keeper at {socket_path} ended as soon as it was started")
        return client

    def close(self) -> None:
        """Leave the keeper; it ends by itself once it has nothing to keep."""
        self._channel.close()
        self._fail_pending("the connection to the keeper is closed")

    async def _greet(self) -> None:
        self.keeper_pid = (await self._call("hello", ("version", VERSION))).message.number("pid")

    async def spawn(self, request: SpawnRequest) -> Spawned:
        """Start a program on a new terminal.

        Raises:
            SpawnFailed: It could not be executed; errno's words and the path are in the message.
            AlreadyRunning: The keeper has a program of this id (which may have ended but is not forgotten).
            RequestTimeout: It has not begun in time; it may yet, and is in `programs()` then.
        """
        answer = await self._call("spawn", *spawn_fields(request))
        if answer.descriptor is None:
            raise InternalError("the keeper sent no terminal")
        told = answer.message
        return Spawned(pid=told.number("pid"), master_fd=answer.descriptor, cwd=told.text("cwd"))

    async def programs(self) -> list[KeptProgram]:
        """Return every program that is not forgotten, eldest first; those that have ended too."""
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
        """Send a signal to a program; never to another one that has its old pid.

        Raises:
            NotRunning: It has ended.
        """
        await self._call("signal", ("id", program_id), ("signal", int(number)), ("target", target))

    async def acknowledge_exit(self, program_id: str) -> None:
        """Tell that the exit is stored; the keeper no longer stays for it."""
        await self._call("ack_exit", ("id", program_id))

    async def forget(self, program_id: str) -> None:
        """Let a program that has ended go, and what was not read of its output.

        Raises:
            AlreadyRunning: It has not ended.
        """
        await self._call("forget", ("id", program_id))

    async def _call(self, kind: str, *fields: tuple[str, Value]) -> _Answer:
        if self._gone:
            raise KeeperGone(self._gone)
        self._asked += 1
        seq = str(self._asked)
        pending = _Pending()
        try:
            frame = encode(kind, ("seq", seq), *fields)
        except ValueError as exc:
            raise SpawnFailed(f"the program cannot be described to execve: {exc}") from exc
        self._pending[seq] = pending
        try:
            self._channel.send(frame)
            async with asyncio.timeout(REQUEST_SECONDS):
                return await pending.answer
        except TimeoutError as exc:
            _discard(pending.answer)
            raise RequestTimeout(f"the keeper did not answer {kind} within {REQUEST_SECONDS:.0f} s") from exc
        except asyncio.CancelledError:
            _discard(pending.answer)
            raise
        finally:
            del self._pending[seq]

    def _receive(self, message: Message, descriptor: int | None) -> None:
        """Take one message; kinds that this version does not know are skipped."""
        pending = self._pending.get(message.text("seq", ""))
        if message.kind == "exited":
            self._loop.call_soon(self._on_exit, kept_program(message))
        elif message.kind == "superseded":
            self._superseded = True
        elif pending is not None and not pending.answer.done():
            if message.kind == "program":
                pending.programs.append(kept_program(message))
            elif message.kind == "error":
                pending.answer.set_exception(error_of(message))
            else:
                pending.answer.set_result(_Answer(message, pending.programs, descriptor))
                return
        if descriptor is not None:
            os.close(descriptor)  # whoever asked has given up

    def _lost(self, reason: str) -> None:
        self._fail_pending("another orbitd has taken over" if self._superseded else f"the keeper is gone: {reason}")
        self._loop.call_soon(self._tell_gone)

    def _tell_gone(self) -> None:
        if self.keeper_pid:  # else it ended before it was ours
            self._on_gone(KeeperGone(self._gone, superseded=self._superseded))

    def _fail_pending(self, reason: str) -> None:
        self._gone = self._gone or reason
        for pending in self._pending.values():
            if not pending.answer.done():
                pending.answer.set_exception(KeeperGone(self._gone))


def _connected(path: str) -> socket.socket | None:
    """Connect to a keeper of this user; None if nobody listens."""
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.setblocking(False)
        sock.connect(path)
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


def _discard(answer: asyncio.Future[_Answer]) -> None:
    """Close the descriptor of an answer that came while its caller was being cancelled."""
    with contextlib.suppress(asyncio.CancelledError, asyncio.InvalidStateError, OrbitError):
        if (descriptor := answer.result().descriptor) is not None:
            os.close(descriptor)
