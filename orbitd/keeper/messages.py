r"""The wire format between orbitd and the keeper: frames of NUL-terminated fields.

A frame is its payload's length (4 bytes, big-endian) and the payload: the message's kind,
then `name=value` fields, each ended by a NUL. Nothing that execve(2) or a path can hold
contains a NUL, so no value needs escaping and every byte of an argument or an environment
arrives as it was. A name may repeat (`argv`, `env`); names that the reader does not know
are skipped, which is how an older keeper serves a newer orbitd:

    b"\x00\x00\x00\x16hello\0seq=1\0version=1\0"

Requests carry `seq`; the last answer to each is `ok` or `error` with the same `seq`.

    request     fields                                        answered with
    hello       version path                                  ok: version, pid, started_at, folders=1
    spawn       id file argv* env* cwd* cols rows umask       ok: pid, cwd, fds=1 and the master
                limit*
    list                                                      a `program` for each, then ok
    take        id                                            ok: fds=1 and the master
    signal      id signal target=program|group|foreground     ok
    ack_exit    id                                            ok
    forget      id                                            ok; the keeper closes the master
    landing                                                   ok: fds=1 and the landing buffer
    memory      id name                                       ok: fds=1 and that memory
    bind                                                      ok; the keeper's path leads to its socket
    (none)                                                    `exited`, pushed to the active orbitd

A program starts in the first folder `cwd` of its spawn that can be entered, which is `cwd` of the answer; of an error
it is the first of all, where none can be. Older keepers, whose hello has no `folders`, take the first, else HOME, and
no `limit`. That is a soft limit, `nofile=1024` or `core=-1` (none): as much of it as the hard limit allows.

The landing buffer is a memfd of `LANDING_BYTES` zeros, sealed against another size: always the same one, made by the
first request. orbitd alone reads and writes it. Where the system has no memfds: error reason=unsupported. A keeper that
is older than a request answers error reason=unknown_request.

A memory is a memfd, empty at first: always the same one for an id and a name, made by the first request, before the
program of that id is started. A program that is forgotten, or could not be started, takes its memories with it, and a
hello drops those that have no program. There are `MAX_MEMORIES` names an id at most. A `program` whose id has
memories has the field memory=1. Errors are as for the landing buffer.

`path` of a hello is how orbitd has reached the keeper: after its folder was moved, the keeper's path is that one from
then on. `bind` makes the socket again where it was removed.

`superseded` is pushed to an orbitd before its connection is closed because another one said
hello. `program` and `exited`: id, pid, started_at, and once it has ended ended_at, exit_code or
exit_signal, acknowledged. `error`: reason, words, and for reason=spawn_failed errno, path or cwd; for reason=failed
errno, where there is one.
A frame with `fds=1` carries one descriptor (SCM_RIGHTS) with its first byte.

This module is shared by both sides and runs inside the keeper: no imports but `frames`.
"""

from __future__ import annotations

from orbitd.keeper.frames import Framer as PayloadFramer
from orbitd.keeper.frames import Malformed, frame

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

VERSION = 1
"""Of the protocol. Fields and requests are added without raising it; none is ever removed, since a
keeper may be months older than the orbitd that connects to it."""

MAX_FRAME = 8 * 1024 * 1024
"""Bytes of one payload: over what Linux takes as arguments and environment together (6 MiB)."""

LANDING_BYTES = 68 * 1024
"""Of the landing buffer: 4 KiB for a header, and 64 KiB of output."""

MAX_MEMORIES = 4
"""Memories of one id."""

Value = str | bytes | int | float

Fields = tuple[tuple[str, Value], ...]


class Message:
    """One message: its kind and its fields in order."""

    __slots__ = ("fields", "kind")

    def __init__(self, kind: str, fields: list[tuple[str, bytes]]) -> None:
        self.kind = kind
        self.fields = fields

    def all(self, name: str) -> list[bytes]:
        """Return every value of a field, in order."""
        return [value for key, value in self.fields if key == name]

    def value(self, name: str, default: bytes | None = None) -> bytes:
        """Return the first value of a field, or the default.

        Raises:
            KeyError: There is no such field and no default.
        """
        for key, value in self.fields:
            if key == name:
                return value
        if default is None:
            raise KeyError(name)
        return default

    def text(self, name: str, default: str | None = None) -> str:
        """Return a field as text; bytes that are not UTF-8 survive a round trip."""
        fallback = None if default is None else default.encode()
        return self.value(name, fallback).decode("utf-8", "surrogateescape")

    def number(self, name: str, default: int | None = None) -> int:
        """Return a field as an integer.

        Raises:
            ValueError: It is none.
        """
        return int(self.value(name, None if default is None else b"%d" % default))


def encode_fields(fields: Fields) -> bytes:
    """Encode fields as a payload holds them."""
    return b"".join(b"%s=%s\0" % (name.encode("ascii"), _to_bytes(value)) for name, value in fields)


def encode(kind: str, *fields: tuple[str, Value]) -> bytes:
    """Return one frame.

    Raises:
        ValueError: A value holds a NUL, or the frame would be longer than the reader takes.
    """
    return frame(b"%s\0%s" % (kind.encode("ascii"), encode_fields(fields)), MAX_FRAME)


def decode_fields(payload: bytes) -> list[tuple[str, bytes]]:
    """Return the fields of a payload.

    Raises:
        Malformed: A field is not `name=value` or not ended.
    """
    parts = payload.split(b"\0")
    if parts.pop() != b"":
        raise Malformed("the last field is not ended")
    fields = []
    for part in parts:
        name, equals, value = part.partition(b"=")
        if not equals or not name.isascii():
            raise Malformed("a field is not name=value")
        fields.append((name.decode("ascii"), value))
    return fields


class Framer:
    """Split received bytes into messages; at most one unfinished frame is buffered."""

    def __init__(self) -> None:
        self._payloads = PayloadFramer(MAX_FRAME)

    def receive(self, data: bytes) -> Iterator[Message]:
        """Add received bytes and yield the messages that are complete now.

        Raises:
            Malformed: The bytes are not this protocol.
        """
        for payload in self._payloads.receive(data):
            kind, separator, fields = payload.partition(b"\0")
            if not kind or not separator or not kind.isascii():
                raise Malformed("a message has no kind")
            yield Message(kind.decode("ascii"), decode_fields(fields))


def _to_bytes(value: Value) -> bytes:
    encoded = value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogateescape")
    if b"\0" in encoded:
        raise ValueError("a value holds a NUL")
    return encoded
