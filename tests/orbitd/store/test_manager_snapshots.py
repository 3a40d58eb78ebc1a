"""Snapshots through the manager: every one that was saved stays readable, whatever is deleted around it."""

from __future__ import annotations

import asyncio
import os
import random
from datetime import UTC, datetime
from pathlib import Path

import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from orbit_protocol.errors import InvalidParams, SessionNotFound, SnapshotCorrupt, SnapshotNotFound
from orbit_protocol.types import Snapshot, SnapshotInfo
from orbitd.manager import SessionManager
from orbitd.store.delta_chain import KEYFRAME_EVERY
from store_support import LOCAL, UNKNOWN, rows

LINES = [
    f"\x1b[32m{number:5}\x1b[0m drwxr-xr-x some-file-{number * 7919 % 10007}\r\n".encode() for number in range(2000)
]


def shell(step: int) -> tuple[bytes, bytes]:
    """A screen and its scrollback after `step` commands of five lines each."""
    shown = LINES[: 24 + 5 * step]
    return b"".join(shown[-24:]), b"".join(shown[:-24])


async def save_steps(manager: SessionManager, session_id: str, count: int) -> list[SnapshotInfo]:
    return [await manager.save_snapshot(session_id, *shell(step)) for step in range(count)]


def spoil(path: Path, snapshot_id: str, column: str = "terminal_buffer") -> bytes:
    """Turn one bit of stored bytes behind the manager's back; return what was there."""
    ((blob,),) = rows(path, f"SELECT {column} FROM session_snapshots WHERE id = ?", snapshot_id)
    bad = bytearray(blob)
    bad[len(bad) // 2] ^= 0x10
    rows(path, f"UPDATE session_snapshots SET {column} = ? WHERE id = ?", bytes(bad), snapshot_id)
    return bytes(blob)


async def test_saved_snapshot(manager: SessionManager) -> None:
    """What is saved comes back to the byte, with its sizes, and moves last_active."""
    session = await manager.create_session(LOCAL)
    before = datetime.now(UTC)
    info = await manager.save_snapshot(session.id, b"\0\xff screen \x1b[0m", b"\xfe\0 above", cols=80, rows=24)
    assert (info.session_id, info.format, info.cols, info.rows) == (session.id, "opaque", 80, 24)
    assert (info.buffer_bytes, info.scrollback_bytes) == (14, 8)
    assert info.stored_bytes > 0
    snapshot = await manager.get_snapshot(info.id)
    assert snapshot == Snapshot(
        id=info.id,
        session_id=session.id,
        snapshot_at=info.snapshot_at,
        format="opaque",
        cols=80,
        rows=24,
        buffer_bytes=14,
        scrollback_bytes=8,
        stored_bytes=info.stored_bytes,
        terminal_buffer=b"\0\xff screen \x1b[0m",
        scrollback=b"\xfe\0 above",
    )
    assert await manager.load_latest_snapshot(session.id) == snapshot
    assert (await manager.get_session(session.id)).last_active == info.snapshot_at >= before


async def test_no_snapshot_yet(manager: SessionManager) -> None:
    """A session without snapshots has none, which is no error."""
    session = await manager.create_session(LOCAL)
    assert await manager.load_latest_snapshot(session.id) is None
    page = await manager.list_snapshots(session.id)
    assert (page.snapshots, page.next_cursor) == ([], None)
    await manager.terminate_session(session.id)
    assert await manager.load_latest_snapshot(session.id) is None


@pytest.mark.parametrize("scrollback", [None, b""])
async def test_no_scrollback_and_an_empty_one(manager: SessionManager, scrollback: bytes | None) -> None:
    """None and empty come back as what they were, also as a delta, and an empty screen is a screen."""
    session = await manager.create_session(LOCAL)
    first = await manager.save_snapshot(session.id, b"", scrollback)
    await manager.save_snapshot(session.id, b"x" * 5000)
    snapshot = await manager.get_snapshot(first.id)
    assert (snapshot.terminal_buffer, snapshot.scrollback, snapshot.scrollback_bytes) == (b"", scrollback, 0)


async def test_native_state_and_folder(manager: SessionManager) -> None:
    """What orbitd itself keeps with a screen comes back, also from a delta, and never in a Snapshot."""
    session = await manager.create_session(LOCAL)
    native = os.urandom(3000)
    first = await manager.save_snapshot(session.id, b"vt", format="vt", native_state=native, cwd=b"/tmp")
    await manager.save_snapshot(session.id, b"vt2", format="vt", native_state=native + b"more", cwd=b"/")
    older, newest = await manager.get_screen(first.id), await manager.load_latest_screen(session.id)
    assert (older.native_state, older.cwd, older.snapshot.format) == (native, "/tmp", "vt")
    assert newest is not None
    assert (newest.native_state, newest.cwd, newest.snapshot.terminal_buffer) == (native + b"more", "/", b"vt2")
    assert older.snapshot.stored_bytes < 200
    assert type(newest.snapshot) is Snapshot


async def test_large_screens(manager: SessionManager) -> None:
    """15 MiB that cannot be compressed are saved twice at little more than the price of once."""
    session = await manager.create_session(LOCAL)
    size = 15 << 20
    noise = random.Random(1).randbytes(size)
    first = await manager.save_snapshot(session.id, noise[:-1000])
    second = await manager.save_snapshot(session.id, noise)
    assert (await manager.get_snapshot(first.id)).terminal_buffer == noise[:-1000]
    assert (await manager.get_snapshot(second.id)).terminal_buffer == noise
    assert (await manager.get_stats()).snapshot_stored_bytes < 1.05 * size


async def test_too_large_a_screen(manager: SessionManager) -> None:
    """More than a screen may have is refused."""
    session = await manager.create_session(LOCAL)
    with pytest.raises(InvalidParams):
        await manager.save_snapshot(session.id, bytes(32 << 20), bytes((32 << 20) + 1))


async def test_older_ones_are_deltas(path: Path, manager: SessionManager) -> None:
    """Only the newest and one in 32 are self-contained; the others take a fraction."""
    session = await manager.create_session(LOCAL)
    await save_steps(manager, session.id, KEYFRAME_EVERY + 8)
    found = rows(path, "SELECT ordinal, keyframe, stored_bytes FROM session_snapshots ORDER BY seq")
    keyframes = [ordinal for ordinal, keyframe, _ in found if keyframe]
    assert keyframes == [KEYFRAME_EVERY, KEYFRAME_EVERY + 8]
    whole = found[-1][2]
    assert all(stored < whole / 5 for _, keyframe, stored in found if not keyframe)
    snapshots = (await manager.list_snapshots(session.id)).snapshots
    for step, info in enumerate(reversed(snapshots)):
        snapshot = await manager.get_snapshot(info.id)
        assert (snapshot.terminal_buffer, snapshot.scrollback) == shell(step)


async def test_evolving_shell_takes_little(manager: SessionManager) -> None:
    """Ten snapshots of a growing shell take at most 5 % of what they are, and a quarter of what single frames take."""
    session = await manager.create_session(LOCAL)
    for step in range(0, 300, 30):
        await manager.save_snapshot(session.id, *shell(step))
    stats = await manager.get_stats()
    assert stats.total_snapshots == 10
    assert stats.snapshot_raw_bytes == sum(len(part) for step in range(0, 300, 30) for part in shell(step))
    single = sum(len(zstandard.compress(part)) for step in range(0, 300, 30) for part in shell(step))
    assert stats.snapshot_stored_bytes <= 0.05 * stats.snapshot_raw_bytes
    assert stats.snapshot_stored_bytes <= single / 4


async def test_unrelated_screens_are_not_blown_up(path: Path, manager: SessionManager) -> None:
    """A screen that has nothing in common with the next stays as it was."""
    session = await manager.create_session(LOCAL)
    infos = [await manager.save_snapshot(session.id, os.urandom(2000)) for _ in range(3)]
    stored = rows(path, "SELECT sum(stored_bytes) FROM session_snapshots")[0][0]
    assert stored <= sum(info.stored_bytes for info in infos)


async def test_list_is_newest_first_in_pages(manager: SessionManager) -> None:
    """Pages go from the newest to the oldest; what is saved meanwhile does not shift them."""
    session = await manager.create_session(LOCAL)
    ids = [info.id for info in await save_steps(manager, session.id, 5)]
    first = await manager.list_snapshots(session.id, limit=2)
    assert [info.id for info in first.snapshots] == [ids[4], ids[3]]
    await manager.save_snapshot(session.id, b"new")
    await manager.delete_snapshot(ids[3])
    second = await manager.list_snapshots(session.id, limit=2, cursor=first.next_cursor)
    assert [info.id for info in second.snapshots] == [ids[2], ids[1]]
    third = await manager.list_snapshots(session.id, limit=2, cursor=second.next_cursor)
    assert [info.id for info in third.snapshots] == [ids[0]]
    assert third.next_cursor is None


async def test_listed_is_what_is_stored(path: Path, manager: SessionManager) -> None:
    """stored_bytes in a list is what the database holds of it now."""
    session = await manager.create_session(LOCAL)
    await save_steps(manager, session.id, 4)
    listed = [info.stored_bytes for info in (await manager.list_snapshots(session.id)).snapshots]
    sizes = "length(terminal_buffer) + length(scrollback)"
    assert rows(path, f"SELECT {sizes} FROM session_snapshots ORDER BY seq DESC") == [(size,) for size in listed]


async def test_unknown_snapshot(manager: SessionManager) -> None:
    """An id that no snapshot has is 1100."""
    for call in (manager.get_snapshot(UNKNOWN), manager.get_screen(UNKNOWN), manager.delete_snapshot(UNKNOWN)):
        with pytest.raises(SnapshotNotFound):
            await call


async def test_snapshots_of_the_terminated(manager: SessionManager) -> None:
    """A session that has ended can still be saved: its last screen comes after its end."""
    session = await manager.create_session(LOCAL)
    ended = await manager.terminate_session(session.id)
    info = await manager.save_snapshot(session.id, b"last words")
    latest = await manager.load_latest_snapshot(session.id)
    assert latest is not None
    assert latest.terminal_buffer == b"last words"
    found = await manager.get_session(session.id)
    assert (found.status, found.last_active) == ("terminated", info.snapshot_at)
    assert found.last_active > ended.last_active
    assert await manager.list_active_sessions() == []


async def test_saves_at_the_same_time(manager: SessionManager) -> None:
    """Saves of one session that overlap all arrive, each readable; those of others do not wait for them."""
    sessions = [await manager.create_session(LOCAL) for _ in range(3)]
    infos = await asyncio.gather(
        *(manager.save_snapshot(session.id, *shell(step)) for step in range(12) for session in sessions)
    )
    for number, info in enumerate(infos):
        snapshot = await manager.get_snapshot(info.id)
        assert (snapshot.terminal_buffer, snapshot.scrollback) == shell(number // 3)
    assert (await manager.check()).ok


async def test_cancelled_saves_leave_whole_chains(manager: SessionManager) -> None:
    """However far a cancelled save came, it is there wholly or not at all, and the next one fits."""
    session = await manager.create_session(LOCAL)
    for step in range(30):
        task = asyncio.create_task(manager.save_snapshot(session.id, *shell(step)))
        for _ in range(step):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await manager.save_snapshot(session.id, b"between %d" % step)
    assert (await manager.check()).ok
    page = await manager.list_snapshots(session.id)
    assert 30 <= len(page.snapshots) <= 60
    assert page.snapshots[0].buffer_bytes == len(b"between 29")


async def test_session_deleted_under_a_save(manager: SessionManager) -> None:
    """A save that loses the race against the deletion of its session answers 1000 and leaves nothing."""
    session = await manager.create_session(LOCAL)
    await save_steps(manager, session.id, 2)
    results = await asyncio.gather(
        *(manager.save_snapshot(session.id, *shell(step)) for step in range(5)),
        manager.delete_session(session.id),
        return_exceptions=True,
    )
    assert all(isinstance(result, SessionNotFound | SnapshotInfo) or result is None for result in results)
    assert isinstance(results[4], SessionNotFound)
    assert (await manager.get_stats()).total_snapshots == 0


async def test_deletion_in_the_middle(path: Path, manager: SessionManager) -> None:
    """Deleting a delta re-bases the one before it: both neighbours stay, and stay small."""
    session = await manager.create_session(LOCAL)
    infos = await save_steps(manager, session.id, 6)
    await manager.delete_snapshot(infos[2].id)
    for step in (0, 1, 3, 4, 5):
        assert (await manager.get_snapshot(infos[step].id)).terminal_buffer == shell(step)[0]
    assert rows(path, "SELECT keyframe FROM session_snapshots ORDER BY seq") == [(0,), (0,), (0,), (0,), (1,)]


async def test_deletion_of_the_newest(path: Path, manager: SessionManager) -> None:
    """Deleting the newest makes the one before it self-contained, and it is the latest then."""
    session = await manager.create_session(LOCAL)
    infos = await save_steps(manager, session.id, 3)
    await manager.delete_snapshot(infos[2].id)
    latest = await manager.load_latest_snapshot(session.id)
    assert latest is not None
    assert (latest.id, latest.terminal_buffer) == (infos[1].id, shell(1)[0])
    assert rows(path, "SELECT keyframe FROM session_snapshots ORDER BY seq") == [(0,), (1,)]


async def test_deletion_of_a_keyframe_keeps_chains_short(path: Path, manager: SessionManager) -> None:
    """Where a keyframe goes, the one before it becomes one: no chain is ever longer than 32."""
    session = await manager.create_session(LOCAL)
    infos = await save_steps(manager, session.id, KEYFRAME_EVERY + 2)
    await manager.delete_snapshot(infos[KEYFRAME_EVERY - 1].id)
    found = rows(path, "SELECT ordinal FROM session_snapshots WHERE keyframe = 1 ORDER BY seq")
    assert found == [(KEYFRAME_EVERY - 1,), (KEYFRAME_EVERY + 2,)]
    assert (await manager.check()).ok


async def test_damaged_newest(path: Path, manager: SessionManager) -> None:
    """A damaged snapshot is 1101 with the newest older good one; here the keyframe before it."""
    session = await manager.create_session(LOCAL)
    infos = await save_steps(manager, session.id, KEYFRAME_EVERY + 3)
    spoil(path, infos[-1].id)
    with pytest.raises(SnapshotCorrupt) as caught:
        await manager.load_latest_snapshot(session.id)
    assert caught.value.extra == {"good_snapshot_id": infos[KEYFRAME_EVERY - 1].id}
    good = await manager.get_snapshot(infos[KEYFRAME_EVERY - 1].id)
    assert good.terminal_buffer == shell(KEYFRAME_EVERY - 1)[0]
    report = await manager.check()
    assert not report.ok
    assert infos[-1].id in report.snapshots
    assert infos[0].id not in report.snapshots
    assert (report.integrity, report.foreign_keys) == ([], [])


async def test_damaged_only_one(path: Path, manager: SessionManager) -> None:
    """Where no older good one is, none is offered."""
    session = await manager.create_session(LOCAL)
    info = await manager.save_snapshot(session.id, *shell(0))
    spoil(path, info.id)
    with pytest.raises(SnapshotCorrupt) as caught:
        await manager.get_snapshot(info.id)
    assert caught.value.extra == {"good_snapshot_id": None}


async def test_wrong_checksum_is_damage(path: Path, manager: SessionManager) -> None:
    """Bytes that unpack well but are not those that were saved are damage."""
    session = await manager.create_session(LOCAL)
    infos = await save_steps(manager, session.id, 3)
    spoil(path, infos[1].id, "checksum")
    with pytest.raises(SnapshotCorrupt) as caught:
        await manager.get_snapshot(infos[1].id)
    assert caught.value.extra == {"good_snapshot_id": infos[0].id}
    assert (await manager.get_snapshot(infos[2].id)).terminal_buffer == shell(2)[0]
    assert (await manager.check()).snapshots == [infos[1].id]


async def test_damaged_bytes_are_kept_by_later_saves(path: Path, manager: SessionManager) -> None:
    """Saving after a damaged snapshot does not touch its bytes: once repaired, all of the chain reads again."""
    session = await manager.create_session(LOCAL)
    infos = await save_steps(manager, session.id, 4)
    whole = spoil(path, infos[3].id)
    later = await manager.save_snapshot(session.id, *shell(4))
    assert (await manager.get_snapshot(later.id)).terminal_buffer == shell(4)[0]
    rows(path, "UPDATE session_snapshots SET terminal_buffer = ? WHERE id = ?", whole, infos[3].id)
    assert (await manager.check()).ok
    assert (await manager.get_snapshot(infos[3].id)).terminal_buffer == shell(3)[0]
    assert (await manager.get_snapshot(infos[0].id)).terminal_buffer == shell(0)[0]


async def test_damaged_snapshot_can_be_deleted(path: Path, manager: SessionManager) -> None:
    """Deleting a damaged snapshot loses nothing that could still be read."""
    session = await manager.create_session(LOCAL)
    infos = await save_steps(manager, session.id, 5)
    spoil(path, infos[2].id, "checksum")
    await manager.delete_snapshot(infos[2].id)
    for step in (0, 1, 3, 4):
        assert (await manager.get_snapshot(infos[step].id)).terminal_buffer == shell(step)[0]
    spoil(path, infos[4].id, "checksum")
    await manager.delete_snapshot(infos[3].id)  # its neighbour cannot be trusted as a base
    assert (await manager.get_snapshot(infos[1].id)).terminal_buffer == shell(1)[0]
    assert (await manager.check()).snapshots == [infos[4].id]


async def test_good_one_behind_a_damaged_one_is_kept(path: Path, manager: SessionManager) -> None:
    """A good snapshot that hangs on a damaged one is made whole before what both hang on is deleted."""
    session = await manager.create_session(LOCAL)
    infos = await save_steps(manager, session.id, 4)
    spoil(path, infos[1].id, "checksum")
    await manager.delete_snapshot(infos[2].id)
    assert (await manager.get_snapshot(infos[0].id)).terminal_buffer == shell(0)[0]


async def test_everything_at_once(manager: SessionManager) -> None:
    """While saves, deletions and cleanups of one session race, what is left reads back, and the newest is left."""
    session = await manager.create_session(LOCAL)
    saved: dict[str, bytes] = {}
    chance = random.Random(7)

    async def save(step: int) -> None:
        info = await manager.save_snapshot(session.id, *shell(step))
        saved[info.id] = shell(step)[0]

    async def delete() -> None:
        if saved:
            try:
                await manager.delete_snapshot(chance.choice(list(saved)))
            except SnapshotNotFound:
                return  # a cleanup or another deletion was first

    for start in range(10):
        saves = [save(start * 6 + number) for number in range(6)]
        others = [delete(), delete(), manager.cleanup_old_snapshots(8), delete()]
        calls = [*saves, *others]
        chance.shuffle(calls)
        await asyncio.gather(*calls)
        left = (await manager.list_snapshots(session.id)).snapshots
        for info in left:
            assert (await manager.get_snapshot(info.id)).terminal_buffer == saved[info.id]
    assert (await manager.check()).ok
    assert 1 <= len(left) <= 14


steps = st.lists(
    st.one_of(
        st.tuples(st.just("save"), st.integers(0, 40), st.booleans()),
        st.tuples(st.just("delete"), st.integers(0, 100), st.just(False)),
        st.tuples(st.just("cleanup"), st.integers(1, 8), st.just(False)),
    ),
    min_size=10,
    max_size=60,
)


@pytest.mark.slow
@given(script=steps, together=st.integers(1, 6))
@example(script=[("save", step, True) for step in range(40)] + [("delete", 8, False)] * 30, together=1)
@settings(deadline=None, max_examples=40, derandomize=True)
def test_chains_against_a_model(
    tmp_path_factory: pytest.TempPathFactory, script: list[tuple[str, int, bool]], together: int
) -> None:
    """After any saves, deletions and cleanups, alone or several at once, exactly the right screens read back."""
    folder = tmp_path_factory.mktemp("model")
    asyncio.run(_play(str(folder / "sessions.db"), script, together))


async def _play(path: str, script: list[tuple[str, int, bool]], together: int) -> None:
    model: dict[str, tuple[bytes, bytes | None]] = {}
    async with SessionManager.open(path) as manager:
        session = await manager.create_session(LOCAL)

        async def save(step: int, with_scrollback: bool) -> None:
            buffer, scrollback = shell(step)
            kept = scrollback if with_scrollback else None
            model[(await manager.save_snapshot(session.id, buffer, kept)).id] = (buffer, kept)

        async def delete(place: int) -> None:
            if model:
                chosen = list(model)[place % len(model)]
                del model[chosen]
                await manager.delete_snapshot(chosen)

        for start in range(0, len(script), together):
            batch = script[start : start + together]
            if any(what == "cleanup" for what, _, _ in batch):
                keep = batch[0][1] + 1
                deleted = await manager.cleanup_old_snapshots(keep)
                newest = [info.id for info in (await manager.list_snapshots(session.id)).snapshots]
                assert deleted == len(model) - len(newest)
                assert len(newest) == min(keep, len(model))
                for lost in set(model) - set(newest):
                    del model[lost]
            else:
                await asyncio.gather(*(save(n, more) if what == "save" else delete(n) for what, n, more in batch))
        listed = (await manager.list_snapshots(session.id)).snapshots
        assert {info.id for info in listed} == set(model)
        for info in listed:
            snapshot = await manager.get_snapshot(info.id)
            assert (snapshot.terminal_buffer, snapshot.scrollback) == model[info.id]
        assert (await manager.check()).ok
