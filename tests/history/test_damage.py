"""Damage in history.db costs what is damaged, is named, and touches no session."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ctl_support import Orbitctl
from film_support import history_of, read_film
from history_rows import BEGIN, Rows
from history_sessions import Printing
from history_support import timestamp
from orbit_protocol.errors import StorageCorrupt
from orbit_protocol.settings import HistorySettings
from orbitd.history.database import open_reader
from orbitd.history.history import History
from orbitd.sessions.journal_file import Output
from support import DaemonProcess


def flip_bytes(path: Path) -> None:
    """Change a byte of each eighth page, but for the first ones."""
    data = bytearray(path.read_bytes())
    for place in range(10 * 4096 + 2000, len(data), 8 * 4096):
        data[place] ^= 0x5A
    path.write_bytes(data)


def cut_in_half(path: Path) -> None:
    """Cut the file in half."""
    os.truncate(path, path.stat().st_size // 2)


def zero_a_page(path: Path) -> None:
    """Write zeros over the page in the middle."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 8192 * 4096)
        file.write(bytes(4096))


def overwrite_header(path: Path) -> None:
    """Write zeros over the header."""
    with path.open("r+b") as file:
        file.write(bytes(100))


def replace_by_another(path: Path) -> None:
    """Put another program's database in its place."""
    path.unlink()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (x)")


def replace_by_a_folder(path: Path) -> None:
    """Put a folder in its place."""
    path.unlink()
    path.mkdir()


def replace_by_a_fifo(path: Path) -> None:
    """Put a FIFO in its place."""
    path.unlink()
    os.mkfifo(path)


def make_newer(path: Path) -> None:
    """Have it look as if a newer Orbit had written it."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")


def put_a_foreign_wal(path: Path) -> None:
    """Put a log beside it that is not its own."""
    path.with_name("history.db-wal").write_bytes(os.urandom(40_000))


DAMAGES: list[Callable[[Path], None]] = [
    flip_bytes,
    cut_in_half,
    zero_a_page,
    overwrite_header,
    Path.unlink,
    replace_by_another,
    replace_by_a_folder,
    replace_by_a_fifo,
    make_newer,
    put_a_foreign_wal,
]


def record(daemon: DaemonProcess) -> Printing:
    """Record some film of two sessions; return the first."""
    with daemon.client() as client:
        one = Printing(client, "one")
        for _ in range(4):
            one.print(os.urandom(4000).hex().encode())
            one.save()
    return one


def film_bytes(path: Path, session_id: str) -> bytes:
    """Return the records of a session's film; b"" where there is none."""
    with contextlib.closing(open_reader(str(path))) as connection:
        return read_film(connection, session_id)[1]


def goes_on(daemon: DaemonProcess, one: Printing) -> None:
    """Fail unless the session goes on: it prints, is saved, and can be looked at."""
    with daemon.client() as client:
        again = Printing(client, "", session_id=one.id, runs=True)
        again.print(b"goes on")
        again.save()
        assert "goes on" in client.call("session.screen", id=one.id)["data"]
        assert client.call("session.get", id=one.id)["live"]
        client.call("daemon.info")
        client.call("stats.get")


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("while_it_runs", [False, True])
def test_sessions_go_on(daemon: DaemonProcess, damage: Callable[[Path], None], while_it_runs: bool) -> None:
    """Whatever becomes of the histories, while the daemon runs or is stopped, sessions are printed to and saved."""
    one, path = record(daemon), history_of(daemon.database_path)
    if not while_it_runs:
        daemon.stop()
    damage(path)
    if not while_it_runs:
        daemon.start()
    goes_on(daemon, one)
    daemon.kill()
    daemon.start()
    goes_on(daemon, one)


def test_what_a_read_finds_is_set_aside(daemon: DaemonProcess) -> None:
    """A database that becomes garbage while it is open is named as that of histories, and a new one is begun."""
    one, path = record(daemon), history_of(daemon.database_path)
    for each in (path, path.with_name("history.db-wal")):
        with each.open("r+b") as file:
            file.write(os.urandom(each.stat().st_size))
    with daemon.client() as client:
        error = client.error("history.timeline", session_id=one.id)
        assert error["message"].startswith("The database of histories cannot be read: ")
        assert "backup" not in error["data"]["hint"]
    daemon.wait_for_log("history set aside")
    goes_on(daemon, one)
    with daemon.client() as client:
        assert client.call("history.search", query="goes on")["hits"]


def test_what_is_whole_is_brought_over(daemon: DaemonProcess) -> None:
    """With a header that is overwritten all rows are whole: the new database has the same film, and it is named."""
    one, path = record(daemon), history_of(daemon.database_path)
    daemon.stop()
    film = film_bytes(path, one.id)
    overwrite_header(path)
    daemon.start()
    goes_on(daemon, one)
    daemon.wait_for_log("history brought over")
    with contextlib.closing(open_reader(str(path))) as connection:
        # What is printed before the first save in the new database cannot be drawn on anything in it.
        assert read_film(connection, one.id, to_gap=True)[1].startswith(film)
        sums = connection.execute(
            "SELECT film_bytes, (SELECT sum(stored_bytes) FROM groups), raw_bytes, (SELECT sum(bytes) FROM chunks)"
            " FROM films"
        ).fetchone()
    assert sums[0] == sums[1]
    assert sums[2] == sums[3]
    with daemon.client() as client:
        assert any("was damaged and lies in" in each for each in client.call("daemon.info")["warnings"])
    count = daemon.log().count("history brought over")
    daemon.restart()
    goes_on(daemon, one)
    assert daemon.log().count("history brought over") == count


def test_a_history_that_begins_later_begins_with_the_screen(daemon: DaemonProcess) -> None:
    """Where there is none, as after an upgrade, it has screen and scrollback of a session once that is looked at."""
    one, path = record(daemon), history_of(daemon.database_path)
    daemon.stop()
    path.unlink()
    daemon.start()
    with daemon.client() as client:
        client.call("session.screen", id=one.id)
        client.call("maintenance.auto_save")
        found = client.call("history.search", query="mark-", limit=50)["hits"]
        assert {each["text"] for each in found} == {f"mark-{number}." for number in range(1, 5)}
        now = timestamp(time.time())
        assert "mark-4." in client.call("session.screen", id=one.id, at=now, format="text")["data"]
        count = client.call("snapshot.list", session_id=one.id, limit=100)["snapshots"]
        client.call("maintenance.auto_save")
        assert client.call("snapshot.list", session_id=one.id, limit=100)["snapshots"] == count


def test_damaged_rows_are_named_by_a_check(daemon: DaemonProcess) -> None:
    """A row that does not fit its checksum is named by `maintenance.check` and among the warnings."""
    record(daemon)
    path = history_of(daemon.database_path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE chunks SET from_at = from_at + 1 WHERE seq = (SELECT min(seq) FROM chunks)")
        connection.commit()
    with daemon.client() as client:
        report = client.call("maintenance.check", limit_secs=60)
        assert not report["ok"]
        assert any("chunks" in each for each in report["rows"])
        assert any("rows of" in each for each in client.call("daemon.info")["warnings"])


def test_commands_name_histories_that_are_damaged(daemon: DaemonProcess, home: Path) -> None:
    """`logs` prints what the scrollback holds, and `doctor` asks for no backup, where histories cannot be read."""
    ctl, one, path = Orbitctl(home, daemon.environment), record(daemon), history_of(daemon.database_path)
    daemon.restart()  # so that no writer is open, and what lies there stays until the next save
    with daemon.client() as client:
        client.error("history.forget", session_id="none")  # waits until the start has looked at it
    overwrite_header(path)
    ended = ctl.ok("logs", one.id, "-n", "3")
    assert ended.lines[-1].startswith("mark-4.")
    assert ended.err.startswith("warning: only what the scrollback holds is printed: The database of histories cannot")
    found = {each["check"]: each for each in ctl("--json", "doctor").json["checks"]}
    assert "The database of histories cannot be read" in found["database"]["message"]
    assert "no backup is needed" in found["database"]["remedy"]


@pytest.mark.parametrize("index", ["idx_texts_to_at", "idx_texts_session", "idx_chunks_group"])
async def test_a_damaged_index_ends_no_recording(tmp_path: Path, index: str) -> None:
    """Rows that an index has lost cannot be deleted: a new database is begun with all of them."""
    path = tmp_path / "history.db"
    rows = Rows(tmp_path)
    rows.connection.execute("BEGIN")
    for number in range(400):
        rows.text(range(number * 5, number * 5 + 5))
        rows.chunk(rows.group(number * 1000, BEGIN), number * 1000, [Output(data=b"%d" % number)])
    rows.connection.execute("COMMIT")
    (root,) = rows.connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (index,)).fetchone()
    rows.connection.close()
    data = bytearray(path.read_bytes())

    def cell(page: int, header: int, number: int) -> int:
        start = (page - 1) * 4096
        place = start + header + 2 * number
        return start + int.from_bytes(data[place : place + 2], "big")

    first = cell(root, 12, 0)  # of an interior page: the number of a leaf
    entry = cell(int.from_bytes(data[first : first + 4], "big"), 8, 10)
    data[entry + data[entry]] ^= 4  # the row that it names
    path.write_bytes(data)

    def delete(connection: sqlite3.Connection) -> None:
        for table in ("texts", "chunks"):
            for (seq,) in connection.execute(f"SELECT seq FROM {table} NOT INDEXED").fetchall():
                connection.execute(f"DELETE FROM {table} WHERE seq = ?", (seq,))

    async with History(str(path), HistorySettings()) as history:
        with pytest.raises(StorageCorrupt):
            await history.write(delete)
        await history.mend()
        count = "SELECT (SELECT count(*) FROM texts), (SELECT count(*) FROM chunks)"
        assert await history.read(lambda connection: connection.execute(count).fetchone(), None) == (400, 400)
        await history.write(delete)
