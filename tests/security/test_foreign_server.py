"""A socket that another user serves: orbitctl says so, and sends nothing."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ctl_support import InProcess
from needs import needs
from support import WAIT_SECS, clean_environment

FOREIGN_UID = 12345
SERVER = """
import os, socket, sys
listening = socket.socket(socket.AF_UNIX)
os.umask(0)
os.setuid(int(sys.argv[2]))
listening.bind(sys.argv[1])
listening.listen()
print("ready", flush=True)
received = b""
while received != b"the end":  # a command may connect more than once
    connection, _ = listening.accept()
    connection.settimeout(20)
    received = connection.recv(1000)
    print("received", received, flush=True)
"""

pytestmark = needs(root=True)


@pytest.fixture
def impostor(home: Path) -> Iterator[subprocess.Popen[str]]:
    """A server of another uid at the very path where the user's own daemon would be."""
    environment = clean_environment(home)
    path = Path(environment["XDG_RUNTIME_DIR"]) / "orbit" / "orbitd.sock"
    path.parent.mkdir()
    for folder in (home, path.parent.parent, path.parent):
        folder.chmod(0o777)
    command = [sys.executable, "-c", SERVER, str(path), str(FOREIGN_UID)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        yield server
        server.kill()


@pytest.mark.parametrize("words", ["session list", "session create --name secret", "stats", "daemon stop"])
def test_nothing_is_sent_to_another_users_server(impostor: subprocess.Popen[str], home: Path, words: str) -> None:
    """It is exit 3, with whose server it is and what to do; the server reads nothing but the end."""
    ended = InProcess(home)(*words.split())
    assert (ended.code, ended.out) == (3, b""), ended
    assert f"is served by uid {FOREIGN_UID}, not by you (uid 0); nothing was sent" in ended.err
    assert "hint: " in ended.err
    with socket.socket(socket.AF_UNIX) as last:
        last.connect(str(Path(clean_environment(home)["XDG_RUNTIME_DIR"]) / "orbit" / "orbitd.sock"))
        last.sendall(b"the end")
        out, _ = impostor.communicate(timeout=WAIT_SECS)
    *before, end = out.splitlines()
    assert set(before) == {"received b''"}
    assert end == "received b'the end'"
