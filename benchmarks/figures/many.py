"""50 live sessions of 2,000 lines: memory <= tmux's server with the same + 45 MB; idle, no CPU and no disk write.

Memory is VmRSS of daemon and keeper together, and of tmux's server. Each program prints its
lines, asks the terminal whether it is there (DSR) and writes to a pipe once it is answered: then all
has been shown. Idle is measured once everything has been saved, with the daemon set to look
for something to save every second, which is more than it does by itself.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from benchmarks.bench import START_SECS, Bench, socket_of
from benchmarks.client import LineClient
from benchmarks.figures.memory import MEGABYTE, resident_bytes
from benchmarks.figures.output import SKIPPED
from benchmarks.hosts import TMUX, Host, Place, Script, is_here, orbit, tmux
from benchmarks.results import Bar, Outcome, Result, Skipped, exactly

LINES = 2_000
PYTHON_FLOOR = 45
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
    if not Path("/proc/self/io").exists():
        return [Skipped(figure="many", what="memory, CPU and writes", reason="this kernel has no /proc/PID/io")]
    count = bench.amount(50, 3)
    with shown(bench, partial(orbit, settings=EAGER), count, LINES) as places:
        _wait_until_saved(places[0].home)
        pids = [places[0].server, _parent(places[0].pid)]
        memory = [resident_bytes(pid) / MEGABYTE for pid in pids]
        cpu, written = _idle(pids, bench.amount(5, 1))
    ours = exactly(f"daemon + keeper, {count} live sessions", "MB", sum(memory))
    return [
        *_beside_tmux(bench, count, memory),
        Result(figure="many", number=exactly("idle: CPU time a second", "ms", cpu), bar=Bar(kind="<=", limit=1)),
        Result(figure="many", number=exactly("idle: written to disk", "bytes", written), bar=Bar(kind="<=", limit=0)),
        Result(figure="many", number=ours, note=f"daemon {memory[0]:.1f} MB, keeper {memory[1]:.1f} MB"),
    ]


def _beside_tmux(bench: Bench, count: int, memory: list[float]) -> list[Outcome]:
    """Measure tmux with the same sessions; return how much more Orbit takes."""
    if not is_here(TMUX):
        return [Skipped(figure="many", what="memory beside tmux", reason=SKIPPED)]
    with shown(bench, tmux, count, LINES) as places:
        theirs = resident_bytes(places[0].server) / MEGABYTE
    return [
        Result(
            figure="many",
            number=exactly("memory above tmux's", "MB", sum(memory) - theirs),
            bar=Bar(kind="<=", limit=PYTHON_FLOOR),
            note=f"{sum(memory):.1f} MB, tmux {theirs:.1f} MB, {count} sessions of {LINES} lines each",
        )
    ]


@contextlib.contextmanager
def shown(bench: Bench, host: Host, count: int, lines: int) -> Iterator[list[Place]]:
    """Run so many sessions of so many lines; yield their places once everything is on their screens.

    Raises:
        TimeoutError: That takes too long.
    """
    pipe = bench.new_home() / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)  # ours is a writer too, so that it never ends
    script = Script(text=TALKER, arguments=(str(pipe), str(lines)))
    try:
        with host(bench, [script] * count) as places:
            reports = b""
            while reports.count(b"\n") < count:
                if not select.select([reader], [], [], START_SECS)[0]:
                    raise TimeoutError(f"{reports!r} of {count} sessions")
                reports += os.read(reader, 1 << 16)
            yield places
    finally:
        os.close(reader)


def _wait_until_saved(home: Path) -> None:
    """Look until every session has been saved and nothing has changed since: there is no event for that."""
    deadline = time.monotonic() + START_SECS
    with LineClient(socket_of(home)) as client:
        while True:
            before = [one.get("last_saved_at") for one in client.call("session.list")["sessions"]]
            time.sleep(2.5)
            after = [one.get("last_saved_at") for one in client.call("session.list")["sessions"]]
            if all(before) and before == after:
                return
            if time.monotonic() > deadline:
                raise TimeoutError("sessions are not saved")


def _idle(pids: Sequence[int], secs: float) -> tuple[float, int]:
    """Return the CPU time in milliseconds a second, and the bytes written to disk, of doing nothing for some time."""
    before = [(_cpu_ns(pid), _written(pid)) for pid in pids]
    time.sleep(secs)
    after = [(_cpu_ns(pid), _written(pid)) for pid in pids]
    cpu = sum(now[0] - then[0] for now, then in zip(after, before, strict=True))
    return cpu / 1_000_000 / secs, sum(now[1] - then[1] for now, then in zip(after, before, strict=True))


def _cpu_ns(pid: int) -> int:
    """Return what all threads have run: /proc/PID/task/TID/schedstat, in nanoseconds."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat"))


def _written(pid: int) -> int:
    found = re.search(r"^write_bytes: (\d+)", Path(f"/proc/{pid}/io").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
