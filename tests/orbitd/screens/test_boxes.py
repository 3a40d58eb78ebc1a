"""Box-drawing characters and block elements as paths."""

from __future__ import annotations

import re
import unicodedata

import pytest

from orbitd.screens.boxes import Rectangle, box_shapes

EDGES = {"LEFT": (0, 9), "RIGHT": (9, 9), "UP": (4, 0), "DOWN": (4, 18)}


def rectangles(text: str, x: int = 0, y: int = 0) -> list[Rectangle]:
    """Return the rectangles that draw characters: left, top, right, bottom."""
    shapes = box_shapes(text, x, y)
    assert shapes is not None
    number = "([0-9.]+)"
    found = re.findall(f"M{number} {number}h{number}v{number}h-{number}z", "".join(shape.path for shape in shapes))
    return [(float(a), float(b), float(a) + float(c), float(b) + float(d)) for a, b, c, d, _ in found]


def lines_in(name: str) -> set[str]:
    """Return the edges that a character's lines reach, by its name."""
    words = name.replace("HORIZONTAL", "LEFT RIGHT").replace("VERTICAL", "UP DOWN").split()
    return {word for word in words if word in EDGES}


@pytest.mark.parametrize("code", [each for each in range(0x2500, 0x2580) if not 0x256D <= each <= 0x2573])
def test_lines_reach_the_edges_that_their_name_says(code: int) -> None:
    """Each line of a character touches its edge of the cell, and no other edge is touched: so neighbours meet."""
    name = unicodedata.name(chr(code))
    found, margin = rectangles(chr(code)), 1.0 if "DASH" in name else 0.0
    touched = {
        edge
        for edge, is_there in (
            ("LEFT", any(left <= margin for left, _, _, _ in found)),
            ("RIGHT", any(right >= 9 - margin for _, _, right, _ in found)),
            ("UP", any(top <= 2 * margin for _, top, _, _ in found)),
            ("DOWN", any(bottom >= 18 - 2 * margin for _, _, _, bottom in found)),
        )
        if is_there
    }
    assert touched == lines_in(name), name


def test_lines_of_a_corner_meet() -> None:
    """The two lines of a double corner join outside and inside, and a light line ends at the double one it meets."""
    assert rectangles("╔") == [(2, 7, 9, 8), (6, 11, 9, 12), (2, 7, 3, 18), (6, 11, 7, 18)]
    assert rectangles("┌") == [(4, 9, 9, 10), (4, 9, 5, 18)]
    assert rectangles("╟")[0] == (6, 9, 9, 10)
    assert rectangles("╞")[:2] == [(4, 7, 9, 8), (4, 11, 9, 12)]


def test_a_line_of_one_character_is_one_rectangle() -> None:
    """Repeated characters are one rectangle where they reach both sides, and one each where they do not."""
    assert rectangles("────", 9, 18) == [(9, 27, 45, 28)]
    assert rectangles("║", 9, 18) == [(11, 18, 12, 36), (15, 18, 16, 36)]
    assert rectangles("││") == [(4, 0, 5, 18), (13, 0, 14, 18)]


def test_blocks_fill_their_part() -> None:
    """Eighths, halves, quarters and shades of a cell."""
    assert rectangles("█▄▌▐▀") == [(0, 0, 9, 18), (9, 9, 18, 18), (18, 0, 22.5, 18), (31.5, 0, 36, 18), (36, 0, 45, 9)]
    assert rectangles("▁▏") == [(0, 15.75, 9, 18), (9, 0, 10.125, 18)]
    assert rectangles("▙") == [(0, 0, 4.5, 9), (0, 9, 4.5, 18), (4.5, 9, 9, 18)]
    shades = box_shapes("░▒▓", 0, 0)
    assert shades is not None
    assert [shape.opacity for shape in shades] == [1, 2, 3]


def test_other_characters_are_not_drawn() -> None:
    """Diagonal lines, and whatever is no box, are left to the font."""
    assert [box_shapes(text, 0, 0) for text in ("\u2571", "a", "─x", "■")] == [None] * 4
