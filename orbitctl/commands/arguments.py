"""Types of arguments: sessions and workspaces by name, files, JSON, points in time."""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING, Any

import click
import msgspec

from orbitctl.errors import CommandError, ExitCode

if TYPE_CHECKING:
    from datetime import datetime

    from click.shell_completion import CompletionItem

MAX_INPUT_BYTES = 1 << 30
"""The limit of a file or of stdin."""

CELLS = click.IntRange(1, 65_535)
LIMIT = click.IntRange(1, 1_000_000_000)


class SessionRef(click.ParamType):  # type: ignore[type-arg]  # generic only in newer releases of click
    """A session's id, unique prefix or name."""

    name = "session"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return completions."""
        from orbitctl.commands.completion import session_names

        return session_names(ctx, incomplete)


class WorkspaceRef(click.ParamType):  # type: ignore[type-arg]  # generic only in newer releases of click
    """A workspace's id, unique prefix or name."""

    name = "workspace"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return completions."""
        from orbitctl.commands.completion import workspace_names

        return workspace_names(ctx, incomplete)


SESSION = SessionRef()
WORKSPACE = WorkspaceRef()


def read_bytes(file: str) -> bytes:
    """Return the content of a file, or of stdin for `-`. Raises: CommandError."""
    try:
        if file == "-":
            data = sys.stdin.buffer.read(MAX_INPUT_BYTES + 1)
        else:
            with open(file, "rb") as opened:
                data = opened.read(MAX_INPUT_BYTES + 1)
    except OSError as error:
        raise CommandError(f"cannot read {file}: {error.strerror}", ExitCode.USAGE) from error
    if len(data) > MAX_INPUT_BYTES:
        raise CommandError(f"{file} holds more than {MAX_INPUT_BYTES} bytes", ExitCode.USAGE)
    return data


class JsonText(click.ParamType):  # type: ignore[type-arg]  # generic only in newer releases of click
    """JSON, passed on as it was given: the text itself, `@FILE`, or `-` for stdin."""

    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> msgspec.Raw:
        """Return valid JSON. Raises: click.BadParameter."""
        if isinstance(value, msgspec.Raw):
            return value
        text = read_bytes(value.removeprefix("@")) if value == "-" or value.startswith("@") else os.fsencode(value)
        try:
            msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self.fail(f"not JSON: {error}", param, ctx)
        return msgspec.Raw(text)


JSON = JsonText()

_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


class PointInTime(click.ParamType):  # type: ignore[type-arg]  # generic only in newer releases of click
    """A time (RFC 3339), a date, or a span back from now: `30d`, `12h`."""

    name = "when"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Return an aware datetime; without a zone the text is local time. Raises: click.BadParameter."""
        from datetime import UTC, datetime, timedelta

        try:
            if span := re.fullmatch(r"(\d{1,9})([smhdw])", value):
                return datetime.now(UTC) - timedelta(seconds=int(span[1]) * _UNITS[span[2]])
            return datetime.fromisoformat(value).astimezone(UTC)
        except (ValueError, OverflowError, OSError):
            self.fail(f"{value!r} is no time, date or span such as 30d, 12h, 2w", param, ctx)


WHEN = PointInTime()


def quoted(text: str) -> str:
    """Return `text` as a JSON string, which is a TOML basic string too."""
    return msgspec.json.encode(text).decode()
