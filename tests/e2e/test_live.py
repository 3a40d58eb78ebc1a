"""Live sessions over the socket: programs on real terminals, clients that come and go, daemons that die."""

from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path

import pytest

from live.sessions import create, keeper_of, start, wait_for_end
from live_support import Viewer, encoded
from support import DaemonProcess, RawClient

SHELL = "bash --norc --noprofile"
COUNTER = "sh -c 'i=0; while :; do i=$((i+1)); echo line $i; done'"


def test_a_program_runs_and_tells_what_it_wrote(shared_client: RawClient) -> None:
    """A started session is live, detached until somebody attaches, and shows the program's output."""
    session_id = create(shared_client, "sh -c 'echo hello; read x'")
    started = shared_client.call("session.start", id=session_id, cols=100, rows=30)
    assert (started["live"], started["status"], started["cols"], started["rows"]) == (True, "detached", 100, 30)
    assert Path(f"/proc/{started['pid']}").exists()
    viewer = Viewer(shared_client, session_id, (100, 30))
    viewer.read_until("hello")
    assert shared_client.call("session.get", id=session_id)["status"] == "active"


def test_what_is_typed_reaches_the_program(shared_client: RawClient) -> None:
    """Input through an attachment and input by session.send both arrive."""
    session_id = start(shared_client, "cat")
    viewer = Viewer(shared_client, session_id)
    viewer.type("by input\n")
    viewer.read_until("by input\r\nby input")
    shared_client.call("session.send", id=session_id, data=encoded("by send\n"))
    viewer.read_until("by send\r\nby send")
    assert viewer.text().splitlines()[:4] == ["by input", "by input", "by send", "by send"]


def test_the_exit_is_told_and_kept(shared_daemon: DaemonProcess, shared_client: RawClient) -> None:
    """Everybody hears the exit code after the last output; the session is terminated and its screen is saved."""
    session_id = start(shared_client, "sh -c 'read x; echo goodbye; exit 7'")
    with shared_daemon.client() as other:
        viewer = Viewer(other, session_id)
        viewer.type("\n")
        assert viewer.read_to_the_end() == {"attachment_id": viewer.id, "exit_code": 7, "exit_signal": None}
        assert b"goodbye" in viewer.output
    assert shared_client.call("session.wait", id=session_id) == {"exit_code": 7, "exit_signal": None}
    session = shared_client.call("session.get", id=session_id)
    assert (session["status"], session["live"], session["pid"], session["exit_code"]) == ("terminated", False, None, 7)
    assert "goodbye" in shared_client.call("session.screen", id=session_id)["data"]
    assert shared_client.call("snapshot.latest", session_id=session_id)["format"] == "vt"


def test_a_signal_ends_a_program(shared_client: RawClient) -> None:
    """session.signal reaches the process group, and the signal is told as the end."""
    session_id = start(shared_client, "sleep 1000")
    shared_client.call("session.signal", id=session_id, signal="term")
    assert shared_client.call("session.wait", id=session_id, timeout_secs=10) == {
        "exit_code": None,
        "exit_signal": signal.SIGTERM,
    }


def test_waiting_has_a_limit(shared_client: RawClient) -> None:
    """session.wait answers -32002 when the program still runs."""
    session_id = start(shared_client, "sleep 1000")
    assert shared_client.error("session.wait", id=session_id, timeout_secs=0)["code"] == -32002


@pytest.mark.slow
def test_a_program_that_ignores_hangups_is_killed(shared_client: RawClient) -> None:
    """Terminate hangs up first, and kills what does not heed it."""
    session_id = start(shared_client, "sh -c 'trap \"\" HUP; echo ready; while :; do sleep 1000; done'")
    Viewer(shared_client, session_id).read_until("ready")
    ended = shared_client.call("session.terminate", id=session_id)
    assert (ended["status"], ended["live"], ended["exit_signal"]) == ("terminated", False, signal.SIGKILL)


@pytest.mark.parametrize(
    ("command", "words"),
    [("/nonexistent/program", "No such file"), ("/etc", "Permission denied"), ("'unclosed", "quotation")],
)
def test_what_cannot_be_executed_is_told(shared_client: RawClient, command: str, words: str) -> None:
    """spawn_failed has errno's words and the path; the session stays as it was."""
    session_id = create(shared_client, command)
    before = shared_client.call("session.get", id=session_id)
    error = shared_client.error("session.start", id=session_id)
    assert (error["code"], words in error["message"]) == (1005, True), error
    after = shared_client.call("session.get", id=session_id)
    assert {**after, "last_active": before["last_active"]} == before


@pytest.mark.parametrize("has_run", [False, True], ids=["new", "has run"])
def test_a_start_that_fails_leaves_the_session_as_it_was(
    shared_client: RawClient, shared_daemon: DaemonProcess, tmp_path: Path, has_run: bool
) -> None:
    """One that has never run has no size, by which it would pass for lost; one that has keeps its exit and its size."""
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\nexit 3\n")
    program.chmod(0o755)
    session_id = create(shared_client, str(program))
    if has_run:
        shared_client.call("session.start", id=session_id, cols=90, rows=20)
        shared_client.call("session.wait", id=session_id)
    before = shared_client.call("session.get", id=session_id)
    program.unlink()
    assert shared_client.error("session.start", id=session_id, cols=80, rows=24)["code"] == 1005
    after = shared_client.call("session.get", id=session_id)
    unlike = {name for name in before if before[name] != after[name]}
    assert unlike <= {"last_active"}
    assert (after["cols"], after["exit_code"]) == ((90, 3) if has_run else (None, None))


def test_a_session_starts_once(shared_client: RawClient) -> None:
    """A second start is refused with already_running."""
    session_id = start(shared_client, "cat")
    assert shared_client.error("session.start", id=session_id)["code"] == 1004


def test_what_does_not_run_is_not_running(shared_client: RawClient) -> None:
    """Attach, send, signal and wait of an external session are refused with 1006."""
    session_id = create(shared_client)
    codes = [
        shared_client.error("session.attach", id=session_id, cols=80, rows=24)["code"],
        shared_client.error("session.send", id=session_id, data="")["code"],
        shared_client.error("session.signal", id=session_id, signal="TERM")["code"],
        shared_client.error("session.wait", id=session_id)["code"],
        shared_client.error("session.input", attachment_id="none", data="")["code"],
    ]
    assert codes == [1006] * 5


def test_the_environment_is_layered(stopped_daemon: DaemonProcess) -> None:
    """What the client sends is all, config.env lies over it, and ours last; nothing of the daemon's own is there."""
    stopped_daemon.environment |= {"FROM_DAEMON": "daemon", "TMUX": "/tmp/elsewhere"}
    stopped_daemon.start()
    with stopped_daemon.client() as client:
        session_id = create(client, "sh -c 'env; echo done; read x'", env={"FROM_CONFIG": "config", "BOTH": "config"})
        sent = {"FROM_CLIENT": "client", "BOTH": "client", "PATH": os.environ["PATH"]}
        client.call("session.start", id=session_id, rows=100, env=sent)
        viewer = Viewer(client, session_id, (200, 100))
        viewer.read_until("done")
        lines = set(viewer.text().splitlines())
    wanted = {"FROM_CLIENT=client", "FROM_CONFIG=config", "BOTH=config", "TERM=xterm-256color"}
    ours = {f"ORBIT{name}={stopped_daemon.socket_path}" for name in ("D_SOCKET", "_SOCKET")}
    assert wanted | ours | {f"ORBIT_SESSION={session_id}"} <= lines
    assert not any(line.startswith(("FROM_DAEMON=", "TMUX=", "NOTIFY_SOCKET=")) for line in lines)


def test_a_program_starts_in_its_folder(shared_client: RawClient, home: Path) -> None:
    """config.cwd is where it starts, and where it is now is told."""
    (home / "place").mkdir()
    session_id = start(shared_client, SHELL, cwd=str(home / "place"))
    assert shared_client.call("session.get", id=session_id)["cwd"] == str(home / "place")


def test_the_size_follows_who_leads(shared_daemon: DaemonProcess, shared_client: RawClient) -> None:
    """The newest writable client owns the size, then the last to resize or type, a reader never; others get frames."""
    session_id = start(shared_client, "sh -c 'trap \"stty size\" WINCH; echo ready; while :; do read x; done'")
    with shared_daemon.client() as second, shared_daemon.client() as third:
        first = Viewer(shared_client, session_id, (100, 40))
        first.read_until("ready")
        newer = Viewer(second, session_id, (90, 30))
        reader = Viewer(third, session_id, (10, 5), read_only=True)
        assert (reader.session["cols"], reader.session["rows"]) == (90, 30)
        first.read_until_repaint()
        assert (first.reasons, first.emulator.size) == (["frame"], (100, 40))
        shared_client.call("session.resize", attachment_id=first.id, cols=70, rows=20)
        third.call("session.resize", attachment_id=reader.id, cols=5, rows=5)
        session = shared_client.call("session.get", id=session_id)
        assert (session["cols"], session["rows"], session["clients"]) == (70, 20, 3)
        assert third.error("session.input", attachment_id=reader.id, data="")["code"] == -32602
        newer.type("x")
        newer.read_until("30 90")
        second.call("session.leave", attachment_id=newer.id)
        assert shared_client.call("session.get", id=session_id)["clients"] == 2


def test_the_last_client_to_leave_detaches(shared_daemon: DaemonProcess, shared_client: RawClient) -> None:
    """The status follows the clients, however they leave."""
    session_id = start(shared_client, "cat")
    with shared_daemon.client() as other:
        viewer = Viewer(other, session_id)
        assert shared_client.call("session.get", id=session_id)["status"] == "active"
        other.call("session.leave", attachment_id=viewer.id)
        assert shared_client.call("session.get", id=session_id)["status"] == "detached"
        Viewer(other, session_id)
        other.socket.shutdown(socket.SHUT_WR)
        while other.read_line():
            pass  # at the end the daemon has closed its side, and what was attached there has ended
    assert shared_client.call("session.get", id=session_id)["clients"] == 0
    assert shared_client.call("session.attach", id=session_id, cols=80, rows=24)["session"]["clients"] == 1


def test_detach_puts_every_client_off(shared_daemon: DaemonProcess, shared_client: RawClient) -> None:
    """session.detach ends all attachments, tells them, and leaves the program running."""
    session_id = start(shared_client, "cat")
    with shared_daemon.client() as one, shared_daemon.client() as two:
        viewers = [Viewer(one, session_id), Viewer(two, session_id)]
        detached = shared_client.call("session.detach", id=session_id)
        assert (detached["status"], detached["clients"], detached["live"]) == ("detached", 0, True)
        for viewer in viewers:
            while not viewer.was_put_off:
                viewer.step()


def test_deleting_ends_the_program(shared_client: RawClient, shared_daemon: DaemonProcess) -> None:
    """A deleted session's program, journal and snapshots are gone."""
    session_id = start(shared_client, "cat")
    pid = shared_client.call("session.get", id=session_id)["pid"]
    shared_client.call("session.delete", id=session_id)
    assert not Path(f"/proc/{pid}").exists()
    assert list((shared_daemon.home / ".local" / "state" / "orbit" / "journal").iterdir()) == []


@pytest.mark.slow
def test_a_killed_daemon_loses_no_program_and_no_line(daemon: DaemonProcess) -> None:
    """A counter runs on through kill -9 of the daemon; every line is there once, in order."""
    with daemon.client() as client:
        session_id = start(client, COUNTER)
        pid = client.call("session.get", id=session_id)["pid"]
        Viewer(client, session_id).read_until("line 500")
    for _ in range(5):
        daemon.kill()
        daemon.start()
        with daemon.client() as client:
            session = client.call("session.get", id=session_id)
            assert (session["live"], session["pid"], session["status"]) == (True, pid, "detached")
            seen = Viewer(client, session_id)
            seen.read_until("line ")
    with daemon.client() as client:
        client.call("session.signal", id=session_id, signal="KILL")
        client.call("session.wait", id=session_id)
        lines = client.call("session.screen", id=session_id, scrollback=True)["data"].split("\n")
        numbers = [int(line.split()[1]) for line in lines if line.startswith("line ") and line.split()[1:]]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert len(numbers) > 5000


@pytest.mark.slow
def test_an_exit_that_nobody_saw_is_told_later(daemon: DaemonProcess) -> None:
    """A program that ends while the daemon is dead leaves its exit code and its last words."""
    with daemon.client() as client:
        session_id = start(client, "sh -c 'read x; echo last words; exit 5'")
        client.call("session.send", id=session_id, data=encoded("\n"))
        pid = client.call("session.get", id=session_id)["pid"]
    daemon.kill()
    if pid is not None:
        wait_for_end(pid)
    daemon.start()
    with daemon.client() as client:
        assert client.call("session.wait", id=session_id) == {"exit_code": 5, "exit_signal": None}
        assert "last words" in client.call("session.screen", id=session_id)["data"]


@pytest.mark.slow
def test_after_a_reboot_shells_come_back_under_their_screen(daemon: DaemonProcess, home: Path) -> None:
    """Keeper and daemon killed: a login shell is started again in its folder, others show their screen and wait."""
    (home / "work").mkdir()
    daemon.environment["SHELL"] = "/bin/sh"
    daemon.restart()
    with daemon.client() as client:
        shell = start(client)
        other = start(client, "sh -c 'echo other screen; read x'")
        viewer = Viewer(client, shell)
        viewer.type(f"cd {home}/work; echo be''fore the reboot\n")
        viewer.read_until("before the reboot")
        with daemon.client() as second:
            Viewer(second, other).read_until("other screen")  # may be in the repaint already
        pid = client.call("session.get", id=shell)["pid"]
        cursor = client.call("events.list", limit=0)["cursor"]
    daemon.stop()
    keeper = keeper_of(pid)
    os.kill(keeper, signal.SIGKILL)
    wait_for_end(pid)
    daemon.start()
    with daemon.client() as client:
        # A busy machine may serve clients before the shell runs.
        client.call("events.wait", since=cursor, session_id=shell, kinds=["session.started"])
        session = client.call("session.get", id=shell)
        assert (session["live"], session["cwd"], session["pid"] != pid) == (True, str(home / "work"), True)
        screen = client.call("session.screen", id=shell, scrollback=True)["data"]
        assert "before the reboot" in screen
        assert "started again" in screen
        waiting = client.call("session.get", id=other)
        assert (waiting["live"], waiting["status"]) == (False, "detached")
        assert "other screen" in client.call("session.screen", id=other)["data"]
        assert client.call("session.start", id=other)["live"] is True


@pytest.mark.slow
def test_a_killed_keeper_is_told(daemon: DaemonProcess, client: RawClient) -> None:
    """When the keeper dies its sessions are detached and not live, and a new one is started when needed."""
    session_id = start(client, "cat")
    pid = client.call("session.get", id=session_id)["pid"]
    with daemon.client() as other:
        viewer = Viewer(other, session_id)
        os.kill(keeper_of(pid), signal.SIGKILL)
        assert viewer.read_to_the_end() == {"attachment_id": viewer.id, "exit_code": None, "exit_signal": None}
    session = client.call("session.get", id=session_id)
    assert (session["live"], session["status"]) == (False, "detached")
    assert client.call("session.start", id=session_id)["live"] is True


@pytest.mark.slow
def test_a_frozen_client_holds_nobody_up(shared_daemon: DaemonProcess, shared_client: RawClient) -> None:
    """A client that does not read gets one repaint when it does; the program and the others go on."""
    session_id = start(shared_client, "sh -c 'read x; seq 1000000; echo finished; read x'")
    with shared_daemon.client() as frozen, shared_daemon.client() as watching:
        still, viewer = Viewer(frozen, session_id), Viewer(watching, session_id)
        viewer.type("\n")
        while "finished" not in viewer.text():
            viewer.step()
        while "finished" not in still.text():
            still.step()
        assert still.repaints == 1
        viewer.type("\n")
        still.read_to_the_end()
        viewer.read_to_the_end()
    assert still.text() == viewer.text() == shared_client.call("session.screen", id=session_id)["data"]


def test_nobody_attached_means_the_daemon_answers(shared_client: RawClient) -> None:
    """A program that asks for the cursor's place gets an answer with no client there."""
    ask = r"printf \"\\033[6n\"; IFS= read -r -d R -t 10 x; echo got ${#x}"
    session_id = start(shared_client, f'bash -c "stty raw -echo; {ask}"')
    shared_client.call("session.wait", id=session_id)
    shown = shared_client.call("session.screen", id=session_id)["data"]
    assert "got" in shown
    assert "got 0" not in shown


def test_an_attached_client_hears_the_answer_first(shared_daemon: DaemonProcess) -> None:
    """However busy the program, the answer to the attach comes before the first output."""
    with shared_daemon.client() as client:
        session_id = start(client, COUNTER)
        for number in range(20):
            with shared_daemon.client() as other:
                params = {"id": session_id, "cols": 80, "rows": 24}
                line = json.dumps({"jsonrpc": "2.0", "method": "session.attach", "params": params, "id": number})
                assert other.ask(line)["id"] == number
