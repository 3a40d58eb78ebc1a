"""The channel that carries frames and descriptors, against a peer that misbehaves."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from keeper_support import SECONDS, open_files
from orbit_protocol.errors import Busy
from orbitd.keeper.channel import MAX_UNSENT, Channel
from orbitd.keeper.messages import MAX_FRAME, Message, encode


@dataclass
class Heard:
    """What a channel has told."""

    messages: asyncio.Queue[tuple[Message, int | None]] = field(default_factory=asyncio.Queue)
    lost: asyncio.Queue[str] = field(default_factory=asyncio.Queue)

    def channel(self, sock: socket.socket) -> Channel:
        return Channel(sock, lambda *message: self.messages.put_nowait(message), self.lost.put_nowait)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


async def test_unfinished_message_with_a_descriptor(pair: tuple[socket.socket, socket.socket]) -> None:
    """A descriptor whose message never ends is closed with the channel."""
    ours, theirs = pair
    heard = Heard()
    heard.channel(ours)
    before = open_files()
    socket.send_fds(theirs, [encode("ok", ("seq", 1), ("fds", 1))[:9]], [0])
    theirs.shutdown(socket.SHUT_WR)

    assert await asyncio.wait_for(heard.lost.get(), SECONDS) == "it closed the connection"

    assert len(open_files()) == len(before) - 1, "only the socket has gone, and nothing has come"


@pytest.mark.parametrize(
    "sent",
    [b"\xff\xff\xff\xff", b"\0\0\0\2ok", encode("ok", ("fds", 1))],
    ids=["too long", "no end", "no descriptor"],
)
async def test_garbage_from_the_keeper(pair: tuple[socket.socket, socket.socket], sent: bytes) -> None:
    """A peer that does not speak the protocol is left, once."""
    ours, theirs = pair
    heard = Heard()
    heard.channel(ours)

    theirs.sendall(sent)

    assert await asyncio.wait_for(heard.lost.get(), SECONDS)
    assert theirs.recv(1) == b""
    assert heard.lost.empty()
    assert heard.messages.empty()


async def test_order_of_descriptors(pair: tuple[socket.socket, socket.socket]) -> None:
    """Each message gets the descriptor that was sent with it, in however many pieces it comes."""
    ours, theirs = pair
    heard = Heard()
    channel = heard.channel(ours)
    read, write = os.pipe()
    for number, descriptor in enumerate((read, write, read)):
        theirs.sendall(encode("ok", ("seq", "between")))
        frame = encode("ok", ("seq", number), ("fds", 1))
        socket.send_fds(theirs, [frame[:5]], [descriptor])
        theirs.sendall(frame[5:])

    arrived = [await asyncio.wait_for(heard.messages.get(), SECONDS) for _ in range(6)]

    carried = [(message.text("seq"), descriptor) for message, descriptor in arrived if descriptor is not None]
    modes = [(seq, fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE) for seq, descriptor in carried]
    assert modes == [("0", os.O_RDONLY), ("1", os.O_WRONLY), ("2", os.O_RDONLY)]
    for descriptor in (read, write, *(one for _, one in arrived if one is not None)):
        os.close(descriptor)
    channel.close()


def send_until_busy(channel: Channel, frame: bytes) -> int:
    for sent in range(MAX_UNSENT):
        try:
            channel.send(frame)
        except Busy:
            return sent
    raise AssertionError("it takes everything")


def receive(sock: socket.socket, count: int) -> bytes:
    sock.settimeout(SECONDS)
    data = bytearray()
    while len(data) < count:
        data += sock.recv(count)
    return bytes(data)


async def test_peer_that_does_not_read(pair: tuple[socket.socket, socket.socket]) -> None:
    """What waits for a peer that does not read is bounded; all of it arrives once the peer reads."""
    ours, theirs = pair
    heard = Heard()
    channel = heard.channel(ours)
    frame = encode("spawn", ("env", b"x" * (MAX_FRAME // 2)))

    sent = send_until_busy(channel, frame)

    assert sent * len(frame) <= MAX_UNSENT + 2 * len(frame)
    assert await asyncio.to_thread(receive, theirs, sent * len(frame)) == frame * sent
    channel.close()
