"""The benchmarks run: their structure is shown here, never how fast anything is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
NAMES = ["ping", "reads", "creates", "snapshots", "cli", "startup", "memory"]
LIVE_NAMES = ["output", "keys", "many", "kills", "programs", "attach"]
ATTACH = "orbitctl session attach"
LINES = {
    "ping": [("daemon.ping", "echo", "<= 2.5")],
    "reads": [("session.get", "daemon.ping", "<= 1.5"), ("session.list of 20", "daemon.ping", "<= 1.5")],
    "creates": [("session.create, 64 clients", "one commit a call", ">= 4")],
    "snapshots": [
        ("stored, 3 x 4 snapshots", "raw", "<= 0.05"),
        ("stored, 3 x 4 snapshots", "separate zstd frames", "<= 0.25"),
        ("database file", "raw", None),
    ],
    "cli": [
        ("orbitctl session list", "import click, msgspec, socket", "<= 1.5"),
        ("orbitctl session list", "supervisorctl status", "< 1"),
        ("orbitctl session list", "tmux list-sessions", None),
    ],
    "startup": [("ready, 50 sessions and 500 snapshots", "ready, empty store", "<= 1.5")],
    "output": [
        (ATTACH, "tmux attach", ">= 1"),
        (ATTACH, "bare PTY read loop", ">= 0.5"),
        (ATTACH, "dtach -a", None),
        (ATTACH, "screen -r", None),
    ],
    "keys": [
        *(
            (f"{ATTACH}, {kind}, p{p}", f"tmux attach, {kind}, p{p}", bar)
            for kind in ("idle", "beside a flood")
            for p, bar in ((50, "<= 2"), (99, "<= 3"))
        ),
        *(
            (f"{ATTACH}, idle, p{p}", f"{peer}, idle, p{p}", None)
            for peer in ("dtach -a", "screen -r")
            for p in (50, 99)
        ),
    ],
    "many": [
        ("memory above tmux's", None, "<= 45"),
        ("idle: CPU time a second", None, "<= 1"),
        ("idle: written to disk", None, "<= 0"),
        ("daemon + keeper, 3 live sessions", None, None),
    ],
    "kills": [("programs alive", None, ">= 100"), ("screens equal", None, ">= 100")],
    "programs": [("restored equal", "programs", ">= 1")],
    "attach": [
        ("session.attach, the screen", None, "<= 50"),
        ("session.attach, screen and history", None, None),
        (ATTACH, "tmux attach", None),
    ],
    "memory": [("proportional (PSS)", None, "<= 45"), ("resident (VmRSS)", None, None)],
}


def run(*arguments: str) -> str:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def line(result: dict[str, Any]) -> tuple[str, str | None, str | None]:
    baseline, bar = result["baseline"], result["bar"]
    return (
        result["number"]["name"],
        baseline and baseline["name"],
        bar and f"{bar['kind']} {bar['limit']:g}",
    )


def test_the_list_names_every_figure() -> None:
    """`--list` prints a line for each figure, and runs none."""
    assert [each.split()[0] for each in run("--list").splitlines()] == NAMES + LIVE_NAMES


@pytest.mark.parametrize("name", NAMES + LIVE_NAMES)
def test_each_figure_stands_beside_its_baseline(name: str) -> None:
    """A figure tells what it measured, its baseline, their ratio and its bar; what cannot be measured says why."""
    found = json.loads(run("--quick", "--json", "--only", name))
    assert found["quick"] is True
    skipped = [each["what"] for each in found["results"] if each.get("skipped")]
    measured = [each for each in found["results"] if not each.get("skipped")]
    assert all(each["figure"] == name for each in found["results"])
    assert {line(each) for each in measured} <= set(LINES[name])
    assert measured or skipped
    for each in measured:
        assert each["number"]["low"] <= each["number"]["value"] <= each["number"]["high"]
        if each["baseline"] is not None:
            assert each["ratio"] == pytest.approx(each["number"]["value"] / each["baseline"]["value"])
        assert (each["met"] is None) == (each["bar"] is None)
    if name in ("kills", "programs"):  # what is counted, not timed
        assert all(each["met"] for each in measured)
    if name == "snapshots":  # sizes, which no machine changes
        assert measured[0]["ratio"] < 0.2
        assert measured[1]["ratio"] < 0.8


def test_the_table_stands_under_the_facts_of_the_machine() -> None:
    """What ratios hide - processor, kernel, versions, disk - stands above the table."""
    text = run("--quick", "--only", "memory").splitlines()
    for fact in ("cpu", "kernel", "python", "sqlite", "libraries", "peers", "file system", "fdatasync"):
        assert any(each.startswith(fact) for each in text[:9])
    assert [each.split()[0] for each in text[9:]][:2] == ["figure", "memory"]
