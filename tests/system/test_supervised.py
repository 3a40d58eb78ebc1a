"""The daemon under a real `systemd --user`: activation, readiness, watchdog, crash, stop."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import stat
from pathlib import Path

import pytest

from orbit_protocol.environment import OF_A_SERVICE

pytestmark = pytest.mark.slow

WAIT_SECS = 30


def ended(pid: int, act) -> None:
    """Do something to a process and wait until it has ended."""
    descriptor = os.pidfd_open(pid)
    try:
        act(pid)
        assert select.select([descriptor], [], [], WAIT_SECS)[0], f"{pid} still runs"
    finally:
        os.close(descriptor)


def test_the_first_call_starts_the_daemon(manager):
    """With only the socket unit up, a call is answered by a daemon that systemd starts for it."""
    manager.orbitctl("service", "install", "--no-start")
    manager.systemctl("start", "orbitd.socket")
    assert manager.show("orbitd.service", "ActiveState") == "inactive"
    info = manager.call("daemon.info")
    assert info["supervisor"] == "systemd"
    lock = Path(info["database_path"] + ".lock").read_text()  # there a client reads it when the daemon was killed
    assert lock.startswith(f"pid {info['pid']}\nsocket {manager.socket}\nsupervisor systemd\n")
    assert info["socket_path"] == str(manager.socket)
    assert manager.show("orbitd.service", "MainPID") == str(info["pid"])


def test_programs_have_what_the_service_manager_has(manager):
    """A program that no client starts has the manager's environment, but for what systemd gives to the daemon alone."""
    manager.systemctl("set-environment", "FROM_MANAGER=1", "TMUX=x", "PATH=/from/manager:/usr/bin:/bin")
    manager.orbitctl("service", "install")
    config = {"session_type": "local", "command": f"sh -c '(env; umask; ulimit -Sn) > {manager.home}/told'"}
    with manager.client() as client:
        session_id = client.call("session.create", config=config)["id"]
        client.call("session.start", id=session_id)
        client.call("session.wait", id=session_id)
    *variables, umask, files = (manager.home / "told").read_text().splitlines()
    found = dict(line.split("=", 1) for line in variables)
    managers = dict(line.split("=", 1) for line in manager.systemctl("show-environment").splitlines())
    assert (found["FROM_MANAGER"], found["PATH"]) == ("1", managers["PATH"])
    assert (found["HOME"], found["XDG_RUNTIME_DIR"]) == (str(manager.home), str(manager.runtime))
    assert not {"TMUX", *(name.decode() for name in OF_A_SERVICE)} & set(found)
    assert (int(umask, 8), files) == (0o022, manager.show("orbitd.service", "LimitNOFILESoft"))


def test_the_socket_is_for_the_user_alone_and_stays_systemds(installed):
    """Socket 0600 in a folder 0700; the daemon's end removes neither, and the next call starts it again."""
    before = installed.socket.stat()
    assert (stat.S_IMODE(before.st_mode), stat.S_IMODE(installed.socket.parent.stat().st_mode)) == (0o600, 0o700)
    first = installed.call("daemon.info")["pid"]
    installed.systemctl("stop", "orbitd.service")
    assert installed.socket.stat().st_ino == before.st_ino
    assert installed.call("daemon.info")["pid"] != first


def test_started_means_that_it_serves(installed):
    """`systemctl start` returns when READY=1 has come, and then the unit is active with the daemon as main process."""
    assert installed.show("orbitd.service", "Type") == "notify"
    assert installed.show("orbitd.service", "ActiveState") == "active"
    assert installed.show("orbitd.service", "MainPID") == str(installed.call("daemon.info")["pid"])


def test_a_daemon_that_is_not_heard_does_not_count_as_started(manager):
    """Readiness comes by notification: where the daemon cannot send it, the start times out."""
    manager.orbitctl("service", "install", "--no-start")
    manager.drop_in("orbitd.service", "[Service]\nUnsetEnvironment=NOTIFY_SOCKET\nTimeoutStartSec=1\nRestart=no\n")
    manager.systemctl("start", "orbitd.service", check=False)
    assert manager.show("orbitd.service", "Result") == "timeout"


def test_the_watchdog_restarts_a_daemon_that_hangs(manager):
    """A stopped daemon is killed when its watchdog runs out, and the next one answers with what was stored."""
    manager.orbitctl("service", "install", "--no-start")
    manager.drop_in("orbitd.service", "[Service]\nWatchdogSec=3\nLimitCORE=0\n")
    manager.systemctl("start", "orbitd.socket")
    session = manager.call("session.create", config={"session_type": "local"}, name="kept")
    pid = manager.call("daemon.info")["pid"]
    ended(pid, lambda pid: os.kill(pid, signal.SIGSTOP))
    assert manager.call("session.get", id=session["id"])["name"] == "kept"
    assert manager.call("daemon.info")["pid"] != pid
    assert manager.show("orbitd.service", "NRestarts") == "1"


def test_a_daemon_that_works_tells_so_again_and_again(stopped_daemon):
    """READY=1 comes once, then WATCHDOG=1 until the end, which STOPPING=1 announces."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        address = str(stopped_daemon.home / "notify")
        manager.bind(address)
        manager.settimeout(WAIT_SECS)
        stopped_daemon.environment |= {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "100000"}
        stopped_daemon.start()
        assert manager.recv(4096).decode().startswith("READY=1\n")
        assert [manager.recv(4096) for _ in range(5)] == [b"WATCHDOG=1"] * 5
        assert stopped_daemon.stop() == 0
        manager.setblocking(False)
        rest = list(iter(lambda: _receive(manager), b""))
    assert set(rest) <= {b"WATCHDOG=1", b"STOPPING=1"}
    assert rest.count(b"STOPPING=1") == 1


def _receive(manager: socket.socket) -> bytes:
    try:
        return manager.recv(4096)
    except BlockingIOError:
        return b""


def test_a_crash_is_followed_by_a_restart_and_clients_come_back(installed):
    """Killed with -9, the daemon is started again; a client that connects meanwhile only waits a little."""
    with installed.client() as client:
        session = client.call("session.create", config={"session_type": "local"})
        pid = client.call("daemon.info")["pid"]
        ended(pid, lambda pid: os.kill(pid, signal.SIGKILL))
        assert client.read_line() == b""
    assert installed.call("session.get", id=session["id"]) == session
    assert installed.call("daemon.info")["pid"] != pid
    assert installed.show("orbitd.service", "NRestarts") == "1"


def test_a_mistake_in_the_configuration_is_not_tried_again(manager):
    """Exit status 2 ends the matter: the unit has failed, and systemd does not start it anew."""
    manager.orbitctl("service", "install", "--no-start")
    config = manager.home / ".config" / "orbit" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text("[daemon]\nno_such_key = 1\n")
    manager.systemctl("start", "orbitd.service", check=False)
    assert manager.show("orbitd.service", "ActiveState") == "failed"
    assert manager.show("orbitd.service", "ExecMainStatus") == "2"
    assert manager.show("orbitd.service", "NRestarts") == "0"
    assert "no_such_key" in manager.log()


def test_stop_answers_what_is_in_flight_and_ends_well(installed):
    """Stopped under load, the daemon ends with 0 within its time, and every answered call is there afterwards."""
    with installed.client() as client:
        pid = client.call("daemon.info")["pid"]
        for number in range(64):
            params = {"config": {"session_type": "local"}, "name": f"n{number}"}
            client.send(
                json.dumps({"jsonrpc": "2.0", "method": "session.create", "params": params, "id": number}).encode()
            )
        answered = [json.loads(client.read_line())]
        ended(pid, lambda _: installed.systemctl("stop", "orbitd.service"))
        while line := client.read_line():
            answered.append(json.loads(line))
    assert installed.show("orbitd.service", "Result") == "success"
    assert installed.show("orbitd.service", "ExecMainStatus") == "0"
    kept = {session["id"] for session in installed.call("session.list", limit=1000)["sessions"]}
    created = {answer["result"]["id"] for answer in answered if "result" in answer}
    assert created
    assert created <= kept


def test_the_time_to_stop_is_longer_than_the_drain(installed):
    """Systemd waits longer than the 10 s that the daemon may take to answer what is in flight."""
    usec = {"30s": 30}[installed.show("orbitd.service", "TimeoutStopUSec")]
    assert usec > 10


def test_a_client_without_a_runtime_folder_reaches_the_service(installed):
    """Programs of cron and su do not know where systemd's socket is: the lock does, and its peer is the daemon."""
    pid = installed.call("daemon.info")["pid"]
    without = {**installed.environ, "XDG_RUNTIME_DIR": ""}
    assert installed.orbitctl("status", "-q", **without).stdout == f"{pid}\n"
    ended(pid, lambda _: installed.orbitctl("daemon", "stop", **without))
    assert installed.show("orbitd.service", "Result") == "success"


@pytest.mark.parametrize("loss", ["file", "folder"])
def test_a_socket_of_systemd_that_was_deleted_is_listened_on_again(installed, loss):
    """The daemon is reached, doctor says what is wrong, and what it says to do brings systemd's own socket back."""
    pid = installed.call("daemon.info")["pid"]
    installed.socket.unlink()
    if loss == "folder":
        installed.socket.parent.rmdir()
    assert installed.orbitctl("status", "-q").stdout == f"{pid}\n"
    assert installed.call("daemon.info")["pid"] == pid
    told = installed.orbitctl("doctor").stdout
    assert f"The socket {installed.socket} that was handed over has been deleted" in told
    remedy = "systemctl --user restart orbitd.socket orbitd.service"
    assert f"`{remedy}`" in told
    installed.run(*remedy.split())
    info = installed.call("daemon.info")
    assert (info["pid"] != pid, info["warnings"]) == (True, [])
    assert installed.show("orbitd.socket", "ActiveState") == "active"
    ended(info["pid"], lambda _: installed.orbitctl("daemon", "stop"))
    assert installed.call("daemon.info")["pid"] != info["pid"]  # systemd's socket is what starts it


def test_a_service_that_starts_with_a_deleted_socket_is_reached(installed):
    """The manager does not notice the loss, and hands the same socket to the next daemon."""
    pid = installed.call("daemon.info")["pid"]
    installed.socket.unlink()
    ended(pid, lambda pid: os.kill(pid, signal.SIGKILL))
    installed.systemctl("restart", "orbitd.service")
    info = installed.call("daemon.info")
    assert info["pid"] != pid
    assert any("has been deleted" in warning for warning in info["warnings"])
