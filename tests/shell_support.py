"""Real shells on a terminal, for tests of the integration: what they print, and the marks in it."""

from __future__ import annotations

import difflib
import os
import pty
import re
import select
import signal
import termios
import time
from pathlib import Path
from urllib.parse import unquote

from msgspec.structs import replace

from needs import program
from orbitd.sessions.command_line import Launch
from orbitd.sessions.shell_integration import integrate

PROMPT, MORE = "@@ ", "%% "
MARK = re.compile(rb"\x1b\](133;[^\x07]*|7;[^\x07]*)\x07")
LIMIT_SECS = 30


def launch(shell: str, home: Path, *options: str, login: bool = False, env: dict[str, str] | None = None) -> Launch:
    """Return how orbitd starts a shell, without the integration."""
    variables = {"HOME": str(home), "PATH": os.environ["PATH"], "TERM": "xterm-256color", "LANG": "C.UTF-8"}
    words = ("-" + shell if login else shell, *options)
    return Launch(
        file=os.fsencode(program(shell)),
        argv=tuple(map(os.fsencode, words)),
        env={os.fsencode(name): os.fsencode(value) for name, value in (variables | (env or {})).items()},
        folders=(os.fsencode(home),),
    )


class Shell:
    """A shell on a terminal of 200 columns, whose prompts have `PROMPT` in them, or `MORE` for later lines."""

    def __init__(self, how: Launch) -> None:
        self.output = b""
        self._prompts = 0
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.chdir(how.folders[0])
            os.execve(how.file, how.argv, how.env)  # the shell itself
        termios.tcsetwinsize(self._fd, (50, 200))
        self.wait_for_prompt()

    def wait_for_prompt(self) -> None:
        """Return once the shell has printed one more prompt."""
        self._prompts += 1
        self.wait_until(lambda text: len(re.findall(f"{PROMPT}|{MORE}", text)) >= self._prompts)

    def wait_until(self, holds) -> None:
        deadline = time.monotonic() + LIMIT_SECS
        while not holds(self.text):
            ready, _, _ = select.select([self._fd], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"waited for a prompt: {self.output!r}"
            self.output += os.read(self._fd, 65536)

    def type(self, keys: str) -> None:
        os.write(self._fd, keys.encode())

    def give_up_line(self, typed: str) -> None:
        """Type a line and press Ctrl-C instead of Enter; again until there is a new prompt.

        Interrupted just before it reads, a line editor waits for a key, or prints `^C` and keeps what it has parsed.
        """
        self.type(typed)
        self.wait_until(lambda text: text.endswith(typed))
        shown = len(re.findall(PROMPT, self.text))
        while len(re.findall(PROMPT, self.text)) == shown:
            self.type("\x03")
            ready, _, _ = select.select([self._fd], [], [], 1)
            while ready:
                self.output += os.read(self._fd, 65536)
                ready, _, _ = select.select([self._fd], [], [], 0.2)
        self._prompts = len(re.findall(f"{PROMPT}|{MORE}", self.text))

    def run(self, line: str) -> None:
        """Type a line and wait for the next prompt."""
        self.type(line + "\r")
        self.wait_for_prompt()

    @property
    def text(self) -> str:
        """All that it has printed, without the marks."""
        return MARK.sub(b"", self.output).decode()

    @property
    def marks(self) -> list[str]:
        return [found.decode() for found in MARK.findall(self.output)]

    @property
    def commands(self) -> list[tuple[str | None, str]]:
        """The commands that were marked from their start to their end, each with its exit code."""
        commands: list[tuple[str | None, str]] = []
        running: str | None = ""
        for mark in self.marks:
            if mark.startswith("133;C"):
                running = unquote(mark.partition("cmdline_url=")[2]) or None
            elif mark.startswith("133;D"):
                commands.append((running, mark.removeprefix("133;D;")))
                running = ""
        return commands

    def close(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.close(self._fd)
        os.waitpid(self.pid, 0)


def compare(how: Launch, *lines: str) -> Shell:
    """Run lines in a shell with the integration and without, which print the same; return the one with it."""
    shells = []
    for each in (how, integrate(how)):
        shell = Shell(replace(each))
        try:
            for line in lines:
                shell.run(line)
        finally:
            shell.close()
        shells.append(shell)
    plain, integrated = shells
    # What follows the last prompt, of the line editor, may not have come yet.
    texts = [text[: text.rindex(PROMPT)].splitlines() for text in (plain.text, integrated.text)]
    assert texts[0] == texts[1], "\n".join(difflib.unified_diff(*texts, "without", "with the integration", lineterm=""))
    assert plain.marks == []
    return integrated
