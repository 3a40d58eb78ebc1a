"""Real programs on a real PTY: saved and restored, and drawn on another terminal, at any moment of their lives."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from needs import needs
from orbit_protocol.terminal_reset import RESET
from orbitd.screens.emulator import Emulator
from terminal_support import shown

SIZE = (90, 30)
WAIT_SECS = 20.0
LAUNCH = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execvp(sys.argv[1], sys.argv[1:])"


class Program:
    """A program in a terminal that an emulator shows and answers for.

    Args:
        arguments: The program and its arguments.
        home: Its home and current folder.
    """

    def __init__(self, arguments: list[str], home: Path) -> None:
        self.emulator = Emulator(*SIZE)
        self.followers: list[Emulator] = []
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", SIZE[1], SIZE[0], 0, 0))
        environment = {"PATH": os.environ["PATH"], "HOME": str(home), "TERM": "xterm-256color", "LANG": "C.UTF-8"}
        environment |= {"PS1": "\\[\\e[1;32m\\]shell\\[\\e[m\\]$ ", "LESSHISTFILE": "-", "GIT_CONFIG_NOSYSTEM": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", LAUNCH, *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=home,
            env=environment,
            start_new_session=True,
        )
        os.close(slave)

    def close(self) -> None:
        os.close(self._master)
        self._process.kill()
        self._process.wait()
        for emulator in (self.emulator, *self.followers):
            emulator.close()

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def _read(self) -> bool:
        """Show the next output, here and on every follower; say whether there was any before the end."""
        ready, _, _ = select.select([self._master], [], [], WAIT_SECS)
        assert ready, self.emulator.screen().decode()
        try:
            data = os.read(self._master, 65536)
        except OSError:  # Linux's way to say that the program's side is closed
            return False
        for emulator in (self.emulator, *self.followers):
            emulator.feed(data)
        if replies := self.emulator.replies():
            os.write(self._master, replies)
        return True

    def wait_for(self, *texts: str) -> None:
        """Read until every text is on the screen."""
        deadline = time.monotonic() + WAIT_SECS
        while not all(text in self.emulator.screen().decode() for text in texts):
            assert time.monotonic() < deadline, self.emulator.screen().decode()
            assert self._read(), self.emulator.screen().decode()

    def finish(self, keys: str) -> None:
        """Type what ends the program, and read all that it still says."""
        self.type(keys)
        while self._read():
            pass


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with something to look at."""
    source = "\n".join(
        f'def f{number}(x="ä你😀"):  # comment {number}\n    return x + {number}' for number in range(60)
    )
    (tmp_path / "code.py").write_text(source)
    (tmp_path / "colour.txt").write_text("".join(f"\x1b[38;2;{n};9;99;4{n % 8}mline {n}\x1b[m\n" for n in range(200)))
    return tmp_path


@pytest.fixture
def start(home: Path) -> Iterator[Callable[..., Program]]:
    """Start programs that end with the test."""
    programs: list[Program] = []

    def _start(*arguments: str) -> Program:
        programs.append(Program(list(arguments), home))
        return programs[-1]

    yield _start
    for program in programs:
        program.close()


def copies_are_equal(program: Program) -> None:
    """Restore the terminal and draw it elsewhere, compare, and let both copies follow what comes."""
    original = program.emulator
    restored, drawn = Emulator.decode(original.encode()), Emulator(*original.size)
    drawn.feed(RESET + original.repaint())
    program.followers += [restored, drawn]
    followers_are_equal(program)


def followers_are_equal(program: Program) -> None:
    original = program.emulator.dump()
    for number, follower in enumerate(program.followers):
        exact = number % 2 == 0
        assert follower.dump() == original if exact else shown(follower.dump()) == shown(original)


def checked(program: Program, *steps: tuple[str, tuple[str, ...]], end: str) -> None:
    """Check the copies after every step (keys, and the texts that then appear), and all of them after the end."""
    for keys, texts in steps:
        program.type(keys)
        program.wait_for(*texts)
        copies_are_equal(program)
    program.finish(end)
    followers_are_equal(program)


@needs("vim")
def test_vim(start: Callable[..., Program]) -> None:
    """Vim with syntax, numbers and a split window; behind it the shell comes back."""
    program = start("bash", "--norc", "-i")
    program.wait_for("shell$")
    program.type("vim -u NONE -N '+syntax on' '+set nu mouse=a' code.py\r")
    program.wait_for("def f0", "  1 ")
    steps = ((":split\r\x06", ("code.py",)), ("Go typed\x1b", ("typed",)), (":q!\r:q!\r", ("shell$",)))
    checked(program, *steps, end="exit\r")


@needs("less")
def test_less(start: Callable[..., Program]) -> None:
    """Less with 24-bit colours, scrolled."""
    program = start("less", "-R", "colour.txt")
    program.wait_for("line 5")
    checked(program, (" ", ("line 40",)), ("/line 99\r", ("line 99",)), end="q")


@needs("htop")
def test_htop(start: Callable[..., Program]) -> None:
    """The process list, and its help."""
    program = start("htop")
    program.wait_for("PID", "F10")
    checked(program, ("", ("PID",)), ("h", ("htop",)), end="qq")


@needs("mc")
def test_mc(start: Callable[..., Program]) -> None:
    """Midnight Commander with line drawing, its menu and its viewer."""
    program = start("mc", "-u")
    program.wait_for("code.py", "10Quit")
    checked(program, ("", ("code.py",)), ("\x1b[20~", ("File", "Command")), ("\x1b\x1b", ("10Quit",)), end="\x1b[21~")


@needs("nano")
def test_nano(start: Callable[..., Program]) -> None:
    """An editor, before and after typing."""
    program = start("nano", "-I", "code.py")
    program.wait_for("GNU nano", "def f0")
    checked(program, ("", ("def f0",)), ("hello", ("hellodef f0",)), end="\x18n")


@needs("man")
def test_man(start: Callable[..., Program], home: Path) -> None:
    """A manual page with bold and underlined text, in its pager."""
    (home / "page.1").write_text(
        ".TH PAGE 1\n.SH NAME\npage \\- a \\fBbold\\fR page\n" + ".PP\n\\fIunder\\fR text\n" * 60
    )
    program = start("man", "-l", "page.1")
    program.wait_for("NAME", "bold")
    checked(program, ("", ("NAME",)), (" ", ("text",)), end="q")


def test_python(start: Callable[..., Program]) -> None:
    """A Python prompt with readline."""
    program = start(sys.executable, "-q")
    program.wait_for(">>>")
    # Only at a prompt is Ctrl-D a key: before, the terminal is not raw, and takes it away.
    error = ("1/0\r", ("division by zero\n>>>",))
    checked(program, ("'ab' * 90 # 你好\r", ("abab",)), error, end="\x04")


@needs("git", "less")
def test_git_log(start: Callable[..., Program], home: Path) -> None:
    """The history in colour, through its pager."""
    identity = ["-c", "user.name=T", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main"]
    subprocess.run(["git", *identity, "init", "-q"], cwd=home, check=True)
    for number in range(20):
        message = f"change {number}"
        subprocess.run(["git", *identity, "commit", "-q", "--allow-empty", "-m", message], cwd=home, check=True)
    program = start("git", "log", "--color=always", "--graph", "--stat")
    program.wait_for("change 19")
    checked(program, ("", ("change 19",)), (" ", ("change 1",)), end="q")


def test_bash(start: Callable[..., Program]) -> None:
    """A shell with a coloured prompt, long lines, history and completion."""
    program = start("bash", "--norc", "-i")
    program.wait_for("shell$")
    steps = (
        ("cat colour.txt; echo do''ne\r", ("done",)),
        ("echo " + "wide你 " * 30, ("wide你",)),
        ("\x15ls --color=always /usr; echo en''d\r", ("end",)),
    )
    checked(program, *steps, end="\x15exit\r")


@needs("tmux")
def test_tmux(start: Callable[..., Program], home: Path) -> None:
    """Another multiplexer inside, with panes, which uses scroll regions and the alternate screen."""
    socket, settings = str(home / "s"), home / "tmux.conf"
    # What is typed within 1 ms of a key, or of an answer of the terminal, is taken for pasted text, the prefix too.
    settings.write_text("set -g assume-paste-time 0\n")
    program = start("tmux", "-S", socket, "-f", str(settings), "new", "env PS1='shell$ ' bash --norc -i")
    try:
        program.wait_for("shell$", "[0]")
        checked(program, ("\x02%", ("│",)), ("seq 100\r", ("99",)), end="tmux kill-server\r")
    finally:
        subprocess.run(["tmux", "-S", socket, "kill-server"], capture_output=True, check=False)
