"""Starting and stopping the daemon from the command line, on purpose and unasked."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import cast
from unittest.mock import Mock

import pytest

from ctl_support import InProcess, Orbitctl, Peer, read_line
from orbitctl.client import daemon as client_daemon
from orbitctl.client.paths import ClientPaths
from orbitctl.client.process_watch import ProcessWatch
from orbitctl.errors import CommandError
from orbitctl.ui.output import Output
from support import WAIT_SECS, DaemonProcess, clean_environment, wait_for_line


@pytest.fixture
def stranded(home: Path) -> Orbitctl:
    """The command line, run in this process, in a home where no daemon runs and none can be started."""
    return InProcess(home)


def socket_of(ctl: Orbitctl) -> Path:
    return ctl.home / "run" / "orbit" / "orbitd.sock"


def log_of(ctl: Orbitctl) -> Path:
    return ctl.home / ".local" / "state" / "orbit" / "orbitd.log"


def test_a_daemon_is_started_where_none_runs(lonely: Orbitctl) -> None:
    """The first command starts a daemon, in a session of its own; the next one finds it."""
    assert lonely.ok("session", "list", "-q").text == ""
    pid = int(lonely.ok("status", "-q").text)
    assert os.getsid(pid) == pid
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    assert [os.readlink(f"/proc/{pid}/fd/{number}") for number in (0, 1)] == ["/dev/null", "/dev/null"]
    assert lonely.ok("status", "-q").text == f"{pid}\n"


def test_the_log_of_a_started_daemon_is_private(lonely: Orbitctl) -> None:
    """Its stderr goes to a file in the state folder that only the user can read."""
    lonely.ok("session", "list")
    assert stat.S_IMODE(log_of(lonely).stat().st_mode) == 0o600
    wait_for_line(log_of(lonely), "serving")
    assert "serving" in lonely.ok("daemon", "logs").text
    assert lonely.ok("daemon", "logs", "-n", "0").text == ""


@pytest.mark.parametrize(("words", "variables"), [(["--no-autostart"], {}), ([], {"ORBITCTL_NO_AUTOSTART": "1"})])
def test_starting_can_be_turned_off(stranded: Orbitctl, words: list[str], variables: dict[str, str]) -> None:
    """With --no-autostart or the variable, a missing daemon is exit code 3."""
    ended = stranded("session", "list", *words, **variables)
    assert (ended.code, ended.out) == (3, b"")
    assert "no daemon is running" in ended.err
    assert "hint: `orbitctl daemon start` starts it." in ended.err
    assert not socket_of(stranded).exists()


def test_clients_that_start_at_once_share_one_daemon(lonely: Orbitctl) -> None:
    """However many commands find no daemon at the same moment, one is started and all succeed."""
    runs = [
        subprocess.Popen([*lonely.command, "daemon", "start", "-q"], env=lonely.environment, stdout=subprocess.PIPE)
        for _ in range(6)
    ]
    pids = {run.communicate(timeout=WAIT_SECS)[0] for run in runs}
    assert [run.returncode for run in runs] == [0] * 6
    assert len(pids) == 1
    wait_for_line(log_of(lonely), " serving ")
    assert log_of(lonely).read_text().count(" serving ") == 1


def test_a_daemon_of_somebody_else_that_is_starting_is_waited_for(home: Path, lonely: Orbitctl) -> None:
    """A client that loses the race for the database against another starter uses the winner."""
    reader, writer = os.pipe()
    other = subprocess.Popen(
        [sys.executable, "-m", "orbitd", "--ready-fd", str(writer)],
        env=lonely.environment,
        cwd=home,
        pass_fds=[writer],
        stderr=subprocess.DEVNULL,
    )
    os.close(writer)
    assert lonely.ok("daemon", "start").code == 0
    ready = os.read(reader, 10)
    os.close(reader)
    pid = int(lonely.ok("status", "-q").text)
    assert (pid == other.pid) == (ready == b"ready\n")
    lonely.ok("daemon", "stop")
    other.wait(WAIT_SECS)


def test_a_start_that_takes_longer_than_the_timeout_goes_on(lonely: Orbitctl) -> None:
    """The next try waits for the one that starts, and no second one is started beside it."""
    first = lonely("session", "list", "--timeout", "0.01")
    assert (first.code, "error: " in first.err) == (6, True)
    pid = int(lonely.ok("daemon", "start", "-q").text)
    assert lonely.ok("status", "-q").text == f"{pid}\n"
    wait_for_line(log_of(lonely), " serving ")
    assert log_of(lonely).read_text().count(" serving ") == 1


def test_a_left_over_socket_is_replaced(lonely: Orbitctl) -> None:
    """A socket that a killed daemon left is no obstacle."""
    folder = socket_of(lonely).parent
    folder.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(socket_of(lonely)))
    assert lonely("session", "list", "--no-autostart").code == 3
    assert lonely.ok("session", "list", "-q").text == ""


def test_why_it_did_not_start_is_told(stranded: Orbitctl) -> None:
    """The daemon's own reason and hint are shown, with exit code 3."""
    folder = stranded.home / ".local" / "share" / "orbit"
    folder.mkdir(parents=True, mode=0o755)
    folder.chmod(0o755)
    ended = stranded("session", "list")
    assert ended.code == 3
    assert f"orbitd did not start: {folder} is open to others (mode 0755)" in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("obstacle", ["folder", "lock"])
def test_a_state_folder_that_cannot_be_used_is_told(stranded: Orbitctl, obstacle: str) -> None:
    """A file in the folder's place, or a link in the lock's, is named, with exit code 3."""
    folder = stranded.home / ".local" / "state"
    folder.mkdir(parents=True)
    if obstacle == "folder":
        (folder / "orbit").write_text("")
    else:
        (folder / "orbit").mkdir(mode=0o700)
        (folder / "orbit" / "start.lock").symlink_to("/nowhere")
    ended = stranded("session", "list")
    assert ended.code == 3
    named = "orbit is not a folder" if obstacle == "folder" else "orbit/start.lock is a symbolic link"
    assert f"cannot start orbitd: {folder}/{named}" in ended.err


@pytest.mark.parametrize(
    ("failure", "words", "hint"),
    [
        (OSError(errno.EIO, "Input/output error", "/state"), "Input/output error: /state", "Its disk fails"),
        (OSError(errno.EROFS, "Read-only file system", "/state"), "Read-only file system: /state", "remount it"),
        (OSError(errno.ENOSPC, "No space left", "/state"), "No space left: /state", "a disk with room"),
        (OSError(errno.EAGAIN, "No process"), "No process", ""),
    ],
)
def test_what_the_system_refuses_at_a_start_is_told(
    monkeypatch: pytest.MonkeyPatch, home: Path, failure: OSError, words: str, hint: str
) -> None:
    """The file is named where there is one, and the advice fits the failure: no folder is blamed for a failed fork."""
    monkeypatch.setattr(client_daemon, "private_folder", Mock(side_effect=failure))
    with pytest.raises(CommandError) as caught:
        client_daemon.start(ClientPaths({"HOME": str(home)}, None), 1, cast(Output, None))
    assert str(caught.value) == f"cannot start orbitd: {words}"
    assert hint in caught.value.hint
    assert bool(hint) == bool(caught.value.hint)


def test_the_turn_of_another_client_is_waited_for_only_so_long(stranded: Orbitctl) -> None:
    """A client that hangs in the middle of starting the daemon holds others up for the timeout at most."""
    folder = stranded.home / ".local" / "state" / "orbit"
    folder.mkdir(parents=True, mode=0o700)
    with (folder / "start.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ended = stranded("session", "list", "--timeout", "0.1")
    assert ended.code == 6
    assert "still starting orbitd after 0.1 s" in ended.err


def test_a_database_that_serves_elsewhere_is_told(own_ctl: Orbitctl) -> None:
    """Another socket for a database in use does not start a second daemon; who has it is told."""
    ended = own_ctl("session", "list", "--socket", str(own_ctl.home / "run" / "o" / "s"))
    assert ended.code == 3
    assert "another orbitd serves this database" in ended.err


def test_flags_and_variables_reach_the_started_daemon(lonely: Orbitctl) -> None:
    """A relative socket is in the caller's folder, although the daemon runs elsewhere; `~/` in a variable is HOME."""
    (lonely.home / "d").mkdir(mode=0o700)
    info = lonely.ok("daemon", "start", "--json", "--socket", "r/s", ORBITD_DATABASE="~/d/x.db").json
    assert info["socket_path"] == str(lonely.home / "r" / "s")
    assert info["database_path"] == str(lonely.home / "d" / "x.db")
    lonely.ok("daemon", "stop", "--socket", "r/s")


def test_the_socket_of_the_configuration_is_used(lonely: Orbitctl) -> None:
    """The client reads socket_path from the same file as the daemon."""
    folder = lonely.home / ".config" / "orbit"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text('[daemon]\nsocket_path = "~/c/s"\n')
    assert lonely.ok("daemon", "start", "--json").json["socket_path"] == str(lonely.home / "c" / "s")


def test_a_configuration_that_cannot_be_used_exits_with_2(stranded: Orbitctl) -> None:
    """File and key are named."""
    folder = stranded.home / ".config" / "orbit"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text("[daemon]\nsockt = 1\n")
    for words in (["session", "list"], ["config", "check"], ["status"]):
        ended = stranded(*words)
        assert ended.code == 2
        assert f"{folder}/config.toml: unknown key `sockt` in `daemon`" in ended.err


def test_stop_waits_for_the_end(lonely: Orbitctl) -> None:
    """After stop the database's lock is free and the socket gone; stopping again says so and succeeds."""
    pid = int(lonely.ok("daemon", "start", "-q").text)
    ended = lonely.ok("daemon", "stop")
    assert ended.err == f"orbitd stopped (pid {pid})\n"
    assert not socket_of(lonely).exists()
    with (lonely.home / ".local" / "share" / "orbit" / "sessions.db.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert lonely.ok("daemon", "stop").err == "orbitd is not running\n"


def test_restart_runs_another_process(lonely: Orbitctl) -> None:
    """Restart works with and without a daemon, and keeps what is stored."""
    first = int(lonely.ok("daemon", "restart", "-q").text)
    found = lonely.id("session", "create")
    second = int(lonely.ok("daemon", "restart", "-q").text)
    assert first != second
    assert lonely.ok("session", "list", "-q").lines == [found]


def test_start_says_who_runs(ctl: Orbitctl, shared_daemon: DaemonProcess) -> None:
    """Starting what runs already succeeds and starts nothing."""
    assert ctl.ok("daemon", "start", "-q").text == f"{shared_daemon.pid}\n"
    assert "orbitd runs already" in ctl.ok("daemon", "start").err


def test_run_stays_in_the_foreground(home: Path) -> None:
    """`daemon run` becomes orbitd itself, with the flags that it was given."""
    environment = clean_environment(home)
    command = [sys.executable, "-m", "orbitctl", "daemon", "run", "--log-format", "json", "--socket", "run/f/s"]
    with subprocess.Popen(command, env=environment, cwd=home, stderr=subprocess.PIPE) as run:
        assert run.stderr is not None
        line = next(line for line in run.stderr if b'"serving"' in line)
        assert f'"pid":{run.pid}'.encode() in line
        run.send_signal(signal.SIGTERM)
        assert run.wait(WAIT_SECS) == 0


def test_logs_that_are_not_there_are_told(stranded: Orbitctl) -> None:
    """Without a log the command says where it would be."""
    ended = stranded("daemon", "logs")
    assert ended.code == 4
    assert str(log_of(stranded)) in ended.err


def test_logs_begin_in_the_file_before(lonely: Orbitctl) -> None:
    """Just after the log file was renamed, the last lines are those of the one before and of this one."""
    log_of(lonely).parent.mkdir(parents=True, mode=0o700)
    log_of(lonely).with_suffix(".log.1").write_text("1\n2\n3\n")
    log_of(lonely).write_text("4\n5\n")
    shown = {count: lonely.ok("daemon", "logs", "-n", str(count)).text for count in (0, 2, 3, 50)}
    assert shown == {0: "", 2: "4\n5\n", 3: "3\n4\n5\n", 50: "1\n2\n3\n4\n5\n"}


def test_a_start_whose_log_file_is_renamed_is_explained(lonely: Orbitctl) -> None:
    """The reason of a start that failed is found in the new file."""
    log_of(lonely).parent.mkdir(parents=True, mode=0o700)
    log_of(lonely).write_bytes(b"x" * (8 << 20))
    config = lonely.home / ".config" / "orbit" / "config.toml"
    config.parent.mkdir(parents=True)
    (lonely.home / "file").touch()
    config.write_text(f'[session]\ndatabase_path = "{lonely.home}/file/s.db"\n')
    ended = lonely("daemon", "start")
    assert ended.code == 3
    assert f"orbitd did not start: {lonely.home}/file is not a folder" in ended.err


def test_the_end_of_a_process_is_seen() -> None:
    """Ending waits by event, tells a process that runs on, and one that has gone already."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        ending = ProcessWatch(process.pid)
        assert not ending.wait(0)
        process.communicate()
        assert ending.wait(WAIT_SECS)
        ending.close()
    gone = ProcessWatch(process.pid)
    assert gone.wait(0)
    gone.close()


def test_ctrl_c_exits_with_130(lonely: Orbitctl) -> None:
    """An interrupt in the middle of a call ends it quietly."""
    asked, over = threading.Event(), threading.Event()

    def hold(connection: socket.socket) -> None:
        read_line(connection)
        asked.set()
        over.wait(WAIT_SECS)

    peer = Peer(lonely.home / "s", hold)
    command = [*lonely.command, "session", "list", "--socket", "s"]
    with subprocess.Popen(
        command, env=lonely.environment, cwd=lonely.home, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as run:
        assert asked.wait(WAIT_SECS)
        run.send_signal(signal.SIGINT)
        out, err = run.communicate(timeout=WAIT_SECS)
    over.set()
    peer.close()
    assert (run.returncode, out, err.strip()) == (130, b"", b"")


def test_a_stopped_daemon_is_a_timeout(own_ctl: Orbitctl, daemon: DaemonProcess) -> None:
    """A daemon that hangs is exit code 6 after --timeout."""
    os.kill(daemon.pid, signal.SIGSTOP)
    try:
        ended = own_ctl("session", "list", "--timeout", "0.2")
    finally:
        os.kill(daemon.pid, signal.SIGCONT)
    assert ended.code == 6
    assert "no answer within 0.2 s" in ended.err


def test_a_database_that_was_moved_away_under_a_program(lonely: Orbitctl) -> None:
    """Stop and the next start tell of it, and a restore brings it back, with the screen of the program that runs."""
    folder, moved = lonely.home / ".local" / "share" / "orbit", lonely.home / "moved"
    session_id = lonely.id("session", "run", "-d", "--name", "kept", "--", "sh", "-c", "echo shown; exec cat")
    os.rename(folder, moved)
    assert f"the database {folder / 'sessions.db'} was not there" in lonely.ok("daemon", "stop").err
    assert f"no database at {folder / 'sessions.db'}" in lonely.ok("session", "list").err
    assert "is new, while programs of another one run (1)" in lonely.ok("status").err
    while "shown" not in lonely.ok("session", "screen", session_id).text:
        pass  # each of them waits for what the program has printed by then
    restored = lonely.ok("maintenance", "restore", "--yes", str(moved / "sessions.db"))
    assert "were taken over from it: 1" in restored.err
    assert lonely.ok("session", "screen", "kept").text.split() == ["shown"]
    assert "programs of another one" not in lonely.ok("status").err
    assert lonely.ok("daemon", "stop", "--all").err.startswith("1 program ended")
