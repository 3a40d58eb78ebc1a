"""What recording costs: CPU a MB of output <= 1.15x without, bytes written a MB <= 1.3 MB.

A day of work is printed as fast as it goes, once a round, in a session of today's daemon and in one of the daemon as it
was before it had histories (`BEFORE`, out of git), by turns; a round ends when the screen is saved. CPU is what orbitd,
its screens processes and the keeper ran, without the program that prints; written is what the kernel counts of them
(/proc/PID/io), the journal and both databases. On disk is what is left of it without the pages that the kernel had not
written yet when their file was deleted: all of the journal, where a save comes within half a minute. Each day begins on
the screen that the one before has left.
"""

from __future__ import annotations

import contextlib
import io
import site
import subprocess
import sys
import tarfile
import time
import venv
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from benchmarks.bench import HERE, ORBITD, Bench, served, socket_of
from benchmarks.client import LineClient
from benchmarks.hosts import Place, end_programs, hosting
from benchmarks.processes import HAS_PROC, MEGABYTE, NO_PROC, Cpu, unwritten_bytes, written_bytes
from benchmarks.results import Bar, Outcome, Result, Skipped, mean, summary
from benchmarks.rounds import by_turns

BEFORE = "97c273ded388937fd7a0ba815dfa86679a267712"
TODAY, EARLIER = "recording", "without"
SAVED_SECS = 60.0


def run(bench: Bench) -> Sequence[Outcome]:
    """Measure the figures."""
    if not HAS_PROC:
        return [Skipped(figure="recording", what="CPU and bytes written", reason=NO_PROC)]
    from benchmarks.workday import record_for

    day, earlier = record_for(bench), before_histories(bench)
    with contextlib.ExitStack() as stack:
        hosts = {TODAY: stack.enter_context(_playing(bench, day, (sys.executable, *ORBITD)))}
        if earlier is not None:
            hosts[EARLIER] = stack.enter_context(_playing(bench, day, (str(earlier), "-I", *ORBITD)))
        by_turns({name: host.play for name, host in hosts.items()}, bench.amount(7, 1), warm_up=bench.amount(1, 0))
    rounds = bench.amount(7, 1)
    cpu = {name: summary(f"{name}, CPU a MB", "ms", host.cpu[-rounds:]) for name, host in hosts.items()}
    written = {name: mean(f"{name}, written a MB", "MB", host.written[-rounds:]) for name, host in hosts.items()}
    on_disk = {name: mean(f"{name}, on disk a MB", "MB", host.on_disk[-rounds:]) for name, host in hosts.items()}
    bar = Bar(kind="<=", limit=1.3, of_value=True)
    if earlier is None:
        reason = f"commit {BEFORE[:7]} is not in this clone's history"
        return [
            Skipped(figure="recording", what=f"CPU a MB / {EARLIER}", reason=reason),
            Result(figure="recording", number=cpu[TODAY]),
            Result(figure="recording", number=written[TODAY], bar=bar),
            Result(figure="recording", number=on_disk[TODAY]),
        ]
    return [
        Result(figure="recording", number=cpu[TODAY], baseline=cpu[EARLIER], bar=Bar(kind="<=", limit=1.15)),
        Result(figure="recording", number=written[TODAY], baseline=written[EARLIER], bar=bar),
        Result(figure="recording", number=on_disk[TODAY], baseline=on_disk[EARLIER]),
    ]


def before_histories(bench: Bench) -> Path | None:
    """Return a Python that runs the daemon as it was before it had histories; None where git does not have it."""
    folder = bench.folder / "before"
    command = ["git", "-c", "safe.directory=*", "-C", str(HERE.parent), "archive", "--format=tar", BEFORE]
    with contextlib.suppress(OSError):
        archived = subprocess.run(command, capture_output=True, check=False)
        if archived.returncode == 0:
            with tarfile.open(fileobj=io.BytesIO(archived.stdout)) as files:
                files.extractall(folder / "source", filter="data")
            venv.create(folder / "python", symlinks=True)
            (packages,) = folder.glob("python/lib/python*/site-packages")
            # Path files in the folders that are lent are not read: today's packages are not found by one.
            paths = [folder / "source", folder / "source" / "protocol", *site.getsitepackages()]
            (packages / "before.pth").write_text("".join(f"{path}\n" for path in paths))
            return folder / "python" / "bin" / "python"
    return None


@contextlib.contextmanager
def _playing(bench: Bench, path: Path, command: Sequence[str]) -> Iterator[_Host]:
    """Run a daemon with a session in which a day happens again and again."""
    from benchmarks.workday import Day

    home = bench.new_home()
    with (
        served(home, command[1:], python=command[0]) as daemon,
        LineClient(socket_of(home)) as client,
        Day(client, path, home) as day,
    ):
        try:
            yield _Host(client, day, Place(attach=(), home=home, pid=day.pid, server=daemon.pid))
        finally:
            end_programs(home)


class _Host:
    """A daemon, and the day that happens in its session.

    Args:
        client: A connection to it.
        day: The day.
        place: The session.

    Attributes:
        cpu: Milliseconds a MB of each round.
        written: Megabytes a MB.
        on_disk: Of those, what the kernel has written to disk, or still will.
    """

    def __init__(self, client: LineClient, day: object, place: Place) -> None:
        from benchmarks.workday import Day

        assert isinstance(day, Day)
        self._client, self._day = client, day
        self._pids = partial(hosting, [place])
        self.cpu: list[float] = []
        self.written: list[float] = []
        self.on_disk: list[float] = []

    def play(self) -> float:
        """Let the day happen, and wait until it is saved; return the CPU time."""
        used, before, pids = Cpu(self._pids), self._day.raw_bytes, self._pids()
        written, unwritten = written_bytes(pids), unwritten_bytes(pids)
        self._day.rewind()
        self._day.play_all()
        self._wait_until_saved()
        megabytes = (self._day.raw_bytes - before) / MEGABYTE
        self.cpu.append(used.spent_ms() / megabytes)
        pids = self._pids()
        written = written_bytes(pids) - written
        self.written.append(written / megabytes / MEGABYTE)
        self.on_disk.append((written - unwritten_bytes(pids) + unwritten) / megabytes / MEGABYTE)
        return self.cpu[-1]

    def _wait_until_saved(self) -> None:
        """Look until the screen was saved after the last output of the day: there is no event for that."""
        from benchmarks.workday import timestamp

        deadline = time.monotonic() + SAVED_SECS
        ended = timestamp(time.time())
        while (self._client.call("session.get", id=self._day.session_id)["last_saved_at"] or "") < ended:
            if time.monotonic() > deadline:
                raise TimeoutError("the session is not saved")
            time.sleep(0.05)
