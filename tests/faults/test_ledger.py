"""What the kill and power-cut tests compare with: it has to notice."""

from __future__ import annotations

import contextlib
import sqlite3

import pytest

from faults.contents import read
from faults.ledger import Author
from faults.local import LocalStore
from support import DaemonProcess

pytestmark = pytest.mark.slow

LOSSES = [
    "DELETE FROM session_snapshots WHERE seq = (SELECT min(seq) FROM session_snapshots)",
    "DELETE FROM sessions WHERE seq = (SELECT max(seq) FROM sessions)",
    "UPDATE sessions SET name = 'other' WHERE seq = (SELECT max(seq) FROM sessions)",
    "UPDATE sessions SET status = 'detached' WHERE seq = (SELECT max(seq) FROM sessions WHERE status = 'active')",
    "UPDATE workspaces SET layout = replace(layout, 'grid', 'tree')",
    "DELETE FROM workspaces WHERE seq = (SELECT max(seq) FROM workspaces)",
    "UPDATE session_snapshots SET cols = cols + 1",
    "UPDATE sessions SET created_at = '2001-01-01T00:00:00.000000Z'",
]


@pytest.mark.parametrize("loss", LOSSES)
def test_the_ledger_notices_what_is_wrong(daemon: DaemonProcess, loss: str) -> None:
    """Any row that is lost, changed or of another age is told; a store as it was left is right."""
    author = Author("a", seed=11)
    with daemon.client() as client:
        while author.answered < 60 or {kind for kind, _ in author.world} != {"session", "snapshot", "workspace"}:
            author.step(client.call)
    daemon.stop()
    with LocalStore(daemon.database_path) as store:
        assert author.wrong(read(store.call)) == ""
    with contextlib.closing(sqlite3.connect(daemon.database_path, isolation_level=None)) as database:
        database.execute("PRAGMA foreign_keys = ON")
        assert database.execute(loss).rowcount > 0
    with LocalStore(daemon.database_path) as store:
        assert author.wrong(read(store.call)) != ""
