"""Files that exports are written to: what becomes of those whose caller is gone."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

import pytest

from keeper_support import open_files
from orbit_protocol.params import HistoryExport
from orbit_protocol.settings import HistorySettings
from orbit_protocol.types import Session
from orbitd.history import export
from orbitd.history.history import History
from orbitd.history.scenes import Scenes
from orbitd.manager import SessionManager
from orbitd.store.progress import Progress
from support import WAIT_SECS


class _Store:
    """A store that takes any path."""

    def new_file(self, path: str) -> str:
        return path


class _Exporter(export.Exporter):
    """An exporter of one page."""

    async def _pages(self, session: Session, q: HistoryExport) -> AsyncIterator[tuple[str, None]]:
        yield "page", None


@pytest.mark.parametrize("step", ["_create", "_write", "sync_descriptor"])
async def test_an_export_that_is_given_up_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Its thread goes on: the descriptor is its own until that ends, and then neither it nor a file is left."""
    begun, ends = threading.Event(), threading.Event()
    failed: list[BaseException] = []
    work: Callable[..., Any] = getattr(export, step)

    def slow(*arguments: Any) -> Any:
        begun.set()
        ends.wait(WAIT_SECS)
        try:
            return work(*arguments)
        except OSError as error:
            failed.append(error)
            raise

    monkeypatch.setattr(export, step, slow)
    async with History(str(tmp_path / "history.db"), HistorySettings()) as history:
        await history.in_pool(lambda: None)
        before = open_files()
        exporter = _Exporter(cast(SessionManager, _Store()), history, cast(Scenes, None))
        target = str(tmp_path / "film.cast")
        wanted = HistoryExport(session_id="one", format="asciicast", path=target)
        writing = asyncio.ensure_future(exporter.write(cast(Session, None), wanted, target, Progress()))
        assert await asyncio.to_thread(begun.wait, WAIT_SECS)
        writing.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        ends.set()
        with pytest.raises(asyncio.CancelledError):
            await writing
        await history.close()
        assert failed == []
        assert os.listdir(tmp_path) == []
        assert open_files() == before
