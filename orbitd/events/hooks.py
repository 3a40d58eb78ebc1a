"""Hooks: programs of the user's that are run when something happens."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import msgspec
from msgspec import Struct

from orbit_os.shell import command_line
from orbit_protocol.event_kinds import expand_kinds
from orbit_protocol.types import Event
from orbitd.background_tasks import BackgroundTasks
from orbitd.events import child
from orbitd.events.child import Surroundings
from orbitd.logs import event as log_event

log = logging.getLogger("orbitd.hooks")

AT_ONCE = 8
"""How many hooks run at a time."""
WAITING = 256
"""How many wait for their turn; what comes then is dropped."""
LIMIT_SECS = 30.0
"""After this long a hook is killed."""
STOP_SECS = 1.0
"""How long the daemon's stop waits for hooks that run."""
EVENT_BYTES = 64 * 1024
"""Of a longer event a hook gets no data: execve(2) takes no variable of more than 128 KiB."""
DROPPED_SECS = 3_600.0
"""How long `daemon.info` has a warning after an event was dropped."""

_encode = msgspec.json.Encoder().encode
_Run = Callable[[Sequence[str], Surroundings, Mapping[str, str], float, Callable[[int], None]], str]


class _Turn(Struct, frozen=True, kw_only=True):
    hook: str
    event: Event
    name: str | None


class _Named(Struct, frozen=True):
    """Of an event's data, what there is where they are a session."""

    id: str | None = None
    name: str | None = None


_named = msgspec.json.Decoder(_Named)


class Hooks:
    """Runs hooks, on the event loop; the programs are waited for in threads.

    Args:
        configured: Argument vectors by kind or group of events, as in the configuration.
        surroundings: Returns what they are started with; called in a thread, as it may ask passwd.
        session_name: Returns the name of a session, None where it has none or is not known.
        run: Runs a program.
    """

    def __init__(
        self,
        configured: Mapping[str, Sequence[str]],
        surroundings: Callable[[], Surroundings],
        session_name: Callable[[str], str | None],
        run: _Run = child.run,
    ) -> None:
        self._argv = dict(configured)
        self._by_kind: dict[str, list[str]] = {}
        for hook in configured:
            for kind in expand_kinds([hook]):
                self._by_kind.setdefault(kind, []).append(hook)
        self._surroundings = surroundings
        self._session_name = session_name
        self._run_program = run
        self._waiting: deque[_Turn] = deque()
        self._tasks = BackgroundTasks(log, "hook failed", self._start_waiting)
        self._threads = ThreadPoolExecutor(AT_ONCE, "hook")
        self._groups: set[int] = set()
        self._failures: dict[str, str] = {}
        self._dropped = 0
        self._dropped_at = 0.0
        self._is_closed = self._is_killing = False

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds of events that hooks are run for."""
        return frozenset(self._by_kind)

    def handle(self, event: Event) -> None:
        """Run the hooks of an event, or have them wait for their turn."""
        for hook in () if self._is_closed else self._by_kind.get(event.kind, ()):
            if len(self._waiting) >= WAITING:
                self._dropped += 1
                self._dropped_at = time.monotonic()
                continue
            self._waiting.append(_Turn(hook=hook, event=event, name=self._name(event)))
            self._start_waiting()

    def _name(self, event: Event) -> str | None:
        """Return the name of an event's session: many have the session itself, which has perhaps ended."""
        if event.session_id is None:
            return None
        with contextlib.suppress(msgspec.DecodeError):
            named = _named.decode(event.data)
            if named.id == event.session_id:
                return named.name
        return self._session_name(event.session_id)

    def _start_waiting(self) -> None:
        while self._waiting and len(self._tasks) < AT_ONCE and not self._is_closed:
            self._tasks.start(self._run(self._waiting.popleft()))

    async def _run(self, turn: _Turn) -> None:
        argv = self._argv[turn.hook]
        groups: list[int] = []

        def start() -> str:
            surroundings = self._surroundings()
            given = variables(turn.event, turn.name)
            return self._run_program(_expanded(argv, surroundings.env), surroundings, given, LIMIT_SECS, started)

        def started(group: int) -> None:
            groups.append(group)
            self._groups.add(group)
            if self._is_killing:  # which has not seen it
                child.kill_group(group)

        try:
            failure = await asyncio.get_running_loop().run_in_executor(self._threads, start)
        finally:  # the number may be another group's soon
            self._groups.difference_update(groups)
        if self._is_closed:
            return
        if failure and self._failures.get(turn.hook) != failure:
            log_event(log, logging.WARNING, "hook failed", hook=turn.hook, program=argv[0], error=failure)
        if failure:
            self._failures[turn.hook] = failure
        else:
            self._failures.pop(turn.hook, None)

    def warnings(self) -> list[str]:
        """Return which hooks failed when they ran last, and whether events were dropped lately, as sentences."""
        found = [
            f"The hook of {hook} fails ({command_line(self._argv[hook])}): {failure}. It is tried again with the next "
            "such event."
            for hook, failure in sorted(self._failures.items())
        ]
        if self._dropped and time.monotonic() - self._dropped_at < DROPPED_SECS:
            found.append(
                f"Hooks were not run for {self._dropped} events, as {AT_ONCE} ran and {WAITING} waited: name fewer "
                "kinds in [hooks], or have the programs end sooner."
            )
        return found

    async def close(self) -> None:
        """Forget what waits, and kill what does not end soon: a hook of `daemon.stopping` has just begun."""
        self._is_closed = True
        self._waiting.clear()
        await self._tasks.finish(STOP_SECS)
        self._is_killing = True
        for group in list(self._groups):
            child.kill_group(group)
        await self._tasks.finish(LIMIT_SECS)
        self._threads.shutdown(wait=False)


def variables(event: Event, name: str | None) -> dict[str, str]:
    """Return what tells a hook of its event: its JSON, without `data` where that is long, its kind and its session."""
    encoded = _encode(event)
    if len(encoded) > EVENT_BYTES:
        encoded = _encode(msgspec.structs.replace(event, data=msgspec.Raw(b"null")))
    found = {"ORBIT_EVENT": encoded.decode(), "ORBIT_KIND": event.kind}
    if event.session_id is not None:
        found["ORBIT_SESSION"] = event.session_id
    if name is not None:
        found["ORBIT_SESSION_NAME"] = name
    return found


def _expanded(argv: Sequence[str], env: Mapping[bytes, bytes]) -> list[str]:
    """Return an argument vector with `~/` of its first word replaced by HOME."""
    if argv[0].startswith("~/"):
        return [os.path.join(os.fsdecode(env.get(b"HOME", b"/")), argv[0][2:]), *argv[1:]]
    return list(argv)
