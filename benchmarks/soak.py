"""The long version of what the suite shows of faults: `python -m benchmarks.soak`, with counts as options.

Each part prints what it tried and what it found. Anything lost, half there, damaged or not
answered as it should be ends the soak with its description and exit code 1.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from faults.powercut import Outcome

ROOT = Path(__file__).resolve().parent.parent
TESTS = ROOT / "tests"
KILLS_A_SIEGE = 25
CALLS_A_RECORDING = 60
SCREENS_A_DAEMON = 20

sys.path.insert(0, str(TESTS))  # the soak is the tests' own harness with larger counts


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--kills", type=click.IntRange(0), default=300, show_default=True, help="Times the daemon is killed.")
@click.option("--clients", type=click.IntRange(1), default=8, show_default=True, help="How many write at once.")
@click.option("--cuts", type=click.IntRange(0), default=1_000, show_default=True, help="Power cuts tried.")
@click.option("--faults", type=click.IntRange(0), default=3, show_default=True, help="Rounds of every fault test.")
@click.option("--moments", type=click.IntRange(1), default=20, show_default=True, help="Kills in each kind of work.")
@click.option("--fuzz", type=click.IntRange(0), default=10, show_default=True, help="Times the suite's fuzzing.")
@click.option("--screens", type=click.IntRange(0), default=500, show_default=True, help="Sessions fed random output.")
@click.option("--screens-from", type=int, help="The seed of the first of these; those after it count up.")
@click.option(
    "--screens-scale", type=click.IntRange(1), default=20, show_default=True, help="How much of what is slow."
)
@click.option("--seed", type=int, help="Of all choices but the threads' turns; another one each time without it.")
def main(
    kills: int,
    clients: int,
    cuts: int,
    faults: int,
    moments: int,
    fuzz: int,
    screens: int,
    screens_from: int | None,
    screens_scale: int,
    seed: int | None,
) -> None:
    """Kill, cut the power, break the disk, send garbage and print it for as long as it is asked for."""
    chance = random.Random(seed)
    first = chance.getrandbits(32) if screens_from is None else screens_from
    parts: list[tuple[str, bool, Callable[[], str]]] = [
        ("kill -9", kills > 0, lambda: _kill(kills, clients, chance)),
        ("power cuts", cuts > 0, lambda: _cut(cuts, clients, chance)),
        ("power cuts, nothing synced", cuts > 0, lambda: _cut_careless(clients, chance)),
        ("faults", faults > 0, lambda: _faults(faults, moments)),
        ("fuzzing", fuzz > 0, lambda: _fuzz(fuzz)),
        ("random output", screens > 0, lambda: _screens(range(first, first + screens), screens_scale)),
    ]
    for name, wanted, run in parts:
        if wanted:
            print(f"{name:<28} {run()}", flush=True)


def _home() -> Path:
    return Path(tempfile.mkdtemp(prefix="orbit-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None))


def _kill(kills: int, clients: int, chance: random.Random) -> str:
    """Besiege daemons one after the other, so that a store does not grow for ever."""
    from faults.kills import Counts, Siege

    total = Counts()
    while total.kills < kills:
        home = _home()
        counts = Siege(home, clients, chance.getrandbits(32)).run(min(KILLS_A_SIEGE, kills - total.kills))
        shutil.rmtree(home)
        total = Counts(*(getattr(total, field) + getattr(counts, field) for field in Counts.__dataclass_fields__))
        print(f"  {total}", file=sys.stderr, flush=True)
    return str(total)


def _cut(cuts: int, clients: int, chance: random.Random) -> str:
    from faults.powercut import Outcome

    total = Outcome()
    while total.cuts < cuts:
        total = total + _recorded(clients, chance, careless=False)
        print(f"  {total}", file=sys.stderr, flush=True)
        if total.wrong:
            raise click.ClickException("\n".join(total.wrong))
    return str(total)


def _cut_careless(clients: int, chance: random.Random) -> str:
    """Show that the cuts notice a store that syncs nothing."""
    outcome = _recorded(clients, chance, careless=True)
    if not outcome.wrong:
        raise click.ClickException("with synchronous=OFF nothing was lost: the power cuts prove nothing")
    return f"noticed, as it should be: {outcome}"


def _recorded(clients: int, chance: random.Random, *, careless: bool) -> Outcome:
    from faults.powercut import Recording

    home = _home()
    try:
        recording = Recording(home, clients=clients, seed=chance.getrandbits(32), careless=careless)
        recording.write(CALLS_A_RECORDING)
        return recording.cut(chance=0.1)
    finally:
        shutil.rmtree(home)


def _faults(rounds: int, moments: int) -> str:
    tried = 0
    for _ in range(rounds):
        tried += _pytest(
            ["tests/faults", "--deselect", "tests/faults/test_kills.py", "--deselect", "tests/faults/test_powercut.py"],
            ORBIT_FAULT_MOMENTS=str(moments),
        )
    return f"{tried} faults tried, each as the table in docs/reliability.md says"


def _fuzz(factor: int) -> str:
    with tempfile.NamedTemporaryFile("r", prefix="orbit-fuzz-") as counts:
        passed = _pytest(["tests/fuzz", "tests/model"], ORBIT_FUZZ_FACTOR=str(factor), ORBIT_FUZZ_COUNTS=counts.name)
        total: Counter[str] = Counter()
        for line in counts:
            what, _, number = line.rpartition(" ")
            total[what] += int(number)
    found = ", ".join(f"{number} {what}" for what, number in sorted(total.items()))
    return f"{passed} properties hold: {found}"


def _screens(seeds: range, scale: int) -> str:
    """Feed sessions random output, some of them a daemon, and start each daemon again under them.

    Raises:
        click.ClickException: A program, another session, a ping or the next start was harmed; the seed is in the text.
    """
    from fuzz.screens import Fed, case
    from support import DaemonProcess

    printed = 0
    for first in range(seeds.start, seeds.stop, SCREENS_A_DAEMON):
        some = range(first, min(first + SCREENS_A_DAEMON, seeds.stop))
        print(f"  seeds {some.start} to {some.stop - 1}, scale {scale}", file=sys.stderr, flush=True)
        home = Path(tempfile.mkdtemp(prefix="orbit-", dir="/tmp"))
        daemon = DaemonProcess(home).start()
        try:
            fed = Fed(daemon)
            for seed in some:
                one = case(seed, scale=scale)
                fed.feed(one)
                printed += sum(len(step) for step in one.steps if isinstance(step, bytes))
            fed.restart(some)
            fed.close()
        except AssertionError as error:
            raise click.ClickException(
                f"{error}\nagain: --screens 1 --screens-from SEED --screens-scale {scale}"
            ) from error
        finally:
            daemon.end()
            shutil.rmtree(home)
    return (
        f"{len(seeds)} sessions from seed {seeds.start} on printed {printed / 1e6:.1f} MB, and nothing else was harmed"
    )


def _pytest(arguments: list[str], **environment: str) -> int:
    """Run tests that must pass, and return how many."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "timeout=3600", *arguments]
    run = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True, check=False
    )
    passed = re.search(r"(\d+) passed", run.stdout)
    if run.returncode != 0 or passed is None:
        raise click.ClickException(run.stdout)
    return int(passed[1])


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.soak")
