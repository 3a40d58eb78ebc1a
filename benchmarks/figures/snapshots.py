"""100 sessions x 10 snapshots of a real, evolving shell: stored <= 5 % of raw, and <= 1/4 of separate zstd frames.

Baselines: the bytes themselves, and one zstd frame a snapshot at the level that the store
uses, buffer and scrollback together. Stored is what the store counts; what the database
file takes with its rows and indexes is printed beside it. Every snapshot is read back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import zstandard

from benchmarks.bench import Bench
from benchmarks.corpus import COLS, ROWS, Screen, record
from benchmarks.results import Bar, Outcome, Result, exactly
from orbit_protocol.results import SessionStats
from orbit_protocol.types import SessionConfig
from orbitd.manager import SessionManager

LEVEL = 9  # orbitd.store.screen_codec's for screens of this size


def run(bench: Bench) -> Sequence[Outcome]:
    """Measure both figures."""
    sessions, snapshots = bench.amount(100, 3), bench.amount(10, 4)
    recorded = list(record(bench.new_home(), sessions, snapshots))
    database = bench.new_home() / "sessions.db"
    stats = asyncio.run(_store(str(database), recorded))
    compressor = zstandard.ZstdCompressor(level=LEVEL)
    separate = sum(len(compressor.compress(screen.raw)) for screens in recorded for screen in screens)
    stored = exactly(f"stored, {sessions} x {snapshots} snapshots", "bytes", stats.snapshot_stored_bytes)
    raw = exactly("raw", "bytes", stats.snapshot_raw_bytes)
    return [
        Result(figure="snapshots", number=stored, baseline=raw, bar=Bar(kind="<=", limit=0.05)),
        Result(
            figure="snapshots",
            number=stored,
            baseline=exactly("separate zstd frames", "bytes", separate),
            bar=Bar(kind="<=", limit=0.25),
        ),
        Result(figure="snapshots", number=exactly("database file", "bytes", database.stat().st_size), baseline=raw),
    ]


async def _store(path: str, recorded: list[list[Screen]]) -> SessionStats:
    """Save everything as it came, session after session, check that it comes back, and measure."""
    async with SessionManager.open(path) as manager:
        for screens in recorded:
            session = await manager.create_session(SessionConfig(session_type="local"))
            for screen in screens:
                await manager.save_snapshot(session.id, screen.terminal_buffer, screen.scrollback, cols=COLS, rows=ROWS)
            page = await manager.list_snapshots(session.id)
            for info, screen in zip(reversed(page.snapshots), screens, strict=True):
                snapshot = await manager.get_snapshot(info.id)
                assert (snapshot.terminal_buffer, snapshot.scrollback) == (screen.terminal_buffer, screen.scrollback)
        return await manager.get_stats()
