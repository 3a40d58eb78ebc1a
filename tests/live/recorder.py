"""Runs a program on a terminal of its own and writes down whatever it writes: `recorder.py LOG COMMAND...`.

What is written down is what a terminal would have seen that nobody ever interrupted.
"""

from __future__ import annotations

import os
import pty
import sys


def main() -> None:
    log = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def read(descriptor: int) -> bytes:
        data = os.read(descriptor, 65536)
        os.write(log, data)
        return data

    size = os.get_terminal_size(0)
    sized = f'stty cols {size.columns} rows {size.lines}; exec "$@"'
    pty.spawn(["sh", "-c", sized, "sh", *sys.argv[2:]], read)


if __name__ == "__main__":
    main()
