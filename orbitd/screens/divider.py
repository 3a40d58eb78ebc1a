"""The line between the output of two programs of one session, and what has to be reset there.

A new program finds what a fresh terminal gives, but for the text. libghostty does nothing for DECSTR, and RIS would
erase the screen: so everything is reset one by one. What no sequence resets, and nothing here draws or answers by,
stays: how many links there were, and how a click at a prompt moves the cursor (OSC 133;A;cl).
"""

from __future__ import annotations

from orbitd.screens.emulator import Emulator
from orbitd.screens.model import divider_line
from orbitd.screens.repaint import MODES
from orbitd.screens.vt_writer import mark

# Each of the two screens has these of its own: a stack of keyboard flags; a pen (link, protection, style); charsets
# (ASCII in G0 to G3, G0 on the left, G2 on the right); the kind of its text (OSC 133: output); the shape of the cursor,
# which also sets mode 12, and its place; and what ESC 8 restores. The kind of protection that was used last stays:
# after DEC's, ED and EL erase what is protected, as on a fresh terminal; after ISO's they do not.
_SCREEN = (
    "\x1b[<8u"
    + '\x1b]8;;\x1b\\\x1b[1"q\x1b[0"q\x1b[m'
    + "\x1b(B\x1b)B\x1b*B\x1b+B\x0f\x1b}"
    + "\x1b]133;D\x1b\\"
    + "\x1b[0 q"
    + "\x1b[H\x1b7"
)

# CAN and ST end an unfinished sequence, as the last program may have left one. What is printed while the status line is
# the display in use (DECSASD) is dropped.
_CANCEL = "\x18\x1b\\\x1b[0$}"
_LEAVE_ALTERNATE = "\x1b[?1049l\x1b[?1047l\x1b[?47l\x1b[?1048l"

# A program that enters the alternate screen by mode 47, which erases nothing, finds a blank one. A prompt is marked on
# it, since nothing but OSC 133;A resets which lines a shell draws again after a resize.
_ALTERNATE = f"\x1b[?1047h{_SCREEN}\x1b]133;A;redraw=0\x1b\\{_SCREEN}\x1b[2J\x1b[?1047l"

# Modes that no repaint sets.
_MORE_MODES = {4: False, 8: False, 40: False, 67: False, 1035: True, 1036: True, 1039: False, 2027: False, 2033: False}
_MODES = "\x1b[2l" + "".join(
    [mode.sequence(on=mode.default) for mode in MODES if mode.name not in ("?47", "?1047", "?1049")]
    + [f"\x1b[?{number}{'h' if on else 'l'}" for number, on in _MORE_MODES.items()]
)
# XTSAVE: what XTRESTORE (CSI ? Pm r) is to restore, of all modes, also of those that are reset elsewhere.
_NUMBERS = (3, 1048, *_MORE_MODES, *(mode.number for mode in MODES if not mode.ansi))
_SAVED_MODES = "".join(f"\x1b[?{number}s" for number in _NUMBERS)

_RESET = (
    _CANCEL
    # On the primary screen too: one that was left by another mode than it was entered by is still set. First, since
    # 1049 and 1048 also restore a cursor, with its pen and origin mode.
    + _LEAVE_ALTERNATE
    + "\x1b[?69h\x1b[s\x1b[?69l\x1b[r"  # margins: DECSLRM works in mode 69 only
    + _MODES
    + _ALTERNATE
    + _SAVED_MODES
    + "\x1b[>4m"  # modifyOtherKeys
    + "\x1b[>0s"  # shift and the mouse (XTSHIFTESCAPE)
    + "\x1b]22;text\x1b\\"  # the mouse's shape
    + "\x1b]104\x1b\\\x1b]110\x1b\\\x1b]111\x1b\\\x1b]112\x1b\\"  # colours
    + "\x1b]0;\x1b\\\x1b]7;\x1b\\\x1b]9;4;0\x1b\\"  # title, icon, folder and progress
    + "\x1b[?5W"  # tab stops
    + _SCREEN
)


def print_note(emulator: Emulator, text: str) -> None:
    """Print a line below the cursor; the modes stay, and so does the alternate screen, which gets none."""
    if not emulator.alternate:
        columns, _ = emulator.size
        emulator.feed(f"{_CANCEL}\r\n\x1b[m\x1b[2m{divider_line(text, columns)}\x1b[m\r\n".encode())


def print_divider(emulator: Emulator, text: str) -> None:
    """Leave the alternate screen, reset everything but the text, and print a line below the cursor."""
    # The end of an unfinished question (DCS $ q) would be answered, to the new program.
    answering, emulator.answering = emulator.answering, False
    if emulator.alternate:
        emulator.feed((_CANCEL + "\x1b[<8u" + _LEAVE_ALTERNATE).encode())
    columns, _ = emulator.size
    row = emulator.cursor.row + 1  # read before the reset, which moves the cursor
    line = divider_line(text, columns)
    # OSC 133;C in the first column: the line's row and the next one may have been part of a prompt.
    begin = f"\r\n{mark('C')}"
    emulator.feed(f"{_RESET}\x1b[{row}H{begin}\x1b[2m{line}\x1b[m{begin}".encode())
    emulator.answering = answering
