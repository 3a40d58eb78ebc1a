"""The daemon's connection to its keeper: made when the first program needs it, and again where it was lost.

At a start there may be a keeper with programs. Until it has answered, or is known to be gone, its programs are not
called gone, and not started a second time. A keeper that is stopped, hung or out of reach keeps nobody
from the store: connecting goes on in the background, and live sessions are unavailable meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Awaitable, Callable

from orbit_os.files import private_folder
from orbit_protocol.errors import InternalError, LiveUnavailable, NotRunning, OrbitError, TooManySessions
from orbitd.descriptors import SessionRoom, shortage
from orbitd.keeper import place
from orbitd.keeper.client import KeeperClient, KeeperGone, KeptProgram, SocketLost, UnsupportedRequest
from orbitd.logs import event
from orbitd.sessions.session import LiveSession

log = logging.getLogger("orbitd.sessions")

ANSWER_SECS = 2.0
"""How long a start of the daemon, and a request that needs a program, waits for a keeper; one that is well answers
within milliseconds."""

FIRST_RETRY_SECS, MAX_RETRY_SECS = 0.02, 5.0


class KeeperConnection:
    """At most one connection to the keeper of this database.

    Args:
        path: The keeper's.
        room: Decides whether there are descriptors for another terminal.
        on_exit: Called with each program that ends.
        on_lost: Called with the programs that the keeper has after the connection was lost, and made again; with None
            where the keeper is gone, and every program with it.

    Attributes:
        unreachable: Why what the keeper has is not known, or not restored, or "".
        is_closing: The daemon stops: a connection that is lost now is not made again.
    """

    def __init__(
        self,
        path: str,
        room: SessionRoom,
        on_exit: Callable[[KeptProgram], None],
        on_lost: Callable[[list[KeptProgram] | None], Awaitable[None]],
    ) -> None:
        self._path = path
        self._room = room
        self._on_exit = on_exit
        self._on_lost = on_lost
        self._client: KeeperClient | None = None
        self._lock = asyncio.Lock()
        self._is_known = asyncio.Event()  # connected, or there is none
        self._is_known.set()
        self._has_tried = asyncio.Event()  # to restore what it has
        self._has_tried.set()
        self._retry = asyncio.Event()
        self._reaching: asyncio.Task[None] | None = None
        self._socket: os.stat_result | None = None
        self._unbound = ""
        self._is_lost = False
        self._has_lost_socket = False
        self.unreachable = ""
        self.is_closing = False

    async def reach(self, restore: Callable[[], Awaitable[None]]) -> None:
        """Restore what the keeper of an earlier daemon has; in the background where it does not answer in time.

        Args:
            restore: Calls `connect_existing` first. It is called again, with back-off, until it raises nothing.
        """
        self._start_reaching(restore)
        try:
            async with asyncio.timeout(ANSWER_SECS):
                await self._is_known.wait()
        except TimeoutError:
            pid = await asyncio.to_thread(place.find_keeper, self._path)
            if not self._is_known.is_set():
                if not self.unreachable:
                    self._set_unreachable(f"the keeper{f' (pid {pid})' if pid else ''} does not answer")
                return
        # The task has begun, as the keeper is known. However many sessions there are, clients come after them.
        await self._has_tried.wait()

    async def reached(self) -> None:
        """Wait until `reach` has restored everything."""
        if self._reaching is not None:
            await asyncio.shield(self._reaching)

    async def require_known(self) -> None:
        """Return once it is known what the keeper has. Raises: LiveUnavailable, if that is not soon."""
        if self._is_known.is_set():
            return
        if self.is_closing:
            raise self.unavailable()
        self._retry.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_SECS):
                await self._is_known.wait()
        if not self._is_known.is_set():
            raise self.unavailable()

    async def require_restored(self) -> None:
        """Return once what the keeper has was taken over. Raises: LiveUnavailable, if that is not soon."""
        await self.require_known()
        try:
            async with asyncio.timeout(ANSWER_SECS):
                await self._has_tried.wait()
        except TimeoutError:
            raise self.unavailable() from None

    def unavailable(self) -> LiveUnavailable:
        """Return the error of a request that needs what the keeper has."""
        meanwhile = "the daemon stops" if self.is_closing else "what the keeper has is being taken over"
        reason = self.unreachable or meanwhile
        return LiveUnavailable(f"Live sessions are not available now: {reason}", data={"reason": reason})

    async def client(self) -> KeeperClient:
        """Return the connection; start the keeper if there is none.

        Raises:
            SpawnFailed: It could not be started.
            KeeperGone: It has ended meanwhile, or does not answer.
            LiveUnavailable: There may be one that cannot be reached.
            TooManySessions: There are no descriptors, processes or memory to start it.
            UnsafeFolder: Its folder is open to others.
            OSError: Its folder cannot be made, or there is no descriptor for the connection.
        """
        await self.require_known()
        # Under the lock: starting a keeper takes a while, and each hello supersedes the connection before,
        # so that a second start at the same time would cut off the first.
        async with self._lock:
            if self._client is None:
                if self.is_closing:
                    raise self.unavailable()
                private_folder(os.path.dirname(self._path))
                self._client = await KeeperClient.connect_or_start(
                    self._path, on_exit=self._on_exit, on_gone=self._handle_gone
                )
                self._look_at_socket()
            return self._client

    async def connect_existing(self) -> list[KeptProgram] | None:
        """Connect to the keeper of an earlier daemon; return its programs, or None if there is no keeper.

        Raises:
            OrbitError, OSError: There is something that does not serve us; its programs are not known.
        """
        async with self._lock:
            if self._client is not None and self._client.is_gone:
                self._client = None  # lost in the moment in which it was made
            if self._client is None:
                client = await KeeperClient.connect(
                    self._path, on_exit=self._on_exit, on_gone=self._handle_gone, patient=True
                )
                if client is None and await asyncio.to_thread(self._lives):
                    raise KeeperGone("the keeper has closed the connection")
                self._client = client
        programs = await self._client.programs() if self._client is not None else None
        self._look_at_socket()
        self.unreachable = ""
        self._is_known.set()
        return programs

    async def require_answer(self) -> None:
        """Return once the keeper, which is connected, has answered. Raises: LiveUnavailable, KeeperGone."""
        with contextlib.suppress(UnsupportedRequest, InternalError):  # either is an answer
            await (await self.client()).bind()

    async def check_socket(self) -> None:
        """Have the keeper make its socket again where it was removed: the next daemon has to find it."""
        client = self._client
        if client is None or self._is_found():
            self._unbound = ""
            return
        try:
            await client.bind()
        except UnsupportedRequest:
            self._unbound = "it is one of an earlier Orbit, which cannot make it again"
        except OrbitError as error:
            self._unbound = error.message
        else:
            self._look_at_socket()
            self._unbound = "" if self._is_found() else "its folder was moved"
            if not self._unbound:
                event(log, logging.WARNING, "keeper's socket was removed, bound again", socket=self._path)

    @property
    def is_known(self) -> bool:
        """Whether this is connected, or there is no keeper."""
        return self._is_known.is_set()

    @property
    def is_unrestored(self) -> bool:
        """Whether the keeper may have programs that this daemon has not taken over."""
        return bool(self.unreachable) or not self._is_known.is_set()

    def warnings(self) -> list[str]:
        """Return what is wrong with the keeper, as sentences for `status` and `doctor`."""
        if self.is_unrestored:
            hint = "" if self._has_lost_socket else " (`kill -CONT` lets one go on that was stopped)"
            return [
                f"No live session is there: {self.unavailable().extra['reason']}. What they run goes on; they are back "
                f"by themselves once the keeper answers{hint}."
            ]
        if self._unbound and self._client is not None:
            return [
                f"The socket of the keeper (pid {self._client.keeper_pid}) is gone from {self._path}: {self._unbound}. "
                "Live sessions go on; a daemon that is started later does not find their programs."
            ]
        return []

    async def fetch_terminal(self, live: LiveSession, *, has_room: bool = False) -> None:
        """Have a session read and write its program's terminal, unless it does.

        Args:
            live: The session.
            has_room: The caller has made sure that there is room, or closes it at once: then it may take one of the
                last descriptors.

        Raises:
            NotRunning: There is none.
            KeeperGone, LiveUnavailable: The keeper does not answer.
            TooManySessions: There is no room; the keeper keeps it.
        """
        if live.has_terminal or live.is_drained:
            return
        try:
            with contextlib.nullcontext() if has_room else self._room.take():
                master_fd = await (await self.client()).take(live.id)
                if live.has_terminal or live.is_drained or not live.has_program:  # meanwhile
                    os.close(master_fd)
                else:
                    live.use_terminal(master_fd)
        except TooManySessions:
            live.is_left_to_keeper = True
            raise

    async def memory(self, session_id: str, name: str) -> int:
        """Return a descriptor of memory that the keeper holds for a session.

        Raises:
            UnsupportedRequest: It cannot.
            OrbitError, OSError: As `client` does.
        """
        return await (await self.client()).memory(session_id, name)

    async def release(self, program_id: str) -> None:
        """Acknowledge an exit that is stored, and have the program forgotten.

        Nothing is raised where the keeper is gone or has forgotten it: that is what was wanted. One that does not
        answer reports the exit again, to the next daemon.
        """
        if self._client is not None:
            with contextlib.suppress(NotRunning, KeeperGone, LiveUnavailable):
                await self._client.acknowledge_exit(program_id)
                await self._client.forget(program_id)

    async def kill(self, program_id: str) -> None:
        """Kill a program if the keeper has it. Nothing is raised where it cannot be reached."""
        if self._client is not None:
            with contextlib.suppress(OrbitError):
                await self._client.signal(program_id, signal.SIGKILL)

    async def stop_reaching(self) -> None:
        """Stop connecting in the background, for good."""
        self.is_closing = True
        if self._reaching is not None:
            self._reaching.cancel()
            await asyncio.wait({self._reaching})

    def close(self) -> None:
        """Disconnect; the keeper and its programs go on."""
        if self._client is not None:
            self._client.close()

    def _handle_gone(self, error: KeeperGone) -> None:
        if self._client is not None and not self._client.is_gone:
            return  # it is told of one before this
        self._client = None
        event(log, logging.ERROR, "keeper gone", reason=error.message, superseded=error.superseded)
        if error.superseded or self.is_closing:
            return  # the programs go on, under another daemon, which has the database too, or the next one
        # The connection is gone. Whether the keeper is has to be seen: it may have put this daemon out, or this one had
        # no descriptor left for what it sent.
        if self._reaching is not None and not self._reaching.done():
            self._is_lost = True
        else:
            self._start_reaching(self._find_again)

    async def _find_again(self) -> None:
        await self._on_lost(await self.connect_existing())

    def _start_reaching(self, restore: Callable[[], Awaitable[None]]) -> None:
        self._is_known.clear()
        self._reaching = asyncio.get_running_loop().create_task(self._reach(restore))

    async def _reach(self, restore: Callable[[], Awaitable[None]]) -> None:
        delay = FIRST_RETRY_SECS
        while True:
            self._has_tried.clear()
            try:
                await restore()
            except Exception as error:  # noqa: BLE001  # whatever answers there, the store is served
                self._set_unreachable(_reason(error), error)
            else:
                self.unreachable = ""
                if not self._is_lost:
                    return
                self._is_lost = False  # meanwhile: what was taken over may be gone
                self._is_known.clear()
                restore, delay = self._find_again, 0.0
            finally:
                self._has_tried.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._retry.wait()
            # A request waits for it: a keeper that was just called needs a moment to bind its path.
            delay = 0.0 if self._retry.is_set() else delay
            self._retry.clear()
            delay = min(max(2 * delay, FIRST_RETRY_SECS), MAX_RETRY_SECS)

    def _set_unreachable(self, reason: str, error: Exception | None = None) -> None:
        if reason != self.unreachable:
            event(log, logging.ERROR, "keeper not reached", reason=reason, exc=error)
        self.unreachable, self._has_lost_socket = reason, isinstance(error, SocketLost)

    def _lives(self) -> bool:
        """Return whether the keeper that has closed the connection lives: it has put this daemon out."""
        return os.path.lexists(place.socket_path(self._path)) and place.find_keeper(self._path) is not None

    def _look_at_socket(self) -> None:
        """Record which file leads to the keeper."""
        self._socket = None
        with contextlib.suppress(OSError):
            self._socket = os.lstat(place.socket_path(self._path))

    def _is_found(self) -> bool:
        """Return whether the keeper's path still leads to the file by which this daemon has reached it."""
        try:
            found = os.lstat(place.socket_path(self._path))
        except OSError:
            return False
        return self._socket is not None and os.path.samestat(found, self._socket)


def _reason(error: Exception) -> str:
    if isinstance(error, LiveUnavailable):
        return str(error.extra["reason"])
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if (missing := shortage(error)) is not None:
        what, remedy = missing
        return f"the daemon has no {what} left ({remedy})"
    return error.message if isinstance(error, OrbitError) else type(error).__name__
