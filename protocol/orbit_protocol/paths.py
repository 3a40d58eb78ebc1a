"""Where Orbit's files are, from the environment alone (XDG Base Directory Specification 0.8).

Nothing here looks at the disk. The XDG variables are honoured on macOS too; a relative
value is ignored, as the specification asks.
"""

from __future__ import annotations

import os.path
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Paths:
    """Orbit's files of one user; all are absolute."""

    config_file: str
    database: str
    state_folder: str
    socket: str


def default_paths(environ: Mapping[str, str]) -> Paths:
    """Return the places that hold where neither flag, variable nor configuration says otherwise."""
    home = environ.get("HOME") or os.path.expanduser("~")

    def base(variable: str, *fallback: str) -> str:
        value = environ.get(variable, "")
        return value if value.startswith("/") else os.path.join(home, *fallback)

    state = os.path.join(base("XDG_STATE_HOME", ".local", "state"), "orbit")
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    run_folder = os.path.join(runtime, "orbit") if runtime.startswith("/") else state
    return Paths(
        config_file=os.path.join(base("XDG_CONFIG_HOME", ".config"), "orbit", "config.toml"),
        database=os.path.join(base("XDG_DATA_HOME", ".local", "share"), "orbit", "sessions.db"),
        state_folder=state,
        socket=os.path.join(run_folder, "orbitd.sock"),
    )


def expand(path: str, environ: Mapping[str, str]) -> str:
    """Return a path with a leading `~/` replaced by the user's home."""
    if path == "~" or path.startswith("~/"):
        return (environ.get("HOME") or os.path.expanduser("~")) + path[1:]
    return path


def backups_folder(database: str) -> str:
    """Return the folder of a database's backups."""
    return os.path.join(os.path.dirname(database), "backups")
