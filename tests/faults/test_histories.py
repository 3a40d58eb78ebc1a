"""Killed in the middle of work on histories: what is forgotten stays so, what is kept is whole, all can be repeated."""

from __future__ import annotations

import contextlib
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from faults.interrupting import TIMES, Interrupted, spread
from faults.shim import Shim
from film_support import film_of, history_of
from forget_support import OTHER, SECRET, fill, holders, stored
from history_sessions import Printing
from support import WAIT_SECS, DaemonProcess, RawClient

pytestmark = pytest.mark.slow


def record(daemon: DaemonProcess, *, ended: bool) -> tuple[str, str]:
    """Record two sessions, of which the first has shown a secret; return their ids."""
    with daemon.client() as client:
        one, other = (Printing(client, name) for name in ("one", "other"))
        fill(one, SECRET)
        fill(other, OTHER)
        if ended:
            for each in (one, other):
                client.call("session.terminate", id=each.id)
    return one.id, other.id


def kept(daemon: DaemonProcess, client: RawClient, *session_ids: str) -> list[Any]:
    """Return the films and the lines of sessions."""
    path = history_of(daemon.database_path)
    return [
        (film_of(path, each), client.call("history.lines", session_id=each, limit=1000)["lines"])
        for each in session_ids
    ]


def is_left(daemon: DaemonProcess) -> set[str]:
    """Return where the secret is, as files have it and as they have it compressed."""
    return holders(daemon.home, SECRET) | stored(daemon, SECRET)


@pytest.mark.parametrize("ended", [True, False])
def test_killed_during_a_forget(stopped_daemon: DaemonProcess, hand: Shim, ended: bool) -> None:
    """What is acknowledged is gone; what is not, a second call forgets; another session loses nothing."""
    daemon, changes = stopped_daemon, 0

    def forget_and_die(moment: int) -> None:
        """Have the daemon killed in its `moment`-th change, at 0 behind the answer; start it, and look."""
        nonlocal changes
        daemon.start()
        one, other = record(daemon, ended=ended)
        with daemon.client() as client:
            before, begun, answered = kept(daemon, client, other), hand.changes, False
            hand.kill_at(moment)
            with contextlib.suppress(OSError, ValueError):
                client.call("history.forget", session_id=one)
                answered = True
        changes = hand.changes - begun
        daemon.kill()
        hand.kill_at(0)
        assert not answered or is_left(daemon) == set()
        daemon.start()
        with daemon.client() as client:
            assert client.call("maintenance.check", limit_secs=60)["ok"]
            assert kept(daemon, client, other) == before
            client.call("history.forget", session_id=one)
            assert is_left(daemon) == set()
            assert kept(daemon, client, other) == before
        daemon.empty()
        daemon.stop()

    forget_and_die(0)
    for moment in spread(changes, TIMES):
        forget_and_die(moment)


def test_killed_while_a_damaged_history_is_brought_over(home: Path) -> None:
    """All that is whole in it is in the new one after the next start, once, and no file is left that nobody names."""
    recorded: list[str] = []
    before: list[Any] = []

    def make(path: Path) -> None:
        daemon = DaemonProcess(home)
        try:
            daemon.start()
            recorded.extend(record(daemon, ended=True))
            with daemon.client() as client:
                before.extend(kept(daemon, client, *recorded))
            daemon.stop()
        finally:
            daemon.end()
        history = history_of(daemon.database_path)
        with history.open("r+b") as file:
            file.write(bytes(100))
        shutil.copytree(history.parent, path)

    work = Interrupted(home, make)
    daemon, begun = work.daemon, work.shim.changes
    try:
        work.begin()
        daemon.start().wait_for_log("history brought over")
        changes = work.shim.changes - begun
        daemon.kill()
        for moment in spread(changes, 2 * TIMES):
            work.begin()
            work.shim.kill_at(moment)
            assert daemon.start(check=False).process is not None
            assert daemon.process.wait(WAIT_SECS) == -signal.SIGKILL
            work.shim.kill_at(0)
            daemon.start()
            with daemon.client() as client:
                third = client.call("session.create", config={"session_type": "local"})["id"]
                client.call("history.forget", session_id=third)  # waits until nothing can come back
                assert kept(daemon, client, *recorded) == before
                assert client.call("maintenance.check", limit_secs=60)["ok"]
            daemon.kill()
            names = {path.name.removesuffix("-wal").removesuffix("-shm") for path in work.folder.glob("history.db*")}
            assert sorted("damaged" in each for each in names) == [False, True, True]
            assert work.debris() == []
    finally:
        daemon.end()
