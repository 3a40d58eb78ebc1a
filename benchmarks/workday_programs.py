"""Programs of a day's work that no package has: a build, and an agent that redraws a block all the time.

    python workday_programs.py build LINES
    python workday_programs.py agent SECONDS

What they print follows from their arguments and Python's library; when, does not.
"""

from __future__ import annotations

import random
import sys
import sysconfig
import time
from pathlib import Path

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
    """Print what a build prints, in bursts with pauses: steps, warnings with their source, progress in place.

    The files are those of Python's library, in the order of their folders; eight are built at once, so that neighbours
    change places. Each pass over them is another part of a build: objects, verbose commands, links, tests.
    """
    some, write, printed, passes = random.Random(lines), sys.stdout.write, 0, 0
    library = Path(sysconfig.get_path("stdlib"))
    own = (path.relative_to(library) for path in library.rglob("*.py"))
    files = sorted(str(path.with_suffix("")) for path in own if path.parts[0] != "site-packages")
    while printed < lines:
        rest = list(files)
        while rest and printed < lines:
            for _ in range(some.randrange(20, 2_000)):
                if not rest or printed >= lines:
                    break
                path = rest.pop(min(len(rest) - 1, some.randrange(8)))
                write(_step(passes, path, printed * 100 // lines, some))
                printed += 1
                if some.random() < 0.03:
                    write(_warning(path, some))
                    printed += 3
            for percent in range(0, 101, 20):
                write(f"\r\x1b[K\x1b[33mlinking\x1b[m {'#' * (percent // 4):<25} {percent:3} %")
            write("\n")
            sys.stdout.flush()
            time.sleep(0.02)
        passes += 1
    print("build finished")


def _step(passes: int, path: str, percent: int, some: random.Random) -> str:
    options = "-std=c11 -O2 -g -Wall -Wextra -Iinclude -Ilib -DNDEBUG"
    return (
        f"[{percent:3}%] Building C object CMakeFiles/orbit.dir/src/{path}.c.o\n",
        f"gcc {options} -MMD -MF build/{path}.d -c -o build/{path}.o src/{path}.c\n",
        f"  \x1b[32m{'CC':<7}\x1b[m src/{path}.o\n",
        f"\x1b[32mok\x1b[m {some.randrange(1, 40):3} tests  src/{path}_test  {some.random() * 3:.3f}s\n",
    )[passes % 4]


def _warning(path: str, some: random.Random) -> str:
    name, row, col = some.choice(NAMES), some.randrange(1, 900), some.randrange(1, 60)
    return (
        f"\x1b[1msrc/{path}.c:{row}:{col}:\x1b[m \x1b[1;35mwarning:\x1b[m {some.choice(WARNINGS).format(name)}\n"
        f"{row:5} |     for (int {name} = 0; {name} < {some.choice(NAMES)}_count; {name}++)\n"
        f"      | {' ' * (col % 40)}\x1b[1;35m^{'~' * len(name)}\x1b[m\n"
    )


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
