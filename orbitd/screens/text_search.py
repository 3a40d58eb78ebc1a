"""Find a text in what a program prints: no I/O, no emulator.

A line may be on the screen for no time at all: in a flood, or where the program clears it. So two things are searched.
What is printed is read as it comes: lines of text, without the sequences that only change how it looks. What is on the
screen is looked at now and then (`ScreensProcess`): there a text is found that was put together by moving the cursor.

Nothing is interpreted here beyond what ends a piece of text: a carriage return, a backspace and each sequence that
moves the cursor end a line.
"""

from __future__ import annotations

import re

from orbitd.screens.messages import Unwatch, Watch

MAX_LINE_BYTES = 64 << 10
"""Of a line that has no end yet; the patterns are shorter. What is before them is dropped."""

_CSI = rb"\[[0-9:;<=>?]*[ -/]*"
# A string ends at ST, and an OSC at BEL too; CAN, SUB and the beginning of another sequence abort it.
_OSC_END, _DCS_END = rb"(?:\x07|\x1b\\|[\x18\x1a]|(?=\x1b[^\\]))", rb"(?:\x1b\\|[\x18\x1a]|(?=\x1b[^\\]))"
_OSC, _DCS = rb"\][^\x07\x18\x1a\x1b]*", rb"[PX^_][^\x18\x1a\x1b]*"
# Colours, modes, reports, charsets; EL, which programs print behind text (grep, ninja) and which moves nothing.
_UNSEEN = re.compile(rb"\x1b(?:%b[KRchlmnpqt]|%b%b|%b%b|[ -/]+[0-~]|[=>\\])" % (_CSI, _OSC, _OSC_END, _DCS, _DCS_END))
_MOVING = re.compile(rb"\x1b(?:%b[@-~]|[0-Z`-~])" % _CSI)
_UNFINISHED = re.compile(rb"\x1b(?:(?P<string>%b|%b)\x1b?|%b|[ -/]*)\Z" % (_OSC, _DCS, _CSI))
_STRING_ENDS = {b"]": re.compile(_OSC_END)}
_DCS_STRING_END = re.compile(_DCS_END)
_MAX_UNFINISHED = 256  # bytes of a control sequence
_ENDS = b"\x08\x0b\x0c\r\x1b"  # of a line, beside the line feed
_AS_TEXT = bytes.maketrans(_ENDS + b"\t", b"\n" * len(_ENDS) + b" ")
_DROPPED = bytes(set(range(0x20)) - set(_ENDS + b"\n\t")) + b"\x7f"
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f]")


class PrintedText:
    """The text of a program's output, fed in pieces that may be split anywhere."""

    def __init__(self) -> None:
        self._text = b""
        self._searched = 0  # so much of it was searched, and nothing found
        self._unfinished = b""
        self._string: re.Pattern[bytes] | None = None  # ends the string that has begun

    def begin(self, line: bytes) -> None:
        """Begin behind a line that has no end yet, for whoever searches from here on."""
        if not self._text:
            self._text = line[-MAX_LINE_BYTES:]
        self._searched = 0

    def feed(self, data: bytes) -> None:
        """Add output."""
        data, self._unfinished = self._unfinished + data, b""
        if self._string is not None:
            data = self._behind_string(data)
        if b"\x1b" in data:
            data = self._without_sequences(data)
        self._text += data.translate(_AS_TEXT, _DROPPED)

    def _behind_string(self, data: bytes) -> bytes:
        assert self._string is not None
        found = self._string.search(data)
        if found is None:
            if data.endswith(b"\x1b"):
                self._unfinished = b"\x1b"
            return b""
        self._string = None
        return data[found.end() :]

    def _without_sequences(self, data: bytes) -> bytes:
        # The last sequence, if it has no end yet; behind the ESC at the very end a string before it may go on.
        start = data.rfind(b"\x1b")
        found = _UNFINISHED.match(data, start)
        before = data.rfind(b"\x1b", 0, start)
        if start == len(data) - 1 and before >= 0 and (string := _UNFINISHED.match(data, before)) is not None:
            found = string
        rest = b"" if found is None else found[0]
        if found is not None:
            if found["string"]:
                rest = b"\x1b["
                data = data[: found.start()] + rest
                self._string = _STRING_ENDS.get(found[0][1:2], _DCS_STRING_END)
                self._unfinished = b"\x1b" if found[0].endswith(b"\x1b") else b""
            elif len(rest) <= _MAX_UNFINISHED:
                self._unfinished = rest
        # With the rest, whose ESC ends a string before it.
        return _MOVING.sub(b"\n", _UNSEEN.sub(b"", data)).removesuffix(rest)

    def find(self, patterns: list[bytes], *, is_all: bool) -> dict[bytes, str]:
        """Return the patterns that are in the text, each with the first line that holds it.

        Args:
            patterns: What is searched for.
            is_all: No more output is there yet: a line without an end counts too, for what it holds so far.
        """
        text, found = self._text, dict[bytes, str]()
        last_line, waits = text.rfind(b"\n") + 1, False
        for pattern in patterns:
            place = text.find(pattern, max(0, self._searched - len(pattern)))
            if place < 0:
                continue
            if place >= last_line and not is_all and len(text) - last_line < MAX_LINE_BYTES:
                waits = True  # for the rest of the line
            else:
                found[pattern] = line_at(text, place)
        if len(text) - last_line > MAX_LINE_BYTES:
            last_line = len(text) - MAX_LINE_BYTES // 2
        self._text = text[last_line:]
        self._searched = 0 if waits else len(self._text)
        return found


def line_at(text: bytes, place: int) -> str:
    """Return the line at a place of a text, without control characters and blanks at its end."""
    end = text.find(b"\n", place)
    line = text[text.rfind(b"\n", 0, place) + 1 : len(text) if end < 0 else end]
    return _CONTROLS.sub("", line.decode("utf-8", "replace")).rstrip()


Found = list[tuple[list[int], str]]
"""What was found: the numbers of those that waited for it, and the line that holds it."""


class TextSearch:
    """What is searched for in the output of one session.

    Attributes:
        is_due: The screen has changed since it was looked at.
        next_look: When it may be looked at again: the clock's time.
    """

    def __init__(self) -> None:
        self.is_due = False
        self.next_look = 0.0
        self._new: dict[int, Watch] = {}
        self._numbers: dict[bytes, set[int]] = {}  # of those that have begun, by what they wait for
        self._printed = PrintedText()

    def __bool__(self) -> bool:
        return bool(self._new or self._numbers)

    def update(self, message: Watch | Unwatch) -> None:
        """Search for one more text, or for one less."""
        if isinstance(message, Watch):
            self._new[message.number] = message
            return
        self._new.pop(message.number, None)
        for pattern, numbers in list(self._numbers.items()):
            numbers.discard(message.number)
            if not numbers:
                self._take(pattern)

    def begins_at(self, position: int) -> bool:
        """Return whether a search has to begin at a position, before anything behind it is fed."""
        return bool(self._new) and any(watch.since <= position for watch in self._new.values())

    def feed(self, data: bytes, *, is_all: bool) -> Found:
        """Search output that has been fed; `is_all` says that no more is there yet."""
        if not self._numbers:
            return []
        self.is_due = True
        self._printed.feed(data)
        found = self._printed.find(list(self._numbers), is_all=is_all)
        return [(self._take(pattern), line) for pattern, line in found.items()]

    def look(self, position: int, screen: bytes, line: bytes) -> Found:
        """Search the screen.

        Args:
            position: Where the picture is: searches from here on begin.
            screen: Its lines.
            line: The line that the cursor is in, up to the cursor.
        """
        self.is_due = False
        for watch in [each for each in self._new.values() if each.since <= position]:
            del self._new[watch.number]
            self._numbers.setdefault(watch.pattern.encode(), set()).add(watch.number)
            self._printed.begin(line)
        places = {pattern: screen.find(pattern) for pattern in self._numbers}
        return [(self._take(each), line_at(screen, place)) for each, place in places.items() if place >= 0]

    def _take(self, pattern: bytes) -> list[int]:
        """Search for a text no more; return the numbers of those that waited for it."""
        numbers = sorted(self._numbers.pop(pattern))
        if not self._numbers:
            self._printed, self.is_due = PrintedText(), False
        return numbers
