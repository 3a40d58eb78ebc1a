"""Prints steps of a recorded day when it is asked to: `corpus_player.py DAY ASKED DONE`, the last two named pipes.

A line `FIRST LAST SPEED` asks for the steps from FIRST until before LAST. They are printed as fast as it goes where the
speed is 0, else so many times as fast as they were recorded. Behind them it asks for the terminal's status (DSR 5); the
answer, which comes once the terminal has drawn all that was before, becomes a line in DONE.
"""

from __future__ import annotations

import os
import select
import sys
import time
import tty
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from history_support import QUESTION, read_day

ANSWER = b"\x1b[0n"


def main() -> None:
    _, *steps = read_day(Path(sys.argv[1]))
    tty.setraw(0)
    with Path(sys.argv[2]).open("rb", buffering=0) as asked, Path(sys.argv[3]).open("wb", buffering=0) as done:
        while line := asked.readline():
            first, last, speed = line.split()
            play(steps[int(first) : int(last)], float(speed))
            write(QUESTION)
            wait_for_answer()
            done.write(b"done\n")


def play(steps: list[tuple[int, bytes | tuple[int, int]]], speed: float) -> None:
    begun = time.monotonic()
    for at, data in steps:
        assert isinstance(data, bytes)
        if speed and (early := (at - steps[0][0]) / 1000 / speed - (time.monotonic() - begun)) > 0:
            time.sleep(early)
        while select.select([0], [], [], 0)[0]:  # answers to what the recorded programs ask
            os.read(0, 65536)
        write(data)


def write(data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(1, rest) :]


def wait_for_answer() -> None:
    read = b""
    while ANSWER not in read:
        read = read[-len(ANSWER) :] + os.read(0, 65536)


if __name__ == "__main__":
    main()
