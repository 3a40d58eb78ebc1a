"""Accepts connections, and holds them and the tasks of their requests.

Everything here runs on the event loop. accept(2) is called here and not by asyncio: its
`start_unix_server` would replace a live socket, check no peer, and log a traceback a second
while file descriptors are used up.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from orbit_os.sockets import peer_uid
from orbit_protocol.errors import Busy
from orbit_protocol.framing import frame
from orbit_protocol.jsonrpc import encode_error
from orbitd.background_tasks import BackgroundTasks
from orbitd.descriptors import RAISE_IT, is_for_repair, lowest_free
from orbitd.logs import event
from orbitd.rpc.connection import Call, Connection, PeerProcess
from orbitd.rpc.dispatch import Dispatcher
from orbitd.rpc.sockets import Listener

log = logging.getLogger("orbitd.rpc.server")

ACCEPT_AT_ONCE = 16
"""Connections accepted in one turn of the loop; the rest of the backlog wakes the loop again."""
RETRY_SECONDS = 0.2
RESERVED_CONNECTIONS = 3
"""Beyond `max_connections`, so that somebody can always ask, stop and repair (`Method.in_reserve`)."""
RESERVE_IDLE_SECS = 1.0
"""So long each connection of the reserve is let alone; then it may be closed for another one."""


def least_needed(
    connections: Iterable[Connection], now: float, is_of_crowd: Callable[[Connection], bool] = lambda _: False
) -> Connection | None:
    """Return which connection of the reserve to close for another client; None where each is at work, or new.

    It is the one that has been idle the longest; where none has been for `RESERVE_IDLE_SECS`, as if each went on to
    ask, the oldest.

    Args:
        connections: Those of the reserve.
        now: By `time.monotonic`.
        is_of_crowd: Returns whether the other end has many more; then a connection goes first, and however new it is.
    """
    free = [each for each in connections if not each.is_answering]
    # One that was accepted just now has no transport yet, and could not be closed.
    if crowd := [each for each in free if each.is_open and not each.has_unsent and is_of_crowd(each)]:
        return min(crowd, key=lambda each: each.last_request_at)
    idle = [each for each in free if now - each.last_request_at >= RESERVE_IDLE_SECS]
    if idle:
        return min(idle, key=lambda each: each.last_request_at)
    # The answer to one that still asks may be on its way, to a client that reads slowly.
    old = [each for each in free if now - each.made_at >= RESERVE_IDLE_SECS and not each.has_unsent]
    return min(old, key=lambda each: each.made_at, default=None)


class Server:
    """Serves a dispatcher on listening sockets.

    Args:
        dispatcher: Answers lines.
        max_connections: The most clients at once, beside those of the reserve; one more gets the error `busy`.
        max_message_bytes: The longest line accepted.
        wanted_connections: How many are configured, where the limit of descriptors leaves room for fewer.
    """

    def __init__(
        self, dispatcher: Dispatcher[Call], *, max_connections: int, max_message_bytes: int, wanted_connections: int = 0
    ) -> None:
        self.dispatch = dispatcher.dispatch
        self.is_urgent = dispatcher.is_urgent
        self.wait_id = dispatcher.wait_id
        self._max_connections = max_connections
        self._wanted_connections = wanted_connections
        self.max_message_bytes = max_message_bytes
        self.stopping = False
        self._listeners: list[Listener] = []
        self._connections: dict[Connection, None] = {}  # in the order in which they were made
        self._reserve: list[Connection] = []  # those of them that serve some methods only
        self._is_out_of_room = False
        self._tasks = BackgroundTasks(log, "answering failed", on_done=self._check_idle)
        self._idle = asyncio.Event()

    def serve(self, listener: Listener) -> None:
        """Accept from a listener until `stop`."""
        self._listeners.append(listener)
        asyncio.get_running_loop().add_reader(listener.socket, self._accept, listener)

    def give_up(self, listener: Listener) -> None:
        """Accept no more from a listener, and close it; who is connected stays."""
        self._listeners.remove(listener)
        asyncio.get_running_loop().remove_reader(listener.socket)
        listener.close()

    @property
    def connections(self) -> list[Connection]:
        """Who is connected, the oldest first."""
        return list(self._connections)

    @property
    def is_full(self) -> bool:
        """Whether new clients are served some methods only."""
        return len(self._connections) - len(self._reserve) >= self._max_connections

    async def stop(self, grace_secs: float) -> None:
        """Accept no more, answer what is in flight, and close every connection.

        Args:
            grace_secs: How long to wait for answers; what is not answered by then is dropped.
        """
        self.stopping = True
        for listener in self._listeners:
            asyncio.get_running_loop().remove_reader(listener.socket)
            listener.close()
        for connection in list(self._connections):
            connection.close_when_idle()
        self._check_idle()
        try:
            async with asyncio.timeout(grace_secs):
                await self._idle.wait()
        except TimeoutError:
            event(log, logging.WARNING, "requests dropped at stop", tasks=len(self._tasks))
        for connection in list(self._connections):
            connection.abort()
        await self._tasks.cancel()

    # Called by connections.

    def start_task(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine as a task, and hold a reference to it until it is done."""
        self._tasks.start(coroutine)

    def connection_closed(self, connection: Connection) -> None:
        """Remove a connection that has ended."""
        self._connections.pop(connection, None)
        if connection in self._reserve:
            self._reserve.remove(connection)
        self.promote()
        event(log, logging.DEBUG, "connection closed", connections=len(self._connections))
        self._check_idle()

    def promote(self) -> None:
        """Have connections of the reserve serve everything, the oldest first, while there is room for that."""
        # There may be although none was closed: a session has ended, and its descriptors are free.
        while self._reserve and not self.is_full and not is_for_repair(lowest_free()):
            self._reserve.pop(0).in_reserve = False

    def _check_idle(self) -> None:
        if self.stopping and not self._tasks and not self._connections:
            self._idle.set()

    # Accepting

    def _accept(self, listener: Listener) -> None:
        for _ in range(ACCEPT_AT_ONCE):
            try:
                accepted, _address = listener.socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._pause_accepting(listener, error)
                return
            if self._is_out_of_room:
                self._is_out_of_room = False
                event(log, logging.INFO, "accepting again")
            self._add_client(accepted)

    def _pause_accepting(self, listener: Listener, error: OSError) -> None:
        """Leave clients in the backlog until there are descriptors or memory again, or what else it was has passed."""
        # The socket stays readable, so the reader has to go meanwhile, or the loop would spin.
        if not self._is_out_of_room:
            self._is_out_of_room = True
            event(log, logging.WARNING, "cannot accept", error=os.strerror(error.errno or 0))
        loop = asyncio.get_running_loop()
        loop.remove_reader(listener.socket)
        loop.call_later(RETRY_SECONDS, self._resume_accepting, listener)

    def _resume_accepting(self, listener: Listener) -> None:
        if listener in self._listeners and not self.stopping:
            asyncio.get_running_loop().add_reader(listener.socket, self._accept, listener)

    def _add_client(self, accepted: socket.socket) -> None:
        try:
            accepted.setblocking(False)
            uid, process = peer_uid(accepted), PeerProcess.of(accepted)
        except OSError as error:
            # macOS no longer knows a peer that has closed its end already.
            event(log, logging.DEBUG, "connection gone before it was served", error=error.strerror)
            accepted.close()
            return
        if uid != os.getuid():
            event(log, logging.WARNING, "connection refused", uid=uid)
            accepted.close()
            return
        self.promote()
        in_reserve = self.is_full or is_for_repair(accepted.fileno())
        if in_reserve and len(self._reserve) >= RESERVED_CONNECTIONS and not self._close_another(process.pid):
            self._reject_busy(accepted)
            return
        connection = Connection(self, process)
        connection.in_reserve = in_reserve
        self._connections[connection] = None
        if in_reserve:
            self._reserve.append(connection)
            event(log, logging.WARNING, "all connections are used", connections=len(self._connections))
        self.start_task(self._connect(connection, accepted))

    def _close_another(self, newcomer: int) -> bool:
        """Close the connection of the reserve that is needed least; return False where there is none.

        Args:
            newcomer: The pid of the process that needs its place; 0 where that is not known.
        """
        # A process that has taken all connections, and those of the reserve in the same second, or that connects in a
        # loop, is what the reserve is kept from. Each run of orbitctl has one connection.
        held = Counter(each.peer.pid for each in self._connections if each.peer is not None and each.peer.pid)
        many = max(RESERVED_CONNECTIONS, held[newcomer])
        least = least_needed(
            self._reserve, time.monotonic(), lambda one: one.peer is not None and held[one.peer.pid] > many
        )
        if least is None:
            return False
        self._reserve.remove(least)
        least.refuse(Busy("Another client needs the place of this connection", hint=self._room_hint()))
        return True

    def _room_hint(self) -> str:
        is_configured = self.is_full and self._max_connections >= self._wanted_connections
        more = "raise max_connections in the daemon's configuration" if is_configured else RAISE_IT
        return f"Close some (`orbitctl daemon connections` shows who has them), or {more}."

    async def _connect(self, connection: Connection, accepted: socket.socket) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: connection, accepted)
        except OSError as error:
            self.connection_closed(connection)
            accepted.close()
            event(log, logging.WARNING, "connection failed", error=error.strerror)

    def _reject_busy(self, accepted: socket.socket) -> None:
        """Send the error and close, without waiting: an answer of this size fits an empty socket buffer."""
        event(log, logging.WARNING, "connection refused, all are used", connections=len(self._connections))
        error = Busy(f"The daemon serves {len(self._connections)} connections already", hint=self._room_hint())
        with accepted:
            try:
                accepted.send(frame(encode_error(None, error)))
            except OSError:
                return
