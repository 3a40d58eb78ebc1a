"""What orbitd and its screens processes say to each other: msgspec Structs in frames over a socketpair.

The payload of a frame (`orbitd.keeper.frames`) is one Struct as MessagePack, tagged with its class. Only orbitd sends
descriptors. No I/O here. Both sides are of one installation and one release: `Hello` says which, and another one is
refused.

**Positions** are those of the session's journal (`orbitd.sessions.journal`): bytes of its records since the session
began. A picture is always at the end of a record.

    orbitd -> template          Fork (descriptors: the socket of the new process; for a screens process the shared note)
    template -> orbitd          Hello, Forked, Exited
    orbitd -> screens process   Open, Follow, Grown, Data, Paint, Frame, Count, Save, Render, Trim, SetAppearance,
                                Watch, Unwatch, Close
    screens process -> orbitd   Hello, Opened, Fed, Painted, Framed, Counted, Saved, Rendered, Found, Failed

Messages of one session are handled in order. A request (it has a `request`) is answered once: by its result or by
`Failed`; requests of sessions that are closed meanwhile too.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import Struct

from orbitd.history.text_blocks import TextBlock
from orbitd.keeper.frames import frame
from orbitd.screens.model import Appearance, Colors, Cut
from orbitd.screens.said import Said

VERSION = 6
"""Of these messages."""

MAX_FRAME = 256 << 20
"""Bytes of one payload: a state with all of its history is far below."""


class Hello(Struct, frozen=True, kw_only=True, tag=True):
    """The first message of a template and of a screens process.

    Attributes:
        unavailable: Why this machine has no terminal emulation, "" where it has. Of the template only.
    """

    version: int = VERSION
    pid: int
    unavailable: str = ""


class Fork(Struct, frozen=True, kw_only=True, tag=True):
    """Fork a process; the frame carries its socket.

    Attributes:
        kind: A screens process, whose note comes behind its socket, or one that searches the history.
    """

    number: int
    kind: Literal["screens", "search"] = "screens"

    @property
    def descriptors(self) -> int:
        """How many descriptors the frame carries."""
        return 2 if self.kind == "screens" else 1


class Forked(Struct, frozen=True, kw_only=True, tag=True):
    """A process runs. `pid` is 0 where it could not be forked; `reason` then says why."""

    number: int
    pid: int
    reason: str = ""


class Exited(Struct, frozen=True, kw_only=True, tag=True):
    """A process has ended; `status` is as `os.waitstatus_to_exitcode` has it, negative for a signal."""

    number: int
    status: int


class Base(Struct, frozen=True, kw_only=True):
    """What a picture is built on: a saved snapshot, in whichever forms it has.

    Attributes:
        native: The emulator's own state; b"" where there is none.
        portable: VT bytes that draw the screen, with the history before them; b"" for a blank one.
        cols: Of the portable bytes, or of a blank screen.
        rows: As `cols`.
    """

    cols: int
    rows: int
    native: bytes = b""
    portable: bytes = b""


class Limits(Struct, frozen=True, kw_only=True):
    """How much history a picture keeps."""

    lines: int
    size: int


class Open(Struct, frozen=True, kw_only=True, tag=True):
    """Build a picture, and feed it the journal from `position` on; answered by `Opened`.

    Attributes:
        position: What `base` covers.
        answer_from: Questions before this position have been answered already: no replies to them, and no bells.
        heard: What was said up to this position has been taken already: it is not sent.
        divider: Drawn on the base first, if not "": what was lost before it.
        note: Likewise, where the program that runs has printed what is lost: nothing is reset.
        history_line: How many lines had left the screen, as far as that is known: no line gets a lower number again.
        appearance: As in `SetAppearance`; None where it is not known: then the base's own stays.
        takes_text: Keep the text that is shown, for `Saved`.
        text_from: What was shown up to this position is recorded already, as far as it has no line number.
        text_line: The lines before this number are recorded already.
    """

    request: int
    session: str
    base: Base
    position: int
    answer_from: int
    limits: Limits
    heard: int = 0
    divider: str = ""
    note: str = ""
    history_line: int = 0
    appearance: Appearance | None = None
    takes_text: bool = False
    text_from: int = 0
    text_line: int = 0


class Follow(Struct, frozen=True, kw_only=True, tag=True):
    """A journal's file, whose descriptor comes with the frame, read-only: the first record in it is at `base`.

    The file before it, if there is one, is read on until the picture has reached `base`.
    """

    session: str
    base: int


class Grown(Struct, frozen=True, kw_only=True, tag=True):
    """The journal's records before `position` are in its file: feed them."""

    session: str
    position: int


class Data(Struct, frozen=True, kw_only=True, tag=True):
    """A record that is in no file, since the disk is full: `record`, header included, ends at `position`."""

    session: str
    position: int
    record: bytes


class Paint(Struct, frozen=True, kw_only=True, tag=True):
    """Draw the picture once it has reached `at_least`; answered by `Painted`.

    Attributes:
        scrollback_lines: How many rows of history come before the screen, at most.
        after_line: Only those behind so many lines of the session.
    """

    request: int
    session: str
    at_least: int
    scrollback_lines: int = 0
    after_line: int | None = None


class Frame(Struct, frozen=True, kw_only=True, tag=True):
    """Draw what a window of another size shows, once the picture has reached `at_least`; answered by `Framed`.

    Attributes:
        left: The first column that was shown before: what is shown moves no further than the cursor makes it.
        top: As `left`, of rows.
    """

    request: int
    session: str
    at_least: int
    cols: int
    rows: int
    left: int = 0
    top: int = 0


class Count(Struct, frozen=True, kw_only=True, tag=True):
    """Count the lines that have left the screen, once the picture has reached `at_least`; answered by `Counted`."""

    request: int
    session: str
    at_least: int


class Save(Struct, frozen=True, kw_only=True, tag=True):
    """Encode the picture once it has reached `at_least`; answered by `Saved`.

    Attributes:
        key_frame: Return a key frame of a film, too.
        text_from: The text that was taken up to this position is recorded: forget it, and return what was taken since.
    """

    request: int
    session: str
    at_least: int
    key_frame: bool = False
    text_from: int = 0


class Render(Struct, frozen=True, kw_only=True, tag=True):
    """Return the screen in a format once it has reached `at_least`; answered by `Rendered`.

    The fields are those of `Emulator.screen`.
    """

    request: int
    session: str
    at_least: int
    format: Literal["text", "vt", "html", "svg"]
    scrollback: bool
    cut: Cut | None = None
    cursor: bool = False
    colors: Colors = Colors()


class Trim(Struct, frozen=True, kw_only=True, tag=True):
    """Drop the oldest history, so that the picture holds about `size` bytes at most.

    Attributes:
        number: Higher than that of every earlier one.
        before_line: Drop all of it that has a lower number, and what is left on an alternate screen that is not in
            use; None for nothing of that.
    """

    number: int
    session: str
    size: int
    before_line: int | None = None


class SetAppearance(Struct, frozen=True, kw_only=True, tag=True):
    """Answer questions about colours and graphics with these from now on."""

    session: str
    appearance: Appearance


class Watch(Struct, frozen=True, kw_only=True, tag=True):
    """Search for a text on the screen at `since`, and in what is printed behind it; answered by one `Found`.

    It holds nothing up, and is forgotten with the picture.
    """

    number: int
    session: str
    pattern: str
    since: int


class Unwatch(Struct, frozen=True, kw_only=True, tag=True):
    """Search for it no more."""

    number: int
    session: str


class Close(Struct, frozen=True, kw_only=True, tag=True):
    """Free a picture. Nothing more is sent about it but `Failed` for what it was asked."""

    session: str


class Facts(Struct, frozen=True, kw_only=True):
    """What a program has said about itself.

    Attributes:
        title: OSC 0 and 2.
        cwd: The working directory as it was reported (OSC 7): mostly a file:// URL.
        alternate: It uses the alternate screen.
        progress: OSC 9;4: the state (1 normal, 2 error, 3 indeterminate, 4 paused) and the percentage, -1 for none.
    """

    title: str = ""
    cwd: str = ""
    alternate: bool = False
    progress: tuple[int, int] | None = None


class Opened(Struct, frozen=True, kw_only=True, tag=True):
    """A picture is there, at the position of `Open`.

    Attributes:
        loss: What of the snapshot could not be used, as a message for the log, or "".
    """

    request: int
    session: str
    loss: str = ""


class Fed(Struct, frozen=True, kw_only=True, tag=True):
    """A picture has reached a position.

    Attributes:
        replies: Answers to the program's questions since the last `Fed`.
        facts: Where they have changed.
        held: About how much memory the picture takes, in bytes.
        trimmed: The number of the last `Trim` before.
        said: Notifications and finished commands since the last `Fed`.
        unsaid: How many more there were.
        bells: How often it rang since then.
    """

    session: str
    position: int
    replies: bytes = b""
    facts: Facts | None = None
    said: tuple[Said, ...] = ()
    unsaid: int = 0
    bells: int = 0
    held: int = 0
    trimmed: int = 0


class Painted(Struct, frozen=True, kw_only=True, tag=True):
    """Bytes that draw a screen on a terminal of this size in any state, as it is at `position`.

    Attributes:
        cursor_row: From 0.
        history_line: How many lines have left the screen since the session began.
    """

    request: int
    position: int
    data: bytes
    cols: int
    rows: int
    cursor_row: int
    history_line: int


class Framed(Struct, frozen=True, kw_only=True, tag=True):
    """What a window shows, as it is at `position`; see `orbitd.screens.frame.Frame`.

    Attributes:
        title: As in `Facts`.
        bells: How often it rang, since the picture was opened.
    """

    request: int
    position: int
    left: int
    top: int
    rows: list[bytes]
    modes: bytes
    column: int
    row: int
    visible: bool
    is_updating: bool
    title: str
    bells: int


class Counted(Struct, frozen=True, kw_only=True, tag=True):
    """How many lines have left the screen since the session began, at `position`."""

    request: int
    position: int
    history_line: int


class TakenText(Struct, frozen=True, kw_only=True):
    """Lines that were shown, taken when the picture was at `position`."""

    position: int
    block: TextBlock


class Saved(Struct, frozen=True, kw_only=True, tag=True):
    """A screen to store.

    Attributes:
        native: b"" where the library refused to encode it; `portable` has the history then.
        key_frame: As `native`, with as much of the history as a terminal that grows may need; b"" where none was asked
            for, or the library refuses.
        text: What was taken since `Save.text_from`, oldest first; empty where no text is taken.
        tail: The lines of the primary screen, which have not left it, numbered from `history_line` on; None where no
            text is taken, where there are none, or where they are not known.
        has_tail: Whether `tail` is known: where it is not, an earlier one stays.
        at: When the newest output before `position` came, in milliseconds since the epoch; 0 if that is not known.
    """

    request: int
    position: int
    native: bytes
    portable: bytes
    cols: int
    rows: int
    title: str
    history_line: int
    key_frame: bytes = b""
    text: tuple[TakenText, ...] = ()
    tail: TextBlock | None = None
    has_tail: bool = False
    at: int = 0


class Rendered(Struct, frozen=True, kw_only=True, tag=True):
    """A screen in a format.

    Attributes:
        column: The cursor's, from 0.
        row: The cursor's, from 0.
        first_line: The number of the first line in `data`, where only a part was asked for.
        total_lines: How many lines there are then.
        too_large: Why nothing is drawn, or "".
    """

    request: int
    position: int
    data: bytes
    cols: int
    rows: int
    column: int
    row: int
    visible: bool
    title: str
    first_line: int | None = None
    total_lines: int | None = None
    too_large: str = ""


class Found(Struct, frozen=True, kw_only=True, tag=True):
    """A text is there: the numbers of those that waited for it, and the line that holds it."""

    session: str
    numbers: list[int]
    line: str


class Failed(Struct, frozen=True, kw_only=True, tag=True):
    """The library refuses, or the session is not open.

    Attributes:
        request: What this answers; None where the picture broke by itself.
        broken: The picture is gone: the records from `start` to `end` broke it, or drawing there, if both are equal.
    """

    request: int | None
    session: str
    reason: str
    broken: bool = False
    start: int = 0
    end: int = 0


ToTemplate = Fork
FromTemplate = Hello | Forked | Exited
ToScreens = (
    Open
    | Follow
    | Grown
    | Data
    | Paint
    | Frame
    | Count
    | Save
    | Render
    | Trim
    | SetAppearance
    | Watch
    | Unwatch
    | Close
)
FromScreens = Hello | Opened | Fed | Painted | Framed | Counted | Saved | Rendered | Found | Failed


_encoder = msgspec.msgpack.Encoder()


def encode(message: Struct) -> bytes:
    """Return one frame. Raises: ValueError, if it would be longer than the reader takes."""
    return frame(_encoder.encode(message), MAX_FRAME)
