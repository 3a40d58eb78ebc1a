"""A store opened in this process, called as if over the socket."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec

from orbit_protocol.errors import SessionNotFound
from orbitd.manager import SessionManager
from orbitd.sessions.saved_state import SavedState


class LocalStore:
    """The methods that the ledger reads with, on a store without a daemon.

    Args:
        path: The database.
    """

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        self._runner = asyncio.Runner()

    def __enter__(self) -> LocalStore:
        try:
            self._manager = self._runner.run(self._open())
        except BaseException:
            self._runner.close()
            raise
        self._methods = {
            "session.list": self._manager.list_sessions,
            "workspace.list": self._manager.list_workspaces,
            "snapshot.list": self._manager.list_snapshots,
            "maintenance.check": self._manager.check,
        }
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._manager.close())
        self._runner.close()

    async def _open(self) -> SessionManager:
        return await SessionManager.open(self._path)

    def saved_position(self, session_id: str) -> int:
        """Return which position of its journal a session's newest snapshot covers; 0 where it has none."""
        try:
            saved = self._runner.run(self._manager.load_latest_screen(session_id))
        except SessionNotFound:
            return 0
        return 0 if saved is None else SavedState.from_bytes(saved.native_state or b"").position

    def call(self, method: str, **params: Any) -> Any:
        """Call a method and return its result as a client sees it."""
        if method == "snapshot.get":
            params = {"snapshot_id": params["id"]}
        work = self._manager.get_snapshot if method == "snapshot.get" else self._methods[method]
        return msgspec.json.decode(msgspec.json.encode(self._runner.run(work(**params))))
