"""Calls to the daemon for what a person waits for: without click, msgspec, json, socket or anything that they import.

An `orbitctl ls` may take two fifths of the time of `import click, msgspec, socket`, and Python itself takes half of
that. So this module knows the plain case only: a daemon of this user that runs at its socket, and answers. Everything
else raises `Unusual`, and the caller starts again the usual way (`orbitctl.client.client`), which has a message for
each case. Nothing is printed here.

    with LightConnection(os.environ) as connection:
        answer = connection.call("session.list", {"limit": 1000})
    answer.value["sessions"], answer.raw
"""

from __future__ import annotations

import os
import struct
from _socket import AF_UNIX, SO_SNDTIMEO, SOCK_STREAM, SOL_SOCKET, socket

from orbit_os.places import HomeUnusable, Places
from orbit_os.sockets import SocketPathTooLong, check_socket_path, peer_uid
from orbit_protocol.paths import path_mistake
from orbitctl.client.light_json import encode, scan

TYPE_CHECKING = False
if TYPE_CHECKING:  # as typing has it, which is not imported here
    from collections.abc import Mapping
    from typing import Any

SOCKET_VARIABLE, CONFIG_VARIABLE, DATABASE_VARIABLE = "ORBITD_SOCKET", "ORBITD_CONFIG", "ORBITD_DATABASE"
PATIENCE_SECS = 0.3
"""How long a connection, or some bytes of an answer, are waited for. Then the usual way asks again, and says what it
waits for where the daemon hangs: so much later than it would have alone."""
MAX_ANSWER_BYTES = 1 << 24
MAX_COMMENTS = 1 << 14
"""Bytes of a configuration file that is looked at."""
READ_BYTES = 1 << 18


class Unusual(Exception):
    """This is no plain case: the usual way is to be taken from its start."""


class LightAnswer:
    """The result of a call.

    Attributes:
        raw: The JSON as it came.
        value: What it says.
    """

    def __init__(self, raw: bytes, value: Any) -> None:
        self.raw = raw
        self.value = value


class LightConnection:
    """A connection to the daemon that runs at the socket where this user's daemon is looked for.

    Args:
        environ: The environment.

    Raises:
        Unusual: There is none, it is not ours, or it is named in another way than by default or by ORBITD_SOCKET.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        try:
            self._socket = _connected(socket_path(environ))
        except (OSError, ValueError) as error:
            raise Unusual from error
        self._last_id = 0

    def call(self, method: str, params: Mapping[str, Any]) -> LightAnswer:
        """Call a method and return its result. Raises: Unusual: for an error, too."""
        self._last_id += 1
        request = {"jsonrpc": "2.0", "id": self._last_id, "method": method, "params": params}
        try:
            self._socket.sendall(encode(request).encode() + b"\n")
            return _result(self._line(), self._last_id)
        except (OSError, ValueError, RecursionError) as error:  # the last for an answer that is nested too deeply
            raise Unusual from error

    def _line(self) -> bytes:
        """Return the one line that comes; a second one, as a notification would be, is unusual."""
        received = bytearray()
        while not received.endswith(b"\n"):
            data = self._socket.recv(READ_BYTES)
            received += data
            if not data or len(received) > MAX_ANSWER_BYTES:
                raise Unusual
        return bytes(received)

    def __enter__(self) -> LightConnection:
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self._socket.close()


def socket_path(environ: Mapping[str, str]) -> str:
    """Return the same path as `ClientPaths` where no configuration has a say.

    Raises:
        Unusual: A configuration or a database is named, or there is a configuration file; a path cannot be used.
    """
    if environ.get(DATABASE_VARIABLE) or environ.get(CONFIG_VARIABLE):
        raise Unusual
    places = Places(environ)
    try:
        if variable := environ.get(SOCKET_VARIABLE):
            if path_mistake(variable):
                raise Unusual
            return places.expand(variable)
        # A file that is there may name the socket, or have a mistake in it, which has to be reported.
        if not says_nothing(places.config_file):
            raise Unusual
        path = places.socket
        if os.path.dirname(path) != places.run_folder:  # a short one elsewhere, whose folder must be looked at
            raise Unusual
        places.check()
    except (HomeUnusable, OSError) as error:
        raise Unusual from error
    return path


def says_nothing(path: str) -> bool:
    """Return whether a configuration file is not there, or has nothing but comments in it. Raises: OSError.

    Then no TOML parser is needed, which takes longer to import than a list of sessions.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return not os.path.lexists(path)
    try:
        data = os.read(descriptor, MAX_COMMENTS)
    finally:
        os.close(descriptor)
    if len(data) == MAX_COMMENTS or not data.isascii():
        return False
    # TOML takes no control characters in comments, but tabs.
    lines = [line.strip(" \t") for line in data.decode().replace("\r\n", "\n").split("\n")]
    return all(not line or (line[0] == "#" and line.replace("\t", " ").isprintable()) for line in lines)


def _connected(path: str) -> socket:
    """Return a connection whose other end belongs to our own user. Raises: OSError, ValueError, Unusual."""
    try:
        check_socket_path(path)
    except SocketPathTooLong as error:
        raise Unusual from error
    connection = socket(AF_UNIX, SOCK_STREAM)
    try:
        # As in `transport`: a socket that blocks, and whose waits the kernel limits, connect(2)'s too (socket(7)).
        timeval = struct.pack("ll", *divmod(int(PATIENCE_SECS * 1_000_000), 1_000_000))
        connection.setsockopt(SOL_SOCKET, SO_SNDTIMEO, timeval)
        connection.connect(path)
        # Nothing is sent before the kernel has named the user of the process at the other end.
        if peer_uid(connection) != os.getuid():
            raise Unusual
    except BaseException:
        connection.close()
        raise
    connection.settimeout(PATIENCE_SECS)
    return connection


def _result(line: bytes, request_id: int) -> LightAnswer:
    """Return the result in the line of an answer. Raises: ValueError, RecursionError, Unusual."""
    text = line.decode()
    head, tail = '{"jsonrpc":"2.0","result":', f',"id":{request_id}}}\n'
    # msgspec refuses a lone surrogate, which only an escape can be; other letters it does not write as escapes.
    if not text.startswith(head) or "\\ud" in text or "\\uD" in text:
        raise Unusual
    value, end = scan(text, len(head))
    if text[end:] != tail:
        raise Unusual
    return LightAnswer(text[len(head) : end].encode(), value)
