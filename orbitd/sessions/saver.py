"""When live screens are saved, and how.

A session's first output after a save starts a timer; when it fires, the picture is asked for its state, the state is
committed, and the journal's records that it covers are discarded. Output goes on meanwhile. So a silent session costs
nothing, and the saves of many are spread over the interval by when each began to change. A burst of output is saved
earlier. What cannot be saved stays in the journal, and is tried again until it can.
"""

from __future__ import annotations

import asyncio
import logging
import random
from functools import partial

from orbit_protocol.errors import OrbitError, SessionNotFound
from orbitd.background_tasks import BackgroundTasks
from orbitd.history.history import History
from orbitd.logs import event
from orbitd.manager import SessionManager
from orbitd.sessions.news import Outlet
from orbitd.sessions.saved_state import SavedState
from orbitd.sessions.session import LiveSession

log = logging.getLogger("orbitd.sessions")

BURST_SECS = 2.0
MAX_RETRY_SECS = 10.0
CLOSE_SECS = 10.0
SAVE_SECS = 60.0
"""How long a save may take: a picture that broke is rebuilt within it."""


class Saver:
    """Saves the sessions that have changed.

    Args:
        manager: The store.
        history: The films.
        interval_secs: The longest that output is in the journal only.
        outlet: Where events go.
    """

    def __init__(self, manager: SessionManager, history: History, interval_secs: float, outlet: Outlet) -> None:
        self._manager = manager
        self._history = history
        self._outlet = outlet
        self._interval = interval_secs
        self.retry_secs = min(interval_secs, MAX_RETRY_SECS)
        self._tasks = BackgroundTasks(log, "live session task failed")
        self._is_closed = False

    def mark_changed(self, session: LiveSession) -> None:
        """Start the timer of a session that has changed, or shorten it for a burst, or once output was skipped."""
        # Spread at random, so that sessions that began to write together are not saved together for ever.
        plan = session.save
        if plan.timer is None:
            self._start_timer(session, self._interval * random.uniform(0.5, 1.0))  # noqa: S311  # spreads, hides nothing
        # Output that could not be drawn is fed again after a crash of orbitd, until a snapshot is behind it.
        is_urgent = session.journal_bytes > session.save_soon_bytes or session.picture.restart is not None
        if session.is_full or (is_urgent and not plan.is_soon):
            plan.is_soon = True
            if plan.timer is not None:
                plan.timer.cancel()
            self._start_timer(session, 0.0 if session.is_full else min(BURST_SECS, self._interval))

    async def save(self, session: LiveSession, *, limit_secs: float = SAVE_SECS, may_have_ended: bool = True) -> bool:
        """Save a session now, unless it is saved.

        Args:
            session: The session.
            limit_secs: How long that may take.
            may_have_ended: Open its journal again if need be: for one caller alone, who holds its lock. It is removed
                once the last screen is saved, and another object of the session may have it open.

        Returns:
            Whether its history has it too, else its journal is kept, and it is saved once more.

        Raises:
            OrbitError, OSError: It could not be saved; the journal stays, and it is tried again.
        """
        # Cancelled before the picture is asked: output that comes while this waits starts a new timer, for it is
        # not in what is saved.
        self._cancel_timer(session)
        is_recorded = True
        try:
            # One save of a session at a time: a second one would commit its snapshot first, and then this one
            # would be the newest with an older screen. After the wait the first may have saved everything.
            async with asyncio.timeout(limit_secs), session.save_lock:
                if session.is_idle and not may_have_ended:
                    return session.is_saved
                if not session.is_saved:
                    await session.open_files()
                if not session.is_saved:
                    is_recorded = await self._store(session)
        except SessionNotFound:
            raise  # deleted meanwhile
        except Exception as error:
            self._handle_failure(session, error)
            raise
        session.save.failure = ""
        if not is_recorded and session.save.timer is None and not session.is_idle:
            self._start_timer(session, self.retry_secs)
        return is_recorded

    async def _store(self, session: LiveSession) -> bool:
        if session.is_private:
            saved = await session.picture.save(session.mark())
            await session.save_in_memory(saved)
            session.handle_saved(saved.position)
            return True
        recording = await self._history.recording(session.id)
        saved = await session.picture.save(
            session.mark_if_open(),
            key_frame=session.record == "full"
            and (recording.wants_key_frame or session.gap(recording.recorded_to) > 0),
            text_from=recording.recorded_to,
        )
        # What is said before the position was passed on before it, and has to be committed before it.
        session.news.save()
        await self._outlet.settle()
        # The film first, the journal last: see `History`.
        readers = partial(session.journal_readers, newest=False)
        is_recorded = await self._history.record(session.id, session.record, readers, saved)
        recording = await self._history.recording(session.id)
        session.handle_recorded(recording.recorded_to, recording.next_line)
        # Commit first, then discard the records: a crash in between leaves both, and the snapshot's
        # position makes the restore skip what it covers.
        await self._manager.save_snapshot(
            session.id,
            saved.portable,
            cols=saved.cols,
            rows=saved.rows,
            format="vt",
            native_state=SavedState(native=saved.native, position=saved.position).to_bytes(),
            title=saved.title or None,
            cwd=session.cwd_to_save,
        )
        if is_recorded:
            session.handle_saved(saved.position)
        return is_recorded

    async def save_now(self, session: LiveSession) -> None:
        """Save a session, whose lock for saves the caller holds, whether it has changed or not. Raises: as `save`."""
        self._cancel_timer(session)
        await self._store(session)

    async def save_all_changed(self, sessions: list[LiveSession]) -> int:
        """Save those that have changed, and return how many. Failures are logged, and tried again.

        A save that runs already counts, and is waited for: its session has a timer only if there was output since.
        """
        changed = [session for session in sessions if session.save.timer is not None or session.save_lock.locked()]
        return sum(await asyncio.gather(*(self._try_save(session) for session in changed)))

    async def close(self) -> None:
        """Start no more saves, and wait for those that run."""
        self._is_closed = True
        await self._tasks.finish(grace_secs=CLOSE_SECS)
        await self._tasks.cancel()

    def _cancel_timer(self, session: LiveSession) -> None:
        plan = session.save
        plan.is_soon = False
        if plan.timer is not None:
            plan.timer.cancel()
            plan.timer = None

    def _start_timer(self, session: LiveSession, delay: float) -> None:
        if not self._is_closed:
            session.save.timer = asyncio.get_running_loop().call_later(delay, self._start, session)

    def _start(self, session: LiveSession) -> None:
        if not self._is_closed:
            self._tasks.start(self._try_save(session))

    async def _try_save(self, session: LiveSession) -> bool:
        try:
            return await self.save(session, may_have_ended=False)
        except Exception:  # noqa: BLE001  # logged by `_handle_failure`; the journal has the output
            return False

    def _handle_failure(self, session: LiveSession, error: Exception) -> None:
        """Record a failure, log it if it is a new one, and schedule the next try."""
        reason = error.message if isinstance(error, OrbitError) else type(error).__name__
        if isinstance(error, OSError) and error.strerror:
            reason = error.strerror
        level = logging.DEBUG if session.save.failure == reason else logging.ERROR
        event(log, level, "screen not saved", session=session.id, error=reason, exc=error)
        session.save.failure = reason
        if session.save.timer is None and not session.is_idle:
            self._start_timer(session, self.retry_secs)
