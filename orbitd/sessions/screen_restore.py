"""A session's screen restored: its newest good snapshot, and the journal since then replayed on it.

Call these under the session's lock, since a journal is open once at a time. Decoding and
replaying take some milliseconds each, and run in a thread.
"""

from __future__ import annotations

import asyncio
import logging
import os

from msgspec import Struct

from orbit_os.files import UnsafeFolder, private_folder
from orbit_protocol.errors import SnapshotCorrupt, SnapshotNotFound, SpawnFailed
from orbit_protocol.types import Session
from orbitd.logs import event
from orbitd.manager import SessionManager
from orbitd.screens.emulator import Emulator, unavailable_reason
from orbitd.screens.model import StateCorrupt, TerminalError
from orbitd.sessions import journal
from orbitd.sessions.journal import Journal
from orbitd.sessions.journal_file import Output
from orbitd.sessions.journal_repair import Damage, damaged_journals, session_of
from orbitd.sessions.saved_state import SavedState
from orbitd.sessions.screen import LiveScreen
from orbitd.store.snapshots import SavedScreen

log = logging.getLogger("orbitd.sessions")

MAX_WARNINGS = 20
"""How many damaged journals are named one by one."""


class ScreenDefaults(Struct, frozen=True, kw_only=True):
    """The size of a screen that was never saved, and how much history any screen keeps in memory."""

    cols: int
    rows: int
    scrollback_max_bytes: int


class RestoredScreen(Struct, frozen=True, kw_only=True):
    """A screen, and what of it could not be restored, as a message for the log; "" if nothing is missing."""

    screen: LiveScreen
    loss: str
    damage: Damage | None


class ReadScreen(Struct, frozen=True, kw_only=True):
    """A screen to be read only, and what was wrong with its journal, if anything."""

    emulator: Emulator
    damage: Damage | None


class SavedScreens:
    """The screens of all sessions, on disk.

    Args:
        manager: Has the snapshots.
        folder: Has the journals; created, and made private, when the first is needed.
        scrollback_max_bytes: The most history that one screen keeps in memory.
    """

    def __init__(self, manager: SessionManager, folder: str, scrollback_max_bytes: int) -> None:
        self._manager = manager
        self._folder = folder
        self._scrollback_max_bytes = scrollback_max_bytes

    async def restore(self, session: Session) -> LiveScreen:
        """Return a session's last screen, or an empty one, for a program to continue on.

        Raises:
            SessionNotFound: There is no such session any more.
            SpawnFailed: Its journal cannot be opened, or what is in it not be drawn.
        """
        saved, path = await self._newest_good(session.id), self._journal_path(session.id)
        try:
            # The parent too: a user who can write to it can replace the folder.
            private_folder(os.path.dirname(self._folder))
            private_folder(self._folder)
            restored = await asyncio.to_thread(restore_screen, path, saved, self._defaults(session))
        except OSError as error:
            raise SpawnFailed(f"The session's journal cannot be opened: {path}: {error.strerror}") from error
        except (UnsafeFolder, TerminalError) as error:
            raise SpawnFailed(f"The session's screen cannot be restored: {error}") from error
        if restored.loss:
            event(log, logging.WARNING, restored.loss, session=session.id)
        _log_damage(session.id, restored.damage)
        return restored.screen

    async def restore_for_reading(self, session: Session) -> Emulator:
        """Return a session's last screen to be read only; the caller closes it. Raises: SnapshotNotFound."""
        reason = unavailable_reason()
        if reason is not None:
            raise SnapshotNotFound(f"No screen can be drawn here: {reason}")
        saved = await self._newest_good(session.id)
        path, defaults = self._journal_path(session.id), self._defaults(session)
        try:
            read = await asyncio.to_thread(restore_emulator, path, saved, defaults)
        except (OSError, UnsafeFolder, TerminalError) as error:
            reason = str(error.strerror if isinstance(error, OSError) else error)
            raise SnapshotNotFound(f"The screen of session {session.id} cannot be restored: {reason}") from error
        if read is None:
            raise SnapshotNotFound(f"Nothing of the screen of session {session.id} was ever saved")
        _log_damage(session.id, read.damage)
        return read.emulator

    def remove_journal(self, session_id: str, *, kept_aside: bool = False) -> None:
        """Remove the journal of a session whose screen is saved; with `kept_aside` all files of one that is deleted.

        A journal that cannot be removed is logged: its records are skipped, as the snapshot has them.
        """
        try:
            journal.delete(self._journal_path(session_id), kept_aside=kept_aside)
        except OSError as error:
            event(log, logging.ERROR, "journal not removed", session=session_id, error=error.strerror)

    def sessions_on_disk(self) -> set[str]:
        """Return the ids of the sessions that have files here."""
        try:
            return {session_of(name) for name in os.listdir(self._folder)}
        except OSError:
            return set()

    def warnings(self) -> list[str]:
        """Return a sentence about each damaged journal that lies here."""
        found = damaged_journals(self._folder)
        sentences = [
            f"The journal of session {session_of(os.path.basename(path))} was damaged: some of its output may be "
            f"missing from its screen. It lies in {path}, unchanged; move it away when you need it no more."
            for path in found[:MAX_WARNINGS]
        ]
        if len(found) > MAX_WARNINGS:
            sentences.append(f"{len(found) - MAX_WARNINGS} more damaged journals lie in {self._folder}.")
        return sentences

    async def _newest_good(self, session_id: str) -> SavedScreen | None:
        """Return the newest good snapshot; log where a newer one is damaged. Raises: SessionNotFound."""
        try:
            return await self._manager.load_latest_screen(session_id)
        except SnapshotCorrupt as error:
            good = error.extra.get("good_snapshot_id")
            event(log, logging.ERROR, "newest snapshot is damaged", session=session_id, used=good)
            return await self._manager.get_screen(good) if good else None

    def _defaults(self, session: Session) -> ScreenDefaults:
        return ScreenDefaults(
            cols=session.cols or 80, rows=session.rows or 24, scrollback_max_bytes=self._scrollback_max_bytes
        )

    def _journal_path(self, session_id: str) -> str:
        return os.path.join(self._folder, session_id)


def restore_screen(journal_path: str, saved: SavedScreen | None, defaults: ScreenDefaults) -> RestoredScreen:
    """Return a session's screen with its journal open.

    Args:
        journal_path: The session's; created where there is none.
        saved: The newest good snapshot that orbitd made, if there is one.
        defaults: For what is not in it.

    Raises:
        OSError, UnsafeFile: The journal cannot be opened.
        TerminalError: What is in it cannot be drawn.
    """
    emulator, position, loss = _saved_emulator(saved, defaults)
    try:
        opened = Journal(journal_path, covered=position)
        try:
            loss = loss or _replay(opened, position, emulator)
        except BaseException:
            opened.close()
            raise
    except BaseException:
        emulator.close()
        raise
    return RestoredScreen(screen=LiveScreen(emulator, opened), loss=loss, damage=opened.damage)


def restore_emulator(journal_path: str, saved: SavedScreen | None, defaults: ScreenDefaults) -> ReadScreen | None:
    """Return a session's last screen; the caller closes its emulator. None if it never had one.

    Raises:
        OSError, UnsafeFile: The journal cannot be read.
        TerminalError: What is in it cannot be drawn.
    """
    has_journal = os.path.lexists(journal_path)
    if saved is None and not has_journal:
        return None
    emulator, position, _ = _saved_emulator(saved, defaults)
    damage = None
    if has_journal:
        try:
            with Journal(journal_path, covered=position) as opened:
                damage = opened.damage
                _replay(opened, position, emulator)
        except BaseException:
            emulator.close()
            raise
    return ReadScreen(emulator=emulator, damage=damage)


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


def _saved_emulator(saved: SavedScreen | None, defaults: ScreenDefaults) -> tuple[Emulator, int, str]:
    """Return a snapshot's emulator, the journal's position that it covers, and what is lost."""
    size = defaults.scrollback_max_bytes
    if saved is None:
        return Emulator(defaults.cols, defaults.rows, scrollback_max_bytes=size), 0, ""
    try:
        state = SavedState.from_bytes(saved.native_state or b"")
    except StateCorrupt:
        return _emulator_from_repaint(saved, defaults), 0, "history lost, portable screen used"
    # Without one, it could not be encoded, and the portable bytes have the history too (`LiveScreen.capture`).
    if not state.native:
        return _emulator_from_repaint(saved, defaults), state.position, ""
    try:
        return Emulator.decode(state.native, scrollback_max_bytes=size), state.position, ""
    except StateCorrupt:
        # Written by another version of the library. The envelope is ours, so the position still holds.
        return _emulator_from_repaint(saved, defaults), state.position, "history lost, portable screen used"


def _emulator_from_repaint(saved: SavedScreen, defaults: ScreenDefaults) -> Emulator:
    """Return an emulator that was fed the portable bytes of a snapshot."""
    snapshot = saved.snapshot
    size = snapshot.cols or defaults.cols, snapshot.rows or defaults.rows
    emulator = Emulator(*size, scrollback_max_bytes=defaults.scrollback_max_bytes)
    emulator.feed(snapshot.scrollback or b"")
    emulator.feed(snapshot.terminal_buffer)
    emulator.replies()
    return emulator


def _replay(opened: Journal, position: int, emulator: Emulator) -> str:
    """Feed an emulator the journal's events from a position on; return what is lost."""
    for recorded in opened.events(position):
        if isinstance(recorded, Output):
            emulator.feed(recorded.data)
        else:
            emulator.resize(recorded.cols, recorded.rows)
    emulator.replies()  # dropped: the queries in the journal were answered when they came
    return "output is missing between snapshot and journal" if opened.gap(position) else ""
