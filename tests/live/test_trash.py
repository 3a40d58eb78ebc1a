"""Deleted sessions that had a program: what comes back, what a purge leaves, and those that delete themselves."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3

import pytest

from live.sessions import start, wait_for_end
from live_support import Viewer
from support import DaemonProcess, RawClient


def journals(daemon: DaemonProcess) -> list[str]:
    """Return the names of the journals, and of what was kept aside of them."""
    folder = daemon.home / ".local" / "state" / "orbit" / "journal"
    return sorted(entry.name for entry in folder.iterdir()) if folder.exists() else []


def configure(daemon: DaemonProcess, settings: str) -> None:
    folder = daemon.home / ".config" / "orbit"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(f"[session]\n{settings}\n")


def test_undelete_brings_back_the_screen(daemon: DaemonProcess, client: RawClient) -> None:
    """A live session's program ends with the deletion; the session comes back as ended, with what it printed last."""
    session_id = start(client, "sh -c 'echo precious; cat'")
    viewer = Viewer(client, session_id)
    viewer.read_until("precious")
    viewer.type("typed last\n")
    viewer.read_until("typed last\r\ntyped last")
    pid = client.call("session.get", id=session_id)["pid"]
    client.call("session.delete", id=session_id)
    wait_for_end(pid)
    assert client.error("session.screen", id=session_id)["code"] == 1000
    assert journals(daemon) == []
    with daemon.restart().client() as again:
        (shown,) = again.call("session.list_deleted")["sessions"]
        assert (shown["id"], bool(shown["deleted_at"])) == (session_id, True)
        back = again.call("session.undelete", id=session_id)
        assert (back["status"], back["live"], back["deleted_at"]) == ("terminated", False, None)
        assert again.call("session.screen", id=session_id)["data"].split() == ["precious", *["typed", "last"] * 2]
        again.call("session.start", id=session_id)
        again.call("session.delete", id=session_id, purge=True)
        assert again.call("session.list_deleted")["sessions"] == []
        assert again.error("session.undelete", id=session_id)["code"] == 1000
        assert journals(daemon) == []


def test_files_of_a_purged_session_go_with_the_next_daemon(daemon: DaemonProcess, client: RawClient) -> None:
    """A daemon that is killed between the rows and the files of a purge leaves no files; those of others stay."""
    ids = [start(client, "cat") for _ in range(2)]
    folder = daemon.home / ".local" / "state" / "orbit" / "journal"
    daemon.kill()
    with contextlib.closing(sqlite3.connect(daemon.database_path, isolation_level=None)) as database:
        database.execute("DELETE FROM sessions WHERE id = ?", (ids[0],))
        database.execute("INSERT INTO meta VALUES (?, '')", (f"purged {ids[0]}",))
    daemon.end_keeper()
    (folder / f"{ids[0]}.unreadable-20260101T000000.000000Z").write_bytes(b"")
    with daemon.start().client() as again:
        daemon.wait_for_log("files of deleted sessions removed")
        assert [name for name in journals(daemon) if name.startswith(ids[0])] == []
        assert again.call("session.get", id=ids[1])["status"] == "detached"


@pytest.mark.parametrize("ended_by", ["itself", "a signal", "a daemon that is killed", "a reboot"])
def test_a_session_deletes_itself(daemon: DaemonProcess, client: RawClient, ended_by: str) -> None:
    """With auto_remove a session goes into the trash when its program has ended; who waits has the exit first."""
    session_id = start(client, "sh -c 'read line; exit 3'", auto_remove=True)
    other = start(client, "cat", auto_remove=True)
    pid = client.call("session.get", id=session_id)["pid"]
    code: int | None = 3
    if ended_by == "itself":
        client.call("session.send", id=session_id, data="Cg==")
        assert client.call("session.wait", id=session_id) == {"exit_code": 3, "exit_signal": None}
    elif ended_by == "a signal":
        os.kill(pid, signal.SIGKILL)
        assert client.call("session.wait", id=session_id)["exit_signal"] == signal.SIGKILL
        code = None
    elif ended_by == "a daemon that is killed":
        daemon.kill()
        os.kill(pid, signal.SIGKILL)
        wait_for_end(pid)
        daemon.start()
        code = None
    else:
        daemon.kill()
        daemon.end_keeper()
        daemon.start()
        code = None
    daemon.wait_for_log("ended session deleted", count=2 if ended_by == "a reboot" else 1)
    with daemon.client() as again:
        deleted = {one["id"]: one for one in again.call("session.list_deleted")["sessions"]}
        assert set(deleted) == ({session_id, other} if ended_by == "a reboot" else {session_id})
        assert deleted[session_id]["exit_code"] == code
        assert again.call("session.undelete", id=session_id)["id"] == session_id


def test_a_deletion_with_its_workspace(daemon: DaemonProcess, client: RawClient) -> None:
    """Live sessions of a workspace that is deleted with them are in the trash, and come back without a workspace."""
    workspace = client.call("workspace.create", name="w", layout={"layout_type": "tabs", "config": {}})["id"]
    session_id = start(client, "sh -c 'echo precious; cat'", workspace_id=workspace)
    Viewer(client, session_id).read_until("precious")
    client.call("workspace.delete", id=workspace, delete_sessions=True)
    back = client.call("session.undelete", id=session_id)
    assert (back["status"], back["workspace_id"]) == ("terminated", None)
    assert "precious" in client.call("session.screen", id=session_id)["data"]


def test_retention(stopped_daemon: DaemonProcess) -> None:
    """What was deleted long ago is purged, and what ended long ago archived, by the daemon itself."""
    configure(stopped_daemon, "trash_retention_secs = 1\nended_retention_secs = 1")
    with stopped_daemon.start().client() as client:
        ended, deleted = [client.call("session.create", config={"session_type": "local"})["id"] for _ in range(2)]
        client.call("session.terminate", id=ended)
        client.call("session.delete", id=deleted)
        stopped_daemon.wait_for_log("ended sessions archived")
        stopped_daemon.wait_for_log("deleted sessions purged")
        assert client.call("session.get", id=ended)["status"] == "archived"
        assert client.call("session.list_deleted")["sessions"] == []


def test_without_a_trash(stopped_daemon: DaemonProcess) -> None:
    """With trash_retention_secs = 0 what is deleted is gone at once, with its workspace too."""
    configure(stopped_daemon, "trash_retention_secs = 0")
    with stopped_daemon.start().client() as client:
        workspace = client.call("workspace.create", name="w", layout={"layout_type": "tabs", "config": {}})["id"]
        for config in ({"session_type": "local"}, {"session_type": "local", "workspace_id": workspace}):
            session_id = client.call("session.create", config=config)["id"]
            if "workspace_id" in config:
                client.call("workspace.delete", id=workspace, delete_sessions=True)
            else:
                client.call("session.delete", id=session_id)
            assert client.error("session.undelete", id=session_id)["code"] == 1000
        assert client.call("session.list_deleted")["sessions"] == []
