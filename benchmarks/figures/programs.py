"""vim, less, htop, mc, nano, man, a Python REPL, git log: saved and restored equal, all of them.

Each program is brought somewhere interesting, then orbitd is killed with -9 and started
again, and a fresh terminal attaches: every cell, style, mode and the cursor have to be those
of a terminal that saw everything. The programs, the keys and the comparison are those of
`tests/live/test_real_programs.py`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from benchmarks.bench import Bench
from benchmarks.hosts import end_programs
from benchmarks.peers import find
from benchmarks.results import Bar, Outcome, Result, Skipped, exactly

NAMES = ("vim", "less", "htop", "mc", "nano", "man", "python", "git log")


def run(bench: Bench) -> Sequence[Outcome]:
    """Measure the figure."""
    missing = [name for name in NAMES if name != "python" and find(name.split()[0]) is None]
    names = [name for name in NAMES if name not in missing]
    different = _different(bench, names)
    equal = exactly("restored equal", "programs", len(names) - len(different))
    total = exactly("programs", "programs", len(names))
    note = f"not equal: {', '.join(different)}" if different else ", ".join(names)
    return [
        Result(figure="programs", number=equal, baseline=total, bar=Bar(kind=">=", limit=1), note=note),
        *(Skipped(figure="programs", what=name, reason="not installed") for name in missing),
    ]


def _different(bench: Bench, names: Sequence[str]) -> list[str]:
    """Run the programs; return those that do not come back as they were."""
    from benchmarks.harness import PROGRAMS, DaemonProcess, Session, prepare

    home = bench.new_home()
    prepare(home)
    daemon = DaemonProcess(home).start()
    try:
        with daemon.client() as client:
            sessions = [Session(client, name, PROGRAMS[name], home) for name in names]
        for session in sessions:
            session.play(daemon, PROGRAMS[session.name])
            session.freeze()
        daemon.kill()
        daemon.start()
        return [session.name for session in sessions if session.difference(daemon)]
    finally:
        with contextlib.suppress(OSError):  # nano, when its terminal goes, saves into a folder that is gone by then
            end_programs(home)
        daemon.end()
