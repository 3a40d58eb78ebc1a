"""What of a session's output reaches the user's window."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orbit_protocol.terminal_reset import RESET
from orbitctl.attach.output_filter import MAX_HELD_BYTES, OutputFilter

PASSED = (
    b"\x1b[31mred\x1b[0m [3J ?3J J\r\n",
    b"\x1b[J\x1b[2J\x1b[1J\x1b[?2J\x1b[22J",
    b"\x1b[3 J\x1b[3$J\x1b[>3J",  # other functions
    b"\x1b[3\x18J\x1b[3\x1aJ",  # given up in the middle
    b"\x1b]2;a title [3J c\x07\x1b]8;;http://x/[3J\x1b\\link",
    b"\x1bP$qm\x1b\\\x1b_Gi=1;[3J\x1b\\\x1b^[3J\x1b\\\x1bX[3J\x1b\\",
    b"\x1b]1337;SetMark\x07\x1b]50;CursorShape=1\x07\x1b]51;A/tmp\x07",
    b"\x1b[?1049h\x1b[?2004l\x1b[4h\x1b(0\x1b7\x1b8\x1bM",
    "°§ñ¼ ESC c".encode(),
    b"\x1b]52;c;aGVsbG8=\x07",
)
REPLACED = (
    (b"a\x1b[3Jb", b"ab"),
    (b"a\x1b[?3Jb", b"ab"),
    (b"a\x1b[0003Jb", b"ab"),
    (b"a\x1b[2;3Jb", b"ab"),
    (b"a\x1b[3:1Jb", b"ab"),
    (b"a\x1b[4294967299Jb", b"ab"),
    (b"a\x1b[3\r\nJb", b"a\r\nb"),
    (b"a\x1b\n[3Jb", b"a\nb"),
    (b"a\xc2\x9b3Jb", b"ab"),  # CSI as a C1 control in UTF-8, which xterm.js takes
    (b"a\x1b]0;never ended\x1b[3Jb", b"a\x1b]0;never endedb"),
    (b"a\x1bcb", b"a" + RESET + b"b"),
    (b"a\x1b\ncb", b"a\n" + RESET + b"b"),
    (b"a\x1b]1337;ClearScrollback\x07b", b"ab"),
    (b"a\x1b]51;Evterm-clear-scrollback\x1b\\b", b"ab"),
    (b"a\x1b]50;HistorySize=0\x07b", b"ab"),
    (b"a\x1b[?40hb", b"ab"),
    (b"a\x1b[?40;1049h\x1b[?1049lb", b"a\x1b[?1049h\x1b[?1049lb"),
    (b"\x1bPtmux;\x1b\x1b]52;c;eA==\x07\x1b\\", b"\x1bPtmuX;\x1b\x1b]52;c;eA==\x07\x1b\\"),
)
CLIPBOARD = (
    b"\x1b]52;c;aGVsbG8=\x07",
    b"\x1b]52;;aGVsbG8=\x1b\\",
    b"\x1b]052;c;" + b"A" * 100_000 + b"\x1b\\",
    b"\x1b\n]52;c;AAAA\x18",
    b"\xc2\x9d52;c;AAAA\xc2\x9c",
    b"\x1b]5522;type=write\x1b\\",
    b"\x1b]1337;Copy=:AAAA\x07",
    b"\x1b]1337;CopyToClipboard=\x07",
)
PIECES = (
    *(b"\x1b", b"[", b"3", b"J", b"c", b"]", b"52;", b"1337;Clear", b"Scrollback", b"\x07", b"\\", b"\n", b"\xc2"),
    *(b"x", b"\x9b", b"\x9c", b"\x9d", b"?", b"1049", b"40", b";", b"h", b"l", b"P", b"tm", b"ux;", b"\x18"),
    *(b"m", b"\x1b[", b"_"),
)  # fmt: skip


def received(*pieces: bytes, read_only: bool = False) -> tuple[bytes, int]:
    output = OutputFilter(read_only=read_only)
    return b"".join(output.receive(piece) for piece in pieces), output.alternate


def splits(data: bytes) -> list[list[bytes]]:
    """Return it in two parts, cut everywhere, and byte by byte."""
    return [[data[:at], data[at:]] for at in range(min(len(data), 200) + 1)] + [[bytes([byte]) for byte in data]]


@pytest.mark.parametrize("data", PASSED)
def test_what_is_the_sessions_passes_unchanged(data: bytes) -> None:
    """Erasing of the screen, strings whatever is in them, and text that looks like a sequence pass, however cut."""
    for pieces in splits(data):
        assert received(*pieces)[0] == data, pieces


@pytest.mark.parametrize(("data", "expected"), REPLACED)
def test_the_windows_history_and_settings_are_kept(data: bytes, expected: bytes) -> None:
    """What erases the window's history, or changes the window, is taken out in each spelling, however cut."""
    for pieces in splits(data):
        assert received(*pieces)[0] == expected, pieces


@pytest.mark.parametrize("data", CLIPBOARD)
def test_only_a_writable_client_writes_the_clipboard(data: bytes) -> None:
    """A string that sets the clipboard is taken out for a client that only watches, to its end, whatever its length."""
    for pieces in splits(data):
        assert received(b"a", *pieces, b"b", read_only=True)[0].replace(b"\n", b"") == b"ab", pieces[0]
        assert received(b"a", *pieces, b"b")[0] == b"a" + data + b"b"


def test_a_sequence_ends_the_string_that_is_taken_out() -> None:
    """A string that is never terminated takes nothing with it: ESC ends it, as in the terminal."""
    assert received(b"\x1b]52;c;AAAA\x1b", b"[31mred", read_only=True)[0] == b"\x1b[31mred"


@settings(deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=30), st.lists(st.integers(0, 100), max_size=6), st.booleans())
def test_any_split_is_as_the_whole(pieces: list[bytes], cuts: list[int], read_only: bool) -> None:
    """Where reads end changes neither what passes nor on which screen the window is."""
    data = b"".join(pieces)
    places = sorted({0, len(data), *(cut for cut in cuts if cut <= len(data))})
    parts = [data[start:end] for start, end in itertools.pairwise(places)]
    assert received(*parts, read_only=read_only) == received(data, read_only=read_only)


def test_text_before_an_unfinished_sequence_is_not_delayed() -> None:
    """Only the bytes of the sequence itself wait."""
    output = OutputFilter()
    assert output.receive(b"text\x1b[3") == b"text"
    assert output.receive(b"1mred") == b"\x1b[31mred"


def test_what_is_held_is_bounded() -> None:
    """A sequence longer than any is dropped, and control characters within one do not wait for its end."""
    output = OutputFilter()
    for _ in range(100):
        assert output.receive(b"\x1b[" + b"0" * MAX_HELD_BYTES) == b""
    assert output.receive(b"3Jtext") == b"text"
    feeds = b"\n" * (MAX_HELD_BYTES + 1)
    assert output.receive(b"\x1b" + feeds) == feeds
    assert output.receive(b"ctext") == RESET + b"text"


def test_the_screen_in_use_is_known() -> None:
    """Each way onto the alternate screen and back is followed, also a reset."""
    for mode in (47, 1047, 1049):
        enter = b"\x1b[?%dh" % mode
        assert received(enter)[1] == mode
        assert received(b"\x1b[?25;%dhvim" % mode)[1] == mode
        assert received(enter, b"\x1b[?%dl" % mode)[1] == 0
        assert received(enter, b"\x1bc")[1] == 0
    assert received(b"\x1b]0;\x1b[?1049h")[1] == 1049


def test_output_can_end_where_the_primary_screen_is_back() -> None:
    """On request nothing is passed on behind the way back from the alternate screen."""
    output = OutputFilter()
    output.receive(b"\x1b[?1049h")
    output.stop_at_primary = True
    assert output.receive(b"vim\x1b[?1049l$ prompt\x1b[3") == b"vim\x1b[?1049l"
    assert output.receive(b"more") == b"more"


@pytest.mark.parametrize(
    ("data", "expected"),
    [(b"\x1b]11;red\x07", True), (b"\x1b]4;7;red\x07", True), (b"\x1b]11;?\x07", False), (b"\x1b]2;11;x\x07", False)],
)
def test_colours_that_are_set_are_known(data: bytes, expected: bool) -> None:
    """Setting a colour is told from asking for one."""
    output = OutputFilter()
    output.receive(data)
    assert output.has_set_colors is expected


def test_origin_mode_is_known_for_good() -> None:
    """That origin mode was set stays known: cursors that were saved have it."""
    output = OutputFilter()
    output.receive(b"\x1b[?6l")
    assert not output.has_set_origin
    output.receive(b"\x1b[?25;6h\x1b[?6l")
    assert output.has_set_origin
