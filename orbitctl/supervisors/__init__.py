"""systemd's user manager and launchd, behind one small interface.

Both are spoken to by their own program. Nothing here decides about files: `units` does.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

from orbitctl.supervisors.base import ServiceManager, UnitStatus
from orbitctl.supervisors.launchd import Launchd
from orbitctl.supervisors.systemd import SystemdUser

__all__ = ["Launchd", "ServiceManager", "SystemdUser", "UnitStatus", "manager_for"]


def manager_for(environ: Mapping[str, str], platform: str = sys.platform) -> ServiceManager:
    """Return the service manager of this system."""
    return Launchd(environ) if platform == "darwin" else SystemdUser(environ)
