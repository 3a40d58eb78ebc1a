"""A picture and a window of another size: what is drawn, what is not, and what is drawn once more. No real terminal."""

from __future__ import annotations

from typing import cast

import pytest

from orbit_protocol.terminal_reset import RESET
from orbitctl.attach import painter as module
from orbitctl.attach.connection import Notice
from orbitctl.attach.output_filter import OutputFilter
from orbitctl.attach.painter import MAX_LATE, RETRY_SECS, Painter, rows_of_output
from orbitctl.attach.terminal import Terminal
from orbitctl.attach.window import Window


class ScriptedTerminal:
    """A terminal. `real` is its own size, and `size` the one that the kernel knows."""

    is_in_foreground = True

    def __init__(self, size: tuple[int, int]) -> None:
        self.real = self.size = size
        self.output_filter = OutputFilter()
        self.written = b""
        self.is_entered = False

    def write(self, data: bytes) -> None:
        self.written += data

    def show(self, data: bytes) -> bytes:
        shown = self.output_filter.receive(data)
        self.written += shown
        return shown

    def enter(self) -> None:
        self.is_entered = True


class Scene:
    """A painter, and what it draws in. The time is the tests' own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int] = (80, 24)) -> None:
        monkeypatch.setenv("TERM", "xterm")
        self.now = 1000.0
        monkeypatch.setattr(module.time, "monotonic", lambda: self.now)
        self.terminal = ScriptedTerminal(size)
        self.window = Window("`how`")
        self.painter = Painter(cast(Terminal, self.terminal), self.window)

    def answer(self, *cursors: tuple[int, int], can_attach: bool = True) -> bool:
        """Answer all questions: at the corner the size, else where the cursor is; return what `settle` does."""
        rest, data = list(cursors), b""
        for before in self.terminal.written.split(b"\x1b[6n")[:-1]:
            column, row = self.terminal.real
            if not before.endswith(b"\x1b[999;999H"):
                row, column = (each + 1 for each in rest.pop(0))
            data += b"\x1b[%d;%dR" % (row, column)
        assert not rest
        self.terminal.written = b""
        assert self.painter.receive(data, self.now) == b""
        assert self.painter.is_answered
        return self.painter.settle(can_attach=can_attach)

    def attached(self, line: int = 100) -> None:
        """Have the first picture drawn, and found to be right."""
        self.painter.take_over()
        assert not self.painter.paint(picture(self.terminal.size, "", line))
        assert self.painter.is_waiting
        assert not self.answer((5, 0))
        assert self.terminal.is_entered
        assert self.drawn(line)
        assert not self.answer()

    def retry(self) -> None:
        """Let the time come at which the picture that waits is tried again."""
        assert self.painter.deadline is not None
        self.now = max(self.now, self.painter.deadline)
        assert self.painter.give_up() == b""
        assert not self.painter.settle(can_attach=True)

    def resize(self, size: tuple[int, int], *, is_reported: bool = True) -> None:
        self.terminal.real = size
        if is_reported:
            self.terminal.size = size
            self.painter.note_resize()

    def drawn(self, line: int) -> bool:
        """Return whether a picture has been drawn."""
        return b"picture %d" % line in self.terminal.written

    def scrolled(self) -> int:
        """Return how many rows were moved up before the picture."""
        return self.terminal.written.split(b"picture")[0].count(b"\n")


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(monkeypatch)


def picture(size: tuple[int, int], reason: str, line: int, row: int = 10) -> Notice:
    data = RESET + b"picture %d" % line
    return Notice(data=data, reason=reason, cols=size[0], rows=size[1], history_line=line, cursor_row=row)


def test_the_first_picture_waits_for_the_users_cursor(scene: Scene) -> None:
    """The rows above it go up, and no more."""
    scene.painter.take_over()
    scene.painter.paint(picture((80, 24), "", 100))
    assert not scene.drawn(100)
    scene.answer((5, 0))
    assert scene.scrolled() == 5


def test_a_window_that_changes_before_the_first_picture_is_asked_again(scene: Scene) -> None:
    """Its cursor may be elsewhere then, and the rows above it are the user's."""
    scene.painter.take_over()
    assert not scene.answer((5, 0))
    scene.resize((40, 24))
    assert not scene.painter.paint(picture((40, 24), "", 100))
    assert scene.painter.is_waiting
    scene.answer((9, 0))
    assert scene.scrolled() == 9


def test_a_first_picture_of_another_size_is_not_drawn(scene: Scene) -> None:
    """The window is still the user's, and has no line of the session. A new attachment is needed."""
    scene.painter.take_over()
    assert not scene.answer((5, 0))
    scene.resize((40, 24))
    assert scene.painter.paint(picture((80, 24), "", 100))
    assert not scene.terminal.is_entered
    assert scene.window.leave(100) is None
    assert not scene.window.is_known


def test_a_picture_is_checked_when_it_is_drawn(scene: Scene) -> None:
    """Where the size and the cursor are as they should, nothing is drawn once more."""
    scene.attached()
    scene.resize((60, 20))
    assert not scene.painter.paint(picture((60, 20), "resized", 104))
    assert not scene.answer((15, 0))
    assert (scene.drawn(104), scene.scrolled()) == (True, 5)
    assert not scene.answer((10, 0))
    assert scene.window.after_line == 104


def test_nothing_is_drawn_for_a_size_that_the_window_has_no_more(scene: Scene) -> None:
    """The kernel knows it, and the daemon will: another picture comes. Output behind this one is shown."""
    scene.attached()
    scene.resize((60, 20))
    assert not scene.painter.paint(picture((80, 24), "resized", 104))
    assert not scene.painter.is_waiting
    assert not scene.drawn(104)
    scene.painter.show(b"one\r\n")
    scene.painter.paint(picture((60, 20), "resized", 104))
    scene.answer((15, 0))
    assert (scene.drawn(104), scene.scrolled()) == (True, 5 + 1)


def test_a_picture_waits_for_a_terminal_that_has_another_size(scene: Scene) -> None:
    """As in tmux, which reports its size a quarter of a second late. Nothing behind it is shown before."""
    scene.attached()
    scene.resize((60, 20), is_reported=False)
    scene.painter.paint(picture((80, 24), "resized", 104))
    assert not scene.answer((15, 0))
    assert not scene.drawn(104)
    assert scene.painter.is_waiting
    assert scene.painter.deadline == scene.now + RETRY_SECS
    scene.resize((80, 24), is_reported=False)
    scene.retry()
    assert not scene.answer((12, 0))
    assert (scene.drawn(104), scene.scrolled()) == (True, 2)


def test_a_picture_that_waits_is_dropped_when_the_size_is_reported(scene: Scene) -> None:
    """At once: another one comes."""
    scene.attached()
    scene.resize((60, 20), is_reported=False)
    scene.painter.paint(picture((80, 24), "resized", 104))
    assert not scene.answer((15, 0))
    scene.resize((60, 20))
    assert scene.painter.deadline == scene.now
    scene.retry()
    assert not scene.painter.is_waiting
    assert not scene.drawn(104)
    assert scene.window.after_line == 100


def test_lines_that_came_back_from_the_history_are_none_of_it(scene: Scene) -> None:
    """A session that is taller has fewer lines above its screen, and takes longer to fill."""
    scene.attached()
    scene.painter.show(b"x\r\n" * 50)
    assert scene.window.after_line == 100 + 50 - 23
    scene.resize((80, 50))
    scene.painter.paint(picture((80, 40), "resized", 111))
    assert scene.window.after_line == 111
    scene.painter.show(b"x\r\n" * 30)
    assert scene.window.after_line == 111
    scene.painter.show(b"x\r\n" * 30)
    assert scene.window.after_line == 111 + 60 - 39


@pytest.mark.parametrize("reason", ["", "refreshed"])
def test_a_picture_with_lines_of_its_own_is_not_dropped_for_good(scene: Scene, reason: str) -> None:
    """They come once: a new attachment brings them. What comes behind it is not shown before."""
    scene.attached()
    scene.resize((60, 20))
    assert scene.painter.paint(picture((80, 24), reason, 200))
    scene.painter.show(b"behind\r\n" * 100)
    assert b"behind" not in scene.terminal.written
    assert scene.window.after_line == scene.window.leave(200) == 100


def test_a_terminal_that_was_being_resized_at_first_is_asked_again(scene: Scene) -> None:
    """It answered another size than the kernel knew; when it has reported that, it is trusted."""
    scene.terminal.real = (60, 20)
    scene.painter.take_over()
    scene.painter.paint(picture((80, 24), "", 100))
    assert not scene.answer((5, 0))
    assert scene.drawn(100)
    scene.terminal.written = b""
    scene.resize((60, 20))
    assert not scene.answer((5, 0))
    scene.painter.paint(picture((60, 20), "resized", 101))
    assert scene.painter.is_waiting


def test_a_picture_of_another_size_is_not_drawn_in_leaving(scene: Scene) -> None:
    """The window keeps what it shows."""
    scene.attached()
    scene.resize((60, 20), is_reported=False)
    scene.painter.paint(picture((80, 24), "resized", 104))
    assert not scene.answer((15, 0))
    scene.painter.leave()
    assert not scene.drawn(104)
    assert not scene.painter.is_waiting


@pytest.mark.parametrize(("row", "size"), [(9, (80, 24)), (10, (80, 20)), (10, (60, 24))])
def test_a_picture_that_came_too_late_is_drawn_once_more(scene: Scene, row: int, size: tuple[int, int]) -> None:
    """With all lines that the window may have fetched out of its history meanwhile, and have lost with it."""
    scene.attached()
    scene.painter.paint(picture((80, 24), "resized", 104))
    scene.answer((15, 0))
    scene.resize(size, is_reported=False)
    assert scene.answer((row, 0))
    assert scene.window.after_line == 100 - 24
    assert scene.window.leave(105) == 100 - 24


def test_a_picture_behind_one_that_is_checked_waits(scene: Scene) -> None:
    """It is drawn when that has been found right, after a question of its own."""
    scene.attached()
    scene.painter.paint(picture((80, 24), "resized", 104))
    scene.answer((10, 0))
    scene.painter.paint(picture((80, 24), "resized", 105))
    assert scene.painter.is_waiting
    assert not scene.answer((10, 0))
    assert not scene.drawn(105)
    scene.answer((10, 0))
    assert scene.drawn(105)


def test_a_size_that_stays_another_is_put_up_with_until_it_is_reported(scene: Scene) -> None:
    """As where somebody has set it by stty: pictures are drawn as they come. Behind a resize they are checked again."""
    scene.attached()
    scene.resize((60, 20), is_reported=False)
    scene.painter.paint(picture((80, 24), "resized", 101))
    for _ in range(MAX_LATE):
        assert not scene.drawn(101)
        assert not scene.answer((10, 0))
        scene.retry()
    assert scene.drawn(101)
    assert not scene.painter.paint(picture((80, 24), "resized", 102))
    assert scene.drawn(102)
    scene.terminal.written = b""
    scene.resize((60, 20))
    scene.painter.paint(picture((60, 20), "resized", 112))
    assert scene.painter.is_waiting


def test_a_daemon_that_draws_for_another_size_is_put_up_with(scene: Scene) -> None:
    """One of an earlier release does, with several clients: after a few pictures they are drawn."""
    scene.attached()
    for _ in range(MAX_LATE):
        assert not scene.painter.paint(picture((70, 24), "resized", 104))
        assert not scene.drawn(104)
    assert not scene.painter.paint(picture((70, 24), "resized", 104))
    assert scene.drawn(104)


def test_output_at_another_size_moves_more_rows_up(scene: Scene) -> None:
    """What took two rows here may take one in the session: as many more go up, and one may be there twice."""
    scene.attached()
    scene.resize((60, 20))
    scene.painter.show(b"one\r\ntwo\r\n" + b"x" * 120)
    scene.painter.paint(picture((60, 20), "resized", 104))
    scene.answer((15, 0))
    assert scene.scrolled() == 5 + 3


@pytest.mark.parametrize(("secs", "rows"), [(0.1, 5 + 2), (0.5, 5)])
def test_output_just_before_the_size_is_told_counts_for_that(scene: Scene, secs: float, rows: int) -> None:
    """The terminal may have had the new size when it came."""
    scene.attached()
    scene.painter.show(b"one\r\ntwo\r\n")
    scene.now += secs
    scene.resize((60, 20))
    scene.painter.paint(picture((60, 20), "resized", 104))
    scene.answer((15, 0))
    assert scene.scrolled() == rows


def test_no_answer_is_waited_for_when_the_window_is_left(scene: Scene) -> None:
    """What waits is drawn."""
    scene.attached()
    scene.painter.paint(picture((80, 24), "resized", 104))
    assert scene.painter.is_waiting
    scene.painter.leave()
    assert scene.drawn(104)


def test_a_terminal_that_does_not_answer_has_its_picture_all_the_same(scene: Scene) -> None:
    """At the deadline, with the cursor taken to be at the bottom."""
    scene.attached()
    scene.painter.paint(picture((80, 24), "resized", 104))
    assert scene.painter.give_up() == b""
    assert not scene.painter.settle(can_attach=True)
    assert (scene.drawn(104), scene.scrolled()) == (True, 23 - 10)


@pytest.mark.parametrize(
    ("output", "rows"),
    [
        (b"", 0),
        (b"a\r\nb\r\n", 2),
        (b"x" * 20, 0),
        (b"x" * 21, 1),
        (b"x" * 41 + b"\r\n", 3),
        (b"x" * 15 + b"\r" + b"y" * 15, 0),
        (b"\x1b[1;38;2;255;255;255mprompt\x1b[0m\x1b]133;A\x1b\\\x1b(B\x1b[K", 0),
        (b"\n" * 30 + b"x" * 100, 30),
    ],
)
def test_rows_of_output_are_not_too_few(output: bytes, rows: int) -> None:
    """A prompt that is drawn again takes none; from a whole screen on it does not matter."""
    assert rows_of_output(output, 20, 24) == rows


# What was drawn wrongly, and cannot be drawn once more at once


def test_a_first_picture_that_is_wrong_does_not_count(scene: Scene) -> None:
    """The next attach is to bring what the user has asked for, and no more: nothing is known of the window yet."""
    scene.painter.take_over()
    scene.painter.paint(picture((80, 24), "", 100))
    assert not scene.answer((5, 0))
    scene.resize((80, 20), is_reported=False)
    assert scene.answer()
    assert not scene.window.is_known


def test_a_first_picture_without_an_answer_counts(scene: Scene) -> None:
    """A terminal that was stopped for a moment is not shown the whole history again after an outage."""
    scene.painter.take_over()
    scene.painter.paint(picture((80, 24), "", 100))
    assert not scene.answer((5, 0))
    scene.painter.give_up()
    assert not scene.painter.settle(can_attach=True)
    assert scene.window.is_known
    assert scene.window.after_line == 100


def test_a_picture_that_was_drawn_wrongly_is_not_forgotten_with_its_daemon(scene: Scene) -> None:
    """The attachment behind an outage asks for its lines, too."""
    scene.attached()
    scene.painter.paint(picture((80, 24), "resized", 104))
    scene.answer((10, 0))
    scene.resize((80, 20), is_reported=False)
    assert not scene.answer((10, 0), can_attach=False)
    assert scene.window.after_line == 100 - 24


def test_an_answer_that_does_not_come_proves_nothing(scene: Scene) -> None:
    """A picture behind it that is drawn wrongly brings the lines of both."""
    scene.attached()
    scene.painter.paint(picture((80, 24), "resized", 104))
    scene.answer((10, 0))
    scene.painter.give_up()
    assert not scene.painter.settle(can_attach=True)
    scene.now += 10  # no answer to that is expected any more
    scene.terminal.written = b""
    scene.painter.paint(picture((80, 24), "resized", 110))
    scene.answer((10, 0))
    scene.resize((80, 20), is_reported=False)
    assert scene.answer((10, 0))
    assert scene.window.after_line == 100 - 24


def test_a_window_that_is_taken_over_is_judged_too(scene: Scene) -> None:
    """A shell had it, and the answer is lost."""
    scene.attached()
    scene.painter.paint(picture((80, 24), "resized", 104))
    scene.answer((10, 0))
    scene.painter.take_over()
    assert scene.window.after_line == 100 - 24


def test_a_window_that_is_left_is_judged_before(scene: Scene) -> None:
    """What is remembered of it is what it has for certain."""
    scene.attached()
    scene.painter.paint(picture((80, 24), "resized", 104))
    scene.answer((10, 0))
    scene.resize((80, 20), is_reported=False)
    assert scene.painter.receive(b"\x1b[20;80R\x1b[11;1R", scene.now) == b""
    scene.painter.leave()
    assert scene.window.leave(105) == 100 - 24


def test_a_picture_that_ends_on_the_alternate_screen_is_checked(scene: Scene) -> None:
    """Its rows of the primary one can be drawn over each other all the same."""
    scene.attached()
    data = RESET + b"picture 104\x1b[3;1H\x1b[?1049h\x1b[Heditor"
    editor = Notice(data=data, reason="resized", cols=80, rows=24, history_line=104)
    scene.painter.paint(editor)
    scene.answer((2, 0))
    scene.resize((80, 20), is_reported=False)
    assert scene.answer()
    assert scene.window.after_line == 100 - 24


def test_frames_are_drawn_in_a_window_of_another_size(scene: Scene) -> None:
    """No row of them is a line; the frame for the new size follows."""
    scene.attached()
    assert not scene.painter.paint(picture((80, 24), "frame", 100))
    scene.answer((10, 0))
    scene.terminal.written = b""
    scene.resize((60, 20))
    assert not scene.painter.paint(picture((80, 24), "frame", 101))
    assert (scene.drawn(101), scene.scrolled()) == (True, 0)
