"""The methods of `history.*`, and `session.screen` of a moment that is past."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import partial

import msgspec
from msgspec.structs import asdict, replace

from orbit_protocol.errors import Busy, InvalidParams, OrbitError
from orbit_protocol.params import HistoryExport, HistoryLinesPage, HistoryOf, SessionScreen
from orbit_protocol.results import (
    BackupResult,
    CheckReport,
    Exported,
    HistoryLine,
    HistoryPage,
    Screen,
    SessionStats,
    Timeline,
)
from orbit_protocol.text import to_text
from orbit_protocol.types import Session
from orbitd.background_tasks import BackgroundTasks
from orbitd.history import lines, timeline
from orbitd.history.database import history_path, milliseconds
from orbitd.history.export import Exporter, read_events
from orbitd.history.forget import Forgetting
from orbitd.history.history import History
from orbitd.history.lines import LINE_BYTES, MAX_PAGE_BYTES
from orbitd.history.scenes import SCENE_SECS, Scenes, no_film
from orbitd.history.search import HistorySearcher
from orbitd.history.styled import styled
from orbitd.manager import SessionManager
from orbitd.screens.model import Cut
from orbitd.screens.render import escape
from orbitd.sessions.methods import drawn_colors, screen_result
from orbitd.sessions.programs import Programs
from orbitd.store.progress import Progress

log = logging.getLogger("orbitd.history")

AHEAD = timedelta(minutes=1)
"""How far the clock of a client on another machine may be ahead."""

FLUSH_SECS = 0.5
"""How long a search waits until what was printed just now is recorded."""

READ_SECS = 10.0
"""How long the lines or the film of one session wait for that."""


class HistoryMethods:
    """Every method of `history.*`.

    Args:
        manager: The store.
        history: The films.
        programs: What runs.
    """

    def __init__(self, manager: SessionManager, history: History, programs: Programs) -> None:
        self._manager = manager
        self._history = history
        self._programs = programs
        self.forgetting = Forgetting(manager, history, programs)
        self.scenes = Scenes(history, programs.screens)
        self._exporter = Exporter(manager, history, self.scenes)
        self.searcher = HistorySearcher(
            manager,
            history.path,
            programs.screens,
            flush=self.flush,
            live_ids=lambda: [live.id for live in programs.registry],
            note_damage=history.note_damage,
        )
        self._tasks = BackgroundTasks(log, "history task failed")

    async def flush(self, session_ids: Iterable[str] | None = None, limit_secs: float = FLUSH_SECS) -> bool:
        """Save what sessions have printed since their last saves; return whether that was done in time.

        Args:
            session_ids: The sessions; None for all.
            limit_secs: How long to wait; the saves go on behind it.
        """
        wanted = None if session_ids is None else set(session_ids)
        changed = [
            live
            for live in self._programs.registry
            # Without a timer the last output is in a save that runs: it is waited for.
            if (wanted is None or live.id in wanted)
            and (live.save.timer is not None or live.save_lock.locked())
            and not live.is_saved
        ]
        if not changed:
            return True
        saved: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        async def save() -> None:  # a task: it goes on where this call gives up
            count = await self._programs.saver.save_all_changed(changed)
            if not saved.done():
                saved.set_result(count)

        self._tasks.start(save())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_secs):
                return await saved == len(changed)
        return False

    async def stats(self, counted: SessionStats) -> SessionStats:
        """Return the store's counts with what histories take."""
        found = None
        with contextlib.suppress(OrbitError):
            found = await self._history.totals()
        return counted if found is None else replace(counted, **asdict(found))

    async def backup(self, path: str, *, with_history: bool, progress: Progress) -> BackupResult:
        """Write a backup, and one of the histories beside it where that is wanted."""
        beside = history_path(path)
        if with_history:
            await self._manager.require_backup_target(beside)
        done = await self._manager.backup(path, progress=progress)
        if not with_history:
            return done
        # Behind the sessions: a film that goes further than its session is what a start expects after a power cut.
        length = await self._history.backup(beside, progress)
        return replace(done, history_path=to_text(os.fsencode(beside)) if length else None, history_bytes=length)

    async def check(self, limit_secs: float | None, progress: Progress) -> CheckReport:
        """Check the store, then the histories in what is left of the time."""
        begun = time.monotonic()
        report = await self._manager.check(limit_secs, progress)
        left = None if limit_secs is None else max(0.0, begun + limit_secs - time.monotonic())
        rows, integrity, is_complete = await self._history.check(left, progress)
        return replace(
            report,
            ok=report.ok and not rows and not integrity,
            rows=[*report.rows, *rows],
            integrity=[*report.integrity, *integrity],
            complete=report.complete and is_complete,
        )

    async def session(self, session_id: str) -> Session:
        """Return a session, an archived one too. Raises: SessionNotFound."""
        return await self._manager.get_session(session_id)

    async def screen(self, q: SessionScreen) -> Screen:
        """Return a session's screen as it was at `q.at`.

        Raises:
            SessionNotFound: There is no such session.
            SnapshotNotFound: There is no film of that moment.
            InvalidParams: It is not past.
            Busy: It cannot be drawn in time.
        """
        assert q.at is not None
        if q.at > datetime.now(UTC) + AHEAD:
            raise InvalidParams("`at` is in the future", hint="Name a moment that is past.")
        await self.session(q.id)
        await self.flush([q.id])
        part = None if q.first_line is None and q.lines is None else Cut(first=q.first_line, lines=q.lines)
        at = milliseconds(q.at)
        live = self._programs.registry.get(q.id)
        colors = drawn_colors(q.theme, None if live is None else live.picture.appearance)
        try:
            async with asyncio.timeout(SCENE_SECS), self.scenes.at(q.id, at) as (picture, reel):
                drawn = await picture.render(
                    reel.end, q.format, scrollback=q.scrollback, cut=part, cursor=q.cursor, colors=colors
                )
        except TimeoutError as error:
            raise Busy("The screen of that moment cannot be drawn now", hint="Ask again.") from error
        return screen_result(drawn, q.format)

    async def lines(self, q: HistoryLinesPage) -> HistoryPage:
        """Return a page of a session's lines. Raises: SessionNotFound, StorageError."""
        await self.session(q.session_id)
        await self.flush([q.session_id], READ_SECS)
        page = partial(
            lines.read_page,
            session_id=q.session_id,
            first=q.first,
            since=None if q.since is None else milliseconds(q.since),
            limit=q.limit,
            note_damage=self._history.note_damage,
        )
        found = await self._history.read(page, HistoryPage(lines=[], first=0, total=0))
        return found if q.format == "text" else await self._styled(q, found)

    async def _styled(self, q: HistoryLinesPage, page: HistoryPage) -> HistoryPage:
        """Return a page of text with the colours of its lines, as far as there is room for them."""
        lines = [(line.line, line.text) for line in page.lines]
        drawn = await styled(self._history, self.scenes, q.session_id, lines, q.format)
        found: list[HistoryLine] = []
        room = MAX_PAGE_BYTES
        for line in page.lines:
            plain = escape(line.text) if q.format == "html" else line.text
            text = drawn.get(line.line, plain)
            size = len(msgspec.json.encode(text)) + LINE_BYTES
            if size > room and found:
                break
            found.append(replace(line, text=text if size <= MAX_PAGE_BYTES else plain))
            room -= size
        return replace(page, lines=found)

    async def timeline(self, q: HistoryOf) -> Timeline:
        """Return what is recorded of a session, and when. Raises: SessionNotFound, StorageError."""
        await self.session(q.session_id)
        await self.flush([q.session_id], READ_SECS)
        events = await read_events(self._manager, q.session_id, timeline.MARKED_KINDS)
        work = partial(timeline.read, session_id=q.session_id, events=events, note_damage=self._history.note_damage)
        return await self._history.read(work, timeline.without_film(events))

    async def export(self, q: HistoryExport, progress: Progress) -> Exported:
        """Write a session's film or lines as a file, or return a page of them.

        Raises:
            SessionNotFound: There is no such session.
            SnapshotNotFound: There is no film.
            InvalidParams: Cursor or path are not to be used.
            StorageError: It cannot be read, or not written.
            Cancelled: The caller wants the file no more.
        """
        session = await self.session(q.session_id)
        if session.config.record == "none":  # lines of none would be an empty file
            raise no_film(session.id, None)
        if q.cursor is None:
            await self.flush([q.session_id], READ_SECS)
        if q.file is not None:
            return await self._exporter.write(session, q, q.file, progress)
        return await self._exporter.page(session, q)
