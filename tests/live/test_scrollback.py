"""History has its bounds: of one session, and of all together."""

from __future__ import annotations

from pathlib import Path

import pytest

from live.sessions import Terminal, start
from support import DaemonProcess, RawClient

pytestmark = pytest.mark.slow

LINES = 5000
ROW_BYTES = 8 * 80 + 8
SLACK = 768 * 1024
"""The emulator drops whole pages, of some 400 kB."""


@pytest.fixture
def configured(stopped_daemon: DaemonProcess, home: Path) -> DaemonProcess:
    """A daemon with 2 MiB of history a session and 6 MiB for all."""
    (home / ".config" / "orbit").mkdir(parents=True)
    (home / ".config" / "orbit" / "config.toml").write_text(
        f"[session]\nscrollback_max_bytes = {2 << 20}\ntotal_scrollback_bytes = {6 << 20}\n"
    )
    return stopped_daemon.start()


def talk(daemon: DaemonProcess, client: RawClient) -> str:
    """Start a session, let it write, and leave it; return its id."""
    session_id = start(client, f"sh -c 'seq {LINES}; echo end; exec cat'")
    with daemon.client() as other:
        terminal = Terminal(other, session_id)
        terminal.follow_until("end")
        other.call("session.leave", attachment_id=terminal.id)
    return session_id


def history(client: RawClient, session_id: str) -> int:
    """Return how many lines of a session there are."""
    screen = client.call("session.screen", id=session_id, scrollback=True)["data"]
    lines = [int(line) for line in screen.split() if line.isdigit()]
    assert lines == list(range(LINES + 1 - len(lines), LINES + 1))
    return len(lines)


def test_one_session_has_its_limit(configured: DaemonProcess) -> None:
    """A session keeps its newest lines, about as many as fit scrollback_max_bytes; also after kill -9."""
    with configured.client() as client:
        session_id = talk(configured, client)
        kept = history(client, session_id)
        assert abs(kept * ROW_BYTES - (2 << 20)) < SLACK
    configured.kill()
    with configured.start().client() as client:
        assert abs(history(client, session_id) - kept) * ROW_BYTES < SLACK


def test_all_sessions_share_a_budget(configured: DaemonProcess) -> None:
    """Beyond total_scrollback_bytes the longest detached lose their oldest lines; the one in use keeps its own."""
    with configured.client() as client:
        ids = [talk(configured, client) for _ in range(6)]
        used = client.call("stats.get")["scrollback_bytes"]
        assert used <= (6 << 20) + SLACK
        kept = [history(client, session_id) for session_id in ids]
        assert kept[0] * ROW_BYTES < SLACK
        assert kept[-1] * ROW_BYTES > (2 << 20) - SLACK
    configured.kill()
    with configured.start().client() as client:
        assert client.call("stats.get")["scrollback_bytes"] <= (6 << 20) + SLACK
        client.call("session.delete", id=ids[-1])
        assert client.call("stats.get")["scrollback_bytes"] < 6 << 20
        assert client.call("stats.get")["live_sessions"] == 5
