"""What the daemon takes from the program that supervises it, behind one small interface.

    supervision = adopt()            # once, first thing, before any thread or child
    supervision.name                 # "systemd", "launchd" or "none"
    supervision.sockets              # listening sockets handed over; empty: bind one yourself
    supervision.notifier.ready()     # and stopping(), status(text), watchdog()
    supervision.watchdog_secs        # send watchdog() this often, or None
    supervision.program_umask        # the umask that the user's programs are to have

`adopt` takes the supervisor's variables out of the environment, so that no shell the
daemon starts believes that they were meant for it. A socket handed over belongs to the
supervisor: it is closed at the end like any other, and its path is never unlinked.

Only the standard library is used, and nothing here needs an event loop.
"""

from orbitd.supervision.handover import HandoverError
from orbitd.supervision.socket_activation import (
    Supervision,
    SupervisorName,
    adopt,
    inherited_sockets,
    supervisor_name,
)
from orbitd.supervision.systemd import Notifier, watchdog_interval

__all__ = [
    "HandoverError",
    "Notifier",
    "Supervision",
    "SupervisorName",
    "adopt",
    "inherited_sockets",
    "supervisor_name",
    "watchdog_interval",
]
