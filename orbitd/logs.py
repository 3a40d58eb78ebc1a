"""Structured logs on stderr: one line an event, as text or as JSON.

An event has a fixed message and named fields. Contents of terminals and params of requests
never go into a field. Of an exception only the places are logged that it passed, not its
text, which may quote what a client sent.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

from orbit_protocol.text import encodable

LogFormat = Literal["text", "json"]


def event(log: logging.Logger, level: int, message: str, /, *, exc: BaseException | None = None, **fields: Any) -> None:
    """Log one event.

    Args:
        log: The module's logger.
        level: A level of `logging`.
        message: A constant, so that events can be searched for and counted.
        exc: An exception; the places that it passed are logged, its text is not.
        fields: Values; JSON-encodable.
    """
    if log.isEnabledFor(level):
        if exc is not None:
            frames = reversed(traceback.extract_tb(exc.__traceback__)[-8:])
            fields["trace"] = " < ".join(f"{each.filename.rsplit('/', 1)[-1]}:{each.lineno}" for each in frames)
        log.log(level, message, extra={"fields": fields})


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class TextFormatter(logging.Formatter):
    """`TIME LEVEL message key=value ...`; values that hold spaces are quoted."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        fields: dict[str, Any] = getattr(record, "fields", {})
        words = [_time(record), record.levelname.lower(), encodable(record.getMessage()).replace("\n", "\\n")]
        return " ".join(words + [f"{key}={_quoted(value)}" for key, value in fields.items()])


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, event, and the fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        fields: dict[str, Any] = getattr(record, "fields", {})
        head = {"time": _time(record), "level": record.levelname.lower(), "event": record.getMessage()}
        line = {key: encodable(value) if isinstance(value, str) else value for key, value in {**head, **fields}.items()}
        return json.dumps(line, default=lambda value: encodable(str(value)), separators=(",", ":"))


def _quoted(value: Any) -> str:
    # As JSON where there is anything to quote, all but ASCII escaped: a value can neither end the line nor steer the
    # terminal that the log is shown on.
    text = encodable(str(value))
    plain = text.isprintable() and text != "" and not any(character in text for character in ' "=')
    return text if plain else json.dumps(text)


FORMATTERS: dict[LogFormat, type[logging.Formatter]] = {"text": TextFormatter, "json": JsonFormatter}


def configure(level: str, log_format: LogFormat, stream: TextIO = sys.stderr) -> None:
    """Send every event of `level` and above to `stream`."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(FORMATTERS[log_format]())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.raiseExceptions = False  # else a stderr that is closed has each event print a traceback
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    logging.getLogger("aiosqlite").setLevel(logging.CRITICAL)  # it would log SQL with its values
