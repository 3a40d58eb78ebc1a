"""One client's attachment: what is held, sent and dropped before, while and after a repaint is drawn."""

from __future__ import annotations

import base64
import json
from typing import cast

import msgspec
import pytest

from orbit_protocol.errors import NotRunning
from orbit_protocol.terminal_reset import RESET
from orbitd.rpc.connection import MAX_UNSENT_BYTES, Call, Connection
from orbitd.screens.messages import Framed
from orbitd.sessions.attachment import Attachment, Repaint
from sessions_support import FakeConnection


def repaint(position: int, data: bytes = b"the screen") -> Repaint:
    return Repaint(data=data, cols=80, rows=24, position=position)


class Fixture:
    """An attach whose answer has not been written, and everything around it; it is the session too."""

    def __init__(self) -> None:
        self.connection = FakeConnection()
        self.id = "one"
        self.ended: list[Attachment] = []
        self.wanted = self.frames_wanted = 0
        self.counted: list[int] = []
        self.attachment = Attachment(
            "one/1",
            cast(Connection, self.connection),
            read_only=False,
            size=(80, 24),
            session=self,
        )
        self.call = Call(cast(Connection, self.connection))
        self.call.after_answer(self.attachment.start_streaming, self.attachment.end)

    def write_input(self, data: bytes) -> None:
        raise NotImplementedError

    def resize(self, attachment: Attachment, cols: int, rows: int) -> None:
        raise NotImplementedError

    def note_typing(self, attachment: Attachment) -> None:
        raise NotImplementedError

    def frame_soon(self) -> None:
        self.frames_wanted += 1

    def repaint_soon(self) -> None:
        self.wanted += 1

    def count_lines(self, attachment: Attachment, position: int) -> None:
        self.counted.append(position)

    async def refresh(self, attachment: Attachment, scrollback_lines: int) -> Repaint:
        raise NotImplementedError

    def remove_attachment(self, attachment: Attachment) -> None:
        self.ended.append(attachment)

    def answer(self, position: int = 0) -> Attachment:
        """Answer the attach with the screen at a position."""
        self.attachment.begin(repaint(position), is_complete=True)
        self.call.settle(succeeded=True)
        self.call.run_callbacks()
        return self.attachment

    @property
    def data(self) -> list[bytes]:
        """What was sent to be drawn."""
        return [base64.b64decode(each["params"]["data"]) for each in self.connection.sent]


@pytest.fixture
def attaching() -> Fixture:
    """An attach whose answer has not been written."""
    return Fixture()


def test_output_follows_the_answer(attaching: Fixture) -> None:
    """What the program writes before the answer is sent after it, in order."""
    attaching.attachment.send_output(b"a", 1)
    attaching.attachment.send_output(b"b", 2)
    attaching.attachment.begin(repaint(0), is_complete=True)
    attaching.call.settle(succeeded=True)
    assert attaching.connection.sent == []
    attaching.call.run_callbacks()
    assert attaching.data == [b"a", b"b"]
    assert attaching.ended == []


@pytest.mark.parametrize(("position", "left"), [(0, [b"a", b"b"]), (1, [b"b"]), (2, [])])
def test_what_the_first_repaint_shows_is_not_sent_again(attaching: Fixture, position: int, left: list[bytes]) -> None:
    """Of the output that came while it was drawn, only what is behind it follows."""
    attaching.attachment.send_output(b"a", 1)
    attaching.attachment.send_output(b"b", 2)
    attaching.answer(position)
    assert attaching.data == left


@pytest.mark.parametrize(("position", "left"), [(1, [b"b", b"c"]), (2, [b"c"]), (3, [])])
def test_a_repaint_replaces_what_it_shows(attaching: Fixture, position: int, left: list[bytes]) -> None:
    """Output is held while a repaint is drawn; what it shows is dropped, and the rest follows it."""
    attachment = attaching.answer()
    attachment.send_output(b"a", 1)
    attachment.expect_repaint(1, "resized")
    attachment.send_output(b"b", 2)
    attachment.send_output(b"c", 3)
    assert attaching.data == [b"a"]
    attachment.send_repaint(repaint(position))
    assert attaching.data == [b"a", b"the screen", *left]
    attachment.send_output(b"d", 4)
    assert attaching.data[-1] == b"d"


def test_a_repaint_of_before_is_not_sent(attaching: Fixture) -> None:
    """A picture that was asked for before the resize shows the wrong size: the next one is waited for."""
    attachment = attaching.answer()
    attachment.expect_repaint(5, "resized")
    attachment.send_repaint(repaint(4))
    assert attaching.connection.sent == []
    assert attachment.takes_repaint
    attachment.send_repaint(repaint(5))
    assert (attaching.connection.story, attachment.takes_repaint) == (["repaint"], False)


def test_a_resize_before_the_first_repaint_is_there(attaching: Fixture) -> None:
    """A first repaint that shows less than what has changed meanwhile is followed by another one."""
    attaching.attachment.expect_repaint(5, "resized")
    attaching.attachment.send_output(b"a", 6)
    attaching.answer(4)
    assert (attaching.connection.sent, attaching.wanted) == ([], 1)
    attaching.attachment.send_repaint(repaint(5, b"after"))
    assert attaching.data == [b"after", b"a"]


def test_a_blank_screen_stands_in(attaching: Fixture) -> None:
    """A client whose picture is not there in time is answered all the same; the picture comes with a repaint."""
    attaching.attachment.send_output(b"a", 1)
    attaching.attachment.begin(repaint(0, b""), is_complete=False)
    attaching.call.settle(succeeded=True)
    attaching.call.run_callbacks()
    assert (attaching.connection.sent, attaching.wanted) == ([], 1)
    attaching.attachment.send_output(b"b", 2)
    attaching.attachment.send_repaint(repaint(1))
    assert attaching.data == [b"the screen", b"b"]


def test_an_attach_that_fails_after_all_leaves_no_attachment(attaching: Fixture) -> None:
    """Where the answer is an error, the attachment has ended, its connection forgets it, and nothing is kept for it."""
    attaching.attachment.send_output(b"a", 1)
    attaching.call.settle(succeeded=False)
    attaching.attachment.send_output(b"b", 2)
    attaching.call.run_callbacks()
    assert attaching.ended == [attaching.attachment]
    assert attaching.connection.sent == []
    assert attaching.connection.attachments == {}


def test_requests_of_a_batch_fail_alone(attaching: Fixture) -> None:
    """An item that fails after the attach of the same batch does not end the attachment."""
    attaching.attachment.begin(repaint(0), is_complete=True)
    attaching.call.settle(succeeded=True)
    attaching.call.settle(succeeded=False)
    attaching.attachment.send_output(b"a", 1)
    attaching.call.run_callbacks()
    assert attaching.connection.story == ["output"]
    assert attaching.ended == []


def flood(attachment: Attachment) -> int:
    """Write more than what may be held, eight times; return the position behind it."""
    for number in range(1, 9):
        attachment.send_output(bytes(MAX_UNSENT_BYTES), number)
    return 8


def held_bytes(attachment: Attachment) -> int:
    return sum(len(message) for _, message in attachment._held)


def test_an_answer_that_waits_keeps_a_bounded_queue(attaching: Fixture) -> None:
    """Behind a wait in the same batch a flood is dropped; one repaint of the screen follows the answer."""
    position = flood(attaching.attachment)
    assert held_bytes(attaching.attachment) < 4 * MAX_UNSENT_BYTES
    attaching.answer()
    assert (attaching.connection.sent, attaching.wanted) == ([], 1)
    attaching.attachment.send_repaint(repaint(position))
    attaching.attachment.send_output(b"later", position + 1)
    assert attaching.data == [b"the screen", b"later"]


def test_a_repaint_that_waits_keeps_a_bounded_queue(attaching: Fixture) -> None:
    """A flood behind a repaint that does not come is dropped; a repaint that shows all of it replaces both."""
    attachment = attaching.answer()
    attachment.expect_repaint(0, "resized")
    position = flood(attachment)
    assert held_bytes(attachment) < 4 * MAX_UNSENT_BYTES
    attachment.send_repaint(repaint(1))
    assert attaching.connection.sent == []
    attachment.send_repaint(repaint(position))
    assert attaching.connection.story == ["repaint"]


@pytest.mark.parametrize("end", ["exited", "detached"])
def test_the_end_is_sent_after_a_flood(attaching: Fixture, end: str) -> None:
    """A program that ends, or a detach, before the answer is heard of all the same; an exit with the last screen."""
    position = flood(attaching.attachment)
    if end == "exited":
        attaching.attachment.send_exited(0, None, repaint(position))
    else:
        attaching.attachment.detach()
    attaching.call.settle(succeeded=True)
    attaching.call.run_callbacks()
    assert attaching.connection.story[-1] == end
    assert attaching.connection.story.count("repaint") == (end == "exited")


def congested(attaching: Fixture) -> Attachment:
    """Return an attachment whose client does not read."""
    attachment = attaching.answer()
    attaching.connection.is_congested = True
    attachment.send_output(b"a", 1)
    attachment.send_output(b"lost", 2)
    return attachment


def test_a_client_that_catches_up_is_sent_one_repaint(attaching: Fixture) -> None:
    """What is printed while it does not read is dropped; once it has read all, a repaint shows it."""
    attachment = congested(attaching)
    attachment.send_repaint(repaint(2, b"too early"))
    assert (attaching.data, attachment.is_behind) == ([b"a"], True)
    attaching.connection.drain()
    attachment.send_output(b"b", 3)
    assert (attaching.wanted, attaching.data) == (1, [b"a"])
    attachment.send_repaint(repaint(1, b"too old"))
    attachment.send_repaint(repaint(2))
    assert attaching.data == [b"a", b"the screen", b"b"]


def test_a_client_that_is_behind_is_sent_the_last_screen_and_the_exit(attaching: Fixture) -> None:
    """The exit comes behind what was on the screen last, also where the client has not caught up."""
    attachment = congested(attaching)
    attachment.send_exited(3, None, repaint(2))
    assert attaching.connection.story == ["output", "repaint", "exited"]
    assert attaching.ended == [attachment]


@pytest.mark.parametrize("behind", [False, True])
def test_an_exit_without_a_last_screen(attaching: Fixture, behind: bool) -> None:
    """Where no picture can be had at the end, the exit is sent all the same, behind the output that was held."""
    attachment = congested(attaching) if behind else attaching.answer()
    if not behind:
        attachment.expect_repaint(1, "resized")
        attachment.send_output(b"last words", 2)
    attachment.send_exited(0, None, None)
    assert attaching.connection.story == ["output", "exited"]


def test_each_end_comes_once(attaching: Fixture) -> None:
    """A client that is detached, and whose connection closes then, ends once; nothing follows."""
    attachment = attaching.answer()
    attachment.detach()
    attaching.connection.close()
    attachment.send_output(b"a", 1)
    attachment.send_repaint(repaint(1))
    attachment.detach()
    assert (attaching.connection.story[0], len(attaching.ended)) == ("detached", 1)
    assert "output" not in attaching.connection.story
    assert attaching.connection.attachments == {}


def test_the_id_is_in_each_message(attaching: Fixture) -> None:
    """A connection with several attachments knows whose a notification is."""
    attachment = attaching.answer()
    attachment.send_output(b"a", 1)
    attachment.expect_repaint(1, "resized")
    attachment.send_repaint(repaint(1))
    attachment.detach()
    sent = attaching.connection.sent
    assert json.dumps(sent).count('"one/1"') == len(sent) == 3


def notices(attaching: Fixture, method: str) -> list[dict[str, object]]:
    return [each["params"] for each in attaching.connection.sent if each["method"] == method]


def test_a_repaint_says_why_it_comes(attaching: Fixture) -> None:
    """A resize, a picture that is another one, and output that was left out each have their reason."""
    attachment = attaching.answer()
    for position, reason in enumerate(("resized", "refreshed"), 1):
        attachment.expect_repaint(position, reason)  # type: ignore[arg-type]
        attachment.send_repaint(repaint(position))
    attaching.connection.is_congested = True
    attachment.send_output(b"a", 3)
    attaching.connection.drain()
    attachment.expect_repaint(4, "resized")  # meanwhile; that something is missing counts more
    attachment.send_repaint(repaint(4))
    assert [each["reason"] for each in notices(attaching, "session.repaint")] == ["resized", "refreshed", "behind"]


def test_lost_lines_are_counted(attaching: Fixture) -> None:
    """A client that was behind is told how many lines have left the screen since its output ended, and once."""
    attachment = congested(attaching)
    assert attaching.counted == [1]
    attachment.set_seen_line(100)
    attaching.connection.drain()
    attachment.send_repaint(msgspec.structs.replace(repaint(2), history_line=1100))
    attachment.expect_repaint(3, "resized")
    attachment.send_repaint(msgspec.structs.replace(repaint(3), history_line=1200))
    assert [each["lost_lines"] for each in notices(attaching, "session.repaint")] == [1000, 0]


def test_a_refresh_holds_everything_until_it_is_answered(attaching: Fixture) -> None:
    """What the answered picture shows is dropped, what comes behind it is sent behind the answer."""
    attachment = attaching.answer()
    attachment.begin_refresh()
    attachment.send_output(b"shown", 1)
    attachment.begin(repaint(1), is_complete=True)
    attachment.send_output(b"behind", 2)
    assert attaching.connection.sent == []
    attachment.start_streaming()
    assert attaching.data == [b"behind"]


def test_refreshes_of_one_batch(attaching: Fixture) -> None:
    """The second picture is newer: nothing is sent until the answer of both has been written."""
    attachment = attaching.answer()
    for position in (1, 3):
        attachment.begin_refresh()
        attachment.send_output(b"shown", position)
        attachment.begin(repaint(position), is_complete=True)
    attachment.start_streaming()
    assert attaching.connection.sent == []
    attachment.send_output(b"behind", 4)
    attachment.start_streaming()
    assert attaching.data == [b"behind"]


def test_a_refresh_that_fails(attaching: Fixture) -> None:
    """The client goes on as before; what was held comes behind a repaint."""
    attachment = attaching.answer()
    attachment.begin_refresh()
    attachment.send_output(b"a", 1)
    attachment.fail_refresh()
    assert (attaching.connection.sent, attaching.wanted) == ([], 1)
    attachment.send_repaint(repaint(0))
    assert attaching.data == [b"the screen", b"a"]


def test_a_refresh_of_what_has_ended(attaching: Fixture) -> None:
    """It is refused."""
    attachment = attaching.answer()
    attachment.end()
    with pytest.raises(NotRunning):
        attachment.begin_refresh()


@pytest.mark.parametrize("counts_lines", [False, True])
def test_the_line_at_the_end(attaching: Fixture, counts_lines: bool) -> None:
    """Who has asked for lines behind one is told the newest with the exit; others get what they always got."""
    attachment = attaching.answer()
    attachment.counts_lines = counts_lines
    attachment.send_exited(0, None, None, 42)
    known = {"attachment_id": "one/1", "exit_code": 0, "exit_signal": None}
    assert notices(attaching, "session.exited") == [known | ({"history_line": 42} if counts_lines else {})]


OTHER_SIZE = (40, 10)


def frame(position: int, text: bytes) -> Framed:
    """Return a frame with a text in its first row."""
    return Framed(
        request=1,
        position=position,
        left=0,
        top=0,
        rows=[text] + [b""] * 23,
        modes=b"",
        column=0,
        row=0,
        visible=True,
        is_updating=False,
        title="",
        bells=0,
    )


def test_output_that_is_held_is_not_sent_before_a_frame(attaching: Fixture) -> None:
    """Where the session gets another size before the attach is answered, the first frame replaces what was held."""
    attachment = attaching.attachment
    attachment.send_output(b"a", 1)
    attachment.follow_size(OTHER_SIZE, 1)
    attaching.answer()
    assert (attaching.connection.sent, attaching.frames_wanted, attaching.wanted) == ([], 1, 0)
    attachment.send_frame(frame(0, b"too old"))
    assert attaching.connection.sent == []
    attachment.send_frame(frame(1, b"a frame"))
    assert attaching.data[0].startswith(RESET)
    assert b"a frame" in attaching.data[0]


def test_frames_replace_output_and_output_replaces_frames(attaching: Fixture) -> None:
    """A frame comes instead of the repaint that was waited for; then a repaint, and the output behind it."""
    attachment = attaching.answer()
    attachment.expect_repaint(1, "refreshed")
    attachment.send_output(b"a", 2)
    attachment.follow_size(OTHER_SIZE, 2)
    assert not attachment.takes_repaint
    attachment.send_frame(frame(2, b"first"))
    attachment.send_output(b"b", 3)
    attachment.send_frame(frame(3, b"second"))
    attachment.follow_size((80, 24), 4)
    attachment.send_frame(frame(4, b"third"))
    attachment.send_output(b"c", 5)
    attachment.send_repaint(repaint(3))
    assert (attachment.takes_frame(), attachment.takes_repaint, len(attaching.data)) == (False, True, 2)
    attachment.send_repaint(repaint(4))
    assert attaching.data[2:] == [b"the screen", b"c"]
    assert [each["params"].get("reason") for each in attaching.connection.sent] == ["frame", "frame", "resized", None]


def test_a_window_that_was_resized_is_drawn_as_a_whole(attaching: Fixture) -> None:
    """What it shows then is not known: the next frame begins with the reset, and the same size changes nothing."""
    attachment = attaching.answer()
    attachment.follow_size(OTHER_SIZE, 0)
    for size in ((80, 24), (81, 24)):
        attachment.send_frame(frame(0, b"text"))
        attachment.resize_window(size)
    attachment.send_frame(frame(0, b"text"))
    assert [data.startswith(RESET) for data in attaching.data] == [True, True]


def test_frames_do_not_count_as_lines_of_the_window(attaching: Fixture) -> None:
    """Lines that have left the screen while it was sent frames are not in its history: they are not counted."""
    attachment = attaching.attachment
    attachment.begin(Repaint(data=b"", cols=80, rows=24, position=0, history_line=7), is_complete=True)
    attaching.call.settle(succeeded=True)
    attaching.call.run_callbacks()
    attachment.counts_lines = True
    attachment.follow_size(OTHER_SIZE, 0)
    attachment.send_frame(frame(0, b"text"))
    attachment.send_exited(0, None, None, 100, frame(1, b"last"))
    assert [each["params"]["history_line"] for each in attaching.connection.sent] == [7, 7, 7]
