"""kill -9 to serving, with 1 GiB of film: as without, <= 1.1x.

Measured from the spawn of `python -m orbitd` to the line on `--ready-fd`, of two daemons with the same sessions, both
ended with -9 before each start; history.db of one is filled with rows of the form in which a recorder writes them.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks.bench import ORBITD, Bench, history_of, served, socket_of
from benchmarks.client import LineClient
from benchmarks.population import populate
from benchmarks.results import Bar, Outcome, Result, summary
from benchmarks.rounds import by_turns
from orbitd.history import recorder
from orbitd.history.database import open_writer
from orbitd.history.packed_records import Packed

SESSIONS = 100
CHUNK_BYTES = 64 << 10
RAW_BYTES = 512 << 10
GROUP_CHUNKS = 8


def run(bench: Bench) -> Sequence[Outcome]:
    """Measure the figure."""
    size = bench.amount(1 << 30, 32 << 20)
    full, empty = bench.new_home(), bench.new_home()
    for home in (full, empty):
        with served(home, ORBITD), LineClient(socket_of(home)) as client:
            session_ids = populate(client, SESSIONS)
            if home == full:
                full_ids = session_ids
    _fill(history_of(full), full_ids, size - (2 << 20))  # a bit less: more than the limit would be dropped
    with served(full, ORBITD), LineClient(socket_of(full)) as client:
        stats = client.call("stats.get")
        assert (stats["recorded_sessions"], stats["recording_bytes"]) >= (SESSIONS, size - (4 << 20)), stats
    starts = {"full": partial(_start_time, full), "empty": partial(_start_time, empty)}
    found = by_turns(starts, bench.amount(15, 1), warm_up=1)
    return [
        Result(
            figure="kept",
            number=summary(f"kill -9 to serving, {size >> 20:,} MiB of film", "ms", found["full"]),
            baseline=summary("kill -9 to serving, no film", "ms", found["empty"]),
            bar=Bar(kind="<=", limit=1.1),
            note=f"history.db {history_of(full).stat().st_size / 1e6:.0f} MB",
        )
    ]


def _fill(path: Path, session_ids: Sequence[str], size: int) -> None:
    """Put films of so many bytes together into a database of histories."""
    each, now = size // len(session_ids), int(time.time() * 1000) - 86_400_000
    with contextlib.closing(open_writer(str(path))) as connection:
        for session_id in session_ids:
            connection.execute("BEGIN")
            stored, position, group, chunks = 0, 0, 0, 0
            while stored < each:
                at = now + position // 100
                if chunks % GROUP_CHUNKS == 0:
                    frame = recorder.KeyFrame(
                        position=position, at=at, line=0, cols=120, rows=40, native=os.urandom(20 << 10)
                    )
                    group, taken = recorder.insert_group(connection, session_id, frame)
                    stored += taken
                records = Packed(data=b"", raw_bytes=RAW_BYTES, from_at=at, to_at=at + 1000, size=None)
                part = recorder.Slice(start=position, records=records)
                chunk = recorder.Chunk(slice=part, dictionary_bytes=0, data=os.urandom(CHUNK_BYTES))
                stored += recorder.insert_chunk(connection, session_id, group, chunk, (at, at + 1000))
                position, chunks = part.end, chunks + 1
            film = recorder.Film(recorded_to=position, raw_bytes=position, film_bytes=stored)
            recorder.write_film(connection, session_id, film)
            connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _start_time(home: Path) -> float:
    """Return how long a daemon takes from spawn to ready, in milliseconds; end it with -9 after a call."""
    begun = time.perf_counter_ns()
    with served(home, ORBITD) as daemon:
        taken = (time.perf_counter_ns() - begun) / 1_000_000
        with LineClient(socket_of(home)) as client:
            client.call("stats.get")  # which opens the history
        daemon.kill()
        daemon.wait()
    return taken
