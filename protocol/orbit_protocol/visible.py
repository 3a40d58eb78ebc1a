"""Text on its way to a person's terminal: what a terminal could obey is written as an escape.

Names, titles, commands, paths and the errors about them may hold control sequences (ECMA-48) and characters that
change the order of what is read (Unicode Standard Annex 9).
"""

from __future__ import annotations

_BIDI = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_LINES_AND_MARKS = (0x2028, 0x2029, 0xFEFF)
_WIDE = {code: f"\\u{code:04x}" for code in (*_BIDI, *_LINES_AND_MARKS)}
_ESCAPES = {
    **{code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))},
    ord("\n"): "\\n",
    ord("\r"): "\\r",
    ord("\t"): "\\t",
    **{0xDC00 + byte: f"\\x{byte:02x}" for byte in range(0x80, 0x100)},  # bytes that are not UTF-8 (PEP 383)
    **_WIDE,
}
# Blanks between JSON's tokens stay; in a string none of the three stands unescaped (RFC 8259, 7).
_JSON_ESCAPES = {
    **{code: f"\\u{code:04x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\t\n\r"},
    **_WIDE,
}


def seconds(span: float) -> str:
    """Return a number of seconds as people read it, without a tail of digits or an exponent: `0.25 s`, `90 s`."""
    digits = 3 if span < 1 else 2 if span < 10 else 1 if span < 100 else 0
    rounded = f"{span:.{digits}f}"
    if "." in rounded:
        rounded = rounded.rstrip("0").rstrip(".")
    return "less than 0.001 s" if rounded == "0" and span > 0 else f"{rounded} s"


def visible(text: str) -> str:
    """Return `text` with every character that a terminal could obey, and every lone surrogate, as an escape."""
    if text.isascii() and text.isprintable():
        return text
    return text.translate(_ESCAPES).encode(errors="backslashreplace").decode()


def visible_json(raw: bytes) -> bytes:
    """Return JSON of the same value that a terminal obeys nowhere: such characters become JSON's own escapes."""
    text = raw.decode(errors="replace")
    return raw if text.isascii() and text.isprintable() else text.translate(_JSON_ESCAPES).encode()
