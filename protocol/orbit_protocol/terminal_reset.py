"""Escape sequences that reset a user's terminal to a known state, and that restore it at the end.

Constants only: each of the daemon's repaints begins with `RESET`. Nothing here sets a palette or a colour. The modes
are reset one by one and the terminal as a whole never (RIS, DECSTR): that would take the user's own settings, and the
history, with it.
"""

from __future__ import annotations

_MODES_OFF = (1, 5, 6, 9, 45, 66, 1000, 1002, 1003, 1004, 1005, 1006, 1015, 1016, 1045, 2004, 2026, 2031, 2048)
_MODES_ON = (7, 25)
_ANSI_MODES = "\x1b[4l\x1b[12h\x1b[20l"

_POP_KEYBOARD = "\x1b[<8u"
_END_SEQUENCE = "\x18\x1b\\"
# 1049 first: tmux leaves by the first that there is, and without its cursor it may cut off rows of a window that became
# smaller meanwhile.
_LEAVE_ALTERNATE = f"{_POP_KEYBOARD}\x1b[?1049l\x1b[?1047l\x1b[?47l"
_KEYBOARD = f"{_POP_KEYBOARD}\x1b[>4m"
_MARGINS = "\x1b[?69l\x1b[r"
_PEN = '\x1b[m\x1b[0"q\x1b]8;;\x1b\\\x1b(B\x1b)B\x0f'
_TABS_AND_SHAPE = "\x1b[?5W\x1b[0 q"
_MODES = _ANSI_MODES + "".join(
    [*(f"\x1b[?{number}l" for number in _MODES_OFF), *(f"\x1b[?{number}h" for number in _MODES_ON)]
)
_MODES += "\x1b>"  # DECKPNM: the same as mode 66, which tmux does not know
_WHEEL = "\x1b[?1007r"  # its default is the user's own business: ENTER has saved it
_BOTTOM = "\x1b[999;1H"

_HERE = f"{_KEYBOARD}{_MARGINS}{_PEN}\x1b[0 q{_MODES}{_WHEEL}"
_KNOWN = f"{_LEAVE_ALTERNATE}{_KEYBOARD}{_MARGINS}{_PEN}{_TABS_AND_SHAPE}{_MODES}{_WHEEL}"

ENTER = b"\x1b[22;0t\x1b[?1007s"
"""Sent once when a client begins: its title and its wheel mode are put aside."""

# The first row by itself: tmux, and others, put a screen into the history that is erased as a whole, and each repaint
# would add one. Then the blank lines are deleted: erased ones keep the marks of prompts (OSC 133) in some terminals.
_CLEAR = "\x1b[2;1H\x1b[J\x1b[999M\x1b[H\x1b[2K\x1b[M"

# OSC 133: what follows is output, and a row that was part of a prompt is none; at the end, the command has ended.
_OUTPUT, _ENDED = "\x1b]133;C\x1b\\", "\x1b]133;D\x1b\\"

RESET = f"{_END_SEQUENCE}{_KNOWN}{_CLEAR}{_OUTPUT}".encode()
"""Brings a client's terminal to a known, cleared state, from the middle of anything. Its history stays as it is."""

RESET_IN_USE = f"{_END_SEQUENCE}{_HERE}".encode()
"""The same for the screen in use alone, and without clearing it."""

TO_PRIMARY = f"{_END_SEQUENCE}{_LEAVE_ALTERNATE}".encode()
"""Leaves the alternate screen. On the primary one it would move the cursor to where one was saved once."""

LINES_UP = f"{_END_SEQUENCE}{_MARGINS}\x1b[?6l\x1b[m{_BOTTOM}".encode()
"""Behind this, each line feed moves the first row of the primary screen into the history."""

RESTORE_PRIMARY = f"{_END_SEQUENCE}{_HERE}\x1b[?5W{_ENDED}\x1b[23;0t{_BOTTOM}".encode()
"""Gives the primary screen back: modes off, cursor shown, at the bottom; the text stays."""

RESTORE = TO_PRIMARY + RESTORE_PRIMARY
"""The same from the alternate screen."""

RESTORE_IN_PLACE = f"{_END_SEQUENCE}\x1b7{_HERE}\x1b[?5W\x1b8{_PEN}{_ENDED}\x1b[23;0t".encode()
"""Gives the primary screen back, with the cursor where it is.

Only for a program that has never set origin mode (DECOM): what fetches the cursor back fetches that, too.
"""

RESTORE_BEHIND = TO_PRIMARY + RESTORE_IN_PLACE
"""The same, with the cursor where it was when the alternate screen was entered (mode 1049)."""

RESTORE_COLORS = b"\x1b]104\x1b\\\x1b]110\x1b\\\x1b]111\x1b\\\x1b]112\x1b\\"
"""Takes back colours that the program has set; sent only where it has, since users set palettes too."""
