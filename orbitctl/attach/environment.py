"""What of the user's environment goes with a session's start, and with each attach."""

from __future__ import annotations

from collections.abc import Mapping

NOT_SENT = frozenset((
    "TERM", "COLORTERM", "TERMINFO", "TERM_PROGRAM", "TERM_PROGRAM_VERSION", "TERM_SESSION_ID", "VTE_VERSION",
    "WINDOWID", "COLUMNS", "LINES", "_", "SHLVL", "PWD", "OLDPWD", "ORBIT_SESSION",
))  # fmt: skip
"""What tells of the user's own window and shell."""
_OURS = ("ORBITCTL_", "ORBITD_", "_ORBITCTL_")


def start_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what a program is to find; what is not UTF-8 cannot be sent. A shell in there is the outermost."""
    found = {
        name: value
        for name, value in environ.items()
        if name not in NOT_SENT and not name.startswith(_OURS) and _is_text(name) and _is_text(value)
    }
    return {**found, "SHLVL": "0"}


def attach_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what an attach brings along: the ssh agent of this login."""
    agent = environ.get("SSH_AUTH_SOCK", "")
    return {"SSH_AUTH_SOCK": agent} if agent and _is_text(agent) else {}


def _is_text(value: str) -> bool:
    """Tell whether there are no bytes in it that were not UTF-8 (PEP 383)."""
    return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)
