"""The keeper's landing buffer when the orbitd that reads into it is killed: the journal has every byte, once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from keeper_support import SECONDS, KeeperProcess
from orbitd.sessions.journal import Journal
from orbitd.sessions.journal_file import Output

NUMBERS = range(150_000)

FLOOD = f"""
import os
data = b''.join(b'%09d ' % number for number in {NUMBERS})
for start in range(0, len(data), 4000):
    os.write(1, data[start : start + 4000])
"""

READ_AND_KILL = """
import os, random, select, signal, sys, time
from orbitd.sessions.journal import Journal
from orbitd.sessions.terminal import Landing

path, dice = sys.argv[1], random.Random(int(sys.argv[2]))
masters = {"one": int(sys.argv[3]), "two": int(sys.argv[4])}
buffer = int(sys.argv[5])
for master in masters.values():
    os.set_blocking(master, False)

def read(started):
    landing = Landing(os.dup(buffer))
    journals = {name: Journal(path + name) for name in masters}
    pending = landing.pending()
    if pending is not None:
        assert journals[pending.session].complete_landing(pending) == []
        landing.clear()
    os.write(started, b"+" if pending is None else b"p")
    poll = select.poll()
    names = {master: name for name, master in masters.items()}
    for master in names:
        poll.register(master, select.POLLIN)
    while names:
        for master, _ in poll.poll():
            name = names[master]
            journal = journals[name]
            data, hung_up = landing.read(master, name, journal.position, dice.choice([1, 100, 16384, 65536]))
            if data:
                assert journal.append_output(data) == []
                landing.clear()
            elif hung_up:
                del names[master]
                poll.unregister(master)
    os._exit(7)

kills = completed = 0
while True:
    ready, started = os.pipe()
    reader = os.fork()
    if not reader:
        read(started)
    os.close(started)
    completed += os.read(ready, 1) == b"p"
    moment = time.perf_counter() + dice.random() * 0.004
    while time.perf_counter() < moment:
        pass
    os.kill(reader, signal.SIGKILL)
    _, status = os.waitpid(reader, 0)
    os.close(ready)
    if os.WIFEXITED(status):
        assert os.WEXITSTATUS(status) == 7
        break
    kills += 1
print(kills, completed)
"""


@pytest.mark.parametrize("seed", range(3))
def test_a_kill_at_any_moment_loses_no_byte(keeper: KeeperProcess, folder: Path, seed: int) -> None:
    """While two programs flood their terminals the reader is killed again and again: each journal has its own bytes."""
    peer = keeper.peer().hello()
    for name in ("one", "two"):
        program = (("file", sys.executable), ("argv", "python"), ("argv", "-c"), ("argv", FLOOD))
        rest = (("cwd", "/"), ("cols", 80), ("rows", 24), ("umask", 0o22))
        assert peer.ask("spawn", ("id", name), *program, *rest).kind == "ok"
    assert peer.ask("landing").kind == "ok"

    killer = subprocess.run(
        [sys.executable, "-c", READ_AND_KILL, f"{folder}/", str(seed), *map(str, peer.descriptors)],
        pass_fds=peer.descriptors,
        capture_output=True,
        text=True,
        timeout=3 * SECONDS,
        check=False,
    )

    assert killer.returncode == 0, killer.stderr
    kills, completed = map(int, killer.stdout.split())
    assert kills >= 3
    assert completed >= 1
    for name in ("one", "two"):
        with Journal(folder / name) as journal:
            output = b"".join(event.data for event in journal.events(0) if isinstance(event, Output))
            assert journal.damage is None
        assert output == b"".join(b"%09d " % number for number in NUMBERS)
