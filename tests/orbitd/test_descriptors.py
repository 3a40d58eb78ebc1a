"""Who may take the last file descriptors."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource

import pytest

from orbit_protocol.errors import TooManySessions
from orbitd.descriptors import (
    A_SESSION,
    FOR_HISTORY,
    FOR_STORE,
    KEPT_BACK,
    OWN,
    SessionRoom,
    count_open,
    lowest_free,
    too_many,
)
from orbitd.maintenance import Maintenance, MaintenanceTask
from orbitd.warnings import connection_warnings

OTHERS = OWN + 2


class Open:
    """A process with descriptors of its own, and those of sessions; the quiet ones have their journals closed."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.sessions = self.quiet = 0
        self.others = OTHERS
        self.clients = self.database = 0
        self.room = SessionRoom(
            lambda: (self.sessions, self.held),
            lambda: self.database,
            lambda: self.others + self.held + self.clients + self.database,
            lambda: self.limit,
        )
        self.room.count_clients = lambda: self.clients

    @property
    def held(self) -> int:
        return A_SESSION * self.sessions - self.quiet

    def fill(self) -> None:
        with contextlib.suppress(TooManySessions):
            while True:
                with self.room.take():
                    self.sessions += 1


@pytest.mark.parametrize("limit", [128, 256, 1024, 4096])
def test_sessions_leave_some_for_clients_and_the_store(limit: int) -> None:
    """However many are started, some stay for others; and there is no room wasted."""
    opened = Open(limit)
    opened.fill()
    left = limit - opened.others - opened.held
    assert KEPT_BACK + FOR_STORE + FOR_HISTORY <= left < KEPT_BACK + FOR_STORE + FOR_HISTORY + A_SESSION


def test_quiet_sessions_count_as_others() -> None:
    """A closed journal is opened again when the program prints: its place is not given away."""
    noisy, quiet = Open(256), Open(256)
    noisy.fill()
    quiet.sessions = quiet.quiet = 40
    quiet.fill()
    assert quiet.sessions == noisy.sessions


@pytest.mark.parametrize(("clients", "database"), [(0, 1), (1, 0), (5, 7), (KEPT_BACK, FOR_STORE + FOR_HISTORY)])
def test_what_is_kept_back_is_not_taken_twice(clients: int, database: int) -> None:
    """Clients and databases have what is kept back for them: whoever comes, as many sessions fit."""
    alone, beside = Open(256), Open(256)
    alone.fill()
    beside.clients, beside.database = clients, database
    beside.fill()
    assert beside.sessions == alone.sessions
    beside.clients, beside.database = KEPT_BACK + 2, FOR_STORE + FOR_HISTORY + 2
    assert beside.room.used()[1] == alone.sessions - 2


def test_processes_that_are_not_there_yet_count() -> None:
    """The daemon's own descriptors count before it has them: sessions do not take their places."""
    early, late = Open(256), Open(256)
    early.others, late.others = OWN - 10, OWN
    early.fill()
    late.fill()
    assert early.sessions == late.sessions


def test_starts_at_the_same_time_count() -> None:
    """A session that is being started has none of its descriptors yet, and its place is taken all the same."""
    opened = Open(KEPT_BACK + FOR_STORE + FOR_HISTORY + OTHERS + A_SESSION)
    with opened.room.take(), pytest.raises(TooManySessions), opened.room.take():
        pass
    with opened.room.take():
        pass


def test_the_refusal_names_the_limit_and_how_to_raise_it() -> None:
    """The error has the limit in its data, and its hint the two ways to raise it."""
    with pytest.raises(TooManySessions) as refused, Open(64).room.take():
        pass
    assert refused.value.extra == {"resource": "descriptors", "limit": 64}
    assert "`ulimit -n`" in refused.value.hint
    assert "LimitNOFILE=" in refused.value.hint
    assert refused.value.retryable


def test_there_is_a_warning_before_the_last() -> None:
    """From four fifths on a sentence says how many more there can be."""
    opened = Open(256)
    opened.fill()
    most = opened.sessions
    opened.sessions = most * 4 // 5
    assert opened.room.warning() == []
    opened.sessions = most * 4 // 5 + 1
    (sentence,) = opened.room.warning()
    assert f"{opened.sessions} of at most {most} live sessions" in sentence


@pytest.mark.parametrize(
    ("number", "kind", "limit"),
    [
        (errno.EMFILE, "descriptors", resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
        (errno.ENFILE, "descriptors", resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
        (errno.ENOMEM, "memory", None),
    ],
)
def test_errors_of_the_system_that_mean_too_many(number: int, kind: str, limit: int | None) -> None:
    """No descriptor and no memory are errors of their own; what else can fail is not."""
    error = too_many(OSError(number, os.strerror(number)), "The terminal cannot be had")
    assert error is not None
    assert error.extra == {"resource": kind, "limit": limit}
    assert os.strerror(number) in error.message
    assert too_many(OSError(errno.EACCES, "no"), "The terminal cannot be had") is None


def test_no_process_is_too_many() -> None:
    """EAGAIN of fork(2) is a limit of processes."""
    error = too_many(OSError(errno.EAGAIN, "no"), "The program cannot be started")
    assert error is not None
    assert error.extra["resource"] == "processes"


def test_descriptors_are_counted() -> None:
    """One more is open while a file is, and the next one has the lowest number that is free."""
    before, lowest = count_open(), lowest_free()
    fd = os.open(os.devnull, os.O_RDONLY)
    assert (count_open(), fd) == (before + 1, lowest)
    os.close(fd)
    assert lowest_free() == lowest


async def test_a_task_that_finds_no_thread_says_so() -> None:
    """What `status` shows of it is a sentence and a remedy, and no class of Python."""
    again = asyncio.Event()

    async def fail() -> None:
        if maintenance.status()[0].last_error:
            again.set()
        raise RuntimeError("can't start new thread")

    maintenance = Maintenance([MaintenanceTask("rows", 0.0, fail)])
    running = asyncio.create_task(maintenance.run())
    await again.wait()
    running.cancel()
    found = maintenance.status()[0].last_error
    assert found is not None
    assert found.startswith("no thread is left: raise the limits of processes and memory (`ulimit -u`")


def test_what_is_full_by_the_limit_of_descriptors_is_not_put_down_to_the_configuration() -> None:
    """Where fewer clients are served than are configured, to configure more would not help."""
    (by_limit,) = connection_warnings(48, 256, is_full=True)
    assert "ulimit -n" in by_limit
    (configured,) = connection_warnings(256, 256, is_full=True)
    assert "max_connections" in configured
    assert connection_warnings(48, 256, is_full=False) == []
