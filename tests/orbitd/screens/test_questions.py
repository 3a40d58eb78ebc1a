"""Every question to the terminal that we know of, and what it is answered with."""

from __future__ import annotations

import pytest

from orbitd.screens.emulator import Emulator
from orbitd.screens.model import Appearance
from orbitd.screens.questions import MAX_QUESTION_BYTES, MAX_QUESTIONS

ST = b"\x1b\\"
LIGHT = Appearance(
    foreground=(0x10, 0x20, 0x30), background=(0xFF, 0xFF, 0xFA), palette=((1, 2, 3), (4, 5, 6)), kitty_graphics=True
)

LIBRARY = {  # what libghostty answers by itself
    b"\x1b[c": b"\x1b[?62;22c",
    b"\x1b[0c": b"\x1b[?62;22c",
    b"\x1bZ": b"\x1b[?62;22c",
    b"\x1b[>c": b"\x1b[>1;10;0c",
    b"\x1b[=c": b"\x1bP!|00000000" + ST,
    b"\x1b[5n": b"\x1b[0n",
    b"\x1b[6n": b"\x1b[1;1R",
    b"\x1b[?996n": b"\x1b[?997;2n",
    b"\x1b[4$p": b"\x1b[4;2$y",
    b"\x1b[99$p": b"\x1b[99;0$y",
    b"\x1b[?2004$p": b"\x1b[?2004;2$y",
    b"\x1b[?9999$p": b"\x1b[?9999;0$y",
    b"\x1b[>q": b"\x1bP>|orbit" + ST,
    b"\x1b[>0q": b"\x1bP>|orbit" + ST,
    b"\x1bP$qm" + ST: b"\x1bP1$r0m" + ST,
    b"\x1bP$qr" + ST: b"\x1bP1$r1;24r" + ST,
    b'\x1bP$q"p' + ST: b"\x1bP0$r" + ST,
    b"\x1bP+q544e" + ST: b"\x1bP1+r544E=787465726D2D323536636F6C6F72" + ST,
    b"\x1b]4;1;?\x07": b"\x1b]4;1;rgb:0404/0505/0606\x07",
    b"\x1b]4;0;?;1;?" + ST: b"\x1b]4;0;rgb:0101/0202/0303" + ST + b"\x1b]4;1;rgb:0404/0505/0606" + ST,
    b"\x1b]10;?" + ST: b"\x1b]10;rgb:1010/2020/3030" + ST,
    b"\x1b]11;?\x07": b"\x1b]11;rgb:ffff/ffff/fafa\x07",
    b"\x1b]12;?" + ST: b"\x1b]12;rgb:1010/2020/3030" + ST,
    b"\x1b]21;foreground=?;1=?" + ST: b"\x1b]21;foreground=rgb:10/20/30;1=rgb:04/05/06" + ST,
    b"\x1b]5522;type=read;dGV4dA==" + ST: b"\x1b]5522;type=read:status=EPERM" + ST,
    b"\x1b[?u": b"\x1b[?0u",
    b"\x1b[14t": b"\x1b[4;384;640t",
    b"\x1b[16t": b"\x1b[6;16;8t",
    b"\x1b[18t": b"\x1b[8;24;80t",
    b"\x1b[?2048h": b"\x1b[48;24;80;384;640t",
}
OURS = {  # what it leaves, and is answered here
    b"\x1b[?6n": b"\x1b[?1;1R",
    b"\x1b[?15n": b"\x1b[?13n",
    b"\x1b[?25n": b"\x1b[?20n",
    b"\x1b[?26n": b"\x1b[?27;1;0;0n",
    b"\x1b[?53n": b"\x1b[?50n",
    b"\x1b[?55n": b"\x1b[?50n",
    b"\x1b[?56n": b"\x1b[?57;0n",
    b"\x1b[?62n": b"\x1b[0*{",
    b"\x1b[?63;7n": b"\x1bP7!~0000" + ST,
    b"\x1b[?75n": b"\x1b[?70n",
    b"\x1b[?85n": b"\x1b[?83n",
    b"\x1b[11t": b"\x1b[1t",
    b"\x1b[13t": b"\x1b[3;0;0t",
    b"\x1b[13;2t": b"\x1b[3;0;0t",
    b"\x1b[14;2t": b"\x1b[4;384;640t",
    b"\x1b[15t": b"\x1b[5;384;640t",
    b"\x1b[19t": b"\x1b[9;24;80t",
    b"\x1b[x": b"\x1b[2;1;1;128;128;1;0x",
    b"\x1b[0x": b"\x1b[2;1;1;128;128;1;0x",
    b"\x1b[1x": b"\x1b[3;1;1;128;128;1;0x",
    b"\x1bP+q7a7a" + ST: b"\x1bP0+r7a7a" + ST,
    b"\x1b]52;c;?\x07": b"\x1b]52;c;\x07",
    b"\x1b]52;;?" + ST: b"\x1b]52;;" + ST,
    b"\x1b_Gi=31,s=1,v=1,a=q,t=d,f=24;AAAA" + ST: b"\x1b_Gi=31;OK" + ST,
    b"\x1b_Ga=q,i=5,t=f;L3RtcC94" + ST: b"\x1b_Gi=5;EINVAL:unsupported medium" + ST,
}
UNANSWERED = (  # as xterm leaves them by default, or asked by hardly anything without another question behind
    b"\x05", b"\x1b[20t", b"\x1b[21t", b"\x1b]5;0;?\x07", b"\x1b]13;?\x07", b"\x1b]17;?\x07", b"\x1b]19;?\x07",
    b"\x1b[1$w", b"\x1b[2$w", b"\x1b[1;1;1;1;2;2*y", b"\x1b[?2;1;0S", b"\x1b[?4m", b"\x1b[&u", b"\x1b]50;?\x07",
    b"\x1b_Ga=q,i=5,q=2;AAAA" + ST, b"\x1b_Ga=q;AAAA" + ST, b"\x1b_Ga=T,i=5,f=24,s=1,v=1;AAAA" + ST,
)  # fmt: skip
EVERY = {**LIBRARY, **OURS, **dict.fromkeys(UNANSWERED, b"")}


@pytest.mark.parametrize("question", EVERY)
def test_a_question_is_answered_once(question: bytes) -> None:
    """Each has one answer, or none, whole, byte by byte, and between text and other questions."""
    with Emulator(80, 24) as emulator:
        emulator.set_appearance(LIGHT)
        emulator.feed(question)
        assert emulator.replies() == EVERY[question]
    with Emulator(80, 24) as emulator:
        emulator.set_appearance(LIGHT)
        for index in range(len(question)):
            emulator.feed(question[index : index + 1])
        assert emulator.replies() == EVERY[question]
        emulator.feed(b"\r\x1b[?2048l\x1b[c" + question + b"\x1b[m\r\x1b[5n")
        assert emulator.replies() == b"\x1b[?62;22c" + EVERY[question] + b"\x1b[0n"


def test_where_the_cursor_is_knows_margins() -> None:
    """DECXCPR counts as CPR does: from the margins in origin mode."""
    with Emulator(80, 24) as emulator:
        emulator.feed(b"\x1b[5;10r\x1b[?69h\x1b[5;50s\x1b[?6h\x1b[3;4H\x1b[6n\x1b[?6n")
        assert emulator.replies() == b"\x1b[3;4R\x1b[?3;4R"


def test_images_are_offered_only_where_they_are_shown() -> None:
    """Without a client whose terminal shows images, the query for them has no answer."""
    query = b"\x1b_Gi=31,s=1,v=1,a=q,t=d,f=24;AAAA" + ST
    with Emulator(80, 24) as emulator:
        emulator.feed(query)
        assert emulator.replies() == b""
        emulator.set_appearance(LIGHT)
        emulator.feed(query)
        assert emulator.replies() == b"\x1b_Gi=31;OK" + ST


def test_what_looks_like_a_question_is_none() -> None:
    """Text, parameters of other sequences and names in strings are not answered."""
    with Emulator(80, 24) as emulator:
        emulator.feed(b"[?6n 11t \x1b[?6h\x1b[?61n\x1b[111t\x1b[2x\x1b]2;?6n\x07\x1b]52;c;QUJD\x07\x1bP+qxyz" + ST)
        assert emulator.replies() == b""


def test_a_question_of_any_length_ends_somewhere() -> None:
    """A question that is longer than any is none, and what follows it is answered."""
    with Emulator(80, 24) as emulator:
        emulator.set_appearance(LIGHT)
        emulator.feed(b"\x1b_Gi=31,a=q;")
        for _ in range(MAX_QUESTION_BYTES // 1000 + 1):
            emulator.feed(b"A" * 1000)
        emulator.feed(ST + b"\x1b[?6n")
        assert emulator.replies() == b"\x1b[?1;1R"


def test_a_flood_of_questions_is_bounded() -> None:
    """Of very many in one piece of output only the first are answered here; afterwards they are again."""
    with Emulator(80, 24) as emulator:
        emulator.feed(b"\x1b[?6n" * 10_000)
        assert emulator.replies() == b"\x1b[?1;1R" * MAX_QUESTIONS
        emulator.feed(b"\x1b[?6n")
        assert emulator.replies() == b"\x1b[?1;1R"


ASK_COLOURS = b"\x1b]10;?\x07\x1b]11;?\x07\x1b]4;1;?\x07"


def colours(emulator: Emulator) -> list[bytes]:
    """Return foreground, background and colour 1 as they are answered."""
    emulator.feed(ASK_COLOURS)
    return [answer.rpartition(b":")[2] for answer in emulator.replies().split(b"\x07")[:-1]]


def test_a_programs_own_colours_win() -> None:
    """What a program has set stays when another client comes; taken back, it is the client's."""
    with Emulator(80, 24) as emulator:
        emulator.feed(b"\x1b]11;#808080\x07\x1b]4;1;#909090\x07")
        emulator.set_appearance(LIGHT)
        assert colours(emulator) == [b"1010/2020/3030", b"8080/8080/8080", b"9090/9090/9090"]
        emulator.feed(b"\x1b]111\x07\x1b]104\x07")
        assert colours(emulator) == [b"1010/2020/3030", b"ffff/ffff/fafa", b"0404/0505/0606"]
        emulator.set_appearance(Appearance())
        assert colours(emulator) == [b"d0d0/d0d0/d0d0", b"0000/0000/0000", b"cccc/6666/6666"]


def test_a_clients_colours_are_not_the_programs() -> None:
    """They are in no repaint and no picture as HTML, and in a saved state only until the next client gives its own."""
    with Emulator(80, 24) as plain, Emulator(80, 24) as emulator:
        emulator.set_appearance(LIGHT)
        for each in (plain, emulator):
            each.feed(b"\x1b[31mred")
        assert emulator.repaint() == plain.repaint()
        assert emulator.screen("html") == plain.screen("html")
        state, portable = emulator.save()
        assert portable == plain.save()[1]
    with Emulator.decode(state) as restored:
        assert colours(restored) == [b"1010/2020/3030", b"ffff/ffff/fafa", b"0404/0505/0606"]
        restored.set_appearance(Appearance(background=(0, 0, 1)))
        assert colours(restored) == [b"d0d0/d0d0/d0d0", b"0000/0000/0101", b"cccc/6666/6666"]
        assert restored.repaint() == portable
