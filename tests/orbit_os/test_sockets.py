"""Paths of Unix sockets: what fits into sun_path."""

from __future__ import annotations

import os

import pytest

from orbit_os.sockets import MAX_PATH_BYTES, fitting_socket_path


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
