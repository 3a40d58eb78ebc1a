"""What an attach is asked for, how it ends, and the one line that it writes itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from orbit_protocol.types import Session
from orbitctl.attach.detach_key import DetachKey


@dataclass(frozen=True, kw_only=True)
class AttachOptions:
    """What the user asked for."""

    session: Session
    read_only: bool
    detach_key: DetachKey
    scrollback_lines: int
    env: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class AttachResult:
    """How an attachment came to its end; of `ended`, one of the two is known, or neither."""

    how: Literal["detached", "put off", "ended", "hung up"]
    exit_code: int | None = None
    exit_signal: int | None = None


def notice(words: str) -> bytes:
    """Return bytes that show a line at the bottom of whatever is there; the next repaint takes it away."""
    return f"\x18\x1b\\\x1b7\x1b[r\x1b[999;1H\x1b[0;7m {words.strip()} \x1b[m\x1b[K\x1b8".encode()
