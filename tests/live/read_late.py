"""A program that reads nothing until somebody opens a fifo: `read_late.py FIFO FILE`.

Then it copies its input to a file, up to a NUL, and ends. Its terminal is raw.
"""

import os
import sys
import tty

tty.setraw(0)
os.write(1, b"ready")
os.close(os.open(sys.argv[1], os.O_RDONLY))
with open(sys.argv[2], "wb", buffering=0) as copy:
    while not (data := os.read(0, 1 << 16)).endswith(b"\0"):
        copy.write(data)
    copy.write(data[:-1])
