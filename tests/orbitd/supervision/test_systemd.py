"""The protocols of systemd: passed descriptors, notifications, the watchdog's interval and the environment."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from orbitd.daemon import _feed_watchdog
from orbitd.supervision import (
    Notifier,
    SocketActivationError,
    Supervision,
    inherited_sockets,
    supervisor_name,
    watchdog_interval,
)
from support import WAIT_SECS

PID = str(os.getpid())

# Runs as the supervised process: puts descriptor N at 3, as systemd does, names itself in
# LISTEN_PID and executes the probe, which keeps its pid.
LAUNCH = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.set_inheritable(3, True)
for name in ("LISTEN_PID", "WATCHDOG_PID", "SYSTEMD_EXEC_PID"):
    os.environ[name] = str(os.getpid())
os.execv(sys.executable, [sys.executable, "-c", sys.argv[2]])
"""

PROBE = """
import json, os
from orbitd.supervision import SocketActivationError, Supervision
try:
    supervision = Supervision.from_environment()
except SocketActivationError as error:
    print(json.dumps({"error": str(error)}))
else:
    print(json.dumps({
        "name": supervision.name,
        "sockets": [s.getsockname() for s in supervision.sockets],
        "inheritable": [s.get_inheritable() for s in supervision.sockets],
        "blocking": [s.getblocking() for s in supervision.sockets],
        "watchdog": supervision.watchdog_secs,
        "notifies": supervision.notifier.enabled,
        "umask": supervision.program_umask,
        "left": sorted(v for v in os.environ if v.startswith(("LISTEN_", "NOTIFY_", "WATCHDOG_", "SYSTEMD_EXEC"))
                       or v in ("INVOCATION_ID", "JOURNAL_STREAM", "MANAGERPID")),
    }))
"""


@pytest.fixture
def folder():
    """A folder with a name short enough for socket paths."""
    with tempfile.TemporaryDirectory(prefix="o", dir="/tmp") as path:
        yield Path(path)


def run_supervised(descriptor: int, **variables: str) -> dict:
    """Run the probe as systemd would, with `descriptor` as its first passed one."""
    done = subprocess.run(
        [sys.executable, "-c", LAUNCH, str(descriptor), PROBE],
        env={**os.environ, "LISTEN_FDS": "1", "LISTEN_FDNAMES": "orbitd", "INVOCATION_ID": "1", **variables},
        pass_fds=[descriptor],
        capture_output=True,
        check=True,
        timeout=30,
    )
    return json.loads(done.stdout)


def test_a_passed_socket_is_adopted_and_the_environment_is_clean(folder):
    """The daemon gets the listening socket, non-blocking and closed at exec, and no child sees a variable."""
    path = str(folder / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        seen = run_supervised(
            listener.fileno(), NOTIFY_SOCKET="/run/x", WATCHDOG_USEC="4000000", JOURNAL_STREAM="8:1", MANAGERPID="1"
        )
    assert seen == {
        "name": "systemd",
        "sockets": [path],
        "inheritable": [False],
        "blocking": [False],
        "watchdog": 2.0,
        "notifies": True,
        "umask": current_umask(),
        "left": [],
    }


def current_umask() -> int:
    """Read this process's umask as the probe reads its parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1], 8) for line in lines if line.startswith("Umask:"))


def test_the_path_of_a_passed_socket_stays_when_its_holder_ends(folder):
    """A client can still connect after the daemon that adopted the socket has gone."""
    path = folder / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        run_supervised(listener.fileno())
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            assert stat.S_ISSOCK(path.stat().st_mode)


@pytest.mark.parametrize("make", [socket.SOCK_DGRAM, socket.SOCK_STREAM], ids=["datagram", "not listening"])
def test_a_socket_of_the_wrong_kind_is_refused(make):
    """A unit that hands over what cannot be accepted on is named as the fault."""
    with socket.socket(socket.AF_UNIX, make) as wrong:
        seen = run_supervised(wrong.fileno())
    assert seen["error"].startswith("systemd handed over descriptor 3, which is no listening Unix stream socket")


def test_a_tcp_listener_is_refused():
    """Orbit is never served on a network socket, whatever a unit file says."""
    with socket.create_server(("127.0.0.1", 0)) as wrong:
        seen = run_supervised(wrong.fileno())
    assert "no listening Unix stream socket" in seen["error"]


def test_a_file_is_refused(folder):
    """A descriptor that is no socket at all is refused with the system's words."""
    with (folder / "file").open("w") as wrong:
        seen = run_supervised(wrong.fileno())
    assert seen["error"].startswith("systemd handed over descriptor 3, which is no socket: ")


def test_sockets_meant_for_another_process_are_left_alone():
    """LISTEN_PID of a parent means that nothing was passed to us."""
    assert inherited_sockets({"LISTEN_PID": "1", "LISTEN_FDS": "1"}) == []


@pytest.mark.parametrize("text", ["-1", "1e3", "17", "99999999999999999999", "", "٣"])
def test_a_senseless_count_is_refused(text):
    """LISTEN_FDS that is no small number is an error and not a guess."""
    with pytest.raises(SocketActivationError, match="LISTEN_FDS"):
        inherited_sockets({"LISTEN_PID": PID, "LISTEN_FDS": text})


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": PID}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_is_fed_at_half_its_time(environ, expected):
    """The interval is half of WatchdogSec, and only for the process it is meant for."""
    assert watchdog_interval(environ) == expected


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, "none"),
        ({"INVOCATION_ID": "abc"}, "none"),
        ({"INVOCATION_ID": "abc", "SYSTEMD_EXEC_PID": "1"}, "none"),
        ({"SYSTEMD_EXEC_PID": PID}, "systemd"),
        ({"INVOCATION_ID": "abc", "LISTEN_PID": PID}, "systemd"),
        ({"INVOCATION_ID": "abc", "WATCHDOG_PID": PID}, "systemd"),
        ({"XPC_SERVICE_NAME": "application.com.apple.Terminal.1"}, "none"),
        ({"XPC_SERVICE_NAME": "dev.orbit.orbitd"}, "launchd"),
    ],
)
def test_the_supervisor_is_who_executed_this_process(environ, expected):
    """A daemon started by hand in a terminal that itself runs under systemd is supervised by nobody."""
    assert supervisor_name(environ) == expected


def test_without_a_supervisor_there_is_nothing_to_adopt():
    """Started by hand, the daemon binds its own socket, and every notification does nothing."""
    supervision = Supervision.from_environment({})
    assert (supervision.name, supervision.sockets, supervision.watchdog_secs) == ("none", (), None)
    assert supervision.program_umask == current_umask()
    assert supervision.notifier.ready() is False


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_every_notification_arrives_as_documented(folder, kind):
    """READY, STATUS, WATCHDOG, EXTEND_TIMEOUT_USEC and STOPPING reach both forms of NOTIFY_SOCKET."""
    address = str(folder / "n") if kind == "path" else f"@{folder}/n"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address.replace("@", "\0"))
        manager.settimeout(10)
        notifier = Notifier.from_environment({"NOTIFY_SOCKET": address})
        assert notifier.ready("serving 3 sessions")
        assert manager.recv(4096) == f"READY=1\nSTATUS=serving 3 sessions\nMAINPID={PID}".encode()
        assert notifier.status("two\nlines")
        assert manager.recv(4096) == b"STATUS=two lines"
        assert notifier.watchdog()
        assert manager.recv(4096) == b"WATCHDOG=1"
        assert notifier.extend_timeout(1.5)
        assert manager.recv(4096) == b"EXTEND_TIMEOUT_USEC=1500000"
        assert notifier.stopping()
        assert manager.recv(4096) == b"STOPPING=1"
        notifier.close()


def test_a_manager_that_is_gone_is_logged_once_and_survived(folder, caplog):
    """A dead NOTIFY_SOCKET costs one line in the log, however often it is written to."""
    notifier = Notifier(str(folder / "nobody"))
    assert [notifier.ready(), notifier.watchdog(), notifier.stopping()] == [False, False, False]
    notifier.close()
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        "cannot reach the service manager at NOTIFY_SOCKET"
    ]


def fill_queue(path: str) -> int:
    """Send datagrams from a socket of its own until none is taken; return how many were."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        for count in itertools.count():
            try:
                sender.sendto(b"", path)
            except BlockingIOError:
                return count
    raise AssertionError


async def test_a_manager_that_does_not_read_holds_up_nobody(folder, monkeypatch):
    """The loop goes on while its queue is full, and the watchdog is fed as soon as there is room."""
    monkeypatch.setattr("orbitd.supervision.systemd.SEND_TIMEOUT_SECS", int(WAIT_SECS))

    class Manager:
        async def probe(self):
            pass

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(folder / "n"))
        manager.setblocking(False)
        while fill_queue(str(folder / "n")):
            pass  # one sender may have used up its own buffer before the queue is full
        notifier = Notifier(str(folder / "n"))
        feeding = asyncio.ensure_future(_feed_watchdog(Manager(), notifier))
        await asyncio.sleep(0)  # it has found the queue full, and left the loop
        assert not feeding.done()
        assert manager.recv(4096) == b""
        await feeding
        received = set()
        with contextlib.suppress(BlockingIOError):
            while True:
                received.add(manager.recv(4096))
        assert received == {b"", b"WATCHDOG=1"}
        notifier.close()


def test_an_unknown_form_of_notify_socket_is_left_alone(caplog):
    """An address of vsock, which systemd gives to virtual machines, is reported and not used."""
    assert Notifier("vsock:2:1234").enabled is False
    assert "not supported" in caplog.text
