"""What docs/replication.md promises, with the real Litestream: what was replicated comes back."""

from __future__ import annotations

import base64
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from documents_support import Reader, blocks
from litestream_support import PAGE, Litestream, restore_command
from needs import program, require
from support import WAIT_SECS, DaemonProcess, RawClient

pytestmark = pytest.mark.slow

LOCAL = {"session_type": "local"}


class Written:
    """What was written and answered, in order."""

    def __init__(self) -> None:
        self.sessions: list[dict[str, Any]] = []
        self.buffers: dict[str, bytes] = {}

    def write(self, client: RawClient, sessions: int, size: int = 20_000) -> None:
        """Make sessions with a snapshot each, of bytes that cannot be compressed."""
        for _ in range(sessions):
            session = client.call("session.create", config=LOCAL, name=f"s{len(self.sessions)}")
            self.sessions.append(session)
            buffer = os.urandom(size)
            encoded = base64.b64encode(buffer).decode()
            saved = client.call("snapshot.save", session_id=session["id"], terminal_buffer=encoded)
            self.buffers[saved["id"]] = buffer

    @property
    def last_snapshot(self) -> str:
        return list(self.buffers)[-1]

    def is_in(self, database: Path) -> bool:
        """Tell whether the last write has reached a database."""
        return self.last_snapshot in snapshots_in(database)

    def check(self, client: RawClient) -> None:
        """Check that a daemon serves all of it, and that the database is sound."""
        listed = client.call("session.list", limit=1_000)["sessions"]
        assert [one["id"] for one in listed] == [one["id"] for one in self.sessions]
        for snapshot, buffer in self.buffers.items():
            assert base64.b64decode(client.call("snapshot.get", id=snapshot)["terminal_buffer"]) == buffer
        assert client.call("maintenance.check")["ok"] is True


def snapshots_in(database: Path) -> list[str]:
    """Return the ids of the snapshots in a database, in the order in which they were saved."""
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    try:
        return [row[0] for row in connection.execute("SELECT id FROM session_snapshots ORDER BY seq")]
    finally:
        connection.close()


def destroy(daemon: DaemonProcess) -> None:
    """Kill the daemon and delete its database, with all that is beside it."""
    daemon.kill()
    shutil.rmtree(daemon.database_path.parent)
    daemon.database_path.parent.mkdir(mode=0o700)


@pytest.fixture
def written() -> Written:
    return Written()


def test_what_was_replicated_comes_back(daemon: DaemonProcess, litestream: Litestream, written: Written) -> None:
    """The daemon writes, is killed, its store is destroyed: each answered write that was replicated is restored."""
    with daemon.client() as client:
        written.write(client, 30)
        layout = {"layout_type": "grid", "config": {"rows": [1, 2]}}
        workspace = client.call("workspace.create", name="shop", layout=layout)
        client.call("session.move", id=written.sessions[0]["id"], workspace_id=workspace["id"])
        written.write(client, 1)
    litestream.wait_until_restored(written.is_in)
    litestream.stop(signal.SIGKILL)
    destroy(daemon)
    litestream.restore()
    daemon.start()
    with daemon.client() as client:
        written.check(client)
        assert client.call("workspace.find", ref="shop") == workspace
        assert client.call("session.find", ref="s0")["workspace_id"] == workspace["id"]


def test_a_restored_store_is_private_and_replicated_further(
    daemon: DaemonProcess, litestream: Litestream, written: Written
) -> None:
    """After a restore the files are closed to others, and the same replica takes what is written next."""
    for _ in range(2):
        with daemon.client() as client:
            written.write(client, 5)
        litestream.wait_until_restored(written.is_in)
        litestream.stop()
        destroy(daemon)
        litestream.restore()
        daemon.start()
        litestream.start()
    with daemon.client() as client:
        written.check(client)
    paths = [daemon.database_path, *daemon.database_path.parent.rglob("*"), *litestream.folder.rglob("*.ltx")]
    assert [path for path in paths if path.is_file() and path.stat().st_mode & 0o077] == []


def test_a_loss_in_the_middle_leaves_a_prefix(daemon: DaemonProcess, litestream: Litestream, written: Written) -> None:
    """Both are killed while writes go on: what is restored is sound and lacks only the newest writes, none between."""
    with daemon.client() as client:
        while len(written.buffers) < 60:
            written.write(client, 5)
            litestream.wait_for("ltx file uploaded")
    litestream.stop(signal.SIGKILL)
    destroy(daemon)
    litestream.restore()
    found = snapshots_in(daemon.database_path)
    assert 0 < len(found) <= len(written.buffers)
    assert found == list(written.buffers)[: len(found)]
    daemon.start()
    with daemon.client() as client:
        assert client.call("maintenance.check")["ok"] is True


def test_checkpoints_and_vacuum_lose_nothing(daemon: DaemonProcess, litestream: Litestream, written: Written) -> None:
    """A log far over orbitd's own checkpoint limit, and a vacuum with its truncating checkpoint, spoil no replica."""
    with daemon.client() as client:
        for _ in range(3):
            written.write(client, 10, size=400_000)
            for session in written.sessions[:-5]:
                for snapshot in client.call("snapshot.list", session_id=session["id"])["snapshots"]:
                    client.call("snapshot.delete", id=snapshot["id"])
                    del written.buffers[snapshot["id"]]
        assert client.call("maintenance.vacuum")["bytes_freed"] > 0
        written.write(client, 5)
    litestream.wait_until_restored(written.is_in)
    litestream.stop(signal.SIGKILL)
    destroy(daemon)
    litestream.restore()
    daemon.start()
    with daemon.client() as client:
        written.check(client)


def test_restarts_in_any_order_lose_nothing(daemon: DaemonProcess, litestream: Litestream, written: Written) -> None:
    """The daemon restarts under Litestream, and Litestream under the daemon; what each missed is caught up with."""
    for restart in ("daemon", "litestream", "both"):
        with daemon.client() as client:
            written.write(client, 5)
        if restart in ("litestream", "both"):
            litestream.stop()
            with daemon.client() as client:
                written.write(client, 5)
        if restart in ("daemon", "both"):
            daemon.restart()
        if restart in ("litestream", "both"):
            litestream.start()
    with daemon.client() as client:
        written.write(client, 5)
    litestream.wait_until_restored(written.is_in)
    litestream.stop(signal.SIGKILL)
    destroy(daemon)
    litestream.restore()
    daemon.start()
    with daemon.client() as client:
        written.check(client)


@pytest.fixture
def reader(home: Path) -> Iterator[Reader]:
    """Somebody who follows the page, with a replica in their home, and a Litestream that waits less and says more."""
    require("litestream", linux=True)  # systemd's units are run
    faster = {
        "sync-interval: 1s\n": "sync-interval: 50ms\nlogging:\n  level: debug\n",
        "interval: 1s": "interval: 50ms",
    }
    reader = Reader(home, {"/mnt/backup/orbit": f"{home}/replica", **faster})
    (reader.folder / "litestream").symlink_to(program("litestream"))  # it may be in a folder that no PATH leads to
    yield reader
    reader.close()


def wait_until_replicated(reader: Reader, name: str) -> None:
    """Wait until a session of this name is in the replica; look again whenever something was copied."""
    copy = reader.home / "copy.db"
    log = reader.folder / "systemctl.orbit-litestream.service.log"
    command = ["timeout", str(WAIT_SECS), "tail", "-n", "+1", "-F", str(log)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as follow:
        assert follow.stdout is not None
        for line in follow.stdout:
            if "ltx file uploaded" in line:
                copy.unlink(missing_ok=True)
                reader.sh(restore_command(copy))
                database = sqlite3.connect(copy)
                if database.execute("SELECT 1 FROM sessions WHERE name = ?", (name,)).fetchone():
                    database.close()
                    follow.terminate()
                    return
                database.close()
    raise AssertionError(f"{name} is not in the replica")


@pytest.mark.parametrize("loss", ["none", "the database", "the daemon and the database"])
def test_the_page_is_followed_while_programs_run(reader: Reader, loss: str) -> None:
    """Set up and restored as the page says, whatever is left: each program goes on, once, and is its session's.

    One whose session is newer than the replica is listed again, and doctor names it.
    """
    page = blocks(PAGE)
    first_after = next(number for number, block in enumerate(page) if block.heading == "Get it back")
    for name in ("shell", "cat"):
        reader.sh(f"orbitctl session run --detach --name {name} {'-- cat' if name == 'cat' else ''}")
    for block in page[:first_after]:
        reader.follow(block)
    wait_until_replicated(reader, "cat")
    reader.sh("systemctl --user stop orbit-litestream.service")
    reader.sh("orbitctl session run --detach --name newer -- cat")
    with reader.client() as client:
        before = {one["id"]: one["pid"] for one in client.call("session.list")["sessions"]}
        newer = client.call("session.find", ref="newer")["id"]
    if loss == "the daemon and the database":
        reader.sh("kill -9 $(orbitctl status -q)")
    if loss != "none":
        for suffix in ("", "-wal", "-shm"):
            Path(f"{reader.database}{suffix}").unlink(missing_ok=True)

    for block in page[first_after:]:
        reader.follow(block)

    with reader.client() as client:
        sessions = client.call("session.list")["sessions"]
    assert {one["id"]: one["pid"] for one in sessions if one["live"]} == before
    assert {one["name"] for one in sessions} == {"shell", "cat", None}
    assert f"session {newer} is gone from the database and its program runs" in reader.sh("orbitctl doctor")
    assert stat.S_IMODE(reader.database.stat().st_mode) == 0o600
    reader.sh("orbitctl session create --name afterwards")
    wait_until_replicated(reader, "afterwards")
