"""What real programs draw: each run on a terminal of its own, typed at, and read until it shows what is awaited."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from needs import missing, require
from support import WAIT_SECS

ROWS, COLS = 40, 120
ENVIRONMENT = {
    "TERM": "xterm-256color",
    "LANG": "C.UTF-8",
    "PS1": "\\[\\e[1;32m\\]me\\[\\e[0m\\]:\\w\\$ ",
    "GIT_PAGER": "cat",
}


@dataclass(frozen=True)
class Program:
    """A program to watch.

    Args:
        command: What is run.
        steps: What is typed, and what must be drawn before the next is typed.
        drawn: What its screen must hold to be worth the test.
        needs: The programs that a minimal machine lacks.
    """

    command: list[str]
    steps: list[tuple[bytes, bytes]]
    drawn: list[bytes]
    needs: tuple[str, ...] = ()


BASH = ["bash", "--norc", "--noprofile", "-i"]
EMOJI = "\\U1F600\\U1F468\\u200D\\U1F469\\u200D\\U1F467"
WIDE = f"printf '\\u65e5\\u672c\\u8a9e {EMOJI} e\\u0301 \\U1F1E9\\U1F1EA | %s\\n' wi''de"

PROGRAMS = {
    "bash with colours": Program(
        BASH,
        [(b"printf '\\033[38;5;208mdy\\033[48;2;1;2;3med\\033[0m\\n'; echo en''d\n", b"\r\nend\r\n")],
        [b"\x1b[38;5;208m", b"\x1b[48;2;1;2;3m", b"\x1b[1;32mme"],
    ),
    "ls": Program(BASH, [(b"ls -la --color=always; echo en''d\n", b"\r\nend\r\n")], [b"\x1b[01;34m", b"folder"]),
    "git log": Program(
        BASH,
        [(b"git log --color=always --stat; echo en''d\n", b"\r\nend\r\n")],
        [b"\x1b[33mcommit ", b"first line"],
        ("git",),
    ),
    "vim": Program(
        ["vim", "-u", "NONE", "-i", "NONE", "-n", "story.txt"],
        [(b":set number\r", b"3 "), (b"ityped\x1b", b"typed")],
        [b"\x1b[?1049h", b"once upon"],
        ("vim",),
    ),
    "a Python prompt": Program(
        ["python3", "-q", "-S", "-E", "-s"], [(b"print('\\N{snowman}' * 3)\n", "☃☃☃".encode())], [b">>> "]
    ),
    "wide characters and emoji": Program(
        BASH, [(WIDE.encode() + b"\n", b"| wide\r\n")], ["日本語 😀👨\u200d👩\u200d👧 e\u0301 🇩🇪".encode()]
    ),
    "bytes that are no text": Program(
        BASH, [(b"printf 'a\\000b\\377\\376\\300\\200c'; echo en''d\n", b"cend\r\n")], [b"a\0b\xff\xfe\xc0\x80c"]
    ),
    "ten thousand lines": Program(
        BASH,
        [
            (
                b"for i in {1..10000}; do printf '\\033[3%dmline %d\\033[0m\\n' $((i % 8)) $i; done\n",
                b"line 10000\x1b[0m",
            )
        ],
        [b"\x1b[31mline 1\x1b[0m\r\n", b"\x1b[37mline 9999\x1b[0m\r\n"],
    ),
}


def record(program: Program, folder: Path) -> bytes:
    """Run a program in a folder and return all that it drew."""
    require(*program.needs)
    with _running(program.command, folder) as master:
        drawn = bytearray(os.read(master, 65536))  # it is there
        for typed, awaited in program.steps:
            start = len(drawn)
            os.write(master, typed)
            while awaited not in drawn[start:]:
                assert select.select([master], [], [], WAIT_SECS)[0], f"{awaited!r} is not in {bytes(drawn[-500:])!r}"
                drawn += os.read(master, 65536)
    for text in program.drawn:
        assert text in drawn
    return bytes(drawn)


@contextlib.contextmanager
def _running(command: list[str], folder: Path) -> Iterator[int]:
    pid, master = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.execvpe(command[0], command, {"PATH": os.environ["PATH"], "HOME": str(folder), **ENVIRONMENT})
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLS, 0, 0))
    try:
        yield master
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(master)


def furnish(folder: Path) -> None:
    """Put something to look at into a folder."""
    (folder / "folder").mkdir(parents=True)
    (folder / "story.txt").write_text("once upon\na time\nthe end\n")
    if missing("git"):
        return
    who = {f"GIT_{role}_{field}": "a@example.org" for role in ("AUTHOR", "COMMITTER") for field in ("NAME", "EMAIL")}
    alone = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull, "PATH": os.environ["PATH"], **who}
    for words in (["init", "-q"], ["add", "story.txt"], ["commit", "-q", "-m", "first line"]):
        subprocess.run(["git", *words], cwd=folder, env=alone, check=True, capture_output=True)
