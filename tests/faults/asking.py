"""What tests of faults ask of a daemon again and again."""

from __future__ import annotations

import base64
import random
from typing import Any

from ctl_support import Orbitctl
from faults.shim import Shim
from support import DaemonProcess, RawClient

LOCAL = {"session_type": "local"}
FULL, CORRUPT, READ_ONLY, BUSY, SNAPSHOT_CORRUPT = 1900, 1901, 1902, -32000, 1101


def snapshot(client: RawClient, session: str, size: int, seed: int = 0) -> Any:
    """Save bytes that cannot be made smaller, and return the whole response."""
    data = base64.b64encode(random.Random(seed).randbytes(size)).decode()
    return client.request("snapshot.save", session_id=session, terminal_buffer=data)


def names(client: RawClient) -> list[str]:
    """Return the names of the sessions that are alive."""
    return [one["name"] for one in client.call("session.list")["sessions"]]


def doctor(daemon: DaemonProcess) -> str:
    """Return what `orbitctl doctor` finds wrong, with its remedies."""
    found = Orbitctl(daemon.home)("doctor", "--json", "--no-autostart").json
    return "\n".join(f"{one['message']} {one['remedy']}" for one in found["checks"] if one["state"] != "ok")


def look_again(client: RawClient, hand: Shim) -> None:
    """Have the daemon look at its database and its socket, as it does every few seconds."""
    hand.pass_time(10)
    client.call("daemon.ping")


def resident(daemon: DaemonProcess, what: str = "VmHWM") -> int:
    """Return the most memory that the daemon ever had, in bytes."""
    with open(f"/proc/{daemon.pid}/status") as status:
        line = next(line for line in status if line.startswith(what))
    return int(line.split()[1]) * 1024
