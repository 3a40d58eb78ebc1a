"""50 and 1,000 idle live sessions of 2,000 lines: memory <= tmux's + 60 MB; no CPU and no disk write.

Memory is the PSS of all processes that host the sessions: of Orbit's they are orbitd, its template, its screens
processes and the keeper. Each program prints its lines, asks the terminal whether it is there (DSR) and writes to a
pipe once it is answered: then all has been shown. It is measured once everything has been saved, the pictures and the
journals of quiet sessions have been let go of, and the check and the backup that follow a start by a minute are over,
with the daemon set to look for something to save every second, which is more than it does by itself. cmux and screen,
which run a process a session, are measured with 50; dtach keeps no lines.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from benchmarks.bench import START_SECS, Bench, socket_of
from benchmarks.client import LineClient
from benchmarks.hosts import (
    CMUX,
    DTACH,
    HOSTS,
    ORBIT,
    SCREEN,
    TMUX,
    Host,
    Place,
    Script,
    all_sessions,
    beside,
    here,
    hosting,
    orbit,
)
from benchmarks.processes import HAS_PROC, MEGABYTE, NO_PROC, Cpu, proportional_bytes, written_bytes
from benchmarks.results import Bar, Number, Outcome, Result, Skipped, exactly

LINES = 2_000
ABOVE_TMUX = 60
SAVE_SECS = 120.0
QUIET_SECS = 75
"""From the last save to what is measured: orbitd's checks begin 60 s after its start."""
EAGER = "[session]\nauto_save_interval_secs = 1\n"
TALKER = """
seq -f "$(printf '\\033[32mline\\033[0m %%g: \\033[1mas long as the lines of most programs are, or so\\033[0m')" "$2"
stty raw -echo
printf '\\033[5n'
dd bs=1 count=4 of=/dev/null 2>/dev/null
echo shown > "$1"
exec cat
"""


def run(bench: Bench) -> Sequence[Outcome]:
    """Measure the figures."""
    if not HAS_PROC:
        return [Skipped(figure="many", what="memory, CPU and writes", reason=NO_PROC)]
    few, many = bench.amount(50, 3), bench.amount(1_000, 6)
    names = here(bench, (ORBIT, TMUX, CMUX, SCREEN))
    return [
        *_hosted(bench, few, names),
        *_hosted(bench, many, [name for name in names if name in (ORBIT, TMUX)]),
    ]


def _hosted(bench: Bench, count: int, names: Sequence[str]) -> list[Outcome]:
    """Measure so many sessions of each."""
    memory: dict[str, Number] = {}
    cpu: dict[str, Number] = {}
    written: dict[str, Number] = {}
    for name in names:
        host = partial(orbit, settings=EAGER) if name == ORBIT else HOSTS[name][0]
        with shown(bench, host, count, LINES) as places:
            if name == ORBIT:
                wait_until_saved(places[0].home)
                time.sleep(bench.amount(QUIET_SECS, 0))
            pids = hosting(places)
            before, used = written_bytes(pids), Cpu(partial(hosting, places))
            secs = bench.amount(5, 1)
            time.sleep(secs)
            what = f"{name}, {count:,} sessions"
            cpu[name] = exactly(f"{what}, CPU a second", "ms", used.spent_ms() / secs)
            written[name] = exactly(f"{what}, written", "bytes", written_bytes(pids) - before)
            memory[name] = exactly(f"{what}", "MB", proportional_bytes(pids) / MEGABYTE)
    ours = memory[ORBIT]
    outcomes: list[Outcome] = [
        Result(figure="many", number=cpu[ORBIT], baseline=cpu.get(TMUX), bar=Bar(kind="<=", limit=1, of_value=True)),
        Result(figure="many", number=written[ORBIT], bar=Bar(kind="<=", limit=0)),
    ]
    if TMUX in memory:
        above = exactly(f"above tmux's, {count:,} sessions", "MB", ours.value - memory[TMUX].value)
        outcomes.insert(0, Result(figure="many", number=above, bar=Bar(kind="<=", limit=ABOVE_TMUX)))
    if len(names) > 2:
        return [*outcomes, *beside("many", ours, memory, {}, unable=[DTACH])]
    return [*outcomes, Result(figure="many", number=ours, baseline=memory.get(TMUX))]


@contextlib.contextmanager
def shown(bench: Bench, host: Host, count: int, lines: int, others: Sequence[Script] = ()) -> Iterator[list[Place]]:
    """Run so many sessions of so many lines, and others after them; yield the places once all lines are on screens.

    Raises:
        TimeoutError: That takes too long.
    """
    pipe = bench.new_home() / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)  # ours is a writer too, so that it never ends
    script = Script(text=TALKER, arguments=(str(pipe), str(lines)))
    try:
        with host(bench, [*[script] * count, *others]) as places:
            reports = b""
            while reports.count(b"\n") < count:
                if not select.select([reader], [], [], START_SECS)[0]:
                    raise TimeoutError(f"{reports!r} of {count} sessions")
                reports += os.read(reader, 1 << 16)
            yield places
    finally:
        os.close(reader)


def wait_until_saved(home: Path) -> None:
    """Look until every session has been saved and nothing has changed since: there is no event for that."""
    deadline = time.monotonic() + SAVE_SECS
    with LineClient(socket_of(home)) as client:
        while True:
            before = _saved(client)
            time.sleep(2.5)
            if all(before) and before == _saved(client):
                return
            if time.monotonic() > deadline:
                raise TimeoutError("sessions are not saved")


def _saved(client: LineClient) -> list[str | None]:
    return [one.get("last_saved_at") for one in all_sessions(client)]
