"""The daemon's connection to its keeper: made when the first program needs it, and again after the keeper has ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable

from orbit_os.files import private_folder
from orbit_protocol.errors import NotRunning, OrbitError
from orbitd.keeper.client import KeeperClient, KeeperGone, KeptProgram
from orbitd.sessions.session import LiveSession


class KeeperConnection:
    """At most one connection to the keeper of this database.

    Args:
        socket_path: The keeper's.
        on_exit: Called with each program that ends.
        on_gone: Called when the keeper is gone, and every program with it.
    """

    def __init__(
        self, socket_path: str, on_exit: Callable[[KeptProgram], None], on_gone: Callable[[KeeperGone], None]
    ) -> None:
        self._path = socket_path
        self._on_exit = on_exit
        self._on_gone = on_gone
        self._client: KeeperClient | None = None
        self._lock = asyncio.Lock()

    async def client(self) -> KeeperClient:
        """Return the connection; start the keeper if there is none. Raises: SpawnFailed, KeeperGone."""
        # Under the lock: starting a keeper takes a while, and each hello supersedes the connection before,
        # so that a second start at the same time would cut off the first.
        async with self._lock:
            if self._client is None:
                private_folder(os.path.dirname(self._path))
                self._client = await KeeperClient.connect_or_start(
                    self._path, on_exit=self._on_exit, on_gone=self._handle_gone
                )
            return self._client

    async def connect_existing(self) -> list[KeptProgram]:
        """Connect to the keeper of an earlier daemon, if there is one; return its programs.

        Raises:
            OrbitError, OSError: There is something that does not serve us; its programs are not known.
        """
        # Without the lock: this is called once, before any client is served.
        self._client = await KeeperClient.connect(self._path, on_exit=self._on_exit, on_gone=self._handle_gone)
        return await self._client.programs() if self._client is not None else []

    async def fetch_terminal(self, live: LiveSession) -> None:
        """Have a session read and write its program's terminal, unless it does. Raises: NotRunning, KeeperGone."""
        if live.has_terminal or live.is_drained:
            return
        master_fd = await (await self.client()).take(live.id)
        if live.has_terminal or live.is_drained or not live.has_program:  # meanwhile
            os.close(master_fd)
        else:
            live.use_terminal(master_fd)

    async def release(self, program_id: str) -> None:
        """Acknowledge an exit that is stored, and have the program forgotten.

        Nothing is raised where the keeper is gone or has forgotten it: that is what was wanted.
        """
        if self._client is not None:
            with contextlib.suppress(NotRunning, KeeperGone):
                await self._client.acknowledge_exit(program_id)
                await self._client.forget(program_id)

    async def kill(self, program_id: str) -> None:
        """Kill a program if the keeper has it. Nothing is raised where it cannot be reached."""
        if self._client is not None:
            with contextlib.suppress(OrbitError):
                await self._client.signal(program_id, signal.SIGKILL)

    def close(self) -> None:
        """Disconnect; the keeper and its programs go on."""
        if self._client is not None:
            self._client.close()

    def _handle_gone(self, error: KeeperGone) -> None:
        self._client = None
        self._on_gone(error)
