"""`orbitctl search`: everything that sessions have shown, searched."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, TextIO

import click
import msgspec

from orbit_os.shell import typed
from orbit_protocol import methods as m
from orbit_protocol import params as p
from orbit_protocol.errors import Busy, InvalidParams
from orbit_protocol.params import MAX_HITS
from orbit_protocol.results import Hit, SearchPage
from orbit_protocol.types import Session
from orbit_protocol.visible import visible
from orbitctl.app import App, checked
from orbitctl.commands.arguments import LABEL, SESSION, WHEN, WORKSPACE
from orbitctl.errors import CommandError, ExitCode
from orbitctl.ui.output import is_smart_terminal, is_without_colour
from orbitctl.ui.pager import pager
from orbitctl.ui.spinner import spinner
from orbitctl.ui.text import plural, rfc3339, size

if TYPE_CHECKING:
    from orbitctl.ui.spinner import Shown

_SHORT_ID = 8
_NAME, _MATCH, _FAINT, _PLAIN = "\x1b[1;35m", "\x1b[1;31m", "\x1b[2m", "\x1b[0m"
_APART = "--"
_CUT_CHARACTERS = 4_096
"""Lines of so many characters, or more, may have been longer (`Hit.text`)."""
_TRIES = 3
"""A machine that is busy may leave a search no time for a part of the text: so often that may be."""


@click.command(
    epilog="""\b
Examples:
  orbitctl search 'connection refused'
  orbitctl search -e 'error: .*\\.py' --since 2h -C 3
  orbitctl search TODO --session web -n 1000 | less
  orbitctl search panic --since yesterday --json

Exit codes: 0 found, 1 nothing found or an error, 2 usage.
""",
)
@click.argument("text", required=False)
@click.option("-e", "--regex", metavar="REGEX", help="Search for a regular expression (Python's re) instead.")
@click.option("-i", "--ignore-case", is_flag=True, help="Capital letters don't count [they do where TEXT has any].")
@click.option("-s", "--case-sensitive", is_flag=True, help="Capital letters count.")
@click.option("--session", type=SESSION, metavar="SESSION", help="Only this session; archived ones too.")
@click.option("--workspace", type=WORKSPACE, metavar="WORKSPACE", help="Only sessions of this workspace.")
@click.option(
    "--label", "labels", multiple=True, type=LABEL, metavar="KEY=VALUE", help="Only sessions with this label."
)
@click.option("--since", type=WHEN, metavar="WHEN", help="Only what was shown since: 2h, yesterday, 2026-11-20.")
@click.option("--until", type=WHEN, metavar="WHEN", help="Only what was shown before.")
@click.option("-C", "--context", type=click.IntRange(0, 50), default=0, metavar="N", help="Show N lines around each.")
@click.option(
    "-n", "--limit", type=click.IntRange(1, 1_000_000), default=100, metavar="N", help="Print the newest N lines [100]."
)
@click.pass_obj
def search(
    app: App,
    text: str | None,
    regex: str | None,
    ignore_case: bool,
    case_sensitive: bool,
    session: str | None,
    workspace: str | None,
    labels: tuple[tuple[str, str], ...],
    since: datetime | None,
    until: datetime | None,
    context: int,
    limit: int,
) -> int:
    """Search everything that sessions have shown.

    The lines of sessions that have ended or are archived are found too, and what full-screen
    programs have shown. The session with the newest line comes first; its lines are in the
    order in which they were shown.
    """
    query = _query(text, regex)
    if ignore_case and case_sensitive:
        raise click.UsageError("-i and -s exclude each other.")
    if since is not None and until is not None and until <= since:
        raise click.UsageError("--until is not after --since.")
    with checked():
        wanted = p.HistorySearch(
            query=query,
            regex=regex is not None,
            case="insensitive" if ignore_case else "sensitive" if case_sensitive else "smart",
            labels=dict(labels) or None,
            since=since,
            until=until,
            context=context,
            limit=min(limit, MAX_HITS),
        )
        if session is not None:
            wanted = msgspec.structs.replace(wanted, session_id=_searched(app.session(session, or_begins=True)).id)
        if workspace is not None:
            wanted = msgspec.structs.replace(wanted, workspace_id=app.workspace(workspace).id)
    found = _Found(app, wanted, limit)
    with spinner("searching") as shown:
        found.ask_all(shown)
    if app.json:
        app.out.json(found.json())
    elif app.quiet:
        for session_id in dict.fromkeys(hit.session_id for hit in found.hits):
            app.out.line(session_id)
    elif found.hits:
        with pager() as file:
            _Printer(file, wanted, terminal=app.out.terminal).print(found.hits)
    found.report()
    return ExitCode.OK if found.hits else ExitCode.ERROR


def _query(text: str | None, regex: str | None) -> str:
    """Return what to search for. Raises: UsageError."""
    query = regex if text is None else text
    if query is None or None not in (text, regex):
        raise click.UsageError("Give either TEXT or -e REGEX.")
    if not query:
        raise click.UsageError(f"{'TEXT' if regex is None else 'REGEX'} is empty.")
    return query


def _searched(session: Session) -> Session:
    """Return a session whose text may be kept. Raises: CommandError."""
    if session.config.record == "none":
        name = session.name or session.id
        raise CommandError(
            f"{name} is private: nothing of what it shows is kept, so nothing can be searched",
            ExitCode.NOT_FOUND,
            hint=f"`{typed('orbitctl logs', name)}` prints what is in its memory.",
        )
    return session


class _Found:
    """What is found, page by page.

    Args:
        app: The app.
        wanted: What to search for.
        limit: The most hits.
    """

    def __init__(self, app: App, wanted: p.HistorySearch, limit: int) -> None:
        self._app, self._wanted, self._limit = app, wanted, limit
        self._searched = 0
        self._cursor: str | None = None
        self._is_complete = True
        self._failure: CommandError | None = None
        self._shown: set[tuple[str, str]] = set()
        self.hits: list[Hit] = []

    def ask_all(self, shown: Shown) -> None:
        """Ask for pages until there are enough hits or all was searched.

        Raises:
            UsageError: The query is none.
            CommandError: Nothing could be searched.
        """
        tries = _TRIES
        while True:
            limit = min(self._limit - len(self.hits), MAX_HITS)
            params = msgspec.structs.replace(self._wanted, limit=limit, cursor=self._cursor)
            try:
                page = self._app.call(m.HISTORY_SEARCH, params)
            except CommandError as error:
                if isinstance(error.__cause__, InvalidParams):
                    given = "REGEX" if self._wanted.regex else "TEXT"
                    raise click.UsageError(error.message.replace("'query'", given, 1)) from error
                tries -= 1
                if tries and isinstance(error.__cause__, Busy):
                    continue
                if self._cursor is None:
                    raise
                self._failure = error  # what was found before is worth printing
                return
            self._take(page)
            shown.text = f"searching: {plural(len(self.hits), 'line')} found in {size(self._searched)} of text"
            if page.next_cursor in (None, self._cursor) or len(self.hits) >= self._limit:
                self._cursor, self._is_complete = page.next_cursor, page.complete or page.next_cursor is not None
                return
            self._cursor = page.next_cursor

    def _take(self, page: SearchPage) -> None:
        self._searched += page.searched_bytes
        for hit in page.hits:
            # The daemon leaves out what a full-screen program has shown before within a page.
            key = (hit.session_id, hit.text)
            if hit.source == "line" or key not in self._shown:
                self._shown.add(key)
                self.hits.append(hit)

    def json(self) -> bytes:
        """Return all pages as one."""
        page = SearchPage(
            hits=self.hits,
            next_cursor=self._cursor,
            searched_bytes=self._searched,
            complete=self._is_complete and self._failure is None,
        )
        return msgspec.json.encode(page)

    def report(self) -> None:
        """Say on stderr what was not searched. Raises: CommandError, where that was an error."""
        if self._failure is not None:
            self._app.out.problem("warning", "not everything was searched: there may be older lines", "33")
            raise self._failure
        if not self._is_complete:
            what = "not everything could be searched; what was printed just now may be missing"
            self._app.out.problem("warning", what, "33")
        elif len(self.hits) >= self._limit and self._cursor is not None:
            self._app.out.note(f"the newest {plural(len(self.hits), 'line')}; -n shows more")


class _Printer:
    """Prints hits: on a terminal under the name of each session, in a pipe with the name in each line.

    Args:
        file: Where they go.
        wanted: What was searched for.
        terminal: Whether people read it.
    """

    def __init__(self, file: TextIO, wanted: p.HistorySearch, *, terminal: bool) -> None:
        self._file, self._terminal = file, terminal
        self._has_colour = terminal and is_smart_terminal() and not is_without_colour()
        self._spans = _spans_of(wanted) if self._has_colour else None
        self._has_context = wanted.context > 0

    def print(self, hits: list[Hit]) -> None:
        """Print hits that come newest first."""
        by_session: dict[str, list[Hit]] = {}
        for hit in hits:
            by_session.setdefault(hit.session_id, []).append(hit)
        is_first = True
        for number, found in enumerate(by_session.values()):
            if self._terminal:
                self._write(("\n" if number else "") + self._heading(found[0], len(found)))
                is_first = True
            for block in _blocks(found[::-1]):
                if self._has_context and not is_first:
                    self._write(_APART)
                is_first = False
                for shown, text in block:
                    self._write(self._line(found[0], shown, text))

    def _write(self, line: str) -> None:
        self._file.write(line + "\n")

    def _heading(self, hit: Hit, count: int) -> str:
        short = hit.session_id[:_SHORT_ID]
        name = visible(hit.name or short)
        heading = f"{_NAME}{name}{_PLAIN}" if self._has_colour else name
        return f"{heading}  {visible(short)}, {plural(count, 'line')}"

    def _line(self, of_session: Hit, hit: Hit | None, text: str) -> str:
        if self._terminal:
            moment = "" if hit is None else f"{hit.at.astimezone():%Y-%m-%d %H:%M:%S}"
            start = f"{moment:19}"
            if self._has_colour:
                start = f"{_FAINT}{start}{_PLAIN}"
            return f"{start}  {visible(text) if hit is None else self._marked(text)}".rstrip()
        moment = "-" if hit is None else rfc3339(hit.at)
        name = visible(of_session.name or of_session.session_id)
        return f"{name}  {moment}  {text}"

    def _marked(self, text: str) -> str:
        """Return a line with its matches in colour."""
        if self._spans is None:
            return visible(text)
        parts, end = [], 0
        for start, stop in self._spans(text):
            parts += [visible(text[end:start]), _MATCH, visible(text[start:stop]), _PLAIN]
            end = stop
        return "".join((*parts, visible(text[end:])))


def _blocks(hits: list[Hit]) -> Iterator[list[tuple[Hit | None, str]]]:
    """Yield the lines to print, oldest first: hits and the lines around them, those that touch in one block."""
    block: dict[int, tuple[Hit | None, str]] = {}
    low = high = 0  # the block's first and last line: looked for in it, each of a million hits would look at all others
    for hit in hits:
        first = hit.line - len(hit.before)
        if block and (hit.source == "screen" or not low <= first <= high + 1):
            yield [block[number] for number in sorted(block)]
            block = {}
        if hit.source == "screen":
            yield [*((None, text) for text in hit.before), (hit, hit.text), *((None, text) for text in hit.after)]
            continue
        around = {first + index: text for index, text in enumerate((*hit.before, hit.text, *hit.after))}
        low, high = (low, max(high, *around)) if block else (first, max(around))
        for number, text in around.items():
            block.setdefault(number, (None, text))
        block[hit.line] = (hit, hit.text)
    if block:
        yield [block[number] for number in sorted(block)]


def _spans_of(wanted: p.HistorySearch) -> Callable[[str], list[tuple[int, int]]] | None:
    """Return what finds the matches in a line that fits; None where that is not known here."""
    query = wanted.query if wanted.regex else re.escape(wanted.query)
    letters = re.sub(r"\\.", "", wanted.query) if wanted.regex else wanted.query
    folds = wanted.case == "insensitive" or (wanted.case == "smart" and letters == letters.lower())
    try:
        expression = re.compile(query, re.IGNORECASE if folds else 0)
    except (re.error, RecursionError, OverflowError):
        return None
    if not wanted.regex:
        return lambda text: [found.span() for found in expression.finditer(text)]

    def first(text: str) -> list[tuple[int, int]]:
        # The first alone, of a whole line: it was found in time before. A search for the next, or in what is left of a
        # line that the daemon has cut, may take for ever.
        found = None if len(text) >= _CUT_CHARACTERS else expression.search(text)
        return [] if found is None or found.start() == found.end() else [found.span()]

    return first
