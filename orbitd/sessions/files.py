"""What of a session is on disk: its newest good snapshot, and its journal, with what was kept aside of it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from datetime import UTC, datetime

from msgspec import Struct
from msgspec.structs import replace

from orbit_os.files import UnsafeFile, UnsafeFolder, private_folder
from orbit_protocol.errors import SnapshotCorrupt, SpawnFailed
from orbit_protocol.types import Record, Session
from orbitd.descriptors import too_many
from orbitd.history.history import History
from orbitd.logs import event
from orbitd.manager import SessionManager
from orbitd.screens.client import Loaded, Recorded
from orbitd.screens.messages import Base
from orbitd.screens.model import StateCorrupt
from orbitd.sessions import journal
from orbitd.sessions.command_line import last_size
from orbitd.sessions.journal import Journal
from orbitd.sessions.journal_file import FILE_HEADER_BYTES, Output, records_of
from orbitd.sessions.journal_repair import (
    UNREADABLE,
    Damage,
    damaged_journals,
    remove_oldest_unreadable,
    session_of,
    unreadable_journals,
)
from orbitd.sessions.saved_state import SavedState
from orbitd.sessions.terminal import Pending
from orbitd.store.snapshots import SavedScreen

log = logging.getLogger("orbitd.sessions")

MAX_WARNINGS = 20
"""How many files that were kept aside are named one by one."""

_NOT_THE_COMMAND = "Put that right, then start the session again."


class OpenFiles(Struct, frozen=True, kw_only=True):
    """A session's files, ready to go on.

    Attributes:
        journal: Open; None where there is none and none was to be created.
        loaded: What a picture is built on.
        size: Columns and rows of the screen, as far as the store knows.
        session: Its row.
        record: What is recorded of it.
        recorded: What of it is in its history.
        heard: The position up to which what its programs say is stored.
    """

    journal: Journal | None
    loaded: Loaded
    size: tuple[int, int]
    session: Session
    record: Record
    recorded: Recorded
    heard: int


class SessionFiles:
    """The files of all sessions.

    Args:
        manager: Has the snapshots.
        history: Has the films.
        folder: Has the journals; created, and made private, when the first is needed.
    """

    def __init__(self, manager: SessionManager, history: History, folder: str) -> None:
        self._manager = manager
        self._history = history
        self._folder = folder
        self._gaps: dict[str, int] = {}
        self.in_trash: set[str] = set()  # whose files wait with them, and concern nobody now

    async def open(self, session_id: str, *, create: bool) -> OpenFiles:
        """Read a session's newest good snapshot, and open its journal. One journal is open once at a time.

        Args:
            session_id: The session.
            create: Create a journal where there is none.

        Raises:
            SessionNotFound: There is no such session any more.
            SpawnFailed: The journal cannot be opened.
        """
        session = await self._manager.get_session(session_id)
        loaded = _loaded(await self._newest_good(session_id), session)
        recording = await self._history.recording(session_id)
        has_journal = self.has_journal(session_id)
        if not loaded.position and not has_journal:
            # Its snapshots were deleted, say. Positions go on behind the film, whose are never used again.
            loaded = replace(loaded, position=recording.recorded_to)
        path = self._journal_path(session_id)
        size = session.cols or loaded.base.cols, session.rows or loaded.base.rows
        record = self._history.record_of(session.config.record)
        recorded = Recorded(takes_text=record != "none", position=recording.recorded_to, line=recording.next_line)
        if not create and not has_journal:
            return OpenFiles(
                journal=None,
                loaded=loaded,
                size=size,
                session=session,
                record=record,
                recorded=recorded,
                heard=loaded.position,
            )
        heard = await self._manager.newest_position(session_id) or 0
        try:
            # The parent too: a user who can write to it can replace the folder.
            private_folder(os.path.dirname(self._folder))
            private_folder(self._folder)
            # In a thread: a journal that was not closed is read from its beginning to its end.
            opened = await asyncio.to_thread(Journal, path, covered=loaded.position)
        except OSError as error:
            raise too_many(error, "The session's journal cannot be opened") or SpawnFailed(
                f"The session's journal cannot be opened: {path}: {error.strerror}", hint=_NOT_THE_COMMAND
            ) from error
        except (UnsafeFolder, UnsafeFile) as error:
            raise SpawnFailed(f"The session's screen cannot be restored: {error}", hint=_NOT_THE_COMMAND) from error
        await self._complete(session_id, opened, recording.recorded_to)
        if missing := opened.gap(loaded.position):
            self._gaps[session_id] = missing
            words = "output is missing between snapshot and journal"
            event(log, logging.WARNING, words, session=session_id, bytes=missing)
        _log_damage(session_id, opened.damage)
        # A journal that begins anew counts from 0 again: what is said in it has not been heard.
        heard = min(heard, opened.position)
        return OpenFiles(
            journal=opened,
            loaded=loaded,
            size=size,
            session=session,
            record=record,
            recorded=recorded,
            heard=heard,
        )

    async def _complete(self, session_id: str, opened: Journal, recorded_to: int) -> None:
        """Put back what a power cut has taken from the end of a journal and the film has: it is synced, and that not.

        Positions behind the film's are never those of other output.
        """
        lost = recorded_to - opened.position
        if lost <= 0:
            return
        data = await self._history.records(session_id, opened.position, recorded_to)
        await asyncio.to_thread(opened.append_lost, data if data is not None and len(data) == lost else b"", lost)
        event(log, logging.WARNING, "journal completed from the film", session=session_id, bytes=lost)

    async def load(self, session_id: str) -> Loaded:
        """Return what a session's picture is built on. Raises: SessionNotFound."""
        session = await self._manager.get_session(session_id)
        return _loaded(await self._newest_good(session_id), session)

    def has_journal(self, session_id: str) -> bool:
        """Return whether a session has a journal."""
        return os.path.lexists(self._journal_path(session_id))

    def is_journal_empty(self, session_id: str) -> bool:
        """Return whether a session's journal, which is there, holds nothing."""
        try:
            return os.lstat(self._journal_path(session_id)).st_size <= FILE_HEADER_BYTES
        except OSError:
            return False

    def unsaved(self) -> set[str]:
        """Return the sessions whose journals hold anything."""
        found = set()
        with contextlib.suppress(OSError), os.scandir(self._folder) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if entry.name == session_of(entry.name) and entry.stat().st_size > FILE_HEADER_BYTES:
                        found.add(entry.name)
        return found

    def sessions_on_disk(self) -> set[str]:
        """Return the ids of the sessions that have files here."""
        try:
            return {session_of(name) for name in os.listdir(self._folder)}
        except OSError:
            return set()

    def remove_journal(self, session_id: str, *, kept_aside: bool = False) -> None:
        """Remove the journal of a session whose screen is saved; with `kept_aside` all files of one that is deleted.

        A journal that cannot be removed is logged: its records are skipped, as the snapshot has them.
        """
        if kept_aside:
            self._gaps.pop(session_id, None)
            self.in_trash.discard(session_id)
        try:
            journal.delete(self._journal_path(session_id), kept_aside=kept_aside)
        except OSError as error:
            event(log, logging.ERROR, "journal not removed", session=session_id, error=error.strerror)

    def keep_unreadable(self, session_id: str, opened: Journal, start: int, end: int) -> None:
        """Keep records that could not be drawn in a file of their own, a journal like any other."""
        path = self._unreadable_path(session_id)
        try:
            kept = journal.copy_records(opened, start, end, path)
            if not kept:
                os.unlink(path)
                event(log, logging.ERROR, "output that was not drawn is gone", session=session_id, bytes=end - start)
                return
        except (OSError, UnsafeFile) as error:
            event(log, logging.ERROR, "output that was not drawn is not kept", session=session_id, exc=error)
        else:
            remove_oldest_unreadable(self._journal_path(session_id))
            event(log, logging.ERROR, "output that was not drawn is kept", session=session_id, kept=path, bytes=kept)

    def keep_landing(self, pending: Pending) -> None:
        """Keep output whose journal cannot be opened in a file of its own, a journal like any other."""
        path = self._unreadable_path(pending.session)
        try:
            journal.write_records(path, pending.position, records_of(Output(data=pending.data)))
        except (OSError, UnsafeFile) as error:
            event(log, logging.ERROR, "output that was not recorded is not kept", session=pending.session, exc=error)

    def warnings(self) -> list[str]:
        """Return a sentence about each file that was kept aside, and about output that is missing."""
        sentences = [
            f"The journal of session {session_of(os.path.basename(path))} was damaged: some of its output may be "
            f"missing from its screen. It lies in {path}, unchanged; move it away when you need it no more."
            for path in damaged_journals(self._folder)
            if session_of(os.path.basename(path)) not in self.in_trash
        ]
        sentences += [
            f"Some output of session {session_of(os.path.basename(path))} could not be drawn: its screen goes on blank "
            f"behind it. The output lies in {path}; move it away when you need it no more."
            for path in unreadable_journals(self._folder)
            if session_of(os.path.basename(path)) not in self.in_trash
        ]
        sentences += [
            f"{missing:,} bytes of what the program of session {session_id} printed are missing from its screen: its "
            "newest snapshot ends before its journal begins, as where an older database takes the place of a newer "
            "one, which had them."
            for session_id, missing in self._gaps.items()
            if session_id not in self.in_trash
        ]
        if len(sentences) > MAX_WARNINGS:
            more = len(sentences) - MAX_WARNINGS
            sentences[MAX_WARNINGS:] = [
                f"{more} more warnings of this kind: journals that were kept aside lie in {self._folder}, and "
                "`orbitctl daemon logs` names the sessions whose output is missing."
            ]
        return sentences

    async def _newest_good(self, session_id: str) -> SavedScreen | None:
        """Return the newest good snapshot; log where a newer one is damaged. Raises: SessionNotFound."""
        try:
            return await self._manager.load_latest_screen(session_id)
        except SnapshotCorrupt as error:
            good = error.extra.get("good_snapshot_id")
            event(log, logging.ERROR, "newest snapshot is damaged", session=session_id, used=good)
            return await self._manager.get_screen(good) if good else None

    def _journal_path(self, session_id: str) -> str:
        return os.path.join(self._folder, session_id)

    def _unreadable_path(self, session_id: str) -> str:
        return f"{self._journal_path(session_id)}{UNREADABLE}{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"


def _loaded(saved: SavedScreen | None, session: Session) -> Loaded:
    cols, rows = last_size(session)
    if saved is None:
        return Loaded(base=Base(cols=cols, rows=rows), position=0)
    native, position = b"", 0
    with contextlib.suppress(StateCorrupt):
        state = SavedState.from_bytes(saved.native_state or b"")
        native, position = state.native, state.position
    snapshot = saved.snapshot
    base = Base(
        cols=snapshot.cols or cols,
        rows=snapshot.rows or rows,
        native=native,
        portable=(snapshot.scrollback or b"") + snapshot.terminal_buffer,
    )
    return Loaded(base=base, position=position)


def _log_damage(session_id: str, damage: Damage | None) -> None:
    if damage is not None:
        event(
            log,
            logging.ERROR,
            "journal damaged",
            session=session_id,
            reason=damage.reason,
            kept=damage.path,
            lost_bytes=damage.lost_bytes,
            oldest_removed=damage.removed,
        )
