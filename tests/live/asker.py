"""Ask the terminal something every four milliseconds, and write down whatever comes as input.

    asker.py LOG

Each question is another one, whether a mode with the next number is set (DECRQM), so that an answer says whose it is.
After some more answers it prints "answered". After "q" it asks for the status (DSR): what has not been answered before
that never will be. Then it prints "asked N".
"""

from __future__ import annotations

import os
import select
import sys
import tty

FIRST = 3000
SECONDS = 0.004
SOME = 10


def main(log: str) -> None:
    """Ask, until the status is answered."""
    tty.setraw(0)
    seen, asked, answered, is_ending = b"", 0, 0, False
    with open(log, "wb", buffering=0) as file:
        while not seen.endswith(b"\x1b[0n"):
            if not is_ending:
                os.write(1, b"\x1b[?%d$p" % (FIRST + asked))
                asked += 1
            if select.select([0], [], [], None if is_ending else SECONDS)[0]:
                data = os.read(0, 4096)
                seen = seen[-8:] + data
                file.write(data)
                answered += data.count(b"y")
                if answered >= SOME:
                    os.write(1, b"answered\r")
                    answered = 0
                if b"q" in data:
                    is_ending = True
                    os.write(1, b"\x1b[5n")
    os.write(1, b"asked %d" % asked)
    while True:
        os.read(0, 4096)


if __name__ == "__main__":
    main(sys.argv[1])
