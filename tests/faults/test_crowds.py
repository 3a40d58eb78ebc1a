"""Too many clients, and clients that do not behave: others go on, and memory stays bounded."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import resource
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from faults.asking import BUSY, LOCAL, doctor, names, resident, snapshot
from film_support import film_of, history_of, output_of
from support import WAIT_SECS, DaemonProcess, RawClient, clean_environment, wait_for_line

pytestmark = pytest.mark.slow

MIB = 1 << 20
LINE_LIMIT = 16 * MIB
CROWD = 1_000
RESERVED = 3
TOO_MANY = 1009
PING = b'{"jsonrpc": "2.0", "method": "daemon.ping", "id": 1}\n'
DISCOVER = b'{"jsonrpc": "2.0", "method": "rpc.discover", "id": 1}\n'


@contextlib.contextmanager
def descriptors(limit: int) -> Iterator[None]:
    """Start what is started meanwhile with another soft limit of open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(limit, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def configure(daemon: DaemonProcess, max_connections: int) -> None:
    config = daemon.home / "config.toml"
    config.write_text(f"[daemon]\nmax_connections = {max_connections}\n")
    daemon.arguments = ("--config", str(config))


def knock(daemon: DaemonProcess) -> socket.socket:
    """Connect and send a ping without waiting for anything."""
    one = socket.socket(socket.AF_UNIX)
    one.settimeout(WAIT_SECS)
    one.connect(str(daemon.socket_path))
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        one.sendall(PING)
    return one


def answer(one: socket.socket) -> dict:
    """Return the first line that a client is told."""
    data = b""
    while not data.endswith(b"\n"):
        data += one.recv(65_536)
    return json.loads(data.split(b"\n")[0])


@pytest.mark.parametrize("room", [64, 2 * CROWD])
def test_a_thousand_connections_at_once(stopped_daemon: DaemonProcess, room: int) -> None:
    """Each is served or told that the daemon is busy; those before them go on, and with room so do new ones."""
    with descriptors(3 * CROWD):
        daemon = stopped_daemon
        configure(daemon, room)
        daemon.start()
        with daemon.client() as early, contextlib.ExitStack() as stack:
            early.call("session.create", config=LOCAL, name="a")
            crowd = [stack.enter_context(knock(daemon)) for _ in range(CROWD)]
            told = [answer(one) for one in crowd]
            served = sum("result" in one for one in told)
            if room > CROWD:
                assert served == CROWD
            else:  # and those of the reserve, of which one makes room for another after a second
                assert served >= room - 1 + RESERVED
            refused = [one["error"] for one in told if "error" in one]
            assert {one["code"] for one in refused} <= {BUSY}
            assert all(one["data"]["retryable"] and "max_connections" in one["data"]["hint"] for one in refused)
            assert names(early) == ["a"]
            early.call("session.create", config=LOCAL, name="b")
            assert resident(daemon) < 120 * MIB
            for one in crowd:
                one.shutdown(socket.SHUT_WR)
            for one in crowd:
                with contextlib.suppress(ConnectionResetError):  # it was turned away before its ping was read
                    while one.recv(65_536):
                        pass
            with daemon.client() as late:
                assert names(late) == ["a", "b"]


def test_a_crowd_with_and_without_a_runtime_folder_starts_one_daemon(home: Path) -> None:
    """A hundred clients at once, half of them from cron: one daemon is started, and all of them reach it."""
    login = clean_environment(home)
    cron = {name: value for name, value in login.items() if name != "XDG_RUNTIME_DIR"}
    command = [sys.executable, "-m", "orbitctl", "--timeout", "120", "daemon", "start", "-q"]
    runs = [
        subprocess.Popen(command, env=environ, cwd=home, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for environ in [login, cron] * 50
    ]
    printed = [run.communicate(timeout=240) for run in runs]
    try:
        assert [run.returncode for run in runs] == [0] * 100, {err for _, err in printed if err}
        assert len({out for out, _ in printed}) == 1
        log = home / ".local/state/orbit/orbitd.log"
        wait_for_line(log, " serving ")
        assert log.read_text().count(" serving ") == 1
        assert "another orbitd" not in log.read_text()
    finally:
        subprocess.run([*command[:3], "daemon", "stop"], env=cron, cwd=home, check=True, capture_output=True)


@pytest.mark.parametrize("sent", [b"", b'{"jsonrpc": "2.0", "meth', 40_000 * PING])
def test_all_connections_are_used(stopped_daemon: DaemonProcess, sent: bytes) -> None:
    """Whatever those do that have them, the user can ask, see who it is, end a session, and stop the daemon."""
    daemon = stopped_daemon
    configure(daemon, 8)
    daemon.start()
    with daemon.client() as early:
        config = {"session_type": "local", "command": "cat", "workspace_id": workspace(early)}
        session = early.call("session.create", config=config, name="web")["id"]
        early.call("session.start", id=session)
        early.call("session.attach", id=session, cols=80, rows=24)
        with contextlib.ExitStack() as stack:
            for _ in range(7 + RESERVED):
                one = stack.enter_context(socket.socket(socket.AF_UNIX))
                one.connect(str(daemon.socket_path))
                one.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    one.send(sent)
            until_served(daemon)
            assert "web" in orbitctl(daemon, "session", "list").stdout
            shown = orbitctl(daemon, "status").stdout
            assert f"pid {daemon.pid}" in shown
            assert json.loads(orbitctl(daemon, "status", "--json").stdout)["stats"] is None
            assert "All 8 connections are used" in orbitctl(daemon, "doctor", code=None).stdout
            found = json.loads(orbitctl(daemon, "daemon", "connections", "--json").stdout)["connections"]
            assert [each["pid"] for each in found[:8]] == 8 * [os.getpid()]
            assert [each["attachments"] for each in found[:2]] == [
                [{"attachment_id": found[0]["attachments"][0]["attachment_id"], "session_id": session}],
                [],
            ]
            own_name = Path("/proc/self/comm").read_text().strip()
            assert [(each["program"], each["reserved"]) for each in found[:8]] == 8 * [(own_name, False)]
            assert found[-1]["reserved"]
            assert session[:8] in orbitctl(daemon, "daemon", "connections").stdout
            refused = orbitctl(daemon, "stats", code=1).stderr
            assert "orbitctl daemon connections" in refused
            orbitctl(daemon, "session", "terminate", "web")
            orbitctl(daemon, "daemon", "stop")
    assert daemon.process is not None
    assert daemon.process.wait(WAIT_SECS) == 0


def workspace(client: RawClient) -> str:
    layout = {"layout_type": "grid", "config": None}
    return client.call("workspace.create", name="w", layout=layout)["id"]


def until_served(daemon: DaemonProcess) -> None:
    """Ask until one of those in the reserve has been idle for long enough to make room."""
    while b"pong" not in told(daemon):
        pass


def told(daemon: DaemonProcess) -> bytes:
    with knock(daemon) as one, contextlib.suppress(ConnectionResetError):
        return one.recv(65_536)
    return b""


def orbitctl(daemon: DaemonProcess, *words: str, code: int | None = 0) -> subprocess.CompletedProcess[str]:
    """Run orbitctl, and check its exit code unless that is None."""
    ended = subprocess.run(
        [sys.executable, "-m", "orbitctl", *words],
        env=daemon.environment,
        cwd=daemon.home,
        capture_output=True,
        text=True,
        timeout=WAIT_SECS,
        check=False,
    )
    assert code is None or ended.returncode == code, ended.stderr
    return ended


def limit_descriptors(daemon: DaemonProcess, limit: int, soft: int | None = None) -> None:
    """Start the daemon with a hard limit of open files from now on, which it cannot raise, and a soft one."""
    both = f"ulimit -Sn {soft or limit}; ulimit -Hn {limit}"
    daemon.prefix = ("sh", "-c", f'{both}; exec "$@"', "sh")


def test_few_file_descriptors(stopped_daemon: DaemonProcess) -> None:
    """Clients never take the descriptors that the store needs: the rest is told to wait, and doctor names the limit."""
    daemon = stopped_daemon
    configure(daemon, 500)
    limit_descriptors(daemon, 160)
    daemon.start()
    with daemon.client() as early, contextlib.ExitStack() as stack:
        room = early.call("daemon.info")["limits"]["max_connections"]
        assert room == 80
        session = early.call("session.create", config=LOCAL, name="a")["id"]
        crowd = [stack.enter_context(knock(daemon)) for _ in range(100)]
        assert sum("result" in answer(one) for one in crowd) >= room - 1 + RESERVED
        assert "result" in snapshot(early, session, 1_000)
        assert len(early.call("snapshot.list", session_id=session)["snapshots"]) == 1
        early.call("maintenance.backup", path=str(daemon.home / "copy.db"))
        early.call("maintenance.check")
    assert "LimitNOFILE" in doctor(daemon)


def start_all(client: RawClient, count: int) -> tuple[list[str], list[Any]]:
    """Start as many sessions; return those that run, and the errors of the others."""
    config = {"session_type": "local", "command": "sh -c 'echo printed; exec cat'"}
    ids = [each["result"]["id"] for each in client.batch("session.create", count * [{"config": config}])]
    answers = client.batch("session.start", [{"id": each} for each in ids])
    running = [each for each, answer in zip(ids, answers, strict=True) if "result" in answer]
    return running, [answer["error"] for answer in answers if "error" in answer]


@pytest.mark.parametrize("limit", [128, 256])
def test_sessions_leave_descriptors_for_clients(stopped_daemon: DaemonProcess, limit: int) -> None:
    """The session for which there is no room is refused with the limit; clients come, and can back up and check."""
    daemon = stopped_daemon
    limit_descriptors(daemon, limit)
    daemon.start()
    with daemon.client() as first:
        running, refused = start_all(first, limit // 2)
        assert len(running) >= (limit - 64) // 2 - 16
        assert {error["code"] for error in refused} == {TOO_MANY}
        assert {error["data"]["limit"] for error in refused} == {limit}
        assert all("ulimit -n" in error["data"]["hint"] for error in refused)
        assert "live sessions have their files open" in doctor(daemon)
        with contextlib.ExitStack() as stack:
            crowd = [stack.enter_context(knock(daemon)) for _ in range(limit)]
            assert "result" in answer(crowd[0])
            first.call("maintenance.backup", path=str(daemon.home / "copy.db"))
            assert first.call("maintenance.check")["ok"]
            assert first.call("session.screen", id=running[-1], format="text")["data"].startswith("printed")
            until_served(daemon)
        first.call("session.terminate", id=running[0])
        again, refused = start_all(first, 1)
        assert (len(again), refused) == (1, [])
    daemon.stop()  # which saves them all at once
    history = history_of(daemon.database_path)
    assert all(b"printed" in output_of(film_of(history, each)[1]) for each in [*running[1:], *again])


def test_a_restart_under_a_lower_limit_locks_nobody_out(stopped_daemon: DaemonProcess) -> None:
    """Sessions that do not fit stay with the keeper, alive; attaching is 1009; they come back as others end."""
    daemon = stopped_daemon
    daemon.start()
    with daemon.client() as client:
        running, refused = start_all(client, 50)
        assert refused == []
    daemon.stop()
    limit_descriptors(daemon, 128)
    daemon.start()
    daemon.wait_for_log("terminal left to the keeper")
    with daemon.client() as client:
        live = [each["id"] for each in client.call("session.list")["sessions"] if each["live"]]
        assert sorted(live) == sorted(running)
        assert any("sessions is not read" in warning for warning in client.call("daemon.info")["warnings"])
        attached = client.batch("session.attach", [{"id": each, "cols": 80, "rows": 24} for each in running])
        codes = {each["error"]["code"] if "error" in each else 0 for each in attached}
        assert codes == {0, TOO_MANY}
        (left, *_), (kept, *_) = (
            [each for each, one in zip(running, attached, strict=True) if ("error" in one) == is_left]
            for is_left in (True, False)
        )
        client.call("session.terminate", id=left)  # what is left to the keeper can be ended
        for each in running:
            if each not in (left, kept):
                client.call("session.terminate", id=each)
        client.call("session.attach", id=kept, cols=80, rows=24)
        assert not any("is not read" in warning for warning in client.call("daemon.info")["warnings"])
        screen = client.call("session.screen", id=left, format="text")["data"]
        assert "printed" in screen


def test_programs_get_the_limit_of_the_user(stopped_daemon: DaemonProcess) -> None:
    """The daemon raises its own soft limit to the hard one, and programs have the one that it was started with."""
    daemon = stopped_daemon
    limit_descriptors(daemon, 500, soft=100)
    daemon.start()
    assert resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE) == (500, 500)
    with daemon.client() as client:
        config = {"session_type": "local", "command": "sh -c 'ulimit -Sn; ulimit -Hn; exec cat'"}
        session = client.call("session.create", config=config)["id"]
        client.call("session.start", id=session)
        client.call("session.attach", id=session, cols=80, rows=24)
        shown = b""
        while b"500" not in shown:
            screen = client.call("session.screen", id=session, format="text")
            shown = screen["data"].encode()
    assert shown.split() == [b"100", b"500"]


def test_no_file_descriptor_at_all(daemon: DaemonProcess, client: RawClient) -> None:
    """Who is connected is served from memory and else told to try again; who knocks waits until there is one."""
    client.call("session.create", config=LOCAL, name="a")
    client.call("maintenance.check")  # the look at the rows after a start is over too, and its reader closed
    hard = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
    # The limit is that of a new descriptor's number: with 3 none is to be had, whichever are closed meanwhile.
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (3, hard[1]))
    with knock(daemon) as waiting:
        daemon.wait_for_log("cannot accept")
        client.call("session.create", config=LOCAL, name="b")
        assert names(client) == ["a", "b"]
        error = client.error("maintenance.backup", path=str(daemon.home / "copy.db"))
        assert (error["code"], error["data"]["retryable"]) == (BUSY, True)
        assert client.call("daemon.info")["pid"] == daemon.pid
        assert [each["pid"] for each in client.call("daemon.connections")["connections"]] == [os.getpid()]
        session = client.call("session.create", config={"session_type": "local", "command": "cat"})["id"]
        assert client.error("session.start", id=session)["code"] == TOO_MANY
        client.call("session.delete", id=session)
        error = client.error("maintenance.check")
        assert (error["code"], error["data"]["retryable"]) == (BUSY, True)
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, hard)
        assert answer(waiting)["result"] == {"pong": True}
    assert client.call("maintenance.check")["ok"]


def test_a_client_that_never_reads(daemon: DaemonProcess, client: RawClient) -> None:
    """It is read from no more once its answers pile up; what it costs is bounded, and others are served."""
    before = resident(daemon)
    sent = 0
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.connect(str(daemon.socket_path))
        deaf.setblocking(False)
        for _ in range(300):
            with contextlib.suppress(BlockingIOError):
                while sent < 64 * MIB:
                    sent += deaf.send(DISCOVER * 200)
            assert client.call("daemon.ping") == {"pong": True}
        assert sent < 8 * MIB
        assert resident(daemon) - before < 40 * MIB
        client.call("session.create", config=LOCAL, name="a")
        deaf.setblocking(True)
        deaf.settimeout(WAIT_SECS)
        assert deaf.recv(MIB)
    assert names(client) == ["a"]


def test_a_client_that_sends_byte_by_byte(daemon: DaemonProcess, client: RawClient) -> None:
    """However slowly a request comes, others are served between any two bytes, and it is answered at its end."""
    with daemon.client() as slow:
        for byte in PING:
            slow.socket.sendall(bytes([byte]))
            assert client.call("daemon.ping") == {"pong": True}
        assert json.loads(slow.read_line())["result"] == {"pong": True}


def flood(daemon: DaemonProcess, line: bytes, times: int, told: queue.Queue[int | None]) -> None:
    """Send the same long line again and again, on a new connection where the daemon ended the last; None is the end."""
    try:
        for _ in range(times):
            with daemon.client() as rude, contextlib.suppress(BrokenPipeError, ConnectionResetError):
                for _ in range(2):
                    rude.socket.sendall(line)
                    told.put(json.loads(rude.read_line())["error"]["code"])
    finally:
        told.put(None)


@pytest.mark.parametrize(("length", "code"), [(LINE_LIMIT - 2, -32700), (LINE_LIMIT + MIB, -32600)])
def test_clients_that_send_16_mib_lines_for_ever(
    daemon: DaemonProcess, client: RawClient, length: int, code: int
) -> None:
    """Each line is answered with its error; three such clients at once cost a bounded amount, and others are served."""
    client.call("session.create", config=LOCAL, name="a")
    answers: queue.Queue[int | None] = queue.Queue()
    line = b"x" * length + b"\n"
    rude = [threading.Thread(target=flood, args=(daemon, line, 3, answers)) for _ in range(3)]
    for one in rude:
        one.start()
    told = []
    for _ in rude:
        while (answer := answers.get(timeout=WAIT_SECS)) is not None:
            told.append(answer)
            assert names(client) == ["a"]
    for one in rude:
        one.join()
    assert told
    assert set(told) == {code}
    assert resident(daemon) < 320 * MIB
    with daemon.client() as again:
        assert names(again) == ["a"]


def test_a_line_that_never_ends(daemon: DaemonProcess, client: RawClient) -> None:
    """At the limit it is answered, the rest is dropped, and the connection is ended; memory does not grow with it."""
    with daemon.client() as endless:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError, TimeoutError):
            for _ in range(200):
                endless.socket.sendall(b"x" * MIB)
                assert client.call("daemon.ping") == {"pong": True}
        assert resident(daemon) < 160 * MIB
        error = json.loads(endless.read_line())["error"]
        assert (error["code"], error["data"]["kind"]) == (-32600, "message_too_large")


def test_a_client_that_half_closes(daemon: DaemonProcess, client: RawClient) -> None:
    """Who sends, shuts down and reads has all its answers, then the end."""
    with daemon.client() as half:
        half.socket.sendall(PING * 50)
        half.socket.shutdown(socket.SHUT_WR)
        answers = [json.loads(line) for line in iter(half.read_line, b"")]
    assert [one["result"] for one in answers] == [{"pong": True}] * 50
    assert client.call("daemon.ping") == {"pong": True}


def test_a_client_that_takes_no_answers(daemon: DaemonProcess, client: RawClient) -> None:
    """Who shuts down its reading side and vanishes in the middle of a line disturbs nobody and leaves nothing."""
    for _ in range(20):
        with daemon.client() as half:
            half.socket.shutdown(socket.SHUT_RD)
            half.socket.sendall(DISCOVER * 20 + b'{"half')
    with daemon.client() as silent:
        silent.socket.shutdown(socket.SHUT_WR)
        assert silent.read_line() == b""
    client.call("session.create", config=LOCAL, name="a")
    assert names(client) == ["a"]
    open_files = Path(f"/proc/{daemon.pid}/fd")
    with daemon.client() as again:
        assert again.call("daemon.ping") == {"pong": True}
    assert len(list(open_files.iterdir())) < 60
