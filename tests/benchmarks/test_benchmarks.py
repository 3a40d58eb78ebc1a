"""The benchmarks run: their structure is shown here, never how fast anything is."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

pytestmark = pytest.mark.slow

Line = tuple[str, str | None, str | None]
"""A line of the table: what was measured, its baseline, its bar."""

ROOT = Path(__file__).resolve().parents[2]
NAMES = ["ping", "reads", "creates", "events", "snapshots", "cli", "startup", "scale", "memory"]
LIVE_NAMES = [
    *(
        "output",
        "attach",
        "keys",
        "pings",
        "previews",
        "first",
        "opens",
        "many",
        "restart",
        "client",
        "recover",
        "page",
        "kills",
        "programs",
    ),
]
HISTORY_NAMES = ["film", "recording", "search", "kept", "moments"]
ATTACH = "orbitctl session attach"
TMUX, CMUX, DTACH, SCREEN = RIVALS = "tmux attach", "cmux attach", "dtach -a", "screen -x"
FLOODED = ("beside a flood", "beside 3 floods")
REPEATED = "beside CSI 65535 b"


def rivals(name: str, bars: Mapping[str, str] = MappingProxyType({}), unable: Sequence[str] = ()) -> list[Line]:
    """Return the lines of one of our numbers, such as ", attached", beside each rival's."""
    return [(ATTACH + name, None if rival in unable else rival + name, bars.get(rival)) for rival in RIVALS]


LINES: dict[str, list[Line]] = {
    "ping": [("daemon.ping", "echo", "<= 2.5")],
    "reads": [("session.get", "daemon.ping", "<= 1.5"), ("session.list of 20", "daemon.ping", "<= 1.5")],
    "creates": [("session.create, 64 clients", "one commit a call", ">= 4")],
    "events": [
        *(
            (
                f"event to a subscriber, 100 changes a second, p{p}",
                f"answer to the change, 100 changes a second, p{p}",
                bar,
            )
            for p, bar in ((50, None), (99, "<= 5"))
        ),
        ("200 events replayed", "the same 0.2 MB, echoed", "<= 100"),
    ],
    "snapshots": [
        ("stored, 3 x 4 snapshots", "raw", "<= 0.05"),
        ("stored, 3 x 4 snapshots", "separate zstd frames", "<= 0.25"),
        ("database file", "raw", None),
    ],
    "cli": [
        *(
            (f"orbitctl {name}, {where}", "import click, msgspec, socket", "<= 0.4")
            for name in ("session list", "ls")
            for where in ("in a pipe", "on a terminal")
        ),
        ("orbitctl completion, one Tab", "import click, msgspec, socket", "<= 0.5"),
        ("orbitctl a, 10,000 lines, to its paint", "import click, msgspec, socket", "<= 1"),
        ("orbitctl session list, in a pipe", "supervisorctl status", "< 1"),
        ("orbitctl session list, in a pipe", "tmux list-sessions", None),
    ],
    "scale": [
        (f"{name}, 40 sessions", f"{name}, 20 sessions", bar)
        for name, bar in (
            ("ready", None),
            ("memory (PSS)", None),
            ("first page", "<= 2"),
            *((f"first page, {status}", None) for status in ("active", "terminated", "archived")),
            *((name, None) for name in ("all pages", "last page", "session.get", "session.find by prefix")),
            *((f"snapshot.{name}", None) for name in ("list", "latest", "save")),
            *((name, None) for name in ("session.create", "stats.get", "daemon.info")),
            ("backup, an item", "<= 2"),
            ("check, an item", None),
            ("cleanup, an item", "<= 2"),
            *((f"{name}, an item", None) for name in ("vacuum", "archive")),
        )
    ],
    "startup": [("ready, 50 sessions and 500 snapshots", "ready, empty store", "<= 1.5")],
    "output": [
        (f"{ATTACH}, attached", "bare PTY read loop, attached", ">= 0.5"),
        *rivals(", attached", {TMUX: ">= 1.5"}),
        ("Node client, attached", f"{ATTACH}, attached", ">= 1"),
        *rivals(", attached, CPU a MB"),
        *rivals(", detached", {TMUX: ">= 2"}),
        *rivals(", detached, CPU a MB"),
    ],
    "attach": [
        ("session.attach, 10,000 lines", None, "<= 25"),
        ("session.attach, the screen", None, None),
        *rivals("", unable=[DTACH]),
    ],
    "keys": [
        (f"{ATTACH}, idle, p50", f"{TMUX}, idle, p50", "<= 4"),
        *((f"{ATTACH}, {kind}, p{p}", f"{TMUX}, {kind}, p{p}", "<= 1") for kind in FLOODED for p in (50, 99)),
        *((f"{ATTACH}, {REPEATED}, p{p}", f"{TMUX}, {FLOODED[0]}, p{p}", "<= 1") for p in (50, 99)),
        *((f"{ATTACH}, idle, p{p}", f"{rival}, idle, p{p}", None) for rival in RIVALS[1:] for p in (50, 99)),
        *(
            (f"{ATTACH}, {kind}, p{p}", f"{CMUX}, {kind}, p{p}", None)
            for kind in (*FLOODED, REPEATED)
            for p in (50, 99)
        ),
        *((f"{ATTACH}, {REPEATED}, p{p}", f"{TMUX}, {REPEATED}, p{p}", None) for p in (50, 99)),
        *rivals(", CPU a key"),
    ],
    "pings": [
        ("worst ping, idle", "worst echo meanwhile", None),
        *(
            (f"worst ping, {name}", "worst echo meanwhile", "<= 20")
            for name in (
                "the first start after READY",
                "an attach with 10,000 lines",
                "screen --scrollback html",
                "a resize with 50 clients",
                "a save",
                "a flood",
                "3 floods",
                "a flood of CSI 65535 b",
            )
        ),
    ],
    "first": [
        ("session.start to first paint, cold", None, "<= 100"),
        ("orbitctl session run, cold", "tmux new-session, cold", None),
        ("orbitctl session run, cold", None, None),  # cmux, which cannot
        ("orbitctl session run, cold", "dtach -c, cold", None),
        ("orbitctl session run, cold", "screen -S, cold", None),
    ],
    "previews": [
        ("a shell's screen as svg", "a shell's screen as html", "<= 4096"),
        ("a shell's screen as svg", "a shell's screen as html", "<= 4"),
        ("a dense screen as svg", "a dense screen as html", "<= 25000"),
        ("a dense screen as svg", "a dense screen as html", "<= 4"),
    ],
    "opens": [
        ("2 shells, after a restart", "2 shells, bare PTYs", "<= 1000"),
        ("2 shells, parked before", "2 shells, bare PTYs", None),
    ],
    "many": [
        *rivals(", 3 sessions", unable=[DTACH]),
        (f"{ATTACH}, 6 sessions", f"{TMUX}, 6 sessions", None),
        *(
            one
            for count in (3, 6)
            for one in (
                (f"above tmux's, {count} sessions", None, "<= 60"),
                (f"{ATTACH}, {count} sessions, CPU a second", f"{TMUX}, {count} sessions, CPU a second", "<= 1"),
                (f"{ATTACH}, {count} sessions, written", None, "<= 0"),
            )
        ),
    ],
    "restart": [("ready, 5 live sessions", "ready, empty store", "<= 1.5")],
    "client": [
        (f"{ATTACH}, one client", None, "<= 8"),
        *rivals(", one client"),
        *rivals(", one session and client"),
    ],
    "recover": [
        ("kill -9 to picture, the client starts orbitd", None, "<= 400"),
        ("kill -9 to picture, a supervisor starts orbitd", None, None),
        ("kill -9 to picture, the client starts orbitd", None, None),  # rivals whose programs end with their server
        ("kill -9 to picture, the client starts orbitd", f"kill -9 to picture, {CMUX}", None),
    ],
    "page": [
        ("page load to the picture, 10,000 lines", None, "<= 1000"),
        ("page load to the last of 12 previews", None, None),
        ("kill -9 of orbitd to the picture in the page", None, None),
    ],
    "kills": [
        (f"{what}: {kept}", None, ">= 100")
        for what in ("orbitd", "screens processes")
        for kept in ("programs alive", "screens equal")
    ],
    "programs": [("restored equal", "programs", ">= 1")],
    "film": [("stored film and text", "raw output", "<= 0.12"), ("history.db", "raw output", None)],
    "recording": [
        ("recording, CPU a MB", "without, CPU a MB", "<= 1.15"),
        ("recording, CPU a MB", None, None),  # where git has not the daemon of before
        ("recording, written a MB", "without, written a MB", "<= 1.3"),
        ("recording, written a MB", None, "<= 1.3"),
        ("recording, on disk a MB", "without, on disk a MB", None),
        ("recording, on disk a MB", None, None),
    ],
    "search": [
        ("a recent line, limit 1", "grep -rF, 20,000 lines", "<= 150"),
        ("no line of 20,000 lines", "grep -rF, 20,000 lines", "<= 2000"),
        ("the newest 1,000 of many", "grep -rF, 20,000 lines", None),
        ("a regular expression, 20,000 lines", "grep -rF, 20,000 lines", None),
        ("memory of a search (PSS)", None, "<= 64"),
    ],
    "kept": [("kill -9 to serving, 32 MiB of film", "kill -9 to serving, no film", "<= 1.1")],
    "moments": [
        ("screen of a moment, worst", "screen as it is now", "<= 300"),
        ("screen of a moment, p50", None, None),
        ("moments equal, cell by cell", "moments", ">= 1"),
    ],
    "memory": [("proportional (PSS)", None, "<= 45"), ("resident (VmRSS)", None, None)],
}


def run(*arguments: str) -> str:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def line(result: dict[str, Any]) -> Line:
    baseline, bar = result["baseline"], result["bar"]
    return (
        result["number"]["name"],
        baseline and baseline["name"],
        bar and f"{bar['kind']} {bar['limit']:g}",
    )


def test_a_daemon_is_waited_for_until_its_chores_are_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is busy before the first chore has begun and while one runs; one that fails ends the wait."""
    monkeypatch.syspath_prepend(ROOT)  # where this folder, of the same name, may have been found first
    monkeypatch.delitem(sys.modules, "benchmarks", raising=False)
    scale: Any = importlib.import_module("benchmarks.figures.scale")

    def chore(name: str, run: str | None, success: str | None, error: str | None = None) -> dict[str, Any]:
        return {"name": name, "last_run_at": run, "last_success_at": success, "last_error": error}

    idle, later = chore("check", None, None), chore("rows", "2026-01-02", "2026-01-03")
    assert scale._is_idle([idle, later])
    assert not scale._is_idle([idle, chore("rows", None, None)])
    assert not scale._is_idle([idle, chore("rows", "2026-01-02", None)])
    assert not scale._is_idle([chore("check", "2026-01-02", "2026-01-01"), later])
    with pytest.raises(RuntimeError, match="backup: no room"):
        scale._is_idle([chore("backup", "2026-01-02", None, "no room"), later])


def test_the_list_names_every_figure() -> None:
    """`--list` prints a line for each figure, and runs none."""
    assert [each.split()[0] for each in run("--list").splitlines()] == NAMES + LIVE_NAMES + HISTORY_NAMES


@pytest.mark.parametrize("name", NAMES + LIVE_NAMES + HISTORY_NAMES)
def test_each_figure_stands_beside_its_baseline(name: str) -> None:
    """A figure tells what it measured, its baseline, their ratio and its bar; what cannot be measured says why."""
    found = json.loads(run("--quick", "--json", "--only", name))
    assert found["quick"] is True
    skipped = [each["what"] for each in found["results"] if each.get("skipped")]
    measured = [each for each in found["results"] if not each.get("skipped")]
    assert all(each["figure"] == name for each in found["results"])
    known = set(LINES[name])
    if shutil.which("tmux") is None:  # what has a bar of its own is told without it
        known |= {(what, None, bar) for what, baseline, bar in known if baseline and baseline.startswith(TMUX)}
    assert {line(each) for each in measured} <= known
    assert measured or skipped
    for each in measured:
        assert each["number"]["low"] <= each["number"]["value"] <= each["number"]["high"]
        if each["baseline"] is not None and each["baseline"]["value"]:
            assert each["ratio"] == pytest.approx(each["number"]["value"] / each["baseline"]["value"])
        assert (each["met"] is None) == (each["bar"] is None)
    if name in ("kills", "programs"):  # what is counted, not timed
        assert all(each["met"] for each in measured)
    if name == "moments":
        assert measured[-1]["met"]
    if name == "snapshots":  # sizes, which no machine changes
        assert measured[0]["ratio"] < 0.2
        assert measured[1]["ratio"] < 0.8


def test_the_table_stands_under_the_facts_of_the_machine() -> None:
    """What ratios hide - processor, kernel, versions, disk - stands above the table."""
    text = run("--quick", "--only", "memory").splitlines()
    for fact in ("cpu", "kernel", "python", "sqlite", "libraries", "peers", "file system", "fdatasync"):
        assert any(each.startswith(fact) for each in text[:9])
    assert [each.split()[0] for each in text[9:]][:2] == ["figure", "memory"]
