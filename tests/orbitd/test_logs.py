"""The log's lines: whatever a field or a message quotes, a line is written."""

from __future__ import annotations

import json
import logging
import os
from io import BytesIO, TextIOWrapper
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orbit_protocol.text import encodable
from orbitd.logs import FORMATTERS

ANY_TEXT = st.text(st.characters(), max_size=30) | st.binary(max_size=30).map(os.fsdecode)


@pytest.mark.parametrize("log_format", ["text", "json"])
@given(message=ANY_TEXT, value=ANY_TEXT)
def test_whatever_is_quoted_is_one_line_of_utf8(log_format: Literal["text", "json"], message: str, value: str) -> None:
    """Paths that are not UTF-8, lone surrogates and control characters neither raise nor break the line."""
    stream = TextIOWrapper(BytesIO(), encoding="utf-8", errors="strict")
    record = logging.LogRecord("orbitd", logging.INFO, "file", 1, "%s", (message,), None)
    record.fields = {"path": value, "size": 7}
    stream.write(FORMATTERS[log_format]().format(record) + "\n")
    stream.flush()
    written = stream.buffer.getvalue().decode()  # type: ignore[attr-defined]
    assert written.endswith("\n")
    assert written.count("\n") == 1
    if log_format == "json":
        told = json.loads(written)
        assert (told["event"], told["path"], str(told["size"])) == (encodable(message), encodable(value), "7")
