"""The text of a session whose picture is built again while it runs: after a crash, or where nobody had looked."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import pytest

from film_support import history_of
from history_sessions import Printing
from live.screens_processes import screens_processes
from orbitd.history.database import open_reader
from orbitd.history.text_blocks import NO_NUMBER, Line, unpack
from support import DaemonProcess

pytestmark = pytest.mark.slow


def lines_of(database: Path, session_id: str) -> list[Line]:
    """Return the lines that are stored of a session, its screen's aside."""
    with contextlib.closing(open_reader(str(history_of(database)))) as connection:
        query = "SELECT text, runs FROM texts WHERE session_id = ? AND is_tail = 0 ORDER BY seq"
        rows = connection.execute(query, (session_id,)).fetchall()
    return [line for text, runs in rows for line in unpack(text, runs)]


def test_each_line_is_stored_once(daemon: DaemonProcess) -> None:
    """What was recorded before a picture is built again is not recorded a second time, numbered or drawn."""
    drawn = "".join(f"\x1b[{row};1Hdrawn {word}" for row, word in enumerate(("alpha", "beta", "gamma"), 1))
    with daemon.client() as client:
        session = Printing(client, "one")
        session.print(b"\r\n".join(b"line %d." % number for number in range(200)))
        session.print(f"\x1b[?1049h\x1b[2J{drawn}".encode())
        session.save()
        for count in range(3):
            for pid in screens_processes(daemon):
                os.kill(pid, signal.SIGKILL)
            session.print(b"again %d" % count)
            session.save()
    found = lines_of(daemon.database_path, session.id)
    numbers = [line.number for line in found if line.number != NO_NUMBER]
    assert len(numbers) == len(set(numbers))
    texts = [line.text for line in found]
    assert [text for text in texts if text.startswith("line")] == [f"line {number - 1}." for number in numbers[1:]]
    assert len(numbers) > 150
    for word in ("alpha", "beta", "gamma"):
        assert texts.count(f"drawn {word}") == 1, texts
