"""Databases of earlier schemas, loaded from `tests/fixtures/schema-N.sql`, and what is in them.

A fixture is the dump of a database that the program of its time made. All hold the same:
what `assert_kept` asks for. With a new migration comes the fixture of the schema before it:
`sqlite3.Connection.iterdump` of such a database, below the three PRAGMAs that a dump leaves out.
"""

from __future__ import annotations

import base64
import contextlib
import sqlite3
from pathlib import Path

from support import RawClient

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"
SCHEMAS = {int(path.stem.removeprefix("schema-")): path for path in FIXTURES.glob("schema-*.sql")}
ALL = ["active", "detached", "terminated", "archived"]


def load(schema: int, path: Path) -> None:
    """Make the database of a schema at `path`, in folders as the daemon makes them."""
    path.parent.mkdir(mode=0o700, parents=True)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(SCHEMAS[schema].read_text())
    path.chmod(0o600)


def dump(path: Path) -> list[str]:
    """Return all that is in a database, as text."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return [f"user_version {user_version(path)}", *connection.iterdump()]


def user_version(path: Path) -> int:
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


def schema_of(connection: sqlite3.Connection) -> set[tuple[str, str]]:
    """Return every table and index with its SQL, spaces aside."""
    rows = connection.execute("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL").fetchall()
    return {(name, " ".join(sql.replace('"', "").split())) for name, sql in rows}


def screen(number: int) -> bytes:
    """Return what the snapshots of the session `web` show, oldest first."""
    return b"".join(b"\x1b[3%dmline %d of %d\x1b[0m\r\n" % (line % 8, line, number) for line in range(20 + number))


def assert_kept(client: RawClient) -> None:
    """Check that a daemon has everything that the fixtures hold, in every detail."""
    sessions = client.call("session.list", status=ALL)["sessions"]
    shown = {one["name"]: (one["status"], one["session_type"], one["config"]["command"]) for one in sessions}
    assert shown == {
        "web": ("active", "local", "bash -l"),
        "remote é日": ("detached", "ssh", None),
        "ended": ("terminated", "local", None),
        "old": ("archived", "local", None),
    }
    assert sessions == sorted(sessions, key=lambda one: str(one["created_at"]))
    web, remote, _, old = sessions
    assert [remote["config"][name] for name in ("host", "port", "username")] == ["example.org", 22, "u"]
    (workspace,) = client.call("workspace.list")["workspaces"]
    assert (workspace["name"], workspace["active_session_id"]) == ("work", web["id"])
    assert workspace["layout"] == {"layout_type": "grid", "config": {"z": 1.0, "a": [1, None]}}
    assert [one["workspace_id"] for one in sessions] == [workspace["id"], None, None, workspace["id"]]
    _assert_snapshots(client, web["id"], old["id"])
    assert client.call("maintenance.check")["ok"]


def _assert_snapshots(client: RawClient, web: str, old: str) -> None:
    infos = client.call("snapshot.list", session_id=web)["snapshots"]
    found = [client.call("snapshot.get", id=one["id"]) for one in reversed(infos)]
    assert [base64.b64decode(one["terminal_buffer"]) for one in found] == [screen(number) for number in range(3)]
    scrollbacks = [one["scrollback"] and base64.b64decode(one["scrollback"]) for one in found]
    assert scrollbacks == [None, b"above\n", b"above\n" * 2]
    assert {(one["cols"], one["rows"], one["format"]) for one in found} == {(80, 24, "opaque")}
    client.call("session.restore_archived", id=old)
    latest = client.call("snapshot.latest", session_id=old)
    assert base64.b64decode(latest["terminal_buffer"]) == bytes(range(256))
