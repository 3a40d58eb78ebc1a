"""`orbitctl completion`: scripts that teach a shell to complete orbitctl's words."""

from __future__ import annotations

import click

from orbitctl.app import App

VARIABLE = "_ORBITCTL_COMPLETE"


@click.command(
    epilog="""\b
Examples:
  bash: echo 'eval "$(orbitctl completion bash)"' >> ~/.bashrc
  zsh:  echo 'eval "$(orbitctl completion zsh)"' >> ~/.zshrc
  fish: orbitctl completion fish > ~/.config/fish/completions/orbitctl.fish
""",
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print a script that completes commands, options and names.

    Names of sessions and workspaces come from the daemon, if one runs.
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"click knows no completion for {shell}")
    app: App = ctx.obj
    app.out.bytes(found(ctx.find_root().command, {}, "orbitctl", VARIABLE).source().encode() + b"\n")
