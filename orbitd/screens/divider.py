"""The line between the output of two programs of one session, and what has to be reset there.

A new program finds what a fresh terminal gives, but for the text. libghostty does nothing for DECSTR, and RIS would
erase the screen: so everything is reset one by one.
"""

from __future__ import annotations

from orbitd.screens.emulator import Emulator
from orbitd.screens.repaint import MODES

# CAN and ST end an unfinished sequence, as the last program may have left one.
_CANCEL = "\x18\x1b\\"
_POP_KEYBOARD = "\x1b[<8u"  # each screen has a stack of its own
_LEAVE = "\x1b[?1049l\x1b[?1047l\x1b[?47l"
_LEAVE_ALTERNATE = _CANCEL + _POP_KEYBOARD + _LEAVE
_MODES = "".join(mode.sequence(on=mode.default) for mode in MODES if mode.name not in ("?47", "?1047", "?1049"))
_RESET = (
    _CANCEL
    # On the primary screen too: one that was left by another mode than it was entered by is still set. First, since
    # 1049 also restores a cursor, with its pen and origin mode.
    + _LEAVE
    + "\x1b[?69h\x1b[s\x1b[?69l\x1b[r"  # margins: DECSLRM works in mode 69 only
    + _MODES
    + "\x1b[?40l\x1b[?1035h\x1b[?1036h\x1b[?1039l\x1b[?2027l"  # modes that no repaint sets
    + "\x1b(B\x1b)B\x1b*B\x1b+B\x0f\x1b}"  # charsets: ASCII in G0 to G3, G0 on the left, G2 on the right
    + _POP_KEYBOARD
    + "\x1b[>4m"  # modifyOtherKeys
    + "\x1b[0 q"  # the cursor's shape, which also sets mode 12
    + "\x1b]104\x1b\\\x1b]110\x1b\\\x1b]111\x1b\\\x1b]112\x1b\\"  # colours
    + "\x1b]2;\x1b\\\x1b]7;\x1b\\"  # title and folder
    + '\x1b]8;;\x1b\\\x1b[0"q\x1b[m'  # the pen: link, protection, style
    + "\x1b[?5W"  # tab stops
    + "\x1b[H\x1b7"  # what ESC 8 restores
)


def print_divider(emulator: Emulator, text: str) -> None:
    """Leave the alternate screen, reset everything but the text, and print a line below the cursor."""
    if emulator.alternate:
        emulator.feed(_LEAVE_ALTERNATE.encode())
    columns, _ = emulator.size
    row = emulator.cursor.row + 1  # read before the reset, which moves the cursor
    line = f"{f'-- {text} ':-<{columns}}"
    emulator.feed(f"{_RESET}\x1b[{row}H\r\n\x1b[2m{line}\x1b[m\r\n".encode())
