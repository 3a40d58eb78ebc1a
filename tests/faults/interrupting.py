"""Work on the whole store, killed at chosen changes to the disk, each time from the same beginning."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from faults.shim import Shim
from orbit_protocol.types import SessionConfig
from orbitd.manager import SessionManager
from orbitd.store import screen_codec
from orbitd.store.database import load_migrations, open_writer
from orbitd.store.rows import time_to_text
from orbitd.store.screen_codec import Screen
from support import WAIT_SECS, DaemonProcess, RawClient

LATER = "2100-01-01T00:00:00Z"
TIMES = int(os.environ.get("ORBIT_FAULT_MOMENTS", "3"))
"""Kills in each kind of work; `python -m benchmarks.soak` asks for more."""
SESSIONS = 12
SNAPSHOTS = 3
SCREEN = b"".join(b"%d lines of a screen\r\n" % number for number in range(2_000))


def make_store(path: Path) -> None:
    """Make a database with terminated sessions, each with snapshots."""

    async def make() -> None:
        async with SessionManager.open(str(path)) as manager:
            for number in range(SESSIONS):
                config = SessionConfig(session_type="local", command=f"s{number}")
                session = await manager.create_session(config)
                for extra in range(SNAPSHOTS):
                    await manager.save_snapshot(session.id, SCREEN + b"%d %d" % (number, extra))
                await manager.terminate_session(session.id)

    asyncio.run(make())


def make_first_schema(path: Path) -> None:
    """Make a database as the first schema was, with sessions that each have one snapshot."""
    connection = open_writer(str(path), migrations=load_migrations()[:1]).connection
    moment = time_to_text(datetime.now(UTC))
    screen = Screen(terminal_buffer=SCREEN)
    packed, checksum = screen_codec.pack(screen, None), screen_codec.checksum(screen)
    with contextlib.closing(connection):
        for number in range(SESSIONS):
            connection.execute(
                "INSERT INTO sessions (id, session_type, created_at, last_active, status, config)"
                " VALUES (?, 'local', ?, ?, 'terminated', ?)",
                (f"id-{number}", moment, moment, f'{{"session_type":"local","command":"s{number}"}}'),
            )
            connection.execute(
                "INSERT INTO session_snapshots (id, session_id, snapshot_at, format, ordinal, keyframe, buffer_bytes,"
                " raw_bytes, stored_bytes, checksum, terminal_buffer) VALUES (?, ?, ?, 'opaque', 1, 1, ?, ?, ?, ?, ?)",
                (
                    *(f"snap-{number}", f"id-{number}", moment, len(SCREEN), len(SCREEN)),
                    *(packed.size, checksum, packed.terminal_buffer),
                ),
            )


class Interrupted:
    """A home that begins anew from a prepared database, or a folder of them, for each kill.

    Args:
        home: The daemon's.
        make: Prepares the database, or makes a folder at its path.
    """

    def __init__(self, home: Path, make: Callable[[Path], None]) -> None:
        self.shim = Shim(home, home / ".local" / "share")
        self.daemon = DaemonProcess(home, environment=self.shim.environment)
        self.folder = self.daemon.database_path.parent
        self._golden = home / "golden.db"
        make(self._golden)
        self.kills = 0

    def begin(self) -> None:
        """Have the prepared database in its place and nothing else."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._golden.is_dir():
            shutil.copytree(self._golden, self.folder)
            return
        self.folder.mkdir(parents=True, mode=0o700)
        for folder in self.folder.relative_to(self._golden.parent).parents:
            (self._golden.parent / folder).chmod(0o700)
        shutil.copyfile(self._golden, self.daemon.database_path)

    def during_call(self, work: Callable[[RawClient], object], times: int) -> Iterator[RawClient]:
        """Kill the daemon in the middle of a call; yield a client of the next daemon, once for each kill.

        Args:
            work: Makes the call.
            times: How many moments are tried, spread over the call's changes.
        """

        def whole() -> None:
            self.daemon.start()
            before = self.shim.changes
            with self.daemon.client() as client:
                work(client)
            self._changes = self.shim.changes - before

        def cut(moment: int) -> None:
            self.daemon.start()
            self.shim.kill_at(moment)
            with self.daemon.client() as client, contextlib.suppress(OSError, ValueError):
                work(client)

        yield from self._try(whole, cut, times)

    def during_start(self, times: int) -> Iterator[RawClient]:
        """Do so while the daemon starts."""

        def whole() -> None:
            before = self.shim.changes
            self.daemon.start()
            self._changes = self.shim.changes - before

        def cut(moment: int) -> None:
            self.shim.kill_at(moment)
            self.daemon.start(check=False)

        yield from self._try(whole, cut, times)

    def during_restore(self, backup: Path, times: int) -> Iterator[RawClient]:
        """Do so while `orbitd --restore` puts a backup back."""

        def restore() -> None:
            self.daemon.process = subprocess.Popen(
                [sys.executable, "-m", "orbitd", "--restore", str(backup)],
                env=self.daemon.environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            self.daemon.process.wait(WAIT_SECS)

        def whole() -> None:
            before = self.shim.changes
            restore()
            self._changes = self.shim.changes - before

        def cut(moment: int) -> None:
            self.shim.kill_at(moment)
            restore()

        yield from self._try(whole, cut, times)

    def _try(self, whole: Callable[[], None], cut: Callable[[int], None], times: int) -> Iterator[RawClient]:
        self.begin()
        whole()
        self.daemon.kill()
        for moment in spread(self._changes, times):
            self.begin()
            cut(moment)
            self.kills += self.daemon.kill() == -signal.SIGKILL
            self.shim.kill_at(0)
            self.daemon.start()
            assert self.debris() == []
            with self.daemon.client() as client:
                report = client.call("maintenance.check")
                assert report["ok"], report
                yield client
            self.daemon.kill()

    def debris(self) -> list[str]:
        """Return files that nobody will ever use or name."""
        found = [path.name for path in self.folder.rglob("*")]
        return [name for name in found if name.startswith(".orbit-") or name.endswith((".restoring", "-journal"))]


def spread(changes: int, times: int) -> list[int]:
    """Return moments all over a piece of work."""
    assert changes > 1
    return sorted({1 + (2 * each + 1) * changes // (2 * times) for each in range(times)})


def commands(client: RawClient, *statuses: str) -> list[str]:
    """Return the commands of the sessions with these statuses, in order."""
    found = client.call("session.list", status=list(statuses))["sessions"]
    return sorted(one["config"]["command"] for one in found)


def is_whole(path: Path) -> bool:
    """Tell whether a file is a sound database."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as copy:
        (verdict,) = copy.execute("PRAGMA integrity_check").fetchone()
    return bool(verdict == "ok")


def everything(**counts: Any) -> dict[str, Any]:
    """Return what `stats.get` is to count."""
    return {"total_sessions": SESSIONS, "total_snapshots": SESSIONS * SNAPSHOTS, **counts}
