"""Pictures of the past: a key frame and the film behind it, drawn by a screens process as a session's own picture is.

What the library crashes on, it crashes on here too: `orbitd.screens.client` skips it in the same way, and no other
picture is touched.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial

from msgspec import Struct

from orbit_protocol.errors import SnapshotNotFound
from orbitd.history import film
from orbitd.history.database import Group, NoteDamage
from orbitd.history.history import History
from orbitd.screens.client import Loaded, Picture, Recorded, Screens
from orbitd.screens.messages import Base, Fed
from orbitd.sessions.journal_file import file_header

SCENE_SECS = 20.0
"""How long a picture of the past may take: what crashes the library is tried again."""


class Reel(Struct, frozen=True, kw_only=True):
    """A part of a film, ready to be played: a key frame, and a file of the records behind it.

    Attributes:
        descriptor: Of a journal without a name that begins at the key frame.
        end: The position behind its last record.
        to_at: When the last output in it came, in milliseconds since the epoch.
    """

    group: Group
    descriptor: int
    end: int
    to_at: int


class _Source:
    """What a `Picture` asks its session for."""

    def __init__(self, name: str, reel: Reel) -> None:
        self._name = name
        self._reel = reel
        self.recorded = Recorded()

    @property
    def id(self) -> str:
        return self._name

    @property
    def size(self) -> tuple[int, int]:
        return self._reel.group.cols, self._reel.group.rows

    @property
    def position(self) -> int:
        return self._reel.end

    @property
    def filed_position(self) -> int:
        return self._reel.end

    async def load_picture(self) -> Loaded:
        group = self._reel.group
        base = Base(cols=group.cols, rows=group.rows, native=group.native)
        return Loaded(base=base, position=group.position)

    def journal_readers(self, *, newest: bool) -> list[tuple[int, int]]:
        return [(os.dup(self._reel.descriptor), self._reel.group.position)]

    def gap(self, since: int) -> int:
        return 0

    def handle_fed(self, replies: bytes) -> None:
        """The answers were given when the questions were asked."""

    def handle_said(self, fed: Fed) -> None:
        """All of it has been heard."""

    def handle_skipped(self, start: int, end: int) -> None:
        """The film keeps it."""


class Scenes:
    """Draws pictures of the past.

    Args:
        history: The films.
        screens: Where pictures are drawn.
    """

    def __init__(self, history: History, screens: Screens) -> None:
        self._history = history
        self._screens = screens
        self._numbers = itertools.count(1)

    @contextlib.asynccontextmanager
    async def at(self, session_id: str, at: int) -> AsyncIterator[tuple[Picture, Reel]]:
        """Hold the picture of a session as it was at a moment; ask it for what is wanted at `Reel.end`.

        Args:
            session_id: The session.
            at: Milliseconds since the epoch.

        Raises:
            SnapshotNotFound: There is no film of that moment; the message says from when on there is one.
            StorageCorrupt, StorageError: The history cannot be read.
        """
        reel = await read_reel(
            self._history, partial(_reel, session_id=session_id, at=at, note_damage=self._history.note_damage)
        )
        if reel is None:
            found = await self._history.read(partial(film.extent, session_id=session_id), None)
            raise no_film(session_id, found)
        async with self.playing(session_id, reel) as picture:
            yield picture, reel

    @contextlib.asynccontextmanager
    async def playing(self, session_id: str, reel: Reel) -> AsyncIterator[Picture]:
        """Hold the picture of a reel, whose descriptor is closed at the end."""
        source = _Source(f"{session_id}@{next(self._numbers)}", reel)
        picture = Picture(source, self._screens)
        picture.starts_at(reel.group.position, reel.end, reel.end)
        try:
            yield picture
        finally:
            picture.close()
            os.close(reel.descriptor)


async def read_reel(history: History, work: Callable[[sqlite3.Connection], Reel | None]) -> Reel | None:
    """Read a reel in a thread, which nobody can stop: of a call that is given up meanwhile, it is closed."""
    reading = asyncio.ensure_future(history.read(work, None))
    try:
        return await asyncio.shield(reading)
    except asyncio.CancelledError:
        reading.add_done_callback(_close_unused)
        raise


def _close_unused(reading: asyncio.Future[Reel | None]) -> None:
    if not reading.cancelled() and reading.exception() is None and (reel := reading.result()) is not None:
        os.close(reel.descriptor)


def no_film(session_id: str, extent: tuple[int, int] | None) -> SnapshotNotFound:
    """Return the error for a moment that no film has."""
    if extent is None:
        return SnapshotNotFound(
            f"Nothing is recorded of session {session_id}",
            hint="`orbitctl session screen` shows its screen as it is now.",
        )
    return SnapshotNotFound(f"The film of session {session_id} begins later", data={"since_ms": extent[0]})


def _reel(connection: sqlite3.Connection, session_id: str, at: int, note_damage: NoteDamage) -> Reel | None:
    group = film.group_at(connection, session_id, at, note_damage)
    if group is None:
        return None
    return reel_of(group, film.until(film.parts_of(connection, group, note_damage), at))


def reel_of(group: Group, parts: Iterator[film.Part]) -> Reel:
    """Return a reel of a key frame and the parts behind it, without a gap."""
    descriptor = _nameless_file()
    try:
        os.write(descriptor, file_header(group.position))
        end, to_at = group.position, group.at
        for part in parts:
            rest = memoryview(part.data)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            end, to_at = part.start + len(part.data), part.to_at
        return Reel(group=group, descriptor=descriptor, end=end, to_at=to_at)
    except BaseException:
        os.close(descriptor)
        raise


def _nameless_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("orbit-film", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
