"""launchd: launch_activate_socket(3), called through ctypes.

The library is an argument, so that a test runs the same code with a fake one. ctypes is
imported only where launchd supervises: it costs the daemon memory elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Protocol

LABEL = "dev.orbit.orbitd"
SOCKET_NAME = "orbitd"
"""The key in the plist's Sockets."""

# launch_activate_socket(3) answers with these where the job simply has no such socket.
_NO_SUCH_SOCKET = frozenset({2, 3})  # ENOENT: no such key; ESRCH: not managed by launchd


class ActivationLibrary(Protocol):
    """The two C functions that are called; ctypes.CDLL(None) has them on macOS."""

    def launch_activate_socket(self, name: bytes, fds: Any, count: Any, /) -> int:
        """Set the array and its length; return 0 or an errno."""
        ...

    def free(self, pointer: Any, /) -> None:
        """Release the array, which the caller owns."""
        ...


def supervises(environ: Mapping[str, str]) -> bool:
    """Return whether launchd runs this process as our job: a process started in a terminal has another service name."""
    return environ.get("XPC_SERVICE_NAME") == LABEL


def activated_descriptors(library: ActivationLibrary | None, limit: int) -> list[int]:
    """Return the descriptors of the sockets that launchd opened for the job; the caller closes them.

    Args:
        library: What to call; None for the C library of the process.
        limit: More descriptors than this are refused.

    Raises:
        ValueError: launchd refused, or passed too many.
    """
    import ctypes  # only here: see the module's docstring

    lib = library if library is not None else _process_library()
    # The C function allocates the array and stores its address; the caller frees it. Both objects
    # live in this frame until the call has returned, so the pointers to them stay valid.
    array, count = ctypes.POINTER(ctypes.c_int)(), ctypes.c_size_t(0)
    status = lib.launch_activate_socket(SOCKET_NAME.encode(), ctypes.byref(array), ctypes.byref(count))
    if status in _NO_SUCH_SOCKET:
        return []
    if status != 0:
        raise ValueError(f"launch_activate_socket({SOCKET_NAME!r}) failed: {os.strerror(status)}")
    try:
        if count.value > limit:
            raise ValueError(f"launchd handed over {count.value} sockets; expected at most {limit}")
        return [array[index] for index in range(count.value)]
    finally:
        lib.free(array)


def _process_library() -> Any:
    """Return the process's own C library with both functions' types declared."""
    import ctypes

    library = ctypes.CDLL(None)  # dlopen(NULL): what the process has loaded, and that includes libSystem
    # Without these ctypes passes pointers and size_t as int, which is 32 bits wide.
    library.launch_activate_socket.restype = ctypes.c_int
    library.launch_activate_socket.argtypes = (
        ctypes.c_char_p,
        ctypes.POINTER(ctypes.POINTER(ctypes.c_int)),
        ctypes.POINTER(ctypes.c_size_t),
    )
    library.free.restype = None
    library.free.argtypes = (ctypes.c_void_p,)
    return library
