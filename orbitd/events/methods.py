"""The methods `events.*`."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from typing import Protocol

from msgspec.structs import replace

from orbit_protocol import params as p
from orbit_protocol.errors import (
    Busy,
    Cancelled,
    InvalidParams,
    RequestTimeout,
    SessionNotFound,
    StorageCorrupt,
)
from orbit_protocol.event_kinds import LIVE_KINDS, expand_kinds
from orbit_protocol.results import Empty, EventPage, EventWaited, Subscribed
from orbit_protocol.types import MAX_PAGE_SIZE, Event
from orbit_protocol.visible import seconds
from orbitd.events.broker import Broker
from orbitd.events.subscriptions import ClientSubscription, Waiter, Wanted
from orbitd.manager import SessionManager
from orbitd.rpc.connection import Call

MAX_SUBSCRIPTIONS = 64
"""Of one connection."""


class _Filter(Protocol):
    """The params that every method of events has."""

    @property
    def since(self) -> str | None: ...
    @property
    def kinds(self) -> list[str] | None: ...
    @property
    def session_id(self) -> str | None: ...
    @property
    def workspace_id(self) -> str | None: ...


class _OfConnection:
    """A subscription as its connection knows it.

    Args:
        broker: Publishes to it.
        subscription: It.
    """

    def __init__(self, broker: Broker, subscription: ClientSubscription) -> None:
        self._broker, self._subscription = broker, subscription

    def handle_drained(self) -> None:
        """Go on: the client has read everything."""
        self._broker.start(self._subscription)

    def end(self) -> None:
        """End it."""
        self._broker.remove(self._subscription)


class EventMethods:
    """Every method of `events.*`.

    Args:
        manager: The store.
        broker: Publishes its events.
    """

    def __init__(self, manager: SessionManager, broker: Broker) -> None:
        self._manager = manager
        self._broker = broker
        self._ids = itertools.count(1)

    async def subscribe(self, call: Call, q: p.EventsSubscribe) -> Subscribed:
        """Send the caller events, from its cursor or from now on; the first comes after the answer."""
        handles = expand_kinds(q.handles, "handles") if q.handles is not None else frozenset()
        wanted = await self._wanted(q)
        connection = call.connection
        if not connection.is_open:  # nobody would end it
            raise Cancelled("The client has gone")
        if len(connection.subscriptions) >= MAX_SUBSCRIPTIONS:
            raise Busy(
                f"This connection has {MAX_SUBSCRIPTIONS} subscriptions already",
                hint="End one of them with events.unsubscribe; one subscription may have many kinds.",
            )
        position = self._position(q)
        subscription_id = str(next(self._ids))
        subscription = ClientSubscription(
            subscription_id,
            connection,
            self._manager,
            wanted,
            position,
            live=q.live,
            handles=handles,
            # By itself too, where its events are not kept any more: it takes none of the connection's places then.
            on_end=lambda: connection.subscriptions.pop(subscription_id, None),
        )
        held = connection.subscriptions[subscription_id] = _OfConnection(self._broker, subscription)
        self._broker.add(subscription)
        call.after_answer(held.handle_drained, held.end)
        return Subscribed(subscription_id=subscription.id, cursor=self._manager.cursor(position))

    def unsubscribe(self, call: Call, q: p.EventsUnsubscribe) -> Empty:
        """End a subscription of the caller."""
        held = call.connection.subscriptions.get(q.subscription_id)
        if held is None:
            raise InvalidParams(
                f"`subscription_id`: this connection has no subscription {q.subscription_id!r}",
                hint="events.subscribe answers with the id; a subscription ends with its connection.",
            )
        held.end()
        return Empty()

    async def list_events(self, _: Call, q: p.EventsList) -> EventPage:
        """List stored events after a cursor, or from the oldest on."""
        wanted = await self._wanted(q)
        # Before the table is read: what is committed meanwhile is left for the next page.
        newest = self._manager.newest_seq
        after = None if q.since is None else self._manager.parse_cursor(q.since)
        limit = MAX_PAGE_SIZE if q.limit is None else q.limit
        events = await self._page(wanted, after, newest, limit) if limit else []
        cursor = events[-1].cursor if events else None
        return EventPage(events=events, cursor=cursor or self._manager.cursor(newest))

    async def wait(self, _: Call, q: p.EventsWait) -> EventWaited:
        """Wait for one event.

        Raises:
            RequestTimeout: None has come.
            ShuttingDown: The daemon stops.
        """
        wanted = await self._wanted(q)
        # What is never stored, only by name: an app that waits for any event is not woken by a title.
        named = LIVE_KINDS.keys() & set(q.kinds or ())
        wanted = replace(wanted, kinds=(wanted.kinds - LIVE_KINDS.keys()) | named)
        position = self._position(q)
        if q.since is not None:  # not in the time that the caller has: 0 asks whether there is one already
            newest = self._manager.newest_seq
            if found := await self._page(wanted, position, newest, 1):
                return self._waited(found[0], newest)
            position = newest
        waiter = Waiter(self._manager, wanted, position, live=bool(named))
        self._broker.add(waiter)
        try:
            await waiter.read()
            async with asyncio.timeout(q.timeout_secs):
                return self._waited(await waiter.found, waiter.position)
        except TimeoutError as error:
            raise RequestTimeout(f"No such event has come within {seconds(q.timeout_secs or 0)}") from error
        finally:
            self._broker.remove(waiter)

    def _waited(self, event: Event, position: int) -> EventWaited:
        # What is never stored has no cursor: its waiter's is before all that was committed since.
        return EventWaited(event=event, cursor=event.cursor or self._manager.cursor(position))

    def _position(self, q: _Filter) -> int:
        return self._manager.newest_seq if q.since is None else self._manager.parse_cursor(q.since)

    async def _page(self, wanted: Wanted, after: int | None, until: int, limit: int) -> list[Event]:
        if (kinds := wanted.stored_kinds) == []:
            return []
        return await self._manager.list_events(
            after=after,
            until=until,
            kinds=kinds,
            session_id=wanted.session_id,
            workspace_id=wanted.workspace_id,
            limit=limit,
        )

    async def _wanted(self, q: _Filter) -> Wanted:
        """Return the filter of params. Raises: InvalidParams, SessionNotFound, WorkspaceNotFound."""
        kinds = expand_kinds(q.kinds)
        if q.session_id is not None and self._manager.cached_session(q.session_id) is None:
            await self._require_session(q.session_id)
        if q.workspace_id is not None:
            await self._manager.get_workspace(q.workspace_id)
        return Wanted(kinds=kinds, session_id=q.session_id, workspace_id=q.workspace_id)

    async def _require_session(self, session_id: str) -> None:
        """Raise SessionNotFound unless there is such a session, in the archive and in the trash too.

        Those have events, and may come back.
        """
        with contextlib.suppress(StorageCorrupt):  # it is there, whatever it is
            try:
                await self._manager.get_session(session_id)
            except SessionNotFound:
                if session_id not in await self._manager.list_deleted_ids():
                    raise
