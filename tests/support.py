"""What tests of the real daemon share: a private place, the daemon as a subprocess, a raw client.

Everything here runs real programs on real sockets. Nothing sleeps: a start is waited for
on the daemon's ready pipe, an end on the process, an answer on the socket.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections import deque
from pathlib import Path
from typing import Any

from keeper_support import KeeperProcess

WAIT_SECS = 20.0
MAX_BATCH = 100
EVERY_STATUS = ["active", "detached", "terminated", "archived"]


def build(kind: str, source: Path, folder: Path, **environ: str) -> Path:
    """Build a "wheel" or an "sdist" of a source tree into a folder, as pip does, and return its path."""
    program = f"import hatchling.build as b, sys; print(b.build_{kind}(sys.argv[1]))"
    # What pip sets while it builds: hatchling then leaves the metadata to the wheel.
    environ = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", "PIP_BUILD_TRACKER": str(folder), **environ}
    command = [sys.executable, "-c", program, str(folder)]
    built = subprocess.run(command, cwd=source, env=environ, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return folder / built.stdout.split()[-1]


def clean_environment(home: Path, **extra: str) -> dict[str, str]:
    """Return an environment in which Orbit finds nothing of the user who runs the tests."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "PYTHONPATH", "VIRTUAL_ENV") if name in os.environ}
    runtime = home / "run"
    runtime.mkdir(mode=0o700, exist_ok=True)
    ours = {"HOME": str(home), "XDG_RUNTIME_DIR": str(runtime), "XDG_CACHE_HOME": cache(), "TERM": "xterm-256color"}
    return {**kept, **ours, **extra}


@functools.cache
def cache() -> str:
    """Return a folder for what every daemon would make anew: the tables of the terminal emulation's interface."""
    folder = tempfile.mkdtemp(prefix="orbit-cache-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def wait_for_line(file: Path, *texts: str, count: int = 1) -> str:
    """Return the last of `count` lines of a file that hold one of the texts, once there are as many."""
    command = ["timeout", str(WAIT_SECS), "tail", "-n", "+1", "-F", str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as follow:
        assert follow.stdout is not None
        found = list(itertools.islice((line for line in follow.stdout if any(text in line for text in texts)), count))
        follow.terminate()
    assert len(found) == count, f"{texts} is {len(found)} times in the log:\n{file.read_text()}"
    return found[-1]


class RawClient:
    """A client that knows only JSON and lines: what docs/protocol.md promises to any program."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(WAIT_SECS)
        try:
            self.socket.connect(str(path))
        except OSError:
            self.socket.close()
            raise
        self._buffer = b""
        self._last_id = 0
        self._notices: deque[Any] = deque()

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def send(self, line: bytes) -> None:
        self.socket.sendall(line + b"\n")

    def read_line(self) -> bytes:
        """Return the next line, or b"" at the end of the stream, however the peer ended it."""
        while b"\n" not in self._buffer:
            try:
                data = self.socket.recv(1 << 20)
            except ConnectionResetError:  # closed with something of ours unread
                return b""
            if not data:
                return b""
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def ask(self, line: bytes | str) -> Any:
        """Send one line and return its answer as Python objects; notifications meanwhile are for `notice`."""
        self.send(line if isinstance(line, bytes) else line.encode())
        while "method" in (answer := json.loads(self.read_line())):
            self._notices.append(answer)
        return answer

    def request(self, method: str, **params: Any) -> Any:
        """Call a method and return the whole response."""
        self._last_id += 1
        response = self.ask(json.dumps({"jsonrpc": "2.0", "method": method, "params": params, "id": self._last_id}))
        assert response["id"] == self._last_id, response
        return response

    def notify(self, method: str, **params: Any) -> None:
        """Send a notification."""
        self.send(json.dumps({"jsonrpc": "2.0", "method": method, "params": params}).encode())

    def notice(self) -> Any:
        """Return the next notification of the daemon."""
        return self._notices.popleft() if self._notices else json.loads(self.read_line())

    def call(self, method: str, **params: Any) -> Any:
        """Call a method and return its result; an error fails the test."""
        response = self.request(method, **params)
        assert "result" in response, response
        return response["result"]

    def batch(self, method: str, calls: list[dict[str, Any]]) -> list[Any]:
        """Call a method many times at once and return the responses, in order."""
        body = {"jsonrpc": "2.0", "method": method}
        responses: list[Any] = []
        for first in range(0, len(calls), MAX_BATCH):
            some = enumerate(calls[first : first + MAX_BATCH])
            responses += self.ask(json.dumps([{**body, "params": params, "id": number} for number, params in some]))
        return responses

    def empty(self) -> None:
        """End every program and delete every session and workspace."""
        while sessions := self.call("session.list", status=EVERY_STATUS)["sessions"]:
            ids = [{"id": session["id"]} for session in sessions]
            self.batch("session.signal", [{**one, "signal": "KILL"} for one in ids])  # those that run
            self.batch("session.delete", [{**one, "purge": True} for one in ids])
        while deleted := self.call("session.list_deleted")["sessions"]:
            self.batch("session.delete", [{"id": session["id"], "purge": True} for session in deleted])
        while workspaces := self.call("workspace.list")["workspaces"]:
            self.batch("workspace.delete", [{"id": workspace["id"]} for workspace in workspaces])

    def error(self, method: str, **params: Any) -> Any:
        """Call a method and return its error; success fails the test."""
        response = self.request(method, **params)
        assert "error" in response, response
        return response["error"]


class DaemonProcess:
    """`python -m orbitd` in a home of its own.

    Args:
        home: Everything it writes lies below; short, since socket paths are limited.
        arguments: More flags.
        environment: More variables.

    Attributes:
        command: What `start` runs, before the flags; another one starts the orbitd of another release.
    """

    def __init__(self, home: Path, *arguments: str, environment: dict[str, str] | None = None) -> None:
        self.home = home
        self.arguments = arguments
        self.prefix: tuple[str, ...] = ()
        """Words before the command, such as a program that sets a limit and becomes orbitd."""
        self.command = [sys.executable, "-m", "orbitd"]
        self.environment = clean_environment(home, **(environment or {}))
        self.socket_path = home / "run" / "orbit" / "orbitd.sock"
        self.database_path = home / ".local" / "share" / "orbit" / "sessions.db"
        self.log_path = home / "orbitd.stderr"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *, check: bool = True, stderr: int | None = None) -> DaemonProcess:
        """Start it and wait until it serves, or until it has ended; it logs to a descriptor, else to its file."""
        read_end, write_end = os.pipe()
        with self.log_path.open("ab") as log, open(read_end, "rb") as ready:
            command = [*self.prefix, *self.command, "--ready-fd", str(write_end), *self.arguments]
            self.process = subprocess.Popen(
                command,
                env=self.environment,
                cwd=self.home,
                pass_fds=[write_end],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log if stderr is None else stderr,
            )
            os.close(write_end)
            is_ready = ready.read() == b"ready\n"
        if check and not is_ready:
            self.process.wait(WAIT_SECS)
            raise AssertionError(f"orbitd did not start:\n{self.log()}")
        return self

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def client(self) -> RawClient:
        return RawClient(self.socket_path)

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def wait_for_log(self, *texts: str, count: int = 1) -> str:
        """Return the last of `count` lines of the log that hold one of the texts, once there are as many."""
        return wait_for_line(self.log_path, *texts, count=count)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit status."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(WAIT_SECS)

    def kill(self) -> int:
        return self.stop(signal.SIGKILL)

    def refused(self) -> str:
        """Start where it must not serve; return what it says."""
        self.start(check=False)
        assert self.process is not None
        assert self.process.wait(WAIT_SECS) == 1
        return self.log()

    def restart(self) -> DaemonProcess:
        self.stop()
        return self.start()

    def empty(self) -> None:
        """End every program and delete every session and workspace, so that another test finds nothing."""
        with self.client() as client:
            client.empty()

    def end_keeper(self) -> None:
        """Kill the keeper, if there is one, and every program that it has, as a reboot does."""
        with contextlib.suppress(EOFError):  # it was about to end by itself
            KeeperProcess(f"{self.database_path}.keeper").kill()

    def end(self) -> None:
        """Leave nothing behind: kill the daemon, and the keeper of its programs."""
        if self.process is not None:
            self.kill()
            self.end_keeper()
