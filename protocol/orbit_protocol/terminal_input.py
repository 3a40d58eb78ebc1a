"""Tell what a user types from what the user's terminal sends by itself. No I/O, no clock.

A client's terminal is shown what the program prints, questions to the terminal included, and answers them; a session's
own emulator has answered them already. So answers are dropped from the client's input. Everything else passes byte for
byte: keys, pastes (whatever is in them), binary data; mouse and focus reports too, but these are not typing.

Some answers look like keys: `CSI 1 ; 5 R` is Ctrl-F3, and the answer to CPR in column 5. It is taken for the answer
where the program has asked just now. Alt-[ and Escape are the beginning of answers. So the beginning of one that the
input ends in is held, until the rest of it comes or `flush` is called, a moment later. It passes then, if it may be the
beginning of a key.
"""

from __future__ import annotations

import re

MAX_HELD_BYTES = 8192
"""A longer beginning of an answer is none, and passes."""

ESCAPE_SECS, ANSWER_SECS = 0.01, 0.1
"""When `flush` is due: what may be the Escape key or an Alt key by itself, and the beginning of a longer sequence."""

CLIPBOARD_SECS = 2.0
"""When it is due in the middle of an answer with the clipboard, which may be long, and come over a slow link."""

# F3 with modifiers, or a position in the first row: 1 + the sum of 1, 2, 4, 8, and of the locks, 64 and 128.
_KEY = rb"1;(?:[2-9]|1[0-6]|6[5-9]|7\d|80|129|13\d|14[0-4]|19[3-9]|20[0-8])R"
_CSI_ANSWER = (
    rb"[?>][\d;]*c"  # DA1, DA2
    rb"|[03]n|\?[\d;]+n"  # DSR; the colour scheme, and what else private DSRs ask
    rb"|(?!" + _KEY + rb")\d+;\d+R|\?\d+;\d+(?:;\d+)?R"  # CPR, DECXCPR
    rb"|\??\d+;\d+\$y"  # DECRPM
    rb"|\?\d*u"  # the flags of the kitty keyboard
    rb"|[12]t|[345689];\d+;\d+t|48;[\d;:]+t"  # XTWINOPS, and the size reports of mode 2048
    rb"|\?[\d;]+S"  # XTSMGRAPHICS
    rb"|[23];\d+;\d+;\d+;\d+;\d+;\d+x"  # DECREPTPARM
    rb"|>[\d;]*m"  # XTQMODKEYS
    rb"|\d+\*\{"  # DECMSR
)
_COLOR = rb"(?:rgba?:[0-9A-Fa-f/]+|#[0-9A-Fa-f]+)"
_OSC_ANSWER = (
    rb"[45];\d+;" + _COLOR + rb"(?:;\d+;" + _COLOR + rb")*"
    rb"|1\d;" + _COLOR + rb"|21;[^\x00-\x1f\x7f]*|52;[a-z0-7]*;[A-Za-z0-9+/=]*|5522;[^\x00-\x1f\x7f]*"
    rb"|[lL][^\x00-\x1f\x7f]*"  # title and icon
)
_DCS_ANSWER = (
    rb"!\|[0-9A-Fa-f]*|>\|[^\x00-\x1f\x7f]*"  # DA3, XTVERSION
    rb"|[01]\$r[^\x00-\x1f\x7f]*|[01]\+r[^\x00-\x1f\x7f]*"  # DECRQSS, XTGETTCAP
    rb"|[12]\$u[^\x00-\x1f\x7f]*|\d+!~[0-9A-Fa-f]*"  # DECRQPSR, DECCKSR
)
# In X10's encoding each number is one byte, or one character of UTF-8 in mode 1005.
_X10 = rb"M(?:[\xc2-\xdf][\x80-\xbf]|[^\x1b]){3}"

_SEQUENCE = re.compile(
    rb"\x1b(?:\[(?:"
    rb"(?P<paste>200~)"
    rb"|(?P<report><[\d;]+[Mm]|\d+;\d+;\d+M|[IO]|" + _X10 + rb")"
    rb"|(?P<key>" + _KEY + rb")"
    rb"|(?P<csi>" + _CSI_ANSWER + rb"))"
    rb"|(?P<string>\](?:" + _OSC_ANSWER + rb")(?:\x07|\x1b\\)"
    rb"|P(?:" + _DCS_ANSWER + rb")\x1b\\"
    rb"|_G[^\x00-\x1f\x7f]*\x1b\\)"  # kitty graphics
    rb"|(?P<partial>(?:\[(?:[0-?]{0,64}[ -/]?|M[^\x1b]{0,5})"
    rb"|\](?:\d{0,4}|(?:\d{1,2}|5522);[^\x00-\x1f\x7f]*\x1b?|[lL][^\x00-\x1f\x7f]*\x1b?)"
    rb"|P(?:[0-9!>]{0,6}[|$+~]?|[0-9!>]{1,6}[|$+~][^\x00-\x1f\x7f]*\x1b?)"
    rb"|_(?:G[^\x00-\x1f\x7f]*\x1b?)?)?\Z))",
    re.DOTALL,
)
_CLIPBOARD = re.compile(rb"\x1b\]52;[a-z0-7]*;[A-Za-z0-9+/=]*\x1b?\Z")
_CLIPBOARD_REST = re.compile(rb"[A-Za-z0-9+/=]*(?:\x07|\x1b\\|(?P<more>\x1b?\Z))?")
# Of what is held, what is no key or its beginning. Alt-P is `ESC P`; `CSI 2 $` is Shift-Insert in rxvt.
_ONLY_ANSWERS = re.compile(rb"\x1b(?:\[(?:[?>]|\d+\*|\d+;\d+\$)|[\]P_].)", re.DOTALL)
_PASTE_END = b"\x1b[201~"
_POSITION = re.compile(rb"\x1b\[\d+;\d+R")


def has_position(answers: bytes) -> bool:
    """Return whether there is an answer to CPR among the answers of a terminal."""
    return b"R" in answers and _POSITION.search(answers) is not None


class InputScanner:
    """Looks for answers in a client's input, which may be cut anywhere; one for each attachment.

    Attributes:
        answers: The answers that the last `receive` has dropped, each whole.
    """

    def __init__(self) -> None:
        self.answers: list[bytes] = []
        self._held = b""
        self._paste_end: bytes | None = None  # in a paste: the last bytes that passed, where its end may begin
        self._in_clipboard = False

    @property
    def held(self) -> bytes:
        """The beginning of what may be an answer."""
        return self._held

    @property
    def flush_secs(self) -> float | None:
        """How long what is held waits for the rest, before `flush` is due; None where nothing is held."""
        if not self._held and not self._in_clipboard:
            return None
        if self._in_clipboard:
            return CLIPBOARD_SECS
        return ESCAPE_SECS if len(self._held) <= len("\x1b[") else ANSWER_SECS

    def receive(self, data: bytes, *, position_asked: bool = False) -> tuple[bytes, bool]:
        """Return what passes of some input, and whether any of that is typing.

        Args:
            data: The input.
            position_asked: The program has asked where the cursor is (CPR), in the last second.
        """
        if self.answers:
            self.answers = []
        if self._paste_end is None and not self._held and not self._in_clipboard and b"\x1b" not in data:
            return data, bool(data)
        return self._scan(data, position_asked)

    def flush(self) -> bytes:
        """Return what is held, where it may be a key: the rest has not come in time. All of it is typing.

        The beginning of an answer that was cut off is dropped.
        """
        held, self._held = self._held, b""
        is_answer = self._in_clipboard or _ONLY_ANSWERS.match(held) is not None
        self._in_clipboard = False
        return b"" if is_answer else held

    def _scan(self, data: bytes, position_asked: bool) -> tuple[bytes, bool]:
        data, self._held = self._held + data, b""
        passed: list[bytes] = []
        is_typing = False
        at, end = 0, len(data)
        if self._in_clipboard:
            at = self._drop_clipboard(data, 0)
        while at < end:
            if self._paste_end is not None:
                start, at = at, self._pass_paste(data, at)
                passed.append(data[start:at])
                is_typing = True
                continue
            found = _SEQUENCE.search(data, at)
            start, stop = (end, end) if found is None else found.span()
            if start > at:
                passed.append(data[at:start])
                is_typing = True
            at = stop
            kind = None if found is None else found.lastgroup
            sequence = data[start:stop]
            if kind == "report":
                passed.append(sequence)
            elif kind == "paste" or (kind == "key" and not position_asked):
                passed.append(sequence)
                is_typing = True
                if kind == "paste":
                    self._paste_end = b""
            elif kind == "partial":
                self._hold(sequence, passed)
                is_typing = is_typing or not (self._held or self._in_clipboard)
            elif kind is not None:
                self.answers.append(sequence)
        return b"".join(passed), is_typing

    def _hold(self, sequence: bytes, passed: list[bytes]) -> None:
        if _CLIPBOARD.match(sequence):
            # It may be of any length, and is dropped as it comes.
            self._in_clipboard = True
            self._held = b"\x1b" if sequence.endswith(b"\x1b") else b""
        elif len(sequence) <= MAX_HELD_BYTES:
            self._held = sequence
        else:
            passed.append(sequence)

    def _drop_clipboard(self, data: bytes, at: int) -> int:
        """Return where the rest of an answer with the clipboard ends."""
        found = _CLIPBOARD_REST.match(data, at)
        assert found is not None  # it matches nothing, too
        if found["more"] is None:
            self._in_clipboard = False
        else:
            self._held = found["more"]
        return found.end()

    def _pass_paste(self, data: bytes, at: int) -> int:
        """Return where a paste ends, or the data; its bytes pass at once, also those which its end may begin with."""
        assert self._paste_end is not None
        before = len(self._paste_end)
        # The end marker may begin in what has passed before: only its first bytes are looked at again.
        border = self._paste_end + data[at : at + len(_PASTE_END)]
        found = border.find(_PASTE_END)
        if 0 <= found < before:
            self._paste_end = None
            return at + found + len(_PASTE_END) - before
        found = data.find(_PASTE_END, at)
        if found >= 0:
            self._paste_end = None
            return found + len(_PASTE_END)
        keep = len(_PASTE_END) - 1
        self._paste_end = (self._paste_end + data[max(at, len(data) - keep) :])[-keep:]
        return len(data)
