"""What the user's terminal is asked: its colours and whether it shows images, once, at the start of an attach.

The session's own terminal answers a program's questions with them. `TerminalQuestions` does no I/O but in
`wait_for_answers`. DA1, which every terminal answers, is asked last: what has not been answered before it never will
be. A terminal that answers nothing costs `ASK_SECS`; over a slow line the attach goes on without its answers, and they
are dropped when they come.

When the user leaves, answers to questions that the program has printed may still be on their way, and would be typed
at the shell. So the terminal is asked once more, and what it sends is read until that is answered. Keys that are
pressed in between are lost: nothing can be put back into a terminal.
"""

from __future__ import annotations

import os
import re
import select
import time

from orbit_protocol.terminal_input import InputScanner

TYPE_CHECKING = False
if TYPE_CHECKING:  # as typing has it, which is not imported here
    from collections.abc import Mapping
    from typing import Any

ASK_SECS = 0.1
LATE_SECS = 5.0
"""For so long it is noticed that a terminal answers at all; later answers are dropped by the daemon."""

LEAVE_SECS = 1.0
"""How long a terminal that answers has for its last answer."""

UNANSWERED_SECS = 0.5
"""How long after the first questions answers are waited for at a leave, if none has come: a program may end at once."""

PALETTE_COLORS = 16

_SILENT = ("dumb", "unknown", "emacs", "eterm")
"""Beginnings of TERM where every sequence is shown as text."""

_PLAIN = ("linux", "vt", "ansi", "sun", "cons")
"""Where strings may be: the console of older kernels shows them."""

_MULTIPLEXERS = ("screen", "tmux")
"""An APC string becomes the title in these."""

_DA1, _DSR = b"\x1b[c", b"\x1b[5n"
_DA1_ANSWER = re.compile(rb"\x1b\[\?[\d;]*c")
_DSR_ANSWER = re.compile(rb"\x1b\[[03]n")
_BARRIER_ANSWER = re.compile(rb"\x1b\[\?[\d;]*c\x1b\[[03]n\Z")
_COLOR_ANSWER = re.compile(rb"\x1b\](?:4;(\d+)|(1[01]));(?:rgba?:([0-9A-Fa-f/]+)|#([0-9A-Fa-f]+))")
_COLORS = b"\x1b]10;?\x1b\\\x1b]11;?\x1b\\" + b"".join(b"\x1b]4;%d;?\x1b\\" % index for index in range(PALETTE_COLORS))
_GRAPHICS = b"\x1b_Gi=31,s=1,v=1,a=q,t=d,f=24;AAAA\x1b\\"
_GRAPHICS_ANSWER = b"\x1b_Gi=31;OK\x1b\\"


def questions_for(environ: Mapping[str, str]) -> bytes:
    """Return what a terminal is asked of which this is known; b"" for one that would show it."""
    term = environ.get("TERM", "")
    if not term or term.startswith(_SILENT):
        return b""
    if term.startswith(_PLAIN):
        return _DSR + _DA1
    is_multiplexer = term.startswith(_MULTIPLEXERS) or "TMUX" in environ or "STY" in environ
    shows_apc = is_multiplexer or environ.get("TERM_PROGRAM") == "Apple_Terminal"
    return _COLORS + (b"" if shows_apc else _GRAPHICS) + _DSR + _DA1


class TerminalQuestions:
    """The questions to one terminal, and its answers.

    Attributes:
        deadline: Until when they are waited for, on the monotonic clock; None where that is over.
        flush_at: When `flush` is due; None if it is not.
    """

    def __init__(self) -> None:
        self.deadline: float | None = None
        self.flush_at: float | None = None
        self._scanner: InputScanner | None = None
        self._late_until = self._leave_from = 0.0
        self._answers: list[bytes] = []
        self._has_da1 = self._has_dsr = False

    def ask(self, environ: Mapping[str, str], now: float) -> bytes:
        """Return the bytes that ask the terminal; `receive` is called with its input from now on."""
        questions = questions_for(environ)
        if questions:
            self._scanner = InputScanner()
            self.deadline, self._leave_from = now + ASK_SECS, now + UNANSWERED_SECS
            self._late_until = now + LATE_SECS
        return questions

    def receive(self, data: bytes, now: float) -> bytes:
        """Return what the user has typed of some input."""
        if self._scanner is None:
            return data
        typed, _ = self._scanner.receive(data)
        self._answers += self._scanner.answers
        for answer in self._scanner.answers:
            self._has_dsr = self._has_dsr or _DSR_ANSWER.fullmatch(answer) is not None
            self._has_da1 = self._has_da1 or _DA1_ANSWER.fullmatch(answer) is not None
        if self._has_da1 or now > self._late_until:
            self.deadline = None
            typed += self._scanner.flush()
            self._scanner = None
        secs = None if self._scanner is None else self._scanner.flush_secs
        self.flush_at = None if secs is None else now + secs
        return typed

    def flush(self) -> bytes:
        """Return what was held, since the rest of an answer has not come."""
        self.flush_at = None
        return b"" if self._scanner is None else self._scanner.flush()

    def terminal(self) -> dict[str, Any] | None:
        """Return what the terminal has answered, as `ClientTerminal` of the protocol has it; None for nothing."""
        colors: dict[bytes, str] = {}
        for answer in self._answers:
            found = _COLOR_ANSWER.match(answer)
            if found is not None and (color := _hex_color(found[3], found[4])) is not None:
                colors[found[2] or b"4;" + found[1]] = color
        palette: list[str] = []
        while (color := colors.get(b"4;%d" % len(palette))) is not None:
            palette.append(color)
        graphics = _GRAPHICS_ANSWER in self._answers
        if not colors and not graphics:
            return None
        return {
            "foreground": colors.get(b"10"),
            "background": colors.get(b"11"),
            "palette": palette or None,
            "kitty_graphics": graphics,
        }

    @property
    def barrier(self) -> bytes:
        """What is asked behind the last output, for `wait_for_answers`; b"" if the terminal is not known to answer."""
        # DSR behind DA1: the program may have asked for either, so that only both together are the end.
        return b"" if not self._has_da1 else _DA1 + _DSR if self._has_dsr else _DA1

    def wait_for_answers(self, descriptor: int, *, has_barrier: bool) -> None:
        """Read and drop what the terminal sends, until it has answered everything, or the time is up.

        Args:
            descriptor: The terminal, in raw mode.
            has_barrier: `barrier` has been written; else the answers to the first questions are waited for.
        """
        now = time.monotonic()
        has_barrier = has_barrier and self._has_da1
        deadline = now + LEAVE_SECS if has_barrier else self._leave_from
        if deadline <= now or (self._has_da1 and not has_barrier):
            return
        end = _BARRIER_ANSWER if has_barrier and self._has_dsr else re.compile(_DA1_ANSWER.pattern + rb"\Z")
        seen = b""
        # One byte at a time: what has been typed behind the last answer stays for the shell.
        while select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))[0]:
            try:
                byte = os.read(descriptor, 1)
            except OSError:  # a hangup
                return
            seen = seen[-64:] + byte
            if not byte or end.search(seen):
                return


def _hex_color(parts: bytes | None, digits: bytes | None) -> str | None:
    """Return an X11 colour, `rrrr/gggg/bbbb` or `rrggbb`, as `#rrggbb`; None where it is none."""
    if digits is not None:
        width = len(digits) // 3
        channels = [digits[index * width : (index + 1) * width] for index in range(3)]
    else:
        channels = (parts or b"").split(b"/")[:3]
    if len(channels) != 3 or not all(0 < len(channel) <= 4 for channel in channels):
        return None
    return "#" + "".join(f"{int(channel, 16) * 255 // (16 ** len(channel) - 1):02x}" for channel in channels)
