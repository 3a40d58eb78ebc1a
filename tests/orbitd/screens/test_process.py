"""The loop of a screens process, over a real socket and real journal files, in a thread of the test's own process."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import Struct
from msgspec.structs import replace

from orbitd.history.text_blocks import unpack
from orbitd.screens import note, process, svg
from orbitd.screens.emulator import Emulator
from orbitd.screens.messages import (
    VERSION,
    Base,
    Close,
    Count,
    Counted,
    Data,
    Facts,
    Failed,
    Fed,
    Follow,
    Found,
    Frame,
    Framed,
    Grown,
    Hello,
    Limits,
    Opened,
    Paint,
    Painted,
    Render,
    Rendered,
    Save,
    Saved,
    SetAppearance,
    TakenText,
    Trim,
    Unwatch,
    Watch,
)
from orbitd.screens.model import Appearance, Cut, StateBusy, TerminalError
from orbitd.screens.note import Note
from orbitd.screens.process import Memory, ScreensProcess
from orbitd.screens.said import MAX_SAID, Finished, Notified
from orbitd.sessions.journal_file import Cwd, Divider, Resize, Time
from screens_support import LIMITS, SESSION, JournalFile, Peer, feed, open_blank, record_of
from terminal_support import noise, play

OTHER = "0b1f7a6e-0000-4000-8000-000000000002"


class FakeMemory(Memory):
    """A process that grows as the test says: by one of `growth` for each two looks at it."""

    def __init__(self) -> None:
        super().__init__(is_known=False)
        self.growth: list[int] = []
        self.allowed: list[int] = []
        self._held, self._looks = 0, 0

    def held(self) -> int | None:
        self._looks += 1
        if self._looks % 2 == 0 and self.growth:
            self._held += self.growth.pop(0)
        return self._held

    def allow(self, extra: int) -> None:
        self.allowed.append(extra)


class Running(Struct):
    """A screens process in a thread, and orbitd's end of its socket."""

    peer: Peer
    note: Note
    memory: FakeMemory


@pytest.fixture
def running() -> Iterator[Running]:
    ours, its = socket.socketpair()
    fd = note.create()
    shared, memory = Note(fd), FakeMemory()
    os.close(fd)
    thread = threading.Thread(target=ScreensProcess(its, shared, memory).run, daemon=True)
    thread.start()
    peer = Peer(ours)
    assert peer.expect(Hello).version == VERSION
    yield Running(peer=peer, note=shared, memory=memory)
    ours.close()
    thread.join(30)
    assert not thread.is_alive()
    its.close()
    shared.close()


@pytest.fixture
def peer(running: Running) -> Peer:
    return running.peer


@pytest.fixture
def journal(tmp_path: Path) -> JournalFile:
    return JournalFile(tmp_path / "journal")


def text(peer: Peer, at_least: int = 0, session: str = SESSION) -> list[str]:
    """Return the lines on the screen once the picture has reached a position."""
    peer.send(Render(request=99, session=session, at_least=at_least, format="text", scrollback=True))
    while not isinstance(message := peer.receive(), Rendered):
        assert not isinstance(message, Failed), message
    return message.data.decode().splitlines()


def feed_until(peer: Peer, position: int) -> list[Fed]:
    """Return the reports until the picture has reached a position."""
    found: list[Fed] = []
    while not found or found[-1].position < position:
        found.append(peer.expect(Fed))
    return found


def test_a_picture_follows_the_journal(peer: Peer, journal: JournalFile) -> None:
    """What is recorded is drawn as soon as orbitd says that the file has grown."""
    journal.append(b"one\r\n")
    feed(peer, journal)
    assert text(peer, journal.position) == ["one"]
    end = journal.append(b"two\r\n")
    peer.send(Grown(session=SESSION, position=end))
    assert text(peer, end) == ["one", "two"]


def test_opening_is_answered_before_anything_else(peer: Peer, journal: JournalFile) -> None:
    """`Opened` comes first, then a report at the position of `Open`, then what has been fed."""
    end = journal.append(b"x")
    feed(peer, journal)
    assert peer.receive() == Opened(request=1, session=SESSION)
    first = peer.receive()
    assert isinstance(first, Fed)
    assert first.position == 0
    assert feed_until(peer, end)[-1].position == end


def test_the_journal_may_come_before_the_picture_is_opened(peer: Peer, journal: JournalFile) -> None:
    """Files and positions that were announced first are used when the picture is there."""
    end = journal.append(b"early")
    peer.send(Follow(session=SESSION, base=0), fds=(journal.descriptor(),))
    peer.send(Grown(session=SESSION, position=end), open_blank())
    assert text(peer, end) == ["early"]


def test_requests_wait_for_their_position(peer: Peer, journal: JournalFile) -> None:
    """A request for a position that has not been reached is answered when it is, and not before."""
    feed(peer, journal)
    end = len(record_of(b"later"))
    peer.send(Paint(request=2, session=SESSION, at_least=end), open_blank(3, OTHER))
    assert peer.expect(Opened).session == SESSION
    assert peer.expect(Opened).session == OTHER  # handled behind the request, which waits
    journal.append(b"later")
    peer.send(Grown(session=SESSION, position=end))
    painted = peer.expect(Painted)
    assert (painted.request, painted.position, painted.cols, painted.rows) == (2, end, 20, 4)
    assert b"later" in painted.data


def test_frames_are_drawn_with_the_title_and_the_bells(peer: Peer, journal: JournalFile) -> None:
    """A frame has a row for each of the window's, and begins where the one before did if the cursor is in it."""
    end = journal.append(b"\x1b]2;title\x07\a\a1\r\n2\r\n3")
    feed(peer, journal)
    peer.send(Frame(request=2, session=SESSION, at_least=end, cols=5, rows=2, left=1, top=0))
    framed = peer.expect(Framed)
    assert (framed.position, framed.left, framed.top, framed.rows) == (end, 1, 1, [b"", b""])
    assert (framed.column, framed.row, framed.visible) == (0, 1, True)
    assert (framed.title, framed.bells) == ("title", 2)
    peer.send(Frame(request=3, session=SESSION, at_least=end, cols=30, rows=6))
    assert peer.expect(Framed).rows == [b"1", b"2", b"3", b"", b"", b""]


def test_a_request_is_answered_at_its_position_while_more_is_to_be_fed(peer: Peer, journal: JournalFile) -> None:
    """A picture that is wanted is drawn at the first position that is enough, however much output waits behind."""
    first = journal.append(b"first")
    journal.append(*[b"x" * 1000] * 3000)
    feed(peer, journal)
    peer.send(Paint(request=2, session=SESSION, at_least=first))
    assert peer.expect(Painted).position < journal.position


def test_requests_of_a_session_are_answered_in_order(peer: Peer, journal: JournalFile) -> None:
    """A request that could be answered waits for the one before it."""
    feed(peer, journal)
    end = journal.append(b"x")
    peer.send(Paint(request=2, session=SESSION, at_least=end), Save(request=3, session=SESSION, at_least=0))
    peer.send(Grown(session=SESSION, position=end))
    assert peer.expect(Painted).request == 2
    assert peer.expect(Saved).request == 3


def test_resizes_dividers_and_unseen_records_are_followed(peer: Peer, journal: JournalFile) -> None:
    """A resize changes the size, a divider draws a line; folder and time leave the picture as it is."""
    end = journal.append(
        b"old", Resize(cols=30, rows=5), Divider(text="new"), Cwd(path=b"/"), Time(milliseconds=1), b"x"
    )
    feed(peer, journal)
    assert text(peer, end) == ["old", f"{'-- new ':-<30}", "x"]
    peer.send(Paint(request=2, session=SESSION, at_least=0))
    painted = peer.expect(Painted)
    assert (painted.cols, painted.rows) == (30, 5)


def test_a_long_record_is_fed_in_pieces(
    peer: Peer, journal: JournalFile, monkeypatch: pytest.MonkeyPatch, running: Running
) -> None:
    """No call into the library has more than 64 KiB, and the note names the whole record meanwhile."""
    sizes, notes = [], []
    real = Emulator.feed

    def observed(self: Emulator, data: bytes) -> None:
        sizes.append(len(data))
        notes.append(running.note.read())
        real(self, data)

    monkeypatch.setattr(Emulator, "feed", observed)
    end = journal.append(b"y" * (150 << 10))
    feed(peer, journal)
    feed_until(peer, end)
    assert sizes == [64 << 10, 64 << 10, 22 << 10]
    assert {(work.session, work.kind, work.start, work.end) for work in notes if work} == {
        (SESSION, note.Kind.FEED, 0, end)
    }
    assert running.note.read() is None


def test_drawing_and_opening_are_noted_too(
    peer: Peer, journal: JournalFile, monkeypatch: pytest.MonkeyPatch, running: Running
) -> None:
    """The library may crash in each of its functions: the note says which session's picture was being drawn."""
    notes = []
    for name in ("repaint", "encode", "screen"):
        real = getattr(Emulator, name)

        def observed(*args: object, real: object = real, **kwargs: object) -> object:
            notes.append(running.note.read())
            return real(*args, **kwargs)  # type: ignore[operator]

        monkeypatch.setattr(Emulator, name, observed)
    end = journal.append(b"x")
    feed(peer, journal)
    peer.send(Paint(request=2, session=SESSION, at_least=end), Save(request=3, session=SESSION, at_least=end))
    peer.expect(Saved)
    assert text(peer) == ["x"]
    assert {(work.kind, work.start, work.end) if work else None for work in notes} == {(note.Kind.DRAW, end, end)}


@pytest.mark.parametrize("seed", range(15))
def test_a_followed_picture_is_that_of_an_unbroken_run(peer: Peer, journal: JournalFile, seed: int) -> None:
    """Random output and resizes, saved and opened again midway, end as in one terminal that saw it all."""
    first, *operations = noise(seed)
    assert isinstance(first, tuple)
    middle = 0
    for number, operation in enumerate(operations):
        if operation:
            journal.append(operation if isinstance(operation, bytes) else Resize(cols=operation[0], rows=operation[1]))
        if number == len(operations) // 2:
            middle = journal.position
    peer.send(open_blank(base=Base(cols=first[0], rows=first[1])))
    peer.send(Follow(session=SESSION, base=0), fds=(journal.descriptor(),))
    peer.send(Grown(session=SESSION, position=middle), Save(request=2, session=SESSION, at_least=middle))
    saved = peer.expect(Saved)
    assert saved.position == middle
    base = Base(cols=saved.cols, rows=saved.rows, native=saved.native, portable=saved.portable)
    peer.send(Close(session=SESSION), open_blank(base=base, position=middle))
    peer.send(Follow(session=SESSION, base=0), fds=(journal.descriptor(),))
    peer.send(Grown(session=SESSION, position=journal.position))
    peer.send(Save(request=3, session=SESSION, at_least=journal.position))
    with play([first, *operations]) as unbroken, Emulator.decode(peer.expect(Saved).native) as followed:
        assert followed.dump() == unbroken.dump()
        assert followed.history() == unbroken.history()


# Replies and facts


def test_questions_are_answered_from_the_given_position_on(peer: Peer, journal: JournalFile) -> None:
    """Replies that the program has had already are not given again when the picture is rebuilt."""
    answered = journal.append(b"\x1b[5n")
    end = journal.append(b"\x1b[6n")
    peer.send(open_blank(answer_from=answered))
    peer.send(Follow(session=SESSION, base=0), fds=(journal.descriptor(),))
    peer.send(Grown(session=SESSION, position=end))
    assert b"".join(fed.replies for fed in feed_until(peer, end)) == b"\x1b[1;1R"


def test_replies_come_with_the_position_of_their_question(peer: Peer, journal: JournalFile) -> None:
    """A reply is in the report that covers the question, once."""
    feed(peer, journal)
    for question, reply in ((b"\x1b[5n", b"\x1b[0n"), (b"\x1b[c", b"\x1b[?62;22c")):
        end = journal.append(question)
        peer.send(Grown(session=SESSION, position=end))
        assert [fed.replies for fed in feed_until(peer, end) if fed.replies] == [reply]


def test_many_replies_are_reported_in_bounded_parts(peer: Peer, journal: JournalFile) -> None:
    """A flood of questions makes several reports, none much longer than the limit, and no reply is lost."""
    count = 20_000
    end = journal.append(*[b"\x1b[5n" * 100] * (count // 100))
    feed(peer, journal)
    replies = [fed.replies for fed in feed_until(peer, end)]
    assert sum(map(len, replies)) == count * 4
    assert max(map(len, replies)) < process.MAX_REPLIES + 1000


def test_a_program_gets_no_answers_of_the_one_before(peer: Peer, journal: JournalFile) -> None:
    """What was asked before a divider, which stands between two programs, is answered to nobody."""
    end = journal.append(b"\x1b[?2048h\x1b[6n", Divider(text="started again"), b"\x1b[5n")
    feed(peer, journal)
    assert b"".join(fed.replies for fed in feed_until(peer, end)) == b"\x1b[0n"


def test_colours_are_those_of_the_client(peer: Peer, journal: JournalFile) -> None:
    """They come with `Open`, so that a picture that is built again has them, and change while it is open."""
    peer.send(open_blank(appearance=Appearance(background=(1, 2, 3))))
    peer.send(Follow(session=SESSION, base=0), fds=(journal.descriptor(),))
    for appearance, answer in ((None, b"0101/0202/0303"), (Appearance(background=(255, 0, 0)), b"ffff/0000/0000")):
        if appearance is not None:
            peer.send(SetAppearance(session=SESSION, appearance=appearance))
        end = journal.append(b"\x1b]11;?\x07")
        peer.send(Grown(session=SESSION, position=end))
        assert b"".join(fed.replies for fed in feed_until(peer, end)) == b"\x1b]11;rgb:" + answer + b"\x07"


def test_a_change_to_a_light_background_is_reported_to_those_who_asked(peer: Peer, journal: JournalFile) -> None:
    """Mode 2031 wants to be notified of it; building a picture again is no change."""
    end = journal.append(b"\x1b[?2031h")
    peer.send(open_blank())
    peer.send(Follow(session=SESSION, base=0), fds=(journal.descriptor(),))
    peer.send(Grown(session=SESSION, position=end))
    feed_until(peer, end)
    peer.send(SetAppearance(session=SESSION, appearance=Appearance(background=(255, 255, 255))))
    assert peer.expect(Fed).replies == b"\x1b[?997;2n"
    peer.send(SetAppearance(session=SESSION, appearance=Appearance(background=(250, 250, 250))))
    assert peer.expect(Fed).replies == b""


def test_facts_are_reported_when_they_change(peer: Peer, journal: JournalFile) -> None:
    """Title, folder, alternate screen and progress come once, with the report after which they hold."""
    feed(peer, journal)
    steps = {
        b"\x1b]2;title\x07": Facts(title="title"),
        b"nothing new": None,
        b"\x1b]7;file://host/tmp\x07": Facts(title="title", cwd="file://host/tmp"),
        b"\x1b[?1049h": Facts(title="title", cwd="file://host/tmp", alternate=True),
        b"\x1b]9;4;1;45\x07": Facts(title="title", cwd="file://host/tmp", alternate=True, progress=(1, 45)),
    }
    for output, facts in steps.items():
        end = journal.append(output)
        peer.send(Grown(session=SESSION, position=end))
        assert feed_until(peer, end)[-1].facts == facts


def test_facts_of_a_restored_picture_are_reported_at_once(peer: Peer) -> None:
    """The title that a saved state has is known without any output."""
    with Emulator(20, 4) as emulator:
        emulator.feed(b"\x1b]2;saved\x07")
        native = emulator.encode()
    peer.send(open_blank(base=Base(cols=20, rows=4, native=native)))
    assert peer.expect(Fed).facts == Facts(title="saved")


# What programs say


def said_of(reports: list[Fed]) -> list[tuple[int, str]]:
    """Return where what was said, and what."""
    found = [each for report in reports for each in report.said]
    return [(each.position, each.body if isinstance(each, Notified) else each.command or "") for each in found]


def test_what_is_said_comes_with_its_position(peer: Peer, journal: JournalFile) -> None:
    """It comes with the report of its record, once; what was taken before is left out."""
    first = journal.append(b"a\x1b]9;one\x07b")
    journal.append(Cwd(path=b"/tmp"))
    second = journal.append(b"\x1b]9;two\x1b\\")
    feed(peer, journal)
    assert said_of(feed_until(peer, second)) == [(first - 1, "one"), (second, "two")]
    peer.send(open_blank(heard=first - 1))
    peer.send(Follow(session=SESSION, base=0), fds=(journal.descriptor(),))
    peer.send(Grown(session=SESSION, position=second))
    assert said_of(feed_until(peer, second)) == [(second, "two")]


def test_what_is_begun_goes_on_from_a_saved_screen(peer: Peer, journal: JournalFile) -> None:
    """A command that runs, a sequence and a notification in pieces go on over a save, and take as long as they took."""
    journal.append(Time(milliseconds=1_000_000), b"\x1b]133;C;cmdline=make\x07\x1b]99;i=1:d=0;Ti\x07\x1b]9;ha")
    feed(peer, journal)
    peer.send(Save(request=2, session=SESSION, at_least=journal.position))
    saved = peer.expect(Saved)
    end = journal.append(b"lf\x07", Time(milliseconds=1_081_500), b"\x1b]133;D;2\x07\x1b]99;i=1;tle\x1b\\")
    base = Base(cols=20, rows=4, native=saved.native)
    peer.send(open_blank(request=3, base=base, position=saved.position, heard=0))
    peer.send(Follow(session=SESSION, base=0), fds=(journal.descriptor(),))
    peer.send(Grown(session=SESSION, position=end))
    peer.expect(Opened)
    half, command, title = [each for report in feed_until(peer, end) for each in report.said]
    assert isinstance(half, Notified)
    assert isinstance(title, Notified)
    assert (half.body, title.title, title.position) == ("half", "Title", end)
    assert isinstance(command, Finished)
    assert (command.command, command.exit_code) == ("make", 2)
    assert command.duration_secs == pytest.approx(81.5, abs=0.11)


def test_the_next_program_ends_no_command_of_the_last(peer: Peer, journal: JournalFile) -> None:
    """A divider ends what its program has begun."""
    journal.append(b"\x1b]133;C\x07\x1b]9;half", Divider(text="started again"), b" of it\x07\x1b]133;D;0\x07")
    feed(peer, journal)
    assert said_of(feed_until(peer, journal.position)) == []


def test_bells_are_counted_once(peer: Peer, journal: JournalFile) -> None:
    """Those of old output are not, nor a BEL that ends a string; the others come with the next report."""
    old = journal.append(b"\x07\x07\x1b]0;title\x07")
    journal.append(b"\x07\x1b]9;note\x07", b"\x07")
    peer.send(open_blank(answer_from=old))
    peer.send(Follow(session=SESSION, base=0), fds=(journal.descriptor(),))
    peer.send(Grown(session=SESSION, position=journal.position))
    assert sum(each.bells for each in feed_until(peer, journal.position)) == 2


def test_a_flood_of_notifications_is_counted(peer: Peer, journal: JournalFile) -> None:
    """A report has so many at most, whatever was printed; the rest is a number."""
    count = 40_000
    for number in range(0, count, 1000):
        journal.append(b"".join(b"\x1b]9;%d\x07" % each for each in range(number, number + 1000)))
    feed(peer, journal)
    reports = feed_until(peer, journal.position)
    assert max(len(each.said) for each in reports) <= MAX_SAID
    assert sum(len(each.said) + each.unsaid for each in reports) == count


# The base


def saved(output: bytes) -> Base:
    """Return a snapshot of a screen with some output."""
    with Emulator(20, 4) as emulator:
        emulator.feed(output)
        return Base(cols=20, rows=4, native=emulator.encode(), portable=emulator.repaint())


def test_a_picture_is_built_on_the_saved_state(peer: Peer, tmp_path: Path) -> None:
    """The native state has the history and an unfinished sequence; the journal goes on from its position."""
    journal = JournalFile(tmp_path / "journal", base=1000)
    end = journal.append(b"31mred")
    base = saved(b"1\r\n2\r\n3\r\n4\r\n5\r\n\x1b[")
    peer.send(open_blank(base=base, position=1000))
    assert peer.expect(Opened).loss == ""
    peer.send(Follow(session=SESSION, base=1000), fds=(journal.descriptor(),))
    peer.send(Grown(session=SESSION, position=end))
    assert text(peer, end) == ["1", "2", "3", "4", "5", "red"]


def test_the_portable_screen_is_used_where_the_native_state_cannot_be_read(peer: Peer) -> None:
    """The screen is there, and what is lost is told."""
    base = saved(b"1\r\n2\r\n3\r\n4\r\n5")
    damaged = Base(cols=20, rows=4, native=base.native[:-20], portable=base.portable)
    peer.send(open_blank(base=damaged))
    assert peer.expect(Opened).loss == "history lost, portable screen used"
    assert text(peer) == ["2", "3", "4", "5"]


def test_a_portable_screen_alone_is_no_loss(peer: Peer) -> None:
    """Where the native state could not be saved the portable bytes have all."""
    base = saved(b"portable")
    peer.send(open_blank(base=Base(cols=20, rows=4, portable=base.portable)))
    assert peer.expect(Opened).loss == ""
    assert text(peer) == ["portable"]


def test_the_divider_is_drawn_on_the_base(peer: Peer) -> None:
    """What was lost before the position is told on the screen, behind what was saved; nobody is sent a reply."""
    peer.send(open_blank(base=saved(b"before \x1b[5n"), divider="12 bytes lost"))
    assert peer.expect(Fed).replies == b""
    assert text(peer) == ["before", f"{'-- 12 bytes lost ':-<20}"]


@pytest.mark.parametrize(
    ("asked", "made"),
    [((0, 0), (1, 1)), ((1, 65535), (1, 4096)), ((65535, 1), (4096, 1)), ((4096, 4096), (4096, 244))],
)
def test_a_size_that_is_not_possible_any_more_is_made_possible(
    peer: Peer, journal: JournalFile, asked: tuple[int, int], made: tuple[int, int]
) -> None:
    """Snapshots and journals of older releases may have one: the picture has the nearest that is possible."""
    peer.send(open_blank(base=Base(cols=asked[0], rows=asked[1])))
    peer.send(Paint(request=2, session=SESSION, at_least=0))
    painted = peer.expect(Painted)
    assert (painted.cols, painted.rows) == made


def test_a_resize_that_is_not_possible_any_more_is_made_possible(peer: Peer, journal: JournalFile) -> None:
    """The same holds for the sizes in a journal."""
    end = journal.append(b"x", Resize(cols=65535, rows=2))
    feed(peer, journal)
    peer.send(Paint(request=2, session=SESSION, at_least=end))
    painted = peer.expect(Painted)
    assert (painted.cols, painted.rows) == (4096, 2)


def test_a_base_that_cannot_be_drawn_breaks_its_picture(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    """`Open` is answered by a failure at its position, what waits behind it too; other sessions are not touched."""
    base = saved(b"poison")

    def refuse(*_: object) -> None:
        raise TerminalError("refused")

    monkeypatch.setattr(Emulator, "feed", refuse)
    peer.send(open_blank(base=Base(cols=20, rows=4, portable=base.portable), position=7))
    peer.send(Paint(request=2, session=SESSION, at_least=0), open_blank(3, OTHER))
    failed = peer.expect(Failed)
    assert failed == Failed(request=1, session=SESSION, reason="refused", broken=True, start=7, end=7)
    failed = peer.expect(Failed)
    assert (failed.request, failed.broken) == (2, False)
    assert peer.expect(Opened).request == 3


# Files


def test_the_picture_goes_on_in_the_next_file(peer: Peer, journal: JournalFile, tmp_path: Path) -> None:
    """When a save discards the beginning of the journal the next file takes over, and nothing is drawn twice."""
    middle = journal.append(b"one ")
    feed(peer, journal)
    rest = JournalFile(tmp_path / "next", base=middle)
    end = rest.append(b"two ", b"three")
    peer.send(Follow(session=SESSION, base=middle), fds=(rest.descriptor(),))
    peer.send(Grown(session=SESSION, position=end))
    assert text(peer, end) == ["one two three"]


def test_output_is_drawn_though_the_disk_is_full(peer: Peer, journal: JournalFile, tmp_path: Path) -> None:
    """Records that could not be written come in messages, between those of the file and those of the next file."""
    middle = journal.append(b"filed ")
    feed(peer, journal)
    record = record_of(b"\x1b[5nunfiled ")
    after = middle + len(record)
    peer.send(Data(session=SESSION, position=after, record=record))
    assert b"".join(fed.replies for fed in feed_until(peer, after)) == b"\x1b[0n"
    rest = JournalFile(tmp_path / "next", base=after)
    end = rest.append(b"filed again")
    peer.send(Follow(session=SESSION, base=after), fds=(rest.descriptor(),))
    peer.send(Grown(session=SESSION, position=end))
    assert text(peer, end) == ["filed unfiled filed", "again"]


# Failures


def test_a_damaged_journal_breaks_its_picture_only(peer: Peer, journal: JournalFile, tmp_path: Path) -> None:
    """What came before the damage is reported; the failure has the range that cannot be read; others go on."""
    middle = journal.append(b"whole\x1b[5n")
    end = journal.append(b"damaged")
    journal.damage(middle + 9, b"X")
    other = JournalFile(tmp_path / "other")
    other.append(b"fine")
    feed(peer, journal)
    feed(peer, other, OTHER)
    before = feed_until(peer, middle)
    assert b"".join(fed.replies for fed in before) == b"\x1b[0n"
    failed = peer.expect(Failed)
    assert (failed.request, failed.broken, failed.start, failed.end) == (None, True, middle, end)
    assert text(peer, other.position, OTHER) == ["fine"]


@pytest.mark.parametrize("error", [TerminalError("refused"), MemoryError(), IndexError("a fault of ours")])
def test_a_record_that_cannot_be_drawn_breaks_its_picture(
    peer: Peer, journal: JournalFile, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Whatever is raised, the failure names the record, and those who wait for the picture are answered."""
    real = Emulator.feed

    def failing(self: Emulator, data: bytes) -> None:
        if b"poison" in bytes(data):
            raise error
        real(self, data)

    monkeypatch.setattr(Emulator, "feed", failing)
    middle = journal.append(b"fine")
    end = journal.append(b"poison")
    journal.append(b"behind")
    feed(peer, journal)
    peer.send(Paint(request=2, session=SESSION, at_least=journal.position))
    failed = peer.expect(Failed)
    assert (failed.request, failed.broken, failed.start, failed.end) == (None, True, middle, end)
    failed = peer.expect(Failed)
    assert (failed.request, failed.broken) == (2, False)


def test_facts_that_cannot_be_read_break_the_picture(
    peer: Peer, journal: JournalFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error behind the last record of a turn is that record's, and ends nothing else."""
    feed(peer, journal)
    feed_until(peer, 0)
    monkeypatch.setattr(Emulator, "alternate", property(lambda _: 1 // 0))
    end = journal.append(b"x")
    peer.send(Grown(session=SESSION, position=end))
    failed = peer.expect(Failed)
    assert (failed.broken, failed.start, failed.end) == (True, 0, end)


def test_a_broken_picture_refuses_until_it_is_opened_again(peer: Peer, journal: JournalFile) -> None:
    """Messages that orbitd sent before it knew are answered or ignored; a new `Open` begins afresh."""
    journal.append(b"damaged")
    journal.damage(9, b"X")
    feed(peer, journal)
    assert peer.expect(Failed).broken
    peer.send(Follow(session=SESSION, base=0), fds=(journal.descriptor(),))
    peer.send(Grown(session=SESSION, position=journal.position), Save(request=5, session=SESSION, at_least=0))
    failed = peer.expect(Failed)
    assert (failed.request, failed.broken) == (5, False)
    behind = journal.append(b"behind")
    position = behind - len(record_of(b"behind"))
    peer.send(open_blank(position=position, divider="lost"))
    peer.send(Follow(session=SESSION, base=0), fds=(journal.descriptor(),))
    peer.send(Grown(session=SESSION, position=behind))
    assert text(peer, behind)[-2:] == [f"{'-- lost ':-<20}", "behind"]


def test_a_refused_drawing_leaves_the_picture(
    peer: Peer, journal: JournalFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request fails, and the picture is followed and can be drawn otherwise."""
    end = journal.append(b"x")
    feed(peer, journal)

    def refuse(*_: object, **__: object) -> bytes:
        raise TerminalError("cannot be drawn")

    monkeypatch.setattr(Emulator, "repaint", refuse)
    peer.send(Paint(request=2, session=SESSION, at_least=end))
    assert peer.expect(Failed) == Failed(request=2, session=SESSION, reason="cannot be drawn")
    assert text(peer, end) == ["x"]


def test_a_state_that_is_refused_saves_the_portable_screen_with_its_history(
    peer: Peer, journal: JournalFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the library does not encode the terminal, `native` is empty and the portable bytes have the history."""

    def refuse(_: Emulator) -> bytes:
        raise StateBusy("too long")

    monkeypatch.setattr(Emulator, "encode", refuse)
    end = journal.append(*[f"line {number}\r\n".encode() for number in range(9)])
    feed(peer, journal)
    peer.send(Save(request=2, session=SESSION, at_least=end))
    saved = peer.expect(Saved)
    assert (saved.native, saved.position, saved.cols, saved.rows) == (b"", end, 20, 4)
    assert b"line 0" in saved.portable


def test_a_saved_picture_is_the_same_when_it_is_opened_again(peer: Peer, journal: JournalFile) -> None:
    """`Saved` has what `Open` takes: the native state with the history, and portable bytes of the screen."""
    end = journal.append(b"\x1b]2;title\x07", *[f"line {number}\r\n".encode() for number in range(9)])
    feed(peer, journal)
    peer.send(Save(request=2, session=SESSION, at_least=end))
    saved = peer.expect(Saved)
    assert saved.title == "title"
    before = text(peer)
    base = Base(cols=saved.cols, rows=saved.rows, native=saved.native, portable=saved.portable)
    peer.send(Close(session=SESSION), open_blank(base=base, position=saved.position))
    assert text(peer) == before


def test_requests_for_sessions_that_are_not_open_fail(peer: Peer) -> None:
    """Each is answered once, whatever it asks; what asks for no answer gets none."""
    peer.send(
        Grown(session=SESSION, position=5),
        Data(session=SESSION, position=5, record=b"x"),
        Trim(number=5, session=SESSION, size=0),
        Close(session=SESSION),
        Paint(request=1, session=SESSION, at_least=0),
        Save(request=2, session=SESSION, at_least=0),
        Render(request=3, session=SESSION, at_least=0, format="text", scrollback=False),
    )
    for request in (1, 2, 3):
        failed = peer.receive()
        assert isinstance(failed, Failed)
        assert (failed.request, failed.broken) == (request, False)


def test_a_part_of_the_screen_says_which(peer: Peer, journal: JournalFile) -> None:
    """The first line and how many there are come with a part; what is too large to draw breaks nothing."""
    end = journal.append(b"".join(b"%d\r\n" % number for number in range(50)) + b"$ ")
    feed(peer, journal)
    feed_until(peer, end)
    render = Render(request=1, session=SESSION, at_least=end, format="text", scrollback=False)
    peer.send(replace(render, cut=Cut(first=-2)), replace(render, format="svg", cut=Cut(first=0, lines=1)), render)
    found = [peer.expect(Rendered) for _ in range(3)]
    assert [(each.first_line, each.total_lines) for each in found] == [(49, 51), (0, 51), (None, None)]
    assert (found[0].data, found[2].data.splitlines()[0]) == (b"49\n$\n", b"47")


def test_what_is_too_large_to_draw_breaks_nothing(
    peer: Peer, journal: JournalFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer says so, and the picture is there for the next request."""
    monkeypatch.setattr(svg, "MAX_PIECES", 10)
    end = journal.append(b"\x1b[31mx\x1b[32my" * 9)
    feed(peer, journal)
    feed_until(peer, end)
    peer.send(Render(request=1, session=SESSION, at_least=end, format="svg", scrollback=False))
    assert peer.expect(Rendered).too_large == "there is too much to draw as svg"
    assert text(peer, end) == ["xy" * 9]


def watch(number: int, pattern: str, since: int) -> Watch:
    """Return a call that waits for a text."""
    return Watch(number=number, session=SESSION, pattern=pattern, since=since)


def found(peer: Peer, count: int = 1) -> dict[int, str]:
    """Return the lines of the next texts that are found, by the numbers of those that waited."""
    lines: dict[int, str] = {}
    while len(lines) < count:
        message = peer.receive()
        if isinstance(message, Found):
            lines.update(dict.fromkeys(message.numbers, message.line))
    return lines


def test_a_text_that_is_gone_at_once_is_found(peer: Peer, journal: JournalFile) -> None:
    """However fast it scrolls away, is cleared or overwritten; whatever is between its pieces; wrapped and not."""
    end = journal.append(Resize(cols=20, rows=5), b"before\r\nListen")
    feed(peer, journal)
    feed_until(peer, end)
    texts = ("ing on 80", "needle in a long haystack", "cleared", "overwritten", "coloured text", "before", "placed")
    peer.send(*(watch(number, text, end) for number, text in enumerate(texts)))
    assert found(peer) == {5: "before"}
    flood = b"x\r\n" * 20_000
    journal.append(
        b"ing on 80\r\n" + flood,
        b"y" * 30 + b"needle in a long haystack" + b"z" * 30 + b"\r\n" + flood,
        b"cleared\x1b[2J\x1b[3J\x1b[Hoverwritten\rnew        \r\n" + flood,
        b"\x1b[1mcoloured\x1b[m text\r\n" + flood,
        b"\x1b[2J\x1b[1;4Hced\x1b[1;1Hpla",
    )
    feed_on(peer, journal)
    lines = found(peer, 6)
    assert lines.pop(1).strip("yz") == "needle in a long haystack"
    assert lines == {0: "Listening on 80", 2: "cleared", 3: "overwritten", 4: "coloured text", 6: "placed"}


def feed_on(peer: Peer, journal: JournalFile) -> None:
    """Have all of the journal fed."""
    peer.send(Grown(session=SESSION, position=journal.position))


def test_a_text_counts_from_its_position_on(peer: Peer, journal: JournalFile) -> None:
    """A picture that is built again searches from where each call was made, and finds nothing that was gone then."""
    begin = journal.append(b"old\r\n" + b"\r\n" * 50)
    journal.append(b"new\r\n" + b"\r\n" * 50)
    peer.send(open_blank(), watch(1, "old", begin), watch(2, "new", begin), watch(3, "new", journal.position))
    peer.send(Follow(session=SESSION, base=0), fds=(journal.descriptor(),))
    feed_on(peer, journal)
    peer.send(Count(request=9, session=SESSION, at_least=journal.position))
    messages = [peer.receive()]
    while not isinstance(messages[-1], Counted):
        messages.append(peer.receive())
    assert [each for each in messages if isinstance(each, Found)] == [Found(session=SESSION, numbers=[2], line="new")]


def test_a_screen_is_looked_at_before_an_answer(
    peer: Peer, journal: JournalFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is on the screen at a position is found before a request for that position is answered."""
    monkeypatch.setattr(process, "LOOK_SHARE", 10**6)  # as milliseconds, poll takes 2**31
    end = journal.append(b"x")
    feed(peer, journal)
    feed_until(peer, end)
    peer.send(watch(1, "ab", end), Count(request=8, session=SESSION, at_least=end))
    peer.expect(Counted)
    end = journal.append(b"\x1b[2;2Hb\x1b[2;1Ha")
    feed_on(peer, journal)
    feed_until(peer, end)
    peer.send(Count(request=9, session=SESSION, at_least=end))
    assert isinstance(peer.receive(), Found)
    assert peer.expect(Counted).request == 9


def test_a_search_ends_with_its_call_and_its_picture(peer: Peer, journal: JournalFile) -> None:
    """Nothing is sent for a call that has given up, nor for a session that was closed."""
    end = journal.append(b"x")
    feed(peer, journal)
    feed_until(peer, end)
    peer.send(watch(1, "y", end), watch(2, "z", end), Unwatch(session=SESSION, number=1))
    peer.send(Unwatch(session=OTHER, number=1), Watch(session=OTHER, number=3, pattern="z", since=0))
    journal.append(b"yz")
    feed_on(peer, journal)
    assert found(peer) == {2: "xyz"}
    peer.send(watch(4, "late", journal.position), Close(session=SESSION))
    peer.send(Count(request=9, session=SESSION, at_least=0))
    while not isinstance(message := peer.receive(), Failed):
        assert not isinstance(message, Found)


def test_requests_of_a_session_that_is_closed_are_answered(peer: Peer, journal: JournalFile) -> None:
    """Closing answers all that waits, and nothing more comes of the session."""
    feed(peer, journal)
    feed_until(peer, 0)
    peer.send(
        Paint(request=2, session=SESSION, at_least=1000),
        Trim(number=5, session=SESSION, size=0),
        Save(request=3, session=SESSION, at_least=1000),
        Close(session=SESSION),
        open_blank(4, OTHER),
    )
    received = [peer.receive() for _ in range(3)]
    assert [getattr(message, "request", None) for message in received] == [2, 3, 4]
    assert [type(message) for message in received] == [Failed, Failed, Opened]


def test_too_many_waiting_requests_are_refused(peer: Peer, journal: JournalFile) -> None:
    """What waits for a position that never comes does not pile up without a bound."""
    feed(peer, journal)
    feed_until(peer, 0)
    count = process.MAX_REQUESTS
    peer.send(*[Paint(request=10 + number, session=SESSION, at_least=1000) for number in range(count + 1)])
    failed = peer.expect(Failed)
    assert failed.request == 10 + count


def test_an_opened_session_may_be_opened_again(peer: Peer, journal: JournalFile) -> None:
    """The second `Open` replaces the picture; what waited for the first one fails."""
    end = journal.append(b"first")
    feed(peer, journal)
    feed_until(peer, end)
    peer.send(Paint(request=2, session=SESSION, at_least=10_000))
    peer.send(open_blank(3, base=saved(b"second")))
    assert peer.expect(Failed).request == 2
    assert peer.expect(Opened).request == 3
    assert text(peer) == ["second"]


# Memory


def test_what_a_picture_holds_is_reported(running: Running, journal: JournalFile) -> None:
    """The growth of the process while it works on a picture is the picture's, and not less than its history."""
    running.memory.growth = [1000, 5 << 20]
    end = journal.append(b"x")
    feed(running.peer, journal)
    assert running.peer.expect(Fed).held == 1000
    assert feed_until(running.peer, end)[-1].held == 1000 + (5 << 20)


def test_a_picture_that_holds_too_much_is_trimmed(running: Running, journal: JournalFile) -> None:
    """Its history goes first; where that is enough the picture stays."""
    running.memory.growth = [0, LIMITS.size + process.HELD_EXTRA + 1, -(10 << 20)]
    end = journal.append(b"much")
    feed(running.peer, journal)
    assert text(running.peer, end) == ["much"]


def test_a_picture_that_still_holds_too_much_is_broken(running: Running, journal: JournalFile) -> None:
    """The failure names the record after which it held too much, and others go on."""
    middle = journal.append(b"fine")
    end = journal.append(b"much")
    running.memory.growth = [0, 0, LIMITS.size + process.HELD_EXTRA + 1]
    feed(running.peer, journal)
    failed = running.peer.expect(Failed)
    assert (failed.reason, failed.broken, failed.start, failed.end) == ("memory", True, middle, end)
    running.peer.send(open_blank(5, OTHER))
    assert running.peer.expect(Opened).request == 5


def test_a_turn_may_take_more_memory_for_a_longer_history(running: Running) -> None:
    """What the process may take in a turn follows from what its picture may hold."""
    running.peer.send(open_blank(limits=Limits(lines=1, size=5000)))
    running.peer.expect(Opened)
    assert running.memory.allowed == [process.MEMORY_BASE + process.MEMORY_FACTOR * 5000]


def test_a_trimmed_picture_has_less_history(peer: Peer, journal: JournalFile) -> None:
    """`Trim` drops the oldest lines once, and the new size is reported."""
    end = journal.append(*[f"line {number}\r\n".encode() * 50 for number in range(200)])
    feed(peer, journal)
    before = len(text(peer, end))
    peer.send(Trim(number=5, session=SESSION, size=0))
    fed = peer.expect(Fed)
    assert (fed.position, fed.trimmed) == (end, 5)
    assert len(text(peer, end)) < before


# Fairness


def test_a_session_that_is_waited_for_goes_first(peer: Peer, journal: JournalFile, tmp_path: Path) -> None:
    """A key's echo is drawn before a flood of other sessions has been."""
    journal.append(*[b"flood " * 10_000] * 100)
    echo = JournalFile(tmp_path / "echo")
    end = echo.append(b"echo")
    peer.send(open_blank(1, SESSION), open_blank(2, OTHER))
    peer.send(Follow(session=SESSION, base=0), fds=(journal.descriptor(),))
    peer.send(Follow(session=OTHER, base=0), fds=(echo.descriptor(),))
    peer.send(
        Grown(session=SESSION, position=journal.position),
        Grown(session=OTHER, position=end),
        Paint(request=3, session=OTHER, at_least=end),
    )
    flooded = 0
    while not isinstance(message := peer.receive(), Painted):
        if isinstance(message, Fed) and message.session == SESSION:
            flooded = message.position
    assert flooded < journal.position


def test_floods_take_turns(peer: Peer, journal: JournalFile, tmp_path: Path) -> None:
    """No session is drawn to its end while another one waits for its first turn."""
    other = JournalFile(tmp_path / "other")
    for one in (journal, other):
        one.append(*[b"flood " * 10_000] * 30)
    for session, one in ((SESSION, journal), (OTHER, other)):
        peer.send(open_blank(session=session))
        peer.send(Follow(session=session, base=0), fds=(one.descriptor(),))
    peer.send(*[Grown(session=session, position=journal.position) for session in (SESSION, OTHER)])
    order = []
    reached = dict.fromkeys((SESSION, OTHER), 0)
    while min(reached.values()) < journal.position:
        fed = peer.expect(Fed)
        reached[fed.session] = fed.position
        order.append(fed.session)
    last = {session: len(order) - 1 - order[::-1].index(session) for session in reached}
    first = {session: order.index(session) for session in reached}
    assert first[OTHER] < last[SESSION]
    assert first[SESSION] < last[OTHER]


def test_pictures_that_are_painted_all_the_time_keep_nobody_waiting(
    peer: Peer, journal: JournalFile, tmp_path: Path
) -> None:
    """Among many requests for one session another session is fed, though nobody waits for it."""
    end = journal.append(b"painted")
    quiet = JournalFile(tmp_path / "quiet")
    quiet.append(b"quiet")
    feed(peer, journal)
    feed_until(peer, end)
    peer.send(open_blank(2, OTHER))
    peer.expect(Opened)
    peer.send(Follow(session=OTHER, base=0), fds=(quiet.descriptor(),))
    paints = [Paint(request=100 + number, session=SESSION, at_least=end) for number in range(100)]
    peer.send(Grown(session=OTHER, position=quiet.position), *paints)
    painted = 0
    while True:
        message = peer.receive()
        painted += isinstance(message, Painted)
        if isinstance(message, Fed) and message.session == OTHER and message.position == quiet.position:
            break
    assert painted < 100


def test_nothing_is_drawn_for_a_peer_that_does_not_read(
    peer: Peer, journal: JournalFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers that are not read stop the work, and it goes on where it was when they are read."""
    monkeypatch.setattr(process, "MAX_UNSENT", 100_000)
    unsent, congested = [], threading.Event()
    real = ScreensProcess._send

    def observed(self: ScreensProcess, message: Struct) -> None:
        unsent.append(self._unsent_bytes)
        real(self, message)
        if self._unsent_bytes > process.MAX_UNSENT:
            congested.set()

    monkeypatch.setattr(ScreensProcess, "_send", observed)
    end = journal.append(Resize(cols=200, rows=200), b"x" * 60_000)
    feed(peer, journal)
    feed_until(peer, end)
    count = 100
    for number in range(count):
        peer.send(Render(request=number, session=SESSION, at_least=end, format="text", scrollback=True))
    assert congested.wait(60)
    assert [peer.expect(Rendered).request for _ in range(count)] == list(range(count))
    assert max(unsent) <= process.MAX_UNSENT


# The end


def test_a_message_without_its_descriptor_ends_the_connection() -> None:
    """What is not the protocol is not guessed at: the process ends, and orbitd forks another one."""
    ours, its = socket.socketpair()
    fd = note.create()
    with Peer(ours).sock, its:
        Peer(ours).send(Follow(session=SESSION, base=0))
        with pytest.raises(process.Malformed):
            ScreensProcess(its, Note(fd), Memory(is_known=False)).run()
    os.close(fd)


def test_closing_the_socket_ends_the_loop() -> None:
    """The loop returns at the end of the socket, also with work left."""
    ours, its = socket.socketpair()
    fd = note.create()
    Peer(ours).send(open_blank())
    ours.close()
    ScreensProcess(its, Note(fd), Memory(is_known=False)).run()
    its.close()
    os.close(fd)


# Text for the history


def texts(taken: tuple[TakenText, ...]) -> list[str]:
    return [line.text for each in taken for line in unpack(each.block.text, each.block.runs)]


def test_text_is_taken_once_and_comes_with_each_save(peer: Peer, journal: JournalFile) -> None:
    """What has left the screen, what was cleared, what is on it; a save repeats what is not recorded."""
    journal.append(Time(milliseconds=5000), b"one\r\ntwo\r\n\x1b[H\x1b[2J" + b"".join(b"%d\r\n" % n for n in range(9)))
    peer.send(open_blank(takes_text=True), Follow(session=SESSION, base=0), fds=(journal.descriptor(),))
    peer.send(Grown(session=SESSION, position=journal.position))
    peer.send(Save(request=2, session=SESSION, at_least=journal.position, key_frame=True))
    first = peer.expect(Saved)
    assert (first.history_line, first.at, first.has_tail) == (6, 5000, True)
    assert sorted(texts(first.text)) == ["0", "1", "2", "3", "4", "5", "one", "two"]
    assert first.tail is not None
    assert [line.number for line in unpack(first.tail.text, first.tail.runs)] == [6, 7, 8]
    with Emulator.decode(first.key_frame) as drawn, Emulator.decode(first.native) as whole:
        assert drawn.dump() == whole.dump()
    end = journal.append(b"9\r\n")
    peer.send(Grown(session=SESSION, position=end))
    peer.send(Save(request=3, session=SESSION, at_least=end))
    again = peer.expect(Saved)
    assert (again.text[:-1], texts(again.text[-1:]), again.key_frame) == (first.text, ["6"], b"")
    peer.send(Save(request=4, session=SESSION, at_least=end, text_from=first.position))
    assert texts(peer.expect(Saved).text) == ["6"]
    peer.send(Save(request=5, session=SESSION, at_least=end, text_from=again.position))
    assert peer.expect(Saved).text == ()


def test_a_rebuilt_picture_takes_what_is_not_recorded(peer: Peer, journal: JournalFile) -> None:
    """It reads the journal again from an older state on, and passes what the newer save has recorded."""
    recorded = journal.append(
        Time(milliseconds=5000), b"one\r\n\x1b[H\x1b[2J" + b"".join(b"%d\r\n" % n for n in range(9))
    )
    end = journal.append(Time(milliseconds=9000), b"\x1b[?1049hfull screen\x1b[?1049l9\r\n")
    peer.send(
        open_blank(takes_text=True, text_from=recorded, text_line=6),
        Follow(session=SESSION, base=0),
        fds=(journal.descriptor(),),
    )
    peer.send(Grown(session=SESSION, position=end))
    peer.send(Save(request=2, session=SESSION, at_least=end, text_from=recorded))
    assert sorted(texts(peer.expect(Saved).text)) == ["6", "full screen"]


def test_text_is_taken_though_no_history_is_kept(peer: Peer, journal: JournalFile) -> None:
    """Lines are taken from a history that is trimmed behind each record; trims from outside lose none either."""
    for start in range(0, 9000, 3000):
        journal.append(b"".join(b"%d\r\n" % number for number in range(start, start + 3000)), Resize(cols=20, rows=5))
    peer.send(
        open_blank(takes_text=True, limits=Limits(lines=10_000, size=0)),
        Follow(session=SESSION, base=0),
        fds=(journal.descriptor(),),
    )
    peer.send(Grown(session=SESSION, position=journal.position), Trim(number=1, session=SESSION, size=0))
    peer.send(Save(request=2, session=SESSION, at_least=journal.position))
    saved = peer.expect(Saved)
    assert texts(saved.text) == [str(number) for number in range(8997 - 1)]
    with Emulator.decode(saved.native) as drawn:
        assert drawn.scrollback_rows < 2000


def test_dividers_hide_no_text(peer: Peer, journal: JournalFile) -> None:
    """A program that has ended on the alternate screen was seen there."""
    end = journal.append(b"\x1b[?1049hlast words", Divider(text="next"), b"next\r\n")
    peer.send(open_blank(takes_text=True), Follow(session=SESSION, base=0), fds=(journal.descriptor(),))
    peer.send(Grown(session=SESSION, position=end), Save(request=2, session=SESSION, at_least=end))
    assert "last words" in texts(peer.expect(Saved).text)


def test_no_text_is_taken_where_none_is_wanted(peer: Peer, journal: JournalFile) -> None:
    """A session that is not recorded costs nothing."""
    journal.append(b"1\r\n2\r\n3\r\n4\r\n5\r\n")
    feed(peer, journal)
    peer.send(Save(request=2, session=SESSION, at_least=journal.position))
    saved = peer.expect(Saved)
    assert (saved.text, saved.tail, saved.has_tail) == ((), None, False)
