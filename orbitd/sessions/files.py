"""What of a session is on disk: its newest good snapshot, and its journal, with what was kept aside of it.

Of a private session nothing is: what stands in their place is memory that the keeper holds (`private_memory`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime

from msgspec import Struct
from msgspec.structs import replace

from orbit_os.files import UnsafeFile, UnsafeFolder, private_folder
from orbit_protocol.errors import LiveUnavailable, SessionNotFound, SnapshotCorrupt, SpawnFailed
from orbit_protocol.types import Record, Session
from orbitd.background_tasks import finished
from orbitd.descriptors import too_many
from orbitd.history.history import History
from orbitd.keeper.client import UnsupportedRequest
from orbitd.logs import event
from orbitd.manager import SessionManager
from orbitd.screens.client import Loaded, Recorded
from orbitd.screens.messages import Base, Saved
from orbitd.screens.model import StateCorrupt
from orbitd.sessions import journal
from orbitd.sessions.command_line import last_size
from orbitd.sessions.journal import Journal
from orbitd.sessions.journal_file import FILE_HEADER_BYTES, Output, records_of
from orbitd.sessions.journal_repair import (
    UNREADABLE,
    Damage,
    damaged_journals,
    remove_damaged,
    remove_oldest_unreadable,
    session_of,
    unreadable_journals,
)
from orbitd.sessions.private_memory import JOURNAL, SCREENS, PrivateJournal, read_screen, write_screen
from orbitd.sessions.saved_state import SavedState
from orbitd.sessions.terminal import Pending
from orbitd.store.snapshots import SavedScreen

log = logging.getLogger("orbitd.sessions")

MAX_WARNINGS = 20
"""How many files that were kept aside are named one by one."""

_NOT_THE_COMMAND = "Put that right, then start the session again."


MAX_LOST_BYTES = 64 << 20
"""More than a power cut takes from a journal, which is saved every four megabytes: so much of it is read of a film."""


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
        memory: Returns a descriptor of a memory that the keeper holds, by a session's id and a name.
        memory_max_bytes: About how much of it the journal of a private session may take.

    Attributes:
        private: Sessions that are known to be private, whatever the store knows of them.
    """

    def __init__(
        self,
        manager: SessionManager,
        history: History,
        folder: str,
        memory: Callable[[str, str], Awaitable[int]] | None = None,
        memory_max_bytes: int = 0,
    ) -> None:
        self._manager = manager
        self._history = history
        self._folder = folder
        self._memory = memory
        self._memory_max_bytes = memory_max_bytes
        self.private: set[str] = set()
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
            LiveUnavailable, KeeperGone: Of a private session: the keeper has no memory for it, or does not answer.
        """
        session = await self._manager.get_session(session_id)
        if is_private(session):
            return await self._open_private(session, create=create)
        self._history.expect(session_id)
        loaded = _loaded(await self._newest_good(session_id), session)
        recording = await self._history.recording(session_id)
        has_journal = self.has_journal(session_id)
        missing = recording.recorded_to - loaded.position
        if not has_journal and (not loaded.position or missing > MAX_LOST_BYTES):
            # Its snapshots were deleted, or older ones restored. Positions go on behind the film, whose are never used
            # again.
            loaded = replace(loaded, position=recording.recorded_to)
            recording.group = 0  # its last screen is another one: what comes now cannot be drawn on that
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
        try:
            await self._complete(session_id, opened, recording.recorded_to)
        except BaseException:
            opened.close()
            raise
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
        if is_private(session):
            return await self._load_private(session)
        return _loaded(await self._newest_good(session_id), session)

    async def _open_private(self, session: Session, *, create: bool) -> OpenFiles:
        """Open the journal of a private session in memory; one without a program has none, and no screen."""
        loaded = await self._load_private(session) if create else _loaded(None, session)
        size = session.cols or loaded.base.cols, session.rows or loaded.base.rows
        if not create:
            return OpenFiles(
                journal=None,
                loaded=loaded,
                size=size,
                session=session,
                record="none",
                recorded=Recorded(),
                heard=0,
            )
        fd = await self._memory_of(session.id, JOURNAL)
        try:
            opened = await asyncio.to_thread(
                PrivateJournal, fd, covered=loaded.position, max_bytes=self._memory_max_bytes
            )
        except OSError as error:
            raise SpawnFailed(f"The session's memory cannot be used: {error.strerror}") from error
        # Nothing that its programs say is stored: what was said under an earlier daemon has been.
        return OpenFiles(
            journal=opened,
            loaded=loaded,
            size=size,
            session=session,
            record="none",
            recorded=Recorded(),
            heard=opened.position,
        )

    async def _load_private(self, session: Session) -> Loaded:
        async with self._screens_of(session.id) as memories:
            loaded = await finished(asyncio.to_thread(read_screen, memories))
        return loaded or _loaded(None, session)

    async def save_private(self, session_id: str, saved: Saved) -> None:
        """Keep the screen of a private session in memory.

        Raises:
            OSError: There is no memory left for it; the one before stays.
            LiveUnavailable, KeeperGone: The keeper does not answer.
        """
        async with self._screens_of(session_id) as memories:
            await finished(asyncio.to_thread(write_screen, memories, saved))

    @contextlib.asynccontextmanager
    async def _screens_of(self, session_id: str) -> AsyncIterator[list[int]]:
        memories: list[int] = []
        try:
            for name in SCREENS:
                memories.append(await self._memory_of(session_id, name))  # noqa: PERF401  # those before a failure are closed
            yield memories
        finally:
            for fd in memories:
                os.close(fd)

    async def _memory_of(self, session_id: str, name: str) -> int:
        self.private.add(session_id)
        if self._memory is None:
            raise no_memory("there is no keeper")
        try:
            return await self._memory(session_id, name)
        except UnsupportedRequest as error:
            raise no_memory(
                "this system has no memory that outlives a process (memfd_create)"
                if error.message.startswith("memory")
                else "the keeper that runs is of an earlier Orbit; it is a new one once all sessions have ended"
            ) from error

    async def is_private(self, session_id: str) -> bool:
        """Return whether nothing of a session may be written to the disk; one whose row cannot be read may be."""
        if session_id in self.private:
            return True
        with contextlib.suppress(SessionNotFound):
            return is_private(await self._manager.get_session(session_id))
        return False

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
            self.private.discard(session_id)
            self.in_trash.discard(session_id)
        try:
            journal.delete(self._journal_path(session_id), kept_aside=kept_aside)
        except OSError as error:
            event(log, logging.ERROR, "journal not removed", session=session_id, error=error.strerror)

    def remove_kept_aside(self, session_id: str) -> list[str]:
        """Remove the pieces of a session's journal that were kept aside; return those that cannot be removed."""
        self._gaps.pop(session_id, None)
        path = self._journal_path(session_id)
        remove_damaged(path)
        pieces = [*damaged_journals(self._folder), *unreadable_journals(self._folder)]
        return [each for each in pieces if session_of(os.path.basename(each)) == session_id]

    def keep_unreadable(self, session_id: str, opened: Journal, start: int, end: int) -> None:
        """Keep records that could not be drawn in a file of their own, a journal like any other."""
        if session_id in self.private:
            event(log, logging.ERROR, "output that was not drawn is gone", session=session_id, bytes=end - start)
            return
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

    async def keep_landing(self, pending: Pending) -> None:
        """Keep output whose journal cannot be opened in a file of its own, a journal like any other."""
        if await self.is_private(pending.session):
            return
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


def is_private(session: Session) -> bool:
    """Return whether nothing of what a session shows may be written to the disk."""
    return session.config.record == "none"


def no_memory(reason: str) -> LiveUnavailable:
    """Return the error of a private session that there is no memory for: it is refused, and never recorded."""
    words = f"A private session cannot run here: {reason}"
    unavailable = LiveUnavailable(words, hint="Run one that is not private.", data={"reason": reason})
    unavailable.retryable = False
    return unavailable


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
