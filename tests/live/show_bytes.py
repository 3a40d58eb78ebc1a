"""Writes its arguments, folder and environment as hexadecimal digits, as JSON: `show_bytes.py FILE ARGUMENT...`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

if __name__ == "__main__":
    told = {
        "arguments": [os.fsencode(word).hex() for word in sys.argv[2:]],
        "folder": os.getcwdb().hex(),
        "environment": {name.hex(): value.hex() for name, value in os.environb.items()},
    }
    Path(sys.argv[1]).write_text(json.dumps(told))
