"""The shell integration: what has bash, zsh and fish mark prompts and commands (OSC 133), and say their folder (OSC 7).

    orbit.bash, orbit.zsh, orbit.fish   the integration, for a user's own startup file too
    start.bash                          read by a bash that orbitd starts, in the place of the user's files
    zsh/.zshenv                         read by a zsh that orbitd starts, before them

A shell reads them once, when it starts: what is installed later in their place changes none that runs.
"""

from __future__ import annotations

import os

FOLDER = os.path.dirname(os.path.abspath(__file__))
BASH = os.path.join(FOLDER, "start.bash")
ZSH = os.path.join(FOLDER, "zsh")
"""What is ZDOTDIR for zsh."""

SHELLS = ("bash", "zsh", "fish")
_INSTALLS = "# Install,"


def snippet(shell: str) -> str:
    """Return what a user's own startup file may evaluate; `shell` is one of `SHELLS`. Raises: OSError."""
    text = _read(f"orbit.{shell}")
    return f"{text}\n{_INSTALLS}{_read('start.bash').partition(_INSTALLS)[2]}" if shell == "bash" else text


def _read(name: str) -> str:
    with open(os.path.join(FOLDER, name), encoding="utf-8") as file:
        return file.read()
