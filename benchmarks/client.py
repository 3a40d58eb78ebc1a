"""The client that measures: one blocking socket, the same code for whatever answers."""

from __future__ import annotations

import socket
import statistics
import time
from pathlib import Path
from typing import Any

import msgspec

TIMEOUT_SECS = 60.0
PATIENCE_SECS = 120.0
CHUNK = 1 << 16


class LineClient:
    """Sends lines and reads lines.

    Args:
        path: The Unix socket of the server.
    """

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(TIMEOUT_SECS)
        self._socket.connect(str(path))
        self._socket.setblocking(True)
        self._rest = b""

    def __enter__(self) -> LineClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def fileno(self) -> int:
        """Return the descriptor, to wait on and to read from directly."""
        return self._socket.fileno()

    def send_bytes(self, data: bytes) -> None:
        """Send bytes, however many."""
        self._socket.sendall(data)

    def ask(self, line: bytes) -> bytes:
        """Send one line and return the line that comes back, both with their ending."""
        self._socket.sendall(line)
        answer = self._socket.recv(CHUNK)
        while answer and not answer.endswith(b"\n"):
            answer += self._socket.recv(CHUNK)
        return answer

    def call(self, method: str, **params: Any) -> Any:
        """Call a method and return its result; notifications that come before it are dropped.

        Raises:
            RuntimeError: The answer is an error, or the connection ends.
        """
        self.send(method, **params)
        while "id" not in (answer := msgspec.json.decode(self.read_line())):
            pass
        if "result" not in answer:
            raise RuntimeError(f"{method}: {answer}")
        return answer["result"]

    def send(self, method: str, **params: Any) -> None:
        """Send a call; `read_line` returns its answer sooner or later."""
        self._socket.sendall(request(method, **params))

    def read_line(self, secs: float = PATIENCE_SECS) -> bytes:
        """Return the next line, an answer or a notification. Raises: RuntimeError, TimeoutError."""
        parts = [self._rest]
        self._socket.settimeout(secs)
        try:
            while b"\n" not in parts[-1]:
                if not (data := self._socket.recv(CHUNK)):
                    raise RuntimeError("the connection has ended")
                parts.append(data)
            line, _, self._rest = b"".join(parts).partition(b"\n")
        finally:
            self._socket.settimeout(None)  # with one, `ask` would poll before every recv
        return line

    def round_trip(self, line: bytes, count: int) -> float:
        """Return the median time of `count` round trips, in microseconds."""
        clock, ask = time.perf_counter_ns, self.ask
        times = []
        for _ in range(count):
            begun = clock()
            ask(line)
            times.append(clock() - begun)
        return statistics.median(times) / 1_000


def request(method: str, **params: Any) -> bytes:
    """Return a call as a line."""
    return msgspec.json.encode({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}) + b"\n"
