"""Paths of Unix sockets, what fits into sun_path; and the uid of a peer, as macOS reports it."""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from typing import Any

import pytest

from orbit_os.sockets import MAX_PATH_BYTES, fitting_socket_path, peer_pid, peer_uid


def natural(length: int) -> str:
    """Return an absolute path of so many bytes."""
    return "/" + "a" * (length - 1)


def test_a_path_that_fits_stays() -> None:
    """A path of the most bytes that sun_path holds is used as it is."""
    assert fitting_socket_path(natural(MAX_PATH_BYTES), "/run/user/1") == natural(MAX_PATH_BYTES)


@pytest.mark.parametrize("runtime_folder", ["/run/user/1", ""])
def test_a_path_that_is_too_long_is_replaced(runtime_folder: str) -> None:
    """One byte more is a short path, in the runtime folder if there is one: the same each time, and no other has it."""
    found = fitting_socket_path(natural(MAX_PATH_BYTES + 1), runtime_folder)
    folder = "/run/user/1/orbit" if runtime_folder else f"/tmp/orbit-{os.getuid()}"
    assert os.path.dirname(found) == folder
    assert len(os.fsencode(found)) <= MAX_PATH_BYTES
    assert found == fitting_socket_path(natural(MAX_PATH_BYTES + 1), runtime_folder)
    assert found != fitting_socket_path(natural(MAX_PATH_BYTES + 2), runtime_folder)


@pytest.mark.parametrize("runtime_folder", [natural(MAX_PATH_BYTES), "relative"])
def test_a_runtime_folder_that_cannot_serve_is_passed_over(runtime_folder: str) -> None:
    """A runtime folder that is itself too long, or relative, is not used."""
    found = fitting_socket_path(natural(200), runtime_folder)
    assert os.path.dirname(found) == f"/tmp/orbit-{os.getuid()}"


def test_bytes_count_and_not_letters() -> None:
    """sun_path holds bytes: a path of letters of two bytes is too long at half the letters."""
    path = "/" + "ä" * (MAX_PATH_BYTES // 2 + 1)
    assert len(path) < MAX_PATH_BYTES
    assert fitting_socket_path(path) != path


class MacSocket:
    """A socket of macOS: what the kernel answers for each option of SOL_LOCAL, which is 0 there."""

    def __init__(self, **answers: bytes | OSError) -> None:
        self.answers = {(0, {"credentials": 1, "pid": 2}[name]): answer for name, answer in answers.items()}

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        answer = self.answers[level, option]
        if isinstance(answer, OSError):
            raise answer
        return answer[:size]


def xucred(uid: int, version: int = 0) -> bytes:
    """Return a struct xucred as the kernel of macOS lays it out, in 76 bytes."""
    return struct.pack("<IIhxx16I", version, uid, 2, 20, 12, *[0] * 14)


def test_the_peer_on_macos(monkeypatch: pytest.MonkeyPatch) -> None:
    """The uid is in LOCAL_PEERCRED's struct, and the pid is LOCAL_PEERPID's number."""
    monkeypatch.setattr(sys, "platform", "darwin")
    connection: Any = MacSocket(credentials=xucred(501), pid=(4711).to_bytes(4, sys.byteorder))
    assert peer_uid(connection) == 501
    assert peer_pid(connection) == 4711


@pytest.mark.parametrize(
    "answer",
    [OSError(errno.ENOTCONN, "gone"), OSError(errno.EINVAL, "gone"), b"", xucred(501)[:40], xucred(501, version=9)],
    ids=["ENOTCONN", "EINVAL", "nothing", "short", "another version"],
)
def test_a_peer_that_macos_does_not_know(monkeypatch: pytest.MonkeyPatch, answer: bytes | OSError) -> None:
    """A peer that has gone, or an answer of another shape, is an OSError and never some uid."""
    monkeypatch.setattr(sys, "platform", "darwin")
    connection: Any = MacSocket(credentials=answer)
    with pytest.raises(OSError):
        peer_uid(connection)


def test_the_peer_here() -> None:
    """This kernel names our own uid and pid for both ends of a pair."""
    one, other = socket.socketpair()
    with one, other:
        assert (peer_uid(one), peer_pid(other)) == (os.getuid(), os.getpid())
