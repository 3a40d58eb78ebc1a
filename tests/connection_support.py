"""A connection without a socket: a scripted transport, a host that answers by a dispatcher, and a client's words."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from typing import Any

from orbitd.rpc.connection import Call, Connection
from orbitd.rpc.dispatch import Dispatcher


class Transport:
    """Records what is written and whether reading is paused; a test says what of it is not sent."""

    def __init__(self) -> None:
        self.unsent = 0
        self.written: list[bytes] = []
        self.is_reading = True
        self.is_closed = False

    def set_write_buffer_limits(self, high: int, low: int) -> None:
        self.limits = (high, low)

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True


class Served:
    """A connection that a dispatcher serves, and its client.

    Args:
        dispatcher: Answers lines.
    """

    max_message_bytes = 1 << 20
    stopping = False

    def __init__(self, dispatcher: Dispatcher[Call]) -> None:
        self.dispatch, self.is_urgent = dispatcher.dispatch, dispatcher.is_urgent
        self.wait_id = dispatcher.wait_id
        self.tasks: set[asyncio.Task[None]] = set()
        self.is_gone = False
        self.transport = Transport()
        self.connection = Connection(self)
        self.connection.connection_made(self.transport)  # type: ignore[arg-type]  # as much of one as is used

    def start_task(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def connection_closed(self, connection: Connection) -> None:
        self.is_gone = True

    def send(self, *requests: Any) -> None:
        """Send requests, or batches of them, in one piece."""
        self.connection.data_received(b"".join(json.dumps(each).encode() + b"\n" for each in requests))

    @property
    def answers(self) -> list[Any]:
        """Everything that was answered, in order."""
        return [json.loads(each) for each in self.transport.written]

    @property
    def results(self) -> dict[Any, Any]:
        """The result, or the code of the error, by id; those of batches too."""
        flat = [one for each in self.answers for one in (each if isinstance(each, list) else [each])]
        return {one["id"]: one["result"] if "result" in one else one["error"]["code"] for one in flat}


def request(method: str, request_id: Any = None, **params: Any) -> dict[str, Any]:
    """Return a request; a notification without an id."""
    found: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": params}
    return found if request_id is None else {**found, "id": request_id}


async def turns(count: int = 8) -> None:
    """Let everything run that is ready, and what that makes ready."""
    for _ in range(count):
        await asyncio.sleep(0)
