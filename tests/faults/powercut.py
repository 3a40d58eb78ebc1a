"""Cut the power at many points of a recorded run, and look each time at what is left."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from faults.contents import read
from faults.disk import Disk
from faults.ledger import Author
from faults.local import LocalStore
from faults.shim import Shim
from film_support import film_of, history_of, output_of
from orbit_protocol.errors import StorageError
from support import DaemonProcess

OFF = """
import sqlite3

class Careless(sqlite3.Connection):
    def executescript(self, script):
        return super().executescript(script.replace("synchronous = FULL", "synchronous = OFF"))

connect = sqlite3.connect
sqlite3.connect = lambda *args, **more: connect(*args, **{"factory": Careless, **more})
"""
"""A sitecustomize.py that has SQLite sync nothing: what the test must be able to notice."""


@dataclass
class Outcome:
    """What happened."""

    cuts: int = 0
    answered: int = 0
    wrong: list[str] = field(default_factory=list)

    def __add__(self, other: Outcome) -> Outcome:
        return Outcome(self.cuts + other.cuts, self.answered + other.answered, self.wrong + other.wrong)

    def __str__(self) -> str:
        return f"{self.cuts} power cuts tried, {self.answered} writes acknowledged, wrong at {len(self.wrong)}"


_IN_MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None
"""Where what is left is opened: nothing there has to last."""


class Recording:
    """A daemon's run on a disk that keeps a log, with what its clients were answered.

    Args:
        home: The daemon's, empty.
        clients: How many write at once.
        seed: Of all choices but the threads' turns.
        careless: Whether SQLite is told to sync nothing.
    """

    def __init__(self, home: Path, *, clients: int, seed: int, careless: bool = False) -> None:
        self.home = home
        self._random = random.Random(seed)
        self.shim = Shim(home, home, record=True)
        self.daemon = DaemonProcess(home, environment=self.shim.environment)
        if careless:
            (home / "sitecustomize.py").write_text(OFF)
            path = self.daemon.environment.get("PYTHONPATH", "")
            self.daemon.environment["PYTHONPATH"] = f"{home}:{path}" if path else str(home)
        self.authors = [
            Author(f"c{number}", seed * 1_000 + number, lambda: self.shim.position) for number in range(clients)
        ]

    def write(self, calls: int) -> None:
        """Have each client make that many calls, with a clean restart in the middle; the last run is killed."""
        for half in range(2):
            self.daemon.start()
            threads = [threading.Thread(target=self._write, args=(author, calls // 2)) for author in self.authors]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.daemon.stop() if half == 0 else self.daemon.kill()

    def film(self, *, saves: int) -> str:
        """Have a program count, and save it again and again; the daemon is killed. Return the session's id."""
        self.daemon.start()
        with self.daemon.client() as client:
            config = {"session_type": "local", "command": "sh -c 'i=0; while echo $i; do i=$((i + 1)); done'"}
            session_id = str(client.call("session.create", config=config)["id"])
            client.call("session.start", id=session_id)
            for _ in range(saves):
                client.call("session.wait", id=session_id, **{"for": "output"})
                client.call("maintenance.auto_save")
        self.daemon.kill()
        self.daemon.end_keeper()
        return session_id

    def _write(self, author: Author, calls: int) -> None:
        with self.daemon.client() as client:
            for _ in range(calls):
                author.step(client.call)

    def cut(self, chance: float) -> Outcome:
        """Cut the power after some of the changes, and open what is left each time.

        Args:
            chance: Of a cut at each sync; elsewhere a tenth of that.
        """
        outcome = Outcome(answered=sum(author.answered for author in self.authors))
        disk = Disk()
        for record in self.shim.records():
            is_sync = disk.apply(record)
            if self._random.random() < (chance if is_sync else chance / 10):
                for luck in (None, self._random):
                    outcome.cuts += 1
                    outcome.wrong.extend(self._look(disk, record.end, luck))
        return outcome

    def cut_film(self, session_id: str, chance: float) -> Outcome:
        """Cut the power after some of the changes; each time a session's film must go as far as its snapshot."""
        outcome, disk = Outcome(), Disk()
        for record in self.shim.records():
            is_sync = disk.apply(record)
            if self._random.random() < (chance if is_sync else chance / 10):
                for luck in (None, self._random):
                    outcome.cuts += 1
                    outcome.answered += self._look_at_film(disk, session_id, luck, outcome.wrong)
        return outcome

    def _look_at_film(self, disk: Disk, session_id: str, luck: random.Random | None, wrong: list[str]) -> int:
        """Return how far the snapshot goes."""
        left = Path(tempfile.mkdtemp(prefix="orbit-", dir=_IN_MEMORY))
        try:
            disk.write_left(str(self.home), left, luck)
            database = left / self.daemon.database_path.relative_to(self.home)
            with LocalStore(database) as store:
                saved = store.saved_position(session_id)
            if not saved:
                return 0
            start, records, end = film_of(history_of(database), session_id)
            lines = output_of(records).decode().split("\r\n")[:-1]
            if start or end < saved or lines != [str(number) for number in range(len(lines))]:
                wrong.append(f"the film goes from {start} to {end}, the snapshot to {saved}; {lines[-3:]}")
            return saved
        except (StorageError, AssertionError, sqlite3.Error) as error:
            wrong.append(repr(error))
            return 0
        finally:
            shutil.rmtree(left)

    def _look(self, disk: Disk, position: int, luck: random.Random | None) -> Iterator[str]:
        left = Path(tempfile.mkdtemp(prefix="orbit-", dir=_IN_MEMORY))
        try:
            disk.write_left(str(self.home), left, luck)
            with LocalStore(left / self.daemon.database_path.relative_to(self.home)) as store:
                report = store.call("maintenance.check")
                if not report["ok"]:
                    yield f"at {position}: {report}"
                found = read(store.call)
            yield from (f"at {position}: {text}" for each in self.authors if (text := each.wrong(found, position)))
        except (StorageError, AssertionError, msgspec.DecodeError) as error:  # bytes of two moments
            yield f"at {position}: {error}"
        finally:
            shutil.rmtree(left)
