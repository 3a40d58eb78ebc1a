r"""Find the detach key in what a user types. No I/O: bytes in, bytes for the program out.

A key may be a sequence (`C-a d`), and a key may be several bytes (`CSI 92;5u`). Two things are held
back: the keys of a sequence that matched so far, until the next key decides; and the first bytes
of one key, until the rest comes or `flush` is called, a moment later. A lone ESC is passed on at
once, so that Escape is not delayed; where the rest of a sequence follows it after all, the sequence
is still recognized.

What is between the marks of a bracketed paste (`CSI 200 ~`, `CSI 201 ~`) is text, the bytes of the detach key too. A
terminal sends the marks only where a program has asked for them (mode 2004), so that they are always marks.

What follows the detach key in the same read is dropped, as in tmux: it was meant for the shell that comes back, and a
terminal cannot be given back what was read from it (TIOCSTI is switched off on most systems). What was not read
yet stays in the terminal for that shell.
"""

from __future__ import annotations

import re

from orbitctl.attach.keys import Key, is_release_or_modifier, parse_key

DEFAULT_DETACH_KEY = "C-\\"
MAX_KEY_BYTES = 32
"""Bytes of the longest sequence that a key may send."""
PARTIAL_KEY_SECONDS = 0.05
"""How long the bytes of one key may be apart."""

PASTE_START, PASTE_END = b"\x1b[200~", b"\x1b[201~"


class DetachKey:
    r"""The keys that detach, as the user wrote them: `C-\`, `^q`, `C-a d`; `none` for no key.

    Raises:
        ValueError: It is not a key, or one that is needed for typing.
    """

    def __init__(self, text: str) -> None:
        names = [] if text.lower() == "none" else text.split()
        self.text = " ".join(names)
        self.keys: tuple[Key, ...] = tuple(parse_key(name) for name in names)
        if not names and text.lower() != "none":
            raise ValueError("the detach key is empty; `none` turns it off")
        if shifted := [name for name, key in zip(names, self.keys, strict=False) if key.is_shifted_control]:
            raise ValueError(f"most terminals send for {shifted[0]!r} what they send without Shift; take another key")
        if self.keys and not (self.keys[0].modifiers & ~1 or self.keys[0].plain < b" "):
            raise ValueError(f"{names[0]!r} is a key for typing; begin with Ctrl or Alt, as in C-a d")
        if self.keys and self.keys[0].plain == b"\x1b":
            raise ValueError("every arrow and function key begins with Escape; take another key")

    @property
    def hint(self) -> str:
        """A few words on how to detach; empty where no key does."""
        return f"{self.text} detaches." if self.keys else ""


class KeyFilter:
    """Looks for the detach key in a stream of input; one for each attach."""

    def __init__(self, key: DetachKey) -> None:
        self._keys = key.keys
        leads = {key.plain[:1] for key in self._keys}
        others = b"[^" + b"".join(re.escape(lead) for lead in sorted(leads | {b"\x1b"})) + b"]+"
        # One token is one key. In order: a whole control sequence (parameter bytes, intermediate bytes, a final
        # byte: ECMA-48, 5.4); the beginning of one at the end of the input; ESC and one byte (Alt); a run of bytes
        # that begin no detach key; any single byte.
        self._tokens = re.compile(
            rb"\x1b\[[0-9:;<=>?]*[ -/]*[@-~]|\x1b\[[0-9:;]*\Z|\x1b[^\x1b\[]|" + others + rb"|[\x00-\xff]"
        )
        self._triggers = (*leads, b"\x1b[")
        self._matched = 0  # how many keys of the sequence have been seen
        self._held = b""  # their bytes
        self._partial = b""  # the beginning of one key
        self._passed = b""  # the beginning of a control sequence that was passed on: ESC, or what `flush` returned
        self._skip = 0  # how much of the input has been passed on before
        self._paste: bytes | None = None  # in a paste, the last bytes of it, in which its end may begin

    @property
    def is_partial(self) -> bool:
        """Whether the beginning of one key is held, so that `flush` is due in `PARTIAL_KEY_SECONDS`."""
        return bool(self._partial)

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """Handle what was typed; return the bytes for the program, and whether the detach key is complete."""
        # The rest of a control sequence whose beginning was not held: the beginning is put before it again, so that
        # a sequence cut there is recognized, and `_pass` takes it off.
        before, self._passed = self._passed, b""
        if before and (data[:1] == b"[" if before == b"\x1b" else b" " <= data[:1] <= b"~"):
            data, self._skip = before + data, len(before)
        data, self._partial = self._partial + data, b""
        # The usual case: nothing in it can begin the detach key, in any encoding, so that it is not cut into tokens.
        is_plain = self._paste is None and not self._held
        if not self._keys or (is_plain and not any(trigger in data for trigger in self._triggers)):
            return self._pass(data), False
        passed = bytearray()
        at = self._skip_paste(data, 0)
        passed += data[:at]
        while at < len(data):
            found = self._tokens.match(data, at)
            assert found is not None  # the last alternative is any byte
            token, at = found[0], found.end()
            if self._may_continue(token):
                self._partial = token  # the last token: only at the end of the input can more follow
            elif self._match(token, passed):
                return self._pass(bytes(passed)), True
            elif token == PASTE_START:
                self._paste = b""
                end = self._skip_paste(data, at)
                passed += data[at:end]
                at = end
        return self._pass(bytes(passed)), False

    def _skip_paste(self, data: bytes, start: int) -> int:
        """Return where the paste ends that goes on at `start`, if there is one; otherwise `start`."""
        if self._paste is None:
            return start
        tail = self._paste + data[start:]
        found = tail.find(PASTE_END)
        if found < 0:
            self._paste = tail[-(len(PASTE_END) - 1) :]
            return len(data)
        end = found + len(PASTE_END) - len(self._paste)
        self._paste = None
        return start + end

    def flush(self) -> bytes:
        """Return what was held, since the rest of a key has not come in time."""
        partial, self._partial = self._partial, b""
        held, self._held, self._matched = self._held, b"", 0
        passed = self._pass(held + partial)
        self._passed = partial or self._passed
        return passed

    def _pass(self, data: bytes) -> bytes:
        """Return bytes for the program, without those that it has already."""
        if data:
            data, self._skip = data[self._skip :], 0
            self._passed = b"\x1b" if data.endswith(b"\x1b") and self._paste is None else b""
        return data

    def _may_continue(self, token: bytes) -> bool:
        """Return whether more bytes of the same key may follow."""
        if token == b"\x1b":
            return self._matched > 0  # in the middle of a sequence a moment's delay is not felt
        if not token.startswith(b"\x1b[") or len(token) > MAX_KEY_BYTES:
            return False
        return token == b"\x1b[" or not 0x40 <= token[-1] < 0x7F  # no final byte yet (ECMA-48, 5.4)

    def _match(self, token: bytes, passed: bytearray) -> bool:
        """Compare one key with the next of the sequence; return whether it completes the sequence."""
        if self._matched and is_release_or_modifier(token):
            self._held += token  # between the keys of a sequence the first is released
            return False
        if self._matched and not self._keys[self._matched].is_sent_as(token):
            # The sequence is broken: its keys go to the program, and this one may begin it once more.
            passed += self._held
            self._held, self._matched = b"", 0
        if not self._keys[self._matched].is_sent_as(token):
            passed += token
            return False
        self._held += token
        self._matched += 1
        return self._matched == len(self._keys)
