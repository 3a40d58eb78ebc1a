"""kill -9 of the daemon, again and again, while a program writes as fast as it can."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from film_support import film_of, history_of, output_of
from live.programs import SHOW, recorded
from live.sessions import Terminal, recorded_history, recorded_screen, restarted, start, stat
from support import DaemonProcess
from terminal_support import shown

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("ORBIT_TEST_KILLS", "20"))
LOOK_EVERY = 4
STORMS, STORM_KILLS = 3, 5
COUNTER = "seq -f %.0f 1000000000"


def numbers(text: str) -> list[int]:
    """Return what was counted; a line that is not whole yet is no number."""
    return [int(line) for line in text.split("\n")[:-2]]


@pytest.mark.timeout(300)  # twenty starts of the daemon, each beside a program that never rests
def test_every_line_is_there_once_and_in_order(daemon: DaemonProcess) -> None:
    """A counter runs on through twenty kills; history and screen have every line once, as far as they reach."""
    dice = random.Random(1)
    with daemon.client() as client:
        session_id = start(client, COUNTER)
        pid = client.call("session.get", id=session_id)["pid"]
    last = 0
    for round_ in range(KILLS):
        with daemon.client() as client:
            terminal = Terminal(client, session_id)
            for _ in range(dice.randrange(1, 40)):
                terminal.step()
        with restarted(daemon) as client:
            session = client.call("session.get", id=session_id)
            assert (session["live"], session["pid"]) == (True, pid)
            if round_ % LOOK_EVERY:
                continue
            found = numbers(client.call("session.screen", id=session_id, scrollback=True)["data"])
            assert found == list(range(found[0], found[0] + len(found)))
            assert found[-1] >= last
            last = found[-1]
            client.call("maintenance.auto_save")  # some of the next kills fall on a journal that has just been cut
    with daemon.client() as client:
        client.call("session.signal", id=session_id, signal="KILL")
        client.call("session.wait", id=session_id)
        text = client.call("session.screen", id=session_id, scrollback=True)["data"]
    found = numbers(text)
    assert found == list(range(found[0], found[0] + len(found)))
    assert found[-1] > max(last, 10_000)
    assert len(found) > 9_000
    # The film has all of it too, but for what was more than it may have.
    first, records, _ = film_of(history_of(daemon.database_path), session_id)
    filmed = numbers(output_of(records).decode().replace("\r", "") + "\n")[1:]
    assert filmed == list(range(filmed[0], filmed[0] + len(filmed)))
    assert filmed[-1] >= found[-1]
    assert first > 0 or filmed[0] == 2


def test_storms_come_through_kills(daemon: DaemonProcess, home: Path) -> None:
    """Programs that draw all over their screens end, after kills at random moments, as in an unbroken run."""
    dice = random.Random(2)
    logs = [home / f"storm-{seed}" for seed in range(STORMS)]
    with daemon.client() as client:
        ids = [start(client, recorded(f"{SHOW} storm {seed}", log)) for seed, log in enumerate(logs)]
    for _ in range(STORM_KILLS):
        with daemon.client() as client:
            terminal = Terminal(client, dice.choice(ids))
            for _ in range(dice.randrange(1, 8)):
                if "shown" not in terminal.text():
                    terminal.step()
        restarted(daemon).close()
    for session_id, log in zip(ids, logs, strict=True):
        with daemon.client() as client:
            terminal = Terminal(client, session_id)
            terminal.follow_until("shown")
            assert shown(terminal.emulator.dump()) == recorded_screen(log)
            history = client.call("session.screen", id=session_id, scrollback=True)["data"]
        assert history == recorded_history(log)


@pytest.mark.parametrize("column", ["id", "config"])
def test_a_program_outlives_damage_of_its_row(daemon: DaemonProcess, column: str) -> None:
    """While the row cannot be read its program runs on; once it is repaired, the program is the session's again."""
    with daemon.client() as client:
        session_id = start(client, "cat")
        pid = client.call("session.get", id=session_id)["pid"]
        other = start(client, "cat")
    daemon.stop()
    content = daemon.database_path.read_bytes()
    record = content.rindex(session_id.encode() + b"local")
    place = record + 4 if column == "id" else content.index(b'"command"', record) + 3
    daemon.database_path.write_bytes(content[:place] + b"\xff" + content[place + 1 :])
    daemon.start()
    with daemon.client() as client:
        assert [one["id"] for one in client.call("session.list")["sessions"]] == [other]
        assert client.error("session.get", id=session_id)["code"] == 1901
        assert client.call("daemon.info")["warnings"]
        assert client.call("session.get", id=other)["live"]
    daemon.stop()
    assert stat(pid)
    repaired = bytearray(daemon.database_path.read_bytes())
    repaired[place] = content[place]
    daemon.database_path.write_bytes(repaired)
    daemon.start()
    with daemon.client() as client:
        session = client.call("session.get", id=session_id)
        assert (session["live"], session["pid"]) == (True, pid)
        assert client.call("daemon.info")["warnings"] == []
