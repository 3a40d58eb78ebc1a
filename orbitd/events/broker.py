"""The broker: every commit's events go through it to those who follow, and live ones to those who listen."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import msgspec
from msgspec import Struct

from orbit_protocol.errors import InternalError
from orbit_protocol.types import Event
from orbitd.background_tasks import BackgroundTasks
from orbitd.events.subscriptions import New, State, Subscription
from orbitd.logs import event as log_event

log = logging.getLogger("orbitd.events")

OUTPUT_SEEN = "session.output_seen"
OUTPUT_SEEN_SECS = 1.0
"""The least time between two of a session."""

_encode = msgspec.json.Encoder().encode


class Broker:
    """Publishes events to subscriptions; used on the event loop.

    Args:
        workspace_of: Returns the workspace of a session, None where it has none or is not known.
    """

    def __init__(self, workspace_of: Callable[[str], str | None] = lambda _: None) -> None:
        self._workspace_of = workspace_of
        self._subscriptions: dict[Subscription, None] = {}  # in the order in which they were made
        self._live_listeners = 0
        self._is_closed = False
        self._tasks = BackgroundTasks(log, "events not read")
        # By session: when its next `output_seen` is due, and the data of one that has come before that.
        self._seen_timers: dict[str, asyncio.TimerHandle] = {}
        self._seen_later: dict[str, bytes | Struct] = {}

    @property
    def has_live_listeners(self) -> bool:
        """Whether somebody listens to what is never stored: else it need not even be noticed."""
        return self._live_listeners > 0

    def is_handled(self, kind: str) -> bool:
        """Return whether a client that reads what it is sent shows this kind of event to the user by itself."""
        return any(kind in each.handles and not each.is_congested for each in self._subscriptions)

    def add(self, subscription: Subscription) -> None:
        """Publish to a subscription from now on; `start` has it read what it has missed."""
        if self._is_closed:  # by a request that was on its way when the daemon began to stop
            subscription.close()
            return
        self._subscriptions[subscription] = None
        self._live_listeners += subscription.live

    def remove(self, subscription: Subscription) -> None:
        """End a subscription; again does nothing."""
        subscription.end()
        if subscription in self._subscriptions:
            del self._subscriptions[subscription]
            self._live_listeners -= subscription.live

    def start(self, subscription: Subscription) -> None:
        """Have a subscription go on: its client can be sent something, for the first time or again."""
        self._tasks.start(self._read(subscription))

    async def _read(self, subscription: Subscription) -> None:
        await subscription.read()
        if subscription.state is State.ENDED:  # it could not be read on
            self.remove(subscription)

    def publish(self, events: Sequence[Event]) -> None:
        """Publish the events of a commit, in their order."""
        if not events:
            return
        published = [New(each) for each in events]
        newest = events[-1].seq
        assert newest is not None
        for each in list(self._subscriptions):
            self._guarded(each, lambda one: one.publish(published, newest))

    def _guarded(self, subscription: Subscription, publish: Callable[[Subscription], None]) -> None:
        """Publish to one subscription: where that fails it is ended, for it would miss this; others go on."""
        try:
            publish(subscription)
        except Exception as exc:  # noqa: BLE001  # the change is made, and others have to hear of it
            log_event(log, logging.ERROR, "events not published", error=type(exc).__name__, exc=exc)
            with contextlib.suppress(Exception):
                subscription.end_with(InternalError("The events cannot be sent"))
            self.remove(subscription)

    def publish_live(self, kind: str, session_id: str, data: bytes | Struct) -> None:
        """Publish an event of a session that is never stored.

        Args:
            kind: One of `LIVE_KINDS`; of `session.output_seen` at most one a second of a session is sent, the last of
                them at the end of that second.
            session_id: The session.
            data: What is sent with it; bytes are JSON.
        """
        if not self._live_listeners:
            return
        if kind == OUTPUT_SEEN:
            if session_id in self._seen_timers:
                self._seen_later[session_id] = data
                return
            self._seen_timers[session_id] = asyncio.get_running_loop().call_later(
                OUTPUT_SEEN_SECS, self._publish_seen, session_id
            )
        raw = msgspec.Raw(data if isinstance(data, bytes) else _encode(data))
        event = Event(
            seq=None,
            at=datetime.now(UTC),
            kind=kind,
            session_id=session_id,
            workspace_id=self._workspace_of(session_id),
            data=raw,
        )
        published = New(event)
        for each in list(self._subscriptions):
            self._guarded(each, lambda one: one.publish_live(published))

    def _publish_seen(self, session_id: str) -> None:
        del self._seen_timers[session_id]
        data = self._seen_later.pop(session_id, None)
        if data is not None:
            self.publish_live(OUTPUT_SEEN, session_id, data)

    def close(self) -> None:
        """End every subscription, since the daemon stops; one that is added from now on ends at once."""
        self._is_closed = True
        for each in list(self._subscriptions):
            each.close()
            self.remove(each)
        for timer in self._seen_timers.values():
            timer.cancel()
        self._seen_timers.clear()
        self._seen_later.clear()

    async def finish(self) -> None:
        """Wait until nothing is read from the store any more."""
        await self._tasks.cancel()
