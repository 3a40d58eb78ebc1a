"""Blocks of text: what is joined is what was in both."""

from __future__ import annotations

import random

import msgspec
import pytest

from orbitd.history.text_blocks import NO_NUMBER, Line, TextBlock, join, pack, unpack


def some_block(dice: random.Random, number: int) -> TextBlock:
    """Return a block of some lines, with numbers from this one on and without."""
    lines = list[Line]()
    for _ in range(dice.randrange(1, 30)):
        is_numbered = dice.random() < 0.6
        text = dice.choice(("", "one", "é 画面", "x" * 300))
        lines.append(Line(number=number if is_numbered else NO_NUMBER, at=dice.randrange(3), text=text))
        number += is_numbered
    block = pack(lines, number)
    assert block is not None
    return block


@pytest.mark.parametrize("seed", range(20))
def test_blocks_are_joined(seed: int) -> None:
    """The lines of both follow each other, as if they had been packed together."""
    dice = random.Random(seed)
    first = some_block(dice, 10)
    second = some_block(dice, first.next_line)
    both = unpack(first.text, first.runs) + unpack(second.text, second.runs)
    assert join(first, second) == pack(both, first.first_line)


def test_a_block_that_does_not_fit_is_joined_with_none() -> None:
    """Where lines and runs are not as many, the numbers of those behind would be wrong."""
    whole = pack([Line(number=1, at=1, text="one")], 1)
    other = pack([Line(number=2, at=1, text="two"), Line(number=3, at=1, text="three")], 2)
    assert whole is not None
    assert other is not None
    with pytest.raises(ValueError, match="more or fewer lines"):
        join(whole, msgspec.structs.replace(other, runs=whole.runs))
