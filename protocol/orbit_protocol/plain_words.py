"""What msgspec says of a value that does not fit, as a sentence for people.

On the wire the words stay msgspec's, with the path of the field (`$.keep_last_n`): programs read them there.
"""

from __future__ import annotations

import re
from collections.abc import Callable

_TYPES = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "bytes": "base64 text",
    "datetime": "a time",
    "date": "a date",
    "time": "a time of day",
    "null": "null",
    "array": "a list",
    "object": "an object",
}
_UNITS = {"str": "characters", "bytes": "bytes", "array": "entries", "object": "entries"}
_BOUNDS = {">=": "{} or more", "<=": "{} or less", ">": "more than {}", "<": "less than {}"}
_LENGTHS = {">=": "at least {} {}", "<=": "at most {} {}", "": "{} {}"}
_TYPE = r"`(?P<type>[^`]+)`"
_SENTENCES: tuple[tuple[re.Pattern[str], Callable[[str, re.Match[str]], str]], ...] = tuple(
    (re.compile(pattern, re.DOTALL), sentence)
    for pattern, sentence in (
        (rf"Expected {_TYPE} of length >= 1", lambda field, _: f"{field} may not be empty"),
        (
            rf"Expected {_TYPE} of length (?P<sign>[<>]=|)\s?(?P<bound>\d+)(?:, got \d+)?",
            lambda field, m: f"{field} must have {_LENGTHS[m['sign']].format(m['bound'], _UNITS[m['type']])}",
        ),
        (
            rf"Expected {_TYPE} (?P<sign>[<>]=?) (?P<bound>\S+)",
            lambda field, m: f"{field} must be {_BOUNDS[m['sign']].format(m['bound'].removesuffix('.0'))}",
        ),
        (
            rf"Expected {_TYPE}, got `(?P<got>[^`]+)`",
            lambda field, m: f"{field} must be {_types(m['type'])}, not {_types(m['got'])}",
        ),
        (rf"Expected {_TYPE} with a timezone component", lambda field, _: f"{field} must have a time zone"),
        (r"Invalid enum value (?P<value>.*)", lambda field, m: f"{field} may not be {m['value']}"),
        (r"Invalid RFC3339 encoded datetime", lambda field, _: f"{field} is no time, as 2026-01-31T12:00:00Z is"),
        (r"Invalid base64 encoded string", lambda field, _: f"{field} is not base64"),
        (r"(?:Number|Integer value) out of range", lambda field, _: f"{field} is out of range"),
        (r"Input data was truncated", lambda _, __: "the JSON ends too early"),
    )
)
_WITH_PATH = re.compile(r"(?P<message>.*?)(?: - at `(?P<path>(?:key` in `)?\$[^`]*)`)?", re.DOTALL)
_OF_FIELD = re.compile(r"Object (?P<what>missing required|contains unknown) field `(?P<name>.*)`", re.DOTALL)
_MARKED = re.compile(r"`([^`]+)`")
_OURS = re.compile(r"`(?P<name>\w+)` (?P<rule>.*)", re.DOTALL)


def quoted(path: str) -> str:
    """Return how a field is named where it has no other name: in quotes."""
    return f"'{path}'"


def in_plain_words(message: str, name_of: Callable[[str], str] = quoted) -> str:
    """Return what msgspec, or a check of ours, says of a value as a sentence that names the field and the rule.

    Args:
        message: The text of a msgspec.ValidationError or DecodeError, or of a ValueError of a Struct of ours.
        name_of: Returns what a person calls the field at a path, such as `config.cwd`.
    """
    found = _WITH_PATH.fullmatch(message)
    assert found is not None
    words, path = found["message"], (found["path"] or "$").removeprefix("key` in `").removeprefix("$").lstrip(".")
    if of_field := _OF_FIELD.fullmatch(words):
        if of_field["what"] == "missing required":
            return f"{name_of((path + '.' + of_field['name']).lstrip('.'))} is missing"
        return f"there is no {name_of(of_field['name'])}{f' in {name_of(path)}' if path else ''}"
    field = (
        f"{'a value in ' if path.endswith('[...]') else ''}{name_of(path.removesuffix('[...]'))}" if path else "this"
    )
    for pattern, sentence in _SENTENCES:
        if of_value := pattern.fullmatch(words):
            return sentence(field, of_value)
    if ours := _OURS.fullmatch(words):
        # The check of a whole Struct names the field itself; the path is that of the Struct.
        words = f"{name_of((path + '.' + ours['name']).lstrip('.'))} {ours['rule']}"
    return _MARKED.sub(lambda found: name_of(found[1]) if found[1].isidentifier() else f"'{found[1]}'", words)


def _types(names: str) -> str:
    """Return `int | null` as "a whole number or null"."""
    return " or ".join(_TYPES.get(name, name) for name in names.split(" | "))
