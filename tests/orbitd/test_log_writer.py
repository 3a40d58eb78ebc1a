"""The log's writer: whatever is at the other end of stderr, nobody waits for it, and no file grows without limit."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import pty
import re
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from orbitd.log_writer import MAX_QUEUED_LINES, LineWriter
from orbitd.logs import (
    FIRST_WINDOW_SECS,
    MAX_EVENTS,
    MAX_LINES_A_WINDOW,
    MAX_WINDOW_SECS,
    LogHandler,
    RepeatedEvent,
    RepeatLimiter,
    TextFormatter,
    event,
)

LINES = 5 * MAX_QUEUED_LINES
LONG = b"x" * 200
WAIT_SECS = 20.0
BUSY = RepeatedEvent("orbitd.rpc", logging.WARNING, "too many connections")


def numbered(count: int) -> list[bytes]:
    return [b"%d %s\n" % (number, LONG) for number in range(count)]


@contextlib.contextmanager
def stopped_terminal() -> Iterator[tuple[int, int]]:
    """A terminal whose user has typed Ctrl-S: its master, and the end that programs write to."""
    master, slave = pty.openpty()
    termios.tcflow(slave, termios.TCOOFF)
    try:
        yield master, slave
    finally:
        os.close(master)
        os.close(slave)


def read_all(fd: int, writer: LineWriter, last: bytes) -> bytes:
    data = b""
    while last not in data:
        data += os.read(fd, 65536).replace(b"\r\n", b"\n")
    assert writer.flush(WAIT_SECS)
    return data


def check_counted(written: bytes) -> None:
    """Each line stands there once and whole or is in the count, which stands where they are missing."""
    lines = written.splitlines()
    notice = next(line for line in lines if b"dropped" in line)
    count = int(re.findall(rb"\d+", notice)[0])
    whole = lines[: lines.index(notice)]
    assert whole == [line.rstrip() for line in numbered(len(whole))]
    assert len(whole) + count == LINES
    assert lines[-1] == b"last"


def test_a_pipe_that_nobody_reads_drops_and_counts() -> None:
    """Lines are taken at once; those beyond the queue are counted by one line, once the pipe is read again."""
    reader, fd = os.pipe()
    writer = LineWriter(fd)
    for line in numbered(LINES):
        writer.put(line)
    assert not writer.flush(0)
    written = read_all(reader, writer, b"dropped\n")
    writer.put(b"last\n")
    check_counted(written + read_all(reader, writer, b"last\n"))
    os.close(reader)
    os.close(fd)


def test_a_stopped_terminal_drops_and_counts() -> None:
    """Ctrl-S stops the lines and nothing else; after Ctrl-Q those that were kept come, and the count of the others."""
    with stopped_terminal() as (master, slave):
        writer = LineWriter(slave)
        for line in numbered(LINES):
            writer.put(line)
        assert not writer.flush(0)
        termios.tcflow(slave, termios.TCOON)
        written = read_all(master, writer, b"dropped\n")
        writer.put(b"last\n")
        check_counted(written + read_all(master, writer, b"last\n"))


def test_a_terminal_that_somebody_has_made_non_blocking_gets_all_lines() -> None:
    """The flag is shared by all processes of a terminal: lines wait until it takes more."""
    reader, fd = os.pipe()
    os.set_blocking(fd, False)
    writer = LineWriter(fd)
    for line in numbered(MAX_QUEUED_LINES):
        writer.put(line)
    writer.put(b"last\n")
    assert read_all(reader, writer, b"last\n") == b"".join([*numbered(MAX_QUEUED_LINES), b"last\n"])
    os.close(reader)
    os.close(fd)


def test_a_full_disk_and_a_closed_descriptor_are_counted(tmp_path: Path) -> None:
    """No error of write(2) leaves the writer; the first line that is taken again says how many were lost."""
    fd = os.open("/dev/full", os.O_WRONLY)
    writer = LineWriter(fd)
    writer.put(b"1\n")
    assert writer.flush(WAIT_SECS)
    reader, broken = os.pipe()
    os.close(reader)
    for bad in (broken, os.open(os.devnull, os.O_RDONLY)):
        os.dup2(bad, fd)
        os.close(bad)
        writer.put(b"2\n")
        assert writer.flush(WAIT_SECS)
    file = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    os.dup2(file, fd)
    writer.put(b"4\n")
    writer.put(b"5\n")
    assert writer.flush(WAIT_SECS)
    assert (tmp_path / "log").read_bytes() == b"orbitd: 3 lines were dropped\n4\n5\n"
    os.close(file)
    os.close(fd)


SHORT_DISK = """
import os, resource, sys
from orbitd.log_writer import LineWriter
writer = LineWriter(2)
resource.setrlimit(resource.RLIMIT_FSIZE, (8, resource.RLIM_INFINITY))
for line in (b"first\\n", b"second\\n", b"third\\n"):
    writer.put(line)
writer.flush(20)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
writer.put(b"fourth\\n")
writer.flush(20)
"""


def test_a_line_that_was_torn_by_a_full_disk_is_ended(tmp_path: Path) -> None:
    """What comes behind the beginning of a line stands on a line of its own."""
    with (tmp_path / "log").open("ab") as log:
        subprocess.run([sys.executable, "-c", SHORT_DISK], stderr=log, check=True, timeout=WAIT_SECS)
    assert (tmp_path / "log").read_bytes() == b"first\nse\norbitd: 2 lines were dropped\nfourth\n"


def refuse_threads(patch: pytest.MonkeyPatch) -> None:
    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    patch.setattr(threading.Thread, "start", start)


def test_where_no_thread_can_be_started_the_next_line_tries_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is no error; the line waits."""
    fd = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    writer = LineWriter(fd)
    with monkeypatch.context() as patched:
        refuse_threads(patched)
        writer.put(b"1\n")
    writer.put(b"2\n")
    assert writer.flush(WAIT_SECS)
    assert (tmp_path / "log").read_bytes() == b"1\n2\n"
    os.close(fd)


def test_without_a_thread_the_last_lines_are_written_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever ends the process writes them, and how many there was no room for."""
    refuse_threads(monkeypatch)
    fd = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    writer = LineWriter(fd)
    for line in numbered(LINES):
        writer.put(line)
    assert writer.flush(WAIT_SECS)
    writer.put(b"last\n")
    assert writer.flush(0)
    check_counted((tmp_path / "log").read_bytes())
    os.close(fd)


def test_without_a_thread_a_pipe_that_nobody_reads_does_not_hold_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fits is written, and the rest is left."""
    refuse_threads(monkeypatch)
    reader, fd = os.pipe()
    writer = LineWriter(fd)
    for line in numbered(LINES):
        writer.put(line)
    assert not writer.flush(0)
    os.close(fd)
    written = b""
    while data := os.read(reader, 65536):
        written += data
    assert written
    assert b"".join(numbered(MAX_QUEUED_LINES)).startswith(written)
    os.close(reader)


def test_without_a_thread_a_stopped_terminal_does_not_hold_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """After Ctrl-S nothing is written."""
    refuse_threads(monkeypatch)
    with stopped_terminal() as (_, slave):
        writer = LineWriter(slave)
        writer.put(b"1\n")
        assert not writer.flush(0)


def test_the_count_is_written_before_the_flush_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process may end right behind it."""
    order: list[str] = []

    class Event(threading.Event):
        def set(self) -> None:
            order.append("set")
            super().set()

    refuse_threads(monkeypatch)
    monkeypatch.setattr(threading, "Event", Event)
    fd = os.open(os.devnull, os.O_WRONLY)
    writer = LineWriter(fd)
    writer.dropped_line = lambda _: order.append("count") or b"dropped\n"  # type: ignore[func-returns-value]
    for line in numbered(LINES):
        writer.put(line)
    assert writer.flush(WAIT_SECS)
    assert order == ["count", "set"]
    os.close(fd)


# The log file


@contextlib.contextmanager
def log_of(path: Path, max_bytes: int) -> Iterator[LineWriter]:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    writer = LineWriter(fd, max_bytes)
    writer.rotate(str(path))
    try:
        yield writer
    finally:
        assert writer.flush(WAIT_SECS)
        os.close(fd)


def write(writer: LineWriter, *lines: bytes) -> None:
    for line in lines:
        writer.put(line)
        assert writer.flush(WAIT_SECS)


def test_the_log_file_has_a_limit_and_one_predecessor(tmp_path: Path) -> None:
    """At the limit it is renamed in the place of the one before; lines go on in a new one, private like the first."""
    log, old = tmp_path / "orbitd.log", tmp_path / "orbitd.log.1"
    with log_of(log, 6) as writer:
        write(writer, b"1\n", b"2\n", b"3\n")
        assert not old.exists()
        write(writer, b"4\n")
        assert (old.read_bytes(), log.read_bytes()) == (b"1\n2\n3\n", b"4\n")
        write(writer, b"5\n", b"6\n", b"7\n")
    assert (old.read_bytes(), log.read_bytes()) == (b"4\n5\n6\n", b"7\n")
    assert [path.stat().st_mode & 0o777 for path in (log, old)] == [0o600, 0o600]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["orbitd.log", "orbitd.log.1"]


def test_a_link_in_the_predecessors_place_is_replaced_and_not_followed(tmp_path: Path) -> None:
    """What somebody has put there stays as it is."""
    log, precious = tmp_path / "orbitd.log", tmp_path / "precious"
    precious.write_bytes(b"precious")
    (tmp_path / "orbitd.log.1").symlink_to(precious)
    with log_of(log, 2) as writer:
        write(writer, b"1\n", b"2\n")
    assert precious.read_bytes() == b"precious"
    assert (tmp_path / "orbitd.log.1").read_bytes() == b"1\n"


@pytest.mark.parametrize("obstacle", ["orbitd.log.1", "orbitd.log", "orbitd.log.new"])
def test_where_it_cannot_be_renamed_it_is_emptied_at_twice_the_limit(tmp_path: Path, obstacle: str) -> None:
    """With a folder in the way it goes on for a while, and then does not fill the disk."""
    log = tmp_path / "orbitd.log"
    with log_of(log, 2) as writer:
        write(writer, b"1\n")
        if obstacle == "orbitd.log":
            log.rename(tmp_path / "away")
            log = tmp_path / "away"
        (tmp_path / obstacle / "full").mkdir(parents=True)
        write(writer, b"2\n")
        assert log.read_bytes() == b"1\n2\n"
        write(writer, b"3\n")
    assert log.read_bytes() == b"3\n"
    assert {path.name for path in tmp_path.iterdir()} == {log.name, obstacle}


@pytest.mark.parametrize("failure", [errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EACCES])
def test_where_no_new_file_can_be_made_no_line_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: int
) -> None:
    """Without a descriptor or an inode lines go on in the old file, which is renamed as soon as there is one."""

    def refuse(path: str, _flags: int) -> int:
        raise OSError(failure, os.strerror(failure), path)

    log, old = tmp_path / "orbitd.log", tmp_path / "orbitd.log.1"
    old.write_bytes(b"0\n")
    with log_of(log, 4) as writer:
        write(writer, b"1\n", b"2\n")
        with monkeypatch.context() as patched:
            patched.setattr("orbitd.log_writer.open_private", refuse)
            write(writer, b"3\n", b"4\n")
        assert (old.read_bytes(), log.read_bytes()) == (b"0\n", b"1\n2\n3\n4\n")
        write(writer, b"5\n")
    assert (old.read_bytes(), log.read_bytes()) == (b"1\n2\n3\n4\n", b"5\n")


def test_what_a_killed_daemon_left_is_replaced(tmp_path: Path) -> None:
    """A new file that never got its name is no obstacle, and none of its lines come back."""
    log = tmp_path / "orbitd.log"
    (tmp_path / "orbitd.log.new").write_bytes(b"left\n")
    with log_of(log, 2) as writer:
        write(writer, b"1\n", b"2\n")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        "orbitd.log": b"2\n",
        "orbitd.log.1": b"1\n",
    }


def test_a_log_file_that_was_removed_comes_back(tmp_path: Path) -> None:
    """Lines do not go for ever into a file that has no name; one that was moved away is left alone."""
    log = tmp_path / "orbitd.log"
    with log_of(log, 2) as writer:
        write(writer, b"1\n")
        log.rename(tmp_path / "moved")
        write(writer, b"2\n")
        log.unlink()
        write(writer, b"3\n")
    assert ((tmp_path / "moved").read_bytes(), log.read_bytes()) == (b"1\n", b"3\n")
    assert not (tmp_path / "orbitd.log.1").exists()


def test_another_file_than_the_log_file_is_not_touched(tmp_path: Path) -> None:
    """Where the user has sent stderr elsewhere, the file is the user's."""
    (tmp_path / "orbitd.log").write_bytes(b"")
    fd = os.open(tmp_path / "mine", os.O_WRONLY | os.O_CREAT)
    writer = LineWriter(fd, max_bytes=2)
    writer.rotate(str(tmp_path / "orbitd.log"))
    write(writer, b"1\n", b"2\n")
    os.close(fd)
    assert (tmp_path / "mine").read_bytes() == b"1\n2\n"


# Repetitions


def test_a_line_that_repeats_itself_is_written_once_and_counted() -> None:
    """The count comes at the end of the window, and the next window is longer, up to a limit."""
    limiter = RepeatLimiter()
    assert [limiter.admit(BUSY, "limit=64", 0.0) for _ in range(4000)] == [True] + 3999 * [False]
    assert limiter.ended(FIRST_WINDOW_SECS - 0.1) == []
    assert [(one.times, one.secs) for one in limiter.ended(FIRST_WINDOW_SECS)] == [(3999, FIRST_WINDOW_SECS)]
    now, secs = FIRST_WINDOW_SECS, []
    for _ in range(10):
        assert [limiter.admit(BUSY, "limit=64", now) for _ in range(2)] == [True, False]
        end = limiter.next_end()
        assert end is not None
        secs.append(end - now)
        now = end
        assert [one.times for one in limiter.ended(now)] == [1]
    assert secs[:3] == [2 * FIRST_WINDOW_SECS, 4 * FIRST_WINDOW_SECS, 8 * FIRST_WINDOW_SECS]
    assert secs[-1] == MAX_WINDOW_SECS


def test_an_event_that_has_been_quiet_begins_anew() -> None:
    """Windows in which nothing was left out say nothing, and are forgotten."""
    limiter = RepeatLimiter()
    assert limiter.admit(BUSY, "limit=64", 0.0)
    assert limiter.next_end() is None
    assert limiter.ended(FIRST_WINDOW_SECS) == []
    assert limiter.admit(BUSY, "limit=64", FIRST_WINDOW_SECS)


def test_a_flood_of_nearly_equal_lines_is_limited_too() -> None:
    """Lines that differ in their fields are written up to a number, and then counted; other events are not affected."""
    limiter = RepeatLimiter()
    written = sum(limiter.admit(BUSY, f"pid={number}", 0.0) for number in range(1000))
    assert written == MAX_LINES_A_WINDOW
    assert limiter.admit(RepeatedEvent("orbitd", logging.ERROR, "too many connections"), "pid=1", 0.0)
    assert [one.times for one in limiter.ended(FIRST_WINDOW_SECS)] == [1000 - MAX_LINES_A_WINDOW]


def test_a_flood_of_different_events_is_limited_too() -> None:
    """Beyond a number of events that are counted apart, the others are counted together."""
    limiter = RepeatLimiter()
    events = [RepeatedEvent("library", logging.ERROR, f"failed {number}") for number in range(1000)]
    written = sum(limiter.admit(each, each.message, 0.0) for each in events)
    assert written == MAX_EVENTS + MAX_LINES_A_WINDOW
    assert [one.times for one in limiter.ended(FIRST_WINDOW_SECS)] == [1000 - written]


def test_the_log_says_how_often_a_line_was_repeated(tmp_path: Path) -> None:
    """First occurrences of each event are there, and the count at its level; debug lines are all there."""
    path = tmp_path / "log"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    handler = LogHandler(TextFormatter(), LineWriter(fd))
    log = logging.Logger("orbitd.test")
    log.addHandler(handler)
    for _ in range(100):
        event(log, logging.WARNING, "too many connections", limit=64)
        event(log, logging.ERROR, "request failed", reference="r")
    for _ in range(3):
        event(log, logging.DEBUG, "connection closed")
    assert handler.finish(WAIT_SECS)
    lines = [line.split(" ", 1)[1] for line in path.read_text().splitlines()]
    assert sorted(lines) == sorted(
        [
            "warning too many connections limit=64",
            "error request failed reference=r",
            *3 * ["debug connection closed"],
            'warning repeated event="too many connections" times=99 secs=2',
            'error repeated event="request failed" times=99 secs=2',
        ]
    )
    os.close(fd)


def test_a_count_is_written_without_another_line(tmp_path: Path) -> None:
    """The writer's thread wakes up for it, also if it has waited for a line without end when the repetitions came."""
    reader, fd = os.pipe()
    writer = LineWriter(fd)
    handler = LogHandler(TextFormatter(), writer)
    log = logging.Logger("orbitd.test")
    log.addHandler(handler)
    event(log, logging.WARNING, "too many connections", limit=64)
    idle = threading.Event()

    def on_turn() -> float | None:
        end = handler_turn()
        if end is None:
            idle.set()
        return end

    handler_turn, writer.on_turn = writer.on_turn, on_turn
    writer.wake()
    assert idle.wait(WAIT_SECS)
    for _ in range(4):
        event(log, logging.WARNING, "too many connections", limit=64)
    data = b""
    while data.count(b"\n") < 2:
        data += os.read(reader, 65536)
    assert data.endswith(b'warning repeated event="too many connections" times=4 secs=2\n')
    os.close(reader)
    os.close(fd)


def test_an_error_in_the_thread_does_not_end_the_log() -> None:
    """One line may be lost; those that come after it are written."""
    reader, fd = os.pipe()
    writer = LineWriter(fd)
    errors = [MemoryError()]

    def on_turn() -> float | None:
        if errors:
            raise errors.pop()
        return None

    writer.on_turn = on_turn
    writer.put(b"after it\n")
    assert b"after it\n" in read_all(reader, writer, b"after it\n")
    os.close(reader)
    os.close(fd)


def test_counts_are_formatted_while_others_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer's thread may have hundreds of them, and the event loop waits for none: the lock is free."""
    clock = [0.0]
    free: list[bool] = []

    def try_lock() -> None:
        # Waited for, since the thread takes it at each turn; held while lines are formatted, it never comes.
        free.append(lock.acquire(timeout=2))
        if free[-1]:
            lock.release()

    class Formatter(TextFormatter):
        def format(self, record: logging.LogRecord) -> str:
            if record.msg == "repeated":
                other = threading.Thread(target=try_lock)
                other.start()
                other.join()
            return super().format(record)

    fd = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    writer = LineWriter(fd)
    handler = LogHandler(Formatter(), writer)
    lock = handler.lock
    assert lock is not None
    log = logging.Logger("orbitd.test")
    log.addHandler(handler)
    monkeypatch.setattr("orbitd.logs.time.monotonic", lambda: clock[0])
    for _ in range(2):
        event(log, logging.WARNING, "too many connections", limit=64)
    clock[0] = FIRST_WINDOW_SECS
    writer.on_turn()
    assert writer.flush(WAIT_SECS)
    assert free == [True]
    os.close(fd)
