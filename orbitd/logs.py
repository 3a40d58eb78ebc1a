"""Structured logs on stderr: one line an event, as text or as JSON.

An event has a fixed message and named fields. Contents of terminals and params of requests
never go into a field. Of an exception only the places are logged that it passed, not its
text, which may quote what a client sent.

An event that comes again and again is counted, and not written each time (`RepeatLimiter`).
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import time
import traceback
from datetime import UTC, datetime
from typing import Any, Literal

from msgspec import Struct, field

from orbit_protocol.text import encodable
from orbitd.log_writer import FLUSH_SECS, LineWriter, stderr

FIRST_WINDOW_SECS = 2.0
MAX_WINDOW_SECS = 64.0
MAX_LINES_A_WINDOW = 50
MAX_EVENTS = 256
"""Events whose repetitions are counted apart; those beyond are counted together."""

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


class RepeatedEvent(Struct, frozen=True):
    """An event of which lines were not written."""

    logger: str
    level: int
    message: str


class Repeated(Struct, frozen=True, kw_only=True):
    """How often an event came in a window of so many seconds, beyond the lines that were written."""

    event: RepeatedEvent
    times: int
    secs: float


class _Window(Struct):
    """The time in which an event is not repeated, since its first line."""

    end: float
    secs: float
    lines: set[int] = field(default_factory=set)
    unwritten: int = 0


class RepeatLimiter:
    """Decides which lines are written. The first of an event always is.

    Within a window of `FIRST_WINDOW_SECS` from there a line with the same fields is counted only, and so are those with
    other fields after `MAX_LINES_A_WINDOW` of them. While an event goes on to repeat itself, each of its windows is
    twice as long as the one before, up to `MAX_WINDOW_SECS`.
    """

    def __init__(self) -> None:
        self._windows: dict[RepeatedEvent, _Window] = {}

    def admit(self, event: RepeatedEvent, text: str, now: float) -> bool:
        """Return whether a line is to be written; else it is counted. Call `ended` first.

        Args:
            event: What it says.
            text: Its message and fields.
            now: The time in seconds, on a clock that never goes back.
        """
        window = self._windows.get(event)
        if window is None and len(self._windows) >= MAX_EVENTS:
            event = RepeatedEvent("", event.level, "other events")
            window = self._windows.get(event)
        if window is None:
            window = self._windows[event] = _Window(now + FIRST_WINDOW_SECS, FIRST_WINDOW_SECS)
        if hash(text) in window.lines or len(window.lines) >= MAX_LINES_A_WINDOW:
            window.unwritten += 1
            return False
        window.lines.add(hash(text))
        return True

    def ended(self, now: float) -> list[Repeated]:
        """End the windows whose time is over; return what was counted in them."""
        found = []
        # A copy, made at once: a finalizer that the garbage collector runs meanwhile may log something in this thread.
        for event, window in [each for each in self._windows.copy().items() if each[1].end <= now]:
            del self._windows[event]
            if window.unwritten:
                found.append(Repeated(event=event, times=window.unwritten, secs=window.secs))
                secs = min(2 * window.secs, MAX_WINDOW_SECS)
                self._windows[event] = _Window(now + secs, secs)
        return found

    def next_end(self) -> float | None:
        """Return when a window ends in which something was counted; None where there is none."""
        return min((window.end for window in self._windows.copy().values() if window.unwritten), default=None)


class LogHandler(logging.Handler):
    """Writes events, with the repetitions counted."""

    def __init__(self, formatter: logging.Formatter, writer: LineWriter) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self._writer = writer
        self._limiter = RepeatLimiter()
        self._is_awaited = False  # the writer's thread wakes up at the end of a window
        writer.dropped_line = self._dropped_line
        writer.on_turn = self._write_ended

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line of a record, or count it."""
        try:
            self._put_counts(self._limiter.ended(time.monotonic()))
            if record.levelno > logging.DEBUG:  # who has asked for those wants all of them
                event = RepeatedEvent(record.name, record.levelno, str(record.msg))
                text = record.getMessage() + repr(getattr(record, "fields", ""))
                if not self._limiter.admit(event, text, time.monotonic()):
                    if not self._is_awaited:  # the thread waits for a line, and would not write the count
                        self._is_awaited = True
                        self._writer.wake()
                    return
            self._writer.put(self._line(record))
        except Exception:  # noqa: BLE001  # a line that cannot be formatted; nothing may raise where it is logged
            self.handleError(record)

    def finish(self, secs: float = FLUSH_SECS) -> bool:
        """Write what is left at the end of the process; return whether all was taken within so many seconds."""
        with self.lock or contextlib.nullcontext():
            ended = self._limiter.ended(float("inf"))
        self._put_counts(ended)
        return self._writer.flush(secs)

    def _write_ended(self) -> float | None:
        # In the writer's thread. The lock is the one under which logging calls `emit`, and the event loop waits for it:
        # lines are made when it is free again.
        with self.lock or contextlib.nullcontext():
            ended = self._limiter.ended(time.monotonic())
            end = self._limiter.next_end()
            self._is_awaited = end is not None
        self._put_counts(ended)
        return None if end is None else max(0.0, end - time.monotonic())

    def _put_counts(self, ended: list[Repeated]) -> None:
        for each in ended:
            fields = {"event": each.event.message, "times": each.times, "secs": round(each.secs)}
            self._writer.put(self._line(_record(each.event.logger, each.event.level, "repeated", fields)))

    def _dropped_line(self, count: int) -> bytes:
        return self._line(_record("orbitd.logs", logging.WARNING, "log lines dropped", {"lines": count}))

    def _line(self, record: logging.LogRecord) -> bytes:
        return (self.format(record) + "\n").encode("utf-8", "backslashreplace")


def _record(logger: str, level: int, message: str, fields: dict[str, Any]) -> logging.LogRecord:
    return logging.makeLogRecord(
        {"name": logger, "levelno": level, "levelname": logging.getLevelName(level), "msg": message, "fields": fields}
    )


def configure(level: str, log_format: LogFormat, log_file: str) -> None:
    """Send every event of `level` and above to stderr, which is kept within its limit if it is the log file."""
    handler = LogHandler(FORMATTERS[log_format](), stderr)
    stderr.rotate(log_file)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.raiseExceptions = False  # else a line that cannot be formatted has a traceback printed
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    logging.getLogger("aiosqlite").setLevel(logging.CRITICAL)  # it would log SQL with its values
    atexit.register(handler.finish)
