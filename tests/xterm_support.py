"""xterm.js for tests, the terminal of VS Code: by itself, and as the terminal of a window with orbitctl in it."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

from attach_support import Window
from ctl_support import Orbitctl
from needs import program, require, require_that

_COLOR_MODES, _PALETTE_16 = 0x3000000, 0x1000000  # xterm.js, src/common/buffer/Constants.ts

SOURCES = Path(__file__).parent / "xterm"


def install(folder: Path) -> Path:
    """Install xterm.js into a folder, which processes may share; return where its modules are.

    The test that runs is skipped where the machine has no node or no npm, or its npm finds no registry.
    """
    require("node", "npm")
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "done").exists():
            for name in ("package.json", "package-lock.json"):
                shutil.copy(SOURCES / name, folder)
            command = [program("npm"), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"]
            ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
            require_that(ended.returncode == 0, f"an npm registry for @xterm/headless: {ended.stderr.strip()[-300:]}")
            (folder / "done").touch()
    return folder / "node_modules"


class Cell(NamedTuple):
    """A cell: its colours and flags are xterm.js's own numbers, blank cells are spaces.

    A colour of the first sixteen is the same number however it was chosen (SGR 31 or 38;5;1), as in libghostty.
    """

    text: str
    width: int
    foreground: int
    background: int
    flags: int
    underline_color: int
    link: tuple[str, str] | None


class Line(NamedTuple):
    """A row of a buffer."""

    wrapped: bool
    cells: tuple[Cell, ...]

    @property
    def text(self) -> str:
        return "".join(cell.text for cell in self.cells).rstrip()


class XtermJs:
    """A terminal of xterm.js.

    Args:
        modules: What `install` returned.
        cols: Columns.
        rows: Rows.
    """

    def __init__(self, modules: Path, cols: int, rows: int) -> None:
        self.process = subprocess.Popen(
            [program("node"), str(SOURCES / "terminal.js")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "NODE_PATH": str(modules)},
        )
        self._answers = b""
        self.resize(cols, rows)

    def feed(self, data: bytes) -> None:
        """Draw what a program has written; on return it has been drawn."""
        self._ask(data=base64.b64encode(data).decode())

    def resize(self, cols: int, rows: int) -> None:
        self._ask(size=[cols, rows])

    def answers(self) -> bytes:
        """Return and remove what the terminal has answered to questions since the last call."""
        answers, self._answers = self._answers, b""
        return answers

    def dump(self) -> dict[str, Any]:
        """Return the whole state but for the answers, as terminal.js tells it."""
        return self._ask(dump=True)

    def cells(self, buffer: str = "") -> list[Line]:
        """Return the rows of a buffer, history first: `normal`, `alternate`, or the one in use."""
        state = self.dump()
        return _lines(state[buffer or state["active"]])

    def lines(self, buffer: str = "") -> list[str]:
        """Return the text of each row of a buffer, without blanks at its end."""
        return [line.text for line in self.cells(buffer)]

    def picture(self) -> dict[str, Any]:
        """Return all that can be seen, and the modes, for comparisons: both buffers as lists of `Line`."""
        state = self.dump()
        # The cursor of the other buffer is left out: it is never used, since changing buffers copies or restores one.
        cursor = state[state["active"]]["cursor"]
        return {**state, "cursor": cursor, "normal": _lines(state["normal"]), "alternate": _lines(state["alternate"])}

    def close(self) -> None:
        self.process.communicate(timeout=20)

    def _ask(self, **request: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, f"xterm.js has ended with {self.process.wait(20)}"
        answer: dict[str, Any] = json.loads(line)
        self._answers += base64.b64decode(answer.pop("answers"))
        return answer


def _lines(buffer: dict[str, Any]) -> list[Line]:
    lines = []
    for line in buffer["lines"]:
        cells: list[Cell] = []
        for count, text, width, foreground, background, flags, underline, link in line["runs"]:
            colors = (_color(foreground), _color(background), flags, _color(underline))
            cells += [Cell(text or " " * width, width, *colors, tuple(link) if link else None)] * count
        lines.append(Line(line["wrapped"], tuple(cells)))
    return lines


def _color(color: int) -> int:
    """Return a colour of xterm.js, of its palette of 16 as the same one in its palette of 256."""
    return color + _PALETTE_16 if color != -1 and color & _COLOR_MODES == _PALETTE_16 else color


class XtermWindow(Window):
    """A window of VS Code with one orbitctl in it: what it shows is drawn by xterm.js, too, which alone answers.

    Args:
        modules: What `install` returned.
        ctl: Whose home and environment it has.
        arguments: Of orbitctl.
        size: Columns and rows.
        environment: More variables.
    """

    def __init__(
        self, modules: Path, ctl: Orbitctl, *arguments: str, size: tuple[int, int] = (80, 24), **environment: str
    ) -> None:
        self.xterm = XtermJs(modules, *size)
        super().__init__(ctl, *arguments, size=size, **environment)

    def close(self) -> None:
        super().close()
        self.xterm.close()

    def resize(self, cols: int, rows: int) -> None:
        """Change the size of xterm.js first, then the pty's, as VS Code does: what was on its way comes in between."""
        self.xterm.resize(cols, rows)
        super().resize(cols, rows)

    def draw(self, data: bytes) -> None:
        """Draw what came, and type what the terminal answers."""
        super().draw(data)
        self.xterm.feed(data)
        if answers := self.xterm.answers():
            self.type(answers)

    def lines(self) -> list[str]:
        """Return the text of the window's rows, its history first, blank ones at the end left out."""
        lines = self.xterm.lines()
        while lines and not lines[-1]:
            lines.pop()
        return lines
