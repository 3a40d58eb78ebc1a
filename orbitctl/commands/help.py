r"""`orbitctl help`, the help of one screen, and what is meant by words of other programs.

`SUGGESTIONS` is for people who have tmux, docker, gh or systemctl in their fingers: a word that is no command here
is answered with the one that does it.
"""

from __future__ import annotations

import click

SHORT_HELP = r"""Usage: orbitctl COMMAND [ARGUMENTS]

Keep terminal sessions: they outlive their window, the daemon and a reboot.

Commands:
  new [NAME] [-- COMMAND...]  start a shell or COMMAND, and attach to it
  a [NAME]                    attach to a session, with no NAME to the last
  ls [-a]                     list sessions; with -a those that have ended, too
  run COMMAND [ARGS...]       run a program in a session that is named after it
  open WORKSPACE              start all sessions of a workspace
  kill NAME...                end sessions
  rm NAME...                  delete sessions; `undelete NAME` brings one back
  logs NAME                   print what a session has printed
  prune                       delete all sessions that have ended

In a session, C-\ detaches and its program goes on; `orbitctl a` comes back.

`orbitctl help COMMAND` describes a command, `orbitctl help` lists all of them.
"""

_SAME: dict[str, str] = {
    "orbitctl new NAME": "create new-session new-window neww add",
    "orbitctl run COMMAND": "exec launch spawn execute",
    "orbitctl a NAME": "attach-session att at connect join reattach switch switch-client switchc",
    "orbitctl ls": "list list-sessions ps sessions list-windows lsw list-panes lsp list-units dir",
    "orbitctl open WORKSPACE": "load up",
    "orbitctl kill NAME": "stop end terminate close quit exit kill-session kill-window kill-pane",
    "orbitctl rm NAME": "delete remove del",
    "orbitctl undelete NAME": "restore undo untrash recover",
    "orbitctl logs NAME": "log tail history journal journalctl",
    "orbitctl prune": "clean cleanup gc purge",
    "orbitctl label NAME KEY=VALUE": "tag annotate",
    "orbitctl help": "man commands list-commands",
    "orbitctl session list --watch": "top watch monitor",
    "orbitctl session show NAME": "show inspect view info get describe has has-session is-active",
    "orbitctl session start NAME": "start respawn respawn-pane",
    "orbitctl kill NAME && orbitctl session start NAME": "restart",
    "orbitctl session rename NAME NEW-NAME": "rename rename-session mv",
    "orbitctl session move NAME WORKSPACE": "move",
    "orbitctl session detach NAME": "detach detach-client",
    "orbitctl session send NAME TEXT": "send send-keys type input stuff",
    "orbitctl session screen NAME": "screen capture capture-pane capturep cat hardcopy",
    "orbitctl session export NAME": "export record recording asciicast asciinema cast",
    "orbitctl session signal NAME SIGNAL": "signal",
    "orbitctl session wait NAME": "wait wait-for",
    "orbitctl daemon start": "start-server",
    "orbitctl daemon stop --all": "kill-server shutdown",
    "orbitctl daemon connections": "list-clients lsc who clients",
}
SUGGESTIONS = {word: command for command, words in _SAME.items() for word in words.split()}
"""The command that does what a word means that is none."""

_IN_GROUPS: dict[str, str] = {
    "create": "new add make",
    "list": "ls ps ll",
    "show": "info inspect view get cat describe status",
    "attach": "a at att connect",
    "run": "exec launch",
    "rename": "mv",
    "terminate": "kill stop end close",
    "stop": "kill end shutdown",
    "delete": "rm remove del",
    "uninstall": "rm remove delete",
    "undelete": "restore undo recover",
    "logs": "log tail journal",
    "prune": "clean gc",
}


def suggestion(group: click.Group, ctx: click.Context, word: str) -> str:
    """Return a sentence about what may be meant by a word that is no command of a group, "" for none."""
    known = group.list_commands(ctx)
    if ctx.parent is None and (command := SUGGESTIONS.get(word)):
        return f"`{command}` does this"
    for name, words in _IN_GROUPS.items():
        if ctx.parent is not None and name in known and word in words.split():
            return f"`{ctx.command_path} {name}` does this"
    from difflib import get_close_matches

    if near := get_close_matches(word, known, n=1):
        return f"Did you mean {near[0]!r}?"
    for name in known if ctx.parent is None else ():
        below = group.get_command(ctx, name)
        if isinstance(below, click.Group) and word in below.list_commands(ctx):
            return f"`{ctx.command_path} {name} {word}` does this"
    return ""


@click.command(
    "help",
    epilog="""\b
Examples:
  orbitctl help
  orbitctl help session rename
""",
)
@click.argument("words", nargs=-1, metavar="[COMMAND...]")
@click.pass_context
def help_(ctx: click.Context, words: tuple[str, ...]) -> None:
    """Describe a command, or list all of them."""
    context = ctx.find_root()
    for word in words:
        if not isinstance(context.command, click.Group):
            raise click.UsageError(f"`{context.command_path}` has no commands below it")
        name, command, _ = context.command.resolve_command(context, [word])
        assert command is not None
        context = click.Context(command, info_name=name, parent=context)
    click.echo(context.command.get_help(context))
