"""Sessions as people have them, made through the daemon's own interface."""

from __future__ import annotations

from typing import Any

from benchmarks.client import LineClient

COMMANDS = ("bash", "npm run dev", "htop", "vim src/main.py", "python -i", "tail -F /var/log/syslog")


def config(number: int) -> dict[str, Any]:
    """Return what the session of this number runs: every fourth is on another host."""
    if number % 4 == 3:
        return {"session_type": "ssh", "host": f"host{number}.example.org", "port": 22, "username": "deploy"}
    return {"session_type": "local", "command": COMMANDS[number % len(COMMANDS)]}


def populate(client: LineClient, count: int) -> list[str]:
    """Make sessions and return their ids."""
    made = [client.call("session.create", name=f"session {n}", config=config(n)) for n in range(count)]
    return [session["id"] for session in made]
