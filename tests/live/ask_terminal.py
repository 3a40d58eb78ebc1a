"""Adds what the terminal answers to a line of a file, then leaves it changed in every way: `ask_terminal.py FILE`."""

from __future__ import annotations

import os
import sys
import tty
from pathlib import Path

MODES = [*(f"?{number}" for number in (*range(130), *range(1000, 1060), *range(2000, 2060))), *map(str, range(30))]
QUESTIONS = [
    *(f"\x1b[{mode}$p" for mode in MODES),
    *(f"\x1bP$q{setting}\x1b\\" for setting in ("m", "r", "s", " q")),
    *(f"\x1b]{color};?\x07" for color in ("4;1", "4;200", "10", "11", "12")),
    "\x1b[?u",  # kitty keyboard flags
    "\x1b[H\t\x1b[6n",  # the first tab stop
    "\x1b[?6h\x1b[999;999H\x1b[6n\x1b[?6l",  # the size of the scroll region
    "\x1b8\x1b[6n",  # the saved cursor
    *(f"\x1b[?{number}r\x1b[?{number}$p" for number in (1, 7, 25, 2004)),  # saved modes
]
LEFT_BEHIND = (
    b"\x1b[?1h\x1b[?4h\x1b[?5h\x1b[?8h\x1b[?45h\x1b[?66h\x1b[?67h\x1b[?1000h\x1b[?1006h\x1b[?2004h\x1b[?2031h\x1b[?2048h"
    b"\x1b[?7l\x1b[?25l\x1b[2h\x1b[4h\x1b[20h\x1b[?1s\x1b[?7s\x1b[?25s\x1b[?2004s\x1b[3g\x1b[4 q\x1b[31;4m"
    b"\x1b]4;1;red\x07\x1b]10;red\x07\x1b]11;blue\x07\x1b]12;blue\x07\x1b[>5u\x1b[?69h\x1b[3;9s\x1b[2;5r\x1b[?6h"
    b"\x1b[2;3H\x1b7\x1b(0\x1b[?1049h\x1b[>3u\x1b[1$}\x1bP$q"
)
LAST, LAST_ANSWER = "\x1b[5n", b"\x1b[0n"


def main() -> None:
    tty.setraw(0)
    os.write(1, "".join([*QUESTIONS, LAST]).encode())
    answers = b""
    while LAST_ANSWER not in answers:
        answers += os.read(0, 65536)
    with Path(sys.argv[1]).open("a") as file:
        file.write(answers.hex() + "\n")
    os.write(1, LEFT_BEHIND)


if __name__ == "__main__":
    main()
