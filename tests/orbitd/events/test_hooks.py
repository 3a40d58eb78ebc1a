"""Hooks: what is run for which event, how many at once, and what is said of those that fail."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from orbit_protocol.types import Event
from orbitd.events import child, hooks
from orbitd.events.child import Surroundings
from orbitd.events.hooks import AT_ONCE, EVENT_BYTES, WAITING, Hooks
from support import WAIT_SECS


def event(kind: str = "command.finished", data: bytes = b'{"exit_code":3}', session_id: str | None = "s1") -> Event:
    return Event(
        seq=7,
        at=datetime(2026, 1, 1, tzinfo=UTC),
        kind=kind,
        session_id=session_id,
        workspace_id=None,
        data=msgspec.Raw(data),
        cursor="e-7",
    )


class Runs:
    """A stand-in for running programs: each one waits, in its thread, until it is let end."""

    def __init__(self) -> None:
        self.started: list[tuple[str, dict[str, str]]] = []
        self.result = ""
        self.may_end = threading.Event()
        self.has_started = threading.Condition()

    def __call__(self, argv: Sequence[str], _: Surroundings, variables: Mapping[str, str], *__: object) -> str:
        with self.has_started:
            self.started.append((argv[0], dict(variables)))
            self.has_started.notify_all()
        assert self.may_end.wait(WAIT_SECS)
        return self.result

    async def wait_for(self, count: int) -> None:
        def wait() -> None:
            with self.has_started:
                assert self.has_started.wait_for(lambda: len(self.started) >= count, WAIT_SECS)

        await asyncio.to_thread(wait)


SURROUNDINGS = Surroundings(env={b"HOME": b"/home/ada", b"PATH": os.environb[b"PATH"]}, umask=0o22)


def new_hooks(configured: dict[str, list[str]], runs: Runs) -> Hooks:
    return Hooks(configured, lambda: SURROUNDINGS, lambda session_id: {"s1": "web"}.get(session_id), runs)


async def test_which_hooks_an_event_runs() -> None:
    """An event runs the hooks of its kind and of its group, `~/` is the home, and all of it is in their environment."""
    runs = Runs()
    runs.may_end.set()
    subject = new_hooks({"command.finished": ["~/bin/done", "x"], "command.*": ["every"], "daemon.*": ["other"]}, runs)
    assert subject.kinds >= {"command.finished", "daemon.started", "daemon.warning"}
    subject.handle(event())
    subject.handle(event("session.created"))
    await runs.wait_for(2)
    await subject.close()
    assert sorted(name for name, _ in runs.started) == ["/home/ada/bin/done", "every"]
    given = runs.started[0][1]
    assert {name: value for name, value in given.items() if name != "ORBIT_EVENT"} == {
        "ORBIT_KIND": "command.finished",
        "ORBIT_SESSION": "s1",
        "ORBIT_SESSION_NAME": "web",
    }
    assert json.loads(given["ORBIT_EVENT"]) == {
        "seq": 7,
        "at": "2026-01-01T00:00:00Z",
        "kind": "command.finished",
        "session_id": "s1",
        "workspace_id": None,
        "data": {"exit_code": 3},
        "cursor": "e-7",
    }


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b'{"id":"s2","name":"api","status":"terminated"}', "api"),
        (b'{"id":"s2","name":null}', None),
        (b'{"id":"s1","name":"other"}', None),
        (b'{"id":2,"name":"other"}', None),
        (b'"text"', None),
    ],
)
async def test_the_name_of_a_session_that_has_ended(data: bytes, name: str | None) -> None:
    """The daemon forgets a session that has ended; its last events still have its name."""
    runs = Runs()
    runs.may_end.set()
    subject = new_hooks({"session.exited": ["x"]}, runs)
    subject.handle(event("session.exited", data, session_id="s2"))
    await runs.wait_for(1)
    await subject.close()
    assert runs.started[0][1].get("ORBIT_SESSION_NAME") == name


def test_a_long_event() -> None:
    """An event that is too long for a variable comes without its data; one of the daemon's has no session."""
    long = event("workspace.updated", b'"' + b"x" * EVENT_BYTES + b'"', session_id=None)
    given = hooks.variables(long, None)
    assert (json.loads(given["ORBIT_EVENT"])["data"], sorted(given)) == (None, ["ORBIT_EVENT", "ORBIT_KIND"])


async def test_how_many_run_at_once() -> None:
    """Eight run at a time, so many wait, and what comes then is dropped, and said."""
    runs = Runs()
    subject = new_hooks({"command.finished": ["hook"]}, runs)
    for _ in range(AT_ONCE):
        subject.handle(event())
    await runs.wait_for(AT_ONCE)
    for _ in range(WAITING + 3):
        subject.handle(event())
    assert len(runs.started) == AT_ONCE
    assert ["3 events" in each for each in subject.warnings()] == [True]
    runs.may_end.set()
    await runs.wait_for(AT_ONCE + WAITING)
    await subject.close()
    assert len(runs.started) == AT_ONCE + WAITING


async def test_a_hook_that_fails() -> None:
    """A hook that fails is named with its last words until it has worked again."""
    runs = Runs()
    runs.may_end.set()
    runs.result = "exit 3: no such host"
    subject = new_hooks({"command.*": ["hook", "a b"]}, runs)
    subject.handle(event())
    await subject._tasks.finish(WAIT_SECS)
    assert subject.warnings() == [
        "The hook of command.* fails (hook 'a b'): exit 3: no such host. It is tried again with the next such event."
    ]
    runs.result = ""
    subject.handle(event())
    await subject._tasks.finish(WAIT_SECS)
    assert subject.warnings() == []
    await subject.close()


async def test_the_end_of_the_daemon(tmp_path: Path) -> None:
    """When the daemon stops, a hook that runs is killed, and what waits is not begun."""
    subject = Hooks({"command.finished": ["sleep", "600"]}, lambda: SURROUNDINGS, lambda _: None)
    for _ in range(AT_ONCE + 1):
        subject.handle(event())
    began = time.monotonic()
    await subject.close()
    subject.handle(event())
    assert time.monotonic() - began < hooks.LIMIT_SECS
    assert subject.warnings() == []


def run(tmp_path: Path, *argv: str, timeout_secs: float = 30, **variables: str) -> str:
    home = os.fsencode(tmp_path)
    surroundings = Surroundings(env={b"HOME": home, b"PATH": os.environb[b"PATH"]}, umask=0o27, limits={"nofile": 99})
    return child.run(argv, surroundings, variables, timeout_secs)


def test_what_a_program_gets(tmp_path: Path) -> None:
    """A program starts in HOME with the umask and limits of a login, clean signals, nothing open, its own session."""
    look = (
        "import json, os, resource, signal, sys; "
        "ignored = [n for n in signal.valid_signals() if signal.getsignal(n) == signal.SIG_IGN]; "
        "print(json.dumps([os.getcwd(), os.umask(0), resource.getrlimit(resource.RLIMIT_NOFILE)[0], ignored, "
        "sorted(os.listdir('/dev/fd'))[:3], len(os.listdir('/dev/fd')), os.getsid(0) == os.getpid() == os.getpgrp(), "
        "sorted(signal.pthread_sigmask(0, [])), os.environ['X'], len(sys.stdin.read())]), file=open('found', 'w'))"
    )
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert run(tmp_path, sys.executable, "-c", look, X="a\nb") == ""
    finally:
        signal.signal(signal.SIGHUP, before)
    found = json.loads((tmp_path / "found").read_text())
    python_ignores = [int(signal.SIGPIPE), *([int(signal.SIGXFSZ)] if hasattr(signal, "SIGXFSZ") else [])]
    assert found == [str(tmp_path), 0o27, 99, python_ignores, ["0", "1", "2"], 4, True, [], "a\nb", 0]


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("exit 0", ""),
        ("echo out; echo first >&2; printf 'last \\033[1m\\n\\n' >&2; exit 3", "exit 3: last \\x1b[1m"),
        ("exit 4", "exit 4"),
        ("kill -9 $$", "signal SIGKILL"),
        ("head -c 300000 /dev/zero | tr '\\0' x >&2; exit 5", "exit 5: " + 200 * "x"),
        ("sleep 600 & exit 6", "exit 6"),
    ],
    ids=["well", "its last line", "silent", "killed", "much", "leaves a child"],
)
def test_how_a_program_ends(tmp_path: Path, script: str, said: str) -> None:
    """Exit code or signal are told with the last line of stderr; output is not collected, nor the end of children."""
    pids: list[int] = []
    surroundings = Surroundings(env={b"HOME": os.fsencode(tmp_path), b"PATH": os.environb[b"PATH"]}, umask=0o22)
    try:
        assert child.run(["sh", "-c", script], surroundings, {}, 30, pids.append) == said
    finally:
        child.kill_group(pids[0])


def test_a_program_that_does_not_end(tmp_path: Path) -> None:
    """One that runs too long is killed with all that it has started."""
    script = "sleep 600 & echo $! > pid; trap '' TERM; echo waiting >&2; wait"
    assert run(tmp_path, "sh", "-c", script, timeout_secs=0.5) == "it was killed after 0.5 s: waiting"
    started = int((tmp_path / "pid").read_text())
    with pytest.raises(ProcessLookupError):  # noqa: PT012  # it may take the system a moment
        while True:
            os.kill(started, 0)
            if Path(f"/proc/{started}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                raise ProcessLookupError


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    """One that cannot be executed is told, as is one whose HOME is gone."""
    assert run(tmp_path, "/nosuch") == "exit 1: No such file or directory"
    assert run(tmp_path / "nosuch", "sh", "-c", "test $PWD = / || echo in $PWD >&2; exit 2") == "exit 2"
