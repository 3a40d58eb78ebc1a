"""A keeper whose socket has lost its name: it is found by its note or its process, and binds its path again."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import select
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import orbitd.keeper.server
from keeper_support import SECONDS, KeeperProcess, Peer, ProcessWatch
from needs import needs
from orbitd.keeper import client as client_module
from orbitd.keeper import place as keeper_place
from orbitd.keeper.client import KeeperClient, KeeperGone, start_keeper
from orbitd.keeper.place import Place, call_keeper, find_keeper, socket_address, socket_path
from orbitd.keeper.program import Program
from orbitd.keeper.server import ACCEPT_RETRY_MS, FIRST_LOOK_MS, Keeper

ROOT = Path(orbitd.keeper.server.__file__).parents[2]
SPAWN = (("id", "A"), ("file", "/bin/cat"), ("argv", "cat"), ("cwd", "/"), ("cols", 80), ("rows", 24), ("umask", 0o22))

pytestmark = needs(linux=True)


class Data:
    """A data folder with a keeper that has a program, and no orbitd that is connected to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "data"
        self.folder.mkdir(0o700)
        self.keeper = KeeperProcess(str(self.folder / "db.keeper"))
        self.keeper.start()
        with Peer(self.keeper.path) as peer:
            self.pid = peer.ask("hello").number("pid")
            assert peer.ask("spawn", *SPAWN).kind == "ok"

    @property
    def path(self) -> str:
        return self.keeper.path

    def programs(self, path: str | None = None) -> list[str]:
        """Return the programs of the keeper that is reached at a path."""
        with Peer(path or self.path) as peer:
            peer.ask("hello", ("path", path or self.path))
            peer.send("list")
            found = []
            while (message := peer.receive()).kind == "program":
                found.append(message.text("id"))
            return found

    def call(self, path: str | None = None) -> None:
        """Have the keeper bind its path again, and wait until it has."""
        assert call_keeper(path or self.path) == self.pid
        self.wait(path)

    def wait(self, path: str | None = None) -> None:
        """Wait until the keeper, which was called, listens."""
        end = time.monotonic() + SECONDS
        while not reachable(path or self.path):  # it says nothing to the one who calls it
            assert time.monotonic() < end
            os.sched_yield()

    def end_program(self) -> None:
        """End the keeper's program, with nobody to ask how it has ended."""
        with Peer(self.path) as peer:
            peer.hello()
            assert peer.ask("signal", ("id", "A"), ("signal", 9), ("target", "program")).kind == "ok"
            assert peer.receive().kind == "exited"


def reachable(path: str) -> bool:
    """Return whether a keeper listens at a path."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
        return True


@pytest.fixture
def data(folder: Path) -> Iterator[Data]:
    made = Data(folder)
    yield made
    with contextlib.suppress(ProcessLookupError):
        watch = ProcessWatch(made.pid)
        os.kill(made.pid, signal.SIGKILL)  # its program is hung up
        watch.wait()


def remove_socket(data: Data) -> None:
    Path(data.path).unlink()


def remove_all_files(data: Data) -> None:
    for path in data.folder.iterdir():
        path.unlink()


def move_aside(data: Data) -> None:
    data.folder.rename(data.folder.with_name("old"))
    data.folder.mkdir(0o700)


def move_aside_and_copy(data: Data) -> None:
    old = data.folder.with_name("old")
    data.folder.rename(old)
    subprocess.run(["cp", "-a", old, data.folder], check=True)
    with contextlib.suppress(FileNotFoundError):
        Path(data.path).unlink()


def delete_and_make(data: Data) -> None:
    shutil.rmtree(data.folder)
    data.folder.mkdir(0o700)


def replace_socket(data: Data) -> None:
    """As a backup brings it back: a socket file that nobody listens at."""
    Path(data.path).unlink()
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(data.path)


LOSSES = [remove_socket, remove_all_files, move_aside, move_aside_and_copy, delete_and_make, replace_socket]


@pytest.mark.parametrize("lose", LOSSES, ids=lambda lose: lose.__name__)
def test_a_socket_that_is_gone(data: Data, lose: Callable[[Data], None]) -> None:
    """However the path was lost, the living keeper is found and binds it again, and no second one is started."""
    lose(data)
    assert find_keeper(data.path) == data.pid
    data.call()
    start_keeper(data.path)
    assert data.programs() == ["A"]
    assert stat.S_IMODE(os.stat(data.path).st_mode) == 0o600


@pytest.mark.parametrize("lose", [remove_socket, replace_socket], ids=lambda lose: lose.__name__)
def test_starting_a_keeper_beside_one_without_a_socket(data: Data, lose: Callable[[Data], None]) -> None:
    """The one that lives is called; a second one never listens."""
    lose(data)
    start_keeper(data.path)
    data.wait()
    with Peer(data.path) as peer:
        assert peer.ask("hello").number("pid") == data.pid


async def test_a_client_never_starts_a_second_keeper(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client calls the living keeper, and says so where it does not come; asked again, it is connected to it."""
    monkeypatch.setattr(client_module, "CALLED_SECONDS", 0.1)
    remove_all_files(data)
    os.kill(data.pid, signal.SIGSTOP)
    with pytest.raises(KeeperGone, match=rf"pid {data.pid}\) has lost its socket"):
        await KeeperClient.connect_or_start(data.path, on_exit=print, on_gone=print)
    os.kill(data.pid, signal.SIGCONT)
    data.wait()
    client = await KeeperClient.connect_or_start(data.path, on_exit=print, on_gone=print)
    assert client.keeper_pid == data.pid
    client.close()


@pytest.mark.parametrize("number", [signal.SIGCONT, signal.SIGKILL], ids=["binds-again", "ends"])
async def test_a_client_waits_for_a_keeper_without_a_socket(
    data: Data, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """One that binds its path again a moment later serves; where it has ended by then, the next one is started."""
    monkeypatch.setattr(client_module, "CALLED_SECONDS", SECONDS)
    remove_all_files(data)
    os.kill(data.pid, signal.SIGSTOP)
    asyncio.get_running_loop().call_later(0.1, os.kill, data.pid, number)
    client = await KeeperClient.connect_or_start(data.path, on_exit=print, on_gone=print)
    assert (client.keeper_pid == data.pid) is (number == signal.SIGCONT)
    client.close()


def test_a_connected_orbitd_has_it_bound(data: Data) -> None:
    """The request bind makes the socket again; where that is impossible it says so, and the connection goes on."""
    with Peer(data.path) as peer:
        peer.hello()
        remove_socket(data)
        assert peer.ask("bind").kind == "ok"
        assert reachable(data.path)
        remove_socket(data)
        Path(data.path).mkdir()
        assert peer.ask("bind").text("reason") == "failed"
        Path(data.path).rmdir()
        assert peer.ask("bind").kind == "ok"
        assert peer.ask("list").text("id") == "A"


def test_a_folder_that_was_moved(data: Data) -> None:
    """The socket moves along; the keeper's path is the one by which it was reached, and the old one is free."""
    moved = data.folder.with_name("elsewhere")
    data.folder.rename(moved)
    path = str(moved / "db.keeper")
    assert data.programs(path) == ["A"]
    assert find_keeper(path) == data.pid
    data.folder.mkdir(0o700)
    assert find_keeper(data.path) is None
    Path(path).unlink()
    data.call(path)
    assert data.programs(path) == ["A"]


def test_a_folder_that_was_moved_and_lost_its_socket(data: Data) -> None:
    """The keeper follows its note, whose name the kernel knows."""
    moved = data.folder.with_name("elsewhere")
    data.folder.rename(moved)
    path = str(moved / "db.keeper")
    Path(path).unlink()
    data.call(path)
    assert data.programs(path) == ["A"]


def test_a_folder_that_is_gone_for_good(folder: Path) -> None:
    """A keeper whose program runs stays, and ends soon after it once no program runs and nobody can ask."""
    path = str(folder / "data" / "db.keeper")
    os.mkdir(folder / "data", 0o700)
    impatient = (
        "import sys; sys.path[:0] = sys.argv[2:]\n"
        "from orbitd.keeper import daemonize, server\n"
        "server.FIRST_LOOK_MS = 1\n"
        "daemonize.main(sys.argv[1])"
    )
    command = [sys.executable, "-c", impatient, path, str(ROOT), str(ROOT / "protocol")]
    subprocess.run(command, check=True, timeout=SECONDS)
    with Peer(path) as peer:
        watch = ProcessWatch(peer.ask("hello").number("pid"))
        peer.send("spawn", *SPAWN)
        program = peer.receive().number("pid")
    ended = os.pidfd_open(program)
    shutil.rmtree(folder / "data")
    assert select.select([ended], [], [], 0.05)[0] == []
    os.kill(program, signal.SIGKILL)
    watch.wait()
    os.close(ended)


def test_an_exit_is_kept_for_who_can_ask(data: Data) -> None:
    """Where its folder is there, a keeper without programs waits for an orbitd, and makes its socket again for it."""
    data.end_program()
    remove_socket(data)
    data.call()
    assert data.programs() == ["A"]


@pytest.mark.parametrize("length", [108, 250, 1000, 4000])
def test_a_long_path(folder: Path, length: int) -> None:
    """The socket is beside the database however long the path is; a later orbitd finds it there."""
    deep = folder
    while len(str(deep)) + 200 < length:
        deep /= "d" * 150
    deep /= "e" * max(1, length - len(str(deep)) - len("//sessions.db.keeper"))
    deep.mkdir(0o700, parents=True)
    path = str(deep / "sessions.db.keeper")
    assert len(path) == length
    start_keeper(path)
    assert socket_path(path) == path
    assert stat.S_ISSOCK(os.lstat(path).st_mode)
    found = find_keeper(path)
    assert found
    watch = ProcessWatch(found)
    with socket.socket(socket.AF_UNIX) as sock:
        with socket_address(path) as address:
            sock.connect(address)
        sock.sendall(b"\0\0\0\x16hello\0seq=1\0version=1\0")
        assert sock.recv(100)
    watch.wait()
    assert os.listdir(deep) == ["sessions.db.keeper.lock"]


async def test_a_long_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that fits nowhere has its socket in a short folder: the same one whatever the environment."""
    path = str(folder / ("n" * 150))
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/nonexistent")
    client = await KeeperClient.connect_or_start(path, on_exit=print, on_gone=print)
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert socket_path(path) != path
    again = await KeeperClient.connect(path, on_exit=print, on_gone=print)
    assert again is not None
    assert again.keeper_pid == client.keeper_pid
    watch = ProcessWatch(client.keeper_pid)
    again.close()
    client.close()
    watch.wait()
    assert not os.path.lexists(socket_path(path))  # noqa: ASYNC240  # nothing else runs


def test_a_note_of_another_process(data: Data) -> None:
    """A pid that was used again, or is of another boot or machine, is never signalled, though the note is locked.

    The keeper is found by its process then, unless the note, which is its own, has another path.
    """
    note = Path(f"{data.path}.pid")
    innocent = subprocess.Popen(["sleep", "600"])
    while keeper_place._start_time(innocent.pid) == keeper_place._start_time(data.pid):  # the clock ticks every 10 ms
        innocent.kill()
        innocent.wait()
        innocent = subprocess.Popen(["sleep", "600"])
    true = note.read_bytes()
    for wrong in (
        true.replace(b"pid %d" % data.pid, b"pid %d" % innocent.pid),
        true.replace(b"boot ", b"boot x"),
        b"pid 0\nstarted \nboot \npath /x",
        b"garbage",
        b"",
    ):
        note.write_bytes(wrong)
        assert call_keeper(data.path) == (0 if wrong.endswith(b"/x") else data.pid)
    assert innocent.poll() is None
    innocent.kill()
    innocent.wait()


@pytest.fixture
def place(folder: Path) -> Iterator[Place]:
    """A keeper's place, taken by this process."""
    made = Place.take(str(folder / "db.keeper"))
    assert made is not None
    yield made
    made.leave()


@pytest.mark.parametrize("taken", [-1, 0, 7])
def test_a_note_that_cannot_be_written(place: Place, monkeypatch: pytest.MonkeyPatch, taken: int) -> None:
    """On a full disk, whatever it takes of the new note, the keeper is found as before."""
    place.write_note()
    write = os.pwrite

    def fill(descriptor: int, data: bytes, offset: int) -> int:
        if taken < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data[:taken], offset)

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", fill)
        place.write_note()
    assert find_keeper(place.path) == os.getpid()


@pytest.mark.parametrize(
    ("number", "is_found"), [(errno.EMFILE, None), (errno.ENOSPC, None), (errno.ENOENT, False), (errno.EACCES, False)]
)
def test_a_socket_that_cannot_be_bound_again(
    place: Place, monkeypatch: pytest.MonkeyPatch, number: int, is_found: bool | None
) -> None:
    """A keeper that only has exits to report ends where its folder is gone, not where it is out of descriptors."""

    def fail(*_: object) -> None:
        raise OSError(number, "no")

    keeper = idle_keeper(place)
    os.unlink(place.path)
    with monkeypatch.context() as patched:
        patched.setattr(keeper_place, "open_private", fail)
        assert place.look_after() is is_found
        assert keeper._is_done(timed_out=True) is (is_found is False)
    before = place.listener
    assert place.look_after()
    before.close()


def test_a_keeper_that_nobody_has_met_yet(place: Place) -> None:
    """An accept that failed makes it look again soon, and does not end it before its time."""
    keeper = idle_keeper(place)
    keeper.received_hello = keeper.accepts = False
    keeper.unmet_until = time.monotonic() + SECONDS
    assert keeper._timeout() == ACCEPT_RETRY_MS
    assert not keeper._is_done(timed_out=True)
    keeper.unmet_until = time.monotonic()
    assert keeper._is_done(timed_out=True)


def idle_keeper(place: Place) -> Keeper:
    """Return a keeper that an orbitd has left with an exit to report, without this process's signals."""
    keeper = object.__new__(Keeper)
    keeper.place, keeper.listener, keeper.accepts, keeper.received_hello = place, place.listener, True, True
    keeper.connections, keeper.look_ms, keeper.poll, keeper.handlers = [], FIRST_LOOK_MS, select.poll(), {}
    program = object.__new__(Program)
    program.exit_fields, program.acknowledged = (("exit_code", 0),), False
    keeper.programs = {"A": program}
    return keeper


@contextlib.contextmanager
def old_keeper(folder: Path, path: str, before: str = "") -> Iterator[int]:
    """Run what looks like a keeper without a note, after a line of Python; yield its pid."""
    program = folder / "orbitd" / "keeper" / "__main__.py"
    program.parent.mkdir(parents=True)
    program.write_text(
        f"import os, signal\n{before}\n"
        "os.setsid(); signal.signal(signal.SIGHUP, signal.SIG_IGN); os.write(1, b'x'); signal.pause()"
    )
    with subprocess.Popen([sys.executable, "-I", "-S", str(program), path], stdout=subprocess.PIPE) as old:
        assert old.stdout is not None
        assert old.stdout.read(1) == b"x"
        yield old.pid
        assert old.poll() is None
        old.kill()


def test_a_keeper_of_an_earlier_release(folder: Path) -> None:
    """It has no note: it is found by its command line, survives the call, and nothing is started beside it."""
    path = str(folder / "db.keeper")
    with old_keeper(folder, path) as pid:
        assert call_keeper(path) == find_keeper(path) == pid
        assert find_keeper(f"{path}2") is None
    assert find_keeper(path) is None


@needs(root=True)
def test_a_keeper_in_a_container(folder: Path) -> None:
    """The same path means another file there: it is not this database's keeper."""
    path = str(folder / "db.keeper")
    with old_keeper(folder, path, f"os.chroot({str(folder)!r})"):
        assert call_keeper(path) is None


@pytest.mark.parametrize("kind", ["folder", "fifo", "link", "unlocked"])
def test_no_keeper(folder: Path, kind: str) -> None:
    """What lies in the note's place without a keeper's lock is none, and nothing waits for it."""
    note = folder / "db.keeper.pid"
    if kind == "folder":
        note.mkdir()
    elif kind == "fifo":
        os.mkfifo(note)
    elif kind == "link":
        note.symlink_to("/dev/tty")
    else:
        note.write_text(f"pid {os.getpid()}\n")
    assert call_keeper(str(folder / "db.keeper")) is None


@needs(linux=True)
@pytest.mark.parametrize("has_none", [True, False])
def test_no_keeper_is_signalled_without_a_pidfd(monkeypatch: pytest.MonkeyPatch, has_none: bool) -> None:
    """Where Python or a filter of system calls has none, the pid is returned, and nothing is sent to it."""

    def refuse(*_: int) -> int:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(keeper_place, "find_keeper", lambda _path: 7)
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append((pid, number)))
    if has_none:
        monkeypatch.delattr(os, "pidfd_open")
    else:
        monkeypatch.setattr(os, "pidfd_open", refuse)
    assert call_keeper("/nowhere/db.keeper") == 7
    assert sent == []
