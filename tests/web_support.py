"""`orbitctl web` as a process, and a real headless Chromium to look at its page with."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from needs import program, require, require_that

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "examples" / "web"
DRIVER = Path(__file__).parent / "web" / "browser.js"
WAIT_SECS = 20.0


def install(folder: Path) -> Path:
    """Get what examples/web/package-lock.json names into a folder that processes may share, and return that.

    `node_modules` has playwright-core, and `cache` the packages that `orbitctl web` would fetch: as XDG_CACHE_HOME.
    The test that runs is skipped where the machine has no node or no npm, or its npm finds no registry.
    """
    require("node", "npm")
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "done").exists():
            for name in ("package.json", "package-lock.json"):
                shutil.copy(PAGE / name, folder)
            command = [program("npm"), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"]
            ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
            require_that(ended.returncode == 0, f"an npm registry for xterm.js: {ended.stderr.strip()[-300:]}")
            _pack(folder)
            (folder / "done").touch()
    return folder


def _pack(folder: Path) -> None:
    """Put the packages of the page, as the registry has them, where `orbitctl web` keeps what it fetches."""
    cache = folder / "cache" / "orbit"
    cache.mkdir(parents=True, mode=0o700)
    wanted = json.loads((folder / "package.json").read_text())["dependencies"]
    specs = [f"{name}@{version}" for name, version in wanted.items()]
    command = [program("npm"), "pack", *specs, "--ignore-scripts", "--pack-destination", str(cache)]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    require_that(ended.returncode == 0, f"an npm registry for xterm.js: {ended.stderr.strip()[-300:]}")
    for name, version in wanted.items():
        packed = name.removeprefix("@").replace("/", "-")
        (cache / f"{packed}-{version}.tgz").rename(cache / f"{name.rpartition('/')[2]}-{version}.tgz")


class WebProcess:
    """`orbitctl web` as a process; its URLs are those that it prints.

    Args:
        environment: Where its daemon is.
        arguments: More options.
    """

    def __init__(self, environment: dict[str, str], *arguments: str) -> None:
        command = [sys.executable, "-m", "orbitctl", "web", "--json", *arguments]
        self.process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.communicate()[1].decode()
        urls = json.loads(line)
        self.url: str = urls["url"]
        self.guests_url: str = urls["read_only_url"] or ""

    @property
    def host(self) -> str:
        return self.url.split("/")[2]

    @property
    def port(self) -> int:
        return int(self.host.split(":")[1])

    def end(self, number: int = signal.SIGINT) -> tuple[int, str]:
        """Send a signal; return the exit code and what it wrote to stderr."""
        self.process.send_signal(number)
        _, stderr = self.process.communicate(timeout=WAIT_SECS)
        return self.process.returncode, stderr.decode()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


def token_of(url: str) -> str:
    return url.partition("#token=")[2]


class Browser:
    """A headless Chromium with a new, empty profile.

    Args:
        packages: What `install` returned.
    """

    def __init__(self, packages: Path) -> None:
        require("chromium", "node")
        self._profile = tempfile.mkdtemp(prefix="orbit-chromium-")
        self._process = subprocess.Popen(
            [program("node"), str(DRIVER), program("chromium"), self._profile],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "NODE_PATH": str(packages / "node_modules")},
        )
        self._last_page = 0

    def ask(self, page: int, action: str, argument: Any = None) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = {"page": page, "action": action, "argument": argument}
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"the browser has ended with {self._process.wait(WAIT_SECS)}"
        answer = json.loads(line)
        assert "error" not in answer, answer["error"]
        return answer["value"]

    @contextlib.contextmanager
    def page(self, url: str = "", *, size: tuple[int, int] = (1200, 760), watch: str = "") -> Iterator[Page]:
        """A new tab; `watch` is a script that runs in it before any other."""
        self._last_page += 1
        page = Page(self, self._last_page)
        self.ask(page.number, "open")
        page.size(*size)
        if watch:
            self.ask(page.number, "watch", watch)
        if url:
            page.goto(url)
        try:
            yield page
        finally:
            self.ask(page.number, "close")

    def grant(self, *permissions: str) -> None:
        self.ask(0, "grant", list(permissions))

    def close(self) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.communicate(timeout=WAIT_SECS)
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()
        shutil.rmtree(self._profile, ignore_errors=True)


TERMINAL = "document.getElementById('terminal').terminal"
LINES = f"""(() => {{
  const buffer = {TERMINAL}?.buffer.active;
  if (!buffer) return [];
  return Array.from({{length: buffer.length}}, (_, row) => buffer.getLine(row).translateToString(true));
}})()"""


class Page:
    """A tab with the page in it."""

    def __init__(self, browser: Browser, number: int) -> None:
        self._browser = browser
        self.number = number

    def _ask(self, action: str, argument: Any = None) -> Any:
        return self._browser.ask(self.number, action, argument)

    def goto(self, url: str) -> None:
        self._ask("goto", url)

    def reload(self) -> None:
        self._ask("reload")

    def size(self, width: int, height: int) -> None:
        """Give the window another size, in CSS pixels."""
        self._ask("size", [width, height])

    def scheme(self, name: str) -> None:
        """Prefer `light` or `dark`."""
        self._ask("scheme", name)

    def click(self, selector: str) -> None:
        self._ask("click", selector)

    def press(self, *keys: str) -> None:
        for key in keys:
            self._ask("press", key)

    def type(self, text: str) -> None:
        self._ask("type", text)

    def evaluate(self, code: str) -> Any:
        return self._ask("evaluate", code)

    def wait(self, code: str) -> Any:
        """Return what an expression is, once it is true."""
        return self._ask("wait", code)

    def shot(self, path: Path) -> None:
        self._ask("shot", str(path))

    def problems(self) -> list[str]:
        """Return the errors on its console, and requests to anywhere else."""
        found: list[str] = self._ask("problems")
        return found

    def lines(self) -> list[str]:
        """Return the text of the terminal's rows, its history first."""
        found: list[str] = self.evaluate(LINES)
        return found

    def screen(self) -> list[str]:
        """Return the text of the rows that are shown at the bottom."""
        return self.lines()[-self.evaluate(f"{TERMINAL}.rows") :]

    def wait_for_text(self, text: str) -> None:
        """Wait until a row of the terminal holds a text."""
        self.wait(f"{LINES}.some((line) => line.includes({json.dumps(text)}))")

    def wait_until_attached(self) -> None:
        self.wait("document.getElementById('pane').dataset.state === 'attached'")

    def show(self, session_id: str) -> None:
        """Show a session, as a click on its card does."""
        self.evaluate(f"location.hash = '#session={session_id}'")
        self.wait_until_attached()
