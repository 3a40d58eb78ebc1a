"""What may steer a terminal is written as an escape, in text and in JSON."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orbit_protocol.visible import seconds, visible, visible_json

BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
STEERING = st.sampled_from([*map(chr, range(0x20)), *map(chr, range(0x7F, 0xA0)), *BIDI, "\u2028", "\u2029", "\ufeff"])


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("plain", "plain"),
        ("日本 é", "日本 é"),
        ("\x1b[2J", "\\x1b[2J"),
        ("a\nb\tc\r", "a\\nb\\tc\\r"),
        ("\x7f\x9b31m", "\\x7f\\x9b31m"),
        ("\u202egpj", "\\u202egpj"),
        ("a\u2028b", "a\\u2028b"),
        (BIDI, "".join(f"\\u{ord(one):04x}" for one in BIDI)),
        ("caf\udce9", "caf\\xe9"),
        ("\ud800", "\\ud800"),
    ],
)
def test_what_steers_a_terminal_is_made_visible(raw: str, shown: str) -> None:
    """Controls and reordering marks are written as escapes; other letters stay."""
    assert visible(raw) == shown


@pytest.mark.parametrize(
    ("span", "words"),
    [
        (0.9999956970000312, "1 s"),
        (0, "0 s"),
        (0.1, "0.1 s"),
        (0.25, "0.25 s"),
        (0.0004, "less than 0.001 s"),
        (1e-300, "less than 0.001 s"),
        (1.0, "1 s"),
        (2.345678, "2.35 s"),
        (9.999, "10 s"),
        (30.0, "30 s"),
        (59.96, "60 s"),
        (100.4, "100 s"),
        (3600.0, "3600 s"),
        (31_536_000.0, "31536000 s"),
    ],
)
def test_seconds_are_rounded(span: float, words: str) -> None:
    """No tail of digits, no exponent, and no zero for what is not zero."""
    assert seconds(span) == words


def is_harmless(shown: str) -> bool:
    """Return whether a terminal only shows it: no control, no separator of lines, no bidirectional control."""
    return not any(
        unicodedata.category(one) in ("Cc", "Cs", "Zl", "Zp")
        or unicodedata.bidirectional(one) in ("LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI")
        or one in BIDI
        for one in shown
    )


@given(st.text(st.characters() | STEERING, max_size=30))
def test_nothing_steers_a_terminal(text: str) -> None:
    """Of any text nothing but letters, marks and blanks is left, and it can be encoded."""
    shown = visible(text)
    assert is_harmless(shown)
    assert visible(shown) == shown
    shown.encode()


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]) | STEERING, max_size=8), st.text(STEERING)))
def test_json_on_a_terminal_is_the_same_json(value: dict[str, str]) -> None:
    """The value stays, and nothing of it steers the terminal, also where a daemon sends controls unescaped."""
    for raw in (json.dumps(value), json.dumps(value, ensure_ascii=False), json.dumps(value, indent=1)):
        shown = visible_json(raw.encode()).decode()
        assert json.loads(shown) == value
        assert is_harmless(shown.replace("\n", ""))
    controls = "".join(chr(code) for code in range(0x20) if chr(code) not in "\t\n\r")
    assert json.loads(visible_json(f'"{controls}"'.encode())) == controls
    assert visible_json(b'{"a": "\xff"}') == '{"a": "\ufffd"}'.encode()
