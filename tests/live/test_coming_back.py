"""Where the user is in a session, whom a signal reaches, and what is there again after a reboot: real shells."""

from __future__ import annotations

from pathlib import Path

import pytest

from live.sessions import Terminal, start
from needs import needs
from support import DaemonProcess, RawClient

pytestmark = needs("bash", linux=True)

SHELL = "bash --norc -i"


def test_a_shell_comes_back_where_the_user_was(daemon: DaemonProcess, client: RawClient) -> None:
    """A shell with options, in the folder that a shell in it had gone to just before everything was killed."""
    deep = daemon.home / "de\u00e9p (deleted)"
    deep.mkdir()
    session_id = start(client, SHELL, cwd=str(daemon.home), env={"PS1": "$SHLVL> ", "SHLVL": "0"})
    pid = client.call("session.get", id=session_id)["pid"]
    terminal = Terminal(client, session_id)
    terminal.type("bash --norc -i\r")
    terminal.follow_until("2>")
    terminal.type(f"cd '{deep}'; echo the''re\r")
    terminal.follow_until("there")
    daemon.kill()
    daemon.end_keeper()
    with daemon.start().client() as again:
        assert again.error("session.wait", id=session_id, timeout_secs=0)["data"]["kind"] == "timeout"  # it runs
        session = again.call("session.get", id=session_id)
        assert (session["live"], session["status"], session["cwd"]) == (True, "detached", str(deep))
        assert session["pid"] != pid
        terminal = Terminal(again, session_id)
        terminal.follow_until("started again 20")
        assert "there" in terminal.text()
        terminal.type("rmdir ../de*; echo go''ne\r")
        terminal.follow_until("gone")
        assert again.call("session.get", id=session_id)["cwd"] == str(deep)


@pytest.mark.parametrize("signal", ["INT", 10], ids=str)
def test_a_signal_reaches_the_job_in_the_foreground(client: RawClient, signal: str | int, home: Path) -> None:
    """As Ctrl-C does; the shell around it goes on, and gets it once it is in the foreground itself."""
    session_id = start(client, SHELL)
    terminal = Terminal(client, session_id)
    terminal.type("""sh -c 'trap "echo jo""b heard; exit" INT USR1; echo rea""dy; while :; do sleep 1; done'\r""")
    terminal.follow_until("ready")
    client.call("session.signal", id=session_id, signal=signal)
    terminal.follow_until("job heard")
    terminal.type("trap 'echo she''ll heard' USR1; echo a''lone\r")
    terminal.follow_until("alone")
    client.call("session.signal", id=session_id, signal="USR1")
    terminal.type("\r")
    terminal.follow_until("shell heard")
    assert client.call("session.terminate", id=session_id)["status"] == "terminated"
