r"""What programs say to whoever is away, found in their output: notifications, and commands that have finished.

    OSC 9 ; TEXT                        a notification (iTerm2)
    OSC 777 ; notify ; TITLE ; BODY     a notification (rxvt-unicode)
    OSC 99 ; METADATA ; PAYLOAD         a notification, perhaps in pieces (kitty)
    OSC 133 ; A, C or D                 a prompt, a command's output begins, it has ended (FinalTerm)
    OSC 633 ; A, C, D or E              the same, and the command line (VS Code)

libghostty parses OSC 9 and 777 too, but has no callback for them. Progress (OSC 9;4), the title, the folder and the
bell are its own facts. No library, no I/O: bytes and their positions in, `Said` out.

An ESC begins a new sequence wherever it stands, in a string as well, as it does in libghostty: so no more of the
parser is needed than where the last ESC is. A string ends with BEL or ST (ESC \); CAN, SUB, or an ESC that begins
anything else abort it (ECMA-48; DEC STD 070).
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable
from typing import Literal

from msgspec import Struct

from orbitd.sessions.journal_file import TIME_INTERVAL_MS

Urgency = Literal["low", "normal", "critical"]

MAX_TITLE, MAX_BODY, MAX_LINE = 256, 4096, 1024
"""Characters of a notification's title and body, and of a command line; what is longer ends in an ellipsis."""

MAX_STRING_BYTES = 32 << 10
"""What is kept of one string that comes in pieces; base64 of a body of 4096 characters is 22 KiB."""

MAX_SAID = 64
"""Items that are kept between two calls of `take`; a flood of more is counted."""

MAX_CHUNKED = 8
"""Notifications of OSC 99 that are not complete; the oldest is dropped for another one."""

ELLIPSIS = "…"

# Possessive: a string that nothing ends costs one look at each of its bytes.
_STRING = re.compile(rb"\x1b\](9|99|133|633|777);([^\x07\x18\x1a\x1b]*+)(?:\x07|\x1b\\)")
_BRACKET = re.compile(rb"\x1b\]")
_BEGINNING = re.compile(
    rb"\x1b(?:\](?:9{1,2}|1(?:33?)?|6(?:33?)?|7{1,3}|(?:9|99|133|633|777);[^\x07\x18\x1a\x1b]*+\x1b?)?)?"
)
_END = re.compile(rb"[\x07\x18\x1a\x1b]")  # as in the two above

# ConEmu's commands have the number of iTerm2's notifications: progress, folder, macro ... Those without a parameter (to
# wait for a key, say) are hardly used outside of Windows: a program that says a number is more likely.
_CONEMU = re.compile(rb"(?:[1-9]|1[0-2]);")

_CONTROLS = {code: " " if code in (0x0A, 0x09) else None for code in (*range(0x20), *range(0x7F, 0xA0))}
_BODY_CONTROLS = {code: replacement for code, replacement in _CONTROLS.items() if code not in (0x0A, 0x09)}

_URGENCIES: dict[bytes, Urgency] = {b"0": "low", b"1": "normal", b"2": "critical"}
_EXIT_CODE = re.compile(rb"-?[0-9]{1,10}")
_PERCENT = re.compile(rb"%([0-9A-Fa-f]{2})")
_VSCODE_ESCAPE = re.compile(rb"\\(?:\\|x([0-9A-Fa-f]{2}))")
# One shell word, as `printf %q` of bash and zsh quotes it.
_QUOTED = re.compile(
    rb"\$'((?:[^'\\]|\\.)*)'|'([^']*)'|\"((?:[^\"\\]|\\.)*)\"|\\(.)|((?:[^\\'\"$]|\$(?!'))+|.)", re.DOTALL
)
_ANSI_C = re.compile(rb"\\(?:x([0-9A-Fa-f]{1,2})|u([0-9A-Fa-f]{1,4})|([0-7]{1,3})|(.))", re.DOTALL)
_ANSI_C_LETTERS = dict(zip(b"abeEfnrtv", b"\a\b\x1b\x1b\f\n\r\t\v", strict=True))


class Notified(Struct, frozen=True, kw_only=True, tag=True):
    """A notification.

    Attributes:
        position: Of the journal, where its sequence ends.
    """

    position: int
    title: str
    body: str
    urgency: Urgency = "normal"


class Finished(Struct, frozen=True, kw_only=True, tag=True):
    """A command of a shell has finished; what the shell has not said is None.

    Attributes:
        position: As in `Notified`.
    """

    position: int
    command: str | None
    exit_code: int | None
    duration_secs: float


Said = Notified | Finished


class Chunked(Struct, kw_only=True):
    """A notification of OSC 99 whose last piece has not come."""

    title: str = ""
    body: str = ""
    urgency: Urgency = "normal"


class State(Struct, kw_only=True, omit_defaults=True):
    """What has to be kept with a saved screen, so that another process goes on from there.

    Attributes:
        started_ms: When the output of the command that runs began, in milliseconds since the epoch; None where no
            command is known to run.
        line: Its command line, or that of the next one; None where the shell has not said.
        chunked: By the ids that programs gave them, the oldest first.
        unfinished: The beginning of the sequence that the output has ended in.
    """

    started_ms: int | None = None
    line: str | None = None
    chunked: dict[str, Chunked] = {}
    unfinished: bytes = b""


class Scanner:
    """Follows the output of one session; used by one thread.

    Args:
        state: As it was saved; None for a new session.
        from_position: What ends here or before has been taken already.

    Attributes:
        state: What a saved screen is to hold.
    """

    def __init__(self, state: State | None = None, *, from_position: int = 0) -> None:
        self.state = state or State()
        self.from_position = from_position
        self._said: list[Said] = []
        self._unsaid = 0

    def reset(self) -> None:
        """Forget what another program has begun."""
        self.state = State()

    def take(self) -> tuple[list[Said], int]:
        """Return what was said since the last call, and how much more that was not kept."""
        found = self._said, self._unsaid
        self._said, self._unsaid = [], 0
        return found

    def feed(self, data: bytes, position: int, now: Callable[[], int]) -> None:
        """Follow output, split anywhere.

        Args:
            data: The output.
            position: Of the journal, where it begins.
            now: Returns when it was printed, in milliseconds since the epoch.
        """
        unfinished, self.state.unfinished = self.state.unfinished, b""
        if unfinished:
            room = MAX_STRING_BYTES - len(unfinished)
            if b";" in unfinished and not unfinished.endswith(b"\x1b"):  # in a string, which may be long
                end = _END.search(data)
                if end is None:
                    self.state.unfinished = unfinished + data[:room]
                    return
                # What is too long is left out: it is cut anyway.
                unfinished += data[: min(end.start(), room)]
                data, position = data[end.start() :], position + end.start()
            position -= len(unfinished)
            data = unfinished + data
        # Most output has no bracket behind an ESC. What looks for two bytes is as slow as a pattern, memchr(3) is not.
        if b"]" in data and _BRACKET.search(data):
            for match in _STRING.finditer(data):
                self._handle(match[1], match[2], position + match.end(), now)
        start = data.rfind(b"\x1b")
        if start < 0:
            return
        if start == len(data) - 1:  # perhaps the first byte of the ST behind a string
            before = data.rfind(b"\x1b", 0, start)
            if before >= 0 and _BEGINNING.fullmatch(data, before):
                start = before
        if _BEGINNING.fullmatch(data, start):
            last = b"\x1b" if len(data) - start > MAX_STRING_BYTES and data.endswith(b"\x1b") else b""
            self.state.unfinished = data[start : start + MAX_STRING_BYTES - len(last)] + last

    def _handle(self, number: bytes, payload: bytes, position: int, now: Callable[[], int]) -> None:
        if number in (b"133", b"633"):
            self._handle_mark(number, payload, position, now)
        elif number == b"9":
            if not _CONEMU.match(payload):
                self._notify(position, b"", payload)
        elif number == b"777":
            kind, _, rest = payload.partition(b";")
            if kind == b"notify":
                title, _, body = rest.partition(b";")
                self._notify(position, title, body)
        else:
            self._handle_chunk(payload, position)

    def _notify(self, position: int, title: bytes, body: bytes) -> None:
        if len(self._said) >= MAX_SAID and position > self.from_position:
            self._unsaid += 1  # a flood is not even decoded
            return
        found = Notified(position=position, title=shown(title, MAX_TITLE), body=shown(body, MAX_BODY, lines=True))
        if found.title or found.body:
            self._add(found)

    def _add(self, said: Said) -> None:
        if said.position <= self.from_position:
            return
        if len(self._said) >= MAX_SAID:
            self._unsaid += 1
        else:
            self._said.append(said)

    # OSC 99: sw.kovidgoyal.net/kitty/desktop-notifications

    def _handle_chunk(self, payload: bytes, position: int) -> None:
        metadata, _, content = payload.partition(b";")
        keys = dict(pair.partition(b"=")[::2] for pair in metadata[:MAX_TITLE].split(b":"))
        kind = keys.get(b"p", b"title")
        if kind in (b"?", b"alive", b"close"):  # about a notification, and none
            return
        number, chunked = shown(keys.get(b"i", b""), MAX_TITLE), self.state.chunked
        note = chunked.pop(number, None) or Chunked()
        note.urgency = _URGENCIES.get(keys.get(b"u", b""), note.urgency)
        if kind in (b"title", b"body"):
            if keys.get(b"e") == b"1":
                content = _from_base64(content)
            if kind == b"title":
                note.title = cut(note.title + shown(content, MAX_TITLE), MAX_TITLE)
            else:
                note.body = cut(note.body + shown(content, MAX_BODY, lines=True), MAX_BODY)
        if keys.get(b"d") == b"0":
            chunked[number] = note
            while len(chunked) > MAX_CHUNKED:
                del chunked[next(iter(chunked))]
        elif note.title or note.body:
            self._add(Notified(position=position, title=note.title, body=note.body, urgency=note.urgency))

    # OSC 133: gitlab.freedesktop.org/Per_Bothner/specifications; its command line is kitty's. OSC 633: VS Code's.

    def _handle_mark(self, number: bytes, payload: bytes, position: int, now: Callable[[], int]) -> None:
        """Follow the marks of a shell.

        A shell may print both kinds, so that a second C changes nothing; a prompt ends what has no D, such as
        what a shell ran that runs inside another one.
        """
        mark, state = payload[:2], self.state
        if mark in (b"A", b"A;"):
            state.started_ms = state.line = None
        elif mark == b"E;" and number == b"633":
            line = payload[2:].split(b";")[0]  # the shell's nonce follows; semicolons of the line are escaped
            state.line = shown(_VSCODE_ESCAPE.sub(_vscode_character, line), MAX_LINE, lines=True) or None
        elif mark in (b"C", b"C;"):
            state.line = _command_line(payload[2:]) or state.line
            if state.started_ms is None:
                state.started_ms = now()
        elif mark in (b"D", b"D;") and state.started_ms is not None:
            code = _EXIT_CODE.fullmatch(payload[2:].split(b";")[0])
            finished = Finished(
                position=position,
                command=state.line,
                exit_code=int(code[0]) if code else None,
                duration_secs=round(max(0, now() - state.started_ms) / 1000, 3),
            )
            state.started_ms = state.line = None
            self._add(finished)


class Clock:
    """When output was printed, by the times in its journal and the clock.

    The journal has the time once in `TIME_INTERVAL_MS`. Output that is followed while it is printed is younger than
    that by what the clock says; what is read again later can be no younger than the next time in the journal.

    Args:
        wall: The time in milliseconds since the epoch.

    Attributes:
        recorded: The last time in the journal; 0 before the first.
    """

    def __init__(self, wall: Callable[[], int]) -> None:
        self._wall = wall
        self.recorded = 0

    def now(self) -> int:
        """Return when the output behind the last time was printed."""
        wall = self._wall()
        return min(max(wall, self.recorded), self.recorded + TIME_INTERVAL_MS) if self.recorded else wall


def shown(data: bytes, most: int, *, lines: bool = False) -> str:
    """Return what a program has sent as text without control characters; a title has no lines either."""
    # One character has up to four bytes; control characters may come on top, of which few are real.
    text = data[: 8 * most].decode("utf-8", "replace").translate(_BODY_CONTROLS if lines else _CONTROLS)
    return cut(text, most)


def cut(text: str, most: int) -> str:
    """Return a text of at most so many characters."""
    return text if len(text) <= most else text[: most - 1] + ELLIPSIS


def _from_base64(data: bytes) -> bytes:
    """Return what base64 stands for; b"" for what is none. The padding may be missing, and the end cut off."""
    data = data[: len(data) - (len(data) % 4 == 1)]
    try:
        return binascii.a2b_base64(data + b"=" * (-len(data) % 4))
    except binascii.Error:
        return b""


def _command_line(options: bytes) -> str | None:
    """Return the command line of OSC 133;C, in the encodings of kitty and fish; None where it has none."""
    options = b";" + options
    place = options.find(b";cmdline")
    name, _, value = options[place + 1 :].partition(b"=") if place >= 0 else (b"", b"", b"")
    if name == b"cmdline_url":
        value = _PERCENT.sub(lambda match: bytes([int(match[1], 16)]), value.split(b";")[0])
    elif name == b"cmdline":  # to the end: its semicolons are quoted
        value = b"".join(map(_unquoted, _QUOTED.finditer(value)))
    else:
        return None
    return shown(value, MAX_LINE, lines=True) or None


def _unquoted(match: re.Match[bytes]) -> bytes:
    ansi_c, single, double, escaped, plain = match.groups()
    if ansi_c is not None:
        return _ANSI_C.sub(_ansi_c_character, ansi_c)
    if double is not None:
        return re.sub(rb'\\([\\"$`])', rb"\1", double)
    found: bytes = next(each for each in (single, escaped, plain) if each is not None)
    return found


def _ansi_c_character(match: re.Match[bytes]) -> bytes:
    hexadecimal, unicode, octal, letter = match.groups()
    if unicode is not None:
        return chr(int(unicode, 16)).encode("utf-8", "replace")
    if letter is not None:
        return bytes([_ANSI_C_LETTERS.get(letter[0], letter[0])])
    return bytes([int(hexadecimal, 16) if hexadecimal is not None else int(octal, 8) & 0xFF])


def _vscode_character(match: re.Match[bytes]) -> bytes:
    return b"\\" if match[1] is None else bytes([int(match[1], 16)])
