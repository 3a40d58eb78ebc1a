"""Recordings that begin, or go on behind a gap, with a key frame: a player shows what stood there."""

from __future__ import annotations

import contextlib
import json
import sqlite3

from film_support import history_of
from history_sessions import Printing
from orbitd.history import recorder
from orbitd.history.recorder import KeyFrame
from orbitd.screens.emulator import Emulator
from support import DaemonProcess, RawClient

STANDING = b"\x1b[2J\x1b[1;1Hstands at the top\x1b[10;1Hbegin"


def played(client: RawClient, session_id: str) -> str:
    """Return what a player shows at the end of a session's recording."""
    recording, cursor = "", None
    while True:
        more = {} if cursor is None else {"cursor": cursor}
        page = client.call("history.export", session_id=session_id, format="asciicast", **more)
        recording += page["data"]
        if (cursor := page.get("next_cursor")) is None:
            break
    player = Emulator(80, 24)
    for line in recording.splitlines()[1:]:
        _, kind, data = json.loads(line)
        if kind == "o":
            player.feed(data.encode())
    return player.screen("text").decode()


def screen(client: RawClient, session_id: str) -> str:
    """Return what is on a session's screen."""
    text: str = client.call("session.screen", id=session_id, format="text")["data"]
    return text


def test_a_recording_begins_with_what_stood_on_the_screen(daemon: DaemonProcess, client: RawClient) -> None:
    """Where the beginning of a film was dropped, the first event draws the screen that the rest is printed on."""
    session = Printing(client, "one")
    session.print(STANDING)
    client.call("history.forget", session_id=session.id, before="2100-01-01T00:00:00Z")
    session.print(b"more")
    assert "stands at the top" in screen(client, session.id)
    assert played(client, session.id) == screen(client, session.id)


def test_a_recording_goes_on_behind_a_gap(daemon: DaemonProcess, client: RawClient) -> None:
    """Where output is missing, the next key frame is drawn before what follows it."""
    session = Printing(client, "one")
    session.print(b"first")
    session.save()
    with contextlib.closing(sqlite3.connect(history_of(daemon.database_path))) as connection:
        connection.execute("DELETE FROM groups")  # the limits would have, and a new one begins with the next save
        connection.execute("DELETE FROM chunks")
        connection.commit()
    session.print(STANDING)
    session.save()
    session.print(b"more")
    session.save()
    with contextlib.closing(sqlite3.connect(history_of(daemon.database_path))) as connection:
        recorder.insert_group(connection, session.id, KeyFrame(position=0, at=1_000, line=0, cols=80, rows=24))
        connection.commit()
    assert "stands at the top" in screen(client, session.id)
    assert played(client, session.id) == screen(client, session.id)
