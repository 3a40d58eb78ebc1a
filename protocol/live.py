"""Params, results and notifications of live sessions: terminals that orbitd owns.

Sizes are in cells; `data` is what a terminal sends or takes, base64 in JSON.
"""

from __future__ import annotations

import signal
from typing import Annotated, Literal

from msgspec import Meta, Struct

from protocol.params import ById, Params
from protocol.types import Cells, Environment, Id, Session, check_environment

MAX_SCREEN_CELLS = 1_000_000
MAX_INPUT_BYTES = 1024 * 1024
SIGNALS = {one.name: int(one) for one in signal.Signals}
ScreenFormat = Literal["text", "vt", "html"]


def check_size(cols: int, rows: int) -> None:
    """Refuse a screen that would take more memory than it could be worth. Raises: ValueError."""
    if cols * rows > MAX_SCREEN_CELLS:
        raise ValueError(f"`cols` times `rows` is more than {MAX_SCREEN_CELLS}")


class SessionStart(ById, frozen=True, kw_only=True):
    """Run a session's program. `env` lies over the daemon's own environment and is never stored."""

    cols: Cells = 80
    rows: Cells = 24
    env: Environment | None = None

    def __post_init__(self) -> None:
        """Check what no single type can. Raises: ValueError."""
        check_size(self.cols, self.rows)
        check_environment(self.env)


class SessionAttach(ById, frozen=True, kw_only=True):
    """Be sent a session's output. `scrollback_lines` of history are drawn before the screen.

    Of `env` only SSH_AUTH_SOCK is looked at: the session's programs find the agent there.
    """

    cols: Cells
    rows: Cells
    read_only: bool = False
    scrollback_lines: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    env: Environment | None = None

    def __post_init__(self) -> None:
        """Check what no single type can. Raises: ValueError."""
        check_size(self.cols, self.rows)


class ByAttachment(Params, frozen=True, kw_only=True):
    """One attachment of this connection."""

    attachment_id: Id


class SessionInput(ByAttachment, frozen=True, kw_only=True):
    """What the user typed."""

    data: Annotated[bytes, Meta(max_length=MAX_INPUT_BYTES)]


class SessionResize(ByAttachment, frozen=True, kw_only=True):
    """The size of the user's window now."""

    cols: Cells
    rows: Cells

    def __post_init__(self) -> None:
        """Check what no single type can. Raises: ValueError."""
        check_size(self.cols, self.rows)


class SessionSend(ById, frozen=True, kw_only=True):
    """What to type into a session without attaching."""

    data: Annotated[bytes, Meta(max_length=MAX_INPUT_BYTES)]


class SessionScreen(ById, frozen=True, kw_only=True):
    """How to return the screen; with `scrollback`, the whole history before it."""

    format: ScreenFormat = "text"
    scrollback: bool = False


class SessionWait(ById, frozen=True, kw_only=True):
    """How long to wait for a program's end; without `timeout_secs`, for ever."""

    timeout_secs: Annotated[float, Meta(ge=0, le=31_536_000)] | None = None


class SessionSignal(ById, frozen=True, kw_only=True):
    """A signal by name (`TERM` or `SIGTERM`), for the session's process group."""

    signal: Annotated[str, Meta(min_length=1, max_length=16)]

    def __post_init__(self) -> None:
        """Refuse what is no signal here. Raises: ValueError."""
        if self.number is None:
            raise ValueError("`signal` is no signal's name; TERM, INT and HUP are, for example")

    @property
    def number(self) -> int | None:
        """The signal's number on this machine."""
        name = self.signal.upper()
        return SIGNALS.get(name) or SIGNALS.get("SIG" + name)


class Attached(Struct, frozen=True, kw_only=True):
    """What an attach gives: `repaint` draws the screen on a cleared terminal of the session's size."""

    attachment_id: str
    session: Session
    repaint: bytes


class CursorPosition(Struct, frozen=True, kw_only=True):
    """Where the cursor is, from 0, and whether it is shown."""

    col: int
    row: int
    visible: bool


class Screen(Struct, frozen=True, kw_only=True):
    """A session's screen; `data` is plain text for the formats text and html, and base64 for vt."""

    data: str
    cols: int
    rows: int
    cursor: CursorPosition
    title: str


class Exit(Struct, frozen=True, kw_only=True):
    """How a program ended: one of the two is null."""

    exit_code: int | None
    exit_signal: int | None


class OutputNotice(Struct, frozen=True, kw_only=True):
    """What the program wrote."""

    attachment_id: str
    data: bytes


class RepaintNotice(Struct, frozen=True, kw_only=True):
    """The screen anew, after output was left out or the size changed; clear the terminal first."""

    attachment_id: str
    data: bytes
    cols: int
    rows: int


class ExitedNotice(Exit, frozen=True, kw_only=True):
    """The program has ended; nothing more comes for this attachment."""

    attachment_id: str


class DetachedNotice(Struct, frozen=True, kw_only=True):
    """The attachment was ended from elsewhere, by `session.detach`."""

    attachment_id: str
