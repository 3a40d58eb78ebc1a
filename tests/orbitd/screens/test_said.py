"""What programs say is found in their output, wherever that is cut."""

from __future__ import annotations

import base64
import itertools
import random
from collections.abc import Iterable

import msgspec
import pytest

from orbitd.screens.said import (
    MAX_BODY,
    MAX_CHUNKED,
    MAX_LINE,
    MAX_SAID,
    MAX_STRING_BYTES,
    MAX_TITLE,
    Clock,
    Finished,
    Notified,
    Said,
    Scanner,
    State,
)

BEL, ST = b"\x07", b"\x1b\\"


def heard(pieces: Iterable[bytes], scanner: Scanner | None = None, *, now: int = 5_000) -> list[Said]:
    """Return what a scanner finds in output that comes in pieces."""
    scanner = scanner or Scanner()
    position, found = 0, list[Said]()
    for piece in pieces:
        scanner.feed(piece, position, lambda: now)
        position += len(piece)
        found += scanner.take()[0]
    return found


def note(body: str, title: str = "", urgency: str = "normal", *, position: int = -1) -> Notified:
    """Return a notification."""
    return Notified(position=position, title=title, body=body, urgency=urgency)  # type: ignore[arg-type]


def done(command: str | None, exit_code: int | None = 0, secs: float = 0.0, *, position: int = -1) -> Finished:
    """Return a command that has finished."""
    return Finished(position=position, command=command, exit_code=exit_code, duration_secs=secs)


def without_positions(said: list[Said]) -> list[Said]:
    """Return what was said, and not where."""
    return [
        note(each.body, each.title, each.urgency)
        if isinstance(each, Notified)
        else done(each.command, each.exit_code, each.duration_secs)
        for each in said
    ]


NOTIFICATIONS = [
    (b"\x1b]9;it is done\x07", [note("it is done")]),
    (b"\x1b]9;it is done\x1b\\", [note("it is done")]),
    (b"\x1b]9;gr\xc3\xbc\xc3\x9fe\x07", [note("grüße")]),
    (b"\x1b]9;a\xffb\xc3\x07", [note("a�b�")]),
    (b"\x1b]9;a\0b\x01c\x7fd\xc2\x9be\x07", [note("abcde")]),
    (b"\x1b]9;two\nlines\there\x07", [note("two\nlines\there")]),
    ("\x1b]9;\u202eevil\x07".encode(), [note("\u202eevil")]),
    (b"\x1b]9;\x07\x1b]9;\0\x07\x1b]777;notify;;\x07", []),
    (b"\x1b]9;4;1;50\x07\x1b]9;4;0;\x1b\\\x1b]9;9;/tmp\x07\x1b]9;1;x\x07\x1b]9;12;\x07", []),
    (b"\x1b]9;4 tests failed\x07\x1b]9;13;x\x07\x1b]9;5\x07", [note("4 tests failed"), note("13;x"), note("5")]),
    (b"\x1b]777;notify;Title;Body; with; more\x07", [note("Body; with; more", "Title")]),
    (b"\x1b]777;notify;Only\x1b\\", [note("", "Only")]),
    (b"\x1b]777;notify;a\nb;c\x07", [note("c", "a b")]),
    (b"\x1b]777;precmd\x07\x1b]777;notification;a;b\x07", []),
    (b"\x1b]99;;Hello\x1b\\", [note("", "Hello")]),
    (b"\x1b]99;i=1:d=0;Hel\x1b\\\x1b]99;i=1:d=0;lo\x07\x1b]99;i=1:p=body;World\x1b\\", [note("World", "Hello")]),
    (b"\x1b]99;i=1:d=0;one\x07\x1b]99;i=2;two\x07\x1b]99;i=1:p=body;1\x07", [note("", "two"), note("1", "one")]),
    (b"\x1b]99;u=2:e=1:p=body;" + base64.b64encode("zwölf".encode()) + ST, [note("zwölf", "", "critical")]),
    (b"\x1b]99;u=0:d=0;low\x07\x1b]99;;er\x07", [note("", "lower", "low")]),
    (b"\x1b]99;e=1;YQ\x07\x1b]99;e=1;\xff\x07\x1b]99;u=9;b\x07", [note("", "a"), note("", "b")]),
    (b"\x1b]99;i=x:p=?;\x07\x1b]99;i=x:p=close;\x07\x1b]99;i=x:p=alive;\x07\x1b]99\x07\x1b]99;\x07", []),
    (b"\x1b]99;d=0:p=icon;abc\x07\x1b]99;p=title;shown\x07", [note("", "shown")]),
    # Aborted, or of another number.
    (b"\x1b]9;a\x18b\x07\x1b]9;a\x1ab\x07", []),
    (b"\x1b]9;a\x1b[31mb\x07", []),
    (b"\x1b]9;lost\x1b]9;kept\x07", [note("kept")]),
    (b"\x1b]9;lost\x1b\x1b]9;kept\x07", [note("kept")]),
    (b"\x1bPtmux;\x1b\x1b]9;in a string\x07\x1b\\", [note("in a string")]),
    (b"\x1b_G\x1b]9;in another\x1b\\", [note("in another")]),
    (b"]9;no escape\x07\x1b[]9;x\x07\x1b]19;x\x07\x1b]9x\x07\x1b]990;x\x07\x1b]0;]9;title\x07\x9d9;c1\x07", []),
    (b"\x1b]", []),
    (b"\x1b]9;never ends", []),
]

COMMANDS = [
    (b"\x1b]133;A\x07$ \x1b]133;B\x07ls\x1b]133;C\x07out\x1b]133;D;0\x07", [done(None)]),
    (b"\x1b]133;C;cmdline_url=make%20all%3b%c3%bc\x07\x1b]133;D;2\x1b\\", [done("make all;ü", 2)]),
    (b"\x1b]133;C;cmdline=make\\ a\\;b\x07\x1b]133;D;130;aid=7\x07", [done("make a;b", 130)]),
    (b"\x1b]133;C;cmdline=$'a\\nb\\x41\\101\\u00fc\\''\x07\x1b]133;D\x07", [done("a\nbAAü'", None)]),
    (b'\x1b]133;C;cmdline=\'a b\'"c \\" d"\x07\x1b]133;D;x\x07', [done('a bc " d', None)]),
    (b"\x1b]133;C;cmdline=\x07\x1b]133;D;-1\x07", [done(None, -1)]),
    (b"\x1b]633;E;echo a\\x3bb \\\\n;nonce\x07\x1b]633;C\x07\x1b]633;D;1\x07", [done("echo a;b \\n", 1)]),
    (b"\x1b]633;E;x\x07\x1b]133;C\x07\x1b]633;C\x07\x1b]133;D;3\x07\x1b]633;D;3\x07", [done("x", 3)]),
    # A prompt without a command, and what a shell inside another one leaves behind.
    (b"\x1b]133;D;0\x07\x1b]133;A\x07\x1b]133;D\x07", []),
    (b"\x1b]133;C;cmdline=bash\x07\x1b]133;A\x07\x1b]133;C\x07\x1b]133;D;1\x07\x1b]133;D;0\x07", [done(None, 1)]),
    (b"\x1b]133;C\x07\x1b]133;D;1", []),
    (b"\x1b]133\x07\x1b]133;\x07\x1b]133;X;1\x07\x1b]133;CC\x07\x1b]133;DD\x07\x1b]633;P;Cwd=/\x07", []),
]


@pytest.mark.parametrize(("output", "expected"), NOTIFICATIONS + COMMANDS, ids=repr)
def test_said_in_any_pieces(output: bytes, expected: list[Said]) -> None:
    """A sequence is found whole, byte by byte, cut in two anywhere, and between other output, and always once."""
    assert without_positions(heard([output])) == expected
    assert without_positions(heard(output[i : i + 1] for i in range(len(output)))) == expected
    for cut in range(len(output)):
        assert without_positions(heard([output[:cut], output[cut:]])) == expected
    assert without_positions(heard([b"before\x07" + output + b"\x18after"])) == expected


@pytest.mark.parametrize(("output", "expected"), NOTIFICATIONS + COMMANDS, ids=repr)
def test_said_over_a_rebuilt_screen(output: bytes, expected: list[Said]) -> None:
    """What was said is found once where the screen is saved between any two bytes and another process goes on."""
    for cut in range(len(output)):
        first = Scanner()
        found = heard([output[:cut]], first)
        saved = msgspec.msgpack.decode(msgspec.msgpack.encode(first.state), type=State)
        assert without_positions(found + heard([output[cut:]], Scanner(saved))) == expected


def test_positions() -> None:
    """An item's position is where its sequence ends, however that is cut, and what ends before is not repeated."""
    output = b"ab\x1b]9;one\x07cd\x1b]777;notify;two;\x1b\\\x1b]133;C\x07\x1b]133;D;1\x07"
    expected = [
        note("one", position=output.index(b"cd")),
        note("", "two", position=output.index(b"\x1b]133")),
        done(None, 1, position=len(output)),
    ]
    assert heard([output]) == expected
    for cut in range(len(output)):
        assert heard([output[:cut], output[cut:]]) == expected
    for number, each in enumerate(expected):
        assert heard([output], Scanner(from_position=each.position)) == expected[number + 1 :]
        assert heard([output], Scanner(from_position=each.position - 1)) == expected[number:]


def test_duration() -> None:
    """A command takes as long as from its C to its D, also where a prompt's marks come twice, and never less than 0."""
    times = iter([1_000, 84_250, 100, 50])
    scanner = Scanner()
    for _ in range(2):
        scanner.feed(b"\x1b]133;C\x07", 0, lambda: next(times))
        scanner.feed(b"\x1b]633;C\x07", 0, lambda: 50_000)
        scanner.feed(b"\x1b]133;D;0\x07", 0, lambda: next(times))
    finished, _ = scanner.take()
    assert [each.duration_secs for each in finished if isinstance(each, Finished)] == [83.25, 0.0]


def test_journal_time() -> None:
    """Output is as old as the journal says, and within its steps as old as the clock says."""
    wall = [1_000_000]
    clock = Clock(lambda: wall[0])
    assert clock.now() == 1_000_000
    clock.recorded = 999_990
    assert clock.now() == 1_000_000
    wall[0] = 2_000_000  # it is read again later
    assert clock.now() == 1_000_090
    wall[0] = 5  # the clock was set back
    assert clock.now() == 999_990


@pytest.mark.parametrize("end", [BEL, ST])
@pytest.mark.parametrize("size", [1, 7, 4096, 1 << 20])
def test_longest(size: int, end: bytes) -> None:
    """Title, body and command line are cut at their limits, in whatever pieces they come; what follows is found."""
    long = b"x" * (1 << 17)
    output = b"".join(
        [
            b"\x1b]9;" + long + end,
            b"\x1b]777;notify;" + b"t" * 5000 + b";" + long + end,
            b"\x1b]99;e=1:p=body;" + base64.b64encode(long) + end,
            b"\x1b]133;C;cmdline_url=" + long + end,
            b"\x1b]133;D;0" + end,
            b"\x1b]9;last" + end,
        ]
    )
    if size == 1:
        output = output.replace(long, long[: MAX_STRING_BYTES + 10])
    found = heard(output[i : i + size] for i in range(0, len(output), size))
    assert len(found) == 5
    for each in found[:3]:
        assert isinstance(each, Notified)
        assert len(each.body) == MAX_BODY
        assert each.body.endswith("…")
    assert isinstance(found[1], Notified)
    assert len(found[1].title) == MAX_TITLE
    assert isinstance(found[3], Finished)
    assert found[3].command == "x" * (MAX_LINE - 1) + "…"
    assert found[4] == note("last", position=len(output))


@pytest.mark.parametrize("most", [MAX_BODY - 1, MAX_BODY, MAX_BODY + 1])
def test_at_the_limit(most: int) -> None:
    """A body as long as the limit is whole, also where each character takes four bytes."""
    (found,) = heard([b"\x1b]9;" + "𝄞".encode() * most + BEL])
    assert isinstance(found, Notified)
    assert found.body == "𝄞" * most if most <= MAX_BODY else "𝄞" * (MAX_BODY - 1) + "…"


def test_bounded_memory() -> None:
    """A string without an end, notifications without a last piece and a flood take a bounded amount of memory."""
    scanner = Scanner()
    for _ in range(100):
        scanner.feed(b"\x1b]9;" + b"x" * 50_000, 0, lambda: 0)
        scanner.feed(b"y" * 50_000 + b"\x1b", 0, lambda: 0)
        scanner.feed(b"y" * 50_000, 0, lambda: 0)
    assert len(scanner.state.unfinished) <= MAX_STRING_BYTES
    for number in range(1000):
        scanner.feed(b"\x1b]99;i=%d:d=0:p=body;%b\x07" % (number, b"x" * 20_000), 0, lambda: 0)
    assert len(scanner.state.chunked) == MAX_CHUNKED
    assert all(len(each.body) <= MAX_BODY for each in scanner.state.chunked.values())


def test_flood() -> None:
    """Of a flood the first ones are kept, and the others are counted: what is no notification is not."""
    scanner = Scanner()
    scanner.feed(b"\x1b]9;x\x07\x1b]9;4;1;50\x07" * 1000, 1, lambda: 0)
    scanner.feed(b"\x1b]99;;x\x07" * 10 + b"\x1b]133;C\x07\x1b]133;D\x07" * 10, 1, lambda: 0)
    said, unsaid = scanner.take()
    assert (len(said), unsaid) == (MAX_SAID, 1020 - MAX_SAID)
    assert scanner.take() == ([], 0)
    scanner.feed(b"\x1b]9;later\x07", 1, lambda: 0)
    assert without_positions(scanner.take()[0]) == [note("later")]


def test_flood_that_was_taken() -> None:
    """What was taken already is not counted either."""
    scanner = Scanner(from_position=100_000)
    scanner.feed(b"\x1b]9;x\x07" * 1000, 0, lambda: 0)
    assert scanner.take() == ([], 0)


def test_another_program() -> None:
    """The next program finishes nothing that the last one has begun."""
    scanner = Scanner()
    scanner.feed(b"\x1b]133;C;cmdline=x\x07\x1b]99;d=0;half\x07\x1b]9;half", 0, lambda: 0)
    scanner.reset()
    scanner.feed(b" of it\x07\x1b]133;D;0\x07\x1b]99;p=body;new\x07", 0, lambda: 0)
    assert without_positions(scanner.take()[0]) == [note("new")]
    assert scanner.state == State()


def test_random_bytes() -> None:
    """Whatever comes, in whatever pieces, the same is found."""
    chance = random.Random(13)  # the same bytes each time
    words = [
        b"\x1b",
        b"]",
        b"9",
        b"99",
        b"133",
        b";",
        b"C",
        b"D",
        b"\x07",
        b"\\",
        b"\x18",
        b"a",
        b"i=1:d=0",
        b"\xff",
        b"[",
    ]
    for _ in range(300):
        output = b"".join(chance.choices(words, k=60))
        cuts = sorted(chance.sample(range(len(output)), 8))
        pieces = [output[a:b] for a, b in itertools.pairwise([0, *cuts, len(output)])]
        assert heard(pieces) == heard([output])
