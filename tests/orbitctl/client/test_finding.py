"""Finding the daemon that runs by the note in its database's lock, and ending one that hangs."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ctl_support import Ended, InProcess, Orbitctl
from needs import needs
from orbit_os.lock_note import SERVING, STARTING, STOPPING, LockNote, format_note, note_of_this_process, parse_note
from orbit_os.processes import start_time
from orbit_protocol.methods import Method
from orbitctl.client import client as client_module
from orbitctl.client import daemon as client_daemon
from orbitctl.client import finding
from orbitctl.client.client import Client
from orbitctl.client.finding import hung
from orbitctl.client.paths import ClientPaths
from orbitctl.client.process_watch import ProcessWatch
from orbitctl.completion import answer
from orbitctl.errors import CommandError
from support import WAIT_SECS, DaemonProcess, RawClient

LOCAL = {"session_type": "local"}
TIMEOUT = "0.5"


def lock_of(daemon: DaemonProcess) -> Path:
    return Path(f"{daemon.database_path}.lock")


def note_of(daemon: DaemonProcess) -> LockNote:
    note = parse_note(lock_of(daemon).read_bytes())
    assert note is not None
    return note


def without(daemon: DaemonProcess, *variables: str) -> Orbitctl:
    """Return the command line as cron or su runs it, beside a daemon."""
    kept = {name: value for name, value in daemon.environment.items() if name not in variables}
    return InProcess(daemon.home, {**kept, "ORBITCTL_NO_AUTOSTART": "1"})


@pytest.fixture
def from_cron(shared_daemon: DaemonProcess) -> Orbitctl:
    return without(shared_daemon, "XDG_RUNTIME_DIR")


@contextlib.contextmanager
def stopped(daemon: DaemonProcess) -> Iterator[None]:
    """Have a daemon hang, until the end of the block or its own."""
    with contextlib.closing(ProcessWatch(daemon.pid)) as watch:
        assert watch.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            watch.send_signal(signal.SIGCONT)


def ended(daemon: DaemonProcess) -> int:
    assert daemon.process is not None
    return daemon.process.wait(WAIT_SECS)


# Who has no, or another, runtime folder


@pytest.mark.parametrize(
    "words",
    [["session", "list"], ["status"], ["version"], ["doctor"], ["stats"], ["daemon", "start"], ["rpc", "discover"]],
)
def test_a_client_without_a_runtime_folder_reaches_the_daemon(
    from_cron: Orbitctl, shared_daemon: DaemonProcess, words: list[str]
) -> None:
    """Every command finds the one that runs, and starts none."""
    found = from_cron.ok(*words)
    assert "not running" not in found.text + found.err
    assert from_cron.ok("status", "-q").text == f"{shared_daemon.pid}\n"


@pytest.mark.parametrize("runtime", ["other", "missing", "file", "closed", "relative"])
def test_a_changed_runtime_folder_does_not_matter(shared_daemon: DaemonProcess, home: Path, runtime: str) -> None:
    """Another folder, one that is not there or cannot be used: the daemon is found all the same."""
    place = home / "elsewhere"
    if runtime == "file":
        place.touch()
    elif runtime in ("other", "closed"):
        place.mkdir(mode=0o700 if runtime == "other" else 0)
    value = "elsewhere" if runtime == "relative" else str(place)
    ctl = without(shared_daemon, "XDG_RUNTIME_DIR")
    assert ctl.ok("status", "-q", XDG_RUNTIME_DIR=value).text == f"{shared_daemon.pid}\n"


def test_a_daemon_without_a_runtime_folder_is_found_from_a_login(stopped_daemon: DaemonProcess) -> None:
    """The other way round: cron has started it, and it listens in the state folder."""
    runtime = stopped_daemon.environment.pop("XDG_RUNTIME_DIR")
    stopped_daemon.start()
    ctl = without(stopped_daemon)
    status = ctl.ok("status", "--json", XDG_RUNTIME_DIR=runtime).json
    assert status["info"]["pid"] == stopped_daemon.pid
    assert status["info"]["socket_path"] == note_of(stopped_daemon).socket
    assert ctl.ok("daemon", "stop", XDG_RUNTIME_DIR=runtime).err == f"orbitd stopped (pid {stopped_daemon.pid})\n"


def test_completion_reaches_the_daemon(from_cron: Orbitctl, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names are completed where the runtime folder is another one, too."""
    from_cron.ok("session", "create", "--name", "web")
    monkeypatch.setattr(answer, "TIMEOUT", WAIT_SECS)  # a busy machine needs longer than a person waits
    for name in os.environ.keys() - from_cron.environment.keys():
        monkeypatch.delenv(name)
    for name, value in from_cron.environment.items():
        monkeypatch.setenv(name, value)
    assert answer.answer("bash", ["orbitctl session show w", ":"]) == ["words", "web"]


def test_dial_stdio_reaches_the_daemon(from_cron: Orbitctl) -> None:
    """A sshd without PAM sets no runtime folder: the remote end of --host finds the daemon by the lock."""
    ctl = Orbitctl(from_cron.home, from_cron.environment)
    ping = b'{"jsonrpc":"2.0","id":1,"method":"daemon.ping"}\n'
    assert b'"pong":true' in ctl.ok("dial-stdio", stdin=ping).out


@pytest.mark.parametrize("command", ["stop", "restart"])
def test_stop_ends_the_one_that_runs(daemon: DaemonProcess, command: str) -> None:
    """It is never said that none runs while one holds the database."""
    ctl = without(daemon, "XDG_RUNTIME_DIR")
    ctl.ok("daemon", command)
    assert ended(daemon) == 0
    if command == "restart":
        assert int(ctl.ok("status", "-q").text) != daemon.pid
    ctl.ok("daemon", "stop")
    assert ctl.ok("daemon", "stop").err == "orbitd is not running\n"


# A socket that was named


@pytest.mark.parametrize("by_flag", [True, False])
@pytest.mark.parametrize("words", [["session", "list"], ["status"], ["daemon", "stop"], ["daemon", "stop", "--force"]])
def test_a_named_socket_means_that_one(shared_daemon: DaemonProcess, words: list[str], by_flag: bool) -> None:
    """Whoever names a socket gets no other daemon, and is told which one has the database."""
    ctl, other = without(shared_daemon), str(shared_daemon.home / "other.sock")
    refused = ctl(*words, "--socket", other) if by_flag else ctl(*words, ORBITD_SOCKET=other)
    assert refused.code == 3
    assert (
        f"another orbitd serves this database (pid {shared_daemon.pid}) at {shared_daemon.socket_path}" in refused.err
    )
    assert shared_daemon.is_running


def test_the_variable_of_a_session_is_no_choice(shared_daemon: DaemonProcess) -> None:
    """A program of a session has the socket of the daemon that started it, which may listen elsewhere by now."""
    stale = dict.fromkeys(("ORBITD_SOCKET", "ORBIT_SOCKET"), str(shared_daemon.home / "old.sock"))
    assert without(shared_daemon).ok("status", "-q", **stale).text == f"{shared_daemon.pid}\n"


@pytest.mark.parametrize("words", [["daemon", "stop"], ["daemon", "stop", "--force"], ["session", "list"]])
def test_another_socket_in_a_session_is_a_choice(shared_daemon: DaemonProcess, words: list[str]) -> None:
    """Who sets the variable inside a session means that socket, and not the daemon of the session."""
    variables = {
        "ORBIT_SESSION": "00000000-0000-4000-8000-000000000000",
        "ORBIT_SOCKET": str(shared_daemon.socket_path),
        "ORBITD_SOCKET": str(shared_daemon.home / "other.sock"),
    }
    assert without(shared_daemon)(*words, **variables).code == 3
    assert shared_daemon.is_running


def test_another_database_is_another_daemon(from_cron: Orbitctl) -> None:
    """The note of the database that is named counts, not that of the usual one."""
    assert from_cron("status", ORBITD_DATABASE=str(from_cron.home / "none.db")).code == 3


@pytest.mark.parametrize(
    "words", [["session", "list"], ["session", "create"], ["daemon", "stop"], ["daemon", "start"], ["status"]]
)
def test_a_daemon_of_another_database_is_not_used(shared_daemon: DaemonProcess, words: list[str]) -> None:
    """Where the database is named and the usual socket is another one's, nothing is done, and both are named."""
    ctl, other = Orbitctl(shared_daemon.home), shared_daemon.home / "other" / "x.db"
    refused = ctl(*words, ORBITD_DATABASE=str(other))
    assert refused.code == 3
    assert f"{shared_daemon.socket_path} is served by orbitd (pid {shared_daemon.pid})" in refused.err
    assert str(other) in refused.err
    assert shared_daemon.is_running
    assert not other.parent.exists()


@pytest.mark.parametrize("path", ["x.db", "$HOME/x.db", "~", "/d/", " "])
@pytest.mark.parametrize("words", [["session", "create"], ["daemon", "stop"], ["status"]])
def test_no_daemon_is_used_for_a_database_that_is_no_path(
    shared_daemon: DaemonProcess, words: list[str], path: str
) -> None:
    """A variable that holds none is named, also where a daemon runs: its database is not the one that is meant."""
    refused = Orbitctl(shared_daemon.home)(*words, ORBITD_DATABASE=path)
    assert (refused.code, "ORBITD_DATABASE must " in refused.err) == (2, True), refused
    assert shared_daemon.is_running


def test_the_daemon_of_the_named_database_is_used(shared_daemon: DaemonProcess) -> None:
    """A variable that names what is served anyway changes nothing."""
    database = shared_daemon.home / ".local" / "share" / "orbit" / "sessions.db"
    ctl = Orbitctl(shared_daemon.home)
    assert ctl.ok("status", "-q", ORBITD_DATABASE=str(database)).text == f"{shared_daemon.pid}\n"


@pytest.mark.parametrize("words", [["status", "-q"], ["session", "list"], ["daemon", "stop"]])
def test_the_daemon_is_asked_where_the_lock_says_nothing(daemon: DaemonProcess, words: list[str]) -> None:
    """As beside a socket whose supervisor has just started it, or where the database has been moved away."""
    ctl, database = Orbitctl(daemon.home), Path(daemon.database_path)
    lock_of(daemon).write_bytes(b"")
    ctl.ok(*words, ORBITD_DATABASE=str(database))


def test_a_database_that_was_moved_away_locks_nobody_out(daemon: DaemonProcess) -> None:
    """Its daemon is still the one that the variable means, and can be stopped."""
    ctl, folder = Orbitctl(daemon.home), Path(daemon.database_path).parent
    folder.rename(folder.with_name("moved"))
    assert "was not there" in ctl.ok("daemon", "stop", ORBITD_DATABASE=str(daemon.database_path)).err
    assert ended(daemon) == 0


def test_a_mistake_in_the_configuration_keeps_nobody_from_a_session(shared_daemon: DaemonProcess, home: Path) -> None:
    """A program of a session inherits orbitd's variables; the socket is known without the file."""
    broken = shared_daemon.home / "broken.toml"
    broken.write_text("no TOML")
    socket_path = str(shared_daemon.socket_path)
    variables = {"ORBITD_SOCKET": socket_path, "ORBIT_SOCKET": socket_path, "ORBITD_CONFIG": str(broken)}
    assert Orbitctl(shared_daemon.home).ok("status", "-q", **variables).text == f"{shared_daemon.pid}\n"


# Notes that do not fit


@pytest.fixture
def noted(home: Path) -> Iterator[tuple[Orbitctl, Path, subprocess.Popen[bytes]]]:
    """The command line beside a lock whose note can be written, and a process that must not be harmed."""
    folder = home / ".local" / "share" / "orbit"
    folder.mkdir(parents=True, mode=0o700)
    for made in (folder, folder.parent, folder.parent.parent):
        made.chmod(0o700)
    ctl = InProcess(home)
    ctl.environment["ORBITCTL_NO_AUTOSTART"] = "1"
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as innocent:
        yield ctl, folder / "sessions.db.lock", innocent
        assert innocent.poll() is None, "it was signalled"
        assert innocent.stdin is not None
        innocent.stdin.close()


def write_lock(path: Path, note: LockNote) -> None:
    path.write_bytes(format_note(note))
    path.chmod(0o600)


@pytest.mark.parametrize("words", [["daemon", "stop"], ["daemon", "stop", "--force"], ["status"], ["session", "list"]])
@pytest.mark.parametrize("change", [{"host": "far", "boot": "another"}, {"namespace": "pid:[1]"}])
def test_a_daemon_of_another_machine_is_left_alone(
    noted: tuple[Orbitctl, Path, subprocess.Popen[bytes]], words: list[str], change: dict[str, str]
) -> None:
    """Neither connected to nor signalled, whatever has its pid here; the message has host and pid."""
    ctl, lock, innocent = noted
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(ctl.home / "s"))
        listening.listen(1)
        listening.setblocking(False)
        note = note_of_this_process(str(ctl.home / "s"))._replace(pid=innocent.pid, state=SERVING, **change)
        write_lock(lock, note)
        refused = ctl(*words)
        with pytest.raises(BlockingIOError):
            listening.accept()
    assert refused.code == 3
    where = "on host far" if "host" in change else "in another container"
    assert f"orbitd {where} (pid {innocent.pid}); whether it still runs cannot be seen from here" in refused.err


@pytest.mark.parametrize("words", [["daemon", "start"], ["daemon", "restart"], ["daemon", "restart", "--force"]])
@pytest.mark.parametrize("change", [{"host": "far", "boot": "another"}, {"namespace": "pid:[1]"}, {"started": "1"}])
def test_a_start_beside_a_note_that_was_left_behind(
    stopped_daemon: DaemonProcess, words: list[str], change: dict[str, str]
) -> None:
    """One that was killed in a container, or on a machine that is gone, prevents no start: the lock is free."""
    ctl = without(stopped_daemon)
    folder = lock_of(stopped_daemon).parent
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    write_lock(lock_of(stopped_daemon), note_of_this_process("/gone/s")._replace(state=SERVING, **change))
    try:
        ctl.ok(*words)
    finally:
        ctl.ok("daemon", "stop")


@pytest.mark.parametrize("words", [["daemon", "stop"], ["daemon", "stop", "--force"], ["daemon", "restart", "--force"]])
def test_a_restore_is_not_stopped(noted: tuple[Orbitctl, Path, subprocess.Popen[bytes]], words: list[str]) -> None:
    """What has the lock and no socket puts a backup in the database's place: it gets no signal."""
    ctl, lock, innocent = noted
    note = note_of_this_process("")._replace(pid=innocent.pid, started=start_time(innocent.pid))
    write_lock(lock, note)
    refused = ctl(*words, "--timeout", TIMEOUT)
    assert refused.code == 3
    assert f"orbitd (pid {innocent.pid}) puts a backup in the database's place" in refused.err


@pytest.mark.parametrize("change", [{"boot": "before"}, {"started": "1"}])
@pytest.mark.parametrize("force", [[], ["--force"]])
def test_a_note_that_was_left_behind_names_nobody(
    noted: tuple[Orbitctl, Path, subprocess.Popen[bytes]], change: dict[str, str], force: list[str]
) -> None:
    """After a kill or a power cut another process may have the pid: it is not taken for the daemon."""
    ctl, lock, innocent = noted
    write_lock(lock, note_of_this_process("/s")._replace(pid=innocent.pid, state=SERVING, **change))
    assert ctl.ok("daemon", "stop", *force).err == "orbitd is not running\n"
    assert ctl("status").lines[0].split() == ["orbitd:", "not", "running"]


def test_a_backup_is_restored_beside_the_note_of_another_machine(daemon: DaemonProcess) -> None:
    """That machine may be gone, or be this one under an older name: the lock itself decides."""
    ctl = without(daemon)
    kept = ctl.id("session", "create")
    backup = ctl.ok("maintenance", "backup", "-q").text.strip()
    note = note_of(daemon)
    daemon.stop()
    write_lock(lock_of(daemon), note._replace(host="far", boot="another"))
    ctl.ok("maintenance", "restore", "--yes", backup)
    daemon.start()
    assert ctl.ok("session", "list", "-q").lines == [kept]


def test_an_older_daemons_note_is_not_enough_for_a_signal(
    noted: tuple[Orbitctl, Path, subprocess.Popen[bytes]],
) -> None:
    """It has a pid and no start time."""
    ctl, lock, innocent = noted
    lock.write_text(f"pid {innocent.pid}\nsocket /nowhere/s\n")
    lock.chmod(0o600)
    ctl("daemon", "stop", "--force")


def test_the_lock_is_never_asked_for(
    noted: tuple[Orbitctl, Path, subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looking for a daemon takes no lock, not even for a moment: an orbitd that starts then would be refused."""
    ctl, lock, innocent = noted
    note = note_of_this_process("/nowhere/s")._replace(pid=innocent.pid, started=start_time(innocent.pid))
    write_lock(lock, note)

    def refuse(*_: object) -> None:
        raise AssertionError("flock was called")

    monkeypatch.setattr(fcntl, "flock", refuse)
    for words in (["status"], ["doctor"], ["session", "list"], ["version"]):
        assert "flock" not in ctl(*words, "--timeout", "0.05").err


def test_a_socket_that_another_process_serves_is_not_used(daemon: DaemonProcess, home: Path) -> None:
    """The peer has to be the process of the note, not only a process of ours."""
    note = note_of(daemon)
    daemon.stop()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(home / "s"))
        listening.listen(100)  # it is tried again while the daemon could listen elsewhere
        # This process is the one that listens; another one of ours is what the note names.
        with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as other:
            named = note._replace(pid=other.pid, started=start_time(other.pid), socket=str(home / "s"), state=SERVING)
            write_lock(lock_of(daemon), named)
            refused = without(daemon)("session", "list")
            other.communicate()
    assert refused.code == 3
    assert f"is served by another process (pid {os.getpid()})" in refused.err


# One that hangs


@needs(linux=True)
@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["status"], 6),
        (["doctor"], 1),
        (["session", "list"], 6),
        (["daemon", "stop"], 6),
        (["daemon", "restart"], 6),
        (["version"], 0),
    ],
)
def test_a_daemon_that_hangs_is_told_with_the_next_step(
    shared_daemon: DaemonProcess, words: list[str], code: int
) -> None:
    """No command waits for ever, says that none runs, or sends the reader to doctor."""
    with stopped(shared_daemon):
        found = without(shared_daemon)(*words, "--timeout", TIMEOUT)
    said = found.text + found.err
    assert found.code == code
    assert "no answer within 0.5 s" in said
    assert "orbitctl doctor" not in said
    if words != ["version"]:
        assert "--force" in said
    assert shared_daemon.is_running


@needs(linux=True)
@pytest.mark.parametrize("words", [["session", "list"], ["daemon", "stop"], ["maintenance", "vacuum"]])
def test_a_daemon_that_hangs_is_named_before_the_timeout(
    shared_daemon: DaemonProcess, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    """Nobody waits for half a minute without a word."""
    monkeypatch.setattr(client_module, "SILENCE_SECS", 0.05)
    monkeypatch.setattr(finding, "_SIGN_OF_LIFE_SECONDS", 0.05)
    with stopped(shared_daemon):
        found = without(shared_daemon)(*words, "--timeout", TIMEOUT)
    assert found.code == 6
    warning, hint, error = found.err.splitlines()[:3]
    assert warning.startswith(f"warning: orbitd (pid {shared_daemon.pid}) does not answer: no answer within ")
    assert warning.endswith("; still waiting")
    remedy = "stop" if words == ["daemon", "stop"] else "restart"
    assert hint.startswith(f"hint: `orbitctl daemon {remedy} --force` ends it")
    assert error.startswith("error: ")


def test_a_daemon_that_works_for_long_is_not_taken_for_one_that_hangs(
    daemon: DaemonProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers a ping meanwhile."""
    monkeypatch.setattr(client_module, "SILENCE_SECS", 0.05)
    monkeypatch.setattr(finding, "_SIGN_OF_LIFE_SECONDS", WAIT_SECS)
    ctl = without(daemon)
    ctl.ok("session", "run", "-d", "--name", "long", "--", "cat")
    found = ctl("session", "wait", "long", "--timeout", TIMEOUT)
    assert found.code == 6
    assert "warning" not in found.err


@needs(linux=True)
def test_the_log_of_a_daemon_that_hangs_can_be_read(stopped_daemon: DaemonProcess) -> None:
    """Where the log is, is not asked of the daemon."""
    state = stopped_daemon.home / ".local" / "state" / "orbit"
    state.mkdir(parents=True, mode=0o700)
    stopped_daemon.log_path = state / "orbitd.log"
    stopped_daemon.log_path.touch(mode=0o600)
    daemon = stopped_daemon.start()
    ctl = Orbitctl(daemon.home, daemon.environment)
    daemon.wait_for_log(" serving ")  # another thread of the daemon's writes it
    with stopped(daemon):
        assert " serving " in ctl.ok("daemon", "logs").text


@needs(linux=True)
@pytest.mark.parametrize(
    ("command", "runtime"), [("stop", True), ("stop", False), ("stop --all", True), ("restart", False)]
)
def test_a_daemon_that_hangs_is_ended_by_force(
    daemon: DaemonProcess, monkeypatch: pytest.MonkeyPatch, command: str, runtime: bool
) -> None:
    """SIGTERM does not end it, SIGKILL does; what was answered is there afterwards."""
    monkeypatch.setattr(client_daemon, "FORCE_SECONDS", 0.3)
    ctl = without(daemon, *([] if runtime else ["XDG_RUNTIME_DIR"]))
    with daemon.client() as client:
        kept = client.call("session.create", config=LOCAL)["id"]
        with stopped(daemon):
            said = ctl.ok("daemon", *command.split(), "--force").err
            assert ("programs of live sessions go on" in said) == ("--all" in command)
            assert ended(daemon) == -signal.SIGKILL
    if command != "restart":
        daemon.start()
    assert ctl.ok("session", "list", "-q").lines == [kept]
    ctl.ok("daemon", "stop")


@needs(linux=True)
@pytest.mark.parametrize("command", ["stop", "restart"])
def test_a_command_that_ends_a_daemon_by_force_does_not_advise_to_do_so(
    daemon: DaemonProcess, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """It says that the daemon does not answer, and goes on to end it."""
    monkeypatch.setattr(client_daemon, "FORCE_SECONDS", 0.3)
    monkeypatch.setattr(client_module, "SILENCE_SECS", 0.05)
    monkeypatch.setattr(finding, "_SIGN_OF_LIFE_SECONDS", 0.05)
    ctl = without(daemon)
    with stopped(daemon):
        said = ctl.ok("daemon", command, "--force").err
        assert ended(daemon) == -signal.SIGKILL
    ctl.ok("daemon", "stop")
    # A hint of its own may follow for the next daemon, where a busy machine lets that one wait.
    lines = said.splitlines()
    [at] = [n for n, line in enumerate(lines) if f"warning: orbitd (pid {daemon.pid}) does not answer" in line]
    assert not "".join(lines[at + 1 : at + 2]).startswith("hint: ")


@needs(linux=True)
def test_force_ends_no_daemon_of_another_database(daemon: DaemonProcess, home: Path) -> None:
    """A daemon that hangs at a socket, and is not the one that holds the lock of our database, is not signalled."""
    named = str(home / "run" / "o.sock")
    other = DaemonProcess(home, "--socket", named, "--database", str(home / "run" / "o.db")).start()
    try:
        with stopped(other):
            refused = without(daemon)("daemon", "stop", "--force", "--timeout", TIMEOUT, "--socket", named)
        assert (refused.code, "nothing was done" in refused.err) == (6, True)
        assert daemon.is_running
        assert other.is_running
    finally:
        other.stop()


def test_a_healthy_daemon_ends_in_good_order_by_force(daemon: DaemonProcess) -> None:
    """--force is no kill: a daemon that answers saves and exits with 0."""
    without(daemon).ok("daemon", "stop", "--force")
    assert ended(daemon) == 0


# Sockets that vanish


@pytest.mark.parametrize("loss", ["socket", "folder", "runtime"])
def test_a_socket_that_vanished_is_found_at_once(daemon: DaemonProcess, loss: str) -> None:
    """The daemon is asked to look, and listens again where it did; it is not started a second time."""
    lost = {"socket": daemon.socket_path, "folder": daemon.socket_path.parent, "runtime": daemon.home / "run"}[loss]
    if loss == "socket":
        lost.unlink()
    else:
        shutil.rmtree(lost)
    assert without(daemon).ok("status", "-q").text == f"{daemon.pid}\n"
    assert daemon.socket_path.exists()


def assert_moves_into(daemon: DaemonProcess, run: Path) -> None:
    """Make the runtime folder, where a file is, and have the daemon listen in it, as usual and without a warning."""
    run.unlink()
    run.mkdir(mode=0o700)
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGCONT)
    daemon.wait_for_log(f"listening again socket={daemon.socket_path}")
    with daemon.client() as client:
        assert client.call("daemon.info")["warnings"] == []


def test_a_runtime_folder_that_cannot_be_made_again(daemon: DaemonProcess) -> None:
    """The daemon listens in the state folder, warns, and is back at the usual place once the folder is there."""
    run = daemon.home / "run"
    shutil.rmtree(run)
    run.touch()
    ctl = without(daemon)
    info = ctl.ok("rpc", "call", "daemon.info", "--json").json
    spare = daemon.home / ".local" / "state" / "orbit" / "orbitd.sock"
    assert (info["pid"], info["socket_path"]) == (daemon.pid, str(spare))
    assert note_of(daemon).configured == str(daemon.socket_path)
    assert any(str(daemon.socket_path) in warning for warning in info["warnings"])
    # The variable that a user or a session has of before still means this daemon.
    assert ctl.ok("status", "-q", ORBITD_SOCKET=str(daemon.socket_path)).text == f"{daemon.pid}\n"
    assert_moves_into(daemon, run)
    assert not spare.exists()


def test_a_runtime_folder_that_is_not_there_at_the_start(stopped_daemon: DaemonProcess) -> None:
    """A variable that outlived its login does not keep the daemon from starting: it listens in the state folder.

    At the next login the folder is there, and the daemon moves into it.
    """
    run = stopped_daemon.home / "run"
    run.rmdir()
    run.touch()
    stopped_daemon.start()
    assert without(stopped_daemon).ok("status", "-q").text == f"{stopped_daemon.pid}\n"
    assert_moves_into(stopped_daemon, run)


@needs(linux=True)
@pytest.mark.parametrize("state", [SERVING, STARTING])
def test_a_daemon_that_cannot_be_reached_is_told_at_once(
    noted: tuple[Orbitctl, Path, subprocess.Popen[bytes]], state: str
) -> None:
    """One that does not listen, or starts for longer than the timeout, is named, and no other is started beside it."""
    ctl, lock, innocent = noted
    del ctl.environment["ORBITCTL_NO_AUTOSTART"]
    note = note_of_this_process("/nowhere/s")._replace(pid=innocent.pid, started=start_time(innocent.pid), state=state)
    write_lock(lock, note)
    refused = ctl("session", "list", "--timeout", "0.2")
    said = f"orbitd (pid {innocent.pid}) is still starting after 0.2 s"
    if state == SERVING:
        said = f"orbitd runs (pid {innocent.pid}), but cannot be reached"
    assert (refused.code, said in refused.err) == (6 if state == STARTING else 3, True), refused.err
    assert "hint: " in refused.err
    assert not (ctl.home / ".local" / "state" / "orbit" / "orbitd.log").exists()


@needs(linux=True)
@pytest.mark.parametrize("state", [STARTING, STOPPING])
def test_a_start_or_stop_that_does_not_end_is_named_before_the_timeout(
    noted: tuple[Orbitctl, Path, subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    """Who waits for it hears why, and how to end it if it hangs."""
    monkeypatch.setattr(finding, "NOTICE_SECONDS", 0.05)
    ctl, lock, innocent = noted
    note = note_of_this_process("/nowhere/s")._replace(pid=innocent.pid, started=start_time(innocent.pid), state=state)
    write_lock(lock, note)
    found = ctl("session", "list", "--timeout", "0.5")
    assert found.code == 6
    warning, hint, error = found.err.splitlines()[:3]
    assert warning == f"warning: orbitd (pid {innocent.pid}) is still {state} after 0.05 s; still waiting"
    assert "`orbitctl daemon restart --force` ends it" in hint
    assert error == f"error: orbitd (pid {innocent.pid}) is still {state} after 0.5 s"


def test_stop_by_signal_where_no_socket_can_be_reached(home: Path) -> None:
    """A daemon whose socket is gone for good is stopped by SIGTERM: the note fits."""
    daemon = DaemonProcess(home)
    state = home / ".local" / "state"
    daemon.start()
    try:
        shutil.rmtree(home / "run")
        shutil.rmtree(state, ignore_errors=True)  # nor can it listen at the spare place
        for obstacle in (home / "run", state):
            obstacle.touch()
        without(daemon).ok("daemon", "stop")
        assert ended(daemon) == 0
    finally:
        daemon.end()


@needs(linux=True)
def test_nothing_is_signalled_without_a_pidfd(
    noted: tuple[Orbitctl, Path, subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A filter of system calls leaves the pid alone, which may be another process's a moment later."""

    def refuse(_pid: int) -> int:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    ctl, lock, innocent = noted
    note = note_of_this_process("/nowhere/s")._replace(pid=innocent.pid, started=start_time(innocent.pid))
    write_lock(lock, note._replace(state=SERVING))
    monkeypatch.setattr(os, "pidfd_open", refuse)
    refused = ctl("daemon", "stop", "--force", "--timeout", "0.1")
    assert refused.code == 3
    assert "it was not signalled" in refused.err
    assert f"`kill {innocent.pid}`" in refused.err


class FarClient:
    """A client of a daemon in another namespace of pids: its pid is another process's here, and the peer has none."""

    timeout = 1.0
    is_local = True

    def __init__(self, note: Path) -> None:
        self.note = note
        self.calls: list[str] = []

    def peer_pid(self) -> int:
        return 0

    def call(self, method: Method[Any, Any], params: object) -> SimpleNamespace:
        self.calls.append(method.name)
        return SimpleNamespace(pid=os.getpid())

    def wait_for_end(self, timeout: float) -> bool:
        self.calls.append("end")
        return True

    def close(self) -> None:
        pass


@pytest.mark.parametrize("is_released", [True, False])
def test_stopping_from_a_container_waits_for_the_note(
    noted: tuple[Orbitctl, Path, subprocess.Popen[bytes]], is_released: bool
) -> None:
    """Where the pid means nothing, the daemon has ended once the stream has, and its note is blank."""
    ctl, lock, _ = noted
    write_lock(lock, note_of_this_process("/s")._replace(namespace="pid:[1]", state=SERVING))
    client = FarClient(lock)
    paths = ClientPaths(ctl.environment, None)
    if not is_released:
        with pytest.raises(CommandError, match="has not ended"):
            client_daemon.stop(cast(Client, client), paths, 0.1)
    else:
        client.wait_for_end = lambda timeout: bool(lock.write_bytes(format_note(None)))  # type: ignore[method-assign]
        assert client_daemon.stop(cast(Client, client), paths, WAIT_SECS) == os.getpid()
    assert client.calls[:2] == ["daemon.info", "daemon.shutdown"]


def test_a_daemon_that_hangs_is_named_beside_a_broken_configuration(home: Path) -> None:
    """The note cannot be looked for then; the error is that of the daemon."""
    config = home / "c.toml"
    config.write_text("[")
    environment = {"HOME": str(home), "ORBITD_CONFIG": str(config)}
    assert hung(ClientPaths(environment, None), 7, 1).message == "orbitd (pid 7) does not answer: no answer within 1 s"
    assert "pid" not in hung(ClientPaths(environment, None), 0, 1).message


@pytest.mark.parametrize(
    ("variables", "is_default"),
    [
        ({}, True),
        ({"ORBITD_SOCKET": "/s", "ORBIT_SOCKET": "/s"}, True),
        ({"ORBITD_SOCKET": "/t", "ORBIT_SOCKET": "/s"}, False),
        ({"ORBITD_SOCKET": "/s"}, False),
        ({"ORBITD_DATABASE": "/d"}, False),
        ({"ORBITD_CONFIG": "/c"}, False),
    ],
)
def test_a_start_in_a_session_uses_the_service(home: Path, variables: dict[str, str], is_default: bool) -> None:
    """What orbitd has set in a session keeps nobody from the installed service; what somebody has chosen does."""
    assert client_daemon._is_default(ClientPaths({"HOME": str(home), **variables}, None)) is is_default


# The variable


@pytest.mark.parametrize("value", ["", "0", "false", "no", "off", "FALSE"])
def test_autostart_stays_on(lonely: Orbitctl, value: str) -> None:
    """Words for no, and nothing, leave it on."""
    assert lonely.ok("session", "list", "-q", ORBITCTL_NO_AUTOSTART=value).text == ""


@pytest.mark.parametrize(("value", "code"), [("1", 3), ("true", 3), ("yes", 3), ("TRUE", 3), ("maybe", 2)])
def test_autostart_is_turned_off(home: Path, value: str, code: int) -> None:
    """Words for yes turn it off; anything else is refused when it would matter."""
    ctl = InProcess(home)
    refused: Ended = ctl("session", "list", ORBITCTL_NO_AUTOSTART=value)
    assert refused.code == code
    assert ("neither yes nor no" in refused.err) == (code == 2)
    assert not (home / ".local").exists()


def test_a_client_of_the_protocol_reads_the_note(daemon: DaemonProcess) -> None:
    """Pid and socket are the first two lines, for programs that are not ours."""
    first, second = lock_of(daemon).read_text().splitlines()[:2]
    assert (first, second) == (f"pid {daemon.pid}", f"socket {daemon.socket_path}")
    with RawClient(Path(second.removeprefix("socket "))) as client:
        assert client.call("daemon.info")["pid"] == daemon.pid
    daemon.stop()
    assert lock_of(daemon).read_text().strip() == ""


# One that has no room


FULL = """
import socket, sys
from orbit_os.lock_note import SERVING
from orbit_protocol.errors import Busy
from orbit_protocol.framing import frame
from orbit_protocol.jsonrpc import encode_error
from orbitd.lock import database_lock

with socket.socket(socket.AF_UNIX) as listener, database_lock(sys.argv[1], sys.argv[2]) as lock:
    listener.bind(sys.argv[2])
    listener.listen()
    lock.update(state=SERVING)
    print("ready", flush=True)
    while True:
        with listener.accept()[0] as client:
            client.sendall(frame(encode_error(None, Busy("The daemon serves 1 connections already"))))
"""


@needs(linux=True)
@pytest.mark.parametrize("words", [["stop"], ["stop", "--force"]])
def test_a_daemon_without_room_for_a_connection_is_stopped(home: Path, words: list[str]) -> None:
    """Where all connections are used, SIGTERM ends it: by the lock it is known who listens there."""
    folder = home / ".local" / "share" / "orbit"
    folder.mkdir(parents=True, mode=0o700)
    runtime = home / "run"
    (runtime / "orbit").mkdir(parents=True, mode=0o700)
    arguments = [str(folder / "sessions.db"), str(runtime / "orbit" / "orbitd.sock")]
    with subprocess.Popen([sys.executable, "-c", FULL, *arguments], stdout=subprocess.PIPE) as full:
        assert full.stdout is not None
        assert full.stdout.readline() == b"ready\n"
        ctl = InProcess(home, {**Orbitctl(home).environment, "XDG_RUNTIME_DIR": str(runtime)})
        assert ctl("session", "list").code == 1
        said = ctl.ok("daemon", *words)
        assert f"(pid {full.pid})" in said.err
        assert full.wait(WAIT_SECS) == -signal.SIGTERM
