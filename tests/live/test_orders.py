"""What happens at the same moment, or in an unusual order, at one session."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from pathlib import Path

import pytest

from live.sessions import Terminal, create, resident, start, wait_for_end
from live_support import Viewer, encoded
from support import WAIT_SECS, DaemonProcess, RawClient

MANY = int(os.environ.get("ORBIT_TEST_SESSIONS", "50"))


def ask(client: RawClient, *calls: tuple[str, dict[str, object]]) -> list[dict[str, object]]:
    """Send calls at once and return the responses in the order of the calls."""
    for number, (method, params) in enumerate(calls):
        line = {"jsonrpc": "2.0", "method": method, "params": params, "id": f"c{number}"}
        client.send(json.dumps(line).encode())
    answers: dict[str, dict[str, object]] = {}
    while len(answers) < len(calls):
        message = json.loads(client.read_line())
        if "id" in message:
            answers[message["id"]] = message
    return [answers[f"c{number}"] for number in range(len(calls))]


def programs_of(daemon: DaemonProcess) -> list[int]:
    """Return the processes that have this daemon's socket in their environment: its programs."""
    wanted = f"ORBITD_SOCKET={daemon.socket_path}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and wanted in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:  # ended, or not ours
            continue
    return found


@pytest.mark.parametrize("method", ["session.delete", "session.terminate"])
def test_an_end_during_the_start(shared_daemon: DaemonProcess, shared_client: RawClient, method: str) -> None:
    """Delete or terminate while a start is under way wins: no program is left behind."""
    for _ in range(5):
        session_id = create(shared_client, "sleep 1000")
        ask(shared_client, ("session.start", {"id": session_id}), (method, {"id": session_id}))
        answer = shared_client.request("session.get", id=session_id)
        assert answer.get("result", {}).get("status") in ("terminated", None)
    assert programs_of(shared_daemon) == []


def test_two_starts_at_once(shared_client: RawClient) -> None:
    """One of two starts runs the program, the other is told that it runs."""
    session_id = create(shared_client, "cat")
    answers = ask(shared_client, *[("session.start", {"id": session_id})] * 2)
    assert ["result" in answer for answer in answers] == [True, False]
    assert answers[1]["error"]["code"] == 1004


def test_a_screen_is_read_while_the_program_starts(daemon: DaemonProcess, client: RawClient) -> None:
    """A screen that is asked for during a start is the live one: a second use of its journal would kill the daemon."""
    for _ in range(5):
        session_id = create(client, "sh -c 'while echo noise; do :; done'")
        calls = ("session.start", {"id": session_id}), ("session.screen", {"id": session_id, "format": "text"})
        assert ["result" in answer for answer in ask(client, *calls)] == [True, True]
        client.call("session.terminate", id=session_id)
    assert daemon.process.poll() is None


def test_a_name_is_free_again_only_for_one(shared_client: RawClient) -> None:
    """A terminated session whose name is another's now does not start, and nothing runs for it."""
    first = shared_client.call("session.create", config={"session_type": "local", "command": "cat"}, name="same")["id"]
    shared_client.call("session.terminate", id=first)
    shared_client.call("session.create", config={"session_type": "local"}, name="same")
    assert shared_client.error("session.start", id=first)["data"]["kind"] == "name_taken"
    assert shared_client.call("session.get", id=first)["live"] is False


def test_attaching_while_the_program_ends(shared_daemon: DaemonProcess, shared_client: RawClient) -> None:
    """Whoever attaches at that moment is either refused or told of the end; nobody waits for ever."""
    for _ in range(10):
        session_id = start(shared_client, "sh -c 'read x; exit 3'")
        with shared_daemon.client() as other:
            answers = ask(
                other,
                ("session.send", {"id": session_id, "data": encoded("\n")}),
                *[("session.attach", {"id": session_id, "cols": 80, "rows": 24})] * 8,
            )
            attached = [answer["result"]["attachment_id"] for answer in answers[1:] if "result" in answer]
            codes = {answer["error"]["code"] for answer in answers[1:] if "error" in answer}
            assert codes <= {1006}
            shared_client.call("session.wait", id=session_id, timeout_secs=WAIT_SECS)
            other.call("daemon.ping")
            for attachment_id in attached:
                assert other.error("session.leave", attachment_id=attachment_id)["code"] == 1006


def test_a_client_that_goes_while_it_attaches(stopped_daemon: DaemonProcess) -> None:
    """Its attachment goes with it, however early it hangs up."""
    stopped_daemon.arguments = ("--log-level", "debug")
    with stopped_daemon.start().client() as client:
        session_id = start(client, "cat")
        params = {"id": session_id, "cols": 80, "rows": 24}
        line = json.dumps({"jsonrpc": "2.0", "method": "session.attach", "params": params, "id": 1}).encode()
        for _ in range(20):
            with stopped_daemon.client() as other:
                for _ in range(5):
                    other.send(line)
        stopped_daemon.wait_for_log("connection closed", count=20)
        # A start waits for the session's lock, under which the status follows the last client that has gone.
        assert client.error("session.start", id=session_id)["code"] == 1004
        session = client.call("session.get", id=session_id)
        assert (session["clients"], session["status"]) == (0, "detached")


@pytest.mark.slow
def test_attachments_leave_nothing_behind(daemon: DaemonProcess, client: RawClient) -> None:
    """Hundreds of attachments that have come and gone on one connection, each in its way, cost no memory."""
    session_id = start(client, "cat")

    def come_and_go(count: int) -> int:
        with daemon.client() as other:
            for _ in range(count):
                viewer = Viewer(other, session_id)
                other.call("session.leave", attachment_id=viewer.id)
                Viewer(other, session_id).emulator.close()
                client.call("session.detach", id=session_id)
                viewer.emulator.close()
            return resident(daemon.pid)

    before = come_and_go(30)
    assert come_and_go(120) < before + 2 * 1024 * 1024


def test_a_session_has_so_many_clients(shared_client: RawClient) -> None:
    """One more than 256 attachments at a session are refused as busy, until one leaves."""
    session_id = start(shared_client, "cat")
    params = {"id": session_id, "cols": 80, "rows": 24, "read_only": True}
    first = shared_client.call("session.attach", **params)
    for _ in range(255):
        shared_client.call("session.attach", **params)
    assert shared_client.error("session.attach", **params)["data"]["kind"] == "busy"
    shared_client.call("session.leave", attachment_id=first["attachment_id"])
    shared_client.call("session.attach", **params)


def test_an_attachment_belongs_to_its_connection(shared_daemon: DaemonProcess, shared_client: RawClient) -> None:
    """Nobody else can type, resize or leave for it."""
    viewer = Viewer(shared_client, start(shared_client, "cat"))
    with shared_daemon.client() as other:
        for method, params in (
            ("session.input", {"data": ""}),
            ("session.resize", {"cols": 1, "rows": 1}),
            ("session.leave", {}),
        ):
            assert other.error(method, attachment_id=viewer.id, **params)["code"] == 1006


def test_deleting_a_workspace_ends_its_programs(shared_daemon: DaemonProcess, shared_client: RawClient) -> None:
    """With delete_sessions the programs of its sessions go too, and those of others stay."""
    workspace = shared_client.call("workspace.create", name="w", layout={"layout_type": "tabs", "config": {}})["id"]
    inside = start(shared_client, "cat", workspace_id=workspace)
    other = start(shared_client, "cat")
    pid = shared_client.call("session.get", id=other)["pid"]
    shared_client.call("workspace.delete", id=workspace, delete_sessions=True)
    assert shared_client.error("session.get", id=inside)["code"] == 1000
    assert programs_of(shared_daemon) == [pid]


def test_a_damaged_row_is_no_other_workspaces_matter(daemon: DaemonProcess, client: RawClient) -> None:
    """A workspace is deleted with its sessions while a session elsewhere, which has a journal, cannot be read."""
    damaged = create(client)
    workspace_id = client.call("workspace.create", name="w", layout={"layout_type": "tabs", "config": {}})["id"]
    member = create(client, workspace_id=workspace_id)
    daemon.stop()
    with contextlib.closing(sqlite3.connect(daemon.database_path, isolation_level=None)) as database:
        database.execute("UPDATE sessions SET config = '{' WHERE id = ?", (damaged,))
    journals = daemon.home / ".local" / "state" / "orbit" / "journal"
    journals.mkdir(mode=0o700, parents=True, exist_ok=True)
    for session_id in (damaged, member):
        (journals / session_id).touch(0o600)
    with daemon.start().client() as again:
        again.call("workspace.delete", id=workspace_id, delete_sessions=True)
        assert again.error("session.get", id=member)["code"] == 1000
    assert [path.name for path in journals.iterdir()] == [damaged]


def test_a_stop_ends_the_wait_and_not_the_program(daemon: DaemonProcess, client: RawClient) -> None:
    """A daemon that stops tells who waits for an end, at once; the program runs on."""
    session_id = start(client, "cat")
    pid = client.call("session.get", id=session_id)["pid"]
    client.send(
        json.dumps({"jsonrpc": "2.0", "method": "session.wait", "params": {"id": session_id}, "id": 9}).encode()
    )
    with daemon.client() as other:
        other.call("daemon.shutdown")
    answer = json.loads(client.read_line())
    assert answer["error"]["data"]["kind"] == "shutting_down"
    assert daemon.stop() == 0
    assert Path(f"/proc/{pid}").exists()


@pytest.mark.slow
def test_many_sessions_start_stop_and_come_back(daemon: DaemonProcess) -> None:
    """Sessions by the dozen start at once, and a stopped daemon's successor has every program and screen."""
    with daemon.client() as client:
        ids = [create(client, f"sh -c 'echo session {number}; cat'") for number in range(MANY)]
        answers = [answer for batch in range(0, MANY, 10) for answer in start_all(client, ids[batch : batch + 10])]
        pids = [answer["result"]["pid"] for answer in answers]
        for number, session_id in enumerate(ids):
            with daemon.client() as other:
                Terminal(other, session_id).follow_until(f"session {number}")
    assert daemon.stop() == 0
    with daemon.start().client() as client:
        for number, (session_id, pid) in enumerate(zip(ids, pids, strict=True)):
            session = client.call("session.get", id=session_id)
            assert (session["live"], session["pid"]) == (True, pid)
            assert f"session {number}" in client.call("session.screen", id=session_id)["data"]
        assert client.call("stats.get")["live_sessions"] == MANY


def start_all(client: RawClient, ids: list[str]) -> list[dict[str, object]]:
    return ask(client, *[("session.start", {"id": session_id}) for session_id in ids])


def test_a_stopped_program_is_ended_too(shared_client: RawClient) -> None:
    """Terminate ends a program that is stopped by a signal, without the long way to SIGKILL."""
    session_id = start(shared_client, "cat")
    shared_client.call("session.signal", id=session_id, signal="STOP")
    assert shared_client.call("session.terminate", id=session_id)["exit_signal"] == 1


def test_a_program_that_lets_go_of_its_terminal_may_come_back(shared_client: RawClient, home: Path) -> None:
    """What is written to /dev/tty after every descriptor of the terminal was closed is shown."""
    os.mkfifo(home / "told")
    script = home / "program"
    script.write_text(
        "trap 'echo back > /dev/tty' USR1\n"
        f"exec < /dev/null > /dev/null 2>&1\necho closed > {home}/told\n"
        "while :; do sleep 1000 & wait; done\n"
    )
    session_id = start(shared_client, f"sh {script}")
    assert (home / "told").read_text() == "closed\n"
    shared_client.call("session.send", id=session_id, data=encoded("unread"))
    shared_client.call("session.signal", id=session_id, signal="USR1")
    Terminal(shared_client, session_id).follow_until("back")


@pytest.mark.slow
def test_an_old_screen_needs_no_program(daemon: DaemonProcess, client: RawClient) -> None:
    """The screen of a session whose daemon and keeper were killed at once is its last one, saved or not."""
    session_id = start(client, "sh -c 'echo last words; cat'")
    Terminal(client, session_id).follow_until("last words")
    pid = client.call("session.get", id=session_id)["pid"]
    daemon.kill()
    daemon.end_keeper()
    wait_for_end(pid)
    with daemon.start().client() as again:
        assert "last words" in again.call("session.screen", id=session_id)["data"]
        daemon.wait_for_log("last screen saved")
        assert again.call("snapshot.latest", session_id=session_id) is not None
        assert list((daemon.home / ".local" / "state" / "orbit" / "journal").iterdir()) == []


@pytest.mark.slow
def test_a_journal_that_cannot_be_opened(daemon: DaemonProcess, client: RawClient) -> None:
    """Where a journal cannot be opened, its program goes on, a warning says so, and it is read once it can be."""
    session_id = start(client, "sh -c 'echo before; cat'")
    Terminal(client, session_id).follow_until("before")
    pid = client.call("session.get", id=session_id)["pid"]
    daemon.kill()
    journals = daemon.home / ".local" / "state" / "orbit" / "journal"
    journals.chmod(0o755)
    with daemon.start().client() as again:
        assert again.call("session.get", id=session_id)["live"] is True
        error = again.error("session.attach", id=session_id, cols=80, rows=24)
        assert (error["code"], str(journals) in error["message"]) == (1005, True)
        [warning] = again.call("daemon.info")["warnings"]
        assert session_id in warning
        journals.chmod(0o700)
        assert "before" in Terminal(again, session_id).text()
        assert again.call("session.get", id=session_id)["pid"] == pid
        assert again.call("daemon.info")["warnings"] == []
