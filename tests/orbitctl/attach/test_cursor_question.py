"""Questions where the cursor is: answers are told from keys, and lies from answers."""

from __future__ import annotations

import pytest

from orbitctl.attach.cursor_question import ANSWER_SECS, CursorQuestion, Place

SIZE = (80, 24)
HONEST = b"\x1b[5;3R\x1b[24;80R"


def asked() -> CursorQuestion:
    question = CursorQuestion()
    assert question.first(0.0, SIZE).count(b"\x1b[6n") == 2
    return question


def test_a_terminal_that_knows_its_corner_is_trusted() -> None:
    """The first answers count, from 0, and the terminal is asked again later: with another size, too."""
    question = asked()
    assert question.receive(HONEST, 0.01) == b""
    assert question.is_answered
    assert question.take() == Place(SIZE, (4, 2))
    assert question.is_trusted
    assert question.deadline is None
    assert question.again(1.0).count(b"\x1b[6n") == 2
    assert question.receive(b"\x1b[7;1R\x1b[10;40R", 1.01) == b""
    assert question.take() == Place((40, 10), (6, 0))


def test_the_size_before_and_the_cursor_behind() -> None:
    """What is written between the two questions is drawn at that size, and the cursor is where it ends."""
    question = asked()
    question.receive(HONEST, 0.01)
    question.take()
    assert question.at_corner(1.0) == b"\x1b[999;999H\x1b[6n"
    question.receive(b"\x1b[10;40R", 1.01)
    assert question.take() == Place((40, 10), None)
    question.at_corner(1.0)
    assert question.here_too() == b"\x1b[6n"
    question.receive(b"\x1b[10;40R", 1.01)
    assert not question.is_answered
    question.receive(b"\x1b[3;1R", 1.01)
    assert question.take() == Place((40, 10), (2, 0))


@pytest.mark.parametrize("answer", [b"\x1b[1;1R\x1b[1;1R", b"\x1b[5;3R\x1b[25;80R"])
def test_one_that_answers_something_else_is_not(answer: bytes) -> None:
    """What answers always the same is no terminal with a cursor."""
    question = asked()
    question.receive(answer, 0.01)
    assert question.take() is None
    assert not question.is_trusted


@pytest.mark.parametrize("at", range(len(HONEST)))
def test_answers_come_in_pieces_and_between_keys(at: int) -> None:
    """Keys before, between and behind keep their order."""
    question = asked()
    data = b"a" + HONEST + b"b\x1b[A"
    typed = question.receive(data[: at + 1], 0.01) + question.receive(data[at + 1 :], 0.02)
    assert typed == b"ab\x1b[A"
    assert question.take() == Place(SIZE, (4, 2))


def test_a_terminal_that_is_silent_costs_a_moment() -> None:
    """At the deadline what was held is a key after all, and later nothing is held any more."""
    question = asked()
    assert question.deadline == ANSWER_SECS
    assert question.receive(b"x\x1b", 0.05) == b"x"
    assert question.give_up() == b"\x1b"
    assert question.receive(b"\x1b", 0.2) == b"\x1b"
    assert not question.is_trusted


def test_late_answers_are_taken_out_and_not_taken_for_others() -> None:
    """An answer behind the deadline does not reach the session, nor count for the next question."""
    question = asked()
    question.receive(HONEST, 0.01)
    question.take()
    question.again(1.0)
    question.give_up()
    question.again(1.2)
    assert question.receive(b"\x1b[9;1R\x1b[12;40Rkey", 1.25) == b"key"
    assert not question.is_answered
    question.receive(b"\x1b[2;1R\x1b[24;80R", 1.26)
    assert question.take() == Place(SIZE, (1, 0))
    assert question.receive(b"\x1b[1;2R", 1.3) == b"\x1b[1;2R"  # Shift-F3


def test_answers_are_waited_for_with_an_end() -> None:
    """Long after a question that was never answered a key is a key."""
    question = asked()
    question.give_up()
    assert question.receive(b"\x1b[1;2R", 60.0) == b"\x1b[1;2R"
