"""Programs of a day's work that no package has: a build, and an agent that redraws a block all the time.

    python workday_programs.py build LINES
    python workday_programs.py agent SECONDS

What they print follows from their arguments; when, does not.
"""

from __future__ import annotations

import random
import sys
import time

COMPILERS = ("CC", "CXX", "AR", "LD", "GEN")
FOLDERS = ("src/net", "src/store", "src/screen/render", "lib/protocol", "tests/unit", "third_party/zlib")
NAMES = (
    *("parse", "frame", "socket", "reader", "writer", "cursor", "journal", "table"),
    *("index", "cache", "timer", "signal", "buffer", "pool", "event", "queue"),
)
WARNINGS = (
    "unused variable '{}' [-Wunused-variable]",
    "comparison of integer expressions of different signedness: 'int' and 'size_t' [-Wsign-compare]",
    "'{}' may be used uninitialized [-Wmaybe-uninitialized]",
)
SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
SAID = (
    "I'll look at the failing test first, then at what changed since it passed. ",
    "The reader keeps a position that the writer moves: after a resize both are off by one row. ",
    "Two callers depend on this, so I change the helper and not its callers. ",
    "Running the tests of this module again; the others do not import it. ",
    "That passes. The same fault is in the copy below `frame`, which I change too. ",
)
FRAME_SECS = 0.08


def build(lines: int) -> None:
    """Print what make prints, in bursts with pauses: commands, warnings with their lines, and progress in place."""
    some, write, printed = random.Random(lines), sys.stdout.write, 0
    while printed < lines:
        for _ in range(min(some.randrange(20, 2_000), lines - printed)):
            path = f"{some.choice(FOLDERS)}/{some.choice(NAMES)}_{some.choice(NAMES)}{some.randrange(100)}"
            kind = some.random()
            if kind < 0.03:
                name, row, col = some.choice(NAMES), some.randrange(1, 900), some.randrange(1, 60)
                warning = some.choice(WARNINGS).format(name)
                write(f"\x1b[1m{path}.c:{row}:{col}:\x1b[m \x1b[1;35mwarning:\x1b[m {warning}\n")
                write(f"{row:5} |     for (int {name} = 0; {name} < {some.choice(NAMES)}_count; {name}++)\n")
                write(f"      | {' ' * (col % 40)}\x1b[1;35m^{'~' * len(name)}\x1b[m\n")
                printed += 3
            elif kind < 0.2:
                write(f"  \x1b[32m{some.choice(COMPILERS):<7}\x1b[m {path}.o\n")
                printed += 1
            elif kind < 0.5:
                write(f"[{printed * 100 // lines:3}%] Building C object CMakeFiles/orbit.dir/{path}.c.o\n")
                printed += 1
            else:
                options = "-std=c11 -O2 -g -Wall -Wextra -Iinclude -Ilib -DNDEBUG"
                write(f"gcc {options} -MMD -MF {path}.d -c -o {path}.o {path}.c\n")
                printed += 1
        for percent in range(0, 101, 20):
            write(f"\r\x1b[K\x1b[33mlinking\x1b[m {'#' * (percent // 4):<25} {percent:3} %")
        write("\n")
        sys.stdout.flush()
        time.sleep(0.02)
    print("build finished")


def agent(secs: float) -> None:
    """Redraw a block on the primary screen: a spinner, text that streams, and a box; what is done scrolls away."""
    some, words, shown, height, frame = random.Random(7), " ".join(SAID * 40).split(" "), 0, 0, 0
    print("\x1b[1m✻ agent\x1b[m  fix the reader of frames\x1b[?25l")
    for frame in range(max(1, round(secs / FRAME_SECS))):
        shown += some.randrange(1, 4)
        if shown > 60:  # a paragraph is done
            _draw(height, [])
            print("● " + " ".join(words[:60]) + "\n  \x1b[2m⎿  Edited \x1b[36msrc/frame.py\x1b[39m, 12 lines\x1b[m\n")
            words, shown, height = words[60:] + words[:60], 0, 0
        height = _draw(height, _block(frame, " ".join(words[:shown])))
        time.sleep(FRAME_SECS)
    _draw(height, [f"● done after {frame + 1} steps \x1b[?25h"])


def _block(frame: int, text: str) -> list[str]:
    wrapped = [text[start : start + 70] for start in range(0, len(text), 70)] or [""]
    tokens = f"{frame * 37:,} tokens · {frame * FRAME_SECS:.0f}s · esc to interrupt"
    return [
        *(f"{'●' if not row else ' '} {line}" for row, line in enumerate(wrapped)),
        f"\x1b[38;5;{196 + frame % 30}m{SPINNER[frame % len(SPINNER)]}\x1b[m Thinking… \x1b[2m({tokens})\x1b[m",
        f"╭{'─' * 74}╮",
        f'│ \x1b[2m> try "write a test for 画面.py"\x1b[m{" " * 43}│',
        f"╰{'─' * 74}╯",
        f"  \x1b[32m⏵⏵ auto-accept edits on\x1b[m{' ' * 30}context left: {100 - frame % 97} %",
    ]


def _draw(height: int, lines: list[str]) -> int:
    """Draw lines where the last `height` ones are; return how many they are."""
    up = f"\x1b[{height}A" if height else ""
    sys.stdout.write(f"\x1b[?2026h{up}\r\x1b[J" + "".join(f"{line}\n" for line in lines) + "\x1b[?2026l")
    sys.stdout.flush()
    return len(lines)


if __name__ == "__main__":
    {"build": lambda: build(int(sys.argv[2])), "agent": lambda: agent(float(sys.argv[2]))}[sys.argv[1]]()
