"""Load of the page of `orbitctl web` to the first picture <= 1 s.

In a headless Chromium that runs already, from the beginning of the navigation to when a session's terminal shows the
last of its 10,000 lines, by the browser's own clock. For information: to the last preview of a list of 12 sessions, and
from a kill -9 of orbitd, which the page's bridge has started again, to the picture in the page again.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from benchmarks.bench import ORBITD, Bench, environment, served, socket_of
from benchmarks.client import LineClient
from benchmarks.figures.recover import end_daemon
from benchmarks.hosts import start_session
from benchmarks.results import Bar, Outcome, Result, Skipped, summary

if TYPE_CHECKING:  # the tests' own harness
    from web_support import Page

LINES = 10_000
PREVIEWS = 12
MARK = "picture-is-here"
SHOWN = f"""(() => {{
  const terminal = document.getElementById("terminal")?.terminal;
  return Boolean(terminal && document.querySelector(".xterm-rows")?.textContent.includes("{MARK}"));
}})()"""
PREVIEWED = f"""(() => {{
  const images = [...document.querySelectorAll(".preview img")];
  return images.length >= {PREVIEWS} && images.every((one) => one.complete && one.naturalWidth);
}})()"""


def run(bench: Bench) -> Sequence[Outcome]:
    """Measure the figures."""
    from benchmarks import harness  # puts tests/ on the path
    from needs import missing
    from web_support import Browser, WebProcess, install

    assert harness
    if lacks := missing("chromium", "node", "npm"):
        return [Skipped(figure="page", what="page load to the first picture", reason=lacks)]
    packages = install(bench.folder / "npm")
    home = bench.new_home()
    with contextlib.ExitStack() as stack:
        stack.callback(end_daemon, home)
        daemon = stack.enter_context(served(home, ORBITD))
        command = ["sh", "-c", f'seq {LINES}; printf "%s-%s" picture is-here; exec cat']
        with LineClient(socket_of(home)) as client:
            ids = [start_session(client, command)[0] for _ in range(PREVIEWS)]
        web = stack.enter_context(
            contextlib.closing(WebProcess({**environment(home), "XDG_CACHE_HOME": str(packages / "cache")}))
        )
        browser = stack.enter_context(contextlib.closing(Browser(packages)))
        rounds = bench.amount(15, 2)
        with browser.page(web.url, watch=_watch(PREVIEWED)) as page:
            lists = [_load(page) for _ in range(rounds)]
        with browser.page(f"{web.url}&session={ids[0]}", watch=_watch(SHOWN)) as page:
            loads = [_load(page) for _ in range(rounds)]
            os.kill(daemon.pid, signal.SIGKILL)
            begun = time.perf_counter_ns()
            daemon.wait()
            page.wait("document.getElementById('pane').dataset.state === 'lost'")
            page.wait(f"document.getElementById('pane').dataset.state === 'attached' && {SHOWN}")
            again = (time.perf_counter_ns() - begun) / 1_000_000
    return [
        Result(
            figure="page",
            number=summary(f"page load to the picture, {LINES:,} lines", "ms", loads),
            bar=Bar(kind="<=", limit=1000),
        ),
        Result(figure="page", number=summary(f"page load to the last of {PREVIEWS} previews", "ms", lists)),
        Result(figure="page", number=summary("kill -9 of orbitd to the picture in the page", "ms", [again])),
    ]


def _watch(shown: str) -> str:
    """Return a script that notes when an expression becomes true, looked at before each frame that is drawn."""
    return f"""(function look() {{
      if (document.body && {shown}) globalThis.shownAt = performance.now();
      else requestAnimationFrame(look);
    }})();"""


def _load(page: Page) -> float:
    """Load the page again; return how long it took until something was shown, in milliseconds."""
    page.reload()
    taken: float = page.wait("globalThis.shownAt")
    return taken
