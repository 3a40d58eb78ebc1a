"""Listening again where a socket's file or folder has been removed."""

from __future__ import annotations

import errno
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from orbit_os.files import UnsafeFolder
from orbit_os.sockets import peer_pid
from orbitd.rpc.sockets import Listener, Sockets, SocketTaken, SocketUnusable, inherited_listener, listen


class Place:
    """A daemon's folder of sockets, a spare one, and who can connect where."""

    def __init__(self, home: Path) -> None:
        self.folder, self.spare = home / "run", home / "state"
        self.path, self.spare_path = self.folder / "s", self.spare / "s"
        self.folder.mkdir(mode=0o700)
        self.closed: list[Listener] = []

    def inherited(self) -> Listener:
        """Return the listener of a socket that somebody else has bound."""
        bound = socket.socket(socket.AF_UNIX)
        bound.bind(str(self.path))
        bound.listen(1)
        return inherited_listener(bound)

    def check(self, sockets: Sockets) -> int:
        """Have it look after its sockets; return how many are new."""
        added, given_up = sockets.listen_again()
        for listener in given_up:
            listener.close()
        return len(added)


@pytest.fixture
def place(home: Path) -> Place:
    return Place(home)


@pytest.fixture
def sockets(place: Place) -> Iterator[Sockets]:
    made = Sockets([listen(str(place.path))], [str(place.path)], str(place.spare_path))
    yield made
    for listener in made.listeners:
        listener.close()


def can_connect(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as one:
        return one.connect_ex(str(path)) == 0


def test_nothing_is_done_while_the_file_is_there(place: Place, sockets: Sockets) -> None:
    """A check of a healthy socket changes nothing and warns of nothing."""
    assert place.check(sockets) == 0
    assert sockets.warnings("none") == []
    assert can_connect(place.path)


@pytest.mark.parametrize("mode", [0, 0o400, 0o666])
def test_the_mode_of_a_socket_is_put_right(place: Place, sockets: Sockets, mode: int) -> None:
    """connect(2) needs to write: without that the user is kept from a daemon that runs."""
    place.path.chmod(mode)
    assert place.check(sockets) == 0
    assert place.path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("loss", ["file", "folder", "replaced"])
def test_a_lost_socket_is_made_again(place: Place, sockets: Sockets, loss: str) -> None:
    """Without its file, or its folder, and where a left-over of another process lies in its place."""
    if loss == "folder":
        shutil.rmtree(place.folder)
    else:
        place.path.unlink()
    if loss == "replaced":
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(place.path))
    assert place.check(sockets) == 1
    assert can_connect(place.path)
    assert [listener.path for listener in sockets.listeners] == [str(place.path)]
    assert place.check(sockets) == 0


def test_a_folder_that_cannot_be_made_is_replaced_until_it_is_back(place: Place, sockets: Sockets) -> None:
    """The spare path serves meanwhile, a warning names both, and the usual one is taken up again."""
    shutil.rmtree(place.folder)
    place.folder.touch()
    assert place.check(sockets) == 1
    assert (sockets.path, can_connect(place.spare_path)) == (str(place.spare_path), True)
    (warning,) = sockets.warnings("none")
    assert str(place.path) in warning
    assert str(place.spare_path) in warning
    assert place.check(sockets) == 0
    place.folder.unlink()
    place.folder.mkdir(mode=0o700)
    assert place.check(sockets) == 1
    assert (sockets.path, can_connect(place.path), place.spare_path.exists()) == (str(place.path), True, False)
    assert sockets.warnings("none") == []


def test_a_spare_socket_that_is_lost_is_made_again(place: Place, sockets: Sockets) -> None:
    """Both places may lose their file."""
    shutil.rmtree(place.folder)
    place.folder.touch()
    place.check(sockets)
    place.spare_path.unlink()
    assert place.check(sockets) == 1
    assert can_connect(place.spare_path)


def test_a_path_that_somebody_else_serves_is_left_to_them(place: Place, sockets: Sockets) -> None:
    """Another daemon that listens there now is not disturbed: the spare path serves."""
    place.path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(place.path))
        other.listen(5)
        assert place.check(sockets) == 1
        assert sockets.path == str(place.spare_path)
        assert can_connect(place.path)


@pytest.mark.parametrize(
    ("supervisor", "remedy"),
    [
        ("systemd", "systemctl --user restart orbitd.socket orbitd.service"),
        ("launchd", "orbitctl service install"),
        ("none", "restart the program that handed it over"),
    ],
)
def test_a_socket_that_was_handed_over_is_replaced(place: Place, supervisor: str, remedy: str) -> None:
    """A new one is bound beside it, the old one stays open for who still holds it, and a warning has the remedy."""
    old = place.inherited()
    sockets = Sockets([old], [old.path], str(place.spare_path))
    assert place.check(sockets) == 0
    place.path.unlink()
    assert place.check(sockets) == 1
    assert can_connect(place.path)
    assert old.socket.fileno() != -1
    (warning,) = sockets.warnings(supervisor)
    assert "orbitd listens beside it" in warning
    assert remedy in warning
    for listener in sockets.listeners:
        listener.close()
    assert not place.path.exists()


def test_the_file_of_a_socket_that_was_handed_over_stays(place: Place) -> None:
    """It is closed at the end like any other; its file belongs to who made it."""
    inherited = place.inherited()
    inherited.close()
    assert place.path.exists()


def test_a_socket_that_was_handed_over_without_its_file_is_replaced_at_once(place: Place) -> None:
    """A supervisor that has not noticed the loss hands it over again."""
    bound = place.inherited().socket
    place.path.unlink()
    sockets = Sockets([inherited_listener(bound)], [str(place.path)], str(place.spare_path))
    assert place.check(sockets) == 1
    assert can_connect(place.path)
    for listener in sockets.listeners:
        listener.close()


def test_clients_of_a_socket_that_was_handed_over_see_this_process(place: Place) -> None:
    """The kernel names who has called listen(2) last, and the lock's note names this process."""
    bound = socket.socket(socket.AF_UNIX)
    bound.bind(str(place.path))
    if (child := os.fork()) == 0:
        bound.listen(1)
        os._exit(0)
    os.waitpid(child, 0)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(place.path))
        assert peer_pid(client) == child
    listener = inherited_listener(bound)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(place.path))
        assert peer_pid(client) == os.getpid()
    listener.close()


def test_an_abstract_name_has_no_file_to_lose() -> None:
    """A socket of Linux's abstract namespace counts as reachable."""
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(f"\0orbit-test-{os.getpid()}")
        bound.listen(1)
        listener = inherited_listener(bound)
        assert listener.is_reachable()
        assert Sockets([listener], [listener.path], "/nowhere/s").listen_again() == ([], [])


class Refusing:
    """Stands for `listen`: it fails at one path."""

    def __init__(self, path: str, error: Exception) -> None:
        self.path, self.error = path, error

    def __call__(self, path: str) -> Listener:
        if path == self.path:
            raise self.error
        return Listener(socket.socket(), path, None)


OBSTACLES = [SocketUnusable("no sockets here"), OSError(errno.ENOENT, "No such file")]


@pytest.mark.parametrize("error", OBSTACLES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("may_move", [True, False])
def test_a_start_where_there_can_be_no_socket(
    monkeypatch: pytest.MonkeyPatch, error: Exception, may_move: bool
) -> None:
    """The spare path serves in the place of the usual one, and never of one that was configured."""
    monkeypatch.setattr("orbitd.rpc.sockets.listen", Refusing("/run/s", error))
    sockets = Sockets([], ["/run/s"], "/state/s")
    if may_move:
        sockets.listen_first(may_move=True)
        assert [listener.path for listener in sockets.listeners] == ["/state/s"]
        sockets.listeners[0].close()
        assert sockets.obstacle
    else:
        with pytest.raises(type(error)):
            sockets.listen_first(may_move=False)


def test_a_start_in_an_unsafe_folder_is_refused(place: Place) -> None:
    """Its owner is to close it: that somebody else can reach it is not passed over."""
    place.folder.chmod(0o755)
    with pytest.raises(UnsafeFolder, match="is open to others"):
        Sockets([], [str(place.path)], str(place.spare_path)).listen_first(may_move=True)


def test_a_start_at_a_path_in_use_is_refused(place: Place) -> None:
    """Another database's daemon serves there, or a file is in the way: nothing is guessed."""
    sockets = Sockets([], [str(place.path)], str(place.spare_path))
    place.path.touch()
    with pytest.raises(SocketTaken, match="in the way"):
        sockets.listen_first(may_move=True)
    place.path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(place.path))
        other.listen(5)
        with pytest.raises(SocketTaken, match="somebody serves"):
            sockets.listen_first(may_move=True)
    assert not place.spare_path.exists()
