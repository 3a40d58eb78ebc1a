"""The table of figures: a name, what is promised, and the function that measures it.

A figure is a module of its own here; its docstring states what is measured, against what,
and how. Adding one is writing the module and its row below. The figures of live sessions
(output, key to echo, attach) belong in `LIVE`; `peers` finds tmux, dtach and screen for them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.bench import Bench
from benchmarks.figures import cli, creates, memory, ping, reads, snapshots, startup
from benchmarks.results import Outcome


@dataclass(frozen=True)
class Figure:
    """One figure of the contract.

    Args:
        name: What `--only` takes.
        promise: What is measured and its bar, in the contract's words.
        run: Measures it.
    """

    name: str
    promise: str
    run: Callable[[Bench], Sequence[Outcome]]


STORE = (
    Figure("ping", "daemon.ping round trip, one client: <= 3x a bare asyncio Unix-socket echo", ping.run),
    Figure("reads", "session.get and session.list of 20: <= 1.5x the ping", reads.run),
    Figure("creates", "durable creates, 64 clients at once: >= 4x one commit a call", creates.run),
    Figure("snapshots", "100 sessions x 10 snapshots: <= 5 % of raw, <= 1/4 of separate zstd frames", snapshots.run),
    Figure("cli", "orbitctl session list: <= 1.5x a bare import, faster than supervisorctl status", cli.run),
    Figure("startup", "ready with 10,000 sessions and 100,000 snapshots: <= 1.5x an empty store", startup.run),
    Figure("memory", "daemon resident memory, idle: <= 45 MB", memory.run),
)
LIVE: tuple[Figure, ...] = ()

FIGURES: dict[str, Figure] = {figure.name: figure for figure in (*STORE, *LIVE)}
