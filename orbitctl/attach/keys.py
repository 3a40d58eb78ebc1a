r"""Keys by name, and what a terminal sends for them.

`C-a`, `^a` and `Ctrl-a` are one key, `M-x` is Alt-x, one character is itself, and the rest have
names. Terminals encode keys in three ways: the traditional one (one byte, ESC before it for Alt),
the kitty keyboard protocol (`CSI code;modifiers u`), and xterm's modifyOtherKeys
(`CSI 27;modifiers;code ~`). Which one is used, the program in the session has chosen.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_SHIFT, _ALT, _CTRL = 1, 2, 4
_LOCKS = 64 | 128  # caps lock and num lock do not make another key
_RELEASE = b"3"  # the kitty protocol's event type; 1 is a press, 2 a repeat
_MODIFIER_KEYS = range(57_441, 57_455)  # the keys themselves: left shift ... ISO level 5 shift

_PREFIX = re.compile(r"(?:(?P<ctrl>C-|Ctrl-|\^)|(?P<alt>M-|Alt-|A-))(?=.)", re.IGNORECASE)
_KITTY = re.compile(rb"\x1b\[(\d+)(?::\d*)?(?::(\d*))?(?:;(\d*)(?::(\d+))?)?(?:;[\d:]*)?u")
_OTHER_KEYS = re.compile(rb"\x1b\[27;(\d+);(\d+)~")

CURSOR_KEYS = {"up": "A", "down": "B", "right": "C", "left": "D", "home": "H", "end": "F"}
"""Sent as `CSI x`, or as `SS3 x` where the program has set application cursor keys (DECCKM)."""
NAMED = {
    "enter": "\r", "return": "\r", "tab": "\t", "esc": "\x1b", "escape": "\x1b", "space": " ", "backspace": "\x7f",
    "bspace": "\x7f", "btab": "\x1b[Z", "insert": "\x1b[2~", "delete": "\x1b[3~", "del": "\x1b[3~",
    "pageup": "\x1b[5~", "pgup": "\x1b[5~", "pagedown": "\x1b[6~", "pgdn": "\x1b[6~",
    "f1": "\x1bOP", "f2": "\x1bOQ", "f3": "\x1bOR", "f4": "\x1bOS", "f5": "\x1b[15~", "f6": "\x1b[17~",
    "f7": "\x1b[18~", "f8": "\x1b[19~", "f9": "\x1b[20~", "f10": "\x1b[21~", "f11": "\x1b[23~", "f12": "\x1b[24~",
}  # fmt: skip
_PLAIN_NAMES = {"enter": "\r", "return": "\r", "tab": "\t", "esc": "\x1b", "escape": "\x1b", "space": " "}
_CONTROLS = {
    **{chr(code + 0x60): code for code in range(1, 27)},
    **dict(zip("@[\\]^_", (0, *range(27, 32)), strict=True)),
    " ": 0,
    "?": 0x7F,
    "/": 0x1F,
}


class Key(NamedTuple):
    """A character and the modifiers held down with it."""

    code: int
    modifiers: int

    @property
    def plain(self) -> bytes:
        """Its traditional encoding."""
        character = chr(self.code)
        if self.modifiers & _CTRL:
            sent = bytes([_CONTROLS[character]])
        else:
            sent = (character.upper() if self.modifiers & _SHIFT else character).encode()
        return b"\x1b" + sent if self.modifiers & _ALT else sent

    def is_sent_as(self, token: bytes) -> bool:
        """Return whether `token`, the bytes of one key, is a press of this key in any encoding."""
        if token == self.plain:
            return True
        if found := _OTHER_KEYS.fullmatch(token):
            return (int(found[2]), _modifiers(found[1])) == self
        if found := _KITTY.fullmatch(token):
            codes = {int(code) for code in (found[1], found[2]) if code}  # the layout's key, and the keyboard's
            return self.code in codes and _modifiers(found[3]) == self.modifiers and found[4] != _RELEASE
        return False


def _modifiers(field: bytes | None) -> int:
    return (int(field) - 1) & ~_LOCKS if field else 0  # both protocols send the bits plus 1


def is_release_or_modifier(token: bytes) -> bool:
    """Return whether `token` is a key's release, or a modifier key by itself; both come between two keys."""
    found = _KITTY.fullmatch(token)
    return found is not None and (found[4] == _RELEASE or int(found[1]) in _MODIFIER_KEYS)


def parse_key(name: str) -> Key:
    """Return the key of a name such as `C-a`, `M-x` or `d`. Raises: ValueError."""
    modifiers, rest = 0, name
    while found := _PREFIX.match(rest):
        modifiers |= _CTRL if found["ctrl"] else _ALT
        rest = rest[found.end() :]
    rest = _PLAIN_NAMES.get(rest.lower(), rest)
    if len(rest) != 1:
        raise ValueError(f"{name!r} is no key; C-a, ^a, M-x, Enter and d are, for example")
    if modifiers & _CTRL:
        rest = rest.lower()
        if rest not in _CONTROLS:
            raise ValueError(f"{name!r} is no key that a terminal can send")
    elif rest.isupper() and len(rest.lower()) == 1:
        return Key(ord(rest.lower()), modifiers | _SHIFT)
    return Key(ord(rest), modifiers)


def key_bytes(name: str, *, application: bool) -> bytes:
    """Return the bytes that pressing a key sends to a program.

    Args:
        name: The key's name.
        application: Whether the program has set application cursor keys (DECCKM).

    Raises:
        ValueError: There is no such key.
    """
    lowered = name.lower()
    if lowered in CURSOR_KEYS:
        return f"\x1b{'O' if application else '['}{CURSOR_KEYS[lowered]}".encode()
    if lowered in NAMED:
        return NAMED[lowered].encode()
    return parse_key(name).plain
