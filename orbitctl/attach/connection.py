"""A connection to the daemon that never blocks: messages in, messages out, in batches.

What the socket does not take yet waits here; the loop asks `is_sending`. Output comes in
large batches, so one decoder reads every kind of message in one pass.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from orbit_protocol.errors import ErrorObject
from orbit_protocol.framing import Line, LineFramer
from orbit_protocol.jsonrpc import encode_request
from orbit_protocol.methods import Method
from orbitctl.client.transport import Stream
from orbitctl.errors import CommandError

MAX_MESSAGE_BYTES = 1 << 30
READS_AT_ONCE = 4
"""How many reads may follow each other before the loop looks elsewhere."""


class Notice(Struct, frozen=True, kw_only=True):
    """The params of every notification: each has some of these."""

    attachment_id: str = ""
    data: bytes = b""
    exit_code: int | None = None
    exit_signal: int | None = None


class Message(Struct, frozen=True, kw_only=True):
    """A notification, or the answer to a request."""

    id: int | None = None
    method: str = ""
    params: Notice = Notice()
    result: Raw | UnsetType = UNSET
    error: ErrorObject | None = None


_decode = msgspec.json.Decoder(Message).decode


class ConnectionLost(Exception):
    """The daemon has closed the connection, or speaks what nobody understands."""


class DaemonConnection:
    """One connection.

    Args:
        stream: Connected; the connection closes it.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._framer = LineFramer(MAX_MESSAGE_BYTES)
        self._unsent = bytearray()
        self._last_id = 0

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._stream.fileno()

    @property
    def is_sending(self) -> bool:
        """Whether something waits for the socket to take it."""
        return bool(self._unsent)

    def notify(self, method: Method[Any, Any], params: Struct) -> None:
        """Call a method without wanting an answer. Raises: ConnectionLost."""
        self._send(encode_request(method.name, params))

    def request(self, method: Method[Any, Any], params: Struct) -> int:
        """Call a method; return the id that its answer will have. Raises: ConnectionLost."""
        self._last_id += 1
        self._send(encode_request(method.name, params, self._last_id))
        return self._last_id

    def flush(self) -> None:
        """Send as much as the socket takes. Raises: ConnectionLost."""
        try:
            while self._unsent:
                with memoryview(self._unsent) as waiting:
                    sent = self._stream.send(waiting, 0)
                del self._unsent[:sent]
        except BlockingIOError:
            return
        except OSError as error:
            raise ConnectionLost(error.strerror) from error

    def receive(self) -> list[Message]:
        """Return the messages that have come. Raises: ConnectionLost."""
        messages: list[Message] = []
        try:
            for _ in range(READS_AT_ONCE):
                data = self._stream.receive(0)
                if not data:
                    break
                messages += [_decode(event.data) for event in self._framer.receive(data) if isinstance(event, Line)]
        except BlockingIOError:
            return messages
        except (OSError, CommandError, msgspec.DecodeError) as error:
            raise ConnectionLost(str(error)) from error
        if not data and not messages:
            raise ConnectionLost("the daemon has closed the connection")
        return messages

    def close(self) -> None:
        """Close the connection, which ends the attachment."""
        self._stream.close()

    def _send(self, message: bytes) -> None:
        self._unsent += message
        self.flush()
