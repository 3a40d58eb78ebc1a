"""Backups with histories: written while sessions record, and brought back with the sessions."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ctl_support import Orbitctl
from film_support import film_of, history_of
from history_sessions import Printing
from support import DaemonProcess


def test_histories_come_back_with_a_backup(daemon: DaemonProcess, home: Path) -> None:
    """A film that was forgotten after the backup is there again after the restore, and goes on."""
    ctl, path = Orbitctl(home, daemon.environment), home / "b.db"
    with daemon.client() as client:
        one = Printing(client, "one")
        one.print(b"before")
        one.save()
        done = client.call("maintenance.backup", path=str(path), with_history=True)
        assert done["history_path"] == str(home / "b.db.history.db")
        assert done["history_bytes"] == os.path.getsize(done["history_path"])
        assert stat.S_IMODE(os.stat(done["history_path"]).st_mode) == 0o600
        film = film_of(home / "b.db.history.db", one.id)
        client.call("session.terminate", id=one.id)
        client.call("history.forget", session_id=one.id)
    daemon.stop()
    restored = ctl.ok("--json", "maintenance", "restore", "--yes", str(path)).json
    assert restored["history_path"] == str(history_of(daemon.database_path))
    assert film_of(history_of(daemon.database_path), one.id) == film
    daemon.start()
    with daemon.client() as client:
        client.call("session.start", id=one.id, cols=80, rows=24)
        again = Printing(client, "one", session_id=one.id)
        again.print(b"again")
        again.save()
    start, records, _ = film_of(history_of(daemon.database_path), one.id)
    assert (start, records[: len(film[1])]) == (film[0], film[1])
    assert len(records) > len(film[1])


def test_histories_alone_are_no_backup(daemon: DaemonProcess, home: Path) -> None:
    """Restoring a backup of histories by itself is refused in words that name what to restore; nothing changes."""
    ctl = Orbitctl(home, daemon.environment)
    with daemon.client() as client:
        one = Printing(client, "one")
        one.print(b"before")
        one.save()
        client.call("maintenance.backup", path=str(home / "b.db"), with_history=True)
    done = ctl("maintenance", "restore", "--yes", str(home / "b.db.history.db"))
    assert done.code == 1
    assert done.err.startswith(f"error: {home / 'b.db.history.db'} is a backup of histories, without sessions\n")
    assert "Restore the backup that it lies beside" in done.err
    with daemon.client() as client:
        assert [each["name"] for each in client.call("session.list")["sessions"]] == ["one"]


def test_doctor_names_the_backup_and_not_its_histories(daemon: DaemonProcess, home: Path) -> None:
    """The backup that `doctor` names is one that can be restored, though its histories were written behind it."""
    ctl = Orbitctl(home, daemon.environment)
    with daemon.client() as client:
        one = Printing(client, "one")
        one.print(b"before")
        one.save()
    made = ctl.ok("--json", "maintenance", "backup", "--with-history").json
    os.utime(made["path"], (1_700_000_000, 1_700_000_000))
    found = {each["check"]: each["message"] for each in ctl("--json", "doctor").json["checks"]}
    assert found["backup"].startswith(made["path"])


def test_without_histories_beside_it_the_present_ones_stay(daemon: DaemonProcess, home: Path) -> None:
    """An older backup leaves the histories alone, and a film that goes further than its session goes on."""
    ctl, path = Orbitctl(home, daemon.environment), home / "b.db"
    with daemon.client() as client:
        one = Printing(client, "one")
        one.print(b"before")
        one.save()
        assert client.call("maintenance.backup", path=str(path))["history_path"] is None
        one.print(b"behind the backup")
        one.save()
        client.call("session.terminate", id=one.id)
    daemon.stop()
    film = film_of(history_of(daemon.database_path), one.id)
    ctl.ok("maintenance", "restore", "--yes", str(path))
    daemon.start()
    with daemon.client() as client:
        client.call("session.terminate", id=one.id)
        client.call("session.start", id=one.id, cols=80, rows=24)
        again = Printing(client, "one", session_id=one.id)
        again.print(b"again")
        again.save()
    _, records, end = film_of(history_of(daemon.database_path), one.id)
    assert records.startswith(film[1])
    assert end > film[2]


def test_a_damaged_history_beside_a_backup_changes_nothing(daemon: DaemonProcess, home: Path) -> None:
    """Where the histories beside a backup are damaged, the restore is refused, and sessions and histories stay."""
    ctl, path = Orbitctl(home, daemon.environment), home / "b.db"
    with daemon.client() as client:
        one = Printing(client, "one")
        one.print(b"before")
        one.save()
        client.call("maintenance.backup", path=str(path), with_history=True)
        client.call("session.rename", id=one.id, name="two")
    daemon.stop()
    film = film_of(history_of(daemon.database_path), one.id)
    (home / "b.db.history.db").write_bytes(b"x" * 9000)
    assert ctl("maintenance", "restore", "--yes", str(path)).code != 0
    assert film_of(history_of(daemon.database_path), one.id) == film
    daemon.start()
    with daemon.client() as client:
        assert client.call("session.find", ref="two")["id"] == one.id


def test_no_backup_is_written_over_the_histories(daemon: DaemonProcess, home: Path) -> None:
    """The database of histories is a file of Orbit's own."""
    with daemon.client() as client:
        one = Printing(client, "one")
        one.print(b"x")
        one.save()
        path = str(history_of(daemon.database_path))
        assert client.error("maintenance.backup", path=path)["data"]["kind"] == "invalid_params"
        path = str(daemon.database_path.with_name("sessions.db"))
        assert client.error("maintenance.backup", path=path, with_history=True)["data"]["kind"] == "invalid_params"
