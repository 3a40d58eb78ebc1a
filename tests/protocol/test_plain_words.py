"""What is said of a value that does not fit, in sentences for people."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orbit_protocol import params as p
from orbit_protocol.methods import METHODS
from orbit_protocol.plain_words import in_plain_words
from orbit_protocol.settings import Settings, SettingsError, parse_settings


@pytest.mark.parametrize(
    ("kind", "text", "sentence"),
    [
        (p.SessionCreate, '{"config":{"session_type":"local"},"name":""}', "'name' must have 1 to 256 characters"),
        (
            p.SessionCreate,
            '{"config":{"session_type":"local"},"name":7}',
            "'name' must be text or null, not a whole number",
        ),
        (p.SessionCreate, '{"config":{"session_type":"x"}}', "'config.session_type' may not be 'x'"),
        (p.SessionCreate, '{"config":{}}', "'config.session_type' is missing"),
        (p.SessionCreate, "{}", "'config' is missing"),
        (p.SessionCreate, '{"config":{"session_type":"local","x":1}}', "there is no 'x' in 'config'"),
        (
            p.SessionCreate,
            '{"config":{"session_type":"ssh"}}',
            "'config.host' is required where 'session_type' is 'ssh'",
        ),
        (p.SessionCreate, '{"config":{"session_type":"local","cwd":""}}', "'config.cwd' may not be empty"),
        (
            p.SessionCreate,
            '{"config":{"session_type":"local","env":{"a":1}}}',
            "a value in 'config.env' must be text, not a whole number",
        ),
        (p.ById, '{"id":"a","x":1}', "there is no 'x'"),
        (p.ById, f'{{"id":"{"x" * 257}"}}', "'id' must have at most 256 characters"),
        (p.ById, "[]", "this must be an object, not a list"),
        (p.CleanupSnapshots, '{"keep_last_n":0}', "'keep_last_n' must be 1 or more"),
        (p.CleanupSnapshots, '{"keep_last_n":1.5}', "'keep_last_n' must be a whole number, not a number"),
        (p.CleanupSnapshots, '{"keep_last_n":1e400}', "'keep_last_n' is out of range"),
        (p.SessionWait, '{"id":"a","timeout_secs":-1}', "'timeout_secs' must be 0 or more"),
        (p.SessionList, '{"status":[]}', "'status' may not be empty"),
        (p.SessionList, '{"status":["gone - at `$.x`"]}', "'status[0]' may not be 'gone - at `$.x`'"),
        (p.Archive, '{"terminated_before":"soon"}', "'terminated_before' is no time, as 2026-01-31T12:00:00Z is"),
        (p.Archive, '{"terminated_before":"2026-01-31T12:00:00"}', "'terminated_before' must have a time zone"),
        (p.SnapshotSave, '{"session_id":"a","terminal_buffer":"?"}', "'terminal_buffer' is not base64"),
        (p.Backup, '{"path":"x"}', "'path' must be an absolute path"),
        (p.ById, '{"id":', "the JSON ends too early"),
    ],
)
def test_a_sentence_names_the_field_and_the_rule(kind: Any, text: str, sentence: str) -> None:
    """Each check of msgspec's, and those of the Structs, become a sentence without types and paths of Python."""
    with pytest.raises(msgspec.DecodeError) as raised:
        msgspec.json.decode(text, type=kind)
    assert in_plain_words(str(raised.value)) == sentence


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda children: (
        st.lists(children, max_size=2) | st.dictionaries(st.text("ab`$. -", max_size=3), children, max_size=2)
    ),
    max_leaves=4,
)


def strange_params(kind: Any) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(st.sampled_from([*kind.__struct_fields__, "other"]), JSON, max_size=4)


@settings(suppress_health_check=[HealthCheck.too_slow])  # it measures time, which a busy machine has less of
@given(st.data())
def test_no_word_of_msgspec_is_left(data: st.DataObject) -> None:
    """Whatever stands in the params of any method, the sentence has neither msgspec's phrases nor its paths."""
    kind = data.draw(st.sampled_from([method.params for method in METHODS.values()] + [Settings]))
    fields = data.draw(strange_params(kind))
    try:
        msgspec.convert(fields, kind)
    except msgspec.ValidationError as error:
        sentence = in_plain_words(str(error).replace(repr(fields), ""))
        assert not sentence.startswith(("Expected", "Invalid", "Object"))
        assert "at `" not in sentence


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[session]\nauto_save_interval_secs = 0\n", "`session.auto_save_interval_secs` must be 1 or more, not 0"),
        (
            "[session]\nauto_save_interval_secs = 'x'\n",
            '`session.auto_save_interval_secs` must be a whole number, not text: "x"',
        ),
        (
            "[daemon]\nlog_level = 'loud'\n",
            '`daemon.log_level` must be "debug", "info", "warning" or "error", not "loud"',
        ),
        ("[history]\nrecord = 'none'\n", '`history.record` must be "full" or "screen", not "none"'),
        ("[history]\nrecord = 1\n", '`history.record` must be "full" or "screen", not 1'),
        ("[history]\nrecording_max_bytes = -1\n", "`history.recording_max_bytes` must be 0 or more, not -1"),
        (
            "[history]\ntotal_recording_bytes = '1 GiB'\n",
            '`history.total_recording_bytes` must be a whole number, not text: "1 GiB"',
        ),
        ("[history]\ntext_max_bytes = 1.5\n", "`history.text_max_bytes` must be a whole number, not a number: 1.5"),
        (
            f"[history]\nrecording_retention_secs = '{'x' * 100}'\n",
            f'`history.recording_retention_secs` must be a whole number, not text: "{"x" * 59}…',
        ),
        ("[history]\nrecording_max_byte = 1\n", "unknown key `recording_max_byte` in `history`"),
        ("[daemon]\nsocket_path = ''\n", "`daemon.socket_path` may not be empty"),
        ("daemon = 1\n", "`daemon` must be an object, not a whole number: 1"),
        ("[sesion]\n", "unknown key `sesion`"),
        ('[session]\ndatabase_path = "/a\\u0000b"\n', "`session.database_path` must not contain NUL"),
        ('[daemon]\nsocket_path = "\\u0000"\n', "`daemon.socket_path` must not contain NUL"),
        ("[daemon]\nsockt = 1\n", "unknown key `sockt` in `daemon`"),
        ("a = " + "[" * 5000, "not valid TOML: nested too deep"),
        ("a = '\xff'", "not valid TOML: not UTF-8 (byte 5)"),
    ],
)
def test_a_configuration_s_error_names_file_key_and_rule(text: str, words: str) -> None:
    """The file, the key as it is written there, and what it may be."""
    with pytest.raises(SettingsError) as raised:
        parse_settings(text.encode("latin-1"), "/c.toml")
    assert str(raised.value) == f"/c.toml: {words}"
