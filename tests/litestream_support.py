"""The real Litestream beside the real daemon, configured and asked as docs/replication.md says."""

from __future__ import annotations

import queue
import re
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

from documents_support import blocks
from needs import program
from support import WAIT_SECS, DaemonProcess

PAGE = "docs/replication.md"


def configuration() -> str:
    """Return the page's configuration of Litestream."""
    (found,) = [block.text for block in blocks(PAGE) if block.language == "yaml"]
    return found


def restore_command(to: Path) -> str:
    """Return the page's command for a restore, with another file to restore to."""
    (found,) = [block.text for block in blocks(PAGE) if "litestream restore" in block.text]
    (command,) = re.findall(r"^\(umask.*?\)(?= &&$)", found, re.DOTALL | re.MULTILINE)
    return command.replace(" litestream ", f" {program('litestream')} ").replace("-o ~/restored.db", f"-o '{to}'")


class Litestream:
    """`litestream replicate` of a daemon's database into a folder, and what it says.

    Args:
        daemon: Whose database.
    """

    def __init__(self, daemon: DaemonProcess) -> None:
        self.daemon = daemon
        self.folder = daemon.home / "replica"
        self.config = daemon.home / ".config" / "orbit" / "litestream.yml"
        self.config.parent.mkdir(parents=True, exist_ok=True)
        page = configuration().replace("/mnt/backup/orbit", str(self.folder)).replace("1s", "50ms")
        self.config.write_text(page + "logging:\n  level: debug\n")
        self._process: subprocess.Popen[str] | None = None
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def start(self) -> None:
        """Start it, and wait until it has copied something."""
        self._lines = queue.SimpleQueue()
        command = [program("litestream"), "replicate", "-config", str(self.config)]
        self._process = subprocess.Popen(
            command,
            env=self.daemon.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            umask=0o077,
        )
        threading.Thread(target=self._read, args=(self._process, self._lines), daemon=True).start()
        self.wait_for("ltx file uploaded")

    def wait_for(self, text: str) -> str:
        """Return the next line that it writes with `text` in it."""
        while text not in (line := self._lines.get(timeout=WAIT_SECS)):
            assert line, f"litestream ended without: {text}"
        return line

    def wait_until_restored(self, holds: Callable[[Path], bool]) -> None:
        """Wait until a restored copy fulfils a condition; look again whenever something was copied."""
        copy = self.daemon.home / "copy.db"
        while True:
            copy.unlink(missing_ok=True)
            self.restore(copy)
            if holds(copy):
                return
            self.wait_for("ltx file uploaded")

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(WAIT_SECS)
            self._process = None

    def restore(self, to: Path | None = None) -> None:
        """Restore to the database's own place, or to another."""
        shell = ["sh", "-c", restore_command(to or self.daemon.database_path)]
        run = subprocess.run(
            shell, env=self.daemon.environment, capture_output=True, text=True, timeout=WAIT_SECS, check=False
        )
        assert run.returncode == 0, run.stderr

    @staticmethod
    def _read(process: subprocess.Popen[str], lines: queue.SimpleQueue[str]) -> None:
        assert process.stdout is not None
        with process.stdout as said:
            for line in said:
                lines.put(line)
        lines.put("")
