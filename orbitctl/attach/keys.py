r"""Keys by name, and what a terminal sends for them.

`C-a`, `^a` and `Ctrl-a` are one key, `M-x` is Alt-x, `S-F5` is Shift-F5, one character is itself, and the rest have
names. Terminals encode keys in three ways: the traditional one (one byte, ESC before it for Alt; `CSI 1;5A` for C-Up),
the kitty keyboard protocol (`CSI code;modifiers u`), and xterm's modifyOtherKeys (`CSI 27;modifiers;code ~`). Which one
is used, the program in the session has chosen.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_SHIFT, _ALT, _CTRL = 1, 2, 4
_LOCKS = 64 | 128  # caps lock and num lock do not make another key
_RELEASE = b"3"  # the kitty protocol's event type; 1 is a press, 2 a repeat
_MODIFIER_KEYS = range(57_441, 57_455)  # the keys themselves: left shift ... ISO level 5 shift

_PREFIX = re.compile(
    r"(?:(?P<ctrl>C-|Ctrl-|Control-|\^)|(?P<alt>M-|Meta-|A-|Alt-)|(?P<shift>S-|Shift-))(?=.)", re.IGNORECASE | re.DOTALL
)
_KITTY = re.compile(rb"\x1b\[(\d+)(?::\d*)?(?::(\d*))?(?:;(\d*)(?::(\d+))?)?(?:;[\d:]*)?u")
_OTHER_KEYS = re.compile(rb"\x1b\[27;(\d+);(\d+)~")

_CURSOR_KEYS = {"Up": "A", "Down": "B", "Right": "C", "Left": "D", "Home": "H", "End": "F"}
"""Sent as `CSI x`, as `CSI 1;m x` with modifiers, and as `SS3 x` in the mode of application cursor keys (DECCKM)."""
_SS3_KEYS = {"F1": "P", "F2": "Q", "F3": "R", "F4": "S"}
"""Sent as `SS3 x`, as `CSI 1;m x` with modifiers."""
_TILDE_KEYS = {
    "Insert": 2, "Delete": 3, "PageUp": 5, "PageDown": 6,
    "F5": 15, "F6": 17, "F7": 18, "F8": 19, "F9": 20, "F10": 21, "F11": 23, "F12": 24,
    "F13": 25, "F14": 26, "F15": 28, "F16": 29, "F17": 31, "F18": 32, "F19": 33, "F20": 34,
}  # fmt: skip
"""Sent as `CSI n ~`, as `CSI n;m ~` with modifiers."""
_SIMPLE_KEYS = {
    "Enter": {0: "\r"},
    "Tab": {0: "\t", _SHIFT: "\x1b[Z"},
    "BackTab": {0: "\x1b[Z"},
    "Esc": {0: "\x1b"},
    "Space": {0: " ", _CTRL: "\0"},
    "Backspace": {0: "\x7f", _CTRL: "\b"},
}
"""What they send by modifiers; Alt puts ESC before it, and a modifier that makes no difference is left out."""
_ALIASES = {
    "Return": "Enter", "Escape": "Esc", "BTab": "BackTab", "BSpace": "Backspace", "IC": "Insert", "Ins": "Insert",
    "DC": "Delete", "Del": "Delete", "PPage": "PageUp", "PgUp": "PageUp", "Prior": "PageUp", "NPage": "PageDown",
    "PgDn": "PageDown", "PgDown": "PageDown", "Next": "PageDown",
}  # fmt: skip
"""Other names; tmux's are among them."""
NAMES = (*_SIMPLE_KEYS, *_CURSOR_KEYS, *_TILDE_KEYS, *_SS3_KEYS)
_BY_LOWERED = {name.lower(): name for name in NAMES} | {alias.lower(): name for alias, name in _ALIASES.items()}
_CHARACTER_NAMES = {"Enter": "\r", "Tab": "\t", "Esc": "\x1b", "Space": " "}
_CONTROLS = {
    **{chr(code + 0x60): code for code in range(1, 27)},
    **dict(zip("@[\\]^_", (0, *range(27, 32)), strict=True)),
    **dict(zip("2345678", (0, *range(27, 32), 0x7F), strict=True)),  # as VT220 has them, and xterm
    " ": 0,
    "?": 0x7F,
    "/": 0x1F,
}
"""What Ctrl makes of a character."""


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

    @property
    def is_shifted_control(self) -> bool:
        """Whether Ctrl and Shift are held down, which the traditional encoding does not tell from Ctrl alone."""
        return self.modifiers & (_SHIFT | _CTRL) == _SHIFT | _CTRL

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


def _split(name: str) -> tuple[int, str]:
    """Return the modifiers that a key's name begins with, and the rest: a key's usual name, or as it was written."""
    modifiers, rest = 0, name
    while found := _PREFIX.match(rest):
        modifiers |= _CTRL if found["ctrl"] else _ALT if found["alt"] else _SHIFT
        rest = rest[found.end() :]
    return modifiers, _BY_LOWERED.get(rest.lower(), rest)


def _unknown(name: str, rest: str) -> ValueError:
    """Return the error for a name that no key has; it lists the names that are near."""
    from difflib import get_close_matches

    prefix = name.removesuffix(rest)
    if near := dict.fromkeys(_BY_LOWERED[word] for word in get_close_matches(rest.lower(), _BY_LOWERED)):
        return ValueError(f"{name!r} is no key; did you mean {' or '.join(prefix + one for one in near)}?")
    return ValueError(f"{name!r} is no key; C-a, ^a, M-x, C-Up, S-F5, PageUp, Enter and d are, for example")


def parse_key(name: str) -> Key:
    """Return the key of a name such as `C-a`, `M-x` or `d`. Raises: ValueError."""
    modifiers, rest = _split(name)
    rest = _CHARACTER_NAMES.get(rest, rest)
    if rest in NAMES:
        raise ValueError(f"{name!r} is no key with a character; C-a, M-x and Enter are, for example")
    if len(rest) != 1:
        raise _unknown(name, rest)
    if modifiers & _CTRL:
        rest = rest.lower()
        if rest not in _CONTROLS:
            raise ValueError(f"{name!r} is no key that a terminal can send")
    elif rest.isupper() and len(rest.lower()) == 1:
        return Key(ord(rest.lower()), modifiers | _SHIFT)
    elif modifiers & _SHIFT and not (rest.isalpha() and len(rest.upper()) == 1):
        raise ValueError(f"{name!r} is no key; write the character that it types")
    return Key(ord(rest), modifiers)


def key_bytes(name: str, *, application: bool) -> bytes:
    """Return the bytes that pressing a key sends to a program, as xterm does.

    Args:
        name: The key's name.
        application: Whether the program has set application cursor keys (DECCKM).

    Raises:
        ValueError: There is no such key.
    """
    modifiers, key = _split(name)
    if by_modifiers := _SIMPLE_KEYS.get(key):
        held = [bit for bit in (_SHIFT, _CTRL) if modifiers & bit and bit in by_modifiers]
        return (("\x1b" if modifiers & _ALT else "") + by_modifiers[held[0] if held else 0]).encode()
    if number := _TILDE_KEYS.get(key):
        return f"\x1b[{number};{modifiers + 1}~".encode() if modifiers else f"\x1b[{number}~".encode()
    if letter := _CURSOR_KEYS.get(key) or _SS3_KEYS.get(key):
        if modifiers:
            return f"\x1b[1;{modifiers + 1}{letter}".encode()
        return f"\x1b{'O' if application or key in _SS3_KEYS else '['}{letter}".encode()
    return parse_key(name).plain


def depends_on_mode(name: str) -> bool:
    """Return whether what a key sends depends on application cursor keys (DECCKM)."""
    modifiers, key = _split(name)
    return not modifiers and key in _CURSOR_KEYS
