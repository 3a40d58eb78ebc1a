"""`--columns`, `--format` and `--sort` of the commands that list."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec

from orbit_protocol.json_text import decode_any
from orbit_protocol.types import CommandFinished, Progress, Session, SessionConfig, TerminalNotification
from orbit_protocol.visible import visible
from orbitctl.app import App
from orbitctl.client.client import Answer
from orbitctl.commands.session_table import names_of_workspaces, row_of
from orbitctl.ui.listing import (
    LIST_COLUMNS,
    LIST_COLUMNS_OF_HOSTS,
    SESSION_COLUMNS,
    Column,
    View,
    idle_seconds,
    sessions_table,
    table,
    timestamp,
)
from orbitctl.ui.output import Formatter
from orbitctl.ui.stdout import view_of_stdout

if TYPE_CHECKING:
    from orbitctl.ui.listing import Row

F = TypeVar("F", bound=Callable[..., Any])

_TOKEN = re.compile(r"\\(.)|(\{\{|\}\})|\{([^{}]*)\}|([{}])|([^\\{}]+|\\)", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "\\": "\\"}


def list_options(command: F) -> F:
    """Add the options, which reach the command as `columns`, `template` and `sort`: arguments of `ListOptions`."""
    for option in (
        click.option("--sort", metavar="COLUMNS", help="Sort by these columns or fields; `-idle` turns one round."),
        click.option(
            "--format", "template", metavar="TEMPLATE", help=r"Print this for each, such as '{name}\t{status}'."
        ),
        click.option("--columns", metavar="COLUMNS", help="The columns, such as id,name,exit."),
    ):
        command = option(command)
    return command


@dataclass(frozen=True)
class Kind:
    """What a list holds.

    Args:
        columns: Every column, by the name that the options take.
        usual: The names of those that are shown if none are asked for.
        fields: The fields of the entries' JSON; those of an object in it as `config.command`.
        open_fields: The fields that are objects with any keys.
        sort_values: What a column sorts by, where its text does not do: a field, or a function.
    """

    columns: Mapping[str, Column]
    usual: Sequence[str]
    fields: Sequence[str]
    open_fields: Sequence[str] = ()
    sort_values: Mapping[str, str | Callable[[Row, View], Any]] = field(default_factory=dict)

    def is_field(self, name: str) -> bool:
        """Return whether the entries' JSON has, or may have, a field."""
        return name in self.fields or name.startswith(tuple(f"{outer}." for outer in self.open_fields))

    def check_name(self, name: str, option: str) -> None:
        """Refuse what is neither a column nor a field. Raises: click.UsageError, which lists both."""
        if not self.is_field(name) and name.lower() not in self.columns:
            nested = dict.fromkeys(f"{outer.partition('.')[0]}.FIELD" for outer in self.fields if "." in outer)
            others = [*(outer for outer in self.fields if "." not in outer and outer not in self.columns), *nested]
            others += [f"{outer}.KEY" for outer in self.open_fields]
            names = f"{', '.join(self.columns)}, and of the JSON {', '.join(others)}"
            raise click.UsageError(f"{option}: there is no {name!r}; there are {names}")

    def cell(self, name: str, row: Row, view: View) -> str | None:
        """Return the text of a column."""
        return self.columns[name.lower()].cell(row, view)


class ListOptions:
    r"""How a command shows its list.

    A template has `{field}` for a field of the entry's JSON, as it came (`{id}`, `{config.command}`, `{labels.KEY}`),
    or for a column where there is no such field (`{idle}`); `{COLUMN}` in capitals is what the column shows. `\t`,
    `\n`, `\\`, `{{` and `}}` stand for a tab, a new line, a backslash and braces.

    Args:
        kind: What is listed.
        columns: `--columns`.
        template: `--format`.
        sort: `--sort`.

    Raises:
        click.UsageError: One of them names what there is not, or they cannot be used together.
    """

    def __init__(self, kind: Kind, columns: str | None, template: str | None, sort: str | None) -> None:
        self.kind = kind
        if columns is not None and template is not None:
            raise click.UsageError("give --columns or --format")
        self.columns = None if columns is None else [name.lower() for name in _names(columns, "--columns")]
        for name in self.columns or ():
            if name not in kind.columns:
                raise click.UsageError(f"--columns: there is no {name!r}; there are {', '.join(kind.columns)}")
        self.parts = None if template is None else self._parsed(template)
        self.sort = [] if sort is None else _names(sort, "--sort")
        for name in self.sort:
            kind.check_name(name.removeprefix("-"), "--sort")

    def check(self, app: App) -> None:
        """Refuse `--json` and `-q` where they contradict. Raises: click.UsageError."""
        if app.json and self.sort:
            raise click.UsageError("--json prints the result as it came: --sort cannot change it")
        if (app.json or app.quiet) and (self.columns is not None or self.parts is not None):
            raise click.UsageError("--columns and --format can be used neither with --json nor with --quiet")

    def uses(self, name: str) -> bool:
        """Return whether a column may be shown or sorted by."""
        asked = self.kind.usual if self.columns is None else self.columns
        words = asked if self.parts is None else [name.lower() for _, name in self.parts if name]
        return name in words or name in (word.removeprefix("-").lower() for word in self.sort)

    def text(self, rows: Sequence[Row], view: View, draw: Callable[[Sequence[Row], View], str] | None = None) -> str:
        """Return the list as it is printed; `draw` draws the table of the usual columns, if that is not `table`."""
        rows = self.sorted(rows, view)
        if self.parts is not None:
            return "".join(self._filled(row, view) for row in rows)
        if self.columns is None and draw is not None:
            return draw(rows, view)
        names = self.kind.usual if self.columns is None else self.columns
        return table([self.kind.columns[name] for name in names], rows, view, chosen=self.columns is not None)

    def sorted(self, rows: Sequence[Row], view: View) -> Sequence[Row]:
        """Return the rows in the order of `--sort`; those that are equal stay in theirs, and empty ones come last."""
        for name in reversed(self.sort):
            by, descending = name.removeprefix("-"), name.startswith("-")
            pairs = [(self._sort_value(by, row, view), row) for row in rows]
            known = [pair for pair in pairs if pair[0] is not None]
            known.sort(key=lambda pair: _comparable(pair[0]), reverse=descending)
            rows = [row for _, row in known] + [row for value, row in pairs if value is None]
        return rows

    def _sort_value(self, name: str, row: Row, view: View) -> Any:
        by = self.kind.sort_values.get(name.lower())
        if by is None and name.lower() in self.kind.columns:
            return self.kind.cell(name, row, view)
        if by is not None and not isinstance(by, str):
            return by(row, view)
        by = by or name
        found = _lookup(row, by)
        return timestamp(found) if found and by.endswith("_at") else found

    def _parsed(self, template: str) -> list[tuple[str, str]]:
        """Return a template as pairs: a literal text, and the field after it or "". Raises: click.UsageError."""
        parts: list[tuple[str, str]] = []
        literal = ""
        for escape, brace, name, lone, text in _TOKEN.findall(template):
            if lone or (not (escape or brace or text) and not name):
                raise click.UsageError(f"--format: '{lone or '{}'}' is no {{field}}; a brace is written twice")
            if name:
                self.kind.check_name(name, "--format")
                parts.append((literal, name))
                literal = ""
            else:
                literal += _ESCAPES.get(escape, f"\\{escape}") if escape else brace[:1] or text
        return [*parts, (literal + "\n", "")]

    def _filled(self, row: Row, view: View) -> str:
        return "".join(
            literal + (visible(self._value(name, row, view)) if name else "") for literal, name in self.parts or ()
        )

    def _value(self, name: str, row: Row, view: View) -> str:
        if not self.kind.is_field(name):
            return self.kind.cell(name, row, view) or ""
        found = _lookup(row, name)
        if found is None:
            return ""
        return found if isinstance(found, str) else json.dumps(found, ensure_ascii=False, separators=(",", ":"))


def show_list(app: App, answer: Answer[Any], entries: Sequence[Any], options: ListOptions, nothing: str) -> None:
    """Print the entries of an answer, which are Structs with an `id`; on a terminal, `nothing` if there are none."""
    if app.json:
        app.out.json(answer.raw)
        return
    view = view_of_stdout(Formatter)
    # The hook is for Raw.
    rows = options.sorted(msgspec.to_builtins(entries, enc_hook=decode_any), view)
    if app.quiet:
        for row in rows:
            app.out.line(row["id"])
    elif not rows and app.out.terminal and options.parts is None:
        app.out.note(nothing)
    else:
        sys.stdout.write(options.text(rows, view))


def _names(text: str, option: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not all(name.removeprefix("-") for name in names):
        raise click.UsageError(f"{option}: names are separated by single commas, such as id,name")
    return names


def _lookup(row: Any, path: str) -> Any:
    """Return a field of JSON; a key may hold dots itself, as labels do."""
    while isinstance(row, dict):
        if path in row:
            return row[path]
        name, _, path = path.partition(".")
        row = row.get(name)
    return None


def _comparable(value: Any) -> tuple[int, float, str]:
    """Return what sorts numbers by their size, before texts by their letters, whatever their case."""
    if isinstance(value, int | float):
        return 0, value, ""
    text = value if isinstance(value, str) else json.dumps(value)
    return (0, float(text), "") if text.isdecimal() and text.isascii() else (1, 0.0, text.casefold())


def fields_of(kind: Any, prefix: str = "", **below: Any) -> list[str]:
    """Return the fields of a Struct, and of those Structs in it that `below` names."""
    names = [prefix + name for name in kind.__struct_fields__]
    return names + [name for outer, inner in below.items() for name in fields_of(inner, f"{prefix}{outer}.")]


SESSION_COLUMN_NAMES = (
    *("id", "name", "status", "state", "exit", "type", "host", "workspace", "live", "size", "clients", "idle", "saved"),
    *("news", "command", "title", "folder", "pid", "created", "deleted", "labels", "mark", "machine"),
)
"""What `--columns` takes of sessions."""
_IN_LS = {"name": "name-or-id", "status": "state", "command": "running"}
"""What `ls` shows in the columns of these names."""


class SessionOptions(ListOptions):
    """How sessions are listed.

    Args:
        usual: The columns that are shown if none are asked for: keys of `SESSION_COLUMNS`.
        is_ls: Whether columns show what `ls` shows in them.
        columns: `--columns`.
        template: `--format`.
        sort: `--sort`.
    """

    def __init__(
        self, usual: Sequence[str], is_ls: bool, columns: str | None, template: str | None, sort: str | None
    ) -> None:
        self._keys = usual
        kind = Kind(
            columns={name: SESSION_COLUMNS[_IN_LS.get(name, name) if is_ls else name] for name in SESSION_COLUMN_NAMES},
            usual=usual,
            fields=fields_of(
                Session,
                config=SessionConfig,
                notification=TerminalNotification,
                progress=Progress,
                last_command=CommandFinished,
            ),
            open_fields=("labels", "config.env"),
            sort_values={
                "idle": lambda row, view: idle_seconds(row, view.now),
                "name": "name",
                "created": "created_at",
                "saved": "last_saved_at",
                "deleted": "deleted_at",
            },
        )
        super().__init__(kind, columns, template, sort)

    def sessions_text(self, rows: Sequence[Row], view: View, *, of_hosts: bool = False) -> str:
        """Return the list as it is printed; `of_hosts` adds the machine's column to the usual ones."""
        keys = self._keys
        if of_hosts:
            keys = LIST_COLUMNS_OF_HOSTS if keys is LIST_COLUMNS else ("machine", *keys)
        return self.text(rows, view, lambda rows, view: sessions_table(rows, keys, view))


def drawn_sessions(app: App, sessions: Sequence[Session], options: SessionOptions) -> str:
    """Return the list of sessions as it is printed."""
    workspaces = names_of_workspaces(app, sessions) if options.uses("workspace") else {}
    view = view_of_stdout(View, workspaces=workspaces, here=app.environ.get("ORBIT_SESSION"))
    return options.sessions_text([row_of(one) for one in sessions], view)
