"""What is the user's in a terminal stays there: in a bare emulator, xterm.js, tmux, and one that answers nothing."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from attach_support import DETACH, Window
from ctl_support import Orbitctl
from needs import needs
from support import DaemonProcess
from windows_support import PROMPT, SHELL, EmulatorWindow, UsersWindow, attach, numbers, open_window, run

KINDS = ("emulator", "silent", pytest.param("tmux", marks=needs("tmux")), "xterm")
ATTACH = ("session", "attach", "web")

Open = Callable[[str], UsersWindow]


@pytest.fixture
def own(daemon: DaemonProcess) -> Orbitctl:
    ctl = Orbitctl(
        daemon.home, {**daemon.environment, "PS1": "$ ", "TERM": "xterm-256color", "ORBITCTL_NO_AUTOSTART": "1"}
    )
    ctl.ok("session", "run", "-d", "--name", "web", "--", *SHELL)
    return ctl


@pytest.fixture
def window(own: Orbitctl, request: pytest.FixtureRequest) -> Iterator[UsersWindow]:
    with ExitStack() as opened:
        modules: Path | None = None
        if request.param == "xterm":
            modules = request.getfixturevalue("xterm_modules")
        yield opened.enter_context(open_window(request.param, own, modules))  # type: ignore[arg-type]


def everywhere(test: Callable[..., None]) -> Callable[..., None]:
    return pytest.mark.parametrize("window", KINDS, indirect=True)(test)


def detach(window: UsersWindow) -> None:
    window.type(DETACH)
    window.until("detached from web]")
    window.until(PROMPT)


@everywhere
@pytest.mark.parametrize("count", [3, 20, 60])
def test_the_users_screen_is_in_the_history(own: Orbitctl, window: UsersWindow, count: int) -> None:
    """What stood on the screen before an attach is there afterwards, once, however much of the screen it took."""
    run(window, f"for i in {{1..{count}}}; do echo mine $i; done")
    attach(window, own, *ATTACH)
    detach(window)
    run(window, "true", "again")
    assert numbers(window.lines(), "mine") == list(range(1, count + 1))


@everywhere
def test_what_the_session_printed_last_stays(own: Orbitctl, window: UsersWindow) -> None:
    """After a full-screen program and more output all of it is there, and the message stands in the line behind it."""
    attach(window, own, *ATTACH)
    run(window, r"printf '\e[?1049h\e[H\e[2Jfull screen\e[10;20r\e[?1049l\e[r'; clear")
    run(window, "for i in {1..12}; do echo kept $i; done")
    detach(window)
    lines = window.lines()
    assert numbers(lines, "kept") == list(range(1, 13))
    (message,) = [at for at, line in enumerate(lines) if line == "[detached from web]"]
    assert lines[message - 1].startswith("$")
    assert lines[message - 2] == "done."


@everywhere
def test_a_program_that_ends_leaves_its_last_words(own: Orbitctl, window: UsersWindow) -> None:
    """Behind a full-screen program and a line, the message of the end follows that line."""
    script = r"printf '\e[?1049h\e[H\e[2Jfull\e[5;5H'; printf '\e[?1049l'; echo one; exit 3"
    window.type(f'{" ".join(own.command)} session run --name end -- sh -c "sleep 0; {script}"; echo code=$?\r')
    window.until("code=3")
    lines = window.lines()
    assert lines[lines.index("one") + 1] == "[end ended: exit 3]"


@everywhere
@pytest.mark.parametrize("how", ["detach", "TERM"])
def test_the_primary_screen_is_back_after_a_full_screen_program(own: Orbitctl, window: UsersWindow, how: str) -> None:
    """Leaving while a program has the alternate screen shows the session's primary one, whatever margins were set."""
    window.type("sh -c 'echo pid=$$.; exec \"$@\"' - ")
    attach(window, own, *ATTACH)
    pid = int(re.findall(rb"pid=(\d+)\.", window.output)[-1])
    run(window, "for i in {1..5}; do echo kept $i; done")
    window.type(r"printf '\e[?1049h\e[5;9r\e[7;3Hfull ''screen'; read x" + "\r")
    window.until("full screen")
    if how == "TERM":
        os.kill(pid, signal.SIGTERM)
        window.until("detached from web]")
    else:
        detach(window)
    run(window, "true", "again")
    lines = window.lines()
    assert numbers(lines, "kept") == list(range(1, 6))
    assert "full screen" not in "\n".join(lines).replace("full ''screen", "")


@everywhere
def test_text_below_the_cursor_stays(own: Orbitctl, window: UsersWindow) -> None:
    """A program that has moved its cursor up leaves the text below it on the screen."""
    attach(window, own, *ATTACH)
    window.type("clear; for i in {1..15}; do echo kept $i; done; printf '\\e[Ht''op\\e[K'; read x\r")
    window.until("top")
    detach(window)
    lines = window.lines()
    assert numbers(lines, "kept")[-13:] == list(range(3, 16))


@everywhere
@pytest.mark.parametrize("erases", [r"\e[3J", r"\ec", r"\e[H\e[2J\e[3J", r"\e]1337;ClearScrollback\a"])
def test_a_session_cannot_erase_the_users_history(own: Orbitctl, window: UsersWindow, erases: str) -> None:
    """What `clear` and `reset` print clears the session's screen and history, and leaves the window's."""
    run(window, "for i in {1..60}; do echo mine $i; done")
    attach(window, own, *ATTACH)
    run(window, rf"printf '{erases}'")
    detach(window)
    assert numbers(window.lines(), "mine") == list(range(1, 61))


@everywhere
def test_history_is_printed_once_into_a_window(own: Orbitctl, window: UsersWindow) -> None:
    """The second attach from a window brings only what has left the session's screen since the first."""
    attach(window, own, *ATTACH)
    run(window, "for i in {1..60}; do echo first $i; done")
    run(window, "for i in {1..60}; do echo second $i; done")
    detach(window)
    attach(window, own, *ATTACH)
    run(window, "for i in {1..60}; do echo third $i; done")
    detach(window)
    lines = window.lines()
    assert numbers(lines, "first") == list(range(1, 61))
    assert set(numbers(lines, "second")) == set(range(1, 61))
    assert len(numbers(lines, "second")) < 60 + 24  # the screen was shown twice
    assert numbers(lines, "third") == list(range(1, 61))


@everywhere
def test_another_window_gets_the_whole_history(own: Orbitctl, window: UsersWindow) -> None:
    """A window that has shown nothing of a session yet is printed all that the session keeps, beyond 1,000 lines."""
    own.ok("session", "send", "web", "for i in {1..1500}; do echo old $i; done", "--enter")
    attach(window, own, *ATTACH)
    run(window, "true", "again")
    detach(window)
    assert numbers(window.lines(), "old")[:1] == [1]


@everywhere
def test_a_stopped_client_leaves_the_window_to_the_shell(own: Orbitctl, window: UsersWindow) -> None:
    """What the shell shows while the client is stopped stays when that goes on, and so does the session's."""
    run(window, "set -m; for i in {1..5}; do echo mine $i; done")
    window.type("sh -c 'echo pid=$$.; exec \"$@\"' - ")
    attach(window, own, *ATTACH)
    pid = int(re.findall(rb"pid=(\d+)\.", window.output)[-1])
    run(window, "for i in {1..30}; do echo kept $i; done")
    os.kill(pid, signal.SIGTSTP)
    window.until("Stopped")
    window.until(PROMPT)
    run(window, "for i in {6..9}; do echo mine $i; done")
    own.ok("session", "send", "web", "for i in {31..60}; do echo kept $i; done", "--enter")
    window.type("fg\r")
    window.until("kept 60")
    run(window, "true", "again")
    detach(window)
    lines = window.lines()
    assert numbers(lines, "mine") == list(range(1, 10))
    found = numbers(lines, "kept")
    assert set(found) == set(range(1, 61))
    assert len(found) <= 60 + 2 * 24  # each time the screen


@everywhere
def test_what_scrolls_by_while_no_daemon_is_there_is_shown(
    own: Orbitctl, window: UsersWindow, daemon: DaemonProcess
) -> None:
    """After a restart the window has the lines of the outage, and not all the others once more."""
    attach(window, own, *ATTACH)
    run(window, "for i in {1..200}; do echo kept $i; done")
    os.mkfifo(own.home / "outage")
    window.type("read x < outage; for i in {201..260}; do echo kept $i; done; echo > outage; echo o''ver.\r")
    window.until("''ver.")
    daemon.kill()
    (own.home / "outage").write_text("go\n")
    assert (own.home / "outage").read_text() == "\n"
    daemon.start()
    window.until("over.")
    run(window, "true", "again")
    detach(window)
    found = numbers(window.lines(), "kept")
    assert set(found) == set(range(1, 261))
    assert len(found) <= 260 + 2 * 24


@everywhere
def test_a_program_that_ends_at_once_keeps_the_users_screen(own: Orbitctl, window: UsersWindow) -> None:
    """Whether it has ended before the attach or behind it, its output follows the user's lines."""
    run(window, "for i in {1..20}; do echo mine $i; done")
    window.type(f"{' '.join(own.command)} session run --name end -- echo hello; echo code=$?\r")
    window.until("code=0")
    lines = window.lines()
    assert numbers(lines, "mine") == list(range(1, 21))
    assert lines[lines.index("hello") + 1] == "[end ended: exit 0]"


def test_a_reader_writes_no_clipboard(own: Orbitctl) -> None:
    """OSC 52 reaches the terminal of a client that may type, and not that of one that looks."""
    copy = r"printf '\e]52;c;aGVsbG8=\a\e]2;co''pied\a'"
    with Window(own, *ATTACH, "--read-only") as reader, Window(own, *ATTACH) as writer:
        reader.until(PROMPT)
        writer.until(PROMPT)
        writer.type(f"{copy}\r")
        writer.until("\x1b]52;c;aGVsbG8=\x07")
        reader.until("copied\x07")
        assert b"\x1b]52;" not in reader.output


def test_lines_that_were_left_out_are_told(own: Orbitctl) -> None:
    """A window that was not read for long says in its history how many lines are not there, and what shows them."""
    with EmulatorWindow(own, *ATTACH) as window:
        window.until(PROMPT)
        os.mkfifo(own.home / "printed")
        window.type("seq 400000; echo > printed; echo o''ver.\r")
        window.until("1\r\n2\r\n3\r\n")
        (own.home / "printed").read_text()
        window.until(rb"\[\d+ lines are not here; `orbitctl session screen web --scrollback` shows what is kept\]")
        window.until("over.")
        window.type(DETACH)
        assert window.end() == 0


def test_a_message_about_an_outage_erases_nothing(own: Orbitctl) -> None:
    """The line that says that the daemon has gone takes no line from the window."""
    with EmulatorWindow(own, *ATTACH) as window:
        window.until(PROMPT)
        run(window, "for i in {1..30}; do echo kept $i; done")
        own.ok("daemon", "stop")
        window.until("orbitd has gone")
        window.type(DETACH)
        assert window.end() == 0
        assert numbers(window.lines(), "kept") == list(range(1, 31))
        assert "[detached from web]" in window.lines()
