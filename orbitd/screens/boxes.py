"""Box-drawing characters and block elements (U+2500 to U+259F) as paths of SVG that fill a cell of 9x18 units.

Fonts draw them as high as they are themselves, and lines have gaps or overlap where rows are higher or lower. So they
are drawn here from a table: the weight of each of the four lines from a cell's middle to its edges.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby

from msgspec import Struct

WIDTH, HEIGHT = 9, 18
# Two bits a line of U+2500 to U+257F: left, up, right, down from the lowest on; 1 light, 2 heavy, 3 double. The three
# diagonal ones have none.
_LINES = bytes.fromhex(
    "112244881122448811224488506090a041428182142418280506090a546458949868a4a845464985"
    "894a868a515261629192a1a215162526191a292a555665665995995a6996a56aa69aa9aa11224488"
    "33cc70d0f043c1c3341c3c070d0f74dcfc47cdcf73d1f3371d3f77ddff5041051400000001041040"
    "0208208021841248"
)
# How many dashes a line is cut into, by the number of the character.
_DASHES = {**dict.fromkeys(range(4, 8), 3), **dict.fromkeys(range(8, 12), 4), **dict.fromkeys(range(0x4C, 0x50), 2)}
_SPANS = {1: (4, 5), 2: (3, 6)}
"""Where a light and a heavy vertical line begin and end; horizontal ones are 5 units further down."""
_FIRST, _SECOND = (2, 3), (6, 7)
"""The two lines of a double one, likewise."""
_DOWN = 5
# Quarters of the blocks from U+2596 on: 1 upper left, 2 upper right, 4 lower left, 8 lower right.
_QUADRANTS = (4, 8, 1, 13, 9, 7, 11, 2, 6, 14)
_ARCS = {
    0x6D: "m9 9q-5 0-5 5v4h1v-4q0-4 4-4z",  # down and right
    0x6E: "m0 9q5 0 5 5v4h-1v-4q0-4-4-4z",  # down and left
    0x6F: "m0 10q5 0 5-5v-5h-1v5q0 4-4 4z",  # up and left
    0x70: "m9 10q-5 0-5-5v-5h1v5q0 4 4 4z",  # up and right
}


class Shape(Struct, frozen=True):
    """A part of a picture: its path, and how opaque it is, of 4."""

    path: str
    opacity: int = 4


Rectangle = tuple[float, float, float, float]


def box_shapes(text: str, x: int, y: int) -> list[Shape] | None:
    """Return what draws characters of one cell each, from the left upper corner on; None where one cannot be drawn."""
    shapes = list[Shape]()
    for character, group in groupby(text):
        count, number = len(list(group)), ord(character) - 0x2500
        if not 0 <= number < 0xA0 or number in (0x71, 0x72, 0x73):
            return None
        opacity = number - 0x90 if 0x91 <= number <= 0x93 else 4
        if number in _ARCS:
            path = "".join(f"M{x + index * WIDTH} {y}{_ARCS[number]}" for index in range(count))
        else:
            path = "".join(_repeated(_rectangles(number), count, x, y))
        shapes.append(Shape(path, opacity))
        x += count * WIDTH
    return shapes


def _repeated(rectangles: Iterable[Rectangle], count: int, x: int, y: int) -> Iterator[str]:
    for left, top, right, bottom in rectangles:
        width, height = right - left, bottom - top
        if width == WIDTH:  # it goes on in the next cell
            yield f"M{x} {y + top:g}h{WIDTH * count}v{height:g}h-{WIDTH * count}z"
            continue
        for index in range(count):
            yield f"M{x + left + index * WIDTH:g} {y + top:g}h{width:g}v{height:g}h-{width:g}z"


def _rectangles(number: int) -> list[Rectangle]:
    if number >= 0x80:
        return _block(number - 0x80)
    lines = _LINES[number]
    left, up, right, down = (lines >> shift & 3 for shift in (0, 2, 4, 6))
    if number in _DASHES:
        return _dashed(left or up, _DASHES[number], is_vertical=bool(up))
    across = [(begin, top + _DOWN, end, bottom + _DOWN) for begin, end, top, bottom in _lines(left, right, up, down)]
    along = [(first, begin, last, end) for begin, end, first, last in _lines(up, down, left, right, _DOWN, HEIGHT)]
    return across + along


def _lines(before: int, behind: int, one: int, other: int, down: int = 0, size: int = WIDTH) -> Iterator[Rectangle]:
    """Yield the lines of one direction, left to right or down: where each begins and ends in it, and then across it.

    Args:
        before: The weight of the line from the first edge to the middle.
        behind: The weight of the line from the middle to the other edge.
        one: The weight of the line that comes from the left of them, or from above.
        other: The weight of the one that comes from the other side.
        down: By what the middle is further than that of the width.
        size: Of the cell.
    """
    if before == behind and not one and not other:
        for first, last in (_FIRST, _SECOND) if before == 3 else (_SPANS[before],) if before else ():
            yield 0, size, first, last
        return
    for weight, opposite, is_first in ((before, behind, True), (behind, before, False)):
        if weight == 3:
            begins = [(_FIRST, _begin_of_double(one, other)), (_SECOND, _begin_of_double(other, one))]
        elif weight:
            begins = [(_SPANS[weight], _begin_of_single(opposite, one, other))]
        else:
            continue
        for (first, last), begin in begins:
            yield (0, WIDTH - begin + down, first, last) if is_first else (begin + down, size, first, last)


def _begin_of_double(beside: int, beyond: int) -> int:
    """Return where one line of a double one begins, by what crosses on its own side and on the other's."""
    if beside == 3:
        return _SECOND[0]
    return _FIRST[0] if beyond == 3 and not beside else _SPANS[1][0]


def _begin_of_single(opposite: int, one: int, other: int) -> int:
    """Return where a light or heavy line begins, by the one that it continues and those that cross it."""
    doubles = (one == 3) + (other == 3)
    if doubles and not opposite:
        return _SECOND[0] if doubles == 2 else _FIRST[0]
    return _SPANS[2][0] if 2 in (one, other) else _SPANS[1][0]


def _dashed(weight: int, count: int, *, is_vertical: bool) -> list[Rectangle]:
    first, last = _SPANS[weight]
    size = HEIGHT if is_vertical else WIDTH
    step = size / count
    spans = [(step * (index + 0.2), step * (index + 0.8)) for index in range(count)]
    if is_vertical:
        return [(first, begin, last, end) for begin, end in spans]
    return [(begin, first + _DOWN, end, last + _DOWN) for begin, end in spans]


def _block(number: int) -> list[Rectangle]:
    """Return the rectangles of a block element, from U+2580 on."""
    half_width, half_height = WIDTH / 2, HEIGHT / 2
    if number == 0:
        return [(0, 0, WIDTH, half_height)]
    if number <= 8:
        return [(0, HEIGHT - HEIGHT * number / 8, WIDTH, HEIGHT)]
    if number < 0x10:
        return [(0, 0, WIDTH * (0x10 - number) / 8, HEIGHT)]
    if number == 0x10:
        return [(half_width, 0, WIDTH, HEIGHT)]
    if number <= 0x13:  # the shades
        return [(0, 0, WIDTH, HEIGHT)]
    if number == 0x14:
        return [(0, 0, WIDTH, HEIGHT / 8)]
    if number == 0x15:
        return [(WIDTH * 7 / 8, 0, WIDTH, HEIGHT)]
    quarters = _QUADRANTS[number - 0x16]
    places = ((0.0, 0.0), (half_width, 0.0), (0.0, half_height), (half_width, half_height))
    return [
        (left, top, left + half_width, top + half_height)
        for bit, (left, top) in enumerate(places)
        if quarters >> bit & 1
    ]
