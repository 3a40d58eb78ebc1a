"""The user's own terminal, with a shell in it that orbitctl is started from: an emulator, xterm.js, a pane of tmux."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

from attach_support import Window
from ctl_support import Orbitctl
from needs import program
from xterm_support import XtermWindow

SHELL = [program("bash"), "--norc", "--noprofile"]
PROMPT = rb"[#$] "


class UsersShell(Orbitctl):
    """What a window runs instead of orbitctl: a shell, or something around one."""

    def __init__(self, ctl: Orbitctl, command: list[str]) -> None:
        super().__init__(ctl.home, ctl.environment)
        self.command = command


class EmulatorWindow(Window):
    """A window of the emulator, which answers questions."""

    def __init__(self, ctl: Orbitctl, *arguments: str, size: tuple[int, int] = (80, 24), **environment: str) -> None:
        super().__init__(ctl, *arguments, size=size, **environment)
        self.emulator.answering = True

    def draw(self, data: bytes) -> None:
        super().draw(data)
        if answers := self.emulator.replies():
            self.type(answers)

    def lines(self) -> list[str]:
        """Return the text of the window's rows, its history first."""
        return self.emulator.screen("text", scrollback=True).decode().rstrip("\n").split("\n")


class SilentWindow(EmulatorWindow):
    """A window that answers nothing."""

    def __init__(self, ctl: Orbitctl, *arguments: str, size: tuple[int, int] = (80, 24), **environment: str) -> None:
        super().__init__(ctl, *arguments, size=size, **environment)
        self.emulator.answering = False


class TmuxWindow(Window):
    """A window with tmux in it; its lines are those of the pane."""

    def __init__(self, ctl: Orbitctl, *, size: tuple[int, int] = (80, 24), **environment: str) -> None:
        self._tmux = [program("tmux"), "-S", str(ctl.home / "tmux"), "-f", str(ctl.home / "tmux.conf")]
        self._environment = ctl.environment
        (ctl.home / "tmux.conf").write_text("set -g history-limit 50000\nset -g status off\n")
        super().__init__(UsersShell(ctl, [*self._tmux, "new-session", shlex.join(SHELL)]), size=size, **environment)

    def lines(self) -> list[str]:
        """Return the text of the pane's rows, its history first, wrapped ones joined."""
        command = [*self._tmux, "capture-pane", "-p", "-J", "-S", "-"]
        shown = subprocess.run(command, env=self._environment, capture_output=True, text=True, check=True).stdout
        return [line.rstrip() for line in shown.rstrip("\n").split("\n")]

    def close(self) -> None:
        subprocess.run([*self._tmux, "kill-server"], env=self._environment, capture_output=True, check=False)
        super().close()


UsersWindow = EmulatorWindow | XtermWindow | TmuxWindow


def open_window(kind: str, ctl: Orbitctl, xterm_modules: Path | None = None) -> UsersWindow:
    """Return a window of a kind, with a shell in it whose prompt is there."""
    window: UsersWindow
    if kind == "xterm":
        assert xterm_modules is not None
        window = XtermWindow(xterm_modules, UsersShell(ctl, SHELL))
    elif kind == "tmux":
        window = TmuxWindow(ctl)
    else:
        window = {"emulator": EmulatorWindow, "silent": SilentWindow}[kind](UsersShell(ctl, SHELL))
    window.until(PROMPT)
    return window


def run(window: Window, command: str, word: str = "done") -> None:
    """Run a command in the shell that the window shows, to its end and the next prompt."""
    window.type(f"{command}; echo {word[0]}''{word[1:]}.\r")
    window.until(f"{word}.")
    window.until(PROMPT)


def attach(window: Window, ctl: Orbitctl, *arguments: str) -> None:
    """Attach from the shell that the window shows, until the session's own can be typed into."""
    window.type(f"{shlex.join([*ctl.command, *arguments])}\r")
    window.until("\x1b[?1007r" if not isinstance(window, TmuxWindow) else PROMPT)
    run(window, "true", "attached")


def numbers(lines: list[str], word: str) -> list[int]:
    """Return the numbers of the lines that are this word and a number, in order."""
    return [int(found[1]) for line in lines if (found := re.fullmatch(rf"{word} (\d+)(?: x*)?", line.rstrip()))]
