"""`orbitctl session replay` on a terminal, with a daemon that has one film."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from msgspec import to_builtins

from attach_support import Window
from ctl_support import Orbitctl, Peer, read_line
from scripted_attach import scripted_session

BEGAN_AT = 1_700_000_000
FILM: list[tuple[float, str, str]] = [
    (0.0, "o", "\x1b]0;ti\x1b\\tle\x07\x1b]52;c;aGk=\x07\x1b[cfirst\r\n"),
    (0.5, "o", "\x1b[31msecond\x1b[m\r\n\x1b[?1000h\x1b[?2004h"),
    (1_000.0, "m", "make"),
    (1_000.0, "o", "\x1b]0;title\x07third"),
    (5_000.0, "o", "\x1b[2J\x1b[Hlast"),
]


class Projector:
    """Answers for one session, as orbitd does.

    Args:
        film: Its events, with seconds from its beginning.
        size: Columns and rows.
    """

    def __init__(self, film: list[tuple[float, str, str]], size: tuple[int, int]) -> None:
        self._film, self._size = list(film), size  # a copy: some tests change it
        self.asked: list[dict[str, Any]] = []

    def __call__(self, connection: socket.socket) -> None:
        while line := read_line(connection):
            request = json.loads(line)
            self.asked.append(request)
            answer = self._answer(request["method"], request.get("params", {}))
            connection.sendall(json.dumps({"jsonrpc": "2.0", "id": request["id"], **answer}).encode() + b"\n")

    def _answer(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        if method == "session.find":
            return {"result": to_builtins(scripted_session())}
        if method == "history.timeline":
            return {"result": self._timeline()}
        assert method == "history.export"
        return {"result": {"format": "asciicast", "bytes": 1, **self._page(params)}}

    def _timeline(self) -> dict[str, Any]:
        moments = [_moment(BEGAN_AT), _moment(BEGAN_AT + self._film[-1][0])] if self._film else [None, None]
        counts = {"recording_raw_bytes": 1, "recording_bytes": 1, "text_bytes": 1}
        return {"since": moments[0], "until": moments[1], "key_frames": [], "sizes": [], "marks": [], **counts}

    def _page(self, params: dict[str, Any]) -> dict[str, Any]:
        """Return a page of a header and a picture, or else of two events."""
        since = datetime.fromisoformat(params["since"]).timestamp() - BEGAN_AT - 0.0005
        coming = [(at - since, kind, data) for at, kind, data in self._film if at > since]
        cursor = int(params.get("cursor") or 0)
        next_cursor = str(cursor + 2) if cursor + 2 < len(coming) else None
        lines: list[Any] = list(coming[cursor : cursor + 2])
        if not cursor:
            cols, rows = self._size
            past = "".join(data for at, kind, data in self._film if at <= since and kind == "o")
            header = {"version": 2, "width": cols, "height": rows, "timestamp": int(BEGAN_AT + since)}
            lines = [header, (0.0, "o", past), *lines]
        return {"data": "".join(json.dumps(line) + "\n" for line in lines), "next_cursor": next_cursor}


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")


@pytest.fixture
def projector() -> Projector:
    """A film of 80 columns and 24 rows."""
    return Projector(FILM, (80, 24))


@pytest.fixture
def cinema(home: Path, projector: Projector) -> Iterator[Orbitctl]:
    """orbitctl, where the projector answers."""
    path = home / "s"
    peer = Peer(path, projector)
    ctl = Orbitctl(home)
    ctl.environment |= {"ORBITD_SOCKET": str(path), "ORBITCTL_NO_AUTOSTART": "1", "TZ": "UTC"}
    yield ctl
    peer.close()


def test_a_film_is_played_and_the_terminal_is_as_before(cinema: Orbitctl) -> None:
    """It is drawn on the alternate screen; q leaves, and says when that was in the film."""
    with Window(cinema, "session", "replay", "web", "--idle-limit", "0.2", size=(80, 25)) as window:
        window.screen_until("last")
        window.screen_until("end  2023-11-14 23:36:40  100%  1x")
        window.type("q")
        assert window.end() == 0
        assert window.settings() == window.before
        assert "left the replay of web at 2023-11-14 23:36:40" in window.screen()


def test_nothing_of_a_film_reaches_the_terminal_but_its_picture(cinema: Orbitctl) -> None:
    """No title, clipboard, question or mode; colours do."""
    with Window(cinema, "session", "replay", "web", "--idle-limit", "0.2", size=(80, 25)) as window:
        window.screen_until("third")
        window.type("q")
        assert window.end() == 0
        for sequence in (b"\x1b]52", b"\x1b]0;", b"\x1b[c", b"\x1b[?1000h", b"\x1b[?2004h"):
            assert sequence not in window.output
        assert b"\x1b[0;31msecond" in window.output


def test_keys_pause_step_and_seek(cinema: Orbitctl, projector: Projector) -> None:
    """End asks for the last picture, Home for the first one."""
    with Window(cinema, "session", "replay", "web", "--speed", "0.1", size=(80, 25)) as window:
        window.screen_until("first")
        window.type(" ")
        window.screen_until("paused  2023-11-14 22:13:20  0%")
        window.type(".")
        window.screen_until("second")
        window.type("\x1b[F")
        window.screen_until("last")
        window.type("\x1b[H")
        window.screen_until("first")
        window.type("+")
        window.screen_until("0.2x")
        window.type("q")
        assert window.end() == 0
    since = [request["params"]["since"] for request in projector.asked if request["method"] == "history.export"]
    assert _moment(BEGAN_AT + 5_000.0005) in since


def test_it_begins_where_it_is_asked_to(cinema: Orbitctl, projector: Projector) -> None:
    """With the picture of that moment, and up to --until."""
    options = ("--from", "2023-11-14 22:20", "--until", "2023-11-14 22:40")
    with Window(cinema, "session", "replay", "web", *options, size=(80, 25)) as window:
        window.screen_until("third")
        window.type("q")
        assert window.end() == 0
    exports = [request["params"] for request in projector.asked if request["method"] == "history.export"]
    assert (exports[0]["since"], exports[0]["until"]) == ("2023-11-14T22:20:00.000500Z", "2023-11-14T22:40:00Z")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_ends_it_and_restores_the_terminal(cinema: Orbitctl, number: int) -> None:
    """With the exit code that a shell expects."""
    with Window(cinema, "session", "replay", "web", size=(80, 25)) as window:
        window.screen_until("first")
        os.kill(window.process.pid, number)
        assert window.end() == 128 + number
        assert window.settings() == window.before
        assert "first" not in window.screen()


def test_ctrl_c_ends_it(cinema: Orbitctl) -> None:
    """Typed, as a signal, so that it does while the daemon is asked."""
    with Window(cinema, "session", "replay", "web", size=(80, 25)) as window:
        window.screen_until("first")
        window.type("\x03")
        assert window.end() == 130
        assert window.settings() == window.before


def test_a_smaller_window_shows_a_part_and_says_so(cinema: Orbitctl) -> None:
    """The part around the cursor; a window that grows shows all."""
    with Window(cinema, "session", "replay", "web", "--speed", "0.1", size=(80, 25)) as window:
        window.screen_until("first")
        window.resize(60, 3)
        window.screen_until("60x2 of 80x24")
        window.screen_until("first")
        window.resize(1, 1)
        window.resize(100, 40)
        window.screen_until("[space . left right Home End + - q]")
        window.screen_until("first")
        window.type("q")
        assert window.end() == 0


def test_a_daemon_that_ends_restores_the_terminal(cinema: Orbitctl, projector: Projector) -> None:
    """The error is printed on the user's own screen."""
    with Window(cinema, "session", "replay", "web", "--speed", "0.1", size=(80, 25)) as window:
        window.screen_until("first")
        projector._film.clear()
        projector._film.append((0.0, "x", ""))
        projector._page = lambda params: {"data": "no JSON\n"}  # type: ignore[method-assign]  # another program
        window.type("\x1b[F")
        assert window.end() == 7
        assert window.settings() == window.before
        assert "error: a line of the recording is no JSON" in window.screen()


def test_without_a_film_nothing_is_drawn(cinema: Orbitctl, projector: Projector) -> None:
    """The error is one line, and the terminal was never changed."""
    projector._film.clear()
    with Window(cinema, "session", "replay", "web") as window:
        assert window.end() == 4
        assert "no film of web is kept" in window.screen()
        assert b"\x1b[?1049h" not in window.output


def test_in_a_pipe_it_names_the_command_that_writes_a_file(offline: Orbitctl) -> None:
    """And ends with a usage error, before a daemon is asked."""
    failed = offline("session", "replay", "my web")
    assert failed.code == 2
    assert "`orbitctl session export 'my web'`" in failed.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--speed", "0"), "'0' is no number from 0.1 to 1000"),
        (("--speed", "nan"), "'nan' is no number"),
        (("--idle-limit", "-1"), "'-1' is no number"),
        (("--from", "soon"), "'soon' is no moment"),
        (("--from", "1h", "--until", "2h"), "--until is not after --from"),
    ],
)
def test_options_that_make_no_sense(offline: Orbitctl, options: tuple[str, ...], message: str) -> None:
    """A usage error each."""
    failed = offline("session", "replay", "web", *options)
    assert (failed.code, message in failed.err) == (2, True)


@pytest.mark.parametrize("option", ["--json", "-q"])
def test_neither_json_nor_ids(offline: Orbitctl, option: str) -> None:
    """There is nothing to print."""
    assert offline(option, "session", "replay", "web").code == 2
