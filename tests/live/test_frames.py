"""Clients whose windows have another size than the session, beside one that has it: each shows its part."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from live.sessions import start
from live_support import Viewer
from needs import require
from orbitd.screens.emulator import Emulator
from support import DaemonProcess, RawClient
from terminal_support import cells, part_of

ECHO = "sh -c 'stty raw -echo; echo ready; exec cat'"
WINDOWS = ((60, 15), (7, 3), (1, 1), (99, 30), (100, 29), (150, 50), (20, 50))
SCREENS = {
    "text": b"\x1b[2J\x1b[H" + b"".join(b"\r\nline %d of the text, which goes on for a while" % n for n in range(60)),
    "styles": b"\x1b[H\x1b[44m\x1b[2J\x1b[1;31mred\x1b[m" + b"\x1b[38;5;99;4:3mcurly \x1b[m" * 40 + b"\x1b[10;30H",
    "wide characters": ("\x1b[H" + "宽x字符ab" * 60 + "\x1b[9;50H").encode(),
    "wide characters, one further": ("\x1b[Hx" + "宽字符" * 90 + "\x1b[9;51H").encode(),
    "the last column": b"\x1b[H" + b"x" * 3000 + b"\x1b[30;100Hy\x1b[30;1H",
    "the alternate screen": b"shell\r\n\x1b[?1049h\x1b[2J\x1b[3;3Hfull screen\x1b[28;90Hcorner"
    b"\x1b[5;20r\x1b[?6h\x1b[2;2H",
    "a hidden cursor": b"\x1b[H\x1b[J\x1b[20;70Hhere\x1b[?25l\x1b[?5h",
    "links": b"\x1b[H\x1b]8;id=a;http://a/\x07" + b"link " * 30 + b"\x1b]8;;\x07\x1b[2;1H",
}


def offset(window: Emulator, screen: Emulator) -> tuple[int, int] | None:
    """Return which part of a screen a window shows, with the cursor in its place; None for no part."""
    left, top = (there - here for there, here in zip(place(screen), place(window), strict=True))
    most = (max(0, of - shown) for of, shown in zip(screen.size, window.size, strict=True))
    is_inside = all(0 <= first <= last for first, last in zip((left, top), most, strict=True))
    if not is_inside or window.cursor.visible != screen.cursor.visible:
        return None
    return (left, top) if cells(window) == part_of(screen, window.size, left, top) else None


def place(emulator: Emulator) -> tuple[int, int]:
    """Return the column and the row of the cursor."""
    return emulator.cursor.column, emulator.cursor.row


@pytest.fixture
def connect(shared_daemon: DaemonProcess) -> Iterator[Callable[[], RawClient]]:
    """A function that makes a connection."""
    clients: list[RawClient] = []

    def connected() -> RawClient:
        clients.append(shared_daemon.client())
        return clients[-1]

    yield connected
    for client in clients:
        client.close()


def follow(viewer: Viewer, screen: Emulator) -> tuple[int, int]:
    """Take frames until a viewer shows a part of a screen; return which."""
    while (shown := offset(viewer.emulator, screen)) is None:
        viewer.step()
    return shown


def follow_output(owner: Viewer, end: bytes) -> None:
    """Take output until its end has come."""
    while not owner.output.endswith(end):
        owner.step()


def test_windows_of_any_size_show_their_part(connect: Callable[[], RawClient]) -> None:
    """Whatever is on the screen, each window shows the part around the cursor; none of them gets any output."""
    session_id = start(connect(), ECHO)
    owner = Viewer(connect(), session_id, (100, 30))
    owner.read_until("ready")
    viewers = [Viewer(connect(), session_id, size, read_only=True) for size in WINDOWS]
    for screen in SCREENS.values():
        owner.type(screen)
        follow_output(owner, screen)
        for viewer in viewers:
            follow(viewer, owner.emulator)
    for viewer in viewers:
        assert set(viewer.reasons) == {"frame"}
        assert not viewer.emulator.alternate
        assert viewer.emulator.scrollback_rows == 0


def test_a_viewer_resizes_its_window(connect: Callable[[], RawClient]) -> None:
    """The part fits at once; at the session's size the viewer is sent output, and else frames again."""
    session_id = start(connect(), ECHO)
    owner = Viewer(connect(), session_id, (100, 30))
    owner.read_until("ready")
    viewer = Viewer(connect(), session_id, (60, 15), read_only=True)
    for number, size in enumerate([(40, 20), (100, 30), (120, 10), (100, 31), (100, 30)]):
        viewer.client.call("session.resize", attachment_id=viewer.id, cols=size[0], rows=size[1])
        viewer.read_until_repaint()
        assert viewer.emulator.size == size
        text = b"\x1b[%d;50Hnumber %d" % (3 * number + 1, number)
        owner.type(text)
        follow_output(owner, text)
        follow(viewer, owner.emulator)
        assert viewer.reasons[-1] == ("resized" if size == (100, 30) else "frame")
    viewer.read_until("number 4")


def test_typing_takes_the_size_and_what_a_key_sends_is_right(connect: Callable[[], RawClient]) -> None:
    """A client of another size is sent the modes of the keyboard with the frames, and owns the size once it types."""
    session_id = start(connect(), ECHO)
    owner = Viewer(connect(), session_id, (100, 30))
    other = Viewer(connect(), session_id, (70, 20))
    owner.read_until_repaint()
    other.type(b"\x1b[?1h\x1b[?2004h\x1b=\x1b[>5u\x1b[?1000h\x1b[?1004h")
    while owner.emulator.dump().keyboard != 5:
        owner.step()
    assert owner.emulator.modes() & {"?1", "?2004", "?66", "?1000", "?1004"} == {"?1", "?2004", "?66"}
    owner.type(b"text")
    while other.reasons[-1:] != ["frame"] or owner.reasons[-1] != "resized" or b"text" not in owner.output:
        (owner if owner.reasons[-1] != "resized" or b"text" not in owner.output else other).step()
    assert (owner.emulator.size, other.emulator.size) == ((100, 30), (70, 20))
    assert "?1000" in owner.emulator.modes()
    assert "?1000" not in other.emulator.modes()
    follow(other, owner.emulator)


def test_a_viewer_that_does_not_read_skips_frames(connect: Callable[[], RawClient]) -> None:
    """Beside a flood only what the kernel holds waits for it; when it reads, it soon shows the newest picture."""
    session_id = start(connect(), "sh -c 'read x; seq -f \"line %.0f of some length, before the next\" 300000; cat'")
    owner = Viewer(connect(), session_id, (200, 60))
    viewer = Viewer(connect(), session_id, (199, 59), read_only=True)
    owner.type("\n")
    while "line 300000 " not in owner.text():
        owner.step()
    assert follow(viewer, owner.emulator) == (0, 1)
    kernel, frame = 1 << 20, 199 * 59
    assert len(viewer.output) < kernel + 3 * frame
    assert len(owner.output) > 5 * kernel


@pytest.mark.slow
def test_vim_in_a_smaller_window(connect: Callable[[], RawClient], tmp_path: Path) -> None:
    """A reader follows an editor through a long file: after each move it shows a part of its screen."""
    require("vim")
    (tmp_path / "text").write_text("".join(f"{n:04d} " + f"{n}-word " * 8 + "\n" for n in range(400)))
    session_id = start(connect(), f"vim -u NONE -i NONE -N {tmp_path}/text")
    owner = Viewer(connect(), session_id, (100, 30))
    while "0028" not in owner.text():
        owner.step()
    viewers = [Viewer(connect(), session_id, size, read_only=True) for size in ((60, 15), (120, 40))]
    for keys, shown in ((b"G$", "0399"), (b"gg", "0000"), (b"20jx", "0020"), (b":%s/word/W/g\r", "399-W")):
        owner.type(keys)
        while shown not in owner.text():
            owner.step()
    owner.type(b"\x1b:set ruler\r:1\r0")
    while " 1,1 " not in owner.text() or place(owner.emulator) != (0, 0):
        owner.step()
    for viewer in viewers:
        assert follow(viewer, owner.emulator) == (0, 0)
