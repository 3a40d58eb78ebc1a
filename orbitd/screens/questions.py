"""Questions to the terminal that libghostty leaves unanswered, and their answers. No library, no I/O.

A program that gets no answer may wait for ever, and the emulator is the only one that answers. So what xterm answers
by default and the library does not is found here in the output. Left out is what xterm refuses by default too (the
title, `CSI 21 t`), has no answer for (ENQ), or what hardly anything asks without another question behind it as the
end mark: OSC 5 and 13 to 19, DECRQPSR, DECRQCRA, XTSMGRAPHICS, XTQMODKEYS.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

MAX_QUESTION_BYTES = 8192
"""A longer one is not found; the payload of a graphics query may have 4096."""

MAX_QUESTIONS = 1000
"""In one piece of output; a flood of more gets no answers here. Each takes 30 microseconds at most."""

# Looser than `_QUESTION`, and so faster: most sequences of coloured text fail at their third byte.
_BEGINNINGS = re.compile(rb"\x1b.(?:[?01][0-9;]*[ntx]|x|52;|\+q|G)", re.DOTALL)
_QUESTION = re.compile(
    rb"\x1b(?:\[(?P<csi>\?(?:6|15|25|26|5[356]|62|63;\d{1,5}|75|85)n|(?:11|13|13;2|14;2|15|19)t|[01]?x)"
    rb"|\]52;(?P<clipboard>[a-z0-7]{0,16});\?(?P<end>\x07|\x1b\\)"
    rb"|P\+q(?P<capabilities>[0-9A-Fa-f;]{0,512})\x1b"  # a DCS ends with the ESC of ST, and is answered then
    rb"|_G(?P<graphics>[^;\x1b]{0,512})(?:;[^\x1b]*)?\x1b\\)"
)
_STRINGS = (b"\x1b]", b"\x1bP", b"\x1b_")

POSITION = b"?6n"
"""DECXCPR: its answer is made of the library's own to CPR, which knows margins and origin mode."""

_FIXED = {
    b"?15n": b"\x1b[?13n",  # no printer
    b"?25n": b"\x1b[?20n",  # function keys are not locked
    b"?26n": b"\x1b[?27;1;0;0n",  # a North American keyboard
    b"?53n": b"\x1b[?50n",  # no locator
    b"?55n": b"\x1b[?50n",
    b"?56n": b"\x1b[?57;0n",
    b"?62n": b"\x1b[0*{",  # no space for macros
    b"?75n": b"\x1b[?70n",  # ready
    b"?85n": b"\x1b[?83n",  # one session
    b"11t": b"\x1b[1t",  # the window is shown, and its place is the corner
    b"13t": b"\x1b[3;0;0t",
    b"13;2t": b"\x1b[3;0;0t",
    b"x": b"\x1b[2;1;1;128;128;1;0x",  # DECREQTPARM: no parity, 8 bits, 38400 baud, as xterm
    b"0x": b"\x1b[2;1;1;128;128;1;0x",
    b"1x": b"\x1b[3;1;1;128;128;1;0x",
}


class QuestionFinder:
    """Finds these questions in output that may be cut anywhere; one for each terminal."""

    def __init__(self) -> None:
        self._unfinished = b""

    def cut(self, data: bytes) -> Iterator[tuple[bytes, re.Match[bytes] | None]]:
        """Yield the data in pieces: each question by itself, and what is before and behind it.

        ESC ends whatever sequence or string came before it, so that a question is one wherever it stands.
        """
        known, text = len(self._unfinished), self._unfinished + data
        done = count = 0
        for beginning in _BEGINNINGS.finditer(text):
            question = _QUESTION.match(text, beginning.start())
            if question is None or question.end() <= known:
                continue
            count += 1
            if count > MAX_QUESTIONS:
                break
            start, end = max(0, question.start() - known), question.end() - known
            if start > done:
                yield data[done:start], None
            yield data[start:end], question
            done = end
        if done < len(data) or not done:
            yield data[done:], None

    def keep_unfinished(self, data: bytes, *, at_ground: bool) -> None:
        """Remember the sequence that the data has ended in, if the terminal is in one."""
        if at_ground:
            self._unfinished = b""
            return
        text = self._unfinished + data if len(data) < MAX_QUESTION_BYTES else data[-MAX_QUESTION_BYTES:]
        start = text.rfind(b"\x1b")
        if start == len(text) - 1:  # perhaps the first byte of the ST behind a string
            before = text.rfind(b"\x1b", 0, start)
            if text.startswith(_STRINGS, max(0, before)):
                start = before
        self._unfinished = text[start:] if 0 <= start >= len(text) - MAX_QUESTION_BYTES else b""


def answer(question: re.Match[bytes], *, cells: tuple[int, int], pixels: tuple[int, int], graphics: bool) -> bytes:
    """Return the answer to a question of `QuestionFinder`, but for `POSITION`; b"" where it gets none.

    Args:
        question: As it was found.
        cells: Columns and rows of the terminal.
        pixels: Width and height of a cell.
        graphics: Whether images of the kitty protocol are shown.
    """
    if (csi := question["csi"]) is not None:
        cols, rows = cells
        width, height = cols * pixels[0], rows * pixels[1]
        if csi.startswith(b"?63;"):
            return b"\x1bP%d!~0000\x1b\\" % int(csi[4:-1])
        sizes = {b"14;2t": (4, height, width), b"15t": (5, height, width), b"19t": (9, rows, cols)}
        return b"\x1b[%d;%d;%dt" % sizes[csi] if csi in sizes else _FIXED.get(csi, b"")
    if (clipboard := question["clipboard"]) is not None:
        return b"\x1b]52;%b;%b" % (clipboard, question["end"])  # an empty one: the user's is nobody's business
    if (capabilities := question["capabilities"]) is not None:
        return b"\x1bP0+r%b\x1b\\" % capabilities
    return _graphics_answer(question["graphics"]) if graphics else b""


def _graphics_answer(control: bytes) -> bytes:
    """Return the answer to a query of the kitty graphics protocol; b"" for another command, or one that wants none."""
    keys = dict(pair.partition(b"=")[::2] for pair in control.split(b","))
    ids = b",".join(b"%b=%b" % (key, keys[key]) for key in (b"i", b"I", b"p") if keys.get(key, b"").isdigit())
    if keys.get(b"a") != b"q" or not ids:
        return b""
    is_sent = keys.get(b"t", b"d") == b"d"  # files and memory are of this machine, and the client may be on another
    if keys.get(b"q", b"0") not in ((b"0",) if is_sent else (b"0", b"1")):
        return b""
    return b"\x1b_G%b;%b\x1b\\" % (ids, b"OK" if is_sent else b"EINVAL:unsupported medium")
