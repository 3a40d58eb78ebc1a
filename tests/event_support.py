"""A table of events and a client that are scripted: what was committed, when a page is read, when a client reads."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from orbit_protocol.errors import CursorExpired
from orbit_protocol.types import Event
from orbitd.events.broker import Broker
from orbitd.events.subscriptions import ClientSubscription, Subscription, Wanted

MOMENT = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Table:
    """The stored events, and the broker that hears of each commit.

    Attributes:
        oldest: The seq before which nothing is kept.
        gate: Where it is not set, pages are held back.
        error: What a page is refused with.
        most: The most events of a page, whatever is asked for.
        pages: How many pages were read.
    """

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.oldest = self.pages = 0
        self.broker = Broker({"s1": "w1", "s2": None}.get)
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: Exception | None = None
        self.most = 1_000

    @property
    def newest_seq(self) -> int:
        return len(self.events)

    def commit(self, *kinds: str, session_id: str | None = "s1", data: bytes = b"{}") -> None:
        """Commit events, and publish them."""
        first = len(self.events) + 1
        workspace_id = {"s1": "w1"}.get(session_id or "")
        events = [
            Event(
                seq=seq,
                at=MOMENT,
                kind=kind,
                session_id=session_id,
                workspace_id=workspace_id,
                data=msgspec.Raw(data),
                cursor=self.cursor(seq),
            )
            for seq, kind in enumerate(kinds, first)
        ]
        self.events += events
        self.broker.publish(events)

    def cursor(self, seq: int) -> str:
        return f"e-{seq}"

    def parse_cursor(self, cursor: str) -> int:
        if (seq := int(cursor.removeprefix("e-"))) < self.oldest:
            raise CursorExpired("too old", data={"oldest": self.cursor(self.oldest)})
        return seq

    async def list_events_json(
        self,
        *,
        after: int | None,
        until: int | None = None,
        kinds: Sequence[str] | None = None,
        session_id: str | None = None,
        workspace_id: str | None = None,
        limit: int | None = None,
    ) -> list[tuple[int, bytes]]:
        await self.gate.wait()
        self.pages += 1
        if self.error is not None:
            raise self.error
        if after is not None:
            self.parse_cursor(self.cursor(after))
        wanted = Wanted(
            kinds=frozenset({each.kind for each in self.events} if kinds is None else kinds),
            session_id=session_id,
            workspace_id=workspace_id,
        )
        found = [each for each in self.events[max(after or 0, self.oldest) : until] if wanted.fits(each)]
        page = found[: min(limit or self.most, self.most)]
        return [(each.seq or 0, msgspec.json.encode(each)) for each in page]


class Client:
    """A client that reads when the test says so.

    Attributes:
        room: After so many messages it is congested; None for never.
        writes: How many messages each write had.
    """

    def __init__(self, room: int | None = None) -> None:
        self.room = room
        self.on_message: Callable[[], None] = lambda: None
        self.writes: list[int] = []
        self.messages: list[Any] = []

    @property
    def is_congested(self) -> bool:
        return self.room is not None and self.room <= 0

    def send_all(self, messages: Sequence[bytes]) -> None:
        self.writes.append(len(messages))
        self.messages += [json.loads(each) for each in messages]
        if self.room is not None:
            self.room -= len(messages)
        self.on_message()

    @property
    def seqs(self) -> list[int | None]:
        """The events that it was sent."""
        return [each["params"]["seq"] for each in self.messages if each["method"] == "event"]

    @property
    def kinds(self) -> list[str]:
        return [each["params"]["kind"] for each in self.messages if each["method"] == "event"]


def subscribed(
    table: Table,
    client: Client,
    since: int | None = None,
    kinds: frozenset[str] = frozenset({"session.created", "session.updated", "session.title", "session.output_seen"}),
    **more: Any,
) -> ClientSubscription:
    """Return a subscription that has begun."""
    options = {name: more.pop(name) for name in ("live", "handles") if name in more}
    position = table.newest_seq if since is None else since
    wanted = Wanted(kinds=kinds, **more)
    found = ClientSubscription("7", client, table, wanted, position, **{"live": True, **options})
    table.broker.add(found)
    table.broker.start(found)
    return found


async def settle(*subscriptions: Subscription) -> None:
    """Let everything be read that can be read now."""
    for _ in range(50):
        await asyncio.sleep(0)


def drain(table: Table, client: Client, subscription: Subscription, room: int | None = None) -> None:
    """Have a client read everything, as `Connection.resume_writing` says it."""
    client.room = room
    table.broker.start(subscription)
