"""A film on the user's terminal: what is typed, what the daemon returns, and the loop between them."""

from __future__ import annotations

import math
import select
import signal
import time
from datetime import UTC, datetime, timedelta

from msgspec import Struct

from orbit_protocol import methods as m
from orbit_protocol import params as p
from orbit_protocol.errors import SnapshotNotFound
from orbit_protocol.terminal_reset import RESET_IN_USE
from orbit_protocol.types import Session
from orbit_protocol.visible import visible
from orbitctl.app import App
from orbitctl.attach.run_attach import print_message, short_name
from orbitctl.attach.terminal import SignalReceived, Terminal
from orbitctl.errors import CommandError, ExitCode
from orbitctl.replay.player import KeyReader, Player, State, Step
from orbitctl.replay.screen import FilmScreen, draw_line
from orbitctl.replay.tape import Event, NotAsciicast, Tape, size_of
from orbitctl.ui.text import take, width

FRAME_SECS = 1 / 30
TICK_SECS = 0.5
"""While it plays, the status line is drawn so often at least."""
RESYNC_SECS = 1.0
"""After another size the picture is the daemon's, and not again within so much of the film."""
_BEGIN = b"\x1b[?1049h" + RESET_IN_USE + b"\x1b[?7l\x1b[2J"


class ReplayOptions(Struct, frozen=True, kw_only=True):
    """What the command line says.

    Attributes:
        start: Where to begin; None for the film's first moment.
        until: Where to end; None for its last one.
        speed: Seconds of the film in one.
        idle_limit: The longest pause, in seconds.
    """

    start: datetime | None
    until: datetime | None
    speed: float
    idle_limit: float


class View:
    """Draws a film's screen, and a line about it, on a window of any size. No I/O."""

    def __init__(self) -> None:
        self._shown: list[bytes] = []
        self._size = (0, 0)
        self._left = self._top = 0

    def forget(self) -> None:
        """Take nothing for drawn."""
        self._shown = []

    def draw(self, screen: FilmScreen, status: str, size: tuple[int, int]) -> bytes:
        """Return what has to be written for the window to show the screen, or the part of it around its cursor.

        Args:
            screen: The screen.
            status: The line below; it is cut to the window's width.
            size: The window's columns and rows.
        """
        cols, rows = size[0], size[1] - 1
        if size != self._size or len(self._shown) != rows + 1:
            self._size, self._shown = size, [b"?"] * (rows + 1)
        self._left = _first(self._left, screen.col, cols, screen.cols)
        self._top = _first(self._top, screen.row, max(rows, 1), screen.rows)
        lines = [
            draw_line(screen.line(row), self._left, cols, is_reverse=screen.is_reverse)
            for row in range(self._top, min(self._top + rows, screen.rows))
        ]
        lines += [b"\x1b[K"] * (rows - len(lines))
        text = take(visible(status), cols)
        lines.append(b"\x1b[0;7m" + (text + " " * (cols - width(text))).encode(errors="replace") + b"\x1b[0m")
        changed = [
            b"\x1b[%d;1H" % (row + 1) + line
            for row, (line, before) in enumerate(zip(lines, self._shown, strict=True))
            if line != before
        ]
        self._shown = lines
        cursor = b"\x1b[%d;%dH" % (screen.row - self._top + 1, screen.col - self._left + 1)
        is_shown = screen.is_cursor_shown and rows > 0
        return b"\x1b[?2026h\x1b[?25l" + b"".join(changed) + cursor + b"\x1b[?25h" * is_shown + b"\x1b[?2026l"


def _first(before: int, cursor: int, window: int, screen: int) -> int:
    """Return the first row, or column, that is shown: it moves no further than the cursor needs."""
    first = max(min(before, cursor), cursor - window + 1)
    return max(0, min(first, screen - window))


class _Replay:
    """Plays a film until the user leaves.

    Args:
        app: The app.
        session: Whose film.
        options: How.

    Raises:
        CommandError: There is no film.
    """

    def __init__(self, app: App, session: Session, options: ReplayOptions) -> None:
        self._app, self._session = app, session
        self._until = options.until
        since, until = self._extent()
        start = since if options.start is None else min(max(options.start.timestamp(), since), until)
        self.player = Player(since=since, until=until, start=start, speed=options.speed, idle_limit=options.idle_limit)
        self._tape, self._cursor = Tape(start), ""
        self._screen = FilmScreen(session.cols or 80, session.rows or 24)
        self._view, self._keys = View(), KeyReader()
        self._mark = ""
        self._resynced_at = -math.inf
        self._is_drawn = False
        self._load()  # what cannot be played is an error before the terminal changes

    def _extent(self) -> tuple[float, float]:
        """Return the film's first and last moment that are played. Raises: CommandError."""
        from orbitctl.commands.session_live import no_film_error

        timeline = self._app.call(m.HISTORY_TIMELINE, p.HistoryOf(session_id=self._session.id))
        if timeline.since is None or timeline.until is None:
            raise no_film_error(self._session, None, SnapshotNotFound(""))
        since, until = timeline.since.timestamp(), timeline.until.timestamp()
        if self._until is not None:
            if self._until.timestamp() < since:
                raise no_film_error(
                    self._session, self._until, SnapshotNotFound("", data={"since_ms": int(since * 1000)})
                )
            until = min(until, self._until.timestamp())
        return since, max(since, until)

    def run(self, terminal: Terminal) -> bool:
        """Play until the user leaves; return False where the terminal is gone."""
        self._begin(terminal)
        while True:
            is_loaded = self._load()
            self._apply(self.player.advance(time.monotonic()))
            if not (self._is_drawn or terminal.pending):
                terminal.show(self._view.draw(self._screen, self._status(terminal.size), terminal.size))
                self._is_drawn = True
            timeout = 0.0 if is_loaded else self._timeout()
            ready = select.select(
                [terminal.input_fd, terminal.wake_fd], [terminal.output_fd] if terminal.pending else [], [], timeout
            )
            if ready[1]:
                terminal.flush()
            self._handle_signals(terminal)
            if terminal.input_fd in ready[0]:
                typed = terminal.read()
                if typed == b"":
                    return False
                if not self._press(typed or b""):
                    return True
            if self.player.state is State.PLAYING:
                self._is_drawn = False  # time has passed

    def _timeout(self) -> float | None:
        """Return how long nothing has to be drawn; None for ever."""
        if self.player.open_at is not None or self.player.wants_page:
            return 0.0
        if self.player.state is not State.PLAYING:
            return None
        due = self.player.due_in()
        return max(FRAME_SECS, min(TICK_SECS, TICK_SECS if due is None else due))

    def _begin(self, terminal: Terminal) -> None:
        terminal.enter()
        terminal.show(_BEGIN)
        self._view.forget()
        self._is_drawn = False

    def _handle_signals(self, terminal: Terminal) -> None:
        numbers = terminal.signals()
        if signal.SIGTSTP in numbers:
            if self.player.state is State.PLAYING:
                self.player.press("space")
            terminal.suspend()
        if signal.SIGTSTP in numbers or signal.SIGCONT in numbers:
            terminal.resume()
            self._begin(terminal)
        if numbers:
            self._is_drawn = False

    def _press(self, typed: bytes) -> bool:
        """Do what keys do; return False for the one that leaves."""
        for key in self._keys.receive(typed):
            if key in ("q", "Q"):
                return False
            if key == "end":  # it may have grown
                self.player.until = self._extent()[1]
            self.player.press(key)
        self._is_drawn = False
        return True

    # The film

    def _load(self) -> bool:
        """Load what the player needs next; return whether it needed something. Raises: CommandError."""
        player = self.player
        if (since := player.open_at) is not None:
            self._tape = Tape(since)
            self._cursor = ""
            events, is_last = self._page(since)
            player.opened(self._tape.began_at)
            player.add(events, is_last=is_last)
        elif player.wants_page:
            events, is_last = self._page(self._tape.began_at)
            player.add(events, is_last=is_last)
        else:
            return False
        return True

    def _page(self, since: float) -> tuple[list[Event], bool]:
        """Return the events of the recording's next page, and whether it is the last. Raises: CommandError."""
        self._app.client.on_silence = None  # it would write on the screen
        params = p.HistoryExport(
            session_id=self._session.id,
            format="asciicast",
            # Half a millisecond more: the daemon counts in whole ones, and what rounds a number must not lose one, or
            # the output of that moment would come once more behind the picture that is to have it.
            since=datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=round(since * 1000), microseconds=500),
            until=self._until,
            cursor=self._cursor or None,
        )
        page = self._app.call(m.HISTORY_EXPORT, params)
        self._cursor = page.next_cursor or ""
        try:
            events = self._tape.receive(page.data or "", is_last=not self._cursor)
        except NotAsciicast as error:
            raise CommandError(str(error), ExitCode.PROTOCOL) from error
        return events, not self._cursor

    def _apply(self, step: Step) -> None:
        if step.begins:
            self._screen = FilmScreen(*(self._tape.size or (80, 24)))
            self._mark = ""
        resized_at = -math.inf
        for event in step.events:
            if event.kind == "o":
                self._screen.feed(event.data)
            elif event.kind == "m":
                self._mark = event.data
            elif (size := size_of(event)) is not None:
                self._screen.resize(*size)
                resized_at = event.at
        if step.begins or step.events:
            self._is_drawn = False
        # Its lines are rewrapped by the daemon's emulator. A picture of a moment may have the same change once more.
        if resized_at > self._resynced_at + RESYNC_SECS:
            self._resynced_at = resized_at
            self.player.resync()

    # The status line

    def _status(self, window: tuple[int, int]) -> str:
        player, screen = self.player, self._screen
        length = player.until - player.since
        part = 1.0 if length <= 0 else min(max((player.position - player.since) / length, 0.0), 1.0)
        moment = datetime.fromtimestamp(player.position, UTC).astimezone()
        words = [player.state.value, f"{moment:%Y-%m-%d %H:%M:%S}", f"{part:.0%}", f"{player.speed:g}x"]
        if screen.cols > window[0] or screen.rows > window[1] - 1:
            shown = f"{min(screen.cols, window[0])}x{min(screen.rows, max(window[1] - 1, 0))}"
            words.append(f"{shown} of {screen.cols}x{screen.rows}")
        words += filter(None, (screen.title or short_name(self._session), self._mark))
        words.append("[space . left right Home End + - q]")
        return " " + "  ".join(words)


def replay(app: App, session: Session, options: ReplayOptions) -> int:
    """Play a session's film on the terminal; return the exit code. Raises: CommandError."""
    played = _Replay(app, session, options)
    try:
        with Terminal(read_only=True, keys_signal=True) as terminal:
            is_left = played.run(terminal)
    except SignalReceived as received:
        return received.exit_code
    if not is_left:
        return 128 + signal.SIGHUP
    moment = datetime.fromtimestamp(played.player.position, UTC).astimezone()
    print_message(f"[left the replay of {short_name(session)} at {moment:%Y-%m-%d %H:%M:%S}]")
    return ExitCode.OK
