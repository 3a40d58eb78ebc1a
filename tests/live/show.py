"""Shows something on the terminal, and waits: `show.py WHAT`."""

from __future__ import annotations

import random
import sys

CSI = "\x1b["


def true_colour() -> str:
    rows = range(0, 256, 16)
    return "\r\n".join(
        "".join(f"{CSI}48;2;{red};{green};128m{CSI}38;2;{green};{red};0m#" for green in range(0, 256, 4)) + f"{CSI}m"
        for red in rows
    )


def characters() -> str:
    return "\r\n".join(
        (
            "wide: 漢字かな交じり文 한국어 \uff46\uff55\uff4c\uff4c",
            "combining: e\u0301 a\u0308\u0323 o\u0302\u0301 \u0915\u094d\u0937 Z\u0351\u036b\u0343",
            "emoji: 😀 👍🏽 👨‍👩‍👧 🇩🇪 ❤️ ☃ 1️⃣",
            "right to left: שלום עולם مرحبا بالعالم",
            "in the last column:" + " " * 60 + "字 wraps",
            "box: ┌─┬─┐ ░▒▓█ ￼ \u200bzero width\u200b soft\u00adhyphen",
            "\x1b(0lqqk\x1b(B and \x0e\x0f shifted",
        )
    )


def long_line() -> str:
    return "".join(f"{number:05d}" for number in range(100)) + "\r\n" + "字" * 150


def modes() -> str:
    """Scroll region, origin mode, tab stops, charsets, mouse, keys, cursor, link, colours, title."""
    return (
        f"{CSI}3g{CSI}1;5H\x1bH{CSI}1;9H\x1bH{CSI}1;1H\ta\tb"
        f"\x1b]8;;https://example.org/\x1b\\a link\x1b]8;;\x1b\\"
        f"\x1b]2;a title\x1b\\\x1b]7;file://localhost/tmp\x1b\\\x1b]4;1;rgb:12/34/56\x1b\\"
        f"{CSI}5;15r{CSI}?6h{CSI}2;3Hin the region{CSI}4 q{CSI}?2004h{CSI}?1002h{CSI}?1006h{CSI}?1h\x1b="
        f"{CSI}>5u\x1b)0\x0e{CSI}7m{CSI}?25l{CSI}?7l"
    )


def storm(seed: int) -> None:
    """Draw all over the screen for some megabytes, the same for the same seed."""
    dice = random.Random(seed)
    for _ in range(400):
        pieces = []
        for _ in range(100):
            style = f"{CSI}0;{dice.randrange(30, 38)};48;5;{dice.randrange(256)}m"
            place = dice.choice((f"{CSI}{dice.randrange(1, 25)};{dice.randrange(1, 81)}H", "\r\n", f"{CSI}K", "\x1bM"))
            pieces.append(place + style + dice.choice(("é", "漢字", "text ", "😀", "\u0301x")) * dice.randrange(12))
        sys.stdout.write("".join(pieces))


def main() -> None:
    if sys.argv[1] == "storm":
        storm(int(sys.argv[2]))
        sys.stdout.write(f"{CSI}m\r\nshown\r\n")
        sys.stdout.flush()
        sys.stdin.read()
    what = {"true-colour": true_colour, "characters": characters, "long-line": long_line, "modes": modes}
    sys.stdout.write(f"{CSI}2J{CSI}H{what[sys.argv[1]]()}")
    sys.stdout.write("\x1b7\x1b[24;1H\x0fshown\x1b8" if sys.argv[1] == "modes" else "\r\nshown\r\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main()
