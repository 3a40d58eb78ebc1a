"""`orbitctl integration`: what has shells mark their commands, for the user's own files."""

from __future__ import annotations

import click

from orbit_os.shell_integration import SHELLS, snippet
from orbitctl.app import App


@click.command(
    epilog="""\b
Examples:
  echo 'eval "$(orbitctl integration bash)"' >> ~/.bashrc
  echo 'eval "$(orbitctl integration zsh)"' >> ~/.zshrc
  mkdir -p ~/.config/fish
  echo 'orbitctl integration fish | source' >> ~/.config/fish/config.fish

It belongs at the end of the file. fish from 4.0 on needs none.
""",
)
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_obj
def integration(app: App, shell: str) -> None:
    """Print what has a shell mark its prompts and commands.

    Orbit then knows each command with its exit code and time (`command.finished`). Sessions do
    so without any file being changed where the configuration says `[events]
    shell_integration = "auto"`; this is for shells that Orbit does not start itself.
    """
    app.out.bytes(snippet(shell).encode())
