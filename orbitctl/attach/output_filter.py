r"""What a session's output may not do to the user's window, and what it has done to it. No I/O: bytes in, bytes out.

Taken out is what would change more than the session's own picture: sequences that erase or replace the window's
history (ED 3; RIS, which becomes a reset that keeps it; iTerm2's and vterm's own), that resize the window or change
its profile, and, for a client that only watches, those that write the user's clipboard. Window operations (XTWINOPS),
notifications and colours pass: terminals ask the user about the first or ignore them, and the last are taken back at
the end.

The grammar is that of ECMA-48, as the VT500 series parses it: ESC ends a string that is not terminated, as in
xterm and libghostty; control characters within a sequence are executed, and are kept where the sequence goes. So
nothing inside a string is changed, and nothing hides behind one that never ends.
"""

from __future__ import annotations

import re

from orbit_protocol.terminal_reset import RESET, RESTORE_COLORS

TYPE_CHECKING = False
if TYPE_CHECKING:  # as typing has it, which is not imported here
    from collections.abc import Iterator

ALTERNATE_MODES = (47, 1047, 1049)
PIECE_BYTES = 4096
MAX_HELD_BYTES = 4096
"""Parameter bytes of a sequence after which it is dropped: no terminal's own has so many."""
_MAX_OSC_HEAD = 64  # bytes of an OSC by which it is known whether it passes

_C0 = rb"[\x00-\x17\x19\x1c-\x1f\x7f]"  # executed, or ignored, within a sequence: all but ESC, CAN and SUB
_PARAMETERS = rb"[\x00-\x17\x19\x1c-\x3f\x7f]*"
_CSI = rb"(?:\x1b" + _C0 + rb"*\[|\xc2\x9b)"
_OSC = rb"(?:\x1b" + _C0 + rb"*\]|\xc2\x9d)"
_DCS = rb"(?:\x1b" + _C0 + rb"*P|\xc2\x90)"
_OSC_HEAD = rb"[^\x07\x18\x1a\x1b]"

_SEQUENCE = re.compile(
    rb"\x1b(?P<ris>" + _C0 + rb"*)c"
    rb"|" + _CSI + rb"(?P<parameters>" + _PARAMETERS + rb")(?P<final>[Jhl])"
    rb"|" + _OSC + rb"(?P<osc>" + _OSC_HEAD + rb"{0,%d})" % _MAX_OSC_HEAD
    + rb"|" + _DCS + rb"[0-9;\x00-\x17]{0,32}(?P<passthrough>tmux;)"
)  # fmt: skip
_UNFINISHED = re.compile(
    rb"\x1b" + _C0 + rb"*\Z"
    rb"|" + _CSI + _PARAMETERS + rb"\Z"
    rb"|" + _OSC + _OSC_HEAD + rb"{0,%d}\Z" % (_MAX_OSC_HEAD - 1)
    + rb"|" + _DCS + rb"[0-9;\x00-\x17]{0,32}(?:t|tm|tmu|tmux)?\Z"
    rb"|\xc2\Z"
)  # fmt: skip
_STRING_END = re.compile(rb"[\x07\x18\x1a]|\x1b\\|\xc2\x9c|(?=\x1b[^\\])")
_CSI_END = re.compile(rb"[\x40-\x7e\x18\x1a]|(?=\x1b.)|(?=[\x80-\xff])", re.DOTALL)

# What tells that a piece of output has none of these sequences decides the speed: coloured text has an ESC every ten
# bytes. So what is searched for is the character behind which a sequence would be of interest; most text has few of
# them behind a control character or a digit.
_BEGUN = rb"\x1b" + _C0 + rb"*"
_CANDIDATES = tuple(
    (
        character,
        re.compile(re.escape(character) + rb"(?<=" + before + re.escape(character) + rb")"),
        re.compile(sequence),
    )
    for character, before, sequence in (
        (b"c", rb"[\x00-\x1f\x7f]", _BEGUN),
        (b"]", rb"[\x00-\x1f\x7f]", _BEGUN),
        (b"P", rb"[\x00-\x1f\x7f]", _BEGUN),
        (b"?", rb"[\x00-\x1f\x7f\[]", _BEGUN + rb"\[" + _C0 + rb"*"),
        (b"J", rb"[\x00-\x1f\x7f0-?]", _BEGUN + rb"\[" + _PARAMETERS),
    )
)
_C1 = re.compile(rb"\xc2[\x90\x9b\x9d]")
_NUMBERS = re.compile(rb"\??[0-9;:]*")
_SETS_COLOR = re.compile(rb"0*(?:4;\d+|1[0-2]);(?!\?)")

_WINDOW_MODES = frozenset((38, 40))  # Tektronix, and leave for DECCOLM to resize the window (xterm)
_ALWAYS_DROPPED = re.compile(
    rb"0*(?:1337;ClearScrollback|51;Evterm-clear-scrollback|50;(?!CursorShape=))", re.IGNORECASE
)
_CLIPBOARD = re.compile(rb"0*(?:52|5522)(?:;|$)|0*1337;(?:Copy|EndCopy)", re.IGNORECASE)
_CONTROLS = bytes(code for code in (*range(0x20), 0x7F) if code not in (0x18, 0x1A, 0x1B))


class OutputFilter:
    """Passes on what is the session's, for one window.

    Args:
        read_only: Whether the clipboard is kept from the session.

    Attributes:
        alternate: The mode by which the window is on the alternate screen; 0 on the primary one.
        has_set_origin: Whether origin mode (DECOM) has ever been set.
        has_set_colors: Whether colours have been set that the window may not have of itself.
        stop_at_primary: Return from `receive` where the window goes back to the primary screen, and drop the rest.
    """

    def __init__(self, *, read_only: bool = False) -> None:
        self.alternate = 0
        self.has_set_origin = self.has_set_colors = False
        self.stop_at_primary = False
        self._read_only = read_only
        self._held = b""  # the beginning of a sequence
        self._dropping: re.Pattern[bytes] | None = None  # up to the end of what is dropped

    def receive(self, data: bytes) -> bytes:
        """Return what of the output is written to the window; the beginning of a sequence waits for its end."""
        if self._held:
            data, self._held = self._held + data, b""
        if self._dropping is not None:
            data = self._drop(data)
        # Only what begins with the last ESC, or the last byte of a C1 control, can be unfinished.
        last = max(data.rfind(b"\x1b"), data.rfind(b"\xc2", -_MAX_OSC_HEAD))
        executed, is_endless = b"", False
        if last >= 0 and _UNFINISHED.match(data, last):
            data, self._held = data[:last], data[last:]
            if len(self._held) > MAX_HELD_BYTES:
                executed, self._held = _controls(self._held), self._held.translate(None, _CONTROLS)
            if len(self._held) > MAX_HELD_BYTES:
                self._held, is_endless = b"", True
        passed: list[bytes] = []
        for piece in [data] if self.stop_at_primary else _pieces(data):
            if self._dropping is not None:
                piece = self._drop(piece)
            passed.append(piece if self._is_plain(piece) else self._rewrite(piece))
        if is_endless:
            self._dropping = _CSI_END
        return b"".join(passed) + executed

    def _is_plain(self, data: bytes) -> bool:
        """Return whether nothing in it can be of interest."""
        if b"\xc2" in data and _C1.search(data):
            return False
        if b"\x1b" not in data:
            return True
        for character, maybe, sequence in _CANDIDATES:
            found = maybe.search(data) if character in data else None
            while found is not None:
                escape = data.rfind(b"\x1b", 0, found.start())
                if escape >= 0 and sequence.fullmatch(data, escape, found.start()):
                    return False
                found = maybe.search(data, found.end())
        return True

    def _rewrite(self, data: bytes) -> bytes:
        """Return the output without what is taken out, and follow what it does."""
        passed: list[bytes] = []
        done, has_c1 = 0, _C1.search(data) is not None
        while (found := _next_sequence(data, done, has_c1=has_c1)) is not None:
            passed.append(data[done : found.start()])
            done = found.end()
            was_alternate = self.alternate
            if found["ris"] is not None:
                passed.append(found["ris"] + self._reset())
            elif found["final"] is not None:
                passed.append(self._control(found))
            elif found["passthrough"] is not None:
                # What tmux would hand to the terminal around it. The string goes on, under a name that nobody knows.
                passed.append(found[0][:-5] + b"tmuX;")
            elif self._is_dropped(found["osc"]):
                self._dropping = _STRING_END
                data, done = self._drop(data[found.start("osc") :]), 0
            else:
                passed.append(found[0])
            if was_alternate and not self.alternate and self.stop_at_primary:
                self._held, data, done = b"", b"", 0
        passed.append(data[done:])
        return b"".join(passed)

    def _drop(self, data: bytes) -> bytes:
        """Return what follows what is dropped; where its end has not come, only what may be the beginning of that."""
        assert self._dropping is not None
        found = self._dropping.search(data)
        if found is not None:
            self._dropping = None
            return data[found.end() :]
        return data[-1:] if data[-1:] in (b"\x1b", b"\xc2") else b""

    def _reset(self) -> bytes:
        """Return what does what RIS does, and keeps the history."""
        self.alternate = 0
        return RESET + (RESTORE_COLORS if self.has_set_colors else b"")

    def _control(self, found: re.Match[bytes]) -> bytes:
        """Return what is left of an ED, or of modes that are set or reset."""
        parameters = found["parameters"].translate(None, _CONTROLS)
        if not _NUMBERS.fullmatch(parameters):
            return found[0]  # with intermediate bytes or another prefix it is another function
        numbers = [_number(digits) for digits in re.split(rb"[;:]", parameters.lstrip(b"?"))]
        final = found["final"]
        if final == b"J":
            # Windows Terminal takes each parameter, others the first. Numbers that overflow could become any other.
            is_dropped = any(number == 3 or number > 0xFF for number in numbers)
            return _controls(found[0]) if is_dropped else found[0]
        if not parameters.startswith(b"?"):
            return found[0]
        self.has_set_origin = self.has_set_origin or (final == b"h" and 6 in numbers)
        for number in numbers:
            if number in ALTERNATE_MODES:
                self.alternate = 0 if final == b"l" else self.alternate or number
        if _WINDOW_MODES.isdisjoint(numbers):
            return found[0]
        left = b";".join(b"%d" % number for number in numbers if number not in _WINDOW_MODES)
        return _controls(found[0]) + (b"\x1b[?" + left + final if left else b"")

    def _is_dropped(self, head: bytes) -> bool:
        """Return whether an OSC is taken out, by the bytes that it begins with."""
        head = head.translate(None, _CONTROLS)
        self.has_set_colors = self.has_set_colors or _SETS_COLOR.match(head) is not None
        return bool(_ALWAYS_DROPPED.match(head) or (self._read_only and _CLIPBOARD.match(head)))


def _pieces(data: bytes) -> Iterator[bytes]:
    """Return output in pieces, cut before an ESC, which is nowhere within a sequence.

    A picture with its history has something of interest at its ends alone: to look for it in all of a megabyte takes
    half as long as starting a client.
    """
    start = 0
    while len(data) - start > PIECE_BYTES and (end := data.find(b"\x1b", start + PIECE_BYTES)) >= 0:
        if data[end - 1] == 0xC2:  # it may be held as the beginning of a C1 control
            break
        yield data[start:end]
        start = end
    yield data[start:]


def _next_sequence(data: bytes, start: int, *, has_c1: bool) -> re.Match[bytes] | None:
    """Return the first sequence of interest.

    Where all begin with ESC, the pattern is tried only there: to have it search takes 30 ns for each byte of the text
    between, which is all of a history without colours.
    """
    if has_c1:
        return _SEQUENCE.search(data, start)
    while (start := data.find(b"\x1b", start)) >= 0:
        if (found := _SEQUENCE.match(data, start)) is not None:
            return found
        start += 1
    return None


def _number(digits: bytes) -> int:
    """Return a parameter's value; a number of more than nine digits is as large as any."""
    return int(digits.lstrip(b"0")[:10] or b"0")


def _controls(parameters: bytes) -> bytes:
    """Return the control characters within a sequence, which are executed although it goes."""
    return bytes(byte for byte in parameters if byte < 0x20 and byte != 0x1B)
