"""Killed in the middle of work on the whole store: nothing is lost, nothing half done stays, all goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from faults.interrupting import (
    LATER,
    SESSIONS,
    SNAPSHOTS,
    TIMES,
    Interrupted,
    commands,
    everything,
    is_whole,
    make_first_schema,
    make_store,
)
from support import RawClient

pytestmark = pytest.mark.slow

ALL = sorted(f"s{number}" for number in range(SESSIONS))


def counts(client: RawClient, *names: str) -> dict[str, Any]:
    stats = client.call("stats.get")
    return {name: stats[name] for name in ("total_sessions", "total_snapshots", *names)}


def test_killed_during_a_migration(home: Path) -> None:
    """The database of the first schema is there whole, migrated at the next start, with a backup from before."""
    work = Interrupted(home, make_first_schema)
    for client in work.during_start(TIMES):
        assert commands(client, "terminated") == ALL
        assert counts(client)["total_snapshots"] == SESSIONS
        backups = list(work.folder.glob("sessions.db.backup-v1-*"))
        assert backups
        assert all(map(is_whole, backups))
    assert work.kills == TIMES


def test_killed_during_a_backup(home: Path) -> None:
    """The backup that is replaced is the old one or the new one, and what was half copied is gone at the next start."""
    work = Interrupted(home, make_store)

    def backup(client: RawClient) -> None:
        (work.folder / "backups").mkdir(mode=0o700, exist_ok=True)
        for _ in range(2):
            client.call("maintenance.backup", path=str(work.folder / "backups" / "copy.db"))

    for client in work.during_call(backup, TIMES):
        assert counts(client) == everything()
        assert all(map(is_whole, (work.folder / "backups").iterdir()))
    assert work.kills == TIMES


def test_killed_during_an_archive_run(home: Path) -> None:
    """Every session is in the archive or not, with all its snapshots; the next run takes the rest."""
    work = Interrupted(home, make_store)
    for client in work.during_call(lambda client: client.call("maintenance.archive", terminated_before=LATER), TIMES):
        assert counts(client) == everything()
        assert commands(client, "terminated", "archived") == ALL
        client.call("maintenance.archive", terminated_before=LATER)
        assert counts(client, "archived_sessions") == everything(archived_sessions=SESSIONS)
    assert work.kills == TIMES


def test_killed_during_a_cleanup_and_vacuum(home: Path) -> None:
    """Whatever was deleted or moved by then, what is kept is whole, and the next run finishes."""
    work = Interrupted(home, make_store)

    def clean(client: RawClient) -> None:
        client.call("maintenance.cleanup_snapshots", keep_last_n=1)
        client.call("maintenance.vacuum")

    for client in work.during_call(clean, TIMES):
        assert commands(client, "terminated") == ALL
        assert counts(client)["total_snapshots"] in (SESSIONS * SNAPSHOTS, SESSIONS)
        clean(client)
        assert counts(client)["total_snapshots"] == SESSIONS
    assert work.kills == TIMES


def test_killed_during_a_restore(home: Path) -> None:
    """The database is the one before or the backup, whole; a restore past its turning point is finished."""
    backup = home / "backup.db"
    make_first_schema(backup)
    work = Interrupted(home, make_store)
    seen = set()
    for client in work.during_restore(backup, 2 * TIMES):
        assert commands(client, "terminated") == ALL
        seen.add(counts(client)["total_snapshots"])
        kept = list(work.folder.glob("*before-restore*"))
        assert all(map(is_whole, kept))
        assert kept or counts(client) == everything()
    assert seen <= {SESSIONS, SESSIONS * SNAPSHOTS}
    assert work.kills == 2 * TIMES
