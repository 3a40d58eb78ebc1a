"""What the daemon says of itself: that it starts and stops, and the problems that last."""

from __future__ import annotations

import asyncio
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable

import msgspec
from msgspec import Struct

from orbit_protocol import VERSION
from orbit_protocol.errors import CursorExpired
from orbitd.events.broker import Broker
from orbitd.events.subscriptions import Waiter, Wanted
from orbitd.logs import event
from orbitd.manager import SessionManager
from orbitd.store.events import NewEvent

log = logging.getLogger("orbitd.events")

STOPPING_SECS = 2.0
"""How long a stop waits until it is recorded."""


class Version(Struct, frozen=True, kw_only=True):
    """The data of `daemon.started` and `daemon.stopping`."""

    version: str = VERSION


class Warned(Struct, frozen=True, kw_only=True):
    """The data of `daemon.warning` and `daemon.cleared`: the sentence, as in `daemon.info`."""

    warning: str


_COUNT = re.compile(r"(?<!\S)[0-9]+(?!\S)")
_encode = msgspec.json.Encoder().encode
_warned = msgspec.json.Decoder(Warned)


class DaemonEvents:
    """Records the events of the daemon itself.

    Args:
        manager: The store.
        broker: Publishes what is recorded.
        warnings: Returns the sentences about problems that there are now.
    """

    def __init__(self, manager: SessionManager, broker: Broker, warnings: Callable[[], Iterable[str]]) -> None:
        self._manager = manager
        self._broker = broker
        self._warnings = warnings
        self._position: int | None = None  # up to this event, `_recorded` is what the table says
        self._recorded: dict[str, None] = {}  # the problems that were recorded, and are not over

    async def record_start(self) -> None:
        """Record that the daemon serves."""
        await self._record(_new("daemon.started", Version()))

    async def record_stop(self) -> None:
        """Record that the daemon begins to stop, and wait until subscribers have been sent it."""
        if self._manager.read_only is not None:
            return
        wanted = Wanted(kinds=frozenset({"daemon.stopping"}))
        waiter = Waiter(self._manager, wanted, self._manager.newest_seq, live=False)
        self._broker.add(waiter)
        try:
            await waiter.read()
            async with asyncio.timeout(STOPPING_SECS):
                await self._record(_new("daemon.stopping", Version()))
                await waiter.found
        except TimeoutError:  # the disk is full, or hangs
            event(log, logging.WARNING, "stop not recorded")
        finally:
            self._broker.remove(waiter)

    async def record_warnings(self) -> None:
        """Record which problems are new, and which are over, since an event said so; of an earlier daemon's, too.

        Raises:
            OrbitError: The events cannot be read.
        """
        await self._read_recorded()
        before, now = _by_problem(self._recorded), _by_problem(self._warnings())
        over = [_new("daemon.cleared", Warned(warning=before[each])) for each in before if each not in now]
        new = [_new("daemon.warning", Warned(warning=now[each])) for each in now if each not in before]
        await self._record(*over, *new)

    async def _read_recorded(self) -> None:
        """Bring `_recorded` up to date from the table: what could not be written is tried again so."""
        until = self._manager.newest_seq
        while self._position is None or self._position < until:
            try:
                page = await self._manager.list_events(
                    after=self._position, until=until, kinds=["daemon.warning", "daemon.cleared"]
                )
            except CursorExpired:  # so many events since the last time
                self._position = None
                continue
            for each in page:
                warning = _warned.decode(each.data).warning
                if each.kind == "daemon.warning":
                    self._recorded[warning] = None
                else:
                    self._recorded.pop(warning, None)
            self._position = page[-1].seq if page else until

    async def _record(self, *events: NewEvent) -> None:
        if events and self._manager.read_only is None:
            await self._manager.record_events(events)


def _new(kind: str, data: Struct) -> NewEvent:
    return NewEvent(kind=kind, session_id=None, workspace_id=None, data=_encode(data))


def _by_problem(warnings: Iterable[str]) -> dict[tuple[str, int], str]:
    """Return sentences by what they are about: one whose count changes ("2 sessions", "3 sessions") goes on."""
    found: dict[tuple[str, int], str] = {}
    seen: Counter[str] = Counter()
    for each in warnings:
        problem = _COUNT.sub("N", each)
        seen[problem] += 1
        found[problem, seen[problem]] = each
    return found
