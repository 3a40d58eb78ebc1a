"""Full disks: a session goes on, says what is at stake, and is whole again once there is room. Real, small tmpfs."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import select
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from live.programs import SHOW, recorded
from live.sessions import Terminal, recorded_history, recorded_screen, start
from needs import needs, require_that
from support import WAIT_SECS, DaemonProcess, RawClient
from terminal_support import shown

pytestmark = [pytest.mark.slow, needs(root=True, linux=True)]

CHATTY = "sh -c 'while read n; do seq $n; echo done $n; done'"


@contextlib.contextmanager
def small_disk(place: Path, size: str) -> Iterator[Path]:
    """Mount a disk of so many bytes, for the time of a test."""
    place.mkdir(parents=True, mode=0o700)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", str(place)], capture_output=True, check=False
    )
    require_that(mounted.returncode == 0, f"to mount a disk: {mounted.stderr.decode()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill(disk: Path) -> Path:
    """Leave no room on a disk; return the file that takes it."""
    filler = disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return filler


def save_every(seconds: int, home: Path) -> None:
    """Configure how often screens are saved; what failed is tried again as often."""
    (home / ".config" / "orbit").mkdir(parents=True)
    (home / ".config" / "orbit" / "config.toml").write_text(f"[session]\nauto_save_interval_secs = {seconds}\n")


@pytest.fixture
def journal_disk(stopped_daemon: DaemonProcess) -> Iterator[Path]:
    """A small disk for journals only."""
    with small_disk(stopped_daemon.home / ".local" / "state", "2m") as disk:
        yield disk
        stopped_daemon.end()


@pytest.fixture
def store_disk(stopped_daemon: DaemonProcess) -> Iterator[Path]:
    """A small disk for the database only."""
    with small_disk(stopped_daemon.home / ".local" / "share", "4m") as disk:
        yield disk
        stopped_daemon.end()


def warnings(client: RawClient) -> str:
    return "\n".join(client.call("daemon.info")["warnings"])


class Watch:
    """Waits until something is so that shows by a change of what is in a folder (inotify(7))."""

    CHANGES = 0x2 | 0x80 | 0x100 | 0x200  # IN_MODIFY, IN_MOVED_TO, IN_CREATE, IN_DELETE

    def __init__(self, folder: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = libc.inotify_init1(os.O_CLOEXEC)
        if libc.inotify_add_watch(self._descriptor, os.fsencode(folder), self.CHANGES) < 0:
            raise OSError(ctypes.get_errno(), f"cannot watch {folder}")

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def until(self, is_so: Callable[[], bool]) -> None:
        """Return once it is so: asked now, and again after each change."""
        while not is_so():
            assert select.select([self._descriptor], [], [], WAIT_SECS)[0], "nothing changes any more"
            os.read(self._descriptor, 1 << 16)


def test_a_full_journal_stops_no_session(stopped_daemon: DaemonProcess, journal_disk: Path) -> None:
    """The program and its clients go on, the daemon warns; with room again all is recorded, and survives kill -9."""
    daemon = stopped_daemon
    save_every(3600, daemon.home)
    with daemon.start().client() as client, daemon.client() as other:
        terminal = Terminal(other, start(client, CHATTY))
        session_id = terminal.session["id"]
        filler = fill(journal_disk)
        terminal.type("200000\n")
        terminal.follow_until("done 200000")
        assert "not recorded: No space left" in warnings(client)
        filler.unlink()
        terminal.type("7\n")
        terminal.follow_until("done 7")
        client.call("maintenance.auto_save")
        assert warnings(client) == ""
        terminal.type("8\n")
        terminal.follow_until("done 8")
    daemon.kill()
    with daemon.start().client() as client:
        text = client.call("session.screen", id=session_id, scrollback=True)["data"]
    assert text.endswith("199999\n200000\ndone 200000\n7\n" + _echoed(7) + "8\n" + _echoed(8))


def _echoed(count: int) -> str:
    return "".join(f"{number}\n" for number in range(1, count + 1)) + f"done {count}\n"


def test_a_session_starts_on_a_full_disk(stopped_daemon: DaemonProcess, journal_disk: Path) -> None:
    """Where there is no room for a journal a session runs without, and the daemon says so; room heals it."""
    save_every(3600, stopped_daemon.home)
    with stopped_daemon.start().client() as client:
        Terminal(client, start(client, "sh -c 'echo first; cat'")).follow_until("first")
        client.call("maintenance.auto_save")  # a save that came later would make room
        filler = fill(journal_disk)
        with stopped_daemon.client() as other:
            terminal = Terminal(other, start(client, CHATTY))
            assert "not recorded" in warnings(client)
            filler.unlink()
            terminal.type("3\n")
            terminal.follow_until("done 3")
            client.call("maintenance.auto_save")
            assert warnings(client) == ""


def test_a_full_store_keeps_the_journal(stopped_daemon: DaemonProcess, store_disk: Path) -> None:
    """Screens that cannot be saved stay in their journals and survive kill -9; they are saved once there is room."""
    daemon = stopped_daemon
    save_every(3600, daemon.home)
    with daemon.start().client() as client, daemon.client() as other:
        terminal = Terminal(other, start(client, CHATTY))
        session_id = terminal.session["id"]
        filler = fill(store_disk)
        terminal.type("4000\n")
        terminal.follow_until("done 4000")
        assert client.call("maintenance.auto_save") == {"saved": 0}
        assert "could not be saved" in warnings(client)
    daemon.kill()
    with daemon.start().client() as client:
        assert "done 4000" in client.call("session.screen", id=session_id)["data"]
        with daemon.client() as late:  # that the status cannot be stored keeps nobody out
            viewer = Terminal(late, session_id)
            assert "done 4000" in viewer.text()
            viewer.type("5\n")
            viewer.follow_until("done 5")
            assert client.call("maintenance.auto_save") == {"saved": 0}
            assert "could not be saved" in warnings(client)
            filler.unlink()
            assert client.call("maintenance.auto_save") == {"saved": 1}
            assert warnings(client) == ""
        assert client.call("snapshot.latest", session_id=session_id) is not None
        assert client.call("session.get", id=session_id)["live"] is True


def test_an_end_that_cannot_be_stored(stopped_daemon: DaemonProcess, store_disk: Path) -> None:
    """Clients hear of it, nothing is lost, and it is stored once there is room."""
    save_every(1, stopped_daemon.home)
    with stopped_daemon.start().client() as client, stopped_daemon.client() as other:
        terminal = Terminal(other, start(client, "sh -c 'read x; seq 3000; echo last words; exit 6'"))
        session_id = terminal.session["id"]
        filler = fill(store_disk)
        terminal.type("\n")
        assert terminal.read_to_the_end()["exit_code"] == 6
        assert client.call("session.wait", id=session_id)["exit_code"] == 6
        assert client.call("session.get", id=session_id)["status"] != "terminated"
        assert "last words" in client.call("session.screen", id=session_id)["data"]
        assert client.error("session.start", id=session_id)["data"]["kind"] == "storage_full"
        with Watch(stopped_daemon.home / ".local" / "state" / "orbit" / "journal") as watch:
            filler.unlink()  # when the end has been stored, the journal goes
            watch.until(lambda: client.call("session.get", id=session_id)["status"] == "terminated")
        assert client.call("session.get", id=session_id)["exit_code"] == 6
        assert "last words" in client.call("session.screen", id=session_id)["data"]
        assert client.call("session.start", id=session_id)["live"] is True


def test_a_warning_goes_when_a_save_has_worked(stopped_daemon: DaemonProcess, store_disk: Path) -> None:
    """The warning about an unsaved screen goes by itself, though the program prints nothing more."""
    save_every(1, stopped_daemon.home)
    with stopped_daemon.start().client() as client, stopped_daemon.client() as other:
        terminal = Terminal(other, start(client, CHATTY))
        filler = fill(store_disk)
        terminal.type("4000\n")
        terminal.follow_until("done 4000")
        client.call("maintenance.auto_save")
        assert "could not be saved" in warnings(client)
        filler.unlink()
        while warnings(client):  # it goes just behind the last write to the disk, which no event tells of
            pass


@pytest.mark.timeout(240)
def test_storms_come_through_a_full_disk(stopped_daemon: DaemonProcess, journal_disk: Path) -> None:
    """Programs that draw while the journal's disk is full and empty in turn are drawn as in an unbroken run."""
    dice = random.Random(9)
    save_every(3600, stopped_daemon.home)
    logs = [stopped_daemon.home / f"storm-{seed}" for seed in range(2)]
    with stopped_daemon.start().client() as client:
        ids = [start(client, recorded(f"{SHOW} storm {seed}", log)) for seed, log in enumerate(logs)]
        for _ in range(4):
            with stopped_daemon.client() as at:
                terminal = Terminal(at, dice.choice(ids))
                filler = fill(journal_disk)
                for _ in range(dice.randrange(1, 20)):
                    if "shown" not in terminal.text():
                        terminal.step()
                filler.unlink()
            client.call("maintenance.auto_save")
        for session_id, log in zip(ids, logs, strict=True):
            with stopped_daemon.client() as at:
                terminal = Terminal(at, session_id)
                terminal.follow_until("shown")
                assert shown(terminal.emulator.dump()) == recorded_screen(log)
        for session_id, log in zip(ids, logs, strict=True):
            assert client.call("session.screen", id=session_id, scrollback=True)["data"] == recorded_history(log)
