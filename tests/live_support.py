"""A client at a live session, for tests: it follows the output into an emulator of its own."""

from __future__ import annotations

import base64
from typing import Any

from orbitd.screens.emulator import Emulator
from support import RawClient


def encoded(text: str | bytes) -> str:
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


class Viewer:
    """An attachment whose output is shown on an emulator, as a terminal would.

    Args:
        client: A connection of its own.
        session_id: The session.
        size: Columns and rows of its window.
        options: More params of session.attach.
    """

    def __init__(self, client: RawClient, session_id: str, size: tuple[int, int] = (80, 24), **options: Any) -> None:
        self.client = client
        answer = client.call("session.attach", id=session_id, cols=size[0], rows=size[1], **options)
        self.id = answer["attachment_id"]
        self.session = answer["session"]
        drawn_for = self.session["cols"], self.session["rows"]
        # The answer to a client that is sent frames is drawn for its window.
        self.emulator = Emulator(*(drawn_for if options.get("frames") == "never" else size))
        self.emulator.answering = False
        self.output = bytearray()
        self.repaints = 0
        self.reasons: list[str] = []
        self.last_repaint: Any = None
        self.output_before_repaint = b""
        self.exit: Any = None
        self.was_put_off = False
        self._draw(base64.b64decode(answer["repaint"]))

    def type(self, text: str | bytes) -> None:
        self.client.notify("session.input", attachment_id=self.id, data=encoded(text))

    def step(self) -> None:
        """Take one notification."""
        notice = self.client.notice()
        params = notice["params"]
        assert params["attachment_id"] == self.id
        if notice["method"] == "session.output":
            self._draw(base64.b64decode(params["data"]))
        elif notice["method"] == "session.repaint":
            self.repaints += 1
            self.reasons.append(params["reason"])
            self.last_repaint, self.output_before_repaint = params, bytes(self.output)
            # On the same terminal, whatever its state: a repaint begins with the reset that it needs.
            self.emulator.resize(params["cols"], params["rows"])
            self._draw(base64.b64decode(params["data"]))
        elif notice["method"] == "session.detached":
            self.was_put_off = True
        else:
            self.exit = params

    def read_until(self, text: str) -> bytearray:
        """Follow until `text` has come; return all output so far."""
        start = 0
        while self.output.find(text.encode(), start) < 0:
            start = max(0, len(self.output) - len(text))
            self.step()
        return self.output

    def read_until_repaint(self) -> None:
        """Follow until one more repaint has come."""
        before = self.repaints
        while self.repaints == before:
            self.step()

    def redraw(self, repaint: str) -> None:
        """Draw a repaint that a request was answered with."""
        self._draw(base64.b64decode(repaint))

    def read_to_the_end(self) -> Any:
        """Follow until the program has ended; return how."""
        while self.exit is None:
            self.step()
        return self.exit

    def text(self) -> str:
        return self.emulator.screen("text").decode()

    def _draw(self, data: bytes) -> None:
        self.output += data
        self.emulator.feed(data)
