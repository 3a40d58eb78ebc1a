"""When a client whose daemon has gone tries again, and when it has one started. The clock is the test's."""

from __future__ import annotations

import itertools
import socket
from pathlib import Path

import pytest

from ctl_support import clean_environment
from orbit_os.lock_note import format_note, note_of_this_process
from orbitctl.app import App
from orbitctl.attach.reconnect import Reconnect
from orbitctl.client import daemon
from orbitctl.client.light import CONFIG_VARIABLE
from orbitctl.errors import CommandError

KILLED_AT = 100.0


class Outage:
    """A client whose daemon was killed: its socket is there, and nobody listens.

    Attributes:
        starts: When a daemon was to be started.
        is_taken: Another client has one started.
    """

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
        self.app = App(clean_environment(home, **variables))
        self.app.socket = str(home / "s")
        self.socket = home / "s"
        with socket.socket(socket.AF_UNIX) as killed:
            killed.bind(str(self.socket))
        self.starts: list[float] = []
        self.is_taken = False
        self.now = KILLED_AT
        monkeypatch.setattr(daemon, "start_apart", self._start)
        self.reconnect = Reconnect(self.app)
        self.reconnect.start(KILLED_AT)

    def _start(self, paths: object) -> bool:
        assert paths is self.app.paths
        if not self.is_taken:
            self.starts.append(round(self.now - KILLED_AT, 2))
        return not self.is_taken

    def note(self, text: str) -> None:
        """Leave what a daemon has written into its lock file."""
        lock = Path(self.app.paths.resolved.database_path + ".lock")
        lock.parent.mkdir(mode=0o700, parents=True)
        lock.write_text(text)
        lock.chmod(0o600)

    def go_on(self, secs: float) -> list[float]:
        """Attempt whenever it is due; return when that was, in seconds after the kill."""
        until, attempts = self.now + secs, list[float]()
        while self.reconnect.next_deadline(connected=False) <= until:
            self.now = max(self.now, self.reconnect.next_deadline(connected=False))
            if not self.reconnect.should_notify(self.now):
                attempts.append(self.now - KILLED_AT)
            assert self.reconnect.attempt(self.now) is None
        return attempts


@pytest.fixture
def outage(home: Path, monkeypatch: pytest.MonkeyPatch) -> Outage:
    return Outage(home, monkeypatch)


def test_a_daemon_without_a_supervisor_is_started_at_once(outage: Outage) -> None:
    """It is started once, whatever comes of it."""
    outage.note("pid 1\nsocket s\n")
    outage.go_on(5)
    assert outage.starts == [0]


def test_a_supervisor_has_a_second(outage: Outage) -> None:
    """It brings a daemon back by itself, and not always at once: systemd waits for 0.1 s by default."""
    outage.note("pid 1\nsocket s\nsupervisor systemd\n")
    outage.go_on(0.99)
    assert outage.starts == []
    outage.go_on(4)
    assert outage.starts[0] == pytest.approx(1, abs=0.11)


def test_attempts_are_a_tenth_of_the_outage_apart(outage: Outage) -> None:
    """So a daemon that is back is found at once after a short outage, and a long one costs little."""
    attempts = outage.go_on(20)
    gaps = [after - before for before, after in itertools.pairwise(attempts)]
    assert attempts[0] == 0
    # The one moment that is no attempt, when the user is notified, makes one gap of two.
    assert all(gap <= 2 * max(0.01, before * 0.1) + 1e-6 for before, gap in zip(attempts, gaps, strict=False))
    assert min(gaps) > 0.009
    assert gaps[-1] == pytest.approx(0.5)
    assert len(attempts) < 100


def test_one_that_another_client_starts_is_waited_for_and_started_if_that_fails(outage: Outage) -> None:
    """The lock is free again when the other's process has ended, and then it is our turn."""
    outage.is_taken = True
    outage.go_on(2)
    outage.is_taken = False
    outage.go_on(2)
    assert len(outage.starts) == 1
    assert outage.starts[0] > 2


def test_a_daemon_that_was_stopped_is_not_started(outage: Outage) -> None:
    """One that ends in good order takes its socket away."""
    outage.socket.unlink()
    outage.go_on(5)
    assert outage.starts == []


def test_a_killed_daemon_whose_socket_is_gone_is_started(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client without its runtime folder knows by the lock: a daemon that stops in good order clears its note."""
    outage = Outage(home, monkeypatch)
    outage.app.socket = None
    outage.note(format_note(note_of_this_process("/gone/s")._replace(started="1", state="serving")).decode())
    outage.go_on(5)
    assert outage.starts == [0]


def test_one_that_runs_and_listens_nowhere_is_waited_for(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It starts, ends, or is about to listen again: no other one is started, and the client stays."""
    outage = Outage(home, monkeypatch)
    outage.app.socket = None
    outage.note(format_note(note_of_this_process("/gone/s")).decode())
    outage.go_on(5)
    assert outage.starts == []


def test_a_configuration_that_broke_meanwhile_does_not_end_the_client(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which daemon to start is not known then; one that somebody starts is waited for."""
    config = home / "config.toml"
    config.write_text("[broken")
    outage = Outage(home, monkeypatch, **{CONFIG_VARIABLE: str(config)})
    with pytest.raises(CommandError):
        assert outage.app.paths.resolved
    outage.go_on(5)
    assert outage.starts == []


def test_an_installation_that_was_replaced_does_not_end_the_client(
    outage: Outage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a start needs is imported late, and may be gone: a daemon that somebody starts is waited for."""

    def gone(_paths: object) -> bool:
        raise ModuleNotFoundError("No module named 'subprocess'")

    monkeypatch.setattr(daemon, "start_apart", gone)
    assert outage.go_on(5)


def test_the_next_outage_is_a_new_one(outage: Outage) -> None:
    """A daemon that is killed again is started again."""
    outage.go_on(1)
    outage.reconnect.stop()
    outage.now += 100
    outage.reconnect.start(outage.now)
    outage.go_on(1)
    assert len(outage.starts) == 2
