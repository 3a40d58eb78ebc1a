"""Search of 1,000,000 lines in 100 sessions: one recent hit <= 150 ms, all <= 2 s, memory <= 64 MB more.

The lines are put into history.db in the form in which a recorder does; the daemon is then asked over its socket. The
baseline is grep, with a fixed string, over the same lines as plain files, which are in the page cache. Memory is the
most PSS of the daemon and all that it starts meanwhile, above what they had before, read every 5 ms.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.bench import ORBITD, Bench, environment, history_of, served, socket_of
from benchmarks.client import LineClient
from benchmarks.peers import find
from benchmarks.population import populate
from benchmarks.processes import HAS_PROC, MEGABYTE, proportional_bytes, run_time, tree
from benchmarks.results import Bar, Outcome, Result, Skipped, summary, worst
from benchmarks.rounds import by_turns
from orbitd.history import recorder
from orbitd.history.database import open_writer
from orbitd.history.text_blocks import Line, pack

SESSIONS = 100
BLOCK_LINES = 3_000
RECENT, MISSING, OFTEN = "the-needle-of-today", "nobody-has-printed-this", "timeout of worker-7"
DAY_MS = 86_400_000
SAID = ("request served", "timeout", "cache filled", "connection accepted", "compiled", "test passed")


def run(bench: Bench) -> Sequence[Outcome]:
    """Measure the figures."""
    home, count = bench.new_home(), bench.amount(1_000_000, 20_000)
    with served(home, ORBITD), LineClient(socket_of(home)) as client:
        session_ids = populate(client, SESSIONS)
    texts = home / "texts"
    _fill(history_of(home), session_ids, count // SESSIONS, texts)
    with served(home, ORBITD) as daemon, LineClient(socket_of(home)) as client:
        grep = find("grep")
        measures: dict[str, Callable[[], float]] = {
            RECENT: partial(_search, client, 1, query=RECENT, limit=1),
            MISSING: partial(_search, client, 0, query=MISSING),
            OFTEN: partial(_search, client, 1_000, query=OFTEN, limit=1_000),
            "regex": partial(_search, client, 0, query=r"nobody.*this\d", regex=True),
        }
        if grep is not None:
            counting = ["sh", "-c", f'grep -rFc -e "{MISSING}" "$1" >"$1.found" || :', "sh", str(texts)]
            measures["grep"] = partial(run_time, counting, environment(home))
        found = by_turns(measures, bench.amount(9, 1), warm_up=1)
        grown = _memory(daemon.pid, measures[MISSING], bench.amount(5, 1)) if HAS_PROC else []
    lines = f"{count // SESSIONS * SESSIONS:,} lines"
    baseline = summary(f"grep -rF, {lines}", "ms", found["grep"]) if "grep" in found else None
    outcomes: list[Outcome] = [
        Result(figure="search", number=summary(name, "ms", found[key]), baseline=baseline, bar=bar)
        for name, key, bar in (
            ("a recent line, limit 1", RECENT, Bar(kind="<=", limit=150, of_value=True)),
            (f"no line of {lines}", MISSING, Bar(kind="<=", limit=2_000, of_value=True)),
            ("the newest 1,000 of many", OFTEN, None),
            (f"a regular expression, {lines}", "regex", None),
        )
    ]
    if not grown:
        return [*outcomes, Skipped(figure="search", what="memory", reason="this kernel has no /proc/PID/smaps_rollup")]
    number = worst("memory of a search (PSS)", "MB", grown)
    return [*outcomes, Result(figure="search", number=number, bar=Bar(kind="<=", limit=64))]


def _fill(path: Path, session_ids: Sequence[str], each: int, texts: Path) -> None:
    """Put lines into a database of histories, and into files: sessions print by turns, one block each."""
    texts.mkdir()
    begun = int(time.time() * 1000) - DAY_MS
    with contextlib.closing(open_writer(str(path))) as connection:
        connection.execute("BEGIN")
        for first in range(0, each, BLOCK_LINES):
            for number, session_id in enumerate(session_ids):
                lines = list(_lines(number, range(first, min(each, first + BLOCK_LINES)), begun))
                if number == len(session_ids) - 1 and first + BLOCK_LINES >= each:
                    lines[-5] = Line(number=lines[-5].number, at=lines[-5].at, text=f"here is {RECENT}")
                block = pack(lines, first)
                assert block is not None
                film = recorder.read_film(connection, session_id)
                grown = recorder.insert_text(connection, session_id, [block])
                changed = recorder.Film(next_line=block.next_line, text_bytes=film.text_bytes + grown)
                recorder.write_film(connection, session_id, changed)
                with (texts / session_id).open("a") as file:
                    file.writelines(f"{line.text}\n" for line in lines)
        connection.execute("COMMIT")


def _lines(session: int, numbers: range, begun: int) -> Iterator[Line]:
    for n in numbers:
        mixed = (n * 2_654_435_761 + session * 40_503) & 0xFFFFFFFF
        clock = f"{n // 3600 % 24:02}:{n // 60 % 60:02}:{n % 60:02}"
        text = f"{clock} {SAID[mixed % 6]} of worker-{mixed % 13}: {mixed:08x} ms"
        yield Line(number=n, at=begun + n // 10 * 1000, text=text)


def _search(client: LineClient, hits: int, **params: Any) -> float:
    """Return how long a search takes over all that there is, in milliseconds. Raises: RuntimeError."""
    begun = time.perf_counter_ns()
    page = client.call("history.search", **params)
    taken = (time.perf_counter_ns() - begun) / 1_000_000
    if len(page["hits"]) > hits or (hits == 1 and len(page["hits"]) != 1):
        raise RuntimeError(f"{len(page['hits'])} hits in the place of {hits}: {params}")
    if not hits and not page["complete"]:
        return max(taken, 2_000.1)  # it has given up: that is more than the bar
    return taken


def _memory(pid: int, search: Callable[[], float], rounds: int) -> list[float]:
    """Return by how much memory grows during each of some searches, in megabytes."""
    found = []
    for _ in range(rounds):
        before, most, is_over = proportional_bytes(tree([pid])), 0, threading.Event()
        searching = threading.Thread(target=lambda: (search(), is_over.set()))  # noqa: B023  # joined below
        searching.start()
        while not is_over.wait(0.005):
            most = max(most, proportional_bytes(tree([pid])))
        searching.join()
        found.append(max(0, most - before) / MEGABYTE)
    return found
