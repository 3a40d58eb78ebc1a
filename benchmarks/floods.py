"""Sessions that print without end, held back by a file: tmux continues what SIGSTOP has stopped."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.hosts import Script
from benchmarks.processes import MEGABYTE

BEGIN_SECS, END_SECS = 10.0, 120.0
FLOOD = """
while :; do
    if [ -e "$2" ]; then cat "$1"; : > "$2.flows"; else rm -f "$2.flows"; sleep 0.1; fi
done
"""
REPEATS = b"x\x1b[65535b" * 512


@dataclass(frozen=True)
class Flood:
    """A script that prints a file again and again while another one, its gate, exists."""

    text: Path
    gate: Path

    @property
    def script(self) -> Script:
        """The script, to be hosted."""
        return Script(text=FLOOD, arguments=(str(self.text), str(self.gate)))

    @property
    def is_flowing(self) -> bool:
        """Whether the file has been printed since the gate was opened, and the flood not noticed that it is closed."""
        return self.gate.with_name(f"{self.gate.name}.flows").exists()


def text_flood(folder: Path, number: int) -> Flood:
    """Return a flood of coloured text, as builds and tests print it."""
    text = folder / "flood"
    return Flood(text if text.exists() else coloured_text(text, 2 * MEGABYTE), folder / f"gate-{number}")


def repeat_flood(folder: Path, number: int) -> Flood:
    """Return a flood of `CSI 65535 b`: each eight bytes ask for 65,535 characters."""
    text = folder / "repeats"
    text.write_bytes(REPEATS)
    return Flood(text, folder / f"gate-{number}")


@contextlib.contextmanager
def flowing(floods: Sequence[Flood]) -> Iterator[None]:
    """Open the gates; go on once all print, or as soon as one is held back for long, and close them at the end.

    Raises:
        TimeoutError: A flood does not come to its end.
    """
    for flood in floods:
        flood.gate.touch()
    try:
        _wait(floods, True, BEGIN_SECS)
        yield
    finally:
        for flood in floods:
            flood.gate.unlink()
        if not _wait(floods, False, END_SECS):
            raise TimeoutError("a flood is still being printed")


def _wait(floods: Sequence[Flood], flows: bool, secs: float) -> bool:
    """Look until all flow, or none does: a shell has no event for it. Return whether it is so in time."""
    deadline = time.monotonic() + secs
    while any(flood.is_flowing is not flows for flood in floods):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def coloured_text(path: Path, size: int) -> Path:
    """Write a file of about so many bytes of lines as compilers and tests print them; return its path."""
    dice = random.Random(1)
    words: Sequence[str] = ("compiling", "linking", "passed", "FAILED", "warning:", "src/main.c:42", "in 0.31 s", "->")
    looks = [f"\x1b[{weight};3{colour}m" for weight in (0, 1, 4) for colour in range(8)]
    lines = (
        " ".join(f"{dice.choice(looks)}{dice.choice(words)}\x1b[0m" for _ in range(dice.randrange(1, 8)))
        for _ in range(10_000)
    )
    block = "".join(f"{line}\n" for line in lines).encode()
    with path.open("wb") as file:
        for _ in range(max(1, round(size / len(block)))):
            file.write(block)
    return path
