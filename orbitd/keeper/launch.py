"""Starts a keeper, from orbitd's side.

`start_keeper` blocks for as long as Python takes to start: call it from a thread.
"""

from __future__ import annotations

import os
import subprocess
import sys

from orbit_protocol.errors import SpawnFailed

START_SECONDS = 20

_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH")
"""What Python may need to start. Nothing else goes in: what systemd gave to orbitd (NOTIFY_SOCKET,
LISTEN_FDS) is not the keeper's, and a program gets the environment of its own request only."""


def start_keeper(socket_path: str) -> None:
    """Start the keeper of a socket path; if there is one already, that is fine too.

    It listens once this returns. It is no child of this process, and in a session of its own.

    Raises:
        SpawnFailed: It could not be started; the message says why.
    """
    program = os.path.join(os.path.dirname(os.path.abspath(__file__)), "__main__.py")
    command = [sys.executable, "-I", "-S", program, os.path.abspath(socket_path)]
    environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    try:
        started = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            cwd="/",
            env=environment,
            timeout=START_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise SpawnFailed(f"the keeper could not be started: {exc}") from exc
    if started.returncode != 0:
        lines = started.stderr.decode(errors="replace").strip().splitlines() or [f"status {started.returncode}"]
        raise SpawnFailed(f"the keeper of {socket_path} could not be started: {lines[-1]}")
