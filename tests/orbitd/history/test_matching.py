"""Which lines fit a query: plain, folded, and regular expressions that are searched in three ways."""

from __future__ import annotations

import re
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orbitd.history.matching import BadQuery, Matcher, required_literal

TEXT = "Error: one\n\nno error here\nStraße 5\nkelvin \u212a\nerror\n"


def lines(
    query: str, *, regex: bool = False, case: Literal["smart", "sensitive", "insensitive"] = "smart"
) -> list[int]:
    return Matcher(query, regex=regex, case=case).find(TEXT.encode())


@pytest.mark.parametrize(
    ("query", "how", "expected"),
    [
        ("error", {}, [0, 2, 5]),
        ("Error", {}, [0]),
        ("error", {"case": "sensitive"}, [2, 5]),
        ("ERROR", {"case": "insensitive"}, [0, 2, 5]),
        ("STRASSE", {"case": "insensitive"}, []),  # letters of ASCII fit letters of ASCII only
        ("straße", {}, [3]),
        ("STRAßE", {"case": "insensitive"}, [3]),
        ("\0", {}, []),
        ("\ud800", {"case": "sensitive"}, []),
        ("?", {}, []),
        ("^error", {"regex": True}, [0, 5]),
        ("^$", {"regex": True}, [1]),
        ("r$", {"regex": True}, [5]),
        (r"one\s+error", {"regex": True}, []),
        (r"one\s+no", {"regex": True}, []),
        (r"[^a-z]$", {"regex": True}, [3]),
        (r"\Aerror\Z", {"regex": True}, [5]),
        (r"(?s)one.*", {"regex": True}, [0]),
        (r"error(?!\s)", {"regex": True}, [0, 5]),
        (r"\S+ E", {"regex": True}, []),
        ("k", {"regex": True}, [4]),
        ("", {"regex": True}, [0, 1, 2, 3, 4, 5]),
    ],
)
def test_lines_that_fit(query: str, how: dict[str, Any], expected: list[int]) -> None:
    """Plain text and expressions fit lines, one at a time, in the case that was asked for."""
    assert lines(query, **how) == expected


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("(", "`query` is no regular expression: missing ), unterminated subpattern at character 1"),
        ("ab[", "`query` is no regular expression: unterminated character set at character 3"),
        ("a{99999999999999999999}", "`query` is too complicated a regular expression"),
        ("(" * 4000, "`query` is too complicated a regular expression"),
        ("a\nb", "`query` has a line break, and lines are searched one by one"),
    ],
)
def test_a_query_that_is_none_says_where(query: str, message: str) -> None:
    """What is no expression, or fits no line, is refused with the place."""
    with pytest.raises(BadQuery) as refused:
        Matcher(query, regex=True, case="smart")
    assert str(refused.value) == message


_PARTS = [
    "a",
    "b",
    "A",
    ".",
    "^",
    "$",
    "|",
    "(",
    ")",
    "[ab]",
    "[^a]",
    "[",
    "]",
    "*",
    "+",
    "?",
    "{2}",
    "{0}",
    "{",
    "(?:",
]
_PARTS += ["(?i)", "(?=", r"\s", r"\w", r"\b", r"\B", r"\.", r"\n", r"\Z", r"\[", r"\1", "-", "ü", " ", "\t", "\\"]
_EXPRESSIONS = st.lists(st.sampled_from([*_PARTS, "\u212a"]), min_size=1, max_size=8).map("".join)


@given(
    _EXPRESSIONS, st.text(alphabet="aAbB. ü\u212a[k\t\n", max_size=40), st.sampled_from(["sensitive", "insensitive"])
)
def test_every_way_to_search_finds_the_lines_that_each_line_alone_fits(query: str, text: str, case: str) -> None:
    """Whole pieces, literals and lines give what Python's `re` says of each line alone."""
    try:
        matcher = Matcher(query, regex=True, case=case)  # type: ignore[arg-type]
    except BadQuery:
        return
    expression = re.compile(query, re.MULTILINE | (re.IGNORECASE if case == "insensitive" else 0))
    expected = [number for number, line in enumerate(text.split("\n")) if expression.search(line)]
    assert matcher.find(f"{text}\n".encode()) == expected


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        (r"err[a-z]+ zz", "err"),
        (r"\.py:\d+", ".py:"),
        ("abc?d", "ab"),
        ("(foo)?baz", "baz"),
        ("foo|bar", ""),
        (r"\x41bc", ""),
        ("(?i)abc", ""),
        (r"a\(b", "a(b"),
        ("x{2,}yy", "yy"),
    ],
)
def test_the_literal_of_an_expression(expression: str, expected: str) -> None:
    """Only what surely stands in a match is a literal."""
    assert required_literal(expression) == expected
