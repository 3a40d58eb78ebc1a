"""What tests of the command line share: its runs, in this process, in pipes and on a terminal, and scripted peers.

A peer answers on a real socket as a script says, for what a healthy daemon never does.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from orbitctl.cli import run
from support import WAIT_SECS, clean_environment


@dataclass(frozen=True)
class Ended:
    """A run that has ended."""

    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode()

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Orbitctl:
    """`python -m orbitctl` in a home.

    Args:
        home: The home; also the folder that it runs in.
        environment: Instead of a clean one of that home.
    """

    def __init__(self, home: Path, environment: dict[str, str] | None = None) -> None:
        self.home = home
        self.environment = dict(environment or clean_environment(home))
        self.command = [sys.executable, "-m", "orbitctl"]

    def __call__(self, *arguments: str, stdin: bytes | None = None, **environment: str) -> Ended:
        """Run it to its end; `stdin` is what it reads, by default nothing."""
        return self._run_command(arguments, b"" if stdin is None else stdin, environment)

    def _run_command(self, arguments: Sequence[str], stdin: bytes, environment: dict[str, str]) -> Ended:
        return self._run([*self.command, *arguments], stdin, environment)

    def shell(self, script: str) -> Ended:
        """Run a line of bash."""
        return self._run(["bash", "-c", script], b"", {})

    def _run(self, command: list[str], stdin: bytes, environment: dict[str, str]) -> Ended:
        ended = subprocess.run(
            command,
            input=stdin,
            capture_output=True,
            env={**self.environment, **environment},
            cwd=self.home,
            timeout=WAIT_SECS,
            check=False,
        )
        return Ended(ended.returncode, ended.stdout, ended.stderr.decode())

    def ok(self, *arguments: str, stdin: bytes | None = None, **environment: str) -> Ended:
        """Run it; anything but success fails the test."""
        ended = self(*arguments, stdin=stdin, **environment)
        assert ended.code == 0, ended
        return ended

    def id(self, *arguments: str, stdin: bytes | None = None) -> str:
        """Run it with -q and return the one id that it prints."""
        (found,) = self.ok("-q", *arguments, stdin=stdin).lines
        return found

    def on_terminal(self, *arguments: str, prompt: bytes = b"", typed: bytes = b"", **environment: str) -> Ended:
        """Run it on a new terminal, type something once it shows `prompt`, and return all that it showed."""
        master, terminal = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-c", ON_TERMINAL, *self.command, *arguments],
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            env={**self.environment, "COLUMNS": "200", **environment},
            cwd=self.home,
            start_new_session=True,
        )
        os.close(terminal)
        shown = _talk(master, prompt, typed)
        os.close(master)
        return Ended(process.wait(WAIT_SECS), shown.replace(b"\r\n", b"\n"), "")


class InProcess(Orbitctl):
    """orbitctl run in this process, as if in pipes: for what needs no terminal, no signal and no exit of its own.

    A process of its own costs a tenth of a second, most of it imports. What a process adds (its start, its exit
    code, broken pipes, terminals) is shown by tests with `Orbitctl`; `on_terminal` and `shell` start one here, too.
    """

    def _run_command(self, arguments: Sequence[str], stdin: bytes, environment: dict[str, str]) -> Ended:
        given, out, err = (io.TextIOWrapper(io.BytesIO(data), encoding="utf-8") for data in (stdin, b"", b""))
        with (
            mock.patch.dict(os.environ, {**self.environment, **environment}, clear=True),
            mock.patch.multiple(sys, stdin=given, stdout=out, stderr=err),
            contextlib.chdir(self.home),
        ):
            code = run(list(arguments))
            out.flush()
            err.flush()
        return Ended(code, out.buffer.getvalue(), err.buffer.getvalue().decode())


ON_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
)
"""Makes stdin the controlling terminal, so that Ctrl-C is a signal, and becomes the program."""


def _talk(master: int, prompt: bytes, typed: bytes) -> bytes:
    """Return all that is shown until the end; type when the prompt is there, and again where nothing comes of it.

    Ctrl-C between the prompt and the read that follows it is lost: a person presses it twice.
    """
    shown, asked = b"", False
    while True:
        if select.select([master], [], [], 1.0 if asked else WAIT_SECS)[0]:
            data = _read(master)
            shown += data
            if not data:
                return shown
            if asked or not typed or prompt not in shown:
                continue
        else:
            assert asked, f"nothing came after {shown!r}"
        os.write(master, typed)
        asked = True


def _read(master: int) -> bytes:
    try:
        return os.read(master, 65_536)
    except OSError:  # EIO: the other side is closed
        return b""


class Peer:
    """Serves connections in a thread; `answer` is given each connection.

    Args:
        path: The socket's path.
        answer: Talks on a connection, which is closed afterwards.
    """

    def __init__(self, path: Path, answer: Callable[[socket.socket], None]) -> None:
        self._answer = answer
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listening.bind(str(path))
        self._listening.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            with connection, contextlib.suppress(ConnectionError):  # a client may leave before it has read its answer
                connection.settimeout(WAIT_SECS)
                self._answer(connection)

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._thread.join(WAIT_SECS)
        self._listening.close()


def read_line(connection: socket.socket) -> bytes:
    """Return one line, or what came before the end."""
    data = b""
    while not data.endswith(b"\n") and (more := connection.recv(1 << 20)):
        data += more
    return data


def scripted(results: dict[str, Any]) -> Callable[[socket.socket], None]:
    """Answer each method with a result, or with the bytes of a whole line."""

    def talk(connection: socket.socket) -> None:
        while line := read_line(connection):
            request = json.loads(line)
            result = results[request["method"]]
            if isinstance(result, bytes):
                connection.sendall(result)
            else:
                body = {"jsonrpc": "2.0", "id": request["id"], **result}
                connection.sendall(json.dumps(body).encode() + b"\n")

    return talk
