"""Command groups that import a command's module when it is called, and the common options.

The common options are added to a command when its group looks it up. So modules declare plain click
commands, and the options are accepted before the group and after the command alike.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import click

from orbitctl.app import App
from orbitctl.errors import usage_message

LOCAL_COMMANDS = frozenset(
    ("completion", "config", "daemon", "dial-stdio", "doctor", "maintenance backup", "maintenance restore", "service")
)
"""Commands for files, processes and settings of this machine; they refuse `--host`."""

MAX_TIMEOUT = 31_536_000.0
"""Seconds; a year."""


class LazyGroup(click.Group):
    """A group whose commands are named as `module:attribute` and imported when they are looked up."""

    def __init__(self, *args: Any, lazy: Mapping[str, str] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lazy = dict(lazy or {})

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of their declaration."""
        return [*(name for name in self.commands if name not in self.lazy), *self.lazy]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command, with the common options."""
        if cmd_name in self.lazy and cmd_name not in self.commands:
            module, _, attribute = self.lazy[cmd_name].partition(":")
            self.add_command(getattr(importlib.import_module(module), attribute), cmd_name)
        command = super().get_command(ctx, cmd_name)
        if command is not None:
            add_common_options(command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that is called; suggest one for a misspelt name. Raises: click.UsageError."""
        name, known = args[0], self.list_commands(ctx)
        if name not in known and not name.startswith("-") and not ctx.resilient_parsing:
            from orbitctl.commands.help import suggestion

            raise click.UsageError(f"No such command {name!r}. {suggestion(self, ctx, name)}".rstrip(), ctx)
        # Also here, since --host may stand before the command; its own callback has only seen the group so far.
        refuse_remote(ctx.find_object(App), f"{ctx.command_path} {name}")
        return super().resolve_command(ctx, args)


def add_common_options(command: click.Command) -> None:
    """Add the common options to a command, once; in a group that is no `LazyGroup`, to all its commands too."""
    taken = {name for param in command.params for name in param.opts}
    if "--socket" not in taken:
        command.params += [option for option in common_options() if taken.isdisjoint(option.opts)]
        if isinstance(command, click.Group) and not isinstance(command, LazyGroup):
            for child in command.commands.values():
                add_common_options(child)


def _set_on_app(field: str, value_of: Callable[[Any], Any]) -> Callable[[click.Context, click.Parameter, Any], None]:
    """Return a callback that sets an attribute of the `App`, unless the option was not given.

    An option may be given at several levels, and click calls back at each, with None or False where it is missing.
    """

    def callback(ctx: click.Context, _: click.Parameter, value: Any) -> None:
        app = ctx.find_object(App)
        if value is not None and value is not False and app is not None:
            setattr(app, field, value_of(value))

    return callback


def _add_hosts(ctx: click.Context, _: click.Parameter, urls: tuple[str, ...]) -> None:
    app = ctx.find_object(App)
    if not urls or app is None:
        return
    from orbitctl.client.ssh import parse_host

    try:
        # Called once for the options before the command and once for those after it; dict keeps order, drops repeats.
        app.named_hosts = tuple(dict.fromkeys([*app.named_hosts, *map(parse_host, urls)]))
    except ValueError as error:
        raise click.BadParameter(usage_message(error)) from error
    refuse_remote(app, ctx.command_path)


def refuse_remote(app: App | None, command_path: str) -> None:
    """Refuse `--host` for a command of `LOCAL_COMMANDS`. Raises: click.UsageError."""
    words = command_path.split()[1:3]  # `orbitctl maintenance backup`: a group or one command of it may be local
    if app is not None and app.hosts and not LOCAL_COMMANDS.isdisjoint((words[:1] or [""]) + [" ".join(words)]):
        raise click.UsageError(f"`{command_path}` is about the machine that it runs on: run it there, without --host")


def _seconds(value: float) -> float:
    if not 0 < value <= MAX_TIMEOUT:  # NaN fails too
        raise click.BadParameter(f"{value:.10g} is not between 0 and {MAX_TIMEOUT:.0f} seconds")
    return value


def common_options() -> list[click.Option]:
    """Return the common options; the callback of each sets an attribute of the `App`."""

    def option(names: list[str], field: str, value_of: Callable[[Any], Any] = lambda value: value, **more: Any) -> Any:
        return click.Option(names, expose_value=False, callback=_set_on_app(field, value_of), **more)

    return [
        option(["--json"], "json", is_flag=True, help="Print exactly the JSON result of the call."),
        option(["-q", "--quiet"], "quiet", is_flag=True, help="Print ids only."),
        option(["--socket"], "socket", metavar="PATH", help="The daemon's socket."),
        click.Option(
            ["--host"],
            multiple=True,
            expose_value=False,
            callback=_add_hosts,
            metavar="URL",
            help="Another machine: ssh://[user@]host[:port].",
        ),
        option(
            ["--remote-command"],
            "remote_command",
            metavar="CMD",
            help="The command that runs orbitctl there (orbitctl).",
        ),
        option(
            ["--timeout"],
            "timeout",
            _seconds,
            type=float,
            metavar="SECS",
            help="How long a call may take (30).",
        ),
        option(
            ["--no-autostart"],
            "autostart",
            lambda _: False,
            is_flag=True,
            help="Start no daemon if none runs, as ORBITCTL_NO_AUTOSTART=1 (true, yes) does.",
        ),
    ]
