"""Lines of the log: whatever a value holds, a line stays a line that a terminal only shows."""

from __future__ import annotations

import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orbit_protocol.text import encodable
from orbitd.logs import FORMATTERS, LogFormat

ODD = st.text(st.characters() | st.sampled_from("\n\x1b\x7f\x9b\x85\u202e\u2028\u2069\ud800\udcff\"=' "), max_size=20)
FORMATS: list[LogFormat] = ["text", "json"]


@pytest.mark.parametrize("log_format", FORMATS)
@given(path=ODD)
def test_a_value_neither_ends_a_line_nor_steers_a_terminal(log_format: LogFormat, path: str) -> None:
    r"""Control characters and bidirectional controls are escaped and come back; what is no text stands as `\xNN`."""
    record = logging.LogRecord("orbitd", logging.INFO, "", 0, "file refused", (), None)
    record.fields = {"path": path, "number": 7}
    line = FORMATTERS[log_format]().format(record)
    line.encode()
    assert line.isprintable()
    if log_format == "json":
        found = json.loads(line)
        assert (found["event"], found["path"], found["number"]) == ("file refused", encodable(path), 7)
