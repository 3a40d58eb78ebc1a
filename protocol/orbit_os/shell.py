"""Commands as text that a person can type: in hints, remedies and messages."""

from __future__ import annotations

import os
from collections.abc import Sequence


def command_line(words: Sequence[str]) -> str:
    """Return a program and its arguments as one line that a shell takes apart again."""
    return " ".join(map(_word, words))


def typed(command: str, *arguments: str, options: str = "") -> str:
    """Return a command with arguments as a shell takes them, whatever they hold.

    Args:
        command: The program and its subcommands, as they are.
        arguments: Positional ones, such as a session's name or a path.
        options: Options, as they are; they stand last where they can.
    """
    words = command_line(arguments)
    if any(argument.startswith("-") for argument in arguments):
        return " ".join(filter(None, (command, options, "--", words)))
    return " ".join(filter(None, (command, words, options)))


def _word(word: str) -> str:
    r"""Return a word, quoted if it has to be.

    Control characters, what reorders text, and bytes that are not UTF-8 stand as `\NNN` in `$'...'` (POSIX.1-2024,
    2.2.4, and bash, zsh and ksh long before), since what is printed may not hold them.
    """
    import shlex  # here: hints are rare

    try:
        text = os.fsencode(word).decode()  # in a locale that is not UTF-8, Python has surrogates for bytes that are
    except UnicodeError:
        text = word
    if text.isprintable():
        return shlex.quote(text)
    data = text.encode("utf-8", "surrogateescape")
    plain = (chr(byte) if 0x20 <= byte < 0x7F and byte not in b"'\\" else f"\\{byte:03o}" for byte in data)
    return f"$'{''.join(plain)}'"
