"""`session.wait` for something else than the exit: in every order with output, failures, exits and other callers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace

from orbit_protocol.errors import Busy, NotRunning, RequestTimeout, SessionNotFound, ShuttingDown
from orbit_protocol.params import SessionWait
from orbit_protocol.results import Waited
from orbit_protocol.types import CommandFinished
from orbitd.screens import client
from orbitd.screens import messages as m
from orbitd.sessions import methods
from sessions_support import Sessions, until

EXITED = Waited(exit_code=None, exit_signal=None)


def waiting(sessions: Sessions, wait_for: str, **params: Any) -> asyncio.Task[Waited]:
    """Return a call that waits."""
    q = SessionWait(id="one", wait_for=wait_for, **params)  # type: ignore[arg-type]
    return asyncio.create_task(sessions.methods.wait(q))


async def searching(sessions: Sessions, pattern: str, **params: Any) -> asyncio.Task[Waited]:
    """Return a call whose search has begun."""
    live = sessions.registry.get("one")
    assert live is not None
    before = len(live.picture._searches)
    call = waiting(sessions, "text", pattern=pattern, **params)
    await until(lambda: len(live.picture._searches) > before)
    return call


def line(text: str) -> Waited:
    """Return the result of a text that was found."""
    return Waited(exit_code=None, exit_signal=None, line=text)


async def test_the_next_output(sessions: Sessions) -> None:
    """Output before the call does not count; all calls that wait are answered by the first behind it."""
    live = await sessions.run()
    await sessions.print(b"before")
    calls = [waiting(sessions, "output") for _ in range(3)]
    await until(lambda: len(live.waits._output) == 3)
    calls[2].cancel()
    await until(calls[2].done)
    sessions.write(b"x")
    assert await asyncio.gather(*calls[:2]) == [EXITED, EXITED]
    assert not live.waits._output


async def test_a_silence_counts_from_the_last_output(sessions: Sessions) -> None:
    """A session that has been silent for long is answered at once, and one that prints when it has stopped."""
    live = await sessions.run()
    await sessions.print(b"x")
    live.silent_since -= 100
    assert await waiting(sessions, "silence") == EXITED
    assert await waiting(sessions, "silence", silence_secs=99) == EXITED
    with pytest.raises(RequestTimeout, match="has not had the silence after 0"):
        await waiting(sessions, "silence", silence_secs=200, timeout_secs=0)
    call = waiting(sessions, "silence", silence_secs=100.01)
    await asyncio.sleep(0)
    before = live.silent_since
    await sessions.print(b"y")
    assert live.silent_since > before
    live.silent_since -= 100
    assert await call == EXITED


async def test_the_next_command(sessions: Sessions) -> None:
    """The command that finishes next is the answer, with its exit code; not one that had finished before."""
    live = await sessions.run()
    position = await sessions.print(b"hello")
    call = waiting(sessions, "command")
    await until(lambda: live.waits._commands)
    finished = CommandFinished(command="make", exit_code=2, duration_secs=1.5, cwd="/")
    live.waits.handle_command(replace(finished, command="old"), position)
    live.waits.handle_command(finished, position + 1)
    assert await call == Waited(exit_code=2, exit_signal=None, command=finished)
    assert not live.waits._commands


async def test_a_text_on_the_screen_or_printed_later(sessions: Sessions) -> None:
    """A line that is there is the answer at once, and one that comes later when it comes; twice for two callers."""
    await sessions.run()
    await sessions.print(b"one\r\nListening on 80\r\n")
    assert await waiting(sessions, "text", pattern="Listening on") == line("Listening on 80")
    assert await waiting(sessions, "text", pattern="Listening on", timeout_secs=0) == line("Listening on 80")
    calls = [await searching(sessions, "ready") for _ in range(2)]
    await sessions.print(b"not yet\r\n")
    sessions.write(b"it is ready now\r\n")
    assert await asyncio.gather(*calls) == [line("it is ready now")] * 2
    with pytest.raises(RequestTimeout, match="Session one has not had the text after 0"):
        await waiting(sessions, "text", pattern="nowhere", timeout_secs=0)
    process = sessions.template.processes[-1]
    await until(lambda: process.sent(m.Unwatch))
    assert process.sent(m.Unwatch)[-1].number == process.sent(m.Watch)[-1].number


async def test_what_is_printed_right_behind_the_call_counts(sessions: Sessions) -> None:
    """The search begins at the position of the call, and not where the picture is when it gets to it."""
    live = await sessions.run()
    await sessions.print(b"hello")
    await until(lambda: live.picture.fed == live.position)
    process = sessions.template.processes[-1]
    process.hold(m.Watch, m.Grown)
    call = await searching(sessions, "gone")
    position = live.position
    await sessions.print(b"soon gone\r\n")
    process.release(m.Watch, m.Grown)
    assert await call == line("hellosoon gone")
    assert process.sent(m.Watch)[-1].since == position


async def test_a_search_survives_the_process_that_does_it(sessions: Sessions) -> None:
    """Where the screens process dies, the search goes on in the next: what was printed meanwhile is found."""
    live = await sessions.run()
    await sessions.print(b"hello needle\r\n" * 2)
    await until(lambda: live.picture.fed == live.position)
    call = await searching(sessions, "needle 2")
    process = sessions.template.processes[-1]
    process.hold(m.Grown)
    await sessions.print(b"more needle 2\r\n")
    process.die()
    assert await call == line("more needle 2")
    assert len(sessions.template.processes) > 1


async def test_the_last_words_of_a_program_count(sessions: Sessions) -> None:
    """What it printed before it ended is found; else the error has its exit, as it has for every other wait."""
    await sessions.run()
    await sessions.print(b"hello")
    found, missed = await searching(sessions, "last words"), await searching(sessions, "nothing")
    others = [waiting(sessions, "output"), waiting(sessions, "command"), waiting(sessions, "silence")]
    live = sessions.registry.get("one")
    assert live is not None
    await until(lambda: live.waits._commands and live.waits._output)
    others[0].cancel()
    sessions.write(b"last words")
    await sessions.exit(exit_code=3)
    assert await found == line("hellolast words")
    for call in (missed, *others[1:]):
        with pytest.raises(NotRunning, match="has ended before") as raised:
            await call
        assert raised.value.extra == {"exit_code": 3, "exit_signal": None}


async def test_a_program_that_has_ended(sessions: Sessions) -> None:
    """Its last screen is searched; whatever else is waited for is refused, with its exit."""
    await sessions.run()
    await sessions.print(b"hello\r\n")
    await sessions.exit(exit_code=3)
    assert await waiting(sessions, "text", pattern="ell") == line("hello")
    for call in (waiting(sessions, "text", pattern="x"), waiting(sessions, "output"), waiting(sessions, "command")):
        with pytest.raises(NotRunning) as raised:
            await call
        assert raised.value.extra == {"exit_code": 3, "exit_signal": None}
    with pytest.raises(SessionNotFound):
        await sessions.methods.wait(SessionWait(id="two", wait_for="output"))


async def test_the_daemon_stops(sessions: Sessions) -> None:
    """Every wait ends with `shutting_down`, so that its client asks the next daemon."""
    live = await sessions.run()
    await sessions.print(b"hello")
    calls = [waiting(sessions, each) for each in ("output", "silence", "command")]
    calls.append(await searching(sessions, "x"))
    await until(lambda: live.waits._output and live.waits._commands)
    sessions.programs.start_closing()
    for call in calls:
        with pytest.raises(ShuttingDown):
            await call


async def test_a_session_that_is_deleted(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for it is answered when its program is ended for that."""
    monkeypatch.setattr(methods, "LAST_SEARCH_SECS", 0.01)
    await sessions.run()
    await sessions.print(b"hello")
    call = await searching(sessions, "x")
    await sessions.exit()
    with pytest.raises(NotRunning):
        await call


async def test_waits_for_texts_are_bounded(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a number of searches of a session one more is refused; those that end make room."""
    monkeypatch.setattr(client, "MAX_SEARCHES", 3)
    await sessions.run()
    await sessions.print(b"hello")
    calls = [await searching(sessions, "x") for _ in range(3)]
    with pytest.raises(Busy, match="3 calls wait for texts of this session already"):
        await waiting(sessions, "text", pattern="y")
    calls[0].cancel()
    await until(calls[0].done)
    assert await waiting(sessions, "text", pattern="ell") == line("hello")
    for call in calls[1:]:
        call.cancel()


async def test_a_session_without_clients_is_kept_while_somebody_waits(sessions: Sessions) -> None:
    """The picture that is searched is not freed for being idle."""
    live = await sessions.run()
    await sessions.print(b"hello")
    call = await searching(sessions, "x")
    await sessions.saver.save(live)
    live._free_if_idle()
    assert live.picture.state is client.PictureState.OPEN
    sessions.write(b"x")
    assert await call == line("hellox")


def test_params_that_do_not_go_together() -> None:
    """A pattern is for a text, which needs one, and `silence_secs` for a silence."""
    for params in ({"wait_for": "text"}, {"pattern": "x"}, {"wait_for": "output", "silence_secs": 1.0}):
        with pytest.raises(ValueError, match="is for `for`"):
            SessionWait(id="one", **params)  # type: ignore[arg-type]
