"""What becomes of a journal that a power cut has taken the end of: the film, which is synced, goes further."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from orbit_protocol.settings import HistorySettings
from orbit_protocol.types import SessionConfig
from orbitd.history.history import History, Recording
from orbitd.manager import SessionManager
from orbitd.screens.messages import Saved
from orbitd.sessions.files import SessionFiles
from orbitd.sessions.journal import Journal
from orbitd.sessions.journal_file import Output
from orbitd.sessions.saved_state import SavedState


class Recorded:
    """A history that has recorded a session up to a position."""

    def __init__(self, recorded_to: int, records: bytes | None) -> None:
        self._recording = Recording(recorded_to=recorded_to)
        self._records = records

    def record_of(self, record: str) -> str:
        return record

    def expect(self, session_id: str) -> None:
        pass

    async def recording(self, session_id: str) -> Recording:
        return self._recording

    async def records(self, session_id: str, start: int, end: int) -> bytes | None:
        return None if self._records is None else self._records[start:end]


def printed(path: Path) -> bytes:
    """Return what a journal has of the program's output."""
    with Journal(path) as journal:
        return b"".join(event.data for event in journal.events(0) if isinstance(event, Output))


@pytest.mark.parametrize("has_film", [True, False], ids=["film", "no film"])
async def test_a_journal_is_completed_from_the_film(tmp_path: Path, has_film: bool) -> None:
    """It gets back what the film has, and where that cannot be read either, as much that draws nothing."""
    folder = tmp_path / "journal"
    folder.mkdir(0o700)
    async with SessionManager.open(tmp_path / "sessions.db") as manager:
        session = await manager.create_session(SessionConfig(session_type="local"))
        path = folder / session.id
        with Journal(path, clock=lambda: 1.0) as journal:
            journal.append_output(b"kept ")
            kept = journal.position
            journal.append_output(b"lost")
            end = journal.position
            records = b"".join(journal.read_raw(0, end))
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size - (end - kept))
        history = cast(History, Recorded(end, records if has_film else None))
        opened = await SessionFiles(manager, history, str(folder)).open(session.id, create=True)
        assert opened.journal is not None
        assert opened.journal.position == end
        assert opened.recorded.position == end
        opened.journal.close()
    assert printed(path).replace(b"\0", b"") == (b"kept lost" if has_film else b"kept ")


async def test_positions_go_on_where_the_snapshots_were_deleted(tmp_path: Path) -> None:
    """A session that has a film and nothing else begins behind it: no position stands for two outputs."""
    async with SessionManager.open(tmp_path / "sessions.db") as manager:
        session = await manager.create_session(SessionConfig(session_type="local"))
        history = cast(History, Recorded(1_000_000, None))
        opened = await SessionFiles(manager, history, str(tmp_path / "journal")).open(session.id, create=True)
        assert opened.journal is not None
        assert (opened.journal.base, opened.journal.position, opened.loaded.position) == (1_000_000,) * 3
        assert opened.journal.size == 0
        opened.journal.close()


async def test_a_film_does_not_go_on_on_another_screen(tmp_path: Path) -> None:
    """Where a session begins on a screen that is not the film's last one, a key frame comes before what is drawn."""
    history = History(str(tmp_path / "history.db"), HistorySettings())
    async with history, SessionManager.open(tmp_path / "sessions.db") as manager:
        session = await manager.create_session(SessionConfig(session_type="local"))
        files = SessionFiles(manager, history, str(tmp_path / "journal"))
        first = (await files.open(session.id, create=True)).journal
        assert first is not None
        first.append_output(b"shown")
        blank = Saved(
            request=1, position=first.position, native=b"", portable=b"", cols=80, rows=24, title="", history_line=0
        )
        await history.record(session.id, "full", first.readers, blank)
        first.close()
        assert (await history.recording(session.id)).group
        files.remove_journal(session.id)  # and no snapshot was saved
        again = (await files.open(session.id, create=True)).journal
        assert again is not None
        assert (await history.recording(session.id)).wants_key_frame
        again.close()


async def test_a_film_that_goes_much_further_is_not_put_into_a_journal(tmp_path: Path) -> None:
    """Where an older backup was restored, a journal begins behind the film: it may have gigabytes more."""
    async with SessionManager.open(tmp_path / "sessions.db") as manager:
        session = await manager.create_session(SessionConfig(session_type="local"))
        state = SavedState(native=b"native", position=5_000).to_bytes()
        await manager.save_snapshot(session.id, b"portable", cols=80, rows=24, format="vt", native_state=state)
        far = 1 << 30
        history = cast(History, Recorded(far, None))
        opened = await SessionFiles(manager, history, str(tmp_path / "journal")).open(session.id, create=True)
        assert opened.journal is not None
        assert (opened.journal.position, opened.journal.size) == (far, 0)
        assert (opened.loaded.position, opened.loaded.base.native) == (far, b"native")
        opened.journal.close()


@pytest.mark.parametrize("length", [1, 9, 10, 11, 5000, (1 << 20) + 50])
def test_what_is_not_known_takes_its_room(tmp_path: Path, length: int) -> None:
    """Records of NULs fill at least what is missing, so that no position is used twice."""
    with Journal(tmp_path / "journal", clock=lambda: 1.0) as journal:
        journal.append_lost(b"", length)
        assert length <= journal.position < length + 20
    assert printed(tmp_path / "journal").strip(b"\0") == b""
