"""The template and its forks as real processes: what they inherit, how they end, and what the kernel holds them to."""

from __future__ import annotations

import errno
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from needs import needs
from orbitd.history.search_messages import Done, FromChild, Search, Started
from orbitd.screens import note, process
from orbitd.screens import template as template_module
from orbitd.screens.messages import (
    Exited,
    Fed,
    Fork,
    Forked,
    FromTemplate,
    Hello,
    Paint,
    Painted,
    Save,
    Saved,
)
from orbitd.screens.note import Note
from orbitd.screens.template import Template
from orbitd.sessions.journal_file import Resize
from screens_support import SESSION, Ended, JournalFile, Peer, ScreensFork, TemplateProcess, feed, open_blank


@pytest.fixture(scope="module")
def template() -> Iterator[TemplateProcess]:
    started = TemplateProcess()
    yield started
    started.close()


@pytest.fixture
def fork(template: TemplateProcess) -> ScreensFork:
    return template.fork()


@pytest.fixture
def journal(tmp_path: Path) -> JournalFile:
    return JournalFile(tmp_path / "journal")


def test_a_fork_draws(fork: ScreensFork, journal: JournalFile) -> None:
    """A forked process opens pictures and draws them."""
    end = journal.append(b"hello")
    feed(fork.peer, journal)
    fork.peer.send(Paint(request=2, session=SESSION, at_least=end))
    assert b"hello" in fork.peer.expect(Painted).data


@needs(linux=True)
def test_a_fork_has_only_the_descriptors_that_it_was_given(fork: ScreensFork, journal: JournalFile) -> None:
    """Three times /dev/null, its socket, the note, its own memory's figures, and the journals: nothing else."""
    end = journal.append(b"x")
    feed(fork.peer, journal)
    while fork.peer.expect(Fed).position < end:
        pass
    folder = f"/proc/{fork.pid}/fd"
    found = [os.readlink(f"{folder}/{fd}") for fd in sorted(os.listdir(folder), key=int)]
    named = sorted(path.split(":")[0] if path.startswith("socket") else path for path in found)
    assert named == sorted(
        ["/dev/null"] * 3
        + ["socket", "/memfd:orbit-note (deleted)", f"/proc/{fork.pid}/statm", os.path.realpath(journal.path)]
    )
    assert os.readlink(f"/proc/{fork.pid}/cwd") == "/"


@needs(linux=True)
def test_a_fork_is_limited(fork: ScreensFork) -> None:
    """It writes no core dump; its memory may grow by about a gibibyte in one turn."""
    fork.peer.send(open_blank())
    fork.peer.expect(Fed)
    assert resource.prlimit(fork.pid, resource.RLIMIT_CORE) == (0, 0)
    soft, _ = resource.prlimit(fork.pid, resource.RLIMIT_DATA)
    assert process.MEMORY_BASE < soft < process.MEMORY_BASE * 1.5


@needs(linux=True)
def test_the_template_has_no_threads_and_a_session_of_its_own(template: TemplateProcess) -> None:
    """It may be forked at any time, and a ^C at the terminal of orbitd does not reach it."""
    assert len(os.listdir(f"/proc/{template.hello.pid}/task")) == 1
    assert os.getsid(template.hello.pid) == template.hello.pid


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
def test_signals_that_end_programs_end_neither(
    template: TemplateProcess, fork: ScreensFork, number: signal.Signals
) -> None:
    """Orbitd alone ends them."""
    os.kill(template.hello.pid, number)
    os.kill(fork.pid, number)
    fork.peer.send(open_blank())
    assert fork.peer.expect(Fed).session == SESSION
    assert template.fork().pid


def test_the_end_of_a_fork_is_reported(template: TemplateProcess) -> None:
    """A fork whose socket is closed ends with 0, and the template tells its number."""
    template.fork(number=7).peer.sock.close()
    assert exit_of(template, 7) == 0


def test_the_signal_that_ended_a_fork_is_reported(template: TemplateProcess) -> None:
    """A signal's number is negative in the status."""
    os.kill(template.fork(number=8).pid, signal.SIGKILL)
    assert exit_of(template, 8) == -signal.SIGKILL


def test_a_fork_that_is_sent_nonsense_ends(template: TemplateProcess) -> None:
    """An error that is nobody's picture ends the process with a status of its own."""
    template.fork(number=9).peer.sock.sendall(b"\xff" * 100)
    assert exit_of(template, 9) == os.EX_SOFTWARE


def exit_of(template: TemplateProcess, number: int) -> int:
    """Return a fork's status; those of earlier tests' forks come first."""
    while (exited := template.peer.expect(Exited)).number != number:
        pass
    return exited.status


# The library's faults


FLOOD = b"\x1b#8" * 20_000
"""Fills a screen with E; with 1,000,000 cells, one such piece takes many seconds."""


def start_flood(peer: Peer, journal: JournalFile) -> tuple[int, int]:
    """Let a process work on something that takes seconds; return that record's range."""
    start = journal.append(Resize(cols=1000, rows=1000))
    end = journal.append(FLOOD)
    feed(peer, journal)
    return start, end


def wait_until_it_feeds(fork: ScreensFork, end: int) -> None:
    """Return when a process is in the library with the record that ends there; no message comes from it then."""
    deadline = time.monotonic() + 60
    while (work := fork.note.read()) is None or work.end != end:
        assert time.monotonic() < deadline


def test_a_crash_of_the_library_ends_its_process_and_names_the_record(
    template: TemplateProcess, journal: JournalFile
) -> None:
    """The note says whose output it was, and where; the template and another fork go on."""
    fork, other = template.fork(number=20), template.fork(number=21)
    start, end = start_flood(fork.peer, journal)
    wait_until_it_feeds(fork, end)
    os.kill(fork.pid, signal.SIGSEGV)
    with pytest.raises(Ended):
        fork.peer.expect(Saved)
    assert exit_of(template, 20) == -signal.SIGSEGV
    work = fork.note.read()
    assert work is not None
    assert (work.session, work.kind, work.start, work.end) == (SESSION, note.Kind.FEED, start, end)
    other.peer.send(open_blank())
    assert other.peer.expect(Fed).session == SESSION


def test_a_piece_that_takes_too_much_cpu_time_is_ended(journal: JournalFile) -> None:
    """The kernel ends the process in the middle of the library's work, by SIGPROF; the note says whose it was."""
    ours, its = socket.socketpair()
    fd = note.create()
    script = (
        "from orbitd.screens import process, template; template.warm_up(); "
        f"process.serve({its.fileno()}, {fd}, cpu_seconds=0.2)"
    )
    with subprocess.Popen([sys.executable, "-c", script], pass_fds=[its.fileno(), fd]) as running:
        its.close()
        peer = Peer(ours)
        start, end = start_flood(peer, journal)
        assert running.wait(60) == -signal.SIGPROF
    with ours:
        shared = Note(fd)
        work = shared.read()
        assert work is not None
        assert (work.session, work.kind, work.start, work.end) == (SESSION, note.Kind.FEED, start, end)
    shared.close()
    os.close(fd)


@needs(linux=True)
def test_more_memory_than_allowed_is_refused() -> None:
    """Beyond the limit the kernel gives no memory: an error where it is handled, a crash where it is not."""
    script = (
        "from orbitd.screens.process import Memory\n"
        "Memory().allow(50 << 20)\n"
        "bytearray(20 << 20)\n"
        "try:\n    bytearray(100 << 20)\n"
        "except MemoryError:\n    print('refused')"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout == "refused\n"


def test_an_unfinished_string_that_cannot_be_saved_is_no_failure(fork: ScreensFork, journal: JournalFile) -> None:
    """17 MiB of a title that never ends: the portable screen is saved, and the picture goes on."""
    end = journal.append(b"before \x1b]2;" + b"A" * (17 << 20))
    feed(fork.peer, journal)
    fork.peer.send(Save(request=2, session=SESSION, at_least=end))
    saved = fork.peer.expect(Saved)
    assert (saved.native, saved.position) == (b"", end)
    assert b"before" in saved.portable


# The end of orbitd


@pytest.mark.parametrize("state", ["idle", "stopped", "looping"])
def test_all_forks_end_with_orbitd(journal: JournalFile, state: str) -> None:
    """When orbitd's end of the template's socket is closed every fork is killed, though its own socket is open."""
    started = TemplateProcess()
    fork = started.fork()
    if state == "stopped":
        os.kill(fork.pid, signal.SIGSTOP)
    elif state == "looping":
        wait_until_it_feeds(fork, start_flood(fork.peer, journal)[1])
    started.peer.sock.close()
    assert started.process.wait(60) == 0
    with pytest.raises(Ended):
        fork.peer.expect(Saved)
    started.close()


def test_a_fork_ends_when_orbitd_ends_and_the_template_was_killed() -> None:
    """An orphaned fork serves until the end of its own socket: the template's death closes nothing of it."""
    started = TemplateProcess()
    fork = started.fork()
    started.process.kill()
    started.process.wait(60)
    fork.peer.send(open_blank())
    assert fork.peer.expect(Fed).session == SESSION
    fork.peer.sock.shutdown(socket.SHUT_WR)
    with pytest.raises(Ended):
        fork.peer.expect(Saved)
    started.close()


# Forks that fail


@pytest.fixture
def answers() -> Iterator[Callable[[str], list[object]]]:
    """Return a function: what a template in this process answers to one `Fork`."""
    handler, wakeup = signal.getsignal(signal.SIGCHLD), signal.set_wakeup_fd(-1)

    def ask(unavailable: str) -> list[object]:
        ours, its = socket.socketpair()
        peer = Peer(ours, FromTemplate)
        peer.send(Fork(number=3), fds=(os.dup(ours.fileno()), note.create()))
        ours.shutdown(socket.SHUT_WR)
        with its:
            Template(its, unavailable).run()
        with ours:
            return [peer.receive(), peer.receive()]

    yield ask
    signal.signal(signal.SIGCHLD, handler)
    signal.set_wakeup_fd(wakeup)


def test_a_machine_without_the_library_is_told(answers: Callable[[str], list[object]]) -> None:
    """The template says so at once, and refuses each fork with the reason."""
    reason = "pyghostty is not installed"
    assert answers(reason) == [Hello(pid=os.getpid(), unavailable=reason), Forked(number=3, pid=0, reason=reason)]


def test_a_search_needs_no_library(tmp_path: Path) -> None:
    """A template without terminal emulation forks searches all the same, and reports their end."""
    ours, its = socket.socketpair()
    child, childs = socket.socketpair()
    pid = os.fork()
    if pid == 0:  # the template, which has to be a process of its own: its child must find its own end closed
        ours.close()
        child.close()
        try:
            Template(its, "pyghostty is not installed").run()
        finally:
            os._exit(0)
    its.close()
    peer = Peer(ours, FromTemplate)
    peer.expect(Hello)
    peer.send(Fork(number=7, kind="search"), fds=(childs.detach(),))
    forked = peer.expect(Forked)
    assert (forked.number, forked.reason) == (7, "")
    searched = Peer(child, FromChild)
    search = Search(
        history=str(tmp_path / "none.db"),
        sessions=str(tmp_path / "none.db"),
        query="a",
        regex=False,
        case="smart",
        limit=1,
        seconds=1.0,
    )
    searched.send(search)
    searched.expect(Started)
    assert searched.expect(Done) == Done(position=None, complete=True)
    assert peer.expect(Exited) == Exited(number=7, status=0)
    ours.close()
    child.close()
    assert os.waitpid(pid, 0)[1] == 0


def test_a_library_with_another_interface_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is raised when the library is used for the first time is a reason, not the end of the template."""
    monkeypatch.setattr(template_module, "Emulator", lambda *_: 1 // 0)
    assert "ZeroDivisionError" in template_module.load()


def test_a_fork_that_fails_is_told(answers: Callable[[str], list[object]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system gives no process the template goes on, and says why."""

    def fail() -> int:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", fail)
    assert answers("")[1] == Forked(number=3, pid=0, reason="Resource temporarily unavailable")
