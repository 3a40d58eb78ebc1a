"""The tests' own way with real programs and screens, borrowed: what they compare is what is counted here.

Importing this puts `tests/` on the path; figures import it when they run, since it is no
part of what is installed.
"""

from __future__ import annotations

import sys

from benchmarks.bench import HERE

sys.path.insert(0, str(HERE.parent / "tests"))

from live.programs import PROGRAMS, prepare
from live.sessions import create, saved_screen
from live.test_real_programs import Session
from support import DaemonProcess, RawClient
from terminal_support import shown

__all__ = ["PROGRAMS", "DaemonProcess", "RawClient", "Session", "create", "prepare", "saved_screen", "shown"]
