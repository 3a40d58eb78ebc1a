"""Commands to type: a shell takes them apart into the words that were meant."""

from __future__ import annotations

import os
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orbit_os.shell import command_line, typed

SPECIAL = [
    "plain",
    "",
    "two words",
    "$(touch x)",
    "`touch x`",
    "a'b",
    'a"b',
    "a\\b",
    "!!",
    "*",
    "~",
    "#",
    "日本 é",
    "=x",
]
CONTROLS = ["a\nb", "\x1b[2Jq'\\", "\u202egpj", "caf\udce9", "\x7f1", "\x011"]


def words_of(line: str) -> list[str]:
    """Return the words that bash makes of a line."""
    printed = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {line}"],
        capture_output=True,
        check=True,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    ).stdout
    return [os.fsdecode(word) for word in printed.split(b"\0")[:-1]]


@pytest.mark.parametrize("word", SPECIAL + CONTROLS)
def test_a_shell_takes_the_word_that_is_meant(word: str) -> None:
    """Nothing is carried out, expanded or split, and nothing in it could steer the terminal that shows it."""
    line = command_line(["orbitctl", word])
    assert words_of(line) == ["orbitctl", word]
    assert line.isprintable()


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), max_size=20))
def test_words_come_back_from_a_shell(words: list[str]) -> None:
    """Any text."""
    assert words_of(command_line(["x", *words])) == ["x", *words]


def test_what_needs_no_quotes_has_none() -> None:
    """A usual command is shown as everybody types it."""
    assert typed("orbitctl session start", "web-1") == "orbitctl session start web-1"
    assert typed("chmod 600", "/home/ada/x.db") == "chmod 600 /home/ada/x.db"


@pytest.mark.parametrize("name", ["-x", "--help", "-"])
def test_an_argument_is_never_an_option(name: str) -> None:
    """What begins with a dash stands behind the end of the options."""
    assert typed("orbitctl session start", name) == f"orbitctl session start -- {name}"
    assert typed("orbitctl session screen", name, options="-q") == f"orbitctl session screen -q -- {name}"
    assert typed("orbitctl session screen", "web", options="-q") == "orbitctl session screen web -q"
