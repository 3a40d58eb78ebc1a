"""The wall clock is set forth and back: order, schedule and backups do not depend on it."""

from __future__ import annotations

from datetime import datetime

import pytest

from faults.asking import LOCAL, names, snapshot
from faults.shim import Shim
from support import DaemonProcess, RawClient

pytestmark = pytest.mark.slow

YEAR = 365 * 86_400


def test_a_clock_that_is_set_back(daemon: DaemonProcess, client: RawClient, hand: Shim) -> None:
    """Lists keep the order of making, the newest snapshot is the last saved, and each has the time of its making."""
    first = client.call("session.create", config=LOCAL, name="first")
    old = snapshot(client, first["id"], 100, 1)["result"]
    hand.shift_clock(-YEAR)
    second = client.call("session.create", config=LOCAL, name="second")
    new = snapshot(client, first["id"], 100, 2)["result"]
    assert datetime.fromisoformat(second["created_at"]) < datetime.fromisoformat(first["created_at"])
    for _ in range(2):
        with daemon.client() as again:
            assert names(again) == ["first", "second"]
            assert again.call("snapshot.latest", session_id=first["id"])["id"] == new["id"]
            listed = again.call("snapshot.list", session_id=first["id"])["snapshots"]
            assert [one["id"] for one in listed] == [new["id"], old["id"]]
            assert again.call("maintenance.cleanup_snapshots", keep_last_n=5) == {"deleted": 0}
        daemon.restart()
    with daemon.client() as again:
        assert again.call("maintenance.cleanup_snapshots", keep_last_n=1) == {"deleted": 1}
        assert again.call("snapshot.latest", session_id=first["id"])["id"] == new["id"]


def test_a_touch_after_the_clock_was_set_back(daemon: DaemonProcess, client: RawClient, hand: Shim) -> None:
    """A touch with an earlier time than the last neither fails nor moves last_active back."""
    session = client.call("session.create", config=LOCAL)
    hand.shift_clock(-YEAR)
    touched = client.call("session.touch", id=session["id"])
    client.call("maintenance.auto_save")
    assert touched["last_active"] >= session["last_active"]
    daemon.restart()
    with daemon.client() as again:
        assert again.call("session.get", id=session["id"])["last_active"] >= session["last_active"]


def test_the_schedule_does_not_follow_the_wall_clock(daemon: DaemonProcess, client: RawClient, hand: Shim) -> None:
    """A clock set forth by a year makes nothing overdue; one set back delays no save."""
    hand.shift_clock(YEAR)
    client.call("daemon.ping")
    assert [one["name"] for one in client.call("daemon.info")["chores"] if one["overdue"]] == []
    hand.shift_clock(-YEAR)
    session = client.call("session.create", config=LOCAL)
    client.call("session.touch", id=session["id"])
    hand.pass_time(61)
    client.call("daemon.ping")
    daemon.wait_for_log("backup made")
    assert client.call("stats.get")["last_auto_save_at"] is not None
