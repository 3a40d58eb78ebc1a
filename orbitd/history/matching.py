"""Which lines of a piece of text fit a query. No I/O.

A piece is UTF-8 whose lines all end with a line feed. It is searched as a whole wherever that finds the same lines as a
look at each one, since a call for each of a million lines takes longer than all the rest.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from typing import AnyStr, Literal

_SAFE = re.compile(r"(?:[^\\\x00-\x1f(\[]|\[(?!\^)|\((?!\?)|\(\?:|\\[dwSb]|\\[^\w\s])*")
"""Regular expressions that neither match nor look at a line feed, so that a match in a text is one in a line. Not all
of those: what is not sure is searched line by line."""

_PART = re.compile(
    r"""
    (?: (?P<open> \( (?:\?: | (?!\?)) ) | (?P<close> \) )
      | \[ \^? \]? (?: [^\\\]] | \\. )* \] | \\[dwsDWSbB] | [.^$]
      | \\ (?P<escaped> [^\w\s] ) | (?P<plain> [^\\\[\](){}|.^$*+?\x00-\x1f] )
    )
    (?P<quantifier> [*?+][?+]? | \{ [^}]* \} [?+]? )?
    """,
    re.VERBOSE,
)
"""A part of a regular expression whose meaning is plain: anything else ends the search for a literal."""

_ESCAPED = re.compile(r"\\.", re.DOTALL)


class BadQuery(Exception):
    """The query is no regular expression, or can fit no line; the text says why."""


class Matcher:
    """A query, ready to be searched for.

    Args:
        query: Plain text, or a regular expression.
        regex: Whether it is one.
        case: Whether capital letters count; `smart`: where the query has any.

    Attributes:
        find: Returns the indexes of the lines of a piece that fit, from 0, ascending.

    Raises:
        BadQuery: It can be searched for nowhere.
    """

    def __init__(self, query: str, *, regex: bool, case: Literal["smart", "sensitive", "insensitive"]) -> None:
        if "\n" in query or "\r" in query:
            raise BadQuery("`query` has a line break, and lines are searched one by one")
        letters = _ESCAPED.sub("", query) if regex else query  # the S of \S is no capital letter
        folds = case == "insensitive" or (case == "smart" and letters == letters.lower())
        self.find: Callable[[bytes], list[int]]
        self._folded = ""
        self._expression: re.Pattern[str] | None = None
        if regex:
            self._expression = _compile(query, folds)
            self._literal = required_literal(query).encode("utf-8", "surrogatepass")
            self._is_safe = _SAFE.fullmatch(query) is not None
            self.find = self._find_expression
        elif not folds:
            self._raw = query.encode("utf-8", "surrogatepass")  # a lone surrogate stands in no text
            self._folded = query
            self.find = lambda piece: _lines_with(piece, self._raw, b"\n")
        else:
            self._folded = query.lower() if query.isascii() else query.casefold()
            self._raw = self._folded.encode("utf-8", "surrogatepass")
            self.find = self._find_ascii if query.isascii() else self._find_folded
        self._folds = folds

    def place(self, line: str) -> int:
        """Return about where in a line that fits the match is."""
        if self._expression is not None:
            found = self._expression.search(line)
            return 0 if found is None else found.start()
        text = line if not self._folds else line.lower() if self._folded.isascii() else line.casefold()
        return max(0, text.find(self._folded))

    def _find_ascii(self, piece: bytes) -> list[int]:
        return _lines_with(piece.lower(), self._raw, b"\n")

    def _find_folded(self, piece: bytes) -> list[int]:
        if piece.isascii() and not self._folded.isascii():
            return []
        return _lines_with(_text(piece).casefold(), self._folded, "\n")

    def _find_expression(self, piece: bytes) -> list[int]:
        # Letters outside of ASCII may fit some of it where case does not count, as the sign of the kelvin does.
        if self._literal and (piece.isascii() or not self._folds):
            return self._find_with_literal(piece)
        return self._find_safe(piece) if self._is_safe else self._find_by_line(piece)

    def _find_with_literal(self, piece: bytes) -> list[int]:
        assert self._expression is not None
        search = self._expression.search
        text, wanted = (piece.lower(), self._literal.lower()) if self._folds else (piece, self._literal)
        found: list[int] = []
        line = position = 0
        while (start := text.find(wanted, position)) != -1:
            line += text.count(b"\n", position, start)
            end = text.find(b"\n", start)
            if search(_text(piece[text.rfind(b"\n", 0, start) + 1 : end])):
                found.append(line)
            position = end + 1
            line += 1
        return found

    def _find_safe(self, piece: bytes) -> list[int]:
        assert self._expression is not None
        text, search = _text(piece), self._expression.search
        found: list[int] = []
        line = position = 0
        # Not at the end of the text: there is a place behind the last line feed, where `^` and `$` match.
        while position < len(text) and (match := search(text, position)) is not None:
            start = match.start()
            if start == len(text):
                break
            line += text.count("\n", position, start)
            found.append(line)
            position = text.find("\n", start) + 1
            line += 1
        return found

    def _find_by_line(self, piece: bytes) -> list[int]:
        assert self._expression is not None
        search = self._expression.search
        return [index for index, line in enumerate(_text(piece)[:-1].split("\n")) if search(line)]


def required_literal(expression: str) -> str:
    """Return the longest text that is surely in whatever a regular expression matches; "" if none is seen.

    It is found many times faster than the expression. Only what stands outside of all groups and classes counts.
    """
    longest = run = ""
    depth = position = 0
    while position < len(expression):
        if depth == 0 and expression[position] == "|":
            return ""
        found = _PART.match(expression, position)
        if found is None:
            return ""
        position = found.end()
        text, quantifier = found["escaped"] or found["plain"] or "", found["quantifier"]
        depth += (found["open"] is not None) - (found["close"] is not None)
        if depth == 0 and text and (quantifier is None or quantifier.startswith("+")):
            run += text
            longest = max(longest, run, key=len)
        if depth or not text or quantifier is not None:
            run = ""
    return longest


def _compile(query: str, folds: bool) -> re.Pattern[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return re.compile(query, re.MULTILINE | (re.IGNORECASE if folds else 0))
    except re.error as error:
        place = "" if error.pos is None else f" at character {error.pos + 1}"
        raise BadQuery(f"`query` is no regular expression: {error.msg}{place}") from error
    except (RecursionError, OverflowError, MemoryError, ValueError) as error:
        raise BadQuery("`query` is too complicated a regular expression") from error


def _text(piece: bytes) -> str:
    return piece.decode("utf-8", "replace")


def _lines_with(text: AnyStr, wanted: AnyStr, feed: AnyStr) -> list[int]:
    found: list[int] = []
    line = position = 0
    while (start := text.find(wanted, position)) != -1:
        line += text.count(feed, position, start)
        found.append(line)
        position = text.find(feed, start) + 1
        line += 1
    return found
