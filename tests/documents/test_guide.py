"""What the guide of docs/protocol.md promises beyond its blocks, which tests/documents/test_blocks.py runs."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from documents_support import Block, Reader, blocks
from needs import program, require
from orbit_protocol.openrpc import document as openrpc

PAGE = "docs/protocol.md"


@pytest.fixture
def reader(home: Path) -> Iterator[Reader]:
    """Somebody with a machine of their own, who is reached by no network."""
    require(linux=True)
    reader = Reader(home)
    yield reader
    reader.close()


def below(heading: str) -> list[Block]:
    found = [block for block in blocks(PAGE) if block.heading == heading]
    assert found
    return found


def test_the_first_conversation_shows_output(reader: Reader) -> None:
    """Who pastes the first conversation has typed into a program, and has seen what it wrote."""
    *before, attaching = [block for block in below("A first conversation") if "session.output" not in block.text]
    for block in before:
        reader.follow(block)
    messages = [json.loads(line) for line in reader.sh(attaching.text).splitlines()]
    assert {message["id"] for message in messages if "result" in message} == {2, 3}
    shown = [message["params"] for message in messages if message.get("method") == "session.output"]
    assert {params["attachment_id"] for params in shown} == {"window"}
    assert b"".join(base64.b64decode(params["data"]) for params in shown) == b"hello\r\nhello\r\n"


def test_the_guides_client_can_be_told_that_nobody_answers(reader: Reader) -> None:
    """Where no daemon is, a call of the client fails, and does not end the app: the rules have it try again."""
    require("node")
    (client,) = [block for block in blocks(PAGE) if block.file == "~/client.mjs" and "export" in block.text]
    reader.follow(client)
    script = reader.home / "nobody.mjs"
    script.write_text(
        'import { connect } from "./client.mjs";\n'
        'await connect("/nowhere/orbitd.sock").call("daemon.ping").catch(({ message }) => console.log(message));\n'
    )
    assert reader.sh(f"{program('node')} {script}") == "the connection has ended\n"


def test_cursors_of_events_are_not_those_of_pages() -> None:
    """Each cursor that a notification has is said to be what `since` takes."""
    cursors = [
        param["description"]
        for notification in openrpc()["x-notifications"]
        for param in notification["params"]
        if param["name"] == "cursor"
    ]
    assert len(cursors) == 2
    assert [text for text in cursors if "`since`" not in text] == []
