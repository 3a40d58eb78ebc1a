"""The programs that are run for real, what is typed into them, and what tells that they have come so far."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct


class Program(Struct, frozen=True, kw_only=True):
    """A program: its command, and what is typed into it once a text is on its screen."""

    command: str
    steps: tuple[tuple[str, str], ...]
    env: dict[str, str] = {}


SHOW = f"{sys.executable} {Path(__file__).with_name('show.py')}"

PROGRAMS = {
    "bash": Program(
        command="bash --norc --noprofile",
        env={"PS1": "$ "},
        steps=(
            ("$", "printf '\\e[1;31mbold red\\e[0m \\e[4:3mcurly\\e[m\\n'; seq 5 | tac\r"),
            ("\n1", "echo left over; echo h''ere\r"),
            ("\nhere", "not yet entered\x1b[D\x1b[D"),
        ),
    ),
    "vim": Program(
        command="vim -u NONE -i NONE -N -c 'syntax on' -c 'set number hlsearch ruler laststatus=2' code.py",
        steps=(
            ("code.py", "/def\r:split\r"),
            ("code.py", ":echo 's' . 'plit'\r"),
            ("split", "jVjj"),
            ("VISUAL LINE", ""),
        ),
    ),
    "less": Program(command="less -R colours.txt", steps=(("colour 0", "/colour 150\r"), ("colour 150", ""))),
    "htop": Program(command="htop -d 100", steps=(("F10", "\x1b[B\x1b[B"), ("Quit", ""))),
    "mc": Program(command="mc -u -x --nosubshell", steps=(("Quit", "\x1b[B\x1b[B"), ("Quit", ""))),
    "nano": Program(command="nano note.py", steps=(("Read 400 lines", "typed just now"), ("typed just now", ""))),
    "man": Program(command="man ./orbit.1", env={"PAGER": "less"}, steps=(("ORBIT", " "), ("SEE ALSO", ""))),
    "python": Program(
        command=f"{sys.executable} -q",
        env={"PYTHON_HISTORY": "/dev/null"},
        steps=((">>>", "print('é' * 30)\r"), ("é" * 30, "for number in range(3):\r"), ("...", "    pass")),
    ),
    "git log": Program(
        command="git log --graph --stat --color=always",
        env={"GIT_PAGER": "less -R", "GIT_CONFIG_NOSYSTEM": "1"},
        steps=(("commit number 29", "/number 20\r"), ("number 20", "")),
    ),
    "true colour": Program(command=f"{SHOW} true-colour", steps=(("shown", ""),)),
    "characters": Program(command=f"{SHOW} characters", steps=(("shown", ""),)),
    "a long line": Program(command=f"{SHOW} long-line", steps=(("shown", ""),)),
    "modes": Program(command=f"{SHOW} modes", steps=(("shown", ""),)),
    "tmux": Program(
        command="tmux -S inner.sock -f tmux.conf new-session 'PS1=\"% \" sh'",
        steps=(("%", "\x02%"), ("│", "echo o''ne; printf '\\033[45mtwo\\033[m\\n'\r"), ("two", "")),
    ),
}

NEEDED = ("vim", "less", "htop", "mc", "nano", "man", "git", "tmux")
"""Those that a minimal machine lacks."""

MAN_PAGE = """.TH ORBIT 1 2026-01-01
.SH NAME
orbit \\- a page of our own
.SH DESCRIPTION
.B Bold
and
.I underlined
text.
{paragraphs}
.SH SEE ALSO
.BR orbitctl (1)
"""


def prepare(place: Path) -> None:
    """Write the files that the programs look at, and a repository where there is a git to look at it with."""
    for name in ("code.py", "note.py"):
        text = "".join(f"def number_{n}():\n    return {n}  # a comment\n" for n in range(200))
        (place / name).write_text(text)
    (place / "colours.txt").write_text("".join(f"\x1b[38;5;{n}mcolour {n}\x1b[0m and none\n" for n in range(256)))
    (place / "orbit.1").write_text(MAN_PAGE.format(paragraphs=".PP\nA paragraph.\n" * 12))
    (place / "tmux.conf").write_text(
        "set -g status-right ''\nset -g default-terminal tmux-256color\nset -g escape-time 0\n"
        "set -g assume-paste-time 0\n"  # else its prefix is taken for pasted text where it is typed within 1 ms
        "set -g exit-unattached on\n"  # its server is no child of the session, and must end with the client
    )
    if shutil.which("git") is None:
        return
    run = {"cwd": place, "check": True, "env": {**os.environ, "HOME": str(place)}}
    subprocess.run(["git", "init", "-q", "-b", "main"], **run)
    subprocess.run(["git", "fast-import", "--quiet"], input="".join(_commits()).encode(), **run)


def _commits() -> Iterator[str]:
    """Yield thirty commits as git-fast-import(1) reads them."""
    for number in range(30):
        said, text = f"commit number {number}", "line\n" * (number + 1)
        yield f"commit refs/heads/main\ncommitter Ada <ada@example.org> {1767225600 + number} +0000\n"
        yield f"data {len(said)}\n{said}\nM 644 inline file\ndata {len(text)}\n{text}\n"


def recorded(command: str, log: Path) -> str:
    """Return a command that runs another one and writes down what it writes."""
    recorder = Path(__file__).with_name("recorder.py")
    return f"{sys.executable} {recorder} {shlex.quote(str(log))} {command}"
