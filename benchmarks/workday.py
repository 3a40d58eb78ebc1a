"""A day of work, recorded from real programs on a terminal: what films are measured with.

    python -m benchmarks.workday FILE               about four minutes of recording, some 12 MB of output
    python -m benchmarks.workday --small FILE       a minute and 1 MB: the fixture of tests/history
    python -m benchmarks.workday --real-time FILE   htop and the agent for ten minutes each, as in a day

In one bash: commands with mistakes and corrections, vim, git with its pager, a build, htop, Python, less, man, and an
agent that redraws a block of the primary screen all the time; the window changes its size in between. What is recorded,
and how it is read, is in tests/history_support.py. A program that is not installed is left out, and bash says so in the
recording. What is typed and the files are the same each time; times, and what htop and man show, are the machine's.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import shutil
import signal
import struct
import sys
import tempfile
import termios
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click

from benchmarks.bench import HERE, Bench
from benchmarks.corpus import make_repository
from orbitd.screens.emulator import Emulator

sys.path.insert(0, str(HERE.parent / "tests"))

from history_support import SMALL_DAY, Day, Size, Step, read_day, timestamp, write_day
from live.sessions import drawn

__all__ = ["Day", "drawn", "read_day", "record_for", "timestamp"]

SIZE = (120, 40)
PROMPT = "$ "
KEY_SECS = 0.03
WAIT_SECS = 60.0
LOGGED = ("request served", "timeout of a peer", "cache filled", "connection accepted")
WATCH = """
alone='unshare --user --map-root-user --pid --fork --mount-proc'
if $alone true 2>/dev/null; then
  exec $alone bash -c '
    for i in $(seq 24); do (exec -a worker-$i sleep 9999) & done
    while :; do sleep 0.2; ls -laR /usr/share/doc >/dev/null; done &
    htop -d "$1"' bash "$1"
fi
exec htop -d "$1"
"""
"""Runs htop beside programs of our own: where it can, it sees no others, which are nobody's business in a fixture."""


@dataclass(frozen=True)
class Amounts:
    """How much of each there is.

    Args:
        rounds: How often the day begins again with other files.
        build_lines: What the build prints.
        pages: How many pages are looked at, of each thing that has pages.
        htop_secs: How long htop runs.
        htop_tenths: How often it draws, in tenths of a second.
        agent_secs: How long the agent works.
    """

    rounds: int
    build_lines: int
    pages: int
    htop_secs: float
    htop_tenths: int
    agent_secs: float


FULL = Amounts(rounds=2, build_lines=100_000, pages=40, htop_secs=20, htop_tenths=5, agent_secs=15)
SMALL = Amounts(rounds=1, build_lines=8_000, pages=12, htop_secs=4, htop_tenths=5, agent_secs=6)
REAL_TIME = Amounts(rounds=1, build_lines=100_000, pages=120, htop_secs=600, htop_tenths=15, agent_secs=600)


class Terminal:
    """A terminal with bash in it, and what was shown.

    Args:
        folder: The home, and where bash starts.

    Attributes:
        steps: What was recorded so far.
    """

    def __init__(self, folder: Path) -> None:
        self.steps: list[Step] = [(0, SIZE)]
        self._begun = time.monotonic()
        self._emulator = Emulator(*SIZE)
        self._pid, self._master = pty.fork()
        if self._pid == 0:
            try:
                os.chdir(folder / "project")
                fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", SIZE[1], SIZE[0], 0, 0))
                os.execvpe("bash", ["bash", "--norc", "--noprofile", "-i"], _environment(folder))
            finally:
                os._exit(127)
        self.wait(PROMPT)

    def close(self) -> None:
        """End bash, and with its terminal what it runs."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._master)
        self._emulator.close()

    def look(self, secs: float) -> None:
        """Only look, for a while."""
        until = time.monotonic() + secs
        while (left := until - time.monotonic()) > 0:
            self._read(left)

    def wait(self, mark: str, secs: float = WAIT_SECS) -> None:
        """Look until a text is on the screen; a prompt, in front of the cursor. Raises: TimeoutError."""
        until = time.monotonic() + secs
        while not self._shows(mark):
            if time.monotonic() > until:
                raise TimeoutError(f"no {mark!r} in:\n{self._emulator.screen().decode()}")
            self._read(0.2)
        self.look(KEY_SECS)

    def _shows(self, mark: str) -> bool:
        if mark == PROMPT:
            return self._emulator.searchable()[1].endswith(PROMPT.encode())
        return mark in self._emulator.screen().decode()

    def keys(self, text: str, secs: float = KEY_SECS) -> None:
        """Press keys one by one; a sequence of ESC is one key."""
        rest = text
        while rest:
            key = rest[:3] if rest.startswith("\x1b[") else rest[:1]
            os.write(self._master, key.encode())
            rest = rest[len(key) :]
            self.look(secs)

    def run(self, command: str, secs: float = 0.0) -> None:
        """Type a command that takes so long, and wait for the prompt behind what it prints."""
        self.keys(command + "\r", KEY_SECS / 3)
        self.wait(PROMPT, secs + WAIT_SECS)

    def resize(self, size: Size) -> None:
        """Change the size of the window, once nothing more comes."""
        self.look(0.2)
        self._emulator.resize(*size)
        self.steps.append((self._milliseconds(), size))
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
        self.look(0.2)

    def _milliseconds(self) -> int:
        return int((time.monotonic() - self._begun) * 1000)

    def _read(self, secs: float) -> None:
        if not select.select([self._master], [], [], secs)[0]:
            return
        data = os.read(self._master, 1 << 16)
        self.steps.append((self._milliseconds(), data))
        self._emulator.feed(data)
        if answers := self._emulator.replies():
            os.write(self._master, answers)


def _environment(folder: Path) -> dict[str, str]:
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(folder),
        "TERM": "xterm-256color",
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "PS1": f"\\[\\e[1;32m\\]me@work\\[\\e[m\\]:\\[\\e[1;34m\\]\\W\\[\\e[m\\]{PROMPT}",
        "HISTFILE": "",
        "PAGER": "less",
        "GIT_PAGER": "less -R",
        "LESS": "R",  # without it git has less end by itself where all fits on the screen
        "LESSHISTFILE": "-",
        "GIT_CONFIG_NOSYSTEM": "1",
        "PYTHON_HISTORY": "/dev/null",
        **{
            f"GIT_{role}_{field}": "a.person@example.org"
            for role in ("AUTHOR", "COMMITTER")
            for field in ("NAME", "EMAIL")
        },
    }


def _shell(terminal: Terminal, amounts: Amounts, number: int) -> None:
    terminal.run("ls -la --color=always")
    terminal.keys("gti statsu\r")
    terminal.wait(PROMPT)
    terminal.keys("\x1b[A" + "\x7f" * 10 + "git statsu" + "\x7f\x7fus\r")
    terminal.wait(PROMPT)
    terminal.keys("cat nothing-here-and-too-lon\x15")
    terminal.run(f"grep -n --color=always 'def ' *.py | sort -t: -k2n | tail -n {60 + number}")
    terminal.keys("echo argp\x17\x15wc -l arg\t\r")
    terminal.wait(PROMPT)
    terminal.run("for i in $(seq 0 2 100); do printf '\\r\\e[33mfetching\\e[m %3d %%' $i; sleep 0.01; done; echo")
    terminal.run("find . -name '*.py' | xargs wc -l | sort -n")
    terminal.keys("clear\r")
    terminal.wait(PROMPT)
    terminal.run("printf 'résumé 画面 🚀 %s\\n' one two three")
    terminal.keys("\x0c")
    terminal.wait(PROMPT)


def _editor(terminal: Terminal, amounts: Amounts, number: int) -> None:
    file = ("argparse.py", "calendar.py", "ast.py")[number % 3]
    options = "-c 'syntax on' -c 'set number hlsearch ruler laststatus=2 mouse='"
    terminal.keys(f"vim -u NONE -i NONE -N {options} {file}\r")
    terminal.wait("Top")
    for page in range(amounts.pages):
        terminal.keys("\x06" if page % 5 else "\x02", KEY_SECS * 3)
    terminal.keys("gg/def _\rnnn")
    terminal.keys("oif self.is_new:  # tpyo\x7f\x7f\x7f\x7ftypo\r    return Noen\x7f\x7fne\x1b")
    terminal.keys("ggO# A line at the top, typed word by word, as one does.\x1b")
    terminal.keys("jjddpuu\x12Vjjj>" + "j" * 30 + "k" * 10)
    terminal.keys(":split\r\x17j\x06\x06:q\r")
    terminal.keys(":%s/self/this/g\r")
    terminal.look(0.3)
    terminal.keys("u:set nonumber\r:wq\r")
    terminal.wait(PROMPT)


def _git(terminal: Terminal, amounts: Amounts, number: int) -> None:
    terminal.keys("git log --stat --color=always\r")
    terminal.look(0.4)
    terminal.keys(" " * (amounts.pages // 3) + "bb/Add\rnnq", KEY_SECS * 2)
    terminal.wait(PROMPT)
    terminal.keys("git diff --color=always\r")
    terminal.look(0.4)
    terminal.keys(" " * 6 + "gq", KEY_SECS * 2)
    terminal.wait(PROMPT)
    terminal.run(f"git commit -qam 'Change what round {number} needs' && git --no-pager log --oneline --graph -n 20")
    terminal.keys("git log -p --color=always\r")
    terminal.look(0.4)
    terminal.keys("d" * (amounts.pages // 2) + "q", KEY_SECS * 2)
    terminal.wait(PROMPT)


def _build(terminal: Terminal, amounts: Amounts, number: int) -> None:
    if shutil.which("gcc") and shutil.which("make"):
        terminal.run("make --no-print-directory -C ../native -B 2>&1")
    lines = amounts.build_lines if number == 0 else amounts.build_lines // 20
    terminal.run(f"python3 ../programs.py build {lines}")


def _htop(terminal: Terminal, amounts: Amounts, number: int) -> None:
    terminal.keys(f"sh ../watch.sh {amounts.htop_tenths}\r")
    terminal.look(amounts.htop_secs / 2)
    terminal.keys("\x1b[B" * 4 + "M")
    terminal.look(amounts.htop_secs / 2)
    terminal.keys("q")
    terminal.wait(PROMPT)


def _python(terminal: Terminal, amounts: Amounts, number: int) -> None:
    terminal.keys("python3 -q\r")
    terminal.wait(">>>")
    terminal.keys(f"import json, random\rrandom.seed({number})\r")
    terminal.keys("for i in range(40): print(i, random.random(), '#' * random.randrange(60))\r\r")
    terminal.keys("def f(x):\r    retrun x\x7f\x7f\x7f\x7f\x7f\x7f\x7f\x7freturn x / 0\r\r")
    terminal.keys("f(1)\rprint(json.dumps({str(i): [i] * 8 for i in range(30)}, indent=1))\r")
    terminal.look(0.2)
    terminal.keys("help(json.dumps)\r")
    terminal.look(0.5)
    terminal.keys("  q\x04", KEY_SECS * 3)
    terminal.wait(PROMPT)


def _pager(terminal: Terminal, amounts: Amounts, number: int) -> None:
    terminal.keys("less ../large.log\r")
    terminal.look(0.3)
    terminal.keys(" " * amounts.pages + "jjjjkkkk" + "G" + "b" * 4 + "/timeout\rnnnngq", KEY_SECS)
    terminal.wait(PROMPT)


def _manual(terminal: Terminal, amounts: Amounts, number: int) -> None:
    terminal.keys("man bash\r")
    terminal.look(1.5)
    terminal.keys(" " * amounts.pages + "/SHELL BUILTIN\rn  q", KEY_SECS * 2)
    terminal.wait(PROMPT)


def _agent(terminal: Terminal, amounts: Amounts, number: int) -> None:
    terminal.run(f"python3 ../programs.py agent {amounts.agent_secs}", amounts.agent_secs)


SCENES: tuple[tuple[Callable[[Terminal, Amounts, int], None], Size | None], ...] = (
    (_shell, None),
    (_editor, (100, 30)),
    (_git, None),
    (_build, (80, 24)),
    (_python, (132, 43)),
    (_htop, None),
    (_pager, (90, 50)),
    (_manual, None),
    (_agent, SIZE),
)
"""What is done, one after the other, and the size of the window from then on."""


def record_for(bench: Bench) -> Path:
    """Return the file of a day that is recorded once a run of the benchmarks; of the small one where it is quick."""
    path = SMALL_DAY if bench.quick else bench.folder / "workday"
    if not path.exists():
        write_day(path, record(FULL))
    return path


def record(amounts: Amounts) -> list[Step]:
    """Record a day."""
    folder = Path(tempfile.mkdtemp(prefix="ow", dir="/tmp"))
    try:
        make_repository(folder / "project")
        _write_files(folder)
        terminal = Terminal(folder)
        try:
            for number in range(amounts.rounds):
                for scene, size in SCENES:
                    scene(terminal, amounts, number)
                    if size is not None:
                        terminal.resize(size)
        finally:
            terminal.close()
        return terminal.steps
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write_files(folder: Path) -> None:
    """Write what the programs look at: a long log, and C files that are compiled with warnings."""
    log = (
        f"2026-01-{1 + n // 4000:02} 12:{n // 60 % 60:02}:{n % 60:02}.{n * 37 % 1000:03} "
        f"{('INFO', 'DEBUG', 'WARN', 'ERROR')[n * 7 % 11 % 4]:<5} worker-{n % 13} "
        f"{LOGGED[n * 3 % 4]} in {n * 91 % 977} ms\n"
        for n in range(50_000)
    )
    (folder / "large.log").write_text("".join(log))
    (folder / "watch.sh").write_text(WATCH)
    shutil.copy(HERE / "workday_programs.py", folder / "programs.py")
    native = folder / "native"
    native.mkdir()
    for number in range(40):
        body = f'int unused{number}; for (int i = 0; i < n; i++) puts("x");'
        text = f"#include <stdio.h>\nint f{number}(unsigned n) {{ {body} }}\n"
        (native / f"part{number}.c").write_text(text)
    (native / "Makefile").write_text(
        "OBJECTS = $(patsubst %.c,%.o,$(wildcard *.c))\nCFLAGS = -Wall -Wextra -fdiagnostics-color=always\n"
        "all: $(OBJECTS)\n\tar rcs libparts.a $(OBJECTS)\n"
    )


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--small", "amounts", flag_value="small", help="A minute of it, for tests.")
@click.option("--real-time", "amounts", flag_value="real", help="htop and the agent for ten minutes each.")
@click.argument("file", type=click.Path(path_type=Path))
def main(amounts: str | None, file: Path) -> None:
    """Record a day of work into FILE."""
    steps = record({"small": SMALL, "real": REAL_TIME, None: FULL}[amounts])
    write_day(file, steps)
    raw = sum(len(data) for _, data in steps if isinstance(data, bytes))
    print(f"{len(steps):,} steps, {raw:,} bytes in {steps[-1][0] / 1000:.0f} s; {file.stat().st_size:,} bytes stored")


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.workday")
