"""What every figure is given: where it may write, how much to do, and real daemons to measure."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

START_SECS = 60.0
STOP_SECS = 20.0
HERE = Path(__file__).resolve().parent
ORBITD = ("-m", "orbitd")
ONE_COMMIT = (str(HERE / "one_commit.py"),)
MEMORY_FILE_SYSTEMS = frozenset({"tmpfs", "ramfs", "overlay"})


@dataclass(frozen=True)
class Bench:
    """One run of the benchmarks.

    Args:
        folder: A temporary folder on a disk; short, since socket paths are limited.
        quick: Whether counts are so small that only the way is shown, and no number means anything.
    """

    folder: Path
    quick: bool

    def amount(self, full: int, quick: int) -> int:
        """Return how much to do."""
        return quick if self.quick else full

    def new_home(self) -> Path:
        """Return a new, private home for one daemon."""
        home = Path(tempfile.mkdtemp(prefix="h", dir=self.folder))
        (home / "run").mkdir(mode=0o700)
        return home


@contextlib.contextmanager
def new_bench(*, quick: bool) -> Iterator[Bench]:
    """Make the temporary folder, and take it away at the end."""
    folder = Path(tempfile.mkdtemp(prefix="ob", dir=_disk_folder()))
    try:
        yield Bench(folder, quick)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def file_system(path: str) -> str:
    """Return the type of the file system that holds `path`, or `unknown`."""
    try:
        mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    except OSError:
        return "unknown"
    real = os.path.realpath(path)
    holding = [(len(point), kind) for _, point, kind, *_ in mounts if (real + "/").startswith(point.rstrip("/") + "/")]
    return max(holding, default=(0, "unknown"))[1]


def _disk_folder() -> str:
    """Return a temporary folder on a disk: in memory, a durable write would cost nothing."""
    wanted = tempfile.gettempdir()
    if file_system(wanted) in MEMORY_FILE_SYSTEMS - {"overlay"} and os.access("/var/tmp", os.W_OK):
        return "/var/tmp"
    return wanted


@contextlib.contextmanager
def on_one_processor(pids: Iterable[int] = ()) -> Iterator[None]:
    """Keep this process, what it starts and other processes on one processor where the system allows it.

    Of two that talk by turns, the scheduler leaves some pairs together and parts others, and
    waking another processor takes longer than an echo: a ratio would say where they ran.

    Args:
        pids: The others, all of whose threads are moved, and moved back at the end.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before, others = os.sched_getaffinity(0), tuple(pids)
    _move(others, {max(before)})
    try:
        yield
    finally:
        _move(others, before)


def _move(pids: Iterable[int], processors: set[int]) -> None:
    """Move this process and all threads of others."""
    os.sched_setaffinity(0, processors)
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").glob("*"):
            with contextlib.suppress(OSError):  # it has ended
                os.sched_setaffinity(int(task.name), processors)


def environment(home: Path) -> dict[str, str]:
    """Return an environment in which Orbit finds nothing of the user."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "PYTHONPATH", "VIRTUAL_ENV") if name in os.environ}
    # What the first daemon of an installation makes once is kept for the others, as at a user's.
    ours = {"HOME": str(home), "XDG_RUNTIME_DIR": str(home / "run"), "XDG_CACHE_HOME": str(home.parent / "cache")}
    return {**kept, **ours, "TERM": "xterm-256color"}


def configure(home: Path, settings: str) -> None:
    """Write the configuration of the daemon of a home."""
    folder = home / ".config" / "orbit"
    folder.mkdir(parents=True, mode=0o700)
    (folder / "config.toml").write_text(settings)


def history_of(home: Path) -> Path:
    """Return where the daemon of a home keeps its histories."""
    return database_of(home).with_name("history.db")


def socket_of(home: Path) -> Path:
    """Return where the daemon of a home serves."""
    return home / "run" / "orbit" / "orbitd.sock"


def database_of(home: Path) -> Path:
    """Return where the daemon of a home keeps its store."""
    return home / ".local" / "share" / "orbit" / "sessions.db"


@contextlib.contextmanager
def served(
    home: Path, program: Sequence[str], *arguments: str, python: str = sys.executable
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a Python program that writes a line to `--ready-fd` once it serves; stop it at the end.

    Args:
        home: Its home and folder.
        program: What follows the interpreter.
        arguments: Its own flags.
        python: The interpreter.

    Raises:
        RuntimeError: It ended before it served; what it wrote is in the text.
    """
    read_end, write_end = os.pipe()
    log_path = home / "stderr"
    with log_path.open("ab") as log, open(read_end, "rb") as ready:
        command = [python, *program, "--ready-fd", str(write_end), *arguments]
        process = subprocess.Popen(
            command,
            env=environment(home),
            cwd=home,
            pass_fds=[write_end],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        os.close(write_end)
        try:
            if not ready.readline():
                process.wait(START_SECS)
                raise RuntimeError(f"{' '.join(command)} did not start:\n{log_path.read_text(errors='replace')}")
            yield process
        finally:
            stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process that was started here, gently first."""
    process.terminate()
    try:
        process.wait(STOP_SECS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
