"""Keys by name, and the detach key in what is typed."""

from __future__ import annotations

import re

import pytest

from orbitctl.attach.detach_key import DetachKey, KeyFilter
from orbitctl.attach.keys import depends_on_mode, key_bytes, parse_key


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("C-c", b"\x03"), ("c-C", b"\x03"), ("^c", b"\x03"), ("Ctrl-c", b"\x03"), ("C-\\", b"\x1c"), ("^]", b"\x1d"),
        ("C-Space", b"\0"), ("C-@", b"\0"), ("C-?", b"\x7f"), ("M-x", b"\x1bx"), ("Alt-x", b"\x1bx"),
        ("C-M-c", b"\x1b\x03"), ("a", b"a"), ("A", b"A"), ("é", "é".encode()), ("Enter", b"\r"), ("tab", b"\t"),
        ("Esc", b"\x1b"), ("Space", b" "), ("F1", b"\x1bOP"), ("F12", b"\x1b[24~"), ("PgUp", b"\x1b[5~"),
        ("Delete", b"\x1b[3~"), ("BSpace", b"\x7f"), ("-", b"-"), ("^", b"^"),
    ],
)  # fmt: skip
def test_keys_have_names(name: str, sent: bytes) -> None:
    """A key's name, in any of the usual ways of writing, stands for what a terminal sends."""
    assert key_bytes(name, application=False) == sent


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        # As xterm's ctlseqs have them ("PC-Style" and "VT220-Style Function Keys"): the modifiers are a number, 1 plus
        # 1 for Shift, 2 for Alt and 4 for Ctrl.
        ("C-Up", "\x1b[1;5A"), ("S-Down", "\x1b[1;2B"), ("M-Left", "\x1b[1;3D"), ("C-S-Home", "\x1b[1;6H"),
        ("C-M-End", "\x1b[1;7F"), ("S-M-C-Right", "\x1b[1;8C"), ("shift-up", "\x1b[1;2A"), ("^Up", "\x1b[1;5A"),
        ("F2", "\x1bOQ"), ("F3", "\x1bOR"), ("F4", "\x1bOS"), ("S-F1", "\x1b[1;2P"), ("C-F4", "\x1b[1;5S"),
        ("F5", "\x1b[15~"), ("F6", "\x1b[17~"), ("F10", "\x1b[21~"), ("F11", "\x1b[23~"), ("S-F5", "\x1b[15;2~"),
        ("M-F12", "\x1b[24;3~"), ("F13", "\x1b[25~"), ("F14", "\x1b[26~"), ("F15", "\x1b[28~"), ("F16", "\x1b[29~"),
        ("F17", "\x1b[31~"), ("F18", "\x1b[32~"), ("F19", "\x1b[33~"), ("F20", "\x1b[34~"),
        ("Insert", "\x1b[2~"), ("IC", "\x1b[2~"), ("DC", "\x1b[3~"), ("C-Delete", "\x1b[3;5~"),
        ("PPage", "\x1b[5~"), ("S-PgUp", "\x1b[5;2~"), ("NPage", "\x1b[6~"), ("C-PageDown", "\x1b[6;5~"),
        ("S-Tab", "\x1b[Z"), ("BTab", "\x1b[Z"), ("M-Enter", "\x1b\r"), ("C-Space", "\0"), ("C-M-Space", "\x1b\0"),
        ("M-BSpace", "\x1b\x7f"), ("C-Backspace", "\b"), ("Escape", "\x1b"), ("^[", "\x1b"), ("C-2", "\0"),
        ("C-8", "\x7f"), ("S-a", "A"), ("C-S-a", "\x01"), ("M-S-a", "\x1bA"), ("C-/", "\x1f"), ("^_", "\x1f"),
    ],
)  # fmt: skip
def test_keys_with_modifiers_are_sent_as_xterm_sends_them(name: str, sent: str) -> None:
    """Cursor, function and editing keys carry the modifiers as a number; Tab, Space and Backspace have their own."""
    assert key_bytes(name, application=False) == sent.encode()
    assert key_bytes(name.swapcase() if len(name) > 3 else name, application=False) == sent.encode()
    assert not depends_on_mode(name)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("C-Upp", "did you mean C-Up?"),
        ("pagup", "did you mean PageUp?"),
        ("F21", "did you mean"),
        ("S-1", "character"),
    ],
)
def test_what_is_near_a_key_is_named(name: str, said: str) -> None:
    """The error for a misspelt key lists the keys that it may be."""
    with pytest.raises(ValueError, match=re.escape(said)):
        key_bytes(name, application=False)


@pytest.mark.parametrize(("application", "sent"), [(False, b"\x1b[A"), (True, b"\x1bOA")])
def test_cursor_keys_depend_on_the_program(application: bool, sent: bytes) -> None:
    """Arrows are sent as the program has asked for (DECCKM)."""
    assert key_bytes("Up", application=application) == sent
    assert depends_on_mode("up")
    assert key_bytes("C-Up", application=application) == b"\x1b[1;5A"


@pytest.mark.parametrize("name", ["", "C-", "nokey", "C-é", "C-enter-", "xx"])
def test_what_is_no_key_is_refused(name: str) -> None:
    """A name that no key has is an error that repeats it."""
    with pytest.raises(ValueError, match="key"):
        key_bytes(name, application=False)


KITTY = [
    ("C-\\", b"\x1b[92;5u"), ("C-\\", b"\x1b[92;5:1u"), ("C-\\", b"\x1b[92;5:2u"), ("C-\\", b"\x1b[92:124;5u"),
    ("C-\\", b"\x1b[92;69u"), ("C-\\", b"\x1b[92;197u"), ("C-a", b"\x1b[1092::97;5u"), ("C-a", b"\x1b[97;5;1u"),
    ("D", b"\x1b[100:68;2u"), ("M-d", b"\x1b[100;3u"), ("d", b"\x1b[100u"), ("C-\\", b"\x1b[27;5;92~"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "token"), KITTY)
def test_keys_are_known_in_every_encoding(name: str, token: bytes) -> None:
    """The kitty protocol, with locks, alternates and event types, and modifyOtherKeys name the same keys."""
    assert parse_key(name).is_sent_as(token)


@pytest.mark.parametrize("token", [b"\x1b[92;5:3u", b"\x1b[92;6u", b"\x1b[93;5u", b"\x1b[92u", b"\x1b[27;6;92~", b"\\"])
def test_other_keys_are_other_keys(token: bytes) -> None:
    """A release, another modifier and another character are not the key."""
    assert not parse_key("C-\\").is_sent_as(token)


def passed(key: str, *pieces: bytes) -> tuple[bytes, bool]:
    """Feed pieces; return all that went through, and whether the key was found."""
    keys = KeyFilter(DetachKey(key))
    through = b""
    for piece in pieces:
        more, found = keys.feed(piece)
        through += more
        if found:
            return through, True
    return through + keys.flush(), False


@pytest.mark.parametrize(
    ("key", "typed", "through"),
    [
        ("C-\\", b"ab\x1ccd", b"ab"),
        ("C-\\", b"\x1b[92;5u", b""),
        ("C-\\", b"x\x1b[27;5;92~", b"x"),
        ("^q", b"ab\x11", b"ab"),
        ("C-a d", b"x\x01d", b"x"),
        ("C-a d", b"\x01\x01d", b"\x01"),
        ("C-a d", b"\x01x\x01d", b"\x01x"),
        ("C-a d", b"\x1b[97;5u\x1b[97;5:3u\x1b[100u", b""),
        ("C-a d", b"\x1b[57442;5u\x1b[97;5u\x1b[57442;1:3u\x1b[100;1u", b"\x1b[57442;5u"),
        ("M-d", b"x\x1bd", b"x"),
        ("C-p C-q", b"\x10\x11", b""),
    ],
)
def test_the_detach_key_is_found(key: str, typed: bytes, through: bytes) -> None:
    """What came before the key goes to the program, in one piece and byte by byte the same, unless ESC stands alone."""
    assert passed(key, typed) == (through, True)
    bytewise, found = passed(key, *[typed[index : index + 1] for index in range(len(typed))])
    assert found or key == "M-d"
    assert bytewise in (through, through + b"\x1b", typed)


@pytest.mark.parametrize(
    "typed",
    [b"plain text \xff\xfe", b"\x1b[A\x1b[1;5C\x1bOP", b"\x1b[<0;10;20M", b"\x1b[200~paste\x1b[201~", b"\x1b", b"\x1b[",
     b"\x01", b"\x01\x1b[97;5:3u", b"\x1b\x1b[A", b"\x1b[92;5:3u", b"\x1b[?62;22c", b"\x01" * 5,
     b"\x1b]11;rgb:0/0/0\x1b\\"],
)  # fmt: skip
def test_everything_else_passes_unchanged(typed: bytes) -> None:
    """Keys, reports and pastes reach the program as they were sent, however they are cut."""
    for cut in range(len(typed) + 1):
        assert passed("C-a d", typed[:cut], typed[cut:]) == (typed, False)


def test_escape_is_never_held_back() -> None:
    """A lone Escape goes to the program at once; the beginning of a sequence waits for a moment."""
    keys = KeyFilter(DetachKey("C-\\"))
    assert keys.feed(b"\x1b") == (b"\x1b", False)
    assert not keys.is_partial
    assert keys.feed(b"\x1b[92") == (b"", False)
    assert keys.is_partial
    assert keys.flush() == b"\x1b[92"


def test_none_turns_it_off() -> None:
    """Without a detach key every byte passes."""
    assert passed("none", b"\x1c\x1b[92;5u") == (b"\x1c\x1b[92;5u", False)


@pytest.mark.parametrize("text", ["", "  ", "d", "d C-a", "C-[", "Esc d", "C-nokey", "Space", "F5", "C-S-d", "C-Up"])
def test_keys_that_are_needed_are_no_detach_keys(text: str) -> None:
    """A sequence that begins with a letter or with Escape, and what is no key, is refused."""
    with pytest.raises(ValueError, match="key"):
        DetachKey(text)


PASTES = [
    b"\x1b[200~a\x1cb\x1b[201~",
    b"x\x1b[200~\x1b[92;5u\x01d\x1b[27;5;92~\x1b[201~y\x1b[200~\x1c\x1c\x1b[201~",
    b"\x1b[200~\x1b[200~\x1b[201\x1b[2\x1b[201~",
    b"\x1b[200~\x1c\x1b[201",
]


@pytest.mark.parametrize("key", ["C-\\", "C-a d"])
@pytest.mark.parametrize("paste", PASTES)
@pytest.mark.parametrize("is_slow", [False, True])
def test_a_paste_is_text(key: str, paste: bytes, is_slow: bool) -> None:
    """The detach key in a bracketed paste passes, however the paste and its marks are cut, also with time between."""
    for first in range(len(paste) + 1):
        for second in range(first, len(paste) + 1):
            keys = KeyFilter(DetachKey(key))
            through = b""
            for piece in filter(None, (paste[:first], paste[first:second], paste[second:])):
                more, found = keys.feed(piece)
                assert not found
                through += more + (keys.flush() if is_slow else b"")
            assert through + keys.flush() == paste


@pytest.mark.parametrize("piece_bytes", [1, 3, 100])
def test_the_detach_key_is_found_after_a_paste(piece_bytes: int) -> None:
    """What was pasted has passed, and keys are keys again."""
    typed = b"\x1b[200~a\x1cb\x1b[201~c\x1cd"
    pieces = [typed[at : at + piece_bytes] for at in range(0, len(typed), piece_bytes)]
    assert passed("C-\\", *pieces) == (typed[:-2], True)


def test_a_paste_passes_at_once() -> None:
    """Nothing of it is held until its end comes."""
    keys = KeyFilter(DetachKey("C-a d"))
    assert keys.feed(b"\x1b[200~\x01") == (b"\x1b[200~\x01", False)
    assert keys.feed(b"\x1b[20") == (b"\x1b[20", False)
    assert (keys.feed(b"1~"), keys.is_partial) == ((b"1~", False), False)
    assert keys.feed(b"\x01d") == (b"", True)


def test_a_sequence_goes_on_behind_what_looks_like_the_beginning_of_a_key() -> None:
    """Escape and a bracket typed by hand, and a while later the detach key: it is found."""
    for typed in (b"\x1b", b"\x1b["):
        keys = KeyFilter(DetachKey("C-a d"))
        keys.feed(typed)
        keys.flush()
        assert keys.feed(b"\x01") == (b"", False)
        assert keys.feed(b"d") == (b"", True)
