"""The daemon's life: start, configuration, one at a time, stop, files, logs."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ctl_support import InProcess
from needs import needs
from support import WAIT_SECS, DaemonProcess, RawClient, clean_environment


def orbitd(home: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run orbitd to its end, which is for cases in which it does not serve."""
    return subprocess.run(
        [sys.executable, "-m", "orbitd", *arguments],
        env=clean_environment(home, **environment),
        cwd=home,
        capture_output=True,
        text=True,
        timeout=WAIT_SECS,
        check=False,
    )


def test_everything_is_there_after_a_restart(daemon: DaemonProcess) -> None:
    """Sessions, snapshots and workspaces are the same before and after."""
    with daemon.client() as client:
        workspace = client.call("workspace.create", name="w", layout={"layout_type": "grid", "config": None})
        config = {"session_type": "ssh", "host": "example.org", "port": 22, "username": "u", "command": "top"}
        session = client.call("session.create", config={**config, "workspace_id": workspace["id"]}, name="s")
        client.call("snapshot.save", session_id=session["id"], terminal_buffer="AAEC", cols=80, rows=24)
        detached = client.call("session.detach", id=session["id"])
        before = [client.call("snapshot.latest", session_id=session["id"]), client.call("workspace.list")]
    daemon.restart()
    with daemon.client() as client:
        assert client.call("session.get", id=session["id"]) == detached
        assert [client.call("snapshot.latest", session_id=session["id"]), client.call("workspace.list")] == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_stops_it_cleanly(daemon: DaemonProcess, number: int) -> None:
    """The daemon exits with 0 and takes its socket away."""
    assert daemon.stop(number) == 0
    assert not daemon.socket_path.exists()


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_was_ignored_at_the_start_stays_ignored(stopped_daemon: DaemonProcess, number: int) -> None:
    """Under nohup a closed window ends no daemon; a job that a script put into the background ignores Ctrl-C."""
    daemon = stopped_daemon
    ignore = (
        "import os, signal, sys; signal.signal(int(sys.argv[1]), signal.SIG_IGN); os.execv(sys.argv[2], sys.argv[2:])"
    )
    daemon.prefix = (sys.executable, "-c", ignore, str(int(number)))
    daemon.start()
    assert daemon.process is not None
    with daemon.client() as client:
        daemon.process.send_signal(number)
        client.call("session.create", config={"session_type": "local"})
        assert daemon.is_running
        client.call("daemon.shutdown")
    assert daemon.process.wait(WAIT_SECS) == 0


def test_signals_that_were_blocked_at_the_start_are_heard(stopped_daemon: DaemonProcess) -> None:
    """A daemon whose launcher blocks signals before it starts a program ends on SIGTERM as any other."""
    daemon = stopped_daemon
    block = (
        "import os, signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals()); "
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    daemon.prefix = (sys.executable, "-c", block)
    daemon.start()
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.process.wait(WAIT_SECS) == 0


@needs(linux=True)
@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1), (0, 1, 2)])
def test_no_file_takes_the_place_of_a_closed_standard_descriptor(
    stopped_daemon: DaemonProcess, closed: tuple[int, ...]
) -> None:
    """Neither the database nor a socket gets such a number, into which a message would be printed."""
    closing = " ".join(f"{number}>&-" for number in closed)
    stopped_daemon.prefix = ("sh", "-c", f'exec "$@" {closing}', "sh")
    daemon = stopped_daemon.start()
    with daemon.client() as client:
        client.call("session.create", config={"session_type": "local"})
        found = [os.readlink(f"/proc/{daemon.pid}/fd/{number}") for number in closed]
    assert daemon.stop() == 0
    assert found == ["/dev/null"] * len(closed)
    with sqlite3.connect(stopped_daemon.database_path) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    database.close()


def test_a_daemon_whose_starter_has_left_serves(stopped_daemon: DaemonProcess, home: Path) -> None:
    """The end of the pipe that it reports to is no reason to end (EPIPE)."""
    reader, writer = os.pipe()
    os.close(reader)
    stopped_daemon.arguments = ("--ready-fd", str(writer))
    with subprocess.Popen(
        [*stopped_daemon.command, *stopped_daemon.arguments],
        env=stopped_daemon.environment,
        cwd=home,
        pass_fds=[writer],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as process:
        os.close(writer)
        assert process.stderr is not None
        assert any(b" serving " in line for line in process.stderr)
        with stopped_daemon.client() as client:
            client.call("session.create", config={"session_type": "local"})
            client.call("daemon.shutdown")
        process.stderr.read()
        assert process.wait(WAIT_SECS) == 0


def test_shutdown_answers_then_exits(daemon: DaemonProcess, client: RawClient) -> None:
    """daemon.shutdown is answered before the connection ends, and the daemon exits with 0."""
    assert client.call("daemon.shutdown") == {}
    assert client.read_line() == b""
    assert daemon.process is not None
    assert daemon.process.wait(WAIT_SECS) == 0


def test_what_is_in_flight_at_the_stop_is_answered(daemon: DaemonProcess) -> None:
    """Every create that was sent before the stop is either answered and kept, or refused."""
    with daemon.client() as client:
        for number in range(200):
            params = {"config": {"session_type": "local"}, "name": f"s{number}"}
            client.send(
                json.dumps({"jsonrpc": "2.0", "method": "session.create", "params": params, "id": number}).encode()
            )
        assert daemon.process is not None
        daemon.process.send_signal(signal.SIGTERM)
        answers = [json.loads(line) for line in iter(client.read_line, b"")]
    assert daemon.process.wait(WAIT_SECS) == 0
    daemon.start()
    with daemon.client() as client:
        kept = {session["id"] for session in client.call("session.list")["sessions"]}
    assert {answer["result"]["id"] for answer in answers if "result" in answer} == kept
    assert {answer["error"]["code"] for answer in answers if "error" in answer} <= {-32001}


def test_touch_is_saved_at_the_stop(daemon: DaemonProcess, client: RawClient) -> None:
    """What only memory knew is written before the daemon ends."""
    session = client.call("session.create", config={"session_type": "local"})
    touched = client.call("session.touch", id=session["id"])
    client.close()
    daemon.restart()
    with daemon.client() as client:
        assert client.call("session.get", id=session["id"])["last_active"] == touched["last_active"]


def test_a_second_daemon_says_who_serves(daemon: DaemonProcess, home: Path) -> None:
    """It exits with 1, names the holder, and leaves the first one's socket alone."""
    second = orbitd(home)
    assert (second.returncode, f"pid {daemon.pid}" in second.stderr) == (1, True), second.stderr
    elsewhere = orbitd(home, "--socket", str(home / "run" / "orbit" / "other.sock"))
    assert elsewhere.returncode == 1
    with daemon.client() as client:
        assert client.call("daemon.ping") == {"pong": True}


def test_another_database_does_not_take_over_a_live_socket(daemon: DaemonProcess, home: Path) -> None:
    """A daemon for another database refuses a socket that is served."""
    (home / "other").mkdir(mode=0o700)
    second = orbitd(home, "--database", str(home / "other" / "sessions.db"))
    assert (second.returncode, str(daemon.socket_path) in second.stderr) == (1, True), second.stderr
    with daemon.client() as client:
        assert client.call("daemon.ping") == {"pong": True}


@pytest.mark.slow
def test_two_daemons_at_once_leave_one(home: Path) -> None:
    """Of eight that race for one database exactly one serves; the others exit with 1."""
    running = [DaemonProcess(home) for _ in range(8)]
    threads = [threading.Thread(target=one.start, kwargs={"check": False}) for one in running]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    processes = [one.process for one in running if one.process is not None]
    with running[0].client() as client:
        server = client.call("daemon.info")["pid"]
    losers = [process for process in processes if process.pid != server]
    assert [process.wait(WAIT_SECS) for process in losers] == [1] * 7
    winner = next(one for one in running if one.pid == server)
    assert winner.stop() == 0


def test_leftovers_of_a_killed_daemon_do_not_matter(daemon: DaemonProcess) -> None:
    """After kill -9 lock and socket files are still there, and the next daemon starts."""
    daemon.kill()
    assert daemon.socket_path.exists()
    daemon.start()
    with daemon.client() as client:
        assert client.call("daemon.ping") == {"pong": True}


def test_a_file_in_the_sockets_place_is_left_alone(stopped_daemon: DaemonProcess, home: Path) -> None:
    """Only a socket that nobody serves is replaced; anything else is named and kept."""
    stopped_daemon.socket_path.parent.mkdir(mode=0o700)
    stopped_daemon.socket_path.write_text("precious")
    failed = orbitd(home)
    assert (failed.returncode, str(stopped_daemon.socket_path) in failed.stderr) == (1, True)
    assert stopped_daemon.socket_path.read_text() == "precious"


@pytest.mark.slow
def test_a_socket_folder_that_vanished_is_made_anew(daemon: DaemonProcess) -> None:
    """Clients find the daemon again after something cleaned the runtime folder."""
    shutil.rmtree(daemon.socket_path.parent)
    daemon.wait_for_log("listening again")
    with daemon.client() as client:
        assert client.call("daemon.info")["pid"] == daemon.pid


HAND_OVER = """
import os, socket, sys
listening = socket.socket(socket.AF_UNIX)
listening.bind(sys.argv[1])
listening.listen(8)
os.dup2(listening.fileno(), 3)
os.set_inheritable(3, True)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
os.execv(sys.argv[2], sys.argv[2:])
"""
"""Passes a socket to the program that it becomes, as systemd does (sd_listen_fds(3))."""


def test_a_socket_that_was_handed_over_and_deleted_is_listened_on_again(
    stopped_daemon: DaemonProcess, home: Path
) -> None:
    """The daemon is reached at the same path within seconds, and says what has happened."""
    daemon = stopped_daemon
    daemon.socket_path.parent.mkdir(mode=0o700)
    # Descriptor 3 is where systemd's sockets are: the pipe of --ready-fd gets a number above it.
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(4)]
    daemon.prefix = (sys.executable, "-c", HAND_OVER, str(daemon.socket_path))
    daemon.start()
    for descriptor in held:
        os.close(descriptor)
    daemon.socket_path.unlink()
    daemon.wait_for_log("listening again")
    with daemon.client() as client:
        (warning,) = client.call("daemon.info")["warnings"]
    assert f"The socket {daemon.socket_path} that was handed over has been deleted" in warning
    assert daemon.stop() == 0
    assert not daemon.socket_path.exists()


def test_nothing_it_makes_is_open_to_others(home: Path) -> None:
    """Under umask 000 folders are 0700, files and socket 0600, those of SQLite too."""
    old = os.umask(0)
    try:
        daemon = DaemonProcess(home).start()
    finally:
        os.umask(old)
    with daemon.client() as client:
        client.call("session.create", config={"session_type": "local"})
        client.call("maintenance.backup", path=str(daemon.database_path.parent / "copy.db"))
        made = [daemon.socket_path.parent, *daemon.socket_path.parent.iterdir(), home / ".local"]
        made += list((home / ".local").rglob("*"))
        modes = {str(path): stat.S_IMODE(path.lstat().st_mode) for path in made}
    wrong = {path: oct(mode) for path, mode in modes.items() if mode != (0o700 if Path(path).is_dir() else 0o600)}
    daemon.kill()
    assert wrong == {}
    assert any(path.endswith("-wal") for path in modes)
    assert any(path.endswith("orbitd.sock") for path in modes)


@pytest.mark.parametrize("fault", ["symlink", "group-writable", "readable"])
def test_a_folder_that_others_can_reach_is_refused(home: Path, fault: str) -> None:
    """A runtime folder that is a link or open to others is named, with what to do."""
    folder = clean_environment(home) and home / "run" / "orbit"
    if fault == "symlink":
        (home / "elsewhere").mkdir(mode=0o700)
        folder.symlink_to(home / "elsewhere")
    else:
        folder.mkdir()
        folder.chmod(0o770 if fault == "group-writable" else 0o755)
    failed = orbitd(home)
    assert (failed.returncode, str(folder) in failed.stderr) == (1, True), failed.stderr


@needs(root=True)
def test_a_folder_of_somebody_else_is_refused(home: Path) -> None:
    """A runtime folder of another user is not trusted."""
    folder = clean_environment(home) and home / "run" / "orbit"
    folder.mkdir(mode=0o700)
    os.chown(folder, 12345, 12345)
    failed = orbitd(home)
    assert (failed.returncode, "12345" in failed.stderr) == (1, True), failed.stderr


@needs(root=True)
def test_another_user_is_not_served(daemon: DaemonProcess, home: Path) -> None:
    """Even where the modes would let them in, another uid's connection is closed unanswered."""
    for folder in [home, *daemon.socket_path.parents]:
        if home in (folder, *folder.parents):
            folder.chmod(0o777)
    daemon.socket_path.chmod(0o777)
    program = (
        "import os, socket, sys; os.setuid(12345); s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
        's.sendall(b\'{"jsonrpc": "2.0", "method": "daemon.ping", "id": 1}\\n\'); print(s.recv(100))'
    )
    run = subprocess.run(
        [sys.executable, "-c", program, str(daemon.socket_path)], capture_output=True, text=True, check=False
    )
    assert "pong" not in run.stdout
    daemon.wait_for_log("connection refused uid=12345")


def test_a_socket_path_that_is_too_long_is_refused(home: Path) -> None:
    """The error has the path's length and the limit."""
    failed = orbitd(home, "--socket", str(home / ("x" * 120) / "orbitd.sock"))
    assert (failed.returncode, "at most 107" in failed.stderr) == (1, True), failed.stderr


CONFIG_ERRORS = [
    ("[session]\nautosave = 1\n", "autosave"),
    ("[sesion]\n", "sesion"),
    ("[session]\nauto_save_interval_secs = 'often'\n", "session.auto_save_interval_secs"),
    ("[session]\nsnapshot_retention_count = 0\n", "session.snapshot_retention_count"),
    ("[daemon]\nlog_level = 'loud'\n", "daemon.log_level"),
    ("[daemon]\nmax_connections = true\n", "daemon.max_connections"),
    ("[daemon\n", "not valid TOML"),
    ("\ufeff\x00", "not valid TOML"),
    ("a = " + "[" * 5000, "nested too deep"),
    ("[daemon]\nsocket_path = '$HOME/o.sock'\n", "`daemon.socket_path` must be absolute or begin with `~/`"),
    ("[session]\ndatabase_path = 'orbit/s.db'\n", "`session.database_path` must be absolute or begin with `~/`"),
    ("#" * ((1 << 20) + 1), "more than 1048576 bytes"),
]


@pytest.mark.parametrize(("text", "named"), CONFIG_ERRORS)
def test_a_wrong_configuration_is_named(home: Path, text: str, named: str) -> None:
    """An unknown key or a wrong type exits with 2 and names file and key."""
    config = home / "config.toml"
    config.write_text(text)
    failed = orbitd(home, ORBITD_CONFIG=str(config))
    assert failed.returncode == 2
    assert str(config) in failed.stderr
    assert named in failed.stderr


def test_a_named_configuration_that_is_missing_is_an_error(home: Path) -> None:
    """A file that the user names has to be there; the default one does not."""
    failed = orbitd(home, "--config", str(home / "none.toml"))
    assert (failed.returncode, "none.toml" in failed.stderr) == (2, True)


@pytest.mark.parametrize("path", [":memory:", "$HOME/x", "~root/x", "~", "/x/", ""])
@pytest.mark.parametrize("flag", ["--config", "--socket", "--database"])
def test_a_flag_that_is_no_path_is_named(home: Path, flag: str, path: str) -> None:
    """It exits with 2 and names the flag; nothing is made, in the current folder neither."""
    failed = orbitd(home, flag, path)
    assert (failed.returncode, f"{flag} must " in failed.stderr) == (2, True), failed.stderr
    assert os.listdir(home) == ["run"]


@pytest.mark.parametrize("path", [":memory:", "$HOME/x", "~root/x", "~", "/x/", "x", "./x"])
@pytest.mark.parametrize("variable", ["ORBITD_CONFIG", "ORBITD_SOCKET", "ORBITD_DATABASE"])
def test_a_variable_that_is_no_path_is_named(home: Path, variable: str, path: str) -> None:
    """A relative one too: the programs that read it are in other folders. Both exit with 2, and nothing is made."""
    failed = orbitd(home, **{variable: path})
    assert (failed.returncode, f"{variable} must " in failed.stderr) == (2, True), failed.stderr
    asked = InProcess(home)("session", "list", **{variable: path})
    assert (asked.code, asked.out, f"{variable} must " in asked.err) == (2, b"", True), asked
    assert os.listdir(home) == ["run"]


def test_an_empty_variable_names_nothing(home: Path) -> None:
    """As one that is not set: a configuration that is not there is no error then."""
    empty = dict.fromkeys(("ORBITD_CONFIG", "ORBITD_SOCKET", "ORBITD_DATABASE"), "")
    daemon = DaemonProcess(home, environment=empty)
    try:
        with daemon.start().client() as client:
            assert client.call("daemon.info")["database_path"] == str(daemon.database_path)
    finally:
        daemon.end()


def test_a_database_path_that_sqlite_would_not_open_is_named(home: Path) -> None:
    """The error has its length and the limit, before anything is made."""
    path = str(home) + "/d" * 250
    failed = orbitd(home, "--database", path)
    assert (failed.returncode, f"({len(path)} bytes, at most 440): {path}" in failed.stderr) == (2, True), failed.stderr
    assert os.listdir(home) == ["run"]


def test_flags_win_over_variables_and_those_over_the_file(home: Path, stopped_daemon: DaemonProcess) -> None:
    """Flag > environment > file, for socket and database."""
    for name in ("file", "variable", "flag"):
        (home / name).mkdir(mode=0o700)
    config = home / "config.toml"
    config.write_text(f'[session]\ndatabase_path = "{home}/file/s.db"\n[daemon]\nsocket_path = "~/file/s.sock"\n')
    daemon = stopped_daemon
    daemon.arguments = ("--config", str(config), "--socket", str(home / "flag" / "s.sock"))
    daemon.environment["ORBITD_DATABASE"] = str(home / "variable" / "s.db")
    daemon.environment["ORBITD_SOCKET"] = str(home / "variable" / "s.sock")
    daemon.start()
    with RawClient(home / "flag" / "s.sock") as client:
        info = client.call("daemon.info")
    assert info["database_path"] == str(home / "variable" / "s.db")
    daemon.stop()
    daemon.arguments = ("--config", str(config))
    del daemon.environment["ORBITD_SOCKET"], daemon.environment["ORBITD_DATABASE"]
    daemon.start()
    with RawClient(home / "file" / "s.sock") as client:
        assert client.call("daemon.info")["database_path"] == str(home / "file" / "s.db")


def test_the_log_is_one_object_a_line_and_tells_no_content(stopped_daemon: DaemonProcess) -> None:
    """With --log-format json every line is JSON; names, params and buffers are in none, at any level."""
    stopped_daemon.arguments = ("--log-format", "json", "--log-level", "debug")
    stopped_daemon.start()
    with stopped_daemon.client() as client:
        session = client.call(
            "session.create", config={"session_type": "local", "command": "secret-c"}, name="secret-n"
        )
        client.call("snapshot.save", session_id=session["id"], terminal_buffer="c2VjcmV0LWI=")
        client.error("session.create", config={"session_type": "local"}, name="secret-n")
        client.error("session.find", ref="secret-r")
        client.error("session.get", id="secret-i")
        client.ask(b"secret-garbage")
    stopped_daemon.stop()
    log = stopped_daemon.log()
    events = [json.loads(line) for line in log.splitlines()]
    assert {"serving", "stopped"} <= {one["event"] for one in events}
    assert "secret" not in log
    assert "c2VjcmV0" not in log


@contextlib.contextmanager
def stuck_stderr() -> Iterator[int]:
    """A pipe that is full, and that nobody reads."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, bytes(4096))
    os.set_blocking(writer, True)
    try:
        yield writer
    finally:
        os.close(reader)
        os.close(writer)


@contextlib.contextmanager
def stopped_terminal() -> Iterator[int]:
    """A terminal whose user has typed Ctrl-S."""
    master, slave = pty.openpty()
    termios.tcflow(slave, termios.TCOOFF)
    try:
        yield slave
    finally:
        os.close(master)
        os.close(slave)


@pytest.mark.parametrize("stuck", [stuck_stderr, stopped_terminal])
def test_a_stderr_that_takes_nothing_holds_up_nobody(
    stopped_daemon: DaemonProcess, stuck: Callable[[], contextlib.AbstractContextManager[int]]
) -> None:
    """With a full pipe or a stopped terminal as its stderr the daemon starts, answers, and stops on SIGTERM."""
    with stuck() as stderr:
        stopped_daemon.start(stderr=stderr)
        with stopped_daemon.client() as client:
            client.error("session.get", id="x")
            client.call("session.create", config={"session_type": "local"}, name="s")
        assert stopped_daemon.stop() == 0


@pytest.mark.parametrize(("arguments", "status"), [(["--config", "missing"], 2), (["--no-such-flag"], 2), ([], 1)])
def test_a_start_that_fails_ends_with_a_stuck_stderr(
    daemon: DaemonProcess, home: Path, arguments: list[str], status: int
) -> None:
    """A wrong configuration, a wrong flag and a database that is locked have their exit status."""
    with stuck_stderr() as stderr:
        failed = subprocess.run(
            [sys.executable, "-m", "orbitd", *arguments],
            env=daemon.environment,
            cwd=home,
            stderr=stderr,
            timeout=WAIT_SECS,
            check=False,
        )
    assert failed.returncode == status


def test_the_starter_hears_why_though_stderr_is_stuck(home: Path) -> None:
    """The reason is in the pipe of --ready-fd, whole, and the pipe ends."""
    reader, writer = os.pipe()
    with stopped_terminal() as stderr, open(reader, "rb") as ready:
        failed = subprocess.Popen(
            [sys.executable, "-m", "orbitd", "--config", "missing", "--ready-fd", str(writer)],
            env=clean_environment(home),
            cwd=home,
            stderr=stderr,
            pass_fds=[writer],
        )
        os.close(writer)
        told = ready.read().decode().splitlines()
        assert failed.wait(WAIT_SECS) == 2
    assert told[0] == "failed"
    assert told[1] == f"orbitd: error: {home}/missing: no such file"
    assert told[2].startswith("hint: ")


def test_a_closed_stderr_is_no_file_of_the_store(stopped_daemon: DaemonProcess) -> None:
    """No file that is opened later gets its number: log lines go nowhere, and the database stays whole."""
    stopped_daemon.prefix = ("sh", "-c", 'exec "$@" 0<&- 1>&- 2>&-', "sh")
    stopped_daemon.start()
    with stopped_daemon.client() as client:
        assert client.call("maintenance.check")["ok"]
    assert [os.readlink(f"/proc/{stopped_daemon.pid}/fd/{number}") for number in range(3)] == 3 * [os.devnull]
    assert stopped_daemon.stop() == 0


@needs(linux=True)  # which has /dev/full
@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_help_that_nobody_can_read_has_an_exit_status(home: Path, flag: str) -> None:
    """As with orbitctl: 141 without a word where the reader has left, 1 and why where the disk is full."""
    reader, writer = os.pipe()
    os.close(reader)
    outcomes = []
    for stdout in (writer, os.open("/dev/full", os.O_WRONLY)):
        ended = subprocess.run(
            [sys.executable, "-m", "orbitd", flag],
            env=clean_environment(home),
            stdout=stdout,
            stderr=subprocess.PIPE,
            check=False,
        )
        os.close(stdout)
        outcomes.append((ended.returncode, ended.stderr))
    full = b"orbitd: error: cannot write to stdout: No space left on device\n"
    assert outcomes == [(141, b""), (1, full)]


def test_help_explains_the_daemon(home: Path) -> None:
    """Orbitd --help says what it is, how to end it and what its exit statuses mean."""
    shown = orbitd(home, "--help")
    assert shown.returncode == 0
    for words in ("terminal sessions", "--config", "ORBITD_SOCKET", "SIGTERM", "Exit status"):
        assert words in shown.stdout


def test_the_socket_is_ready_when_the_daemon_says_so(daemon: DaemonProcess) -> None:
    """After the ready line a connection is accepted at the first try."""
    with socket.socket(socket.AF_UNIX) as probe:
        assert probe.connect_ex(str(daemon.socket_path)) == 0
