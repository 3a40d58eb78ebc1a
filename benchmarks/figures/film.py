"""The stored film of a day in a shell, an editor and a build, key frames and text included: <= 12 % of the raw output.

The day of `benchmarks.workday` happens in a session at the pace at which it was recorded, with the daemon as it comes:
what is saved each time is as much as it is then. Film and text are what `stats.get` says, once the daemon was stopped,
which saves everything; the file itself, with what its pages leave free, is printed beside it.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.bench import ORBITD, Bench, history_of, served, socket_of
from benchmarks.client import LineClient
from benchmarks.hosts import end_programs
from benchmarks.results import Bar, Outcome, Result, exactly


def run(bench: Bench) -> Sequence[Outcome]:
    """Measure the figure."""
    from benchmarks.workday import Day, record_for

    home, day_path = bench.new_home(), record_for(bench)
    with served(home, ORBITD), LineClient(socket_of(home)) as client:
        day = Day(client, day_path, home)
        day.play_all(speed=bench.amount(1, 0))
    with served(home, ORBITD), LineClient(socket_of(home)) as client:
        stats = client.call("stats.get")
        end_programs(home)
        day.close()
    raw = exactly("raw output", "bytes", day.raw_bytes)
    film, text = stats["recording_bytes"], stats["text_bytes"]
    frames = f"film {film:,}, text {text:,} bytes; {stats['recording_raw_bytes']:,} bytes of journal are in it"
    return [
        Result(
            figure="film",
            number=exactly("stored film and text", "bytes", film + text),
            baseline=raw,
            bar=Bar(kind="<=", limit=0.12),
            note=frames,
        ),
        Result(figure="film", number=exactly("history.db", "bytes", history_of(home).stat().st_size), baseline=raw),
    ]
