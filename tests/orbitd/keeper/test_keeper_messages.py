"""The bytes between orbitd and its keeper; whole, byte by byte, and with a tail."""

from __future__ import annotations

import pytest

from orbitd.keeper.frames import Malformed
from orbitd.keeper.messages import MAX_FRAME, Framer, Message, encode

HELLO = b"\x00\x00\x00\x16hello\0seq=1\0version=1\0"


def decoded(*pieces: bytes) -> list[Message]:
    framer = Framer()
    return [message for piece in pieces for message in framer.receive(piece)]


def test_a_frame_to_the_letter() -> None:
    """Version 1's frames are these bytes for ever."""
    assert encode("hello", ("seq", 1), ("version", 1)) == HELLO


@pytest.mark.parametrize(
    "pieces",
    [(HELLO,), [HELLO[i : i + 1] for i in range(len(HELLO))], (HELLO + HELLO[:7], HELLO[7:])],
    ids=["whole", "byte by byte", "with a tail"],
)
def test_pieces(pieces: tuple[bytes, ...]) -> None:
    """A message is the same in however many pieces it comes."""
    messages = decoded(*pieces)

    assert {message.kind for message in messages} == {"hello"}
    assert all(message.fields == [("seq", b"1"), ("version", b"1")] for message in messages)
    assert len(messages) == b"".join(pieces).count(b"hello")


def test_every_byte_but_nul_survives() -> None:
    """A value may hold anything that an argument may."""
    every = bytes(range(1, 256))
    text = every.decode("utf-8", "surrogateescape")

    [message] = decoded(encode("spawn", ("argv", every), ("argv", text), ("argv", "")))

    assert message.all("argv") == [every, every, b""]
    assert message.text("argv") == text


def test_missing_fields() -> None:
    """A field that is not there has the default that is asked for, or is an error; never a guess."""
    [message] = decoded(encode("spawn", ("cols", "wide")))

    assert message.text("id", "none") == "none"
    assert message.number("rows", 24) == 24
    with pytest.raises(KeyError):
        message.value("id")
    with pytest.raises(ValueError, match="wide"):
        message.number("cols")


def test_nul_is_refused() -> None:
    """A value with a NUL would be two fields, so it is not sent."""
    with pytest.raises(ValueError, match="NUL"):
        encode("spawn", ("argv", "a\0umask=0"))


def test_the_longest_frame() -> None:
    """A frame at the limit passes; one byte more is neither sent nor read."""
    room = MAX_FRAME - len(b"spawn\0env=\0")
    [message] = decoded(encode("spawn", ("env", b"x" * room)))
    assert len(message.value("env")) == room

    with pytest.raises(ValueError, match="at most"):
        encode("spawn", ("env", b"x" * (room + 1)))
    with pytest.raises(Malformed):
        decoded((MAX_FRAME + 1).to_bytes(4, "big"))


@pytest.mark.parametrize(
    "payload",
    [b"", b"hello", b"\0", b"\xff\xfe\0", b"hello\0seq", b"hello\0seq=1", b"hello\0seq\0", b"hello\0\xffseq=1\0"],
)
def test_malformed(payload: bytes) -> None:
    """What is not this protocol is told as such."""
    with pytest.raises(Malformed):
        decoded(len(payload).to_bytes(4, "big") + payload)
