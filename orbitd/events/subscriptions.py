r"""Subscriptions: each is FOLLOWING, and sent events as they are committed, or READING them from the table.

                  its position is the newest event
        READING  ---------------------------------->  FOLLOWING
                 <----------------------------------
                    its client does not read (1 MiB)

The position is the seq up to which it has been sent all that it wants. A subscription begins READING, and goes on
page by page while its client reads. **It becomes FOLLOWING in the step of the loop in which its position is the
newest published seq, and events are published in one step**: nothing can be committed in between that it would miss,
or be sent twice. A client that does not read is not sent anything: its subscription stays where it is, and reads on
from there when everything was handed to the kernel. So all that is held of a slow client is its position.
"""

from __future__ import annotations

import abc
import asyncio
import enum
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

import msgspec
from msgspec import Struct

from orbit_protocol.errors import InternalError, OrbitError, ShuttingDown
from orbit_protocol.event_kinds import ON_REQUEST, STORED_KINDS
from orbit_protocol.json_text import one_line
from orbit_protocol.jsonrpc import encode_message
from orbit_protocol.notifications import EVENT, EVENTS_CURSOR, EVENTS_ENDED, CursorNotice, SubscriptionEndedNotice
from orbit_protocol.results import ErrorObject
from orbit_protocol.types import Event
from orbitd.logs import event as log_event

log = logging.getLogger("orbitd.events")

PAGE_EVENTS = 500
"""Events that are read from the table at a time: what is encoded in one step of the loop (about 1 ms)."""
WRITE_BYTES = 256 * 1024
"""Events are joined up to about this, then written: one write for many small ones."""
CURSOR_EVERY = 1_000
"""After so many events that a subscription does not want, its client is sent a newer cursor: old ones expire."""


class State(enum.Enum):
    """How a subscription gets its events."""

    READING = enum.auto()
    FOLLOWING = enum.auto()
    ENDED = enum.auto()


MOVES = {
    State.READING: {State.FOLLOWING, State.ENDED},
    State.FOLLOWING: {State.READING, State.ENDED},
    State.ENDED: set[State](),
}


_USUAL_KINDS = STORED_KINDS.keys() - ON_REQUEST


class Wanted(Struct, frozen=True, kw_only=True):
    """Which events a subscription wants."""

    kinds: frozenset[str]
    session_id: str | None = None
    workspace_id: str | None = None

    def fits(self, event: Event) -> bool:
        """Return whether it wants an event."""
        return (
            event.kind in self.kinds
            and self.session_id in (None, event.session_id)
            and self.workspace_id in (None, event.workspace_id)
        )

    @property
    def stored_kinds(self) -> list[str] | None:
        """Those of the kinds that are stored; None for the usual ones, which are found faster so."""
        if self.kinds.issuperset(_USUAL_KINDS) and ON_REQUEST.isdisjoint(self.kinds):
            return None
        return [kind for kind in STORED_KINDS if kind in self.kinds]


class Source(Protocol):
    """What is needed of the store."""

    @property
    def newest_seq(self) -> int:
        """The seq of the newest event that has been published."""

    def cursor(self, seq: int) -> str:
        """Return the cursor of a client that has heard everything up to an event."""

    def parse_cursor(self, cursor: str) -> int:
        """Return the seq of a cursor. Raises: InvalidParams, CursorExpired."""

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
        """Return the seq and JSON of stored events, oldest first; none only where no more follow.

        Raises: CursorExpired.
        """


class Published(Protocol):
    """An event on its way to those who want it."""

    @property
    def seq(self) -> int | None:
        """Its number; None of what is live only."""

    @property
    def json(self) -> bytes:
        """The event as it is sent, on one line."""

    @property
    def event(self) -> Event:
        """The event."""


class New:
    """An event that has just happened: it is encoded once, and only if somebody wants it."""

    __slots__ = ("_json", "event")

    def __init__(self, event: Event) -> None:
        self.event = event
        self._json: bytes | None = None

    @property
    def seq(self) -> int | None:
        """Its number; None of what is live only."""
        return self.event.seq

    @property
    def json(self) -> bytes:
        """The event as it is sent; `data` in it is as it was stored."""
        if self._json is None:
            self._json = _on_one_line(_encode(self.event))
        return self._json


class Stored(NamedTuple):
    """An event from the table, whose JSON is what was read."""

    seq: int
    json: bytes

    @property
    def event(self) -> Event:
        """The event."""
        return _events.decode(self.json)


def _on_one_line(json: bytes) -> bytes:
    return one_line(json) if b"\n" in json else json  # no message may have one, whatever raw JSON is in it


_events = msgspec.json.Decoder(Event)
_encode = msgspec.json.Encoder().encode


class Subscription(abc.ABC):
    """One subscription; subclasses say where its events go.

    Args:
        source: The store.
        wanted: Which events it wants.
        position: The seq after which it begins.
        live: Whether it is sent what is never stored, too.
        handles: The kinds that its client shows to the user by itself.

    Attributes:
        state: How it gets its events.
    """

    page_events = PAGE_EVENTS

    def __init__(
        self, source: Source, wanted: Wanted, position: int, *, live: bool, handles: frozenset[str] = frozenset()
    ) -> None:
        self._source = source
        self.wanted = wanted
        self.live = live
        self.handles = handles
        self.position = position
        self.state = State.READING
        self._stored_kinds = wanted.stored_kinds
        self._told = position  # the seq of the newest cursor that its client has been sent
        self._is_reading = False

    @property
    @abc.abstractmethod
    def is_congested(self) -> bool:
        """Whether nothing more may be sent for now."""

    @abc.abstractmethod
    def _deliver(self, events: Sequence[Published]) -> None:
        """Send events."""

    def _deliver_cursor(self, seq: int) -> None:  # noqa: B027  # not every subscription has somebody to tell
        """Say that nothing up to a seq was wanted."""

    @abc.abstractmethod
    def _fail(self, error: OrbitError) -> None:
        """Say why the subscription has ended."""

    def close(self) -> None:
        """End it, since the daemon stops."""
        self.end()

    def end(self) -> None:
        """End it; again does nothing."""
        if self.state is not State.ENDED:
            self._move(State.ENDED)

    def _move(self, state: State) -> None:
        assert state in MOVES[self.state], (self.state, state)
        self.state = state

    # What was committed, or is live

    def publish(self, events: Sequence[New], newest: int) -> None:
        """Take the events of a commit, the last of which is `newest`; one that is READING finds them in the table."""
        if self.state is State.FOLLOWING:
            self._send([each for each in events if self.wanted.fits(each.event)], newest)

    def publish_live(self, event: New) -> None:
        """Take an event that is never stored; it is dropped where it cannot be sent now."""
        if self.live and self.state is State.FOLLOWING and not self.is_congested and self.wanted.fits(event.event):
            self._deliver([event])

    def _send(self, events: Sequence[Published], end: int) -> None:
        """Send the wanted events up to `end`, as far as the client reads."""
        for group in _groups(events):
            if self.is_congested:
                break
            self._deliver(group)
            if self.state is State.ENDED:
                return
            self.position = self._told = group[-1].seq or 0
        else:
            self.position = end
            if end - self._told >= CURSOR_EVERY and not self.is_congested:
                self._told = end
                self._deliver_cursor(end)
        if self.is_congested and self.state is State.FOLLOWING:
            self._move(State.READING)

    # What is in the table

    async def read(self) -> None:
        """Read pages and send them, until it follows or its client does not read."""
        if self._is_reading:
            return
        self._is_reading = True
        try:
            while self.state is State.READING and not self.is_congested:
                newest = self._source.newest_seq
                if self.position == newest or self._stored_kinds == []:
                    self.position = newest
                    self._move(State.FOLLOWING)
                    return
                page = await self._read_page(newest)
                if self.state is not State.READING:
                    return
                # Every event that was committed meanwhile is behind `newest`, and read by the next page. A page that
                # is not empty may be cut by its size, so only an empty one shows that there is nothing up to there.
                self._send(page, page[-1].seq if page else newest)
        except OrbitError as error:
            self.end_with(error)
        except Exception as exc:  # noqa: BLE001  # the client has to know that it is sent nothing more
            log_event(log, logging.ERROR, "events not read", error=type(exc).__name__, exc=exc)
            self.end_with(InternalError("The events cannot be read"))
        finally:
            self._is_reading = False

    async def _read_page(self, until: int) -> list[Stored]:
        found = await self._source.list_events_json(
            after=self.position,
            until=until,
            kinds=self._stored_kinds,
            session_id=self.wanted.session_id,
            workspace_id=self.wanted.workspace_id,
            limit=self.page_events,
        )
        return [Stored(seq, _on_one_line(json)) for seq, json in found]

    def end_with(self, error: OrbitError) -> None:
        """End it, and say why."""
        if self.state is not State.ENDED:
            self.end()
            self._fail(error)


def _groups(events: Sequence[Published]) -> Iterator[Sequence[Published]]:
    """Split events into groups that are about `WRITE_BYTES` long."""
    start = size = 0
    for at, each in enumerate(events):
        size += len(each.json)
        if size >= WRITE_BYTES:
            yield events[start : at + 1]
            start, size = at + 1, 0
    if start < len(events):
        yield events[start:]


class Client(Protocol):
    """What is needed of a connection."""

    @property
    def is_congested(self) -> bool:
        """Whether more than `MAX_UNSENT_BYTES` wait for the client to read."""

    def send_all(self, messages: Sequence[bytes]) -> None:
        """Write encoded messages, in one piece."""


class ClientSubscription(Subscription):
    """A subscription of a client, which is sent notifications.

    Args:
        subscription_id: What the client knows it by.
        client: Its connection.
        on_end: Called once when it has ended, for whatever reason.
    """

    def __init__(
        self,
        subscription_id: str,
        client: Client,
        source: Source,
        wanted: Wanted,
        position: int,
        *,
        live: bool,
        handles: frozenset[str] = frozenset(),
        on_end: Callable[[], object] = lambda: None,
    ) -> None:
        super().__init__(source, wanted, position, live=live, handles=handles)
        self.id = subscription_id
        self._client = client
        self._on_end = on_end
        notice = _encode({"jsonrpc": "2.0", "method": EVENT.name, "params": {"subscription_id": subscription_id}})
        self._head = notice.removesuffix(b"}}") + b","  # the event's JSON follows, without its brace

    def end(self) -> None:
        """End it; again does nothing."""
        if self.state is not State.ENDED:
            super().end()
            self._on_end()

    @property
    def is_congested(self) -> bool:
        """Whether its client does not read."""
        return self._client.is_congested

    def _deliver(self, events: Sequence[Published]) -> None:
        self._client.send_all([self._head + each.json[1:] + b"}" for each in events])

    def _deliver_cursor(self, seq: int) -> None:
        notice = CursorNotice(subscription_id=self.id, cursor=self._source.cursor(seq))
        self._client.send_all([encode_message({"jsonrpc": "2.0", "method": EVENTS_CURSOR.name, "params": notice})])

    def _fail(self, error: OrbitError) -> None:
        why = ErrorObject(code=error.code, message=error.message, data=error.data())
        notice = SubscriptionEndedNotice(subscription_id=self.id, error=why)
        self._client.send_all([encode_message({"jsonrpc": "2.0", "method": EVENTS_ENDED.name, "params": notice})])


class Waiter(Subscription):
    """A subscription that ends with its first event: a call of `events.wait`.

    Attributes:
        found: The event, once there is one.
    """

    page_events = 1
    is_congested = False

    def __init__(self, source: Source, wanted: Wanted, position: int, *, live: bool) -> None:
        super().__init__(source, wanted, position, live=live)
        self.found: asyncio.Future[Event] = asyncio.get_running_loop().create_future()

    def _deliver(self, events: Sequence[Published]) -> None:
        self.end()
        if not self.found.done():
            self.found.set_result(events[0].event)

    def _fail(self, error: OrbitError) -> None:
        if not self.found.done():
            self.found.set_exception(error)

    def close(self) -> None:
        """End the call: the daemon stops."""
        self.end_with(ShuttingDown("The daemon is shutting down", hint="Ask the next daemon, from the same cursor."))
