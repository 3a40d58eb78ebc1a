"""The table of figures: a name, what is promised, and the function that measures it.

A figure is a module of its own here; its docstring states what is measured, against what,
and how. Adding one is writing the module and its row below. `hosts` has Orbit, tmux, cmux,
dtach and screen for the figures of live sessions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.bench import Bench
from benchmarks.figures import (
    attach,
    cli,
    client,
    creates,
    events,
    film,
    first,
    kept,
    keys,
    kills,
    many,
    memory,
    moments,
    opens,
    output,
    page,
    ping,
    pings,
    previews,
    programs,
    reads,
    recording,
    recover,
    restart,
    scale,
    search,
    snapshots,
    startup,
)
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
    Figure("ping", "daemon.ping round trip, one client: <= 2.5x a bare uvloop Unix-socket echo", ping.run),
    Figure("reads", "session.get and session.list of 20: <= 1.5x the ping", reads.run),
    Figure("creates", "durable creates, 64 clients at once: >= 4x one commit a call", creates.run),
    Figure("events", "change to subscriber, 1,000 a second: p99 <= 5 ms; 10,000 replayed: <= 100 ms", events.run),
    Figure("snapshots", "100 sessions x 10 snapshots: <= 5 % of raw, <= 1/4 of separate zstd frames", snapshots.run),
    Figure("cli", "ls and session list: <= 0.4x a bare import; completion: <= 0.5x; a to first paint: <= 1x", cli.run),
    Figure("startup", "ready with 10,000 sessions and 100,000 snapshots: <= 1.5x an empty store", startup.run),
    Figure("scale", "100,000 sessions, 1,000,000 snapshots: <= 2x the time per item of a tenth", scale.run),
    Figure("memory", "the daemon's memory (PSS), idle: <= 45 MB", memory.run),
)
LIVE = (
    Figure(
        "output",
        "100 MB attached: >= 1.5x tmux's, >= 1/2 of a bare PTY loop; detached: >= 2x tmux's; Node as fast",
        output.run,
    ),
    Figure("attach", "attach with 10,000 lines of history, warm, to the last byte: <= 25 ms", attach.run),
    Figure("keys", "key to echo: idle p50 <= 4x tmux's; beside floods p50 and p99 <= tmux's", keys.run),
    Figure("pings", "worst daemon.ping of another client while something heavy goes on: <= 20 ms", pings.run),
    Figure("previews", "a screen as SVG: shell <= 4 kB, dense <= 25 kB; <= 4x the time of HTML", previews.run),
    Figure("first", "first session after READY, from start to first paint: <= 100 ms", first.run),
    Figure("opens", "workspace.open of 20 shells after a restart, to the last picture: <= 1 s", opens.run),
    Figure("many", "50 and 1,000 idle sessions of 2,000 lines: <= tmux's + 60 MB; no CPU, no write", many.run),
    Figure("restart", "start with 1,000 live sessions: <= 1.5x an empty start", restart.run),
    Figure("client", "one attached orbitctl: <= 8 MB", client.run),
    Figure("recover", "kill -9 of orbitd to the picture shown again in an attached client: <= 400 ms", recover.run),
    Figure("page", "load of the page of orbitctl web to the first picture: <= 1 s", page.run),
    Figure("kills", "kill -9 of orbitd, of a screens process: 100 % of programs alive, of screens equal", kills.run),
    Figure("programs", "vim, less, htop, mc, nano, man, Python, git log: all restored equal", programs.run),
)
HISTORY = (
    Figure("film", "the stored film of a day of work, key frames and text included: <= 12 % of the output", film.run),
    Figure("recording", "CPU a MB of output: <= 1.15x without; bytes written a MB: <= 1.3 MB", recording.run),
    Figure("search", "1,000,000 lines, 100 sessions: recent <= 150 ms, all <= 2 s, <= 64 MB more", search.run),
    Figure("kept", "kill -9 to serving with 1 GiB of film: as without, <= 1.1x", kept.run),
    Figure("moments", "screen at any moment of 10 MB of film: <= 300 ms; at 200 moments: all equal", moments.run),
)

FIGURES: dict[str, Figure] = {figure.name: figure for figure in (*STORE, *LIVE, *HISTORY)}
