"""The player's core: which events are due, and what keys do. No I/O, and the clock is given.

Time passes in two ways. A film's own time is that of the clock on the wall when it was recorded. It is played in
*played time*, in which no pause is longer than the idle limit: speed, and the arrow keys, count in that one.

    player.open_at          a recording has to be opened from that moment on: then `opened`
    player.wants_page       its next page is needed: then `add`
    player.press(key)       a key, by its name
    player.advance(now)     what is to be drawn now

The beginning of each recording is an event that draws the screen as it was then. So a moment is sought by opening a
recording there, and what follows it goes on without a gap.
"""

from __future__ import annotations

import enum
import re
from bisect import bisect_right
from collections.abc import Callable
from itertools import accumulate
from typing import NamedTuple

from orbitctl.replay.tape import Event

STEP_SECS = 5.0
"""How far an arrow key goes, in played time."""
MIN_SPEED, MAX_SPEED = 1 / 16, 1_024.0
AHEAD_CHARACTERS = 1 << 18
"""The next page is wanted when no more than that is left to play."""
MAX_FED_CHARACTERS = 1 << 19
"""What draws more than that at once is not drawn, but the daemon's picture of the moment behind it."""
MAX_KEPT_CHARACTERS = 1 << 25
MAX_KEPT_EVENTS = 200_000
_FIRST_SPAN, _SPAN_GROWTH = 10.0, 8.0
_SAME_SECS = 0.002


class State(enum.Enum):
    """What the player does."""

    PLAYING = "playing"
    PAUSED = "paused"
    ENDED = "end"


class Step(NamedTuple):
    """What is to be drawn.

    Attributes:
        begins: The screen is to be blank before, in the size that the recording begins with.
        events: To be drawn, in order.
    """

    begins: bool
    events: list[Event]


class _Aim(NamedTuple):
    """A moment before what is loaded that is looked for: so much played time before another moment."""

    before: float
    secs: float
    span: float


class Player:
    """Plays one film.

    Args:
        since: The film's first moment that is played, in seconds since 1970.
        until: Its last one.
        start: Where to begin.
        speed: Played seconds in a second.
        idle_limit: The longest pause, in seconds.

    Attributes:
        state: What it does.
        speed: Played seconds in a second.
        open_at: From where a recording is to be opened; None while it needs none.
        until: The film's last moment, as far as it is known; it may grow.
    """

    def __init__(self, *, since: float, until: float, start: float, speed: float, idle_limit: float) -> None:
        self.since, self.until = since, until
        self.state = State.PLAYING
        self.speed = speed
        self._idle_limit = idle_limit
        self.open_at: float | None = start
        self._aim: _Aim | None = None
        self._events: list[Event] = []
        self._times: list[float] = []
        self._index = 0  # of the first event that is still to come
        self._drawn = 0  # events that the screen has
        self._anchor = start  # when the last one was that is
        self._waited = 0.0  # played time since then
        self._kept_waited: float | None = None  # the same, of the recording that is being opened
        self._debt = 0.0  # played time to be passed over at once
        self._begins = False  # the screen has to be drawn from the recording's first event on
        self._opened_at = start
        self._is_whole = True  # all events of the recording are kept, from its first one on
        self._is_last = False  # there is no further page
        self._ahead = 0  # characters that are not drawn yet
        self._kept = 0  # characters of all events
        self._now: float | None = None

    # The recording

    def opened(self, began_at: float) -> None:
        """Begin with a recording that was opened; events of its pages follow."""
        self._opened_at = began_at if self.open_at is None else max(began_at, self.open_at)
        self.open_at = None
        self._events, self._times, self._index, self._drawn = [], [], 0, 0
        self._ahead = self._kept = 0
        self._anchor = began_at
        self._waited, self._kept_waited = self._kept_waited or 0.0, None
        self._begins, self._is_whole, self._is_last = True, True, False
        self._now = None

    @property
    def wants_page(self) -> bool:
        """Whether the next page is needed."""
        if self.open_at is not None or self._is_last:
            return False
        return self._aim is not None or self._ahead <= AHEAD_CHARACTERS

    def add(self, events: list[Event], *, is_last: bool) -> None:
        """Take a page's events."""
        self._events += events
        last = self._times[-1] if self._times else self._anchor
        self._times += accumulate((event.at for event in events), max, initial=last)
        del self._times[len(self._times) - len(events) - 1]  # the initial one
        added = sum(len(event.data) for event in events)
        self._ahead += added
        self._kept += added
        self._is_last = is_last
        if self._aim is not None:
            self._look_for_aim(self._aim)
        if self._kept > MAX_KEPT_CHARACTERS or len(self._events) > MAX_KEPT_EVENTS:
            self._forget()

    def _forget(self) -> None:
        """Drop what was drawn long ago: the recording is opened again where it is asked for."""
        count = self._drawn // 2
        self._kept -= sum(len(event.data) for event in self._events[:count])
        del self._events[:count], self._times[:count]
        self._index -= count
        self._drawn -= count
        self._is_whole = self._is_whole and not count

    # Time

    @property
    def position(self) -> float:
        """The moment of the film that is shown, in seconds since 1970."""
        gap = self._gap()
        if gap is None:
            return self._anchor if self._is_last else self._anchor + self._waited
        return self._anchor + min(self._waited, gap)

    def _gap(self) -> float | None:
        """Return the film's time between the last event and the next; None where the next is not known."""
        if self._index == len(self._events):
            return None
        return max(0.0, self._times[self._index] - self._anchor)

    def due_in(self) -> float | None:
        """Return in how many seconds the next event is due; None while none is."""
        gap = self._gap()
        if self.state is not State.PLAYING or gap is None or self.open_at is not None:
            return None
        return max(0.0, min(gap, self._idle_limit) - self._waited) / self.speed

    def advance(self, now: float) -> Step:
        """Return what is to be drawn at a moment of the monotonic clock."""
        if self.open_at is not None or self._aim is not None:
            self._now = now
            return Step(False, [])
        passed = 0.0 if self._now is None or self.state is not State.PLAYING else (now - self._now) * self.speed
        self._now = now
        debt, self._debt = self._debt, 0.0
        budget = debt + passed
        while (gap := self._gap()) is not None:
            # What draws the screen at the beginning, without a gap before it, is due at once, also while paused.
            left = min(gap, self._idle_limit) - self._waited
            if left > budget or (gap > 0 and budget == 0 and self.state is not State.PLAYING):
                break
            budget -= max(0.0, left)
            self._pass(gap)
        if gap is not None:
            self._waited += budget
        elif self._is_last:
            if self.state is State.PLAYING:
                self.state = State.ENDED
        else:
            self._debt = min(debt, budget)  # passed over when the page has come; the clock stands still until then
        return self._step()

    def _pass(self, gap: float) -> None:
        """Go to the next event."""
        self._anchor = self._times[self._index]
        if gap > 0:
            self._waited = 0.0
        self._ahead -= len(self._events[self._index].data)
        self._index += 1

    def _step(self) -> Step:
        events, begins = self._events[self._drawn : self._index], self._begins
        is_flood = sum(len(event.data) for event in events) > MAX_FED_CHARACTERS
        # Where the picture was of this moment already, it has not helped: then it is drawn here, so that it goes on.
        if is_flood and self._anchor > self._opened_at + _SAME_SECS:
            self._kept_waited = self._waited
            self._open(self._anchor)
            return Step(False, [])
        self._begins, self._drawn = False, self._index
        return Step(begins, events)

    # Keys

    def press(self, key: str) -> None:
        """Do what a key does; one without a meaning does nothing."""
        action = _ACTIONS.get(key)
        if action is not None:
            action(self)

    def _toggle(self) -> None:
        if self.state is not State.ENDED:
            self.state = State.PAUSED if self.state is State.PLAYING else State.PLAYING
            self._now = None  # the pause itself is none of the film

    def _change_speed(self, factor: float) -> None:
        self.speed = min(max(self.speed * factor, MIN_SPEED), MAX_SPEED)

    def _go_on(self) -> None:
        if self.open_at is None and self._aim is None:
            self._debt += STEP_SECS

    def _go_back(self) -> None:
        if self._aim is not None:
            self._aim = self._aim._replace(secs=self._aim.secs + STEP_SECS)
            return
        if self.open_at is not None:
            return
        self._debt = 0.0
        self._leave_end()
        index, anchor, waited, left = self._before(self._index, self._anchor, self._waited, STEP_SECS)
        began_at = self._times[0] if self._times else anchor
        if left <= 0 or began_at <= self.since:
            self._seek(index, anchor, waited)
        else:
            self._look_before(_Aim(began_at, left, _FIRST_SPAN))

    def _go_to_start(self) -> None:
        self._leave_end()
        self._aim, self._kept_waited = None, None
        self._open(self.since)

    def _go_to_end(self) -> None:
        self._leave_end()
        self._aim, self._kept_waited = None, None
        self._open(self.until)

    def _do_step(self) -> None:
        """Go to the next event, while paused."""
        gap = self._gap()
        if self.state is State.PAUSED and self.open_at is None and gap is not None:
            # A moment more: of nothing, while paused, nothing is drawn.
            self._debt += max(0.0, min(gap, self._idle_limit) - self._waited) + 1e-9

    def _leave_end(self) -> None:
        if self.state is State.ENDED:
            self.state = State.PLAYING
            self._now = None  # the time since the end is none of the film

    # Seeking

    def resync(self) -> None:
        """Have the picture drawn by the daemon, as it is at this moment."""
        if self.open_at is None and self._aim is None:
            self._kept_waited = self._waited
            self._open(self._anchor)

    def _open(self, at: float) -> None:
        self.open_at = min(max(at, self.since), max(self.until, self.since))
        self._debt = 0.0

    def _before(self, index: int, anchor: float, waited: float, secs: float) -> tuple[int, float, float, float]:
        """Return the place so much played time before one: index, anchor, waited; and what is left at the first event.

        Args:
            index: Of the first event behind the place.
            anchor: When the one before was.
            waited: Played time since then.
            secs: How far to go back.
        """
        while secs > waited:
            secs -= waited
            if index < 2:
                return min(index, 1), anchor if index == 0 else self._times[0], 0.0, secs
            index -= 1
            waited = min(max(0.0, anchor - self._times[index - 1]), self._idle_limit)
            anchor = self._times[index - 1]
        return index, anchor, waited - secs, 0.0

    def _seek(self, index: int, anchor: float, waited: float) -> None:
        """Go to a place in what is loaded, or have it drawn by the daemon where that is less work."""
        size = sum(len(event.data) for event in self._events[:index])
        if not self._is_whole or size > MAX_FED_CHARACTERS:
            self._kept_waited = waited
            self._open(anchor)
            return
        if index < self._drawn:
            self._begins, self._drawn = True, 0
        self._ahead = self._kept - size
        self._index, self._anchor, self._waited = index, anchor, waited

    def _look_before(self, aim: _Aim) -> None:
        """Load what is before a moment, more each time until it is enough: it is not known where pauses are."""
        self._aim = aim
        self._open(aim.before - aim.span)

    def _look_for_aim(self, aim: _Aim) -> None:
        if not (self._is_last or self._times[-1:] > [aim.before]):
            if self._kept <= MAX_KEPT_CHARACTERS:
                return  # the next page is wanted
            self._aim = None  # a flood: its beginning is near enough
            return
        index = max(1, bisect_right(self._times, aim.before))
        anchor = self._times[index - 1] if self._times else self._anchor
        waited = min(max(0.0, aim.before - anchor), self._idle_limit)
        index, anchor, waited, left = self._before(min(index, len(self._times)), anchor, waited, aim.secs)
        if left > 0 and (self._times[0] if self._times else self._anchor) > self.since:
            self._look_before(aim._replace(span=aim.span * _SPAN_GROWTH))
            return
        self._aim = None
        self._seek(index, anchor, waited)


_ACTIONS: dict[str, Callable[[Player], None]] = {
    "space": Player._toggle,
    "left": Player._go_back,
    "right": Player._go_on,
    "home": Player._go_to_start,
    "end": Player._go_to_end,
    "+": lambda player: player._change_speed(2),
    "=": lambda player: player._change_speed(2),
    "-": lambda player: player._change_speed(0.5),
    ".": Player._do_step,
}

_KEY = re.compile(rb"\x1b[\[O][0-?]*[ -/]*(?P<final>[@-~])|\x1b(?=[^\[O])|(?P<letter>[^\x1b])", re.DOTALL)
_UNFINISHED = re.compile(rb"\x1b(?:[\[O][0-?]{0,32})?")
_SEQUENCES = {b"C": "right", b"D": "left", b"H": "home", b"F": "end"}
_TILDES = {b"1": "home", b"7": "home", b"4": "end", b"8": "end"}


class KeyReader:
    """Finds keys in what was typed."""

    def __init__(self) -> None:
        self._rest = b""

    def receive(self, data: bytes) -> list[str]:
        """Return the names of the keys; the beginning of a sequence waits for its end."""
        data, self._rest = self._rest + data, b""
        keys, at = [], 0
        while at < len(data):
            found = _KEY.match(data, at)
            if found is None:
                if _UNFINISHED.fullmatch(data, at):
                    self._rest = data[at:]
                    break
                at += 1
                continue
            if found["letter"] is not None:
                keys.append("space" if found["letter"] == b" " else found["letter"].decode("latin-1"))
            elif found["final"] == b"~":
                keys.append(_TILDES.get(re.split(rb"[;\[]", data[at + 1 : found.end() - 1])[1], ""))
            elif found["final"] is not None:
                keys.append(_SEQUENCES.get(found["final"], ""))
            at = found.end()
        return [key for key in keys if key]
