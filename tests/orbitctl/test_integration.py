"""`orbitctl integration`: what it prints. That this works is shown with real shells, where the daemon uses it."""

from __future__ import annotations

import pytest

from ctl_support import Orbitctl
from orbit_os import shell_integration


@pytest.mark.parametrize("shell", shell_integration.SHELLS)
def test_a_snippet(offline: Orbitctl, shell: str) -> None:
    """Each shell's snippet is printed without a daemon."""
    assert offline.ok("integration", shell).text == shell_integration.snippet(shell)


def test_another_shell(offline: Orbitctl) -> None:
    """A shell that there is none for is refused with those that there are."""
    ended = offline("integration", "csh")
    assert (ended.code, "'bash', 'zsh', 'fish'" in ended.err) == (2, True)
