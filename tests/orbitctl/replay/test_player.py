"""The player's core: what is due, and what keys do, with a clock that the tests turn."""

from __future__ import annotations

import pytest

from orbitctl.replay import player as players
from orbitctl.replay.player import KeyReader, Player, State
from orbitctl.replay.tape import Event

FILM = [0.0, 1.0, 3.0, 100.0, 101.0, 200.0]
"""When something is printed; with the idle limit of 2 s it is played at 0, 1, 3, 5, 6 and 8 s."""


class Deck:
    """A player, a clock, and a film whose events are named by their times.

    Args:
        times: When something is printed.
        start: Where to begin.
        page: So many events are in a page.
    """

    def __init__(self, times: list[float] = FILM, *, start: float = 0.0, page: int = 1_000, speed: float = 1.0) -> None:
        self._times, self._page = times, page
        self.player = Player(since=times[0], until=times[-1], start=start, speed=speed, idle_limit=2.0)
        self.now = 50.0
        self.opened: list[float] = []
        self._rest: list[Event] = []
        self.screen: list[str] = []
        self.drawn: list[str] = []

    def load(self) -> None:
        """Load what is needed, as the daemon has it: a picture, and what follows."""
        player = self.player
        while player.open_at is not None or player.wants_page:
            if (since := player.open_at) is not None:
                self.opened.append(since)
                past = [f"{at:g}" for at in self._times if at <= since]
                self._rest = [Event(since, "o", " ".join(past))]
                self._rest += [Event(at, "o", f"{at:g}") for at in self._times if at > since]
                player.opened(since)
            page, self._rest = self._rest[: self._page], self._rest[self._page :]
            player.add(page, is_last=not self._rest)

    def pass_time(self, secs: float = 0.0) -> list[str]:
        """Let time pass; return what is drawn for it."""
        self.load()
        self.player.advance(self.now)
        self.now += secs
        self.drawn = []
        while True:
            step = self.player.advance(self.now)
            if step.begins:
                self.screen = []
            self.drawn += [event.data for event in step.events]
            self.screen += [word for event in step.events for word in event.data.split()]
            if self.player.open_at is None and not self.player.wants_page:
                return self.drawn
            self.load()

    def press(self, *keys: str) -> list[str]:
        """Press keys, and let no time pass; return what the screen shows then."""
        for key in keys:
            self.load()
            self.player.press(key)
            self.settle()
        return self.screen

    def settle(self) -> None:
        """Draw what is due."""
        for _ in range(20):
            self.load()
            step = self.player.advance(self.now)
            if step.begins:
                self.screen = []
            self.screen += [word for event in step.events for word in event.data.split()]


def begun(**options: object) -> Deck:
    """Return a deck that shows its beginning."""
    deck = Deck(**options)  # type: ignore[arg-type]  # as the constructor has them
    deck.settle()
    return deck


def test_events_are_drawn_when_they_are_due() -> None:
    """At the film's own pace."""
    deck = begun()
    assert deck.screen == ["0"]
    assert deck.player.due_in() == 1.0
    assert deck.pass_time(0.9) == []
    assert deck.pass_time(0.2) == ["1"]
    assert deck.pass_time(1.85) == []
    assert deck.pass_time(0.1) == ["3"]


def test_pauses_are_cut_to_the_idle_limit() -> None:
    """97 s take 2, and the position is the film's own time."""
    deck = begun()
    assert deck.pass_time(4.0) == ["1", "3"]
    assert deck.player.position == 4.0
    assert deck.pass_time(1.0) == ["100"]
    assert deck.player.position == 100.0


def test_it_ends_at_the_end() -> None:
    """What has been passed beyond it is no debt."""
    deck = begun()
    deck.pass_time(100.0)
    assert deck.screen == ["0", "1", "3", "100", "101", "200"]
    assert (deck.player.state, deck.player.position) == (State.ENDED, 200.0)
    assert deck.player.due_in() is None


def test_speed_is_doubled_and_halved() -> None:
    """Within bounds."""
    deck = begun(speed=2.0)
    assert deck.pass_time(0.5) == ["1"]
    deck.press("-", "-")
    assert (deck.player.speed, deck.pass_time(2.0)) == (0.5, [])
    assert deck.pass_time(2.0) == ["3"]
    deck.press(*["-"] * 20)
    assert deck.player.speed == players.MIN_SPEED
    deck.press(*["+", "="] * 20)
    assert deck.player.speed == players.MAX_SPEED


def test_space_pauses_and_goes_on() -> None:
    """The time of the pause is none of the film's."""
    deck = begun()
    deck.pass_time(0.5)
    deck.press("space")
    assert deck.player.state is State.PAUSED
    assert deck.pass_time(1_000.0) == []
    assert deck.player.position == 0.5
    deck.press("space")
    assert deck.pass_time(0.4) == []
    assert deck.pass_time(0.2) == ["1"]


def test_a_dot_goes_to_the_next_event_while_paused() -> None:
    """Over a pause at once; while it plays it does nothing."""
    deck = begun()
    assert deck.press(".") == ["0"]
    deck.press("space")
    assert deck.press(".") == ["0", "1"]
    assert deck.press(".", ".") == ["0", "1", "3", "100"]
    assert deck.player.position == pytest.approx(100.0)
    assert deck.press(*"...") == ["0", "1", "3", "100", "101", "200"]


@pytest.mark.parametrize("page", [1_000, 1])
def test_right_goes_forward_in_played_time(page: int) -> None:
    """Also over the end of a page that has not come yet, and while paused."""
    deck = begun(page=page)
    deck.press("space")
    assert deck.press("right") == ["0", "1", "3", "100"]
    assert deck.press("right") == ["0", "1", "3", "100", "101", "200"]


@pytest.mark.parametrize("page", [1_000, 1])
def test_left_goes_back_in_played_time(page: int) -> None:
    """A pause counts as far as it was played; what is loaded is not loaded again."""
    deck = begun(page=page)
    deck.pass_time(100.0)
    assert deck.player.state is State.ENDED
    assert deck.press("left") == ["0", "1", "3"]
    assert deck.player.state is State.PLAYING
    assert deck.player.position == pytest.approx(3.0)
    assert deck.press("left") == ["0"]
    assert deck.opened == [0.0]
    assert deck.pass_time(1.0) == ["1"]


def test_the_time_at_the_end_is_none_of_the_film() -> None:
    """Going back from there plays on from there, however long it has stood."""
    deck = begun()
    deck.pass_time(100.0)
    deck.now += 1_000.0
    assert deck.press("left") == ["0", "1", "3"]


def test_left_within_a_pause_keeps_what_was_waited() -> None:
    """The next event is due as much later as it went back."""
    deck = begun(times=[0.0, 1.0, 3.0, 8.0, 20.0])
    deck.pass_time(5.5)  # 0.5 s into the last pause
    assert deck.screen == ["0", "1", "3", "8"]
    deck.press("left")
    assert deck.screen == ["0"]
    assert deck.player.position == pytest.approx(0.5)
    assert deck.player.due_in() == pytest.approx(0.5)


def test_home_and_end() -> None:
    """The beginning and the last picture, which is the daemon's."""
    deck = begun()
    assert deck.press("end") == ["0", "1", "3", "100", "101", "200"]
    assert deck.opened == [0.0, 200.0]
    assert deck.press("home") == ["0"]
    assert deck.player.state is State.PLAYING


def test_left_of_what_is_loaded_looks_for_output_behind_pauses() -> None:
    """More of the film is loaded each time until there is so much played time before."""
    times = [0.0, 1.0, 2.0, 3.0, 50_000.0]
    deck = begun(times=times, start=50_000.0)
    assert deck.screen == ["0", "1", "2", "3", "50000"]
    deck.press("left")
    assert deck.player.position == pytest.approx(0.0)
    assert deck.screen == ["0"]
    assert deck.opened == [50_000.0, 49_990.0, 49_920.0, 49_360.0, 44_880.0, 9_040.0, 0.0]


def test_left_in_the_middle_of_a_film_loads_a_little_before() -> None:
    """As much as it needs, where something is printed all the time."""
    deck = begun(times=[float(at) for at in range(1_000)], start=500.0)
    deck.press("left")
    assert deck.opened == [500.0, 490.0]
    assert deck.screen[-1] == "495"
    deck.press("left")
    assert deck.screen[-1] == "490"
    deck.press("left")
    assert deck.screen[-1] == "485"
    assert deck.opened == [500.0, 490.0, 480.0]


def test_a_flood_is_drawn_as_the_picture_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is fed that takes seconds: the daemon draws it."""
    monkeypatch.setattr(players, "MAX_FED_CHARACTERS", 5)
    deck = begun(times=[float(at) for at in range(100)])
    deck.press("right")
    assert deck.screen[-1] == "5"
    deck.press("right")
    assert deck.screen[-1] == "10"
    assert deck.opened == [0.0, 10.0]


def test_what_was_drawn_long_ago_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """And loaded again where it is gone back to."""
    monkeypatch.setattr(players, "MAX_KEPT_EVENTS", 30)
    monkeypatch.setattr(players, "AHEAD_CHARACTERS", 10)
    deck = begun(times=[float(at) for at in range(1_000)], page=10)
    for _ in range(100):
        deck.pass_time(1.0)
    assert deck.screen[-1] == "100"
    assert len(deck.player._events) <= 60
    deck.press(*["left"] * 12)
    assert deck.screen[-1] == "40"


def test_a_resync_changes_nothing_but_the_picture() -> None:
    """It goes on where it was."""
    deck = begun()
    deck.pass_time(4.0)
    deck.player.resync()
    deck.settle()
    assert (deck.screen, deck.opened) == (["0", "1", "3"], [0.0, 3.0])
    assert deck.player.due_in() == pytest.approx(1.0)


def test_times_that_go_back_take_no_time() -> None:
    """The clock was set back while it was recorded."""
    deck = Deck()
    deck.player.opened(0.0)
    deck.player.add([Event(0.0, "o", "a"), Event(5.0, "o", "b"), Event(4.0, "o", "c")], is_last=True)
    deck.settle()
    deck.pass_time(2.0)
    assert deck.screen == ["a", "b", "c"]
    assert deck.player.position == 5.0


@pytest.mark.parametrize(
    ("typed", "keys"),
    [
        (b" .+-q", ["space", ".", "+", "-", "q"]),
        (b"\x1b[C\x1b[D\x1bOC\x1bOD", ["right", "left", "right", "left"]),
        (b"\x1b[H\x1b[F\x1bOH\x1bOF", ["home", "end", "home", "end"]),
        (b"\x1b[1~\x1b[4~\x1b[7~\x1b[8~", ["home", "end", "home", "end"]),
        (b"\x1b[1;5C", ["right"]),
        (b"\x1b[3~\x1b[A\x1b[200~q", ["q"]),
        (b"\x1bq", ["q"]),
        (b"\x1b\x1bq", ["q"]),
    ],
)
def test_keys_are_found_in_what_is_typed(typed: bytes, keys: list[str]) -> None:
    """Whole, and byte by byte."""
    reader = KeyReader()
    assert KeyReader().receive(typed) == keys
    assert [key for byte in typed for key in reader.receive(bytes((byte,)))] == keys


def test_a_flood_behind_its_own_picture_is_drawn_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon's picture may be of a millisecond before: asking again and again would never go on."""
    monkeypatch.setattr(players, "MAX_FED_CHARACTERS", 5)
    player = Player(since=0.0, until=20.0, start=10.0, speed=1.0, idle_limit=2.0)
    player.opened(10.0)
    player.add([Event(10.0, "o", "a"), Event(10.001, "o", "b" * 10), Event(11.0, "o", "c" * 10)], is_last=True)
    player.advance(0.0)
    assert [event.data[0] for event in player.advance(0.5).events] == ["b"]
    player.advance(2.0)
    assert player.open_at == 11.0
