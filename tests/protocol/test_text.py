"""Bytes of the operating system as text and back, and the companion fields of params and types."""

from __future__ import annotations

import base64
import json
import os
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, Raw

from orbit_protocol.jsonrpc import encode_message
from orbit_protocol.params import Backup, SessionAttach, SessionStart
from orbit_protocol.text import (
    decoded_message,
    encodable,
    from_text,
    pairs_from_text,
    pairs_to_text,
    path_text,
    text_and_bytes,
    to_text,
)
from orbit_protocol.types import MAX_COMMAND_LENGTH, MAX_PATH_LENGTH, Session, SessionConfig, SessionConfigInput

WORDS = st.binary(max_size=40)
NAMES = WORDS.map(lambda raw: raw.replace(b"\0", b"").replace(b"=", b"")).filter(bool)
VALUES = WORDS.map(lambda raw: raw.replace(b"\0", b""))
PATHS = VALUES.map(lambda raw: b"/" + raw)


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def is_utf8(raw: bytes) -> bool:
    return to_text(raw).encode() == raw


def config_of(**fields: Any) -> SessionConfigInput:
    """Return a config as it is after the wire."""
    raw = json.dumps({"session_type": "local", **fields})
    return msgspec.json.decode(raw, type=SessionConfigInput)


@given(st.binary())
def test_bytes_survive_as_text_with_their_companion(raw: bytes) -> None:
    """Text is always encodable, and gives the bytes back; only bytes that are not UTF-8 have a companion."""
    text, companion = text_and_bytes(raw)
    assert from_text(text, companion) == raw
    assert text == to_text(raw)
    text.encode()
    assert (companion is UNSET) == is_utf8(raw)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"caf\xe9", r"caf\xe9"),
        (b"\xff\xfe", r"\xff\xfe"),
        ("café".encode(), "café"),
        (b"\xed\xa0\x80", r"\xed\xa0\x80"),  # a surrogate is not UTF-8 (RFC 3629, section 3)
        (b"\xc3", r"\xc3"),
        (rb"\xe9", r"\xe9"),
    ],
)
def test_each_byte_that_is_not_utf8_is_escaped(raw: bytes, text: str) -> None:
    """UTF-8 stays as it is, each other byte is a backslash, x and two lower-case digits."""
    assert to_text(raw) == text


@given(st.lists(st.tuples(NAMES, VALUES), max_size=8))
def test_an_environment_survives_whole(pairs: list[tuple[bytes, bytes]]) -> None:
    """One variable that is not UTF-8 sends all of them as bytes too; of two values the later one counts."""
    text, companion = pairs_to_text(pairs)
    assert pairs_from_text(text, companion) == dict(pairs)
    assert (companion is UNSET) == all(is_utf8(each) for pair in dict(pairs).items() for each in pair)


@given(st.text(st.characters(), max_size=40) | WORDS.map(os.fsdecode))
def test_messages_that_quote_the_system_can_be_encoded(text: str) -> None:
    """Whatever is in a message or a path, surrogates of any kind too, its text can be encoded."""
    encodable(text).encode()
    path_text(text).encode()


@given(WORDS)
def test_a_path_of_python_is_its_bytes(raw: bytes) -> None:
    """os.fsdecode's surrogates are the bytes that they stand for."""
    assert path_text(os.fsdecode(raw)) == encodable(os.fsdecode(raw)) == to_text(raw)


def test_an_answer_that_quotes_the_system_is_encoded() -> None:
    """A path anywhere in a message is escaped; raw JSON, bytes and numbers stay what they are."""
    message = {"a\udce9": ["x\udcff", 1, None], "raw": Raw(b'{"b": 2.5}'), "bytes": b"\xff", "text": "é"}
    assert json.loads(encode_message(message)) == {
        r"a\xe9": [r"x\xff", 1, None],
        "raw": {"b": 2.5},
        "bytes": "/w==",
        "text": "é",
    }


def test_what_was_typed_is_utf8_or_refused() -> None:
    """Bytes of the command line that are UTF-8 are text whatever the locale; others are an error."""
    assert decoded_message({"name": "caf\udcc3\udca9"}) == {"name": "café"}
    with pytest.raises(UnicodeError):
        decoded_message({"name": "caf\udce9"})


@given(command=VALUES, cwd=PATHS, env=st.lists(st.tuples(NAMES, VALUES), max_size=4))
def test_a_config_keeps_its_bytes(command: bytes, cwd: bytes, env: list[tuple[bytes, bytes]]) -> None:
    """A config given in bytes comes back from JSON with the same bytes, and with text for each."""
    config = SessionConfig(session_type="local", command_bytes=command, cwd_bytes=cwd, env_bytes=env)
    again = msgspec.json.decode(msgspec.json.encode(config), type=SessionConfig)
    assert again == config
    assert (again.command, again.cwd) == (to_text(command), to_text(cwd))
    assert from_text(again.command or "", again.command_bytes) == command
    assert from_text(again.cwd or "", again.cwd_bytes) == cwd
    assert pairs_from_text(again.env, again.env_bytes) == dict(env)


def test_bytes_win_over_the_text_beside_them() -> None:
    """The text is ignored where the bytes are given, and set from them; bytes that are UTF-8 leave the text alone."""
    config = config_of(
        command="rm -r x",
        command_bytes=b64(b"ls caf\xe9"),
        cwd="no path",
        cwd_bytes=b64("/café".encode()),
        env={"A": "text"},
        env_bytes=[[b64(b"B"), b64(b"\xff")]],
    )
    assert (config.command, config.command_bytes) == (r"ls caf\xe9", b"ls caf\xe9")
    assert (config.cwd, config.cwd_bytes) == ("/café", UNSET)
    assert (config.env, config.env_bytes) == ({"B": r"\xff"}, [(b"B", b"\xff")])


def test_null_is_absent() -> None:
    """A companion that is null is none at all; without companions a config is the JSON that it always was."""
    config = config_of(command="ls", command_bytes=None, cwd="/", cwd_bytes=None, env={"A": "b"}, env_bytes=None)
    assert config == config_of(command="ls", cwd="/", env={"A": "b"})
    assert not any(name.endswith("_bytes") for name in json.loads(msgspec.json.encode(config)))


@pytest.mark.parametrize(
    "fields",
    [
        {"cwd_bytes": b64(b"caf\xe9")},
        {"cwd_bytes": b64(b"")},
        {"cwd_bytes": b64(b"/\xe9\0")},
        {"command_bytes": b64(b"\xe9\0")},
        {"command_bytes": "no base64"},
        {"env_bytes": [[b64(b""), b64(b"\xe9")]]},
        {"env_bytes": [[b64(b"\xe9=b"), b64(b"")]]},
        {"env_bytes": [[b64(b"\xe9"), b64(b"\0")]]},
        {"env_bytes": [[b64(b"\xe9\0"), b64(b"")]]},
        {"env_bytes": [[b64(b"\xe9")]]},
        {"env_bytes": {"A": "b"}},
    ],
)
def test_bytes_are_checked_as_text_is(fields: dict[str, Any]) -> None:
    """Relative folders, NULs, empty names and `=` in names are refused in bytes too."""
    with pytest.raises(msgspec.ValidationError):
        config_of(**fields)
    if "env_bytes" in fields:
        with pytest.raises(msgspec.ValidationError):
            msgspec.json.decode(json.dumps({"id": "x", **fields}), type=SessionStart)


@pytest.mark.parametrize(
    ("field", "longest", "first"), [("command", MAX_COMMAND_LENGTH, b"x"), ("cwd", MAX_PATH_LENGTH, b"/")]
)
def test_lengths_have_a_bound(field: str, longest: int, first: bytes) -> None:
    """Text and bytes of the greatest length come back from JSON, and one more is refused, in either."""
    raw = first + b"\xff" * (longest - 1)
    config = config_of(**{f"{field}_bytes": b64(raw)})
    again = msgspec.json.decode(msgspec.json.encode(config), type=SessionConfig)
    assert getattr(again, field) == getattr(config, field) == to_text(raw)
    assert getattr(again, f"{field}_bytes") == raw
    assert len(getattr(config_of(**{field: "/" * longest}), field)) == longest
    for fields in ({f"{field}_bytes": b64(raw + b"\xff")}, {field: "/" * (longest + 1)}):
        with pytest.raises(msgspec.ValidationError):
            config_of(**fields)


def test_an_environment_has_a_bound() -> None:
    """Ten thousand variables are taken, in bytes as in text, and one more is refused."""
    most = [[b64(b"%d" % number), b64(b"\xe9")] for number in range(10_000)]
    assert len(config_of(env_bytes=most).env or ()) == 10_000
    with pytest.raises(msgspec.ValidationError):
        config_of(env_bytes=[*most, [b64(b"more"), ""]])


@pytest.mark.parametrize("params", [SessionStart(id="x"), SessionAttach(id="x", cols=80, rows=24)])
def test_a_start_sends_one_form_of_its_environment(params: SessionStart | SessionAttach) -> None:
    """An environment that is UTF-8 is sent as text, which every daemon knows, and another one in bytes alone."""
    for pairs, field in (([(b"A", "é".encode())], "env"), ([(b"A", b"\xe9"), (b"B", b"b")], "env_bytes")):
        sent = json.loads(msgspec.json.encode(msgspec.structs.replace(params, env_bytes=pairs)))
        assert [name for name in sent if name.startswith("env")] == [field]
        assert msgspec.convert(sent, type(params)).environment == dict(pairs)
    assert params.environment is None


@given(PATHS)
def test_a_backup_goes_where_it_was_asked_to(path: bytes) -> None:
    """A path that is not UTF-8 is the file of its bytes."""
    params = msgspec.json.decode(msgspec.json.encode(Backup(path="", path_bytes=path)), type=Backup)
    assert os.fsencode(params.file) == path


def test_absent_companions_are_not_in_a_session() -> None:
    """The description of a Session says that its folder's bytes may be missing, and that they are base64."""
    schema = msgspec.json.schema(Session)["$defs"]["Session"]
    assert schema["properties"]["cwd_bytes"] == {"type": "string", "contentEncoding": "base64"}
    assert "cwd_bytes" not in schema["required"]
