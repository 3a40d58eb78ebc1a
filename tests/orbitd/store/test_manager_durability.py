"""What was answered is on disk: after kill -9, cancelled calls, full and read-only disks."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from needs import needs
from orbit_protocol.errors import (
    NameTaken,
    ShuttingDown,
    SnapshotCorrupt,
    StorageCorrupt,
    StorageFull,
    StorageReadOnly,
)
from orbitd.manager import SessionManager
from orbitd.store import maintenance
from orbitd.store.cache import Change
from store_support import LOCAL, rows

WORKLOAD = """
import asyncio, sys
from orbitd.manager import SessionManager
from orbit_protocol.types import SessionConfig

async def one(manager, worker):
    session = await manager.create_session(SessionConfig(session_type="local"), name=f"worker {worker}")
    print("session", session.id, flush=True)
    for number in range(100_000):
        screen = b"%d of %d\\r\\n" % (number, worker) * 40
        info = await manager.save_snapshot(session.id, screen)
        print("saved", session.id, info.id, number, worker, flush=True)
        if number % 5 == 4:
            await manager.cleanup_old_snapshots(20)

async def main():
    async with SessionManager.open(sys.argv[1]) as manager:
        await asyncio.gather(*(one(manager, worker) for worker in range(4)))

asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize("answers", [5, 60, 333])
async def test_kill_dash_nine(path: Path, answers: int) -> None:
    """Killed at any moment, the store opens again with everything that was answered, whole."""
    sessions, saved = await asyncio.to_thread(_run_and_kill, path, answers)
    async with SessionManager.open(str(path)) as manager:
        assert (await manager.check()).ok
        assert {session.id for session in await manager.list_active_sessions()} >= sessions
        for session_id, (snapshot_id, number, worker) in saved.items():
            snapshot = await manager.get_snapshot(snapshot_id)
            assert snapshot.session_id == session_id
            assert snapshot.terminal_buffer == b"%d of %d\r\n" % (number, worker) * 40


def _run_and_kill(path: Path, answers: int) -> tuple[set[str], dict[str, tuple[str, int, int]]]:
    """Run the workload until it has printed so many answers, kill it, and return all that it was answered."""
    sessions: set[str] = set()
    saved: dict[str, tuple[str, int, int]] = {}
    command = [sys.executable, "-c", WORKLOAD, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for count, line in enumerate(process.stdout):
            if count == answers:
                process.send_signal(signal.SIGKILL)
            if not line.endswith("\n"):
                continue  # cut by the kill
            what, session_id, *rest = line.split()
            if what == "session":
                sessions.add(session_id)
            else:
                saved[session_id] = (rest[0], int(rest[1]), int(rest[2]))
    assert process.returncode == -signal.SIGKILL
    return sessions, saved


@contextlib.asynccontextmanager
async def held(manager: SessionManager):
    """Keep the writer busy, so that the calls made meanwhile become one group."""
    begun, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def work(_):
        loop.call_soon_threadsafe(begun.set)
        assert go_on.wait(20)
        return Change(result=None)

    task = asyncio.create_task(manager._store.write(work))
    await begun.wait()
    try:
        yield
    finally:
        go_on.set()
        await task


async def turns(count: int = 5) -> None:
    """Let other tasks run as far as they can."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_cache_changes_only_after_the_commit(manager: SessionManager) -> None:
    """While a change waits to be committed, reads tell what was before."""
    session = await manager.create_session(LOCAL, name="before")
    async with held(manager):
        renaming = asyncio.create_task(manager.rename_session(session.id, "after"))
        deleting = asyncio.create_task(manager.create_session(LOCAL, name="another"))
        await turns()
        assert (await manager.get_session(session.id)).name == "before"
        assert len(await manager.list_active_sessions()) == 1
    await asyncio.gather(renaming, deleting)
    assert [each.name for each in await manager.list_active_sessions()] == ["after", "another"]


async def test_cancelled_call_is_done_wholly(path: Path, manager: SessionManager) -> None:
    """A call that nobody waits for any more is still committed, and memory agrees with the disk."""
    async with held(manager):
        task = asyncio.create_task(manager.create_session(LOCAL, name="orphan"))
        await turns()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await manager.list_active_sessions() == []
    await manager.create_session(LOCAL, name="next")
    assert [each.name for each in await manager.list_active_sessions()] == ["orphan", "next"]
    assert rows(path, "SELECT name FROM sessions ORDER BY seq") == [("orphan",), ("next",)]
    with pytest.raises(NameTaken):
        await manager.create_session(LOCAL, name="orphan")


async def test_one_bad_call_in_a_group(manager: SessionManager) -> None:
    """Of calls that are committed together, the one that must fail fails, and the others stand."""
    await manager.create_session(LOCAL, name="taken")
    async with held(manager):
        names = ("a", "taken", "b", "a", "c")
        tasks = [asyncio.create_task(manager.create_session(LOCAL, name=name)) for name in names]
        await turns()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(result, NameTaken) for result in results] == [False, True, False, True, False]
    assert [each.name for each in await manager.list_active_sessions()] == ["taken", "a", "b", "c"]


async def test_never_more_than_ten_connections(path: Path, manager: SessionManager) -> None:
    """However many reads run at once, short and long, SQLite has at most ten connections open."""
    session = await manager.create_session(LOCAL)
    infos = [await manager.save_snapshot(session.id, os.urandom(3000)) for _ in range(5)]
    most = 0

    async def read(number: int) -> None:
        nonlocal most
        if number % 10 == 0:
            await manager.check()
        else:
            await manager.get_snapshot(infos[number % 5].id)
        most = max(most, _open_descriptors(path))

    await asyncio.gather(*(read(number) for number in range(100)))
    assert 2 <= most <= 10


def _open_descriptors(path: Path) -> int:
    links = (f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd"))
    count = 0
    for link in links:
        with contextlib.suppress(FileNotFoundError):
            count += os.readlink(link) == str(path)
    return count


async def test_closed_store_refuses(path: Path, manager: SessionManager) -> None:
    """After a close, calls are answered that the store is closed."""
    session = await manager.create_session(LOCAL)
    await manager.close()
    for call in (manager.create_session(LOCAL), manager.list_snapshots(session.id), manager.check()):
        with pytest.raises(ShuttingDown):
            await call


async def test_closing_does_not_wait_for_a_long_check(path: Path) -> None:
    """An integrity check that runs is broken off by a close; its caller is told why, or had its answer."""
    manager = await SessionManager.open(str(path))
    sessions = [await manager.create_session(LOCAL) for _ in range(5)]
    for session in sessions:
        for _ in range(40):
            await manager.save_snapshot(session.id, os.urandom(20_000))
    checks = [asyncio.create_task(manager.check()) for _ in range(6)]
    await turns()
    await manager.close()
    for result in await asyncio.gather(*checks, return_exceptions=True):
        assert isinstance(result, ShuttingDown) or result.ok


async def test_corrupt_page_under_a_running_store(path: Path, manager: SessionManager) -> None:
    """Where pages of snapshots are torn, their readers get 1901 or 1101, `check` reports it, all else goes on."""
    session = await manager.create_session(LOCAL, name="x")
    info = await manager.save_snapshot(session.id, random.Random(5).randbytes(200_000))
    await manager.close()
    async with SessionManager.open(str(path)) as again:
        data = bytearray(path.read_bytes())  # noqa: ASYNC240
        for page in range(40, len(data) // 4096):
            data[page * 4096 : page * 4096 + 8] = b"\xff" * 8
        path.write_bytes(data)  # noqa: ASYNC240
        with pytest.raises((StorageCorrupt, SnapshotCorrupt)):
            await again.get_snapshot(info.id)
        assert not (await again.check()).ok
        assert (await again.find_session("x")).id == session.id
        assert (await again.create_session(LOCAL, name="y")).name == "y"


async def test_another_program_holds_the_database(path: Path, manager: SessionManager) -> None:
    """While another program writes, a call waits and then succeeds."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        task = asyncio.create_task(manager.create_session(LOCAL, name="waits"))
        await turns()
        assert not task.done()
        other.execute("COMMIT")
        assert (await task).name == "waits"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for four megabytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,mode=700", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@needs(root=True, linux=True)
async def test_disk_full(small_disk: Path) -> None:
    """On a full disk a call fails with 1900 and changes nothing; reads go on; with room, service resumes."""
    path = small_disk / "sessions.db"
    async with SessionManager.open(str(path)) as manager:
        session = await manager.create_session(LOCAL, name="x")
        kept = await manager.save_snapshot(session.id, b"kept")
        filler = small_disk / "filler"
        _fill(filler)
        with pytest.raises(StorageFull) as caught:
            await manager.save_snapshot(session.id, random.Random(1).randbytes(1 << 20))
        assert caught.value.retryable
        assert (await manager.get_snapshot(kept.id)).terminal_buffer == b"kept"
        latest = await manager.load_latest_snapshot(session.id)
        assert latest is not None
        assert latest.id == kept.id
        assert [each.name for each in await manager.list_active_sessions()] == ["x"]
        os.unlink(filler)
        saved = await manager.save_snapshot(session.id, random.Random(1).randbytes(1 << 20))
        assert (await manager.get_snapshot(saved.id)).buffer_bytes == 1 << 20
        assert (await manager.check()).ok


@needs(root=True, linux=True)
async def test_a_vacuum_of_a_nearly_full_disk(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the log has room for one slice and not for all, a vacuum still frees everything."""
    monkeypatch.setattr(maintenance, "_SLICE_SECS", 0.0)
    path = small_disk / "sessions.db"
    async with SessionManager.open(str(path)) as manager:
        gone, kept = [await manager.create_session(LOCAL) for _ in range(2)]
        for number in range(8):
            await manager.save_snapshot(gone.id, random.Random(number).randbytes(60_000))
            await manager.save_snapshot(kept.id, random.Random(100 + number).randbytes(60_000))
        await manager.delete_session(gone.id)
        await manager._store.writer.run(
            lambda c: c.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall(), lambda _: None, alone=True
        )
        _fill(small_disk / "filler")
        with open(small_disk / "filler", "r+b") as filler:  # noqa: ASYNC230
            filler.truncate(os.path.getsize(small_disk / "filler") - 200_000)  # noqa: ASYNC240
        assert await manager.vacuum() > 400_000
        assert (await manager.check()).ok


@pytest.mark.parametrize("in_log", [True, False])
@needs(root=True, linux=True)
async def test_a_full_disk_empties_the_trash_first(small_disk: Path, in_log: bool) -> None:
    """Where not a byte is free, what is in the trash makes room for a save, be it in the log still or not."""
    async with SessionManager.open(str(small_disk / "sessions.db")) as manager:
        gone, kept = [await manager.create_session(LOCAL) for _ in range(2)]
        for number in range(8):
            await manager.save_snapshot(gone.id, random.Random(number).randbytes(60_000))
        await manager.trash_session(gone.id)
        if not in_log:
            await manager._store.writer.run(
                lambda c: c.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall(), lambda _: None, alone=True
            )
        _fill(small_disk / "filler")
        for number in range(3):
            await manager.save_snapshot(kept.id, random.Random(number).randbytes(100_000))
        assert (await manager.list_deleted_sessions()).sessions == []
        assert (await manager.check()).ok


@needs(root=True, linux=True)
async def test_one_call_that_does_not_fit(small_disk: Path) -> None:
    """In a group, only the call that is too big for the disk fails; those around it are committed."""
    path = small_disk / "sessions.db"
    async with SessionManager.open(str(path)) as manager:
        session = await manager.create_session(LOCAL, name="x")
        big = random.Random(2).randbytes(5 << 20)

        def too_big(connection):
            connection.execute("INSERT INTO meta VALUES ('big', ?)", (big.hex(),))
            return Change(result=None)

        async with held(manager):
            before = asyncio.create_task(manager.create_session(LOCAL, name="before"))
            await turns()
            failing = asyncio.create_task(manager._store.write(too_big))
            await turns()
            after = asyncio.create_task(manager.rename_session(session.id, "after"))
            await turns()
        with pytest.raises(StorageFull):
            await failing
        assert ((await before).name, (await after).name) == ("before", "after")
        assert [each.name for each in await manager.list_active_sessions()] == ["after", "before"]
    assert rows(path, "SELECT name FROM sessions ORDER BY seq") == [("after",), ("before",)]


@needs(root=True, linux=True)
async def test_backup_onto_a_full_disk(tmp_path: Path, small_disk: Path) -> None:
    """A backup for which there is no room is 1900, and leaves nothing half-made."""
    async with SessionManager.open(str(tmp_path / "sessions.db")) as manager:
        session = await manager.create_session(LOCAL)
        await manager.save_snapshot(session.id, random.Random(1).randbytes(6 << 20))
        with pytest.raises(StorageFull):
            await manager.backup(str(small_disk / "copy.db"))
        assert os.listdir(small_disk) == []


@needs(root=True, linux=True)
async def test_read_only_disk(small_disk: Path) -> None:
    """On a disk that became read-only, writes are 1902 and reads of what is alive go on."""
    path = small_disk / "sessions.db"
    async with SessionManager.open(str(path)) as manager:
        await manager.create_session(LOCAL, name="x")
    _remount(small_disk, "ro")
    with pytest.raises(StorageReadOnly):
        await SessionManager.open(str(path))
    with pytest.raises(StorageReadOnly):
        await SessionManager.open(str(small_disk / "other" / "sessions.db"))
    _remount(small_disk, "rw")
    async with SessionManager.open(str(path)) as manager:
        assert [each.name for each in await manager.list_active_sessions()] == ["x"]
        with pytest.raises(StorageReadOnly):
            await manager.backup("/proc/copy.db")


def _fill(path: Path) -> None:
    """Take all the room that is left."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


def _remount(folder: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", folder], check=True)
