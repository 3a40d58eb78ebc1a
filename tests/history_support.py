"""A recorded day of work, and a session in which it happens again: what films are compared with.

`python -m benchmarks.workday FILE` records one. It is a list of (milliseconds since the beginning, bytes that were
printed, or columns and rows of a new size), as MessagePack in zstd; the first is a size.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import msgspec
import zstandard
from msgspec import Struct

from orbitd.screens.emulator import Emulator
from orbitd.screens.model import Screen
from terminal_support import shown

PLAYER = Path(__file__).with_name("history") / "corpus_player.py"
SMALL_DAY = Path(__file__).with_name("history") / "workday.msgpack.zst"
APART_SECS = 0.11
"""Output that comes later than this after other output has a time of its own in a journal (TIME_INTERVAL_MS)."""
PLAY_SECS = 600.0
QUESTION = b"\x1b[5n"
"""What the player asks the terminal behind each piece, which ends a sequence that is unfinished there."""

Size = tuple[int, int]
Step = tuple[int, bytes | Size]


def write_day(path: Path, steps: list[Step]) -> None:
    """Write a recorded day."""
    path.write_bytes(zstandard.ZstdCompressor(level=19).compress(msgspec.msgpack.encode(steps)))


def read_day(path: Path) -> list[Step]:
    """Return a recorded day."""
    return msgspec.msgpack.decode(zstandard.ZstdDecompressor().decompress(path.read_bytes()), type=list[Step])


class Caller(Protocol):
    """A connection of the tests or of the benchmarks."""

    def call(self, method: str, **params: Any) -> Any:
        """Call a method and return its result."""


class Moment(Struct, frozen=True):
    """What was on the screen, and when: a time as the protocol has it."""

    at: str
    screen: Screen


class Day:
    """A recorded day that happens again in a session; an emulator of our own sees the same.

    Args:
        client: A connection to the daemon.
        path: The recorded day.
        folder: Where two pipes are made.
        config: More of the session's config.

    Attributes:
        session_id: The session's.
        pid: Of the program that plays.
        raw_bytes: What was printed so far.
    """

    def __init__(self, client: Caller, path: Path, folder: Path, **config: Any) -> None:
        self._client = client
        (_, size), *self.steps = read_day(path)
        assert isinstance(size, tuple)
        self._emulator = Emulator(*size)
        self._emulator.answering = False
        pipes = [folder / f"{name}-{time.monotonic_ns()}" for name in ("asked", "done")]
        for pipe in pipes:
            os.mkfifo(pipe, 0o600)
        self._asked, self._done = (os.open(pipe, os.O_RDWR | os.O_NONBLOCK) for pipe in pipes)
        command = shlex.join([sys.executable, str(PLAYER), str(path), *map(str, pipes)])
        config = {"session_type": "local", "command": command, **config}
        self.session_id = client.call("session.create", config=config)["id"]
        self.pid = client.call("session.start", id=self.session_id, cols=size[0], rows=size[1])["pid"]
        self.raw_bytes = self._index = 0

    def close(self) -> None:
        """End the program, and close what is ours; the daemon need not run."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self._emulator.close()
        os.close(self._asked)
        os.close(self._done)

    def __enter__(self) -> Day:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def is_over(self) -> bool:
        """Whether all was played."""
        return self._index == len(self.steps)

    def rewind(self) -> None:
        """Begin the day again, on the screen as it is."""
        self._index = 0

    def play(self, count: int, *, speed: float = 0, wait: Callable[[], None] = lambda: None) -> None:
        """Play about so many steps more, and wait until they are on the session's screen.

        Args:
            count: It becomes more where the steps end in the middle of a sequence, and fewer before a change of size.
            speed: How many times as fast as they were recorded; 0 for without pauses.
            wait: Is called once the program has been asked, before this waits.
        """
        start = end = self._index
        if isinstance(size := self.steps[start][1], tuple):
            # The session has the size of the client that attached last, after it has left too.
            attached = self._client.call("session.attach", id=self.session_id, cols=size[0], rows=size[1])
            self._client.call("session.leave", attachment_id=attached["attachment_id"])
            self._emulator.resize(*size)
            start = end = start + 1
        while end < len(self.steps) and isinstance(data := self.steps[end][1], bytes):
            self._emulator.feed(data)
            self.raw_bytes += len(data)
            end += 1
            if end - start >= count and self._emulator.at_ground:
                break
        self._index = end
        self._emulator.feed(QUESTION)
        os.write(self._asked, b"%d %d %f\n" % (start, end, speed))
        wait()
        assert select.select([self._done], [], [], PLAY_SECS)[0], "the player has not played"
        os.read(self._done, 64)

    def play_to(self, index: int) -> None:
        """Play until so many steps were played since the beginning, or some more."""
        while self._index < index:
            self.play(index - self._index)

    def play_all(self, *, speed: float = 0) -> None:
        """Play what is left."""
        while not self.is_over:
            self.play(len(self.steps), speed=speed)

    def moment(self) -> Moment:
        """Return what is on the screen now, and wait until what comes next has another time in the journal."""
        at = time.time()
        found = Moment(timestamp(at), shown(self._emulator.dump()))
        time.sleep(APART_SECS)
        return found

    def moments(self, count: int) -> Iterator[Moment]:
        """Play what is left, and yield so many moments of it, at random."""
        chosen = sorted(random.Random(count).sample(range(self._index + 1, len(self.steps)), count))
        for index in chosen:
            self.play_to(index)
            yield self.moment()
        self.play_all()


def timestamp(at: float) -> str:
    """Return seconds since the epoch as the protocol has times, to the millisecond."""
    milliseconds = int(at * 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(milliseconds // 1000))}.{milliseconds % 1000:03}Z"
