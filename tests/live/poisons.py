"""Output that crashes the terminal emulation, takes it seconds, or makes it refuse to be saved: `poisons.py NAME`.

As a program it writes a byte into the FIFO `printed` when it can be typed into. Then it prints one piece for each line
that is typed, and writes a byte again; once the pieces are used up it prints what is typed.
"""

from __future__ import annotations

import os
import sys
import tty

Step = bytes | tuple[int, int]

_CLUSTERS = (
    b"\x1b]8;;http://;\x07" + b"\xe4\xb8\x80" * 23 + b"\xe4"
    b"\x1b=\x89\x08O*_s\xb5j\xfd\xcf^Y\xbdbl}B\xc0N\x93\xb5\x1b[?25:65535:999999999999999999999G\xc2\x9d\xcc"
    b"\x80\xe0\xb8\xb3\xea\xb0\x80\xf0\x9f\x91\xa8\xe2\x80\xa8\xcc\x80\xef\xbf\xbf\xe2\x9d\xa4\xe1\x84\x80\xf0\x9f\x8f"
    b"\xb4\xe2\x9d\xa4\xe0\xaf\x8d\xef\xb8\x8e\xe2\x80\xae\xf0\x9f\xa7\x91\xf4\x8f\xbf\xbf\xee\x80\x80\xc2\x9d\xe2\x80"
    b"\xa8\xc2\x85\xf0\x9f\x8f\xbb\xe2\x80\xae\xe1\x85\xa1\xef\xb8\x8f\xe2\x80\xa8\xf0\x9f\x8f\xbb\xe1\x86\xa8\xf0\x9f"
    b"\xa7\x91\xe1\x86\xa8\xe4\xb8\x80#\xef\xb8\x8f\xf0\x9f\x87\xba\xe2\x80\x8d\xf4\x8f\xbf\xbf\xf0\x9f\x8f\xb4A\xd9"
    b"\x8b\xf0\x9f\x8f\xb4\xf0\x9f\x8f\xbb\xe0\xb8\xb3\xe0\xaf\x8d\xef\xbf\xbf"
)
_UNENCODABLE = (
    b"]RK%}>C}($fI7 R9'k@Z*b:m0A[-Sas1\x1b[1d\t\t\t\t\t\x1b G\x7f\x1bV\x1b[?1l\x00\x862[BJ\xf0_BdL\xf0C\x9c\x89\x8c\x80"
    b"\x85\xd9\\L\xa7.I\xe6\x1e\xe2gd5x;\x06\xf0in+Gt\x1b[?1049h\xef\xb8\x8e\xef\xb7\xba\xe1\x84\x80\xef\xbb\xbf\xee\x80"
    b"\x80#\xc2\x9d\xef\xbf\xbf\xed\x9f\xbf\xef\xb8\x8e\xf3\xa0\x81\xa7\xe2\x9d\xa4\xee\x80\x80\xd9\x8b \xef\xb7\xbaA"
    b'\xe2\x83\xa3\xc2\x85\x1b[<18446744073709551615;117:79:76;90;8"F\xe2\x80\xa8\xf0\x9f\x91\xa8\xe1\x85\xa1\xf3\xa0'
    b"\x81\xa7\xc2\x85\xe1\x85\xa1\xe2\x80\x8d\xc2\xad\xef\xbb\xbf \xf0\x9f\x91\xa7\xc2\xad\xc2\x9b\xe2\x80\xa8\xcc\x80"
    b"\xc2\xad\xe0\xa4\x95\xe2\x80\xae\xf0\x9f\x8f\xbb\xed\x9f\xbf\xe0\xb8\xb3\xea\xb0\x80\xe0\xa5\x8d\xe1\x84\x80A\xc2"
    b"\x9d\xc2\x9d\x1b[?65535;29;7:38:2147483647;27;2;65536;6;100n\xef\xb8\x8f\xe0\xb8\xb3\xee\x80\x80\xe0\xaf\x8d\xf0"
    b"\x9f\xa7\x91\xf3\xa0\x81\xa7\xe1\x84\x80\xf0\x9f\xa7\x91\xe0\xb8\xb3\xf0\x9f\x87\xba\xf0\x9f\xa7\x91\xf0\x9f\x8f"
    b"\xbb\xe1\x85\xa1\xf0\x9f\x87\xa6\xef\xb8\x8f\xf0\x9f\x87\xba\xf0\x9f\x91\xa8\xf0\x9f\x8f\xb4#\xee\x80\x80\xe0\xa5"
    b"\x8d\xef\xb7\xba\xf0\x9f\x8f\xbb\xe0\xa5\x8d\xf3\xa0\x81\xbf\xed\x9f\xbf\xef\xbb\xbf\xc2\xad\xe0\xa4\x95<*Nx?q#=3"
    b"u[nl?9nYU$+0,CG#Is?}N1J4?X651VG*#E$2bq6/xFt3ZPV2XlPun/\x1b[?4;45;1049l"
)

POISONS: dict[str, tuple[Step, ...]] = {
    "repeat in an open link": ((79, 24), _CLUSTERS, (1, 1), b"\x1b[99999b"),
    "fill, tall to wide": ((1, 4096), b"\x1b#8", (4096, 1)),
    "fill, wide to tall": ((4096, 1), b"\x1b#8" + "字".encode() * 3000, (1, 4096)),
    "fills of a million cells": ((1000, 1000), b"\x1b#8" * 1500),
    "resets of a million cells": ((1000, 1000), b"\x1bc" * 3000),
    "repeat": ((80, 24), b"x" + b"\x1b[65535b" * 2000),
    "wide repeat": ((80, 24), "字".encode() + b"\x1b[65535b" * 2000),
    "many parameters": ((80, 24), b"\x1b[" + b"2027;" * 20000 + b"h" + b"\x1b[?" + b"2027;" * 20000 + b"h"),
    "unfinished title": ((80, 24), b"\x1b]2;" + b"A" * (17 << 20)),
    "unfinished device control": ((80, 24), b"\x1bP$q" + b"A" * (17 << 20)),
    "unfinished application command": ((80, 24), b"\x1b_G" + b"A" * (17 << 20)),
    "short unfinished title": ((80, 24), b"\x1b]2;" + b"A" * 600),
    "repeats in a link": ((80, 24), b"\x1b]8;;http://a\x07x" + b"\x1b[65535b" * 500),
    "not to be encoded": ((10, 10), b"\x1b[?1047;36h", (81, 25), _UNENCODABLE, (80, 24)),
}

FATAL = ("repeats in a link",)
"""Those that no screens process survives: libghostty 0.1.3 takes 17 seconds for 4,000 bytes of them."""


def write(data: bytes) -> None:
    """Write all of it to the terminal."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(1, rest) :]


def main() -> None:
    tty.setraw(0)
    printed = os.open("printed", os.O_WRONLY)
    os.write(printed, b".")  # what is typed before `setraw` is thrown away by it
    pieces = [step for step in POISONS[sys.argv[1]] if isinstance(step, bytes)]
    typed = b""
    while data := os.read(0, 4096):  # answers to what the poison asks may come in between
        typed += data
        while b"\n" in typed:
            line, _, typed = typed.partition(b"\n")
            if line.endswith(b"leave"):
                sys.exit(3)
            # A string that is still open ends here, and the text stands at the top of the screen in use.
            if pieces:
                write(pieces.pop(0))
                os.write(printed, b".")
                continue
            write(b"\x18\x1b\\\x1b[H\x1b[0m\x1b(B" + line + b"\r\n")


if __name__ == "__main__":
    main()
