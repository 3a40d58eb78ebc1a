"""What a service manager is to the commands, and how its own program is run.

Every call has a time limit, and a program that is missing or fails is one `CommandError`.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from orbitctl.errors import CommandError, ExitCode
from orbitctl.service.units import Installation, Unit

COMMAND_SECS = 60.0
START_SECS = 330.0
"""More than the unit's TimeoutStartSec: a large database may be checked and migrated first."""


@dataclass(frozen=True, kw_only=True)
class UnitStatus:
    """One unit, as `service status` shows it."""

    unit: str
    path: str
    file: str
    enabled: str
    active: str


class ServiceManager(Protocol):
    """What the commands need of a service manager."""

    @property
    def name(self) -> str:
        """Return the program's name."""

    @property
    def paths(self) -> tuple[str, ...]:
        """Return where the unit files belong."""

    def units(self, installation: Installation) -> list[Unit]:
        """Return the unit files of an installation."""

    def check(self) -> None:
        """Make sure that the manager answers. Raises: CommandError."""

    def activate(self, *, changed: bool, start: bool) -> None:
        """Load what was written, have it started at login and, if `start`, now. Raises: CommandError."""

    def deactivate(self) -> None:
        """Stop the daemon and forget that it is started at login. Raises: CommandError."""

    def forget(self) -> None:
        """Tell the manager that the files have gone, and remove folders that are empty now."""

    def start(self) -> bool:
        """Start what is installed, and wait until it serves; return whether it does."""

    def status(self) -> list[UnitStatus]:
        """Return the state of each unit. Raises: CommandError."""

    def hints(self) -> list[str]:
        """Return what the user may want to know or do."""

    def log_command(self, lines: int, follow: bool) -> list[str]:
        """Return the command that prints the service's log."""


def run(command: list[str], environ: Mapping[str, str], secs: float = COMMAND_SECS) -> subprocess.CompletedProcess[str]:
    """Run a manager's command and return how it ended.

    Raises:
        CommandError: There is no such command, or it took longer than `secs`.
    """
    try:
        return subprocess.run(
            command,
            env={**environ, "LC_ALL": "C", "SYSTEMD_PAGER": "", "SYSTEMD_COLORS": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=secs,
            check=False,
        )
    except FileNotFoundError as error:
        package = "" if command[0] == "launchctl" else " Debian has it in the package systemd."
        raise CommandError(
            f"{command[0]} is not installed here, so there is no service manager to hand orbitd to",
            hint="`orbitctl daemon start` runs it without one, and every command starts it where none answers."
            + package,
        ) from error
    except OSError as error:
        raise CommandError(f"cannot run {command[0]}: {error.strerror}", hint="Look where PATH finds it.") from error
    except subprocess.TimeoutExpired as error:
        raise CommandError(f"{' '.join(command)} took longer than {secs:g} s", ExitCode.TIMEOUT) from error


def must(command: list[str], environ: Mapping[str, str], secs: float = COMMAND_SECS) -> str:
    """Run a command that has to succeed, and return what it printed. Raises: CommandError."""
    done = run(command, environ, secs)
    if done.returncode != 0:
        said = " ".join((done.stderr.strip() or done.stdout.strip()).split())
        raise CommandError(f"`{' '.join(command)}` failed: {said}", hint="`orbitctl daemon logs` may tell why.")
    return done.stdout
