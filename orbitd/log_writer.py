"""How lines get to stderr: without ever blocking the daemon, and without filling the disk.

The reader of a pipe, or the user of a terminal (Ctrl-S), decides how long a write(2) takes. O_NONBLOCK would not do: it
is a flag of the open file description, which all processes of a terminal share. So a thread writes, and what does not
fit into its queue is counted and dropped.

`orbitctl` starts orbitd with the log file as its stderr. That file is renamed at a limit, and a new one takes its
place. Under systemd stderr is the journal, which has limits of its own.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import os
import queue
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from orbit_os.files import UnsafeFile, open_private

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

MAX_QUEUED_LINES = 1000
MAX_WRITE_BYTES = 64 * 1024
MAX_LOG_BYTES = 8 * 1024 * 1024
"""The log file is renamed before it grows beyond this."""
_PAUSE_SECS = 0.1
"""Before the next line is tried, after one that could not be handled."""
FLUSH_SECS = 1.0
"""How long the end of the daemon waits for its last lines to be taken."""


def _dropped_words(count: int) -> bytes:
    return b"orbitd: %d lines were dropped\n" % count


class LineWriter:
    """Writes lines to a descriptor, in a thread that begins with the first one.

    The thread is a daemon thread: one that is blocked in write(2) does not keep the process from its end.

    Args:
        fd: The descriptor.
        max_bytes: The size at which a log file is renamed.

    Attributes:
        dropped_line: Returns the line that says how many were dropped.
        on_turn: Called in the thread before it waits for a line; may `put` some, and returns after how many seconds
            it wants to be called again if there is none until then.
    """

    def __init__(self, fd: int, max_bytes: int = MAX_LOG_BYTES) -> None:
        self._fd = fd
        self._max_bytes = max_bytes
        self._log_file = ""
        self._queue: queue.SimpleQueue[bytes | threading.Event] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self.dropped_line: Callable[[int], bytes] = _dropped_words
        self.on_turn: Callable[[], float | None] = lambda: None
        # From the first line that finds the queue full until the thread has emptied it, all are dropped. So the line
        # that counts them stands where they are missing. `put` alone changes the first, the thread the others.
        self._refused = 0
        self._refused_written = 0  # how many of them stand in a line that was written
        self._failed = 0
        self._is_dropping = False
        self._is_torn = False
        self._deadline: float | None = None  # of a flush without a thread

    def rotate(self, log_file: str) -> None:
        """Keep the log within its limit from now on, if the descriptor is the file at this path."""
        with contextlib.suppress(OSError):
            if os.path.samestat(os.lstat(log_file), os.fstat(self._fd)):
                self._log_file = log_file

    def put(self, line: bytes) -> None:
        """Have a line written, or counted if there is no room for it. Never waits for the descriptor."""
        if self._is_dropping:
            self._refused += 1
            return
        if self._queue.qsize() >= MAX_QUEUED_LINES:
            self._is_dropping = True
            self._refused += 1
            self.wake()  # the thread may have emptied the queue just now: it has to see the count
            return
        self._queue.put(line)
        if self._thread is None:
            self._start()

    def wake(self) -> None:
        """Have the thread call `on_turn`, which wants to be called later though there may be no line until then."""
        self._queue.put(threading.Event())

    def flush(self, secs: float = FLUSH_SECS) -> bool:
        """Wait until all lines are written; return whether they are after `secs` seconds."""
        if self._thread is None:
            return self._drain(secs)
        done = threading.Event()
        self._queue.put(done)
        return done.wait(secs)

    def _start(self) -> None:
        """Start the thread. Where there are too many of them, or of processes, the next line tries again."""
        thread = threading.Thread(target=self._run, name="log", daemon=True)
        with contextlib.suppress(RuntimeError):
            thread.start()
            self._thread = thread

    def _run(self) -> None:
        while True:
            try:
                self._handle(self._queue.get(timeout=self.on_turn()))
            except queue.Empty:
                pass
            except Exception:  # noqa: BLE001  # no memory, say: a line is lost, and not all that come after it
                self._failed += 1
                time.sleep(_PAUSE_SECS)

    def _drain(self, secs: float) -> bool:
        """Write what is queued in the caller's thread, where none could be started, but block no longer than told."""
        self._deadline = time.monotonic() + secs
        while not self._queue.empty():
            self._handle(self._queue.get())
        self._deadline = None
        return not self._failed

    def _handle(self, item: bytes | threading.Event) -> None:
        """Write a line and those behind it, as one; set an event when all before it is written."""
        # While the event loop is busy, each write may wait 5 ms for the interpreter (sys.setswitchinterval).
        lines = b""
        with contextlib.suppress(queue.Empty):
            while isinstance(item, bytes):
                lines += item
                if len(lines) > MAX_WRITE_BYTES:
                    break
                item = self._queue.get_nowait()
        if lines:
            self._write_counting(lines)
        if self._queue.empty() and (count := self._refused - self._refused_written):
            # Before the write, which may block: what comes now is queued behind it.
            self._is_dropping = False
            if not self._write(self.dropped_line(count)):
                self._refused_written += count
        if isinstance(item, threading.Event):
            item.set()

    def _write_counting(self, lines: bytes) -> None:
        """Write lines, and before them how many could not be written."""
        if self._failed and self._write(self.dropped_line(self._failed)):
            self._failed += lines.count(b"\n")
        else:
            self._failed = self._write(lines).count(b"\n")

    def _write(self, data: bytes) -> bytes:
        """Write all of it, however long that takes; return what an error leaves, such as a terminal that is gone."""
        wanted = b"\n" + data if self._is_torn else data
        rest = wanted
        try:
            if self._log_file:
                self._keep_limit(len(rest))
            while rest:
                rest = rest[self._write_some(rest) :]
        except OSError:
            # A full disk takes the beginning of a line, and refuses the rest.
            self._is_torn = self._is_torn if rest == wanted else not wanted.endswith(b"\n" + rest)
            return data if rest == wanted else rest
        self._is_torn = False
        return b""

    def _write_some(self, data: bytes) -> int:
        """Write the beginning of it; return how long that is. Raises: OSError."""
        if self._deadline is not None:
            _, writable, _ = select.select([], [self._fd], [], max(0.0, self._deadline - time.monotonic()))
            if not writable:
                raise TimeoutError
            # So many bytes a pipe takes without blocking (poll(2)); of a terminal nobody says how many.
            data = data[: 1 if os.isatty(self._fd) else select.PIPE_BUF]
        try:
            return os.write(self._fd, data)
        except BlockingIOError:  # another process of the terminal has made it non-blocking
            if self._deadline is None:
                select.select([], [self._fd], [])
            return 0

    def _keep_limit(self, more: int) -> None:
        """Go on in a new file before this one grows beyond the limit. Raises: OSError."""
        old = os.fstat(self._fd)
        size = old.st_size + more
        if size <= self._max_bytes:
            return
        try:
            self._replace_file(old)
        except (OSError, UnsafeFile):
            # No descriptor is free, say, and the next write tries again. In the end the limit counts for more than old
            # lines.
            if size > 2 * self._max_bytes:
                os.ftruncate(self._fd, 0)

    def _replace_file(self, old: os.stat_result) -> None:
        """Rename the log file, and go on in a new one at its path. Raises: OSError, UnsafeFile."""
        try:
            current = os.lstat(self._log_file)
        except FileNotFoundError:
            current = None
        if current is not None and not os.path.samestat(current, old):
            # The old one was moved away, by another daemon that has the same log, say.
            new = open_private(self._log_file, os.O_WRONLY | os.O_APPEND)
        else:
            # The new file is there before the old one loses its name: it may be that none can be made.
            temporary = self._log_file + ".new"
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            new = open_private(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND)
            try:
                if current is not None:
                    os.replace(self._log_file, self._log_file + ".1")
                os.replace(temporary, self._log_file)
            except OSError:
                os.close(new)
                os.unlink(temporary)
                raise
        os.dup2(new, self._fd)
        os.close(new)


class _Stderr(io.RawIOBase):
    """What Python and its libraries print to stderr, by way of a LineWriter."""

    def __init__(self, writer: LineWriter, fd: int) -> None:
        self._writer = writer
        self._fd = fd

    def writable(self) -> bool:
        return True

    def write(self, data: ReadableBuffer) -> int:
        line = bytes(data)
        self._writer.put(line)
        return len(line)

    def isatty(self) -> bool:
        return os.isatty(self._fd)

    def fileno(self) -> int:
        return self._fd


stderr = LineWriter(2)


def guard_stderr() -> None:
    """Have nothing that this process prints to stderr, which is open, block it: tracebacks and warnings included."""
    # With `stty tostop` a terminal stops a process that writes to it from the background (termios(3)).
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    sys.stderr = io.TextIOWrapper(_Stderr(stderr, 2), "utf-8", "backslashreplace", write_through=True)
    atexit.register(stderr.flush)
