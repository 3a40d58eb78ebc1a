"""What real shells print: bash on a real terminal, given ordinary commands, saved as it goes on.

The commands of a session and their order follow from its number; what they print is what
this machine's programs print about Python's own library and about a small git repository
made of it. A snapshot is what a terminal app has at that moment: the bytes that drew the
last `ROWS` lines as the buffer, and all that came before as the scrollback.
"""

from __future__ import annotations

import fcntl
import os
import pty
import random
import select
import shutil
import signal
import struct
import subprocess
import sysconfig
import termios
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROWS, COLS = 40, 120
COMMANDS_A_STEP = 3
SHELLS_AT_ONCE = 4
PROMPT_SECS = 30.0
PROMPT_MARK = b"\x1b]133;B\x07"  # the end of a prompt: what shell integrations print
GIT_FILES = 24
LIBRARY = Path(sysconfig.get_path("stdlib"))
PACKAGES = ("asyncio", "email", "json", "logging", "unittest", "xml", "http", "importlib", "concurrent", "sqlite3")
MODULES = ("argparse.py", "ast.py", "bisect.py", "calendar.py", "cmd.py", "csv.py", "dis.py", "functools.py")
WORDS = ("return", "raise", "self.close", "import", "class ", "except", "timeout", "lambda")
TABLE = (
    "import random; random.seed(SEED); "
    "[print('\\033[3%dm%-14s\\033[0m %8.3f ms %s' % (i % 7, 'worker-%02d' % i, random.random() * 90, "
    "'#' * random.randrange(30))) for i in range(18)]"
)


@dataclass(frozen=True)
class Screen:
    """One snapshot's bytes."""

    terminal_buffer: bytes
    scrollback: bytes

    @property
    def raw(self) -> bytes:
        """Everything, oldest first."""
        return self.scrollback + self.terminal_buffer


def record(folder: Path, sessions: int, snapshots: int) -> Iterator[list[Screen]]:
    """Run shells and yield each one's snapshots, oldest first.

    Args:
        folder: Where the repository is made.
        sessions: How many shells.
        snapshots: How many moments of each.
    """
    repository = folder / "project"
    make_repository(repository)
    for start in range(0, sessions, SHELLS_AT_ONCE):
        shells = [_Shell(repository, number) for number in range(start, min(start + SHELLS_AT_ONCE, sessions))]
        try:
            yield from _evolve(shells, snapshots)
        finally:
            for shell in shells:
                shell.close()


def _evolve(shells: list[_Shell], snapshots: int) -> Iterator[list[Screen]]:
    screens: list[list[Screen]] = [[] for _ in shells]
    for _ in range(snapshots):
        for _ in range(COMMANDS_A_STEP):
            for shell in shells:
                shell.type_next()
            for shell in shells:
                shell.wait_for_prompt()
        for shell, kept in zip(shells, screens, strict=True):
            kept.append(shell.screen())
    yield from screens


class _Shell:
    """One interactive bash on a terminal of its own.

    Args:
        folder: Where it starts.
        number: Decides what it is given.
    """

    def __init__(self, folder: Path, number: int) -> None:
        self._random = random.Random(number)
        self._output = bytearray()
        self._awaited = 1
        self._pid, self._master = pty.fork()
        if self._pid == 0:
            os.chdir(folder)
            os.execvpe("bash", ["bash", "--norc", "--noprofile", "-i"], _shell_environment(number))
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLS, 0, 0))
        self.wait_for_prompt()

    def type_next(self) -> None:
        """Type the next command."""
        self._awaited += 1
        os.write(self._master, self._command().encode() + b"\n")

    def wait_for_prompt(self) -> None:
        """Read until the shell asks for more. Raises: TimeoutError."""
        while self._output.count(PROMPT_MARK) < self._awaited:
            if not select.select([self._master], [], [], PROMPT_SECS)[0]:
                raise TimeoutError(f"no prompt after {bytes(self._output[-200:])!r}")
            self._output += os.read(self._master, 1 << 16)

    def screen(self) -> Screen:
        """Return what a terminal would save now."""
        cut = len(self._output)
        for _ in range(ROWS):
            cut = max(self._output.rfind(b"\n", 0, cut), 0)
        return Screen(bytes(self._output[cut:]), bytes(self._output[:cut]))

    def close(self) -> None:
        """End the shell."""
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._master)

    def _command(self) -> str:
        pick, some = self._random.choice, self._random.randrange
        package, module = LIBRARY / pick(PACKAGES), LIBRARY / pick(MODULES)
        table = TABLE.replace("SEED", str(some(1_000_000)))
        return pick(
            (
                f"ls -la --color=always {package}",
                f"grep -rn --include=*.py --color=always '{pick(WORDS)}' {package} | head -n {some(10, 40)}",
                f"git --no-pager log --color=always --stat -n 5 --skip {some(GIT_FILES - 5)}",
                f"git --no-pager show --color=always HEAD~{some(GIT_FILES - 1)} | head -n {some(20, 60)}",
                f'python3 -I -S -c "{table}"',
                f"sed -n {some(1, 80)},{some(90, 120)}p {module}",
                f"for i in $(seq 0 {some(4, 9)} 100); do printf '\\r\\e[33mbuilding\\e[0m %3d %%' $i; done; echo",
                f"wc -l {package}/*.py",
                f"cd ~ && cd - && git status --short --branch && echo \\e[32m{some(1_000_000)}\\e[0m",
            )
        )


def _shell_environment(number: int) -> dict[str, str]:
    who, where = f"\\[\\e[1;32m\\]me@host{number}\\[\\e[0m\\]", "\\[\\e[1;34m\\]\\w\\[\\e[0m\\]"
    prompt = f"\\[\\e]133;A\\a\\]{who}:{where}\\$ \\[\\e]133;B\\a\\]"
    path = os.environ.get("PATH", os.defpath)
    return {"PATH": path, "HOME": "/", "TERM": "xterm-256color", "LANG": "C.UTF-8", "PS1": prompt, "HISTFILE": ""}


def make_repository(folder: Path) -> None:
    """Commit modules of Python's library one by one, each at its own fixed moment."""
    folder.mkdir()
    if shutil.which("git") is None:
        return  # what `git` then answers in the shells is real too
    _git(folder, 0, "init", "--quiet")
    for number, source in enumerate(sorted(LIBRARY.glob("[a-f]*.py"))[:GIT_FILES]):
        shutil.copy(source, folder)
        _git(folder, number, "add", source.name)
        _git(folder, number, "commit", "--quiet", "-m", f"Add {source.stem}\n\nIts docstring says what it does.")


def _git(folder: Path, number: int, *arguments: str) -> None:
    moment = f"2026-01-{number + 1:02d}T12:00:00+0000"
    who = {f"GIT_{role}_{field}": value for role in ("AUTHOR", "COMMITTER") for field, value in _PERSON.items()}
    alone = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull, "HOME": str(folder)}
    dates = {"GIT_AUTHOR_DATE": moment, "GIT_COMMITTER_DATE": moment}
    environment = {"PATH": os.environ.get("PATH", os.defpath), **who, **alone, **dates}
    subprocess.run(["git", *arguments], cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)


_PERSON = {"NAME": "A. Person", "EMAIL": "person@example.org"}
