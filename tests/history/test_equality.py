"""A day of work happens in a session, and its screen at any moment of it is the screen that was there."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from history_support import SMALL_DAY, Day, Moment, write_day
from live.sessions import drawn, wait_for_end
from support import DaemonProcess, RawClient
from terminal_support import noise

MOMENTS = 60


@pytest.fixture
def saving_daemon(home: Path, stopped_daemon: DaemonProcess) -> DaemonProcess:
    """A daemon that saves each session once a second: what happens in seconds has many chunks."""
    folder = home / ".config" / "orbit"
    folder.mkdir(parents=True, mode=0o700)
    (folder / "config.toml").write_text("[session]\nauto_save_interval_secs = 1\n")
    return stopped_daemon.start()


@contextlib.contextmanager
def day_of(client: RawClient, home: Path, path: Path = SMALL_DAY) -> Iterator[Day]:
    with Day(client, path, home) as day:
        yield day
    wait_for_end(day.pid)  # before its files are removed


def different(client: RawClient, session_id: str, moments: list[Moment]) -> list[str]:
    """Return the moments at which the film shows another screen than was there."""
    wrong = []
    for moment in moments:
        then = client.call("session.screen", id=session_id, format="vt", at=moment.at)
        if drawn(base64.b64decode(then["data"]), (then["cols"], then["rows"])) != moment.screen:
            wrong.append(moment.at)
    return wrong


@pytest.mark.slow
def test_the_screen_of_each_moment_of_noise_is_the_one_that_was_there(home: Path, saving_daemon: DaemonProcess) -> None:
    """Neither bytes that are no UTF-8, nor sequences that are not finished, nor terminals of one cell change that."""
    first, *steps = (step for seed in range(12) for step in noise(seed))
    assert isinstance(first, tuple)
    write_day(home / "noise", [(0, first), *((0, step) for step in steps)])
    with saving_daemon.client() as client, day_of(client, home, home / "noise") as day:
        moments = list(day.moments(MOMENTS))
        assert different(client, day.session_id, moments) == []


@pytest.mark.slow
def test_the_screen_of_each_moment_is_the_one_that_was_there(home: Path, saving_daemon: DaemonProcess) -> None:
    """Cells, styles, cursor and modes are those of a terminal that saw the same, also after kill -9 of the daemon."""
    with saving_daemon.client() as client, day_of(client, home) as day:
        moments = list(day.moments(MOMENTS))
        assert len(moments) == MOMENTS
        assert len({moment.screen.cols for moment in moments}) > 3  # the window has changed its size
        assert different(client, day.session_id, moments) == []
        saving_daemon.kill()
        saving_daemon.start()
        with saving_daemon.client() as again:
            assert different(again, day.session_id, moments[::3]) == []
            again.call("session.signal", id=day.session_id, signal="KILL")
            again.call("session.wait", id=day.session_id)  # for its exit, below which a line is drawn
            assert different(again, day.session_id, moments[1::3]) == []
