"""The handover by launchd, with the C functions played by a fake library.

The fake fills a real C array through the very pointers that the real function gets.
"""

from __future__ import annotations

import ctypes
import errno
import socket

import pytest

from orbitd.supervision import SocketActivationError, Supervision, inherited_sockets

LAUNCHD = {"XPC_SERVICE_NAME": "dev.orbit.orbitd"}


class FakeLibrary:
    """Plays launch_activate_socket(3) and free(3), and remembers what it was asked."""

    def __init__(self, descriptors: list[int], status: int = 0) -> None:
        self.array = (ctypes.c_int * len(descriptors))(*descriptors)
        self.status = status
        self.asked: list[bytes] = []
        self.freed: list[int] = []

    def launch_activate_socket(self, name, fds, count) -> int:
        """Write the array's address and length where the pointers say."""
        self.asked.append(name)
        if self.status == 0:
            pointer = ctypes.cast(fds, ctypes.POINTER(ctypes.POINTER(ctypes.c_int)))
            pointer[0] = ctypes.cast(self.array, ctypes.POINTER(ctypes.c_int))
            ctypes.cast(count, ctypes.POINTER(ctypes.c_size_t))[0] = len(self.array)
        return self.status

    def free(self, pointer) -> None:
        """Remember the address."""
        self.freed.append(ctypes.cast(pointer, ctypes.c_void_p).value or 0)


@pytest.fixture
def listener(tmp_path_factory, monkeypatch):
    """A listening Unix socket, as launchd opens it."""
    monkeypatch.chdir(tmp_path_factory.mktemp("s"))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s")
        server.listen()
        yield server


def test_launchds_socket_is_adopted_through_the_same_interface(listener):
    """Under launchd the socket named orbitd is passed, launchd's array freed and the environment cleaned."""
    descriptor = listener.detach()
    library, environ = FakeLibrary([descriptor]), dict(LAUNCHD)
    supervision = Supervision.from_environment(environ, library=library)
    [handed] = supervision.sockets
    with handed:
        assert (supervision.name, handed.fileno(), handed.get_inheritable()) == ("launchd", descriptor, False)
    assert library.asked == [b"orbitd"]
    assert library.freed == [ctypes.addressof(library.array)]
    assert environ == {}


@pytest.mark.parametrize("status", [errno.ENOENT, errno.ESRCH])
def test_a_job_without_such_a_socket_binds_its_own(status):
    """Where the plist has no socket, or launchd does not manage us, nothing is handed over."""
    library = FakeLibrary([], status)
    assert inherited_sockets(dict(LAUNCHD), library=library) == []
    assert library.freed == []


def test_any_other_failure_is_an_error_with_the_systems_words():
    """EALREADY, the socket having been taken before, is not mistaken for none."""
    with pytest.raises(SocketActivationError, match=r"launch_activate_socket.*already in progress"):
        inherited_sockets(dict(LAUNCHD), library=FakeLibrary([], errno.EALREADY))


def test_too_many_sockets_are_refused_and_the_array_is_freed():
    """A count beyond any plist of ours ends the start and leaks nothing."""
    library = FakeLibrary([0] * 17)
    with pytest.raises(SocketActivationError, match="17 sockets"):
        inherited_sockets(dict(LAUNCHD), library=library)
    assert len(library.freed) == 1


def test_a_descriptor_that_is_no_listener_is_refused():
    """Descriptors of launchd pass the same check as systemd's."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as wrong:
        with pytest.raises(SocketActivationError, match="launchd handed over descriptor"):
            inherited_sockets(dict(LAUNCHD), library=FakeLibrary([wrong.fileno()]))
        assert wrong.fileno() > 0
