"""`orbitctl completion`: scripts for shells."""

from __future__ import annotations

import click

from orbitctl.app import App
from orbitctl.completion.scripts import SCRIPTS


@click.command(
    epilog="""\b
Examples:
  echo 'eval "$(orbitctl completion bash)"' >> ~/.bashrc
  echo 'eval "$(orbitctl completion zsh)"' >> ~/.zshrc
  mkdir -p ~/.config/fish/completions
  orbitctl completion fish > ~/.config/fish/completions/orbitctl.fish
""",
)
@click.argument("shell", type=click.Choice(list(SCRIPTS)))
@click.pass_obj
def completion(app: App, shell: str) -> None:
    """Print a script that completes commands, options and names.

    Names of sessions and workspaces come from the daemon, if it runs.
    """
    app.out.bytes(SCRIPTS[shell].encode())
