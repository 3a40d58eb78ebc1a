"""A session's screen brought back: what was saved, and what its journal has seen since.

Nothing here is on the event loop: decoding and replaying take some milliseconds each. Whoever
calls holds the session's lock, since a journal is one reader's at a time.
"""

from __future__ import annotations

import os

from msgspec import Struct

from orbitd.live.screen import LiveScreen
from orbitd.store.snapshots import SavedScreen
from orbitd.terminal.emulator import Emulator
from orbitd.terminal.journal import Journal
from orbitd.terminal.model import StateCorrupt
from orbitd.terminal.records import Output
from orbitd.terminal.state import SavedState


class Wanted(Struct, frozen=True, kw_only=True):
    """What a screen is like of which nothing was saved yet, and how much history any may keep."""

    cols: int
    rows: int
    scrollback_max_bytes: int


class Opened(Struct, frozen=True, kw_only=True):
    """A screen, and what of it could not be brought back, as a sentence for the log; "" if it is whole."""

    screen: LiveScreen
    loss: str


def open_screen(journal_path: str, saved: SavedScreen | None, wanted: Wanted) -> Opened:
    """Return a session's screen, ready to go on.

    Args:
        journal_path: The session's; made where there is none.
        saved: The newest good snapshot that orbitd made, if there is one.
        wanted: The rest.

    Raises:
        OSError: The journal cannot be opened.
    """
    emulator, position, loss = _saved_emulator(saved, wanted)
    try:
        journal = Journal(journal_path, covered=position)
        loss = loss or _replay(journal, position, emulator)
    except BaseException:
        emulator.close()
        raise
    return Opened(screen=LiveScreen(emulator, journal), loss=loss)


def look_at(journal_path: str, saved: SavedScreen | None, wanted: Wanted) -> Emulator | None:
    """Return a session's last screen, for looking at only; the caller closes it. None if there never was one.

    Raises:
        OSError: The journal cannot be read.
    """
    if saved is None and not os.path.exists(journal_path):
        return None
    emulator, position, _ = _saved_emulator(saved, wanted)
    if os.path.exists(journal_path):
        with Journal(journal_path, covered=position) as journal:
            _replay(journal, position, emulator)
    return emulator


def _saved_emulator(saved: SavedScreen | None, wanted: Wanted) -> tuple[Emulator, int, str]:
    """Return the emulator that a snapshot holds, the journal's position that it covers, and what is lost."""
    size = wanted.scrollback_max_bytes
    if saved is None:
        return Emulator(wanted.cols, wanted.rows, scrollback_max_bytes=size), 0, ""
    try:
        state = SavedState.from_bytes(saved.native_state or b"")
    except StateCorrupt:
        return _portable(saved, wanted), 0, "history lost, portable screen used"
    try:
        return Emulator.decode(state.native, scrollback_max_bytes=size), state.position, ""
    except StateCorrupt:
        return _portable(saved, wanted), state.position, "history lost, portable screen used"


def _portable(saved: SavedScreen, wanted: Wanted) -> Emulator:
    """Return the emulator that the portable bytes of a snapshot draw."""
    snapshot = saved.snapshot
    size = snapshot.cols or wanted.cols, snapshot.rows or wanted.rows
    emulator = Emulator(*size, scrollback_max_bytes=wanted.scrollback_max_bytes)
    emulator.feed(snapshot.scrollback or b"")
    emulator.feed(snapshot.terminal_buffer)
    emulator.replies()
    return emulator


def _replay(journal: Journal, position: int, emulator: Emulator) -> str:
    """Let an emulator see what the journal has from a position on; return what is lost."""
    for event in journal.events(position):
        if isinstance(event, Output):
            emulator.feed(event.data)
        else:
            emulator.resize(event.cols, event.rows)
    emulator.replies()  # what was asked then was answered then
    return "output is missing between snapshot and journal" if journal.gap(position) else ""
