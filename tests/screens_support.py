"""What the tests of screens processes share: orbitd's end of a socket, a journal's file, a running template."""

from __future__ import annotations

import os
import select
import socket
import subprocess
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct

from orbit_os.python import python_command
from orbitd.keeper.frames import Framer
from orbitd.screens import note
from orbitd.screens.messages import (
    MAX_FRAME,
    Base,
    Follow,
    Fork,
    Forked,
    FromScreens,
    FromTemplate,
    Grown,
    Hello,
    Limits,
    Open,
    encode,
)
from orbitd.screens.note import Note
from orbitd.sessions.journal_file import FILE_HEADER_BYTES, Event, Output, file_header, records_of

T = TypeVar("T", bound=Struct)

SESSION = "0b1f7a6e-0000-4000-8000-000000000001"
LIMITS = Limits(lines=10_000, size=16 << 20)
BLANK = Base(cols=20, rows=4)


class Ended(Exception):
    """The other side has closed its socket."""


class Peer:
    """orbitd's end of a socket."""

    def __init__(self, sock: socket.socket, kind: object = FromScreens) -> None:
        self.sock = sock
        sock.settimeout(60)
        self._decoder = msgspec.msgpack.Decoder(kind)
        self._framer = Framer(MAX_FRAME)
        self._received: list[Struct] = []

    def send(self, *messages: Struct, fds: tuple[int, ...] = ()) -> None:
        """Send messages in one go; the descriptors go with the first byte, and are closed here."""
        data = b"".join(map(encode, messages))
        sent = socket.send_fds(self.sock, [data], list(fds)) if fds else 0
        for fd in fds:
            os.close(fd)
        self.sock.sendall(data[sent:])

    def receive(self) -> Struct:
        """Return the next message. Raises: Ended."""
        while not self._received:
            try:
                data = self.sock.recv(1 << 16)
            except ConnectionResetError:
                data = b""
            if not data:
                raise Ended
            self._received += [self._decoder.decode(payload) for payload in self._framer.receive(data)]
        return self._received.pop(0)

    def expect(self, kind: type[T]) -> T:
        """Return the next message of a kind; others before it are dropped."""
        while not isinstance(message := self.receive(), kind):
            pass
        return message

    def has_message(self) -> bool:
        """Return whether something has come."""
        return bool(self._received) or bool(select.select([self.sock], [], [], 0)[0])


class JournalFile:
    """A journal's file, written as orbitd writes it."""

    def __init__(self, path: Path, base: int = 0) -> None:
        self.base = self.position = base
        self.path = path
        path.write_bytes(file_header(base))

    def append(self, *events: Event | bytes) -> int:
        """Append events, bytes as output; return the position behind them."""
        data = b"".join(record_of(event) for event in events)
        with self.path.open("ab") as file:
            file.write(data)
        self.position += len(data)
        return self.position

    def damage(self, position: int, data: bytes) -> None:
        """Overwrite bytes at a position."""
        with self.path.open("r+b") as file:
            file.seek(FILE_HEADER_BYTES + position - self.base)
            file.write(data)

    def descriptor(self) -> int:
        """Return a new descriptor for reading."""
        return os.open(self.path, os.O_RDONLY)


def record_of(event: Event | bytes) -> bytes:
    """Return an event's records, one behind the other."""
    return b"".join(records_of(Output(data=event) if isinstance(event, bytes) else event))


def open_blank(request: int = 1, session: str = SESSION, **changes: object) -> Open:
    """Return the message that opens a blank picture at position 0."""
    blank = Open(request=request, session=session, base=BLANK, position=0, answer_from=0, limits=LIMITS)
    return msgspec.structs.replace(blank, **changes)


def feed(peer: Peer, journal: JournalFile, session: str = SESSION) -> None:
    """Open a blank picture and let it follow all that is in a journal."""
    peer.send(open_blank(session=session))
    peer.send(Follow(session=session, base=journal.base), fds=(journal.descriptor(),))
    peer.send(Grown(session=session, position=journal.position))


class ScreensFork:
    """A screens process that the template has forked."""

    def __init__(self, peer: Peer, note: Note, pid: int) -> None:
        self.peer, self.note, self.pid = peer, note, pid


class TemplateProcess:
    """A running template."""

    def __init__(self) -> None:
        ours, its = socket.socketpair()
        command = python_command("orbitd.screens.template", str(its.fileno()))
        self.process = subprocess.Popen(command, pass_fds=[its.fileno()])
        its.close()
        self.peer = Peer(ours, FromTemplate)
        self.hello = self.peer.expect(Hello)
        self._forks: list[ScreensFork] = []

    def fork(self, number: int = 1) -> ScreensFork:
        """Fork a screens process that has said hello."""
        ours, its = socket.socketpair()
        note_fd = note.create()
        shared = Note(note_fd)
        self.peer.send(Fork(number=number), fds=(its.detach(), note_fd))
        forked = self.peer.expect(Forked)
        assert (forked.number, forked.reason) == (number, "")
        fork = ScreensFork(Peer(ours), shared, forked.pid)
        self._forks.append(fork)
        fork.peer.expect(Hello)
        return fork

    def close(self) -> None:
        """End the template as orbitd's death does."""
        self.peer.sock.close()
        for fork in self._forks:
            fork.peer.sock.close()
            fork.note.close()
        self.process.wait(30)
