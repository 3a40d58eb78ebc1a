"""Writes a recorded piece of noise for each line that is typed: `player.py SEED`."""

from __future__ import annotations

import os
import sys
import tty
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

from terminal_support import noise


def main() -> None:
    tty.setraw(0)
    os.write(1, b"!")
    pieces = (piece for piece in noise(int(sys.argv[1])) if isinstance(piece, bytes))
    for piece in pieces:
        while os.read(0, 1) != b"\n":  # answers to what the noise asks may come in between
            pass
        rest = memoryview(piece)
        while rest:
            rest = rest[os.write(1, rest) :]
    while os.read(0, 1):
        pass


if __name__ == "__main__":
    main()
