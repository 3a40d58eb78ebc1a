"""Kill a daemon again and again while clients write, and look each time at what is left."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
from dataclasses import dataclass
from pathlib import Path

from faults.contents import Found, read
from faults.ledger import Author
from faults.shim import Shim
from support import DaemonProcess


class Gone(Exception):
    """The daemon did not answer any more."""


@dataclass
class Counts:
    """What happened."""

    kills: int = 0
    kills_at_start: int = 0
    answered: int = 0
    found: int = 0

    def __str__(self) -> str:
        return (
            f"{self.kills} kills survived ({self.kills_at_start} of them while it started), "
            f"{self.answered} writes acknowledged, {self.found} things found whole"
        )


class Connection:
    """A client that raises `Gone` where the daemon vanishes in the middle of a call."""

    def __init__(self, daemon: DaemonProcess) -> None:
        try:
            self._client = daemon.client()
        except OSError as error:
            raise Gone from error

    def __call__(self, method: str, **params: object) -> object:
        try:
            return self._client.call(method, **params)
        except (OSError, ValueError) as error:  # no line came, or half of one
            raise Gone from error

    def close(self) -> None:
        self._client.close()


class Siege:
    """A daemon, its clients, and what they know.

    Args:
        home: The daemon's.
        clients: How many write at once.
        seed: Of all choices but the threads' turns.
    """

    def __init__(self, home: Path, clients: int, seed: int) -> None:
        self.counts = Counts()
        self.shim = Shim(home, home / ".local" / "share")
        self.daemon = DaemonProcess(home, environment=self.shim.environment)
        self._random = random.Random(seed)
        self._authors = [Author(f"c{number}", seed * 1_000 + number) for number in range(clients)]

    def run(self, kills: int) -> Counts:
        """Survive that many kills; what is lost, half there or damaged fails the test."""
        while self.counts.kills < kills:
            if self._random.random() < 0.25:
                self._die_at_start()
            self.daemon.start()
            self._look()
            self._write_until_killed()
        self.daemon.start()
        self._look()
        assert self.daemon.stop() == 0
        return self.counts

    def _die_at_start(self) -> None:
        self.shim.kill_at(self._random.randint(1, 12))
        self.daemon.start(check=False)
        if self.daemon.kill() == -signal.SIGKILL:
            self.counts.kills += 1
            self.counts.kills_at_start += 1
        self.shim.kill_at(0)

    def _look(self) -> None:
        with self.daemon.client() as client:
            report = client.call("maintenance.check")
            assert report["ok"], report
            found: Found = read(client.call)
        wrong = [text for author in self._authors if (text := author.wrong(found))]
        assert wrong == []
        assert sum(len(found.of(author.name).world) for author in self._authors) == len(found.world)
        self.counts.found += len(found.world)
        for author in self._authors:
            author.adopt(found)

    def _write_until_killed(self) -> None:
        before = sum(author.answered for author in self._authors)
        if self._random.random() < 0.7:
            self.shim.kill_at(round(2 ** self._random.uniform(0, 9.5)))  # in the middle of a change
            limit = None
        else:
            limit = self._random.randint(1, 120)  # whatever it does just then
        threads = [threading.Thread(target=self._write, args=(author, before, limit)) for author in self._authors]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.daemon.kill()
        self.shim.kill_at(0)
        self.counts.kills += 1
        self.counts.answered += sum(author.answered for author in self._authors) - before

    def _write(self, author: Author, before: int, limit: int | None) -> None:
        with contextlib.suppress(Gone):
            connection = Connection(self.daemon)
            with contextlib.closing(connection):
                while True:
                    author.step(connection)
                    if limit is not None and sum(each.answered for each in self._authors) - before >= limit:
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(self.daemon.pid, signal.SIGKILL)
