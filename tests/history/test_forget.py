"""What `history.forget` erases is on the disk no more, byte for byte; what it leaves is named."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from film_support import film_of, history_of, output_of
from forget_support import OTHER, SECRET, assert_forgotten, fill, stored
from history_sessions import Printing
from support import DaemonProcess, RawClient


def keep_aside(daemon: DaemonProcess, session_id: str, word: bytes) -> None:
    """Put pieces that were kept aside beside a session's journal."""
    folder = next(path for path in daemon.home.rglob("journal") if path.is_dir())
    for name in (".damaged-20260101T000000Z", ".unreadable-20260101T000000.000000Z"):
        (folder / f"{session_id}{name}").write_bytes(word)


def forget(client: RawClient, session_id: str, **more: Any) -> Any:
    """Forget a session."""
    return client.call("history.forget", session_id=session_id, **more)


def test_an_ended_session_is_forgotten(daemon: DaemonProcess, client: RawClient) -> None:
    """Nothing of an ended session is left in any file, and another session keeps its film to the byte."""
    one, other = Printing(client, "one"), Printing(client, "other")
    fill(one, SECRET)
    fill(other, OTHER)
    client.call("maintenance.cleanup_snapshots", keep_last_n=2)
    client.call("session.terminate", id=one.id)
    keep_aside(daemon, one.id, SECRET)
    before = film_of(history_of(daemon.database_path), other.id)
    assert stored(daemon, SECRET)
    assert forget(client, one.id)["backups"] == []
    assert film_of(history_of(daemon.database_path), other.id) == before
    shown = client.call("session.screen", id=other.id, format="text", scrollback=True)["data"]
    assert OTHER.decode() in shown
    assert_forgotten(daemon, SECRET, [])


def test_a_running_session_is_forgotten_and_goes_on(daemon: DaemonProcess, client: RawClient) -> None:
    """A running session shows a blank screen, its program goes on, and saves bring nothing back."""
    one = Printing(client, "one")
    fill(one, SECRET)
    one.print(SECRET)
    keep_aside(daemon, one.id, SECRET)
    forget(client, one.id)
    assert client.call("session.screen", id=one.id, format="text", scrollback=True)["data"].strip() == ""
    one.print(b"after")
    one.save()
    assert "after" in client.call("session.screen", id=one.id, format="text")["data"]
    assert client.call("session.get", id=one.id)["last_command"] is None
    client.close()
    assert_forgotten(daemon, SECRET, [])
    daemon.start()
    with daemon.client() as again:
        shown = again.call("session.screen", id=one.id, format="text", scrollback=True)["data"]
    assert "after" in shown


def test_what_came_before_a_moment_is_forgotten(daemon: DaemonProcess, client: RawClient) -> None:
    """What was printed before a moment is gone; what came after it stays."""
    one = Printing(client, "one")
    fill(one, SECRET)
    one.print(b"\r\n" * 100)
    one.print(b"\x1b]2;other\x07\x1b]633;E;other\x07\x1b]633;C\x07\x1b]633;D;0\x07")
    one.save()
    time.sleep(0.3)  # the time that a record of a journal has is that of the first of 100 ms
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + f".{time.time_ns() // 1_000_000 % 1000:03}Z"
    one.print(b"".join(b"younger %d\r\n" % each for each in range(100)))
    forget(client, one.id, before=moment)
    shown = client.call("session.screen", id=one.id, format="text", scrollback=True)["data"]
    assert "younger 99" in shown
    client.close()
    assert_forgotten(daemon, SECRET, [])


def test_the_histories_of_a_backup_are_named(daemon: DaemonProcess, client: RawClient, tmp_path: Path) -> None:
    """They lie beside a backup, under the name that a restore looks for, whatever the backup's own is."""
    one = Printing(client, "one")
    fill(one, SECRET)
    copies = [tmp_path / "copy.db", tmp_path / "sessions.db"]
    for copy in copies:
        client.call("maintenance.backup", path=str(copy), with_history=True)
    beside = [tmp_path / "copy.db.history.db", tmp_path / "history.db"]
    assert set(forget(client, one.id)["backups"]) == {str(path) for path in (*copies, *beside)}


def test_backups_are_named(daemon: DaemonProcess, client: RawClient, tmp_path: Path) -> None:
    """The answer names each backup that still holds it, wherever it lies, and none that does not."""
    empty, full = tmp_path / "empty.db", tmp_path / "full.db"
    client.call("maintenance.backup", path=str(empty))
    one = Printing(client, "one")
    fill(one, SECRET)
    client.call("maintenance.backup", path=str(full))
    assert forget(client, one.id)["backups"] == [str(full)]


def test_no_position_is_used_twice(daemon: DaemonProcess, client: RawClient) -> None:
    """After an ended session was forgotten, its film goes on behind where it was."""
    one = Printing(client, "one")
    fill(one, SECRET)
    client.call("session.terminate", id=one.id)
    _, records, end = film_of(history_of(daemon.database_path), one.id)
    assert SECRET in output_of(records)
    forget(client, one.id)
    client.call("session.start", id=one.id, cols=80, rows=24)
    one.print(b"again")
    one.save()
    one.print(b"and again")
    one.save()
    with contextlib.closing(sqlite3.connect(history_of(daemon.database_path))) as connection:
        (first,) = connection.execute("SELECT min(from_position) FROM chunks").fetchone()
        (recorded_to,) = connection.execute("SELECT recorded_to FROM films").fetchone()
    assert first is None or first >= end
    assert recorded_to > end


@pytest.mark.parametrize("before", [None, "2000-01-01T00:00:00Z"])
def test_an_archived_session(client: RawClient, before: str | None) -> None:
    """An archived session is forgotten too; before a moment at which it was not there, nothing is."""
    one = Printing(client, "one")
    fill(one, SECRET)
    client.call("session.terminate", id=one.id)
    client.call("maintenance.archive", terminated_before="2100-01-01T00:00:00Z")
    params = {} if before is None else {"before": before}
    assert forget(client, one.id, **params)["bytes"] > 0


@pytest.mark.parametrize("runs", [True, False])
def test_nothing_is_left_for_a_second_time(client: RawClient, runs: bool) -> None:
    """A second call says that it has erased nothing, though the first has left a blank screen and events of its own."""
    one = Printing(client, "one")
    fill(one, SECRET)
    if not runs:
        client.call("session.terminate", id=one.id)
    assert forget(client, one.id)["bytes"] > 0
    assert forget(client, one.id)["bytes"] == 0
