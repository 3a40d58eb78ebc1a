"""Who owns the size, and what clients whose windows have another one are sent: when, in which order, how often."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import fcntl
import struct
import termios

import pytest

from orbit_protocol.errors import NotRunning, OrbitError
from orbit_protocol.params import SessionRefresh
from orbit_protocol.terminal_reset import RESET
from orbitd.screens import messages as m
from orbitd.sessions import attachment, frames
from orbitd.sessions.session import LiveSession
from sessions_support import Client, ScriptedProcess, Sessions, until

SMALL = (40, 10)


async def opened(sessions: Sessions) -> tuple[LiveSession, ScriptedProcess]:
    """Return a session of 80x24 that has printed `hello`, and the process that has its picture."""
    live = await sessions.run()
    await sessions.print(b"hello")
    await live.picture.render(live.position, "text", scrollback=True)
    return live, sessions.template.processes[-1]


def program_size(sessions: Sessions) -> tuple[int, int]:
    """Return the columns and rows that the program sees."""
    rows, cols, _, _ = struct.unpack(
        "HHHH", fcntl.ioctl(sessions.keeper.terminals["one"], termios.TIOCGWINSZ, bytes(8))
    )
    return cols, rows


async def shows(client: Client, text: bytes) -> None:
    """Wait until a client's window shows something."""
    await until(lambda: client.shown == text)


def reasons(client: Client) -> list[str]:
    """Return the reasons of the repaints that a client was sent."""
    return [each["params"]["reason"] for each in client.connection.sent if each["method"] == "session.repaint"]


def data(client: Client, number: int = -1) -> bytes:
    """Return the data of a message."""
    return base64.b64decode(client.connection.sent[number]["params"]["data"])


# The owner of the size


async def test_typing_takes_the_size(sessions: Sessions) -> None:
    """The client that types owns the size; a mouse report, a focus report and an answer change nothing."""
    await opened(sessions)
    first, second = await sessions.attach(size=(100, 30)), await sessions.attach(size=(70, 20))
    assert program_size(sessions) == (70, 20)
    for report in (b"\x1b[<0;3;4M", b"\x1b[M !!", b"\x1b[I", b"\x1b[O\x1b[<35;1;1M", b"\x1b[?62;22c", b""):
        first.type(report)
    assert program_size(sessions) == (70, 20)
    first.type(b"x")
    assert program_size(sessions) == (100, 30)
    second.type(b"y")
    assert program_size(sessions) == (70, 20)


async def test_the_size_goes_back_to_who_owned_it_before(sessions: Sessions) -> None:
    """When the owner leaves, the size is that of the client that owned it last; readers never own it."""
    await opened(sessions)
    sizes = ((100, 30), (70, 20), (60, 15))
    clients = [await sessions.attach(size=size) for size in sizes]
    await sessions.attach(size=(20, 5), read_only=True)
    clients[0].type(b"x")
    clients[1].resize(71, 21)
    clients[1].connection.close()
    assert program_size(sessions) == (100, 30)
    clients[0].connection.close()
    assert program_size(sessions) == (60, 15)
    clients[2].connection.close()
    assert program_size(sessions) == (60, 15)


async def test_the_program_sees_only_real_changes_of_the_size(sessions: Sessions) -> None:
    """A new owner whose window has the session's size resizes nothing, and repaints nobody."""
    live, _ = await opened(sessions)
    clients = [await sessions.attach(), await sessions.attach()]
    position = live.position
    clients[0].type(b"x")
    clients[1].type(b"x")
    assert live.position == position
    assert [client.story for client in clients] == [[], []]


# Output or frames


async def test_clients_of_another_size_are_sent_frames(sessions: Sessions) -> None:
    """A reader of another size has a frame for an answer, and frames for output; one of the session's has output."""
    await opened(sessions)
    reader, owner = await sessions.attach(size=SMALL, read_only=True), await sessions.attach()
    assert (reader.shown, owner.shown) == (b"hello", b"hello")
    await sessions.print(b"-two")
    await shows(reader, b"hello-two")
    assert (owner.story, reasons(reader)) == (["output"], ["frame"])
    params = reader.connection.sent[0]["params"]
    assert (params["cols"], params["rows"], params["lost_lines"]) == (*SMALL, 0)
    assert data(reader).startswith(b"\x1b[?2026h")


async def test_the_first_frame_begins_with_the_reset(sessions: Sessions) -> None:
    """A client that is sent frames from some moment on is sent a whole one first, then differences."""
    await opened(sessions)
    first = await sessions.attach()
    second = await sessions.attach(size=SMALL)
    await until(lambda: first.story == ["repaint"])
    assert (reasons(first), data(first).startswith(RESET)) == (["frame"], True)
    await sessions.print(b"-two")
    await until(lambda: len(first.story) == 2)
    assert (reasons(first), data(first).startswith(b"\x1b[?2026h")) == (["frame", "frame"], True)
    assert (first.shown, second.shown) == (b"hello-two", b"hello-two")


async def test_output_follows_frames_without_gap_or_repetition(sessions: Sessions) -> None:
    """When the sizes are equal again a repaint comes, and behind it the output that it does not show."""
    _, process = await opened(sessions)
    first, second = await sessions.attach(), await sessions.attach(size=SMALL)
    await until(lambda: reasons(first) == ["frame"])
    process.hold(m.Paint)
    first.type(b"x")
    await process.receive(m.Paint, 3)
    sessions.write(b"-two")
    process.release(m.Paint)
    await shows(first, b"hello-two")
    assert reasons(first) == ["frame", "resized"]
    await shows(second, b"hello-two")
    await sessions.print(b"-three")
    await shows(first, b"hello-two-three")
    await shows(second, b"hello-two-three")
    assert first.story[-1] == "output"


async def test_a_reader_resizes_its_window(sessions: Sessions) -> None:
    """A window that gets the session's size is repainted and sent output; one that loses it, frames from the reset."""
    live, _ = await opened(sessions)
    reader = await sessions.attach(size=SMALL, read_only=True)
    reader.resize(80, 24)
    await until(lambda: reasons(reader) == ["resized"])
    await sessions.print(b"-two")
    await until(lambda: reader.story == ["repaint", "output"])
    reader.resize(50, 12)
    await until(lambda: reasons(reader) == ["resized", "frame"])
    assert data(reader).startswith(RESET)
    reader.resize(50, 13)
    await until(lambda: reasons(reader) == ["resized", "frame", "frame"])
    assert data(reader).startswith(RESET)
    assert (reader.shown, live.size) == (b"hello-two", (80, 24))


async def test_a_client_may_refuse_frames(sessions: Sessions) -> None:
    """With `never`, a client of any size is sent repaints of the session's size, and output."""
    await opened(sessions)
    client = await sessions.attach(size=SMALL, read_only=True, frames="never")
    await sessions.print(b"-two")
    await until(lambda: client.story == ["output"])
    await sessions.attach(size=(90, 30))
    await until(lambda: reasons(client) == ["resized"])
    params = client.connection.sent[-1]["params"]
    assert (params["cols"], params["rows"], client.shown) == (90, 30, b"hello-two")


async def test_a_client_may_want_frames_alone(sessions: Sessions) -> None:
    """With `always`, a client is sent frames at the session's size too, and owns the size as any other."""
    await opened(sessions)
    client = await sessions.attach(size=(90, 30), frames="always")
    assert program_size(sessions) == (90, 30)
    await sessions.print(b"-two")
    await shows(client, b"hello-two")
    client.resize(80, 24)
    await until(lambda: data(client).startswith(RESET))
    assert (set(client.story), set(reasons(client)), program_size(sessions)) == ({"repaint"}, {"frame"}, (80, 24))


# How often


async def test_one_frame_serves_all_windows_of_a_size(sessions: Sessions) -> None:
    """A frame is drawn once for each size, not for each client, and not again for one that comes later."""
    _, process = await opened(sessions)
    clients = [await sessions.attach(size=SMALL, read_only=True) for _ in range(5)]
    assert len(process.sent(m.Frame)) == 1
    clients.append(await sessions.attach(size=(41, 10), read_only=True))
    await sessions.print(b"-two")
    for client in clients:
        await shows(client, b"hello-two")
    assert len(process.sent(m.Frame)) == 4


async def test_what_changes_while_a_frame_is_drawn_is_in_the_next(sessions: Sessions) -> None:
    """At most one frame is asked for at a time, and one more shows all that has changed meanwhile."""
    live, process = await opened(sessions)
    client = await sessions.attach(size=SMALL, read_only=True)
    process.hold(m.Frame)
    await sessions.print(b"-two")
    await process.receive(m.Frame, 2)
    for _ in range(20):
        await sessions.print(b"x")
        await until(lambda: live.picture.fed == live.position)
    assert len(process.sent(m.Frame)) == 2
    process.release(m.Frame)
    await shows(client, b"hello-two" + b"x" * 20)
    assert len(process.sent(m.Frame)) == 2  # the picture had moved on when it was drawn


async def test_the_rate_is_limited(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first change is sent at once, the next waits for a timer; nothing is scheduled while nothing changes."""
    monkeypatch.setattr(frames, "FRAMES_A_SEC", 1e-6)
    live, process = await opened(sessions)
    client = await sessions.attach(size=SMALL, read_only=True)
    await sessions.print(b"-two")
    await shows(client, b"hello-two")
    assert live._frames._timer is None
    await sessions.print(b"-three")
    await until(lambda: live.picture.fed == live.position)
    timer = live._frames._timer
    assert timer is not None
    assert (len(process.sent(m.Frame)), timer.when() > live._loop.time() + 1000) == (2, True)
    live._frames.cancel()
    live._frames._next_at = 0.0
    live._frames.soon()
    await shows(client, b"hello-two-three")


async def test_a_synchronized_update_is_shown_as_a_whole(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the program is in the middle of one, nothing is sent; one that it does not end is shown after a while."""
    live, process = await opened(sessions)
    client = await sessions.attach(size=SMALL, read_only=True)
    monkeypatch.setattr(frames, "UPDATE_SECS", 1000.0)
    await sessions.print(b"{half")
    await until(lambda: live._frames._timer is not None)
    assert client.story == []
    await sessions.print(b"}")
    await shows(client, b"hello{half}")
    assert client.story == ["repaint"]
    await sessions.print(b"{half")
    await until(lambda: live._frames._timer is not None and live._frames._updating_since is not None)
    drawn = len(process.sent(m.Frame))
    monkeypatch.setattr(frames, "UPDATE_SECS", 0.0)
    await shows(client, b"hello{half}{half")
    assert (len(process.sent(m.Frame)), client.story) == (drawn, ["repaint", "repaint"])
    await until(lambda: live._frames._timer is None)


async def test_no_frames_are_drawn_for_nobody(sessions: Sessions) -> None:
    """Output of a session without such clients asks for no frame, and frames that nobody needs are forgotten."""
    live, process = await opened(sessions)
    client = await sessions.attach(size=SMALL, read_only=True)
    client.connection.close()
    owner = await sessions.attach()
    await sessions.print(b"-two")
    await shows(owner, b"hello-two")
    assert len(process.sent(m.Frame)) == 1
    await sessions.attach(size=(41, 10), read_only=True)
    assert list(live._frames._newest) == [(41, 10)]


async def test_a_client_that_does_not_read_skips_frames(sessions: Sessions) -> None:
    """Nothing is queued for it: once it has read everything it is sent what differs from its last frame, once."""
    live, _ = await opened(sessions)
    slow, quick = [await sessions.attach(size=SMALL, read_only=True) for _ in range(2)]
    slow.connection.is_congested = True
    for text in (b"-two", b"-three"):
        await sessions.print(text)
        await until(lambda: live.picture.fed == live.position)
        await shows(quick, b"hello-two" if text == b"-two" else b"hello-two-three")
    assert slow.story == []
    slow.connection.drain()
    await shows(slow, b"hello-two-three")
    assert (slow.story, data(slow).startswith(b"\x1b[?2026h")) == (["repaint"], True)


async def test_a_client_that_is_behind_gets_a_frame_when_sizes_differ(sessions: Sessions) -> None:
    """One that missed output is sent a whole frame once it reads; and a repaint where it is to have output again."""
    await opened(sessions)
    client = await sessions.attach()
    client.connection.is_congested = True
    await sessions.print(b"-two")
    await sessions.print(b"-three")
    other = await sessions.attach(size=SMALL)
    await sessions.print(b"-four")
    await shows(other, b"hello-two-three-four")
    assert client.story == ["output"]
    client.connection.drain()
    await shows(client, b"hello-two-three-four")
    assert reasons(client) == ["frame"]
    client.connection.is_congested = True
    other.connection.close()
    await sessions.print(b"-five")
    assert reasons(client) == ["frame"]
    client.connection.drain()
    await shows(client, b"hello-two-three-four-five")
    assert reasons(client)[1:] == ["behind"]


# Requests, failures, ends


@pytest.mark.parametrize(("before", "after"), [(SMALL, (80, 24)), ((80, 24), SMALL), (SMALL, (41, 10))])
async def test_the_window_is_resized_before_the_attach_is_answered(
    sessions: Sessions, before: tuple[int, int], after: tuple[int, int]
) -> None:
    """The answer is drawn for the window as it is when it is answered; nothing is lost or doubled behind it."""
    live, process = await opened(sessions)
    process.hold(m.Frame, m.Paint)
    client = sessions.client(size=before, read_only=True)
    asking = asyncio.create_task(client.ask())
    await until(lambda: process.sent(m.Frame) or process.sent(m.Paint))
    live.resize(live.attachments[0], *after)
    process.release(m.Frame, m.Paint)
    await asking
    assert (process.sent(m.Frame)[-1].cols == after[0]) == (after != (80, 24))
    client.settle()
    await sessions.print(b"-two")
    await shows(client, b"hello-two")
    assert client.story[-1] == ("output" if after == (80, 24) else "repaint")


async def test_a_refresh_is_a_whole_frame(sessions: Sessions) -> None:
    """A client that is sent frames is answered with one, without history; what follows differs from that."""
    await opened(sessions)
    client = await sessions.attach(size=SMALL, read_only=True)
    answer = await attachment.refresh(client._call, SessionRefresh(attachment_id=client.id, scrollback_lines=100))
    client.settle()
    assert answer.repaint.startswith(RESET)
    assert (b"\x01hello\x02" in answer.repaint, client.story) == (True, [])
    await sessions.print(b"-two")
    await shows(client, b"hello-two")
    assert data(client).startswith(b"\x1b[?2026h")


async def test_the_answer_to_an_attach_has_the_sessions_size(sessions: Sessions) -> None:
    """The session in the answer is as large as it is, also where the client is sent a frame of its own size."""
    await opened(sessions)
    client = sessions.client(size=SMALL, read_only=True)
    answer = await sessions.methods.attach(client._call, client.params("one"))
    assert (answer.session.cols, answer.session.rows, answer.repaint.startswith(RESET)) == (80, 24, True)


async def test_a_picture_that_is_rebuilt_sends_no_old_frame(sessions: Sessions) -> None:
    """While the picture is rebuilt no frame comes; the next one shows no less than the last."""
    _, process = await opened(sessions)
    client = await sessions.attach(size=SMALL, read_only=True)
    await sessions.print(b"-two")
    await shows(client, b"hello-two")
    process.hold(m.Frame)
    await sessions.print(b"-three")
    await process.receive(m.Frame, 3)
    process.die(1)
    await shows(client, b"hello-two-three")
    assert reasons(client) == ["frame", "frame"]


async def test_a_picture_that_is_given_up_is_shown_as_it_is(sessions: Sessions) -> None:
    """Where output could not be drawn, its viewers see the divider that tells so."""
    await opened(sessions)
    client = await sessions.attach(size=SMALL, read_only=True)
    sessions.template.poison.append(b"poison")
    await sessions.print(b"poison")
    await until(lambda: client.shown.endswith(b"could not be drawn>"))


@pytest.mark.parametrize("congested", [False, True])
async def test_the_last_frame_comes_before_the_exit(sessions: Sessions, congested: bool) -> None:
    """What a program printed last is shown, also to one that does not read, and then its end."""
    await opened(sessions)
    client = await sessions.attach(size=SMALL, read_only=True)
    client.connection.is_congested = congested
    sessions.write(b"{-last words")
    await sessions.exit(exit_code=3)
    assert client.shown == b"hello{-last words"
    assert (client.story[-1], set(client.story[:-1])) == ("exited", {"repaint"})
    with pytest.raises(NotRunning):
        attachment.require(client._call.connection, client.id)


async def test_the_end_of_a_program_before_the_answer_is_written(sessions: Sessions) -> None:
    """The last frame and the exit follow the answer."""
    await opened(sessions)
    client = sessions.client(size=SMALL, read_only=True)
    await client.ask()
    sessions.write(b"-last words")
    await sessions.exit()
    assert client.story == []
    client.settle()
    assert (client.story, client.shown) == (["repaint", "exited"], b"hello-last words")


async def test_clients_that_leave_a_daemon_that_ends(sessions: Sessions) -> None:
    """Once the files are closed for the daemon's end, keys and clients that leave change no size, and raise nothing."""
    live, _ = await opened(sessions)
    clients = [await sessions.attach(size=size) for size in (SMALL, (80, 24), (100, 30))]
    await sessions.programs.close()
    with contextlib.suppress(OrbitError):
        clients[0].type(b"x")
    for client in reversed(clients):
        client.connection.close()
    assert live.attachments == []
