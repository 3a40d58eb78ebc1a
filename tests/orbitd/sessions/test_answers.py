"""Who answers a program's questions to its terminal: the emulator, once, whatever clients are there and send."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

import pytest

from orbit_protocol.errors import Busy
from orbit_protocol.params import ClientTerminal
from orbit_protocol.terminal_input import ANSWER_SECS, ESCAPE_SECS
from orbitd.screens import messages as m
from orbitd.screens.model import Appearance
from orbitd.sessions import attachment, program_input
from orbitd.sessions.session import LiveSession, State
from sessions_support import Client, ScriptedProcess, Sessions, until

ANSWER = b"\x1b[?62;22c"


async def running(sessions: Sessions) -> tuple[LiveSession, ScriptedProcess]:
    """Return a session whose picture is there, and the picture's process."""
    live = await sessions.run()
    position = await sessions.print(b"hello")
    await until(lambda: live.picture.fed == position)
    return live, sessions.template.processes[-1]


async def answer(sessions: Sessions, data: bytes = ANSWER, position: int | None = None) -> None:
    """Have the emulator answer a question that the program has asked just now."""
    live, process = sessions.registry.get("one"), sessions.template.processes[-1]
    assert live is not None
    held = live.picture.held + 1
    process.send(m.Fed(session="one", position=position or live.position, replies=data, held=held))
    await until(lambda: live.picture.held == held)


async def read(sessions: Sessions, count: int) -> bytes:
    """Return so many bytes that were typed, and what else is there."""
    data = b""
    while len(data) < count:
        data += sessions.typed()
        await asyncio.sleep(0)
    return data


@pytest.mark.parametrize("clients", [[], [False], [True], [False, False], [True, False]])
async def test_an_answer_is_typed_once(sessions: Sessions, clients: list[bool]) -> None:
    """With no client, one, two or only readers, and while one of them is behind, the program has one answer."""
    await running(sessions)
    attached = [await sessions.attach(read_only=read_only) for read_only in clients]
    await answer(sessions)
    assert sessions.typed() == ANSWER
    for client in attached:
        client.connection.is_congested = True
    await sessions.print(b"more than they read")
    await answer(sessions)
    assert sessions.typed() == ANSWER


async def test_an_answer_comes_while_a_client_attaches_and_leaves(sessions: Sessions) -> None:
    """Neither a picture that is drawn nor a connection that ends keeps an answer back."""
    _, process = await running(sessions)
    process.hold(m.Paint)
    client = sessions.client()
    attaching = asyncio.create_task(client.ask())
    await process.receive(m.Paint)
    await answer(sessions)
    assert sessions.typed() == ANSWER
    process.release(m.Paint)
    await attaching
    await answer(sessions)
    assert sessions.typed() == ANSWER
    client.connection.close()
    await answer(sessions)
    assert sessions.typed() == ANSWER


async def test_a_clients_answers_are_dropped(sessions: Sessions) -> None:
    """What a client's own terminal answers is not typed; keys around it and `session.send` are."""
    live, _ = await running(sessions)
    one, two = await sessions.attach(), await sessions.attach()
    one.type(b"a" + ANSWER + b"b")
    two.type(ANSWER)
    assert sessions.typed() == b"ab"
    await sessions.send(ANSWER)
    assert sessions.typed() == ANSWER
    assert live.owner_size == (80, 24)


async def test_a_position_is_an_answer_where_it_was_asked(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a second after the emulator has answered CPR, what may be Ctrl-F3 is dropped; otherwise it is a key."""
    await running(sessions)
    client = await sessions.attach()
    client.type(b"\x1b[1;5R")
    assert sessions.typed() == b"\x1b[1;5R"
    await answer(sessions, b"\x1b[1;7R")
    assert sessions.typed() == b"\x1b[1;7R"
    client.type(b"\x1b[1;5R")
    assert sessions.typed() == b""
    monkeypatch.setattr(attachment, "POSITION_SECS", 0.0)
    client.type(b"\x1b[1;5R")
    assert sessions.typed() == b"\x1b[1;5R"


async def test_escape_is_answered_when_it_is_written(sessions: Sessions) -> None:
    """It may begin an answer: it is written, and its call answered, a moment later."""
    await running(sessions)
    client = await sessions.attach()
    answered = client.type(b"x\x1b")
    assert isinstance(answered, Coroutine)
    assert sessions.typed() == b"x"
    await answered
    assert sessions.typed() == b"\x1b"


async def test_an_answer_in_pieces_is_dropped(sessions: Sessions) -> None:
    """An answer that comes in several calls is dropped as a whole, and all of them are answered."""
    await running(sessions)
    client = await sessions.attach()
    waiting = [client.type(bytes([byte])) for byte in ANSWER]
    assert not isinstance(waiting.pop(), Coroutine)
    for each in waiting:
        assert isinstance(each, Coroutine)
        await each
    client.type(b"x")
    assert sessions.typed() == b"x"


async def test_what_is_held_is_written_when_the_client_leaves(sessions: Sessions) -> None:
    """A client that types Escape and goes at once has typed it."""
    await running(sessions)
    client = await sessions.attach()
    answered = client.type(b"\x1b")
    client.connection.close()
    assert sessions.typed() == b"\x1b"
    assert isinstance(answered, Coroutine)
    await answered


async def test_an_answer_that_is_cut_off_is_not_typed_when_the_client_leaves(sessions: Sessions) -> None:
    """The beginning of an answer is dropped with the client, and its call answered."""
    await running(sessions)
    client = await sessions.attach()
    answered = client.type(ANSWER[:-2])
    client.connection.close()
    assert sessions.typed() == b""
    assert isinstance(answered, Coroutine)
    await answered


async def test_what_is_held_is_refused_with_an_error(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it cannot be written after all, each call that waits for it gets the error."""
    live, _ = await running(sessions)
    client = await sessions.attach()
    first, second = client.type(b"\x1b"), client.type(b"[")

    def refuse(data: bytes) -> None:
        raise Busy("no")

    monkeypatch.setattr(live, "write_input", refuse)
    with pytest.raises(Busy):
        client.type(b"A")
    for each in (first, second):
        assert isinstance(each, Coroutine)
        with pytest.raises(Busy):
            await each
    monkeypatch.undo()
    later = client.type(b"\x1b")
    monkeypatch.setattr(live, "write_input", refuse)
    assert isinstance(later, Coroutine)
    with pytest.raises(Busy):
        await later


async def test_what_is_held_waits_for_the_program_too(sessions: Sessions) -> None:
    """A call is answered when the terminal has taken what was held of it, and not before."""
    await running(sessions)
    client = await sessions.attach()
    sessions.hold_input()
    escape, up = client.type(b"\x1b"), client.type(b"[A")
    assert isinstance(escape, Coroutine)
    assert isinstance(up, Coroutine)
    tasks = [asyncio.create_task(escape), asyncio.create_task(up)]
    for _ in range(10):
        await asyncio.sleep(0)
    assert not any(task.done() for task in tasks)
    sessions.take_input()
    await asyncio.gather(*tasks)
    assert await read(sessions, 3) == b"\x1b[A"


def test_a_moment_is_short() -> None:
    """Escape is held no longer than nobody notices."""
    assert ESCAPE_SECS <= 0.02 < ANSWER_SECS <= 0.1


async def test_whoever_types_owns_the_size(sessions: Sessions) -> None:
    """Keys and pastes are typing; answers, mouse and focus reports are not."""
    live, _ = await running(sessions)
    one, two = await sessions.attach(size=(80, 24)), await sessions.attach(size=(100, 30))
    for data in (ANSWER, b"\x1b[<0;1;1M", b"\x1b[I"):
        one.type(data)
        assert live.size == (100, 30)
    one.type(b"x")
    assert live.size == (80, 24)
    two.type(b"\x1b[200~x\x1b[201~")
    assert live.size == (100, 30)


# A program that does not read, and one that has ended


async def test_answers_that_are_not_read_are_dropped(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that asks and never reads gets no more of them, and what is typed has its own limit."""
    monkeypatch.setattr(program_input, "MAX_UNREAD_ANSWER_BYTES", 1000)
    monkeypatch.setattr(program_input, "MAX_UNWRITTEN_BYTES", 10_000)
    live, _ = await running(sessions)

    def send(data: bytes) -> None:
        rest = live.write_input(data)
        assert rest == data
        live.unwritten.add(rest)

    sessions.hold_input()
    send(b"." * 1000)
    for _ in range(10):
        await answer(sessions, b"!" * 300)
    send(b"," * 9000)
    with pytest.raises(Busy):
        send(b"," * 1000)
    sessions.take_input()
    expected = b"." * 1000 + b"!" * 900 + b"," * 9000
    assert await read(sessions, len(expected)) == expected
    await answer(sessions)
    assert sessions.typed() == ANSWER
    assert live.state is State.RUNNING


async def test_the_next_program_gets_no_answers_of_the_last(sessions: Sessions) -> None:
    """What is fed of a program that has ended is answered to nobody."""
    live, _ = await running(sessions)
    before = live.position
    await sessions.exit()
    live = await sessions.run()
    await until(lambda: live.picture.fed == live.position)
    await answer(sessions, position=before)
    assert sessions.typed() == b""
    position = await sessions.print(b"asks")
    await answer(sessions, position=position)
    assert sessions.typed() == ANSWER


# Colours


def looks(sessions: Sessions) -> list[Appearance]:
    return [each.appearance for each in sessions.template.processes[-1].sent(m.SetAppearance)]


DARK = ClientTerminal(foreground="#ffffff", background="#000010", palette=["#010203"], kitty_graphics=True)
LIGHT = ClientTerminal(background="#fffff0")


async def test_the_colours_are_those_of_the_size_owner(sessions: Sessions) -> None:
    """Whoever owns the size gives them; they stay when nobody is there, but nothing shows images then."""
    _, process = await running(sessions)
    dark = Appearance(foreground=(255, 255, 255), background=(0, 0, 16), palette=((1, 2, 3),), kitty_graphics=True)
    one = await sessions.attach(terminal=DARK)
    await sessions.attach(terminal=LIGHT, read_only=True)
    two = await sessions.attach(terminal=LIGHT)
    one.type(b"x")
    silent = await sessions.attach()
    silent.type(b"x")
    await process.receive(m.SetAppearance, 3)
    assert looks(sessions) == [dark, Appearance(background=(255, 255, 240)), dark]
    for client in (silent, one):
        client.connection.close()
    await process.receive(m.SetAppearance, 5)
    two.connection.close()
    assert looks(sessions)[-1] == Appearance(background=(255, 255, 240))
    back = Client(sessions, terminal=DARK)
    await back.attach()
    back.connection.close()
    await until(lambda: looks(sessions)[-1].kitty_graphics is False and looks(sessions)[-2] == dark)
    assert looks(sessions)[-1].background == (0, 0, 16)
