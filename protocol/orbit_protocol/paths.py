"""What may be written where a path is configured, which follows from another, and paths as text; no I/O."""

from __future__ import annotations

import os


def path_mistake(path: str, *, typed: bool = False) -> str:
    """Return why a path cannot be used as it is written; an empty string where it can.

    A path of the configuration or of a variable is read by several programs, each in a folder of its own: it is
    absolute, or begins with `~/`. What is typed as a flag may also be relative to the folder that it is typed in.
    Nothing else is expanded: a shell has done that, or nobody has.

    Args:
        path: As it is written.
        typed: Whether it was typed as a flag or an argument.

    Returns:
        What follows the name of the key, the variable or the flag in a sentence.
    """
    if "\0" in path:  # no system call takes one
        return "must not contain NUL"
    if not path:
        return "must not be empty"
    if path.endswith("/"):
        return f"must name a file, not a folder: {path}"
    if path.startswith(("/", "~/")):
        return ""
    if path.startswith(("~", "$", ":")):
        expanded = "; variables and homes of other users are not expanded" if path.startswith(("~", "$")) else ""
        return f"must be absolute or begin with `~/`{expanded}: {path}"
    return "" if typed else f"must be absolute or begin with `~/`: {path}"


def to_text(raw: bytes) -> str:
    r"""Return bytes as text: UTF-8 as it is, each other byte as `\xNN`, in lower case."""
    return raw.decode("utf-8", "backslashreplace")


def path_text(path: str | bytes) -> str:
    """Return a path, or another string that the operating system gave to Python, as text."""
    try:
        return to_text(os.fsencode(path))
    except UnicodeEncodeError:  # it came from elsewhere: with letters that the locale has not, or another surrogate
        return encodable(str(path))


def encodable(text: str) -> str:
    r"""Return text that may quote strings of the operating system as text that can be encoded, with `\xNN` for those.

    For messages, which mix such strings with words. A surrogate that stands for no byte is written as `\uNNNN`.
    """
    try:
        return text if text.isascii() else to_text(text.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()


def backups_folder(database: str) -> str:
    """Return the folder of a database's backups."""
    return os.path.join(os.path.dirname(database), "backups")
