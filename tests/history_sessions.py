"""Sessions that print what a test has them print."""

from __future__ import annotations

import shlex
import sys

from live_support import encoded
from support import RawClient

PRINTER = """
import sys, termios
modes = termios.tcgetattr(0)
modes[3] &= ~termios.ECHO
termios.tcsetattr(0, termios.TCSANOW, modes)
print("ready", flush=True)
for line in sys.stdin.buffer:
    sys.stdout.buffer.write(bytes.fromhex(line.decode().strip()))
    sys.stdout.buffer.flush()
"""
"""Prints what it is typed, as hexadecimal."""

COMMAND = f"{shlex.quote(sys.executable)} -uc {shlex.quote(PRINTER)}"


class Printing:
    """A session that prints what it is asked to.

    Args:
        client: A connection to the daemon.
        name: Of a new session.
        session_id: Of one that is there already, and was just started again.
        runs: It was started long ago.
    """

    def __init__(self, client: RawClient, name: str, session_id: str = "", *, runs: bool = False) -> None:
        self.client = client
        self._count = 0
        if session_id:
            self.id = session_id
            if not runs:
                self._wait_for("ready")
            return
        self.id = client.call("session.create", name=name, config={"session_type": "local", "command": COMMAND})["id"]
        client.call("session.start", id=self.id, cols=80, rows=24)
        self._wait_for("ready")

    def _wait_for(self, text: str) -> None:
        self.client.call("session.wait", id=self.id, **{"for": "text"}, pattern=text, timeout_secs=20)

    def print(self, data: bytes) -> None:
        """Have some bytes printed, and return once they are on the screen."""
        self._count += 1
        mark = f"mark-{self._count}."
        text = data + f"\r\n{mark}\r\n".encode()
        for start in range(0, len(text), 1000):
            line = text[start : start + 1000].hex() + "\n"
            self.client.call("session.send", id=self.id, data=encoded(line))
        self._wait_for(mark)

    def save(self) -> None:
        """Save all sessions that have changed."""
        self.client.call("maintenance.auto_save")
