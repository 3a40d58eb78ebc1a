"""Hooks and desktop notifications of a real daemon; the desktop is dunst, on a bus of its own."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ctl_support import Orbitctl
from live.sessions import start
from needs import needs, program
from support import WAIT_SECS, DaemonProcess, wait_for_line

SAY = r"import os, time; print('\x1b]777;' + os.environ['TEXT'] + '\x07', flush=True); time.sleep(600)"
"""A program that has the terminal show a notification (OSC 777)."""


def configure(daemon: DaemonProcess, text: str) -> None:
    folder = daemon.home / ".config" / "orbit"
    folder.mkdir(parents=True, mode=0o700, exist_ok=True)
    (folder / "config.toml").write_text(text)


def test_hooks(stopped_daemon: DaemonProcess) -> None:
    """A hook runs for its events, and one that fails stands in the report of doctor until it works."""
    home = stopped_daemon.home
    done = home / "done"
    done.write_text('#!/bin/sh\nprintf "%s %s %s\\n" "$ORBIT_KIND" "$ORBIT_SESSION_NAME" "$ORBITD_SOCKET" >> ~/said\n')
    done.chmod(0o755)
    configure(
        stopped_daemon,
        '[hooks]\n"session.created" = ["~/done"]\n"session.updated" = ["sh", "-c", "echo no host >&2; exit 3"]\n',
    )
    with stopped_daemon.start().client() as client:
        created = client.call("session.create", name="web", config={"session_type": "local"})
        wait_for_line(home / "said", f"session.created web {stopped_daemon.socket_path}")
        client.call("session.rename", id=created["id"], name="db")
        stopped_daemon.wait_for_log("hook failed")
        report = Orbitctl(home, stopped_daemon.environment)("doctor").text
    assert "The hook of session.updated fails" in report
    assert "exit 3: no host" in report
    assert "notifications: none are shown: there is no desktop session here" in report


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('"comand.finished" = ["x"]', '`hooks."comand.finished"`: there is no such event'),
        ('"command.finished" = "x"', '`hooks."command.finished"` must be a list of words'),
        ('"command.finished" = []', '`hooks."command.finished"` must be a list of words'),
        ('"command.finished" = ["x", 1]', '`hooks."command.finished"` must be a list of words'),
        ('"command.finished" = [""]', '`hooks."command.finished"` names no program'),
        ("x = [", "not valid TOML"),
    ],
)
def test_hooks_that_cannot_be(stopped_daemon: DaemonProcess, text: str, said: str) -> None:
    """A hook of an event that there is not, or that is no program, keeps the daemon from starting, by its name."""
    configure(stopped_daemon, f"[hooks]\n{text}\n")
    stopped_daemon.start(check=False)
    assert stopped_daemon.process is not None
    assert stopped_daemon.process.wait(WAIT_SECS) == 2
    assert said in stopped_daemon.log()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Run dunst on a display and a bus of its own: the bus's address, and what dunst prints of each notification."""
    address = f"unix:path={tmp_path}/bus"
    printed = tmp_path / "printed"
    with contextlib.ExitStack() as stack:

        def run(*argv: str, **options: object) -> subprocess.Popen[bytes]:
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, **options)  # type: ignore[call-overload]
            stack.callback(process.wait, WAIT_SECS)
            stack.callback(process.send_signal, signal.SIGTERM)
            return process

        bus = run(
            *(program("dbus-daemon"), "--session", "--nofork", f"--address={address}", "--print-address"),
            stdout=subprocess.PIPE,
        )
        assert bus.stdout is not None
        stack.enter_context(bus.stdout)
        assert bus.stdout.readline()
        read_end, write_end = os.pipe()
        with open(read_end, "rb") as ready:
            run(program("Xvfb"), "-displayfd", str(write_end), "-nolisten", "tcp", pass_fds=[write_end],
                stderr=subprocess.DEVNULL)  # fmt: skip
            os.close(write_end)
            display = ready.readline().decode().strip()
        environment = {**os.environ, "DBUS_SESSION_BUS_ADDRESS": address, "DISPLAY": f":{display}"}
        with printed.open("wb") as output:
            run(program("dunst"), "-print", env=environment, stdout=output, stderr=subprocess.DEVNULL)
        # notify-send waits for nobody: where no service has the name yet the bus would look for one to start.
        ask = [program("notify-send"), "--", "are you there", ""]
        for _ in range(200):
            if subprocess.run(ask, env=environment, stderr=subprocess.DEVNULL, check=False).returncode == 0:
                break
        wait_for_line(printed, "are you there")
        yield address, printed


@needs("dbus-daemon", "dunst", "Xvfb", "notify-send")
def test_a_real_desktop(stopped_daemon: DaemonProcess, service: tuple[str, Path]) -> None:
    """What a program in a session that nobody is at wants to say is shown by the desktop, as text."""
    address, printed = service
    stopped_daemon.environment["DBUS_SESSION_BUS_ADDRESS"] = address
    text = "notify;--Done <i>;<b>5 & 6</b> \\n of 7"
    with stopped_daemon.start().client() as client:
        start(client, f"{sys.executable} -c {shlex.quote(SAY)}", env={"TEXT": text})
        wait_for_line(printed, "--Done <i>")
        wait_for_line(printed, "body: '&lt;b&gt;5 &amp; 6&lt;/b&gt; \\n of 7'")
    assert "appname: 'Orbit'" in printed.read_text()
