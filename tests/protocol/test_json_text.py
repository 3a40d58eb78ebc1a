"""JSON as text: how deep it is nested, and raw JSON on one line."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orbit_protocol.framing import Line, LineFramer
from orbit_protocol.json_text import (
    MAX_LAYOUT_NESTING,
    MAX_NESTING,
    decode_any,
    is_nested_too_deep,
    one_line,
    replace_strings,
)
from orbit_protocol.jsonrpc import encode_request
from orbit_protocol.types import WorkspaceLayout

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=5), children, max_size=4),
    max_leaves=10,
)
BLANKS = st.text(" \t\r\n", max_size=3)


@st.composite
def spaced_json(draw: st.DrawFn) -> tuple[Any, bytes]:
    """A value, and its JSON with any blanks and newlines between the tokens."""
    value = draw(JSON)
    pieces: list[str] = []
    for piece in json.JSONEncoder(ensure_ascii=draw(st.booleans()), separators=(",", ":")).iterencode(value):
        pieces += [draw(BLANKS), piece]
    return value, "".join([*pieces, draw(BLANKS)]).encode()


def nested(depth: int, kind: str) -> bytes:
    opening, closing = {"lists": (b"[", b"]"), "objects": (b'{"a":', b"}"), "both": (b'[{"a":', b"}]")}[kind]
    each = depth // 2 if kind == "both" else depth
    odd = (b"[", b"]") if kind == "both" and depth % 2 else (b"", b"")
    return odd[0] + opening * each + b"1" + closing * each + odd[1]


@given(spaced_json())
def test_json_on_many_lines_becomes_one_of_the_same_value(case: tuple[Any, bytes]) -> None:
    """Newlines between tokens become blanks, those at the ends go, and every other byte stays."""
    value, text = case
    line = one_line(text)
    assert b"\n" not in line
    assert b"\r" not in line
    assert json.loads(line) == value
    assert line == text.strip(b" \t\r\n").translate(bytes.maketrans(b"\r\n", b"  "))


@given(st.binary(max_size=30) | st.text('[]{}",:\\ud8n1e.-\n ', max_size=30).map(str.encode))
def test_what_is_not_one_json_value_is_refused(text: bytes) -> None:
    """What is returned is one JSON value on one line; everything else is a ValueError of a single line."""
    try:
        line = one_line(text)
    except ValueError as error:
        line = json.dumps(str(error)).encode()
        printable = str(error).isprintable()
    else:
        printable = True
    json.loads(line)
    assert (printable, b"\n" in line) == (True, False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "not JSON: it is empty"),
        (b" \n", "not JSON: it is empty"),
        (b"{", "not JSON: it ends too early"),
        (b'{"a": 1}\n{"b": 2}\n', "not JSON: more follows the first value (line 2, column 1)"),
        (b'{"a": 1,\n "b" 2}', "not JSON: expected ':' (line 2, column 6)"),
        (b'{"a": 1},"method":"session.delete"', "not JSON: more follows the first value (line 1, column 9)"),
        ('["é" 1]'.encode(), "not JSON: expected ',' or ']' (line 1, column 6)"),
        (b'["\n"]', "not JSON: invalid character (line 1, column 3)"),
        (b'["\\ud800 lonely"]', "not JSON: unexpected end of hex escape (line 1, column 9)"),
        (b'"caf\xe9"', "not UTF-8 (line 1, column 5)"),
        (b'"\xed\xa0\x80"', "not UTF-8 (line 1, column 2)"),
        ('{"a": 1}'.encode("utf-16"), "not UTF-8 (line 1, column 1)"),
        (b"NaN", "not JSON: invalid character (line 1, column 1)"),
        (b"\x0b1", "not JSON: invalid character (line 1, column 1)"),
        (nested(513, "lists"), "nested deeper than 512"),
    ],
)
def test_a_refusal_says_what_and_where(text: bytes, message: str) -> None:
    """The error names the kind of fault, and its line and column."""
    with pytest.raises(ValueError, match=r".") as raised:
        one_line(text)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    "text",
    [
        b'{"b": 1.0,  "a": 1e400, "b": -0.0E-0}',
        b"9" * 5000,
        b'"\\ud83d\\ude00\\u00e9"',
        '"\u2028\x7f\u202e"'.encode(),
        b'"\\n\\r"',
        nested(512, "both"),
    ],
)
def test_json_on_one_line_stays_to_the_letter(text: bytes) -> None:
    """Spelling of numbers, escapes, order and doubled keys are nobody's business."""
    assert one_line(text) == one_line(b"\xef\xbb\xbf\r\n" + text + b"\r\n") == text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b'{"a":[1,2.5,true,null,"x"]}', {"a": [1, 2.5, True, None, "x"]}),
        (b'[1e400,-1E999,1,2.5,"1e400"]', ["1e400", "-1E999", 1, 2.5, "1e400"]),
        (b"[" + b"9" * 5000 + b",7]", ["9" * 5000, 7]),
    ],
)
def test_any_json_is_decoded(text: bytes, value: object) -> None:
    """A number that is too large becomes its text."""
    assert decode_any(text) == value


@pytest.mark.parametrize("kind", ["lists", "objects", "both"])
def test_nesting_has_a_limit(kind: str) -> None:
    """512 levels pass and 513 do not."""
    assert MAX_NESTING == 512
    assert not is_nested_too_deep(nested(512, kind))
    assert is_nested_too_deep(nested(513, kind))
    assert is_nested_too_deep(b'{"id":1,"x":' + nested(600, kind) + b"}")
    assert is_nested_too_deep(b"[" + nested(600, kind)[:-400])  # without its end
    assert not is_nested_too_deep(b"[" + b",".join([nested(511, kind)] * 20) + b"]")


@pytest.mark.parametrize(
    "text",
    [
        b'"' + b"[" * 2000 + b'"',
        b'"\\"' + b"[" * 2000 + b'"',
        b'["\\\\", "' + b"{" * 2000 + b'\\\\\\""]',
        b'"' + b"[" * 2000,
        b"[" + b"[],{}," * 2000 + b"[]]",
    ],
    ids=["string", "quote in a string", "backslashes", "string without end", "flat"],
)
def test_only_brackets_inside_each_other_count(text: bytes) -> None:
    """Brackets in strings do not nest, and neither do those that stand beside each other."""
    assert not is_nested_too_deep(text)


@given(st.lists(st.sampled_from(["[", "]", "{", "}", '"', "\\", "a", "[" * 30, "]" * 20, '"["', "é"]), max_size=200))
def test_nesting_is_what_a_reader_of_each_character_finds(pieces: list[str]) -> None:
    """Over random brackets and strings, broken ones too, the depth is what a reader of each character finds."""
    text = "".join(pieces)
    depth = deepest = 0
    in_string = escaped = False
    for character in text:
        if in_string:
            in_string = escaped or character != '"'
            escaped = not escaped and character == "\\"
        elif character == '"':
            in_string = True
        elif character in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]}":
            depth -= 1
    for limit in (1, 10, 100):
        assert is_nested_too_deep(text.encode(), limit) == (deepest > limit)


def test_a_decoder_has_room_for_the_limit_on_a_small_stack() -> None:
    """512 levels are decoded, skipped and encoded on a C stack of 256 KiB, in the main thread and in another."""
    script = """
import msgspec, threading
def work():
    for text in (b"[" * 512 + b"]" * 512, b'{"a":' * 512 + b"1" + b"}" * 512):
        msgspec.json.encode(msgspec.json.decode(text))
        msgspec.json.decode(text, type=msgspec.Raw)
work()
threading.stack_size(256 * 1024)
thread = threading.Thread(target=work)
thread.start()
thread.join()
print("done")
"""
    command = ["bash", "-c", 'ulimit -s 256; exec "$0" -c "$1"', sys.executable, script]
    ended = subprocess.run(command, capture_output=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, b"done\n")


def test_raw_params_are_one_value_on_one_line() -> None:
    """Params given as JSON cannot end early, nor hold a message on a line of their own."""
    smuggled = b'{"a": [\n{"jsonrpc":"2.0","method":"daemon.shutdown"}\n]}\n'
    for params in (msgspec.Raw(smuggled), {"a": msgspec.Raw(smuggled)}):
        (line,) = LineFramer(1 << 20).receive(encode_request("m", params, 1))
        assert isinstance(line, Line)
        assert json.loads(line.data)["method"] == "m"
    for broken in (b'{}, "method": "daemon.shutdown"', b"{}\n{}", b'"\xff"', b"", nested(513, "lists")):
        with pytest.raises(ValueError, match=r"."):
            encode_request("m", msgspec.Raw(broken), 1)
    with pytest.raises(ValueError, match="not JSON"):
        encode_request("m", [msgspec.Raw(b'1], "method": "x", "params": [2')])


@pytest.mark.parametrize("kind", ["lists", "objects"])
def test_a_layout_leaves_room_for_the_messages_around_it(kind: str) -> None:
    """A layout is nested 500 deep at most, so that a batch of lists that hold it stays below the limit of a message."""
    layout = WorkspaceLayout(layout_type="x", config=msgspec.Raw(nested(MAX_LAYOUT_NESTING, kind)))
    assert not is_nested_too_deep(msgspec.json.encode([{"result": {"workspaces": [{"layout": layout}]}}]))
    with pytest.raises(ValueError, match="`config` is nested deeper than 500"):
        WorkspaceLayout(layout_type="x", config=msgspec.Raw(nested(MAX_LAYOUT_NESTING + 1, kind)))


@given(JSON, st.dictionaries(st.text(max_size=2), st.text(max_size=2), max_size=3), st.booleans())
def test_strings_are_replaced_wherever_they_stand(value: Any, replacements: dict[str, str], escapes: bool) -> None:
    """Replacing in the text is replacing in the value, with letters or their escapes; names of members too."""

    def replaced(part: Any) -> Any:
        if isinstance(part, str):
            return replacements.get(part, part)
        if isinstance(part, list):
            return [replaced(each) for each in part]
        if isinstance(part, dict):
            return [[replaced(name), replaced(each)] for name, each in part.items()]
        return part

    raw = json.dumps(value, ensure_ascii=escapes).encode()
    found = json.loads(replace_strings(raw, replacements), object_pairs_hook=lambda pairs: [list(p) for p in pairs])
    assert found == replaced(value)
    assert replace_strings(raw, {"no such string": "x"}) == raw


def test_all_else_stays_to_the_letter() -> None:
    """Blanks, numbers, escapes and strings that merely hold the text stay as they are written."""
    raw = rb'{ "a" :1.0e3,"b":"\u0061", "c":"aa","d":"\"a\"",  "e":"\u00e9" , "\\":["a" ]}'
    expected = rb'{ "xy" :1.0e3,"b":"xy", "c":"aa","d":"\"a\"",  "e":"\u00e9" , "\\":["xy" ]}'
    assert replace_strings(raw, {"a": "xy"}) == expected


def test_replacing_takes_time_that_grows_with_the_text_alone() -> None:
    """Megabytes of short strings, and one without an end, are read once."""
    assert replace_strings(b"[" + b'"a",' * 300_000 + b'"b"]', {"b": "c"}).endswith(b'"a","c"]')
    assert replace_strings(b'"' + rb"\\" * 500_000, {"b": "c"}) == b'"' + rb"\\" * 500_000
