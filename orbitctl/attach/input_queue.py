"""What was typed, on its way to the program: keys at once, pastes at the program's pace.

A few bytes go as a notification, which costs no answer. More than that goes in pieces, each of
which is answered before the next is sent; a program that does not read makes the daemon answer
`busy`, and the piece is sent again. So nothing that was typed is lost, and a paste cannot
fill the daemon.
"""

from __future__ import annotations

from orbit_protocol.errors import Busy, ErrorObject
from orbit_protocol.methods import SESSION_INPUT
from orbit_protocol.params import SessionInput
from orbitctl.attach.connection import DaemonConnection

AT_ONCE_BYTES = 4 * 1024
PIECE_BYTES = 16 * 1024
MAX_WAITING_BYTES = 1024 * 1024
RETRY_SECONDS = 0.05


class InputQueue:
    """The input of one attachment."""

    def __init__(self) -> None:
        self._connection: DaemonConnection | None = None
        self._attachment_id = ""
        self._waiting = bytearray()
        self._piece = b""
        self._request_id: int | None = None
        self.retry_at: float | None = None

    @property
    def waiting(self) -> int:
        """How many bytes have not been sent."""
        return len(self._waiting)

    @property
    def is_full(self) -> bool:
        """Whether no more should be read from the user now."""
        return len(self._waiting) >= MAX_WAITING_BYTES

    def begin(self, connection: DaemonConnection, attachment_id: str) -> None:
        """Send to an attachment from now on, first what waits. Raises: ConnectionLost."""
        self._connection, self._attachment_id = connection, attachment_id
        self._send()

    def stop(self) -> None:
        """Keep what is typed until `begin`; a piece that was not answered may have been typed."""
        self._connection, self._request_id, self._piece, self.retry_at = None, None, b"", None

    def type(self, data: bytes) -> None:
        """Take what was typed. Raises: ConnectionLost."""
        self._waiting += data
        self._send()

    def answered(self, request_id: int, error: ErrorObject | None, now: float) -> None:
        """Take the answer to a piece. Raises: ConnectionLost."""
        if request_id != self._request_id:
            return
        self._request_id = None
        if error is not None and error.code == Busy.code:
            self._waiting[:0] = self._piece
            self.retry_at = now + RETRY_SECONDS
        else:
            self._send()

    def retry(self) -> None:
        """Send again what the program did not take. Raises: ConnectionLost."""
        self.retry_at = None
        self._send()

    def _send(self) -> None:
        if self._connection is None or self._request_id is not None or self.retry_at is not None or not self._waiting:
            return
        self._piece = bytes(self._waiting[:PIECE_BYTES])
        params = SessionInput(attachment_id=self._attachment_id, data=self._piece)
        if len(self._waiting) <= AT_ONCE_BYTES:
            self._waiting.clear()
            self._connection.notify(SESSION_INPUT, params)
        else:
            del self._waiting[:PIECE_BYTES]
            self._request_id = self._connection.request(SESSION_INPUT, params)
