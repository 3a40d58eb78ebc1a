"""Each line that leaves a screen is in the history once, whatever becomes of the processes in between."""

from __future__ import annotations

import contextlib
from collections import Counter

import pytest

from film_support import history_of
from history_sessions import Printing
from live.screens_processes import screens_processes
from live.sessions import kill
from needs import needs
from orbitd.history.database import TEXT_COLUMNS, open_reader, text_from_row
from orbitd.history.text_blocks import unpack
from support import DaemonProcess

pytestmark = needs(linux=True)


def lines_of(daemon: DaemonProcess, session_id: str) -> Counter[str]:
    """Return how often each line of a session stands in the rows that hold what has left its screen."""
    found: Counter[str] = Counter()
    query = f"SELECT {TEXT_COLUMNS} FROM texts WHERE session_id = ? AND is_tail = 0"
    with contextlib.closing(open_reader(str(history_of(daemon.database_path)))) as connection:
        for row in connection.execute(query, (session_id,)):
            block = text_from_row(row).block
            found.update(line.text for line in unpack(block.text, block.runs))
    return found


@pytest.mark.parametrize("fault", ["screens process", "orbitd"])
def test_lines_are_recorded_once_through_kills(daemon: DaemonProcess, fault: str) -> None:
    """A picture that is built again, out of a snapshot that has lines of before, records none of them again."""
    with daemon.client() as client:
        session = Printing(client, "web")
    for round_ in range(4):
        with daemon.client() as client:
            session = Printing(client, "web", session.id, runs=True)
            for number in range(3):
                session.print(b"".join(b"round %d, line %d\r\n" % (round_, 100 * number + each) for each in range(60)))
                if number != round_ % 3:
                    session.save()
        if fault == "orbitd":
            daemon.kill()
            daemon.start()
        else:
            for pid in screens_processes(daemon):
                kill(pid)
    with daemon.client() as client:
        session = Printing(client, "web", session.id, runs=True)
        session.print(b"the end\r\n" * 30)
        session.save()
    lines = lines_of(daemon, session.id)
    expected = {
        f"round {round_}, line {100 * number + each}"
        for round_ in range(4)
        for number in range(3)
        for each in range(60)
    }
    assert {line: count for line, count in lines.items() if line.startswith("round") and count != 1} == {}
    assert expected - lines.keys() == set()
