r"""Finds the detach key in what a user types, sans I/O: bytes in, bytes for the program out.

A key may be a sequence (`C-a d`). What could become it is held back: the first keys of the
sequence until the next key tells, the first bytes of one key's sequence until `flush`, which is
called a moment later. A lone ESC is not held, so that Escape is as quick as ever; where the rest
of a sequence follows it after all, the sequence is still seen.
"""

from __future__ import annotations

import re

from orbitctl.attach.keys import Key, is_no_press, parse_key

DEFAULT_DETACH_KEY = "C-\\"
LONGEST_KEY = 32
"""Bytes of the longest sequence that a key may send."""
HOLD_SECONDS = 0.05
"""How long the bytes of one key may be apart."""


class DetachKey:
    r"""The keys that detach, as the user wrote them: `C-\`, `^q`, `C-a d`; `none` for no key.

    Raises:
        ValueError: That is no key, or one that is needed for typing.
    """

    def __init__(self, text: str) -> None:
        names = [] if text.lower() == "none" else text.split()
        self.text = " ".join(names)
        self.keys: tuple[Key, ...] = tuple(parse_key(name) for name in names)
        if not names and text.lower() != "none":
            raise ValueError("the detach key is empty; `none` turns it off")
        if self.keys and not (self.keys[0].modifiers & ~1 or self.keys[0].plain < b" "):
            raise ValueError(f"{names[0]!r} is a key for typing; begin with Ctrl or Alt, as in C-a d")
        if self.keys and self.keys[0].plain == b"\x1b":
            raise ValueError("every arrow and function key begins with Escape; take another key")

    @property
    def hint(self) -> str:
        """A few words on how to leave."""
        return f"{self.text} detaches." if self.keys else ""


class KeyFilter:
    """Looks for a detach key; made anew for each attach."""

    def __init__(self, key: DetachKey) -> None:
        self._keys = key.keys
        leads = {key.plain[:1] for key in self._keys}
        others = b"[^" + b"".join(re.escape(lead) for lead in sorted(leads | {b"\x1b"})) + b"]+"
        self._tokens = re.compile(
            rb"\x1b\[[0-9:;<=>?]*[ -/]*[@-~]|\x1b\[[0-9:;]*\Z|\x1b[^\x1b\[]|" + others + rb"|[\x00-\xff]"
        )
        self._triggers = (*leads, b"\x1b[")
        self._matched = 0
        self._held = b""
        self._partial = b""
        self._is_escape_sent = False  # the last byte that went through is ESC
        self._is_ahead = False  # the first byte of what is looked at, ESC, has gone through already

    @property
    def is_waiting(self) -> bool:
        """Whether the beginning of one key's bytes is held, so that `flush` is due in `HOLD_SECONDS`."""
        return bool(self._partial)

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """Take what was typed; return what goes to the program, and whether the detach key is complete."""
        if self._is_escape_sent and data.startswith(b"["):
            data, self._is_ahead, self._is_escape_sent = b"\x1b" + data, True, False
        data, self._partial = self._partial + data, b""
        if not self._keys or not (self._held or any(trigger in data for trigger in self._triggers)):
            return self._through(data), False
        passed = bytearray()
        for token in self._tokens.findall(data):
            if self._is_partial(token):
                self._partial = token
            elif self._take(token, passed):
                return self._through(bytes(passed)), True
        return self._through(bytes(passed)), False

    def flush(self) -> bytes:
        """Return what was held of one key, whose rest has not come."""
        partial, self._partial = self._partial, b""
        held, self._held, self._matched = self._held, b"", 0
        return self._through(held + partial)

    def _through(self, data: bytes) -> bytes:
        """Let bytes through, but for an ESC that has gone ahead."""
        if data:
            if self._is_ahead:
                data, self._is_ahead = data[1:], False
            self._is_escape_sent = data.endswith(b"\x1b")
        return data

    def _is_partial(self, token: bytes) -> bool:
        """Tell whether more of one key may follow: a final byte ends a control sequence (ECMA-48, 5.4)."""
        if token == b"\x1b":
            return self._matched > 0
        if not token.startswith(b"\x1b[") or len(token) > LONGEST_KEY:
            return False
        return token == b"\x1b[" or not 0x40 <= token[-1] < 0x7F

    def _take(self, token: bytes, passed: bytearray) -> bool:
        """Look at one key; return whether it completes the sequence."""
        if self._matched and is_no_press(token):
            self._held += token
            return False
        if self._matched and not self._keys[self._matched].is_sent_as(token):
            passed += self._held
            self._held, self._matched = b"", 0
        if not self._keys[self._matched].is_sent_as(token):
            passed += token
            return False
        self._held += token
        self._matched += 1
        return self._matched == len(self._keys)
