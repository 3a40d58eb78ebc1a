"""Generate orbitctl/completion/table.py, what completion knows of every command, from the command tree."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

import click

from commands_page import walk
from orbit_protocol.methods import METHODS
from orbitctl.attach import keys
from orbitctl.cli import cli
from orbitctl.commands import snapshot, workspace
from orbitctl.commands.group import common_options
from orbitctl.commands.list_options import SESSION_COLUMN_NAMES

HEAD = '''"""What completion knows of every command.

Generated from the command tree by docs/generate.py: importing that tree takes longer than a person waits for a Tab.

Of a command, by its words: what it does; the kinds of its arguments, the last of which may be repeated (`...`); whether
options may stand behind them; of its own options the names, the kind of the value (none for a flag), and help.
A kind says what can stand in a place: `session`, `workspace`, `label`, `file`, `folder`, `command` (another program's
command line), `signal`, `key`, `method`, `subcommands`, `choice:A,B`, `list:A,B` (with commas between), else `text`.
"""

# ruff: noqa: E501  # an entry is on one line
# fmt: off
from __future__ import annotations

'''
KINDS = {
    "session": "session",
    "workspace": "workspace",
    "label": "label",
    "signal": "signal",
    "keys": "key",
    "command": "command",
    "method": "method",
    "socket": "file",
    "path": "file",
}
"""The kind of a parameter by the name of its type, or by its own."""
ARGUMENTS = {"resume": ("session", "command..."), "help": ("subcommands...",)}
"""Arguments of commands that give their words a meaning themselves."""
COLUMNS = {
    "ls": SESSION_COLUMN_NAMES,
    "session list": SESSION_COLUMN_NAMES,
    "snapshot list": tuple(snapshot.COLUMNS),
    "workspace list": tuple(workspace.COLUMNS),
}
"""What `--columns` and `--sort` of a command take."""


def table_source() -> str:
    """Return the module."""
    root = click.Context(cli, info_name="orbitctl")
    common = {option.opts[0] for option in common_options()}
    rows = [_command("", cli, root, common)]
    for command, context in walk(cli, root):
        rows.append(_command(context.command_path.removeprefix("orbitctl "), command, context, common))
    options = [*common_options(), click.Option(["-h", "--help"], is_flag=True, help="Show help.")]
    return f"""{HEAD}COMMANDS: dict[str, tuple[str, tuple[str, ...], bool, tuple[str, ...]]] = {{
{"".join(rows)}}}
COMMON_OPTIONS: tuple[str, ...] = {_strings(map(_option, options), "")}
KEYS = {_strings(keys.NAMES, "")}
METHODS = {_strings(METHODS, "")}
"""


def _command(path: str, command: click.Command, context: click.Context, common: set[str]) -> str:
    options = [param for param in command.params if isinstance(param, click.Option) and not param.hidden]
    # A common option is known by its first name and its help: `session create --host` is another one.
    known = {(option.opts[0], option.help) for option in common_options()}
    own = [option for option in options if (option.opts[0], option.help) not in known]
    is_mixed = command.context_settings.get("allow_interspersed_args", command.allow_interspersed_args)
    return (
        f"    {_string(path)}: (\n        {_string(_first_sentence(command))},\n"
        f"        ({''.join(_string(kind) + ', ' for kind in _arguments(path, command)).rstrip()}), {is_mixed},\n"
        f"        {_strings([_option(one, path) for one in own], '        ')},\n    ),\n"
    )


def _arguments(path: str, command: click.Command) -> Sequence[str]:
    if found := ARGUMENTS.get(path.rpartition(" ")[2]):
        return found
    arguments = [param for param in command.params if isinstance(param, click.Argument)]
    return [_kind(param) + ("..." if param.nargs == -1 else "") for param in arguments]


def _option(option: click.Option, path: str = "") -> str:
    kind = "" if option.is_flag or option.count else _kind(option)
    if option.name in ("columns", "sort"):
        kind = "list:" + ",".join(COLUMNS[path])
    about = (option.help or "").split(". ")[0].removesuffix(".")
    return f"{' '.join(option.opts + option.secondary_opts)}|{kind}|{about}"


def _kind(param: click.Parameter) -> str:
    if isinstance(param.type, click.Choice):
        return "choice:" + ",".join(map(str, param.type.choices))
    if isinstance(param.type, click.Path):
        return "file" if param.type.file_okay else "folder"
    return KINDS.get(param.type.name) or KINDS.get(param.name or "") or "text"


def _first_sentence(command: click.Command) -> str:
    return command.get_short_help_str(100).removesuffix(".")


def _strings(strings: Iterable[str], indent: str) -> str:
    """Return a tuple of strings as it is formatted: each on a line."""
    lines = "".join(f"{indent}    {_string(one)},\n" for one in strings)
    return f"(\n{lines}{indent})" if lines else "()"


def _string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
