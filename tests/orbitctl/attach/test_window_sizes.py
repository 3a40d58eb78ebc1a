"""A resize loses no line: random sizes, with output between and during them, in windows that rewrap their rows."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from attach_support import DETACH, RUN_SHELL, settled
from ctl_support import Orbitctl
from needs import needs
from orbitctl.attach.painter import LAG_SECS
from support import DaemonProcess
from windows_support import PROMPT, TmuxWindow, attach, numbers, run
from xterm_support import XtermWindow

pytestmark = pytest.mark.slow

STEPS = 8
MAX_ROWS = 40


@pytest.fixture
def own(daemon: DaemonProcess) -> Orbitctl:
    return Orbitctl(daemon.home, {**daemon.environment, "PS1": "$ ", "TERM": "xterm-256color"})


@pytest.fixture
def xterm(own: Orbitctl, xterm_modules: Path) -> Iterator[XtermWindow]:
    with XtermWindow(xterm_modules, own, *RUN_SHELL) as window:
        settled(window)
        window.until(PROMPT)
        yield window


def logical(window: XtermWindow) -> list[str]:
    """Return the lines of a window, wrapped rows joined."""
    lines: list[str] = []
    for row in window.xterm.cells("normal"):
        text = "".join(cell.text for cell in row.cells)
        if row.wrapped and lines:
            lines[-1] += text
        else:
            lines.append(text)
    return [line.rstrip() for line in lines]


def found(lines: list[str]) -> set[int]:
    """Return the numbers of the lines, of which a screen may be there twice for each change of size, and no more.

    A shell edits its command for the size that it knows. In a window that has another one already, the first line of
    its output may come to stand behind the command.
    """
    all_numbers = [int(number) for line in lines for number in re.findall(r"line (\d+)", line)]
    assert len(all_numbers) - len(set(all_numbers)) <= 2 * STEPS * MAX_ROWS
    return set(all_numbers)


def walk(window: XtermWindow | TmuxWindow, seed: int, *, is_drag: bool = False) -> int:
    """Resize a window at random, and print numbered lines between, of which some wrap; return how many.

    Args:
        window: The window.
        seed: Of the random numbers.
        is_drag: Each change of size is several, so that pictures come for sizes that the window has no more.
    """
    rng = random.Random(seed)
    count = 0
    for step in range(STEPS):
        if step == 0 or rng.random() < 0.5:
            more = rng.choice([3, 20, 60])
            filling = "x" * rng.choice([0, 0, 100])
            run(window, f"for i in {{{count + 1}..{count + more}}}; do echo line $i {filling}; done", f"step{step}")
            count += more
        for _ in range(rng.randrange(1, 5) if is_drag else 1):
            cols, rows = rng.randrange(20, 120), rng.randrange(5, MAX_ROWS)
            window.resize(cols, rows)
            time.sleep(rng.choice([0, 0.005, 0.02, 0.05, 0.12]) if is_drag else 0)
        # Until the session has this size, and so the picture has been drawn: tmux tells its size up to 0.25 s later.
        run(window, f"until [ \"$(stty size)\" = '{rows} {cols}' ]; do read -t .01; done < /dev/tty", f"resized{step}")
    return count


@pytest.mark.parametrize("seed", range(2))
def test_xterm_loses_no_line(xterm: XtermWindow, seed: int) -> None:
    """In xterm.js, the terminal of VS Code, every line is there after a random walk over sizes."""
    count = walk(xterm, seed)
    xterm.type(DETACH)
    xterm.end()
    assert found(logical(xterm)) == set(range(1, count + 1))


@needs("tmux")
@pytest.mark.parametrize("seed", range(2))
def test_tmux_loses_no_line(own: Orbitctl, seed: int) -> None:
    """In a pane of tmux every line is there, the user's own before the attach too."""
    with TmuxWindow(own) as window:
        window.until(PROMPT)
        run(window, "for i in {1..40}; do echo mine $i; done")
        attach(window, own, *RUN_SHELL)
        count = walk(window, seed)
        window.type(DETACH)
        window.until("detached from web]")
        lines = window.lines()
        assert numbers(lines, "mine") == list(range(1, 41))
        assert found(lines) == set(range(1, count + 1))


@pytest.mark.parametrize("seed", range(2))
def test_a_drag_loses_no_line_of_xterm(xterm: XtermWindow, seed: int) -> None:
    """Sizes that change faster than pictures come, with output between, lose nothing."""
    count = walk(xterm, seed, is_drag=True)
    xterm.type(DETACH)
    xterm.end()
    assert found(logical(xterm)) == set(range(1, count + 1))


@pytest.mark.parametrize("rows", [(12, 30, 18), (30, 8, 24), (20, 16, 10)])
def test_sizes_beside_a_shell_that_waits_add_nothing(xterm: XtermWindow, rows: tuple[int, ...]) -> None:
    """Where nothing is printed meanwhile, each line is there once."""
    count = 60
    run(xterm, f"for i in {{1..{count}}}; do echo line $i; done")
    time.sleep(2 * LAG_SECS)  # nothing is printed in that time
    for height in rows:
        for cols in (90, 60, 100):
            xterm.resize(cols, height)
            xterm.until("\x1b]133;C")  # in the reset of the picture
            xterm.until("\x1b[6n")  # behind it
    xterm.type(DETACH)
    xterm.end()
    assert numbers(logical(xterm), "line") == list(range(1, count + 1))


@needs("tmux")
@pytest.mark.parametrize("seed", range(2))
def test_a_drag_loses_no_line_of_tmux(own: Orbitctl, seed: int) -> None:
    """The same where the terminal tells its size a quarter of a second after it has it."""
    with TmuxWindow(own) as window:
        window.until(PROMPT)
        attach(window, own, *RUN_SHELL)
        count = walk(window, seed, is_drag=True)
        window.type(DETACH)
        window.until("detached from web]")
        assert found(window.lines()) == set(range(1, count + 1))


@pytest.mark.parametrize("sizes", [[(80, 10), (80, 24)], [(40, 24), (120, 24)], [(80, 40), (80, 6), (30, 30)]])
@pytest.mark.parametrize("count", [3, 60])
def test_rows_and_columns_by_themselves(xterm: XtermWindow, sizes: list[tuple[int, int]], count: int) -> None:
    """Each way to be smaller and larger again keeps every line, on a full screen and on one that is not."""
    run(xterm, f"for i in {{1..{count}}}; do echo line $i; done")
    for step, size in enumerate(sizes):
        xterm.resize(*size)
        run(xterm, "true", f"resized{step}")
    xterm.type(DETACH)
    xterm.end()
    assert set(numbers(logical(xterm), "line")) == set(range(1, count + 1))


def test_output_while_the_size_changes(xterm: XtermWindow) -> None:
    """Lines that come while the window is resized again and again are all there, in order."""
    count = 2000
    rng = random.Random(1)
    xterm.type(f"for i in {{1..{count}}}; do echo line $i; done; echo e''nd.\r")
    for _ in range(6):
        xterm.until("line")
        xterm.resize(rng.randrange(40, 120), rng.randrange(8, 40))
    xterm.until("end.")
    xterm.until(PROMPT)
    xterm.type(DETACH)
    xterm.end()
    lines = logical(xterm)
    left_out = [int(found[1]) for line in lines if (found := re.match(r"\[(\d+) lines? (?:is|are) not here", line))]
    assert len(set(numbers(lines, "line"))) + sum(left_out) >= count


@needs("vim")
@pytest.mark.parametrize("count", [3, 60])
def test_a_resize_under_vim(xterm: XtermWindow, count: int) -> None:
    """Sizes that change while an editor has the alternate screen lose nothing of the primary one behind it."""
    run(xterm, f"for i in {{1..{count}}}; do echo line $i; done")
    for step, sizes in enumerate(([(60, 12), (100, 30)], [(50, 35)])):
        xterm.type("vim -u NONE -N\r")
        xterm.until("\x1b[?1049h")
        for size in sizes:
            xterm.resize(*size)
            xterm.until("\x18\x1b\\")  # the picture in the new size
        xterm.type(":q!\r")
        xterm.until("\x1b[?1049l")
        xterm.until(PROMPT)
        # Each with its own word: the picture that comes behind the editor has those before.
        run(xterm, f"for i in {{{count + 1}..{count + 5}}}; do echo line $i; done", f"step{step}")
        count += 5
    xterm.type(DETACH)
    xterm.end()
    assert set(numbers(logical(xterm), "line")) == set(range(1, count + 1))
