"""`history.export`: a session's film or lines as a file, or in pages.

A page says by its cursor all that the next one needs, so that nothing is kept between two calls, and a client may stop
at any time. A file is put together of the same pages: whatever the length of a history, one page is in memory.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import secrets
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from orbit_os.files import PRIVATE_FILE, set_mode, sync, sync_descriptor
from orbit_protocol.errors import Busy, InvalidParams
from orbit_protocol.params import HistoryExport
from orbit_protocol.results import Exported
from orbit_protocol.text import path_and_bytes
from orbit_protocol.types import CommandFinished, Event, Session
from orbitd.background_tasks import finished
from orbitd.history import asciicast, film, lines
from orbitd.history.asciicast import Drawn, Mark, Place
from orbitd.history.database import NoteDamage, milliseconds
from orbitd.history.history import History
from orbitd.history.scenes import SCENE_SECS, Reel, Scenes, no_film, read_reel, reel_of
from orbitd.history.styled import styled
from orbitd.manager import SessionManager
from orbitd.screens.render import escape
from orbitd.store.errors import translate_os
from orbitd.store.files import TEMPORARY_PREFIX
from orbitd.store.progress import Progress

PAGE_BYTES = 1 << 20
"""About how much text a page has."""

_ANOTHER = "Name a file in a folder that the daemon's user can write to."

_HEAD = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<style>body {{ margin: 0; color: #d0d0d0; background: #101010 }} pre {{ margin: 1em; font-family: monospace }}</style>
</head>
<body>
<pre>
"""
_FOOT = "</pre>\n</body>\n</html>\n"


class LinePlace(Struct, frozen=True, array_like=True, tag="lines"):
    """Where a page of lines begins: at a line, behind so many of its characters."""

    number: asciicast.Count
    offset: asciicast.Count = 0


_finished_decoder = msgspec.json.Decoder(CommandFinished)
_places: msgspec.msgpack.Decoder[Place | LinePlace] = msgspec.msgpack.Decoder(Place | LinePlace)


def to_cursor(place: Place | LinePlace) -> str:
    """Return a place as text."""
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(place)).decode().rstrip("=")


def from_cursor(cursor: str, *, is_film: bool) -> Place | LinePlace:
    """Return the place of a cursor. Raises: InvalidParams."""
    place: Place | LinePlace | None = None
    with contextlib.suppress(ValueError, msgspec.DecodeError):
        place = _places.decode(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    if place is None or isinstance(place, Place) != is_film:
        raise InvalidParams("`cursor` is not one that a page of this export gave")
    return place


async def read_events(manager: SessionManager, session_id: str, kinds: Sequence[str]) -> list[Event]:
    """Return all stored events of some kinds of a session, oldest first."""
    found: list[Event] = []
    after: int | None = None
    while page := await manager.list_events(after=after, kinds=kinds, session_id=session_id):
        found += page
        after = page[-1].seq
    return found


class Exporter:
    """Exports histories.

    Args:
        manager: The store.
        history: The films and lines.
        scenes: Draws pictures of the past.
    """

    def __init__(self, manager: SessionManager, history: History, scenes: Scenes) -> None:
        self._manager = manager
        self._history = history
        self._scenes = scenes

    async def page(self, session: Session, q: HistoryExport) -> Exported:
        """Return a page.

        Raises:
            InvalidParams: The cursor is none.
            SnapshotNotFound: There is no film.
        """
        async for data, place in self._pages(session, q):
            return Exported(
                format=q.format,
                bytes=len(data.encode()),
                data=base64.b64encode(data.encode()).decode() if q.format == "vt" else data,
                next_cursor=None if place is None else to_cursor(place),
            )
        raise AssertionError("an export has a page")

    async def write(self, session: Session, q: HistoryExport, path: str, progress: Progress) -> Exported:
        """Write all of it into a file, which appears when it is complete and on the disk.

        Raises:
            InvalidParams: `path` is no place for it.
            SnapshotNotFound: There is no film.
            StorageFull, StorageReadOnly: It cannot be written.
            Cancelled: The caller wants it no more.
        """
        in_pool = self._history.in_pool
        target = await in_pool(partial(self._manager.new_file, path))
        temporary = os.path.join(os.path.dirname(target), TEMPORARY_PREFIX + secrets.token_hex(8))
        length = 0
        try:
            descriptor = await finished(in_pool(partial(_create, temporary)), os.close)
            try:
                async for data, _ in self._pages(session, q):
                    length += await finished(in_pool(partial(_write, descriptor, data.encode())))
                    progress.report("bytes", length)
                await finished(in_pool(partial(sync_descriptor, descriptor)))
            finally:
                os.close(descriptor)
            await finished(in_pool(partial(self._put_in_place, path, temporary)))
        except OSError as error:
            raise translate_os(error, f"The file {path} cannot be written", _ANOTHER) from error
        finally:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        text, path_bytes = path_and_bytes(path)
        return Exported(format=q.format, bytes=length, path=text, path_bytes=path_bytes)

    def _put_in_place(self, path: str, temporary: str) -> None:
        target = self._manager.new_file(path)  # somebody may have written to it meanwhile
        os.replace(temporary, target)
        sync(os.path.dirname(target))

    async def _pages(self, session: Session, q: HistoryExport) -> AsyncIterator[tuple[str, Place | LinePlace | None]]:
        """Yield pages from a cursor or the beginning on, each with the place of the next one."""
        place = None if q.cursor is None else from_cursor(q.cursor, is_film=q.format == "asciicast")
        begin = ""
        if place is None and q.format == "asciicast":
            place, begin = await self._begin_film(session, q)
        marks = await self._marks(session.id) if q.format == "asciicast" else []
        while True:
            data, place = await self._read(session, q, place, marks)
            yield begin + data, place
            if place is None:
                return
            begin = ""

    async def _read(
        self, session: Session, q: HistoryExport, place: Place | LinePlace | None, marks: Sequence[Mark]
    ) -> tuple[str, Place | LinePlace | None]:
        until = None if q.until is None else milliseconds(q.until)
        work: Callable[[sqlite3.Connection], tuple[str, Place | LinePlace | None]]
        if isinstance(place, Place):
            drawn = await self._draw(session.id, place.position) if place.is_behind_gap else None
            if drawn is not None:  # a later one, where the limits have dropped that one meanwhile
                place = replace(place, position=drawn.group.position)
            work = partial(
                asciicast.read_page,
                session_id=session.id,
                place=place,
                until=until,
                marks=marks,
                note_damage=self._history.note_damage,
                drawn=drawn,
            )
            return await self._history.read(work, ("", None))
        return await self._read_lines(session, q, place, until)

    async def _read_lines(
        self, session: Session, q: HistoryExport, place: LinePlace | None, until: int | None
    ) -> tuple[str, LinePlace | None]:
        work = partial(
            _read_pieces,
            session_id=session.id,
            place=place,
            since=None if q.since is None else milliseconds(q.since),
            until=until,
            room=PAGE_BYTES if q.format == "text" else PAGE_BYTES // 4,  # styles take more than the text
            note_damage=self._history.note_damage,
        )
        nothing: tuple[list[Piece], LinePlace | None] = ([], None)
        pieces, following = await self._history.read(work, nothing)
        drawn: dict[int, str] = {}
        if q.format != "text":
            whole = [(piece.line, piece.text) for piece in pieces if piece.is_whole]
            drawn = await styled(self._history, self._scenes, session.id, whole, q.format)
        end, plain = "\r\n" if q.format == "vt" else "\n", escape if q.format == "html" else str
        data = "".join(f"{drawn.get(piece.line) or plain(piece.text)}{end if piece.is_end else ''}" for piece in pieces)
        if q.format == "html":
            head = _HEAD.format(title=escape(_title(session))) if place is None else ""
            data = head + data + (_FOOT if following is None else "")
        return data, following

    async def _begin_film(self, session: Session, q: HistoryExport) -> tuple[Place, str]:
        """Return where a recording begins, its header, and what draws the screen as it is there."""
        extent = await self._history.read(partial(film.extent, session_id=session.id), None)
        since = None if q.since is None else milliseconds(q.since)
        if extent is None or (q.until is not None and milliseconds(q.until) < extent[0]):
            raise no_film(session.id, extent)
        if since is None or since <= extent[0]:
            first = await self._draw(session.id, 0)
            if first is None:
                raise no_film(session.id, None)
            place, picture = asciicast.beginning_of(first.group), first.data
        else:
            async with _in_time(), self._scenes.at(session.id, since) as (drawn, reel):
                painted = await drawn.paint(reel.end)
            place, picture = Place(reel.end, since, since, since - 1, painted.cols, painted.rows), painted.data
        return place, asciicast.header(place, _title(session)) + asciicast.first_events(place, picture)

    async def _draw(self, session_id: str, position: int) -> Drawn | None:
        """Return the first key frame from a position on, and what draws it; None where there is none. Raises: Busy."""
        work = partial(_first_frame, session_id=session_id, position=position, note_damage=self._history.note_damage)
        reel = await read_reel(self._history, work)
        if reel is None:
            return None
        async with _in_time(), self._scenes.playing(session_id, reel) as picture:
            data = (await picture.paint(reel.end)).data if reel.group.native else b""
        return Drawn(group=reel.group, data=data)

    async def _marks(self, session_id: str) -> list[Mark]:
        marks = []
        for event in await read_events(self._manager, session_id, ["command.finished"]):
            with contextlib.suppress(msgspec.DecodeError):
                finished = _finished_decoder.decode(event.data)
                exit_ = f" (exit {finished.exit_code})" if finished.exit_code else ""
                marks.append(Mark(at=milliseconds(event.at), label=f"{finished.command or 'command'}{exit_}"))
        return sorted(marks, key=lambda mark: mark.at)


def _title(session: Session) -> str:
    return session.name or session.title or session.id


@contextlib.asynccontextmanager
async def _in_time() -> AsyncIterator[None]:
    """Bound how long a picture may take. Raises: Busy."""
    try:
        async with asyncio.timeout(SCENE_SECS):
            yield
    except TimeoutError as error:
        raise Busy("The screen of that moment cannot be drawn now", hint="Ask again.") from error


def _first_frame(
    connection: sqlite3.Connection, session_id: str, position: int, note_damage: NoteDamage
) -> Reel | None:
    group = next(film.groups_from(connection, session_id, position, note_damage), None)
    return None if group is None else reel_of(group, iter(()))


class Piece(Struct, frozen=True, kw_only=True):
    """Text of one line; `is_end` says that the line ends with it, `is_whole` that it is all of it."""

    line: int
    text: str
    is_end: bool
    is_whole: bool


def _read_pieces(
    connection: sqlite3.Connection,
    *,
    session_id: str,
    place: LinePlace | None,
    since: int | None,
    until: int | None,
    room: int,
    note_damage: NoteDamage,
) -> tuple[list[Piece], LinePlace | None]:
    """Return lines from a place on, about `room` bytes, and where the next page begins; None behind the last."""
    if place is None:
        place = LinePlace(0 if since is None else lines.line_since(connection, session_id, since, note_damage))
    found: list[Piece] = []
    for line in lines.lines_from(connection, session_id, place.number, note_damage):
        if until is not None and line.at > until:
            break
        offset = place.offset if line.number == place.number else 0
        is_end = False
        while not is_end:
            if room <= 0:
                return found, LinePlace(line.number, offset)
            text = line.text[offset : offset + PAGE_BYTES]
            offset += len(text)
            is_end = offset >= len(line.text)
            found.append(Piece(line=line.number, text=text, is_end=is_end, is_whole=len(text) == len(line.text)))
            room -= len(text.encode("utf-8", "replace")) + 1
    return found, None


def _create(path: str) -> int:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, PRIVATE_FILE)
    set_mode(path, PRIVATE_FILE, descriptor)
    return descriptor


def _write(descriptor: int, data: bytes) -> int:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
    return len(data)
