"""A keeper that is stopped, or has lost its socket, and a daemon that is started: the real ones."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from keeper_support import ProcessWatch
from live.sessions import keeper_of, start
from live_support import Viewer
from needs import needs
from support import DaemonProcess, RawClient

pytestmark = needs(linux=True)


class Kept:
    """A session whose program runs and has printed something, and its keeper."""

    def __init__(self, daemon: DaemonProcess) -> None:
        self.daemon = daemon
        with daemon.client() as client:
            self.id = start(client, "sh -c 'echo some words; cat'")
            Viewer(client, self.id).read_until("some words")
            client.call("session.detach", id=self.id)
            self.session = client.call("session.get", id=self.id)
        self.pid = self.session["pid"]
        self.keeper = keeper_of(self.pid)

    def assert_is_live(self, client: RawClient) -> None:
        """The program is the session's, as ever, and types."""
        assert client.error("session.wait", id=self.id, timeout_secs=0)["data"]["kind"] == "timeout"
        session = client.call("session.get", id=self.id)
        assert (session["live"], session["pid"], session["status"]) == (True, self.pid, "detached")
        assert client.call("daemon.info")["warnings"] == []
        viewer = Viewer(client, self.id)
        viewer.type("typed\n")
        viewer.read_until("typed\r\ntyped")


@pytest.fixture
def kept(daemon: DaemonProcess) -> Iterator[Kept]:
    """A session of a daemon of its own; its keeper goes on at the end, if it was stopped."""
    made = Kept(daemon)
    yield made
    os.kill(made.keeper, signal.SIGCONT)


def stop(daemon: DaemonProcess) -> None:
    daemon.stop()


def kill(daemon: DaemonProcess) -> None:
    daemon.kill()


@pytest.mark.parametrize("end", [stop, kill], ids=lambda end: end.__name__)
def test_a_keeper_that_is_stopped(kept: Kept, end: Callable[[DaemonProcess], None]) -> None:
    """The store is served without it, nothing is called gone, and with SIGCONT all of it is live again by itself."""
    end(kept.daemon)
    os.kill(kept.keeper, signal.SIGSTOP)
    kept.daemon.start()
    with kept.daemon.client() as client:
        session = client.call("session.get", id=kept.id)
        assert (session["live"], session["status"]) == (False, "detached")
        assert "some words" in client.call("session.screen", id=kept.id)["data"]
        external = client.call("session.create", config={"session_type": "local"})["id"]
        client.call("snapshot.save", session_id=external, terminal_buffer="eA==")
        [warning] = client.call("daemon.info")["warnings"]
        assert f"(pid {kept.keeper})" in warning
        refusals: list[tuple[str, dict[str, Any]]] = [
            ("session.start", {"id": kept.id}),
            ("session.attach", {"id": kept.id, "cols": 80, "rows": 24}),
            ("session.terminate", {"id": kept.id}),
        ]
        for method, params in refusals:
            error = client.error(method, **params)
            assert (error["code"], error["data"]["kind"]) == (1007, "live_unavailable")
            assert error["data"]["reason"] in warning
        client.call("session.delete", id=external)
        os.kill(kept.keeper, signal.SIGCONT)
        kept.assert_is_live(client)


def test_a_daemon_that_stops_while_the_keeper_is_stopped(kept: Kept) -> None:
    """It ends in order, and the next one finds everything."""
    kept.daemon.kill()
    os.kill(kept.keeper, signal.SIGSTOP)
    kept.daemon.start()
    assert kept.daemon.stop() == 0
    os.kill(kept.keeper, signal.SIGCONT)
    kept.daemon.start()
    with kept.daemon.client() as client:
        kept.assert_is_live(client)


def test_a_stopped_keeper_that_is_killed(kept: Kept) -> None:
    """Then its programs are gone, and the session says so and can be started again."""
    kept.daemon.kill()
    os.kill(kept.keeper, signal.SIGSTOP)
    kept.daemon.start()
    watch = ProcessWatch(kept.pid)
    os.kill(kept.keeper, signal.SIGKILL)
    watch.wait()
    with kept.daemon.client() as client:
        assert client.error("session.wait", id=kept.id, timeout_secs=0)["data"]["kind"] == "not_running"
        assert client.call("session.start", id=kept.id)["pid"] != kept.pid
        assert client.call("daemon.info")["warnings"] == []
        kept.keeper = keeper_of(client.call("session.get", id=kept.id)["pid"])


def remove_socket(data: Path) -> None:
    (data / "sessions.db.keeper").unlink()


def remove_all_but_the_store(data: Path) -> None:
    for path in data.iterdir():
        if path.is_socket() or ".keeper" in path.name:
            path.unlink()


def copy_the_store(data: Path) -> None:
    """Move the folder aside and put a copy of the database in a new one, as after a restore."""
    old = data.with_name("orbit.old")
    data.rename(old)
    data.mkdir(0o700)
    for path in old.glob("sessions.db*"):
        if path.is_file() and ".keeper" not in path.name:
            shutil.copy2(path, data)


def delete_and_restore(data: Path) -> None:
    copy_the_store(data)
    shutil.rmtree(data.with_name("orbit.old"))


LOSSES = [remove_socket, remove_all_but_the_store, copy_the_store, delete_and_restore]


@pytest.mark.parametrize("lose", LOSSES, ids=lambda lose: lose.__name__)
def test_a_keeper_without_its_socket(kept: Kept, lose: Callable[[Path], None]) -> None:
    """The next daemon has it bind its path again; no second keeper is started, and nothing runs unseen."""
    kept.daemon.kill()
    lose(kept.daemon.database_path.parent)
    kept.daemon.start()
    with kept.daemon.client() as client:
        kept.assert_is_live(client)
        other = start(client, "cat")
        assert keeper_of(client.call("session.get", id=other)["pid"]) == kept.keeper


def test_a_stopped_keeper_without_its_socket(kept: Kept) -> None:
    """It is named until it goes on; then it binds its path, and its sessions are live."""
    kept.daemon.stop()
    os.kill(kept.keeper, signal.SIGSTOP)
    remove_all_but_the_store(kept.daemon.database_path.parent)
    kept.daemon.start()
    with kept.daemon.client() as client:
        [warning] = client.call("daemon.info")["warnings"]
        assert f"(pid {kept.keeper})" in warning
        assert client.error("session.start", id=kept.id)["data"]["kind"] == "live_unavailable"
        os.kill(kept.keeper, signal.SIGCONT)
        kept.assert_is_live(client)


def test_a_long_database_path(home: Path) -> None:
    """Live sessions run, and outlive the daemon, however long the database's path is."""
    folder = home / ("d" * 100) / ("e" * 100)
    folder.mkdir(0o700, parents=True)
    path = folder / "sessions.db"
    daemon = DaemonProcess(home, "--database", str(path))
    daemon.start()
    kept = Kept(daemon)
    daemon.kill()
    daemon.start()
    with daemon.client() as client:
        kept.assert_is_live(client)
        client.call("session.terminate", id=kept.id)
    watch = ProcessWatch(kept.keeper)
    daemon.stop()
    watch.wait()
