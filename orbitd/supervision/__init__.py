"""What the daemon gets from the program that supervises it, systemd or launchd, behind one interface.

    supervision = Supervision.from_environment()   # once, first thing, before any thread or child
    supervision.name                 # "systemd", "launchd" or "none"
    supervision.sockets              # listening sockets that were passed; empty: bind one yourself
    supervision.notifier.ready()     # and stopping(), status(text), watchdog()
    supervision.watchdog_secs        # call watchdog() this often, or None
    supervision.program_umask        # the umask that the user's programs are to have
    supervision.program_limits       # and their soft limits

socket_activation.py has that interface and turns passed descriptors into sockets; systemd.py and
launchd.py read what their supervisor passes, and systemd.py notifies it. Nothing here needs an event loop.
"""

from orbitd.supervision.socket_activation import (
    SocketActivationError,
    Supervision,
    SupervisorName,
    inherited_sockets,
    supervisor_name,
)
from orbitd.supervision.systemd import Notifier, watchdog_interval

__all__ = [
    "Notifier",
    "SocketActivationError",
    "Supervision",
    "SupervisorName",
    "inherited_sockets",
    "supervisor_name",
    "watchdog_interval",
]
