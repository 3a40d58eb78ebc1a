"""The service manager of this system: systemd's user manager, or launchd."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from orbitctl.errors import CommandError
from orbitctl.service.base import ServiceManager
from orbitctl.service.launchd import Launchd
from orbitctl.service.systemd import SystemdUser
from orbitctl.service.units import read


def manager_for(environ: Mapping[str, str], platform: str = sys.platform) -> ServiceManager:
    """Return the service manager of this system."""
    return Launchd(environ) if platform == "darwin" else SystemdUser(environ)


def start_if_installed(environ: Mapping[str, str] = os.environ) -> bool:
    """Start the service where ours is installed; return whether it serves now.

    Raises:
        CommandError: It is installed, and its manager cannot be reached or does not get it started.
    """
    manager = manager_for(environ)
    if not all(read(path) for path in manager.paths):
        return False
    manager.check()
    if not manager.start():
        raise CommandError(f"{manager.name} could not start orbitd", hint="`orbitctl daemon logs` tells why.")
    return True


def log_source(environ: Mapping[str, str] = os.environ, *, lines: int = 100, follow: bool = False) -> list[str]:
    """Return the command that prints the installed service's log; empty where none is installed."""
    manager = manager_for(environ)
    return manager.log_command(lines, follow) if any(read(path) for path in manager.paths) else []
