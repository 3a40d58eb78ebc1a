"""A subscription of the daemon's own: it hands each event to a function, on the event loop."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence

import msgspec
from msgspec import Struct

from orbit_protocol.errors import OrbitError
from orbit_protocol.event_kinds import LIVE_KINDS
from orbit_protocol.types import Event, Session
from orbitd.events.subscriptions import Published, Source, Subscription, Wanted
from orbitd.logs import event as log_event

log = logging.getLogger("orbitd.events")


class Listener(Subscription):
    """Hands on the events of some kinds that come after a position; live ones where any of the kinds is.

    Args:
        source: The store.
        kinds: The kinds.
        position: The seq after which they begin.
        handle: Called with each; what it raises is logged, and the next ones come all the same.
    """

    is_congested = False

    def __init__(self, source: Source, kinds: frozenset[str], position: int, handle: Callable[[Event], None]) -> None:
        super().__init__(source, Wanted(kinds=kinds), position, live=not kinds.isdisjoint(LIVE_KINDS))
        self._handle = handle

    def _deliver(self, events: Sequence[Published]) -> None:
        for each in events:
            try:
                self._handle(each.event)
            except Exception as error:  # noqa: BLE001  # one of many
                log_event(log, logging.ERROR, "event not handled", kind=each.event.kind, exc=error)

    def _fail(self, error: OrbitError) -> None:
        log_event(log, logging.ERROR, "events not read", error=error.message)

    def close(self) -> None:
        """End it: the daemon stops."""
        self.end()


MAX_PRIVATE = 10_000
"""Private sessions that are remembered."""


class _Config(Struct, frozen=True):
    record: str = "full"


class _OfSession(Struct, frozen=True):
    """Of an event's data, what there is where they are a session."""

    config: _Config = _Config()


_of_session = msgspec.json.Decoder(_OfSession)


def unless_private(
    handle: Callable[[Event], None], session_of: Callable[[str], Session | None]
) -> Callable[[Event], None]:
    """Return a function that hands on every event but those of private sessions: of these nobody else is told.

    A private one that was seen is remembered: its last events may come once it has ended, and not all have the session.

    Args:
        handle: Called with the others.
        session_of: Returns a session that has not ended.
    """
    private: dict[str, None] = {}  # in the order in which they were first seen

    def handle_others(event: Event) -> None:
        if event.session_id in private:
            return
        if event.session_id is not None:
            record = "full"
            if (session := session_of(event.session_id)) is not None:
                record = session.config.record
            else:
                with contextlib.suppress(msgspec.DecodeError):
                    record = _of_session.decode(event.data).config.record
            if record == "none":
                private[event.session_id] = None
                if len(private) > MAX_PRIVATE:
                    del private[next(iter(private))]
                return
        handle(event)

    return handle_others
