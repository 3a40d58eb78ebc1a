"""launchd's side: launch_activate_socket(3), reached through ctypes.

The library is an argument, so that the handover is the same code under a fake one. ctypes
is imported only where launchd supervises: it costs the daemon memory elsewhere.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import Any, Protocol

from orbitd.supervision.handover import MAX_SOCKETS, HandoverError, listening_sockets

LABEL = "dev.orbit.orbitd"
SOCKET_NAME = "orbitd"
"""The key in the plist's Sockets."""

VARIABLES = ("XPC_SERVICE_NAME",)

# launch_activate_socket(3) answers with these where the job simply has no such socket.
_NOTHING_TO_HAND_OVER = frozenset({2, 3})  # ENOENT: no such key; ESRCH: not managed by launchd


class ActivationLibrary(Protocol):
    """The two C functions that are called; ctypes.CDLL(None) has them on macOS."""

    def launch_activate_socket(self, name: bytes, fds: Any, count: Any, /) -> int:
        """Set the array and its length; return 0 or an errno."""
        ...

    def free(self, pointer: Any, /) -> None:
        """Release the array, which the caller owns."""
        ...


def supervises(environ: Mapping[str, str]) -> bool:
    """Tell whether this is the job of our plist; a terminal's children have the terminal's name here."""
    return environ.get("XPC_SERVICE_NAME") == LABEL


def activated_sockets(library: ActivationLibrary | None = None) -> list[socket.socket]:
    """Return the sockets that launchd opened for the job; none where it has none.

    Args:
        library: What to call; the C library of the process by default.

    Raises:
        HandoverError: launchd refused, or a descriptor makes no sense.
    """
    import ctypes  # see the room's rules

    lib = library if library is not None else _process_library()
    array, count = ctypes.POINTER(ctypes.c_int)(), ctypes.c_size_t(0)
    status = lib.launch_activate_socket(SOCKET_NAME.encode(), ctypes.byref(array), ctypes.byref(count))
    if status in _NOTHING_TO_HAND_OVER:
        return []
    if status != 0:
        raise HandoverError(f"launch_activate_socket({SOCKET_NAME!r}) failed: {os.strerror(status)}")
    try:
        if count.value > MAX_SOCKETS:
            raise HandoverError(f"launchd handed over {count.value} sockets; expected at most {MAX_SOCKETS}")
        descriptors = [array[index] for index in range(count.value)]
    finally:
        lib.free(array)
    return listening_sockets(descriptors, "launchd")


def _process_library() -> Any:
    """Return the process's own C library with both functions' types declared."""
    import ctypes  # see the room's rules

    library = ctypes.CDLL(None)
    library.launch_activate_socket.restype = ctypes.c_int
    library.launch_activate_socket.argtypes = (
        ctypes.c_char_p,
        ctypes.POINTER(ctypes.POINTER(ctypes.c_int)),
        ctypes.POINTER(ctypes.c_size_t),
    )
    library.free.restype = None
    library.free.argtypes = (ctypes.c_void_p,)
    return library
