"""A saved state brings back the whole terminal, from the middle of anything."""

from __future__ import annotations

import random

import msgspec
import pytest

from orbitd.screens._ghostty import Library
from orbitd.screens.emulator import Emulator, StateHeader
from orbitd.screens.model import StateBusy, StateCorrupt, TerminalError
from orbitd.sessions.saved_state import SavedState
from terminal_support import noise, play, restored

SEEDS = range(0, 120, 10)

UNFINISHED = {
    "escape": b"\x1b",
    "csi": b"\x1b[1;3",
    "private csi": b"\x1b[?20",
    "osc": b"\x1b]2;half a ti",
    "osc in the middle of a character": b"\x1b]2;\xc3",
    "dcs": b"\x1bP1$q",
    "apc": b"\x1b_Gabc",
    "two bytes of three": b"\xe2\x82",
    "three bytes of four": b"\xf0\x9f\x98",
    "long clipboard": b"\x1b]52;c;" + b"QUJD" * 50_000,
}
ENDINGS = (b"1mbold\x1b[m", b"\xac\x80", b"\xa9\x07after", b"04h\x1b\\tail", b"le\x07text")


@pytest.mark.parametrize("first", SEEDS)
def test_restore_equals_the_original(first: int) -> None:
    """After any output and any resizes, the restored screen, its text included, is the one that was saved."""
    for seed in range(first, first + 10):
        with play(noise(seed)) as original, Emulator.decode(original.encode()) as copy:
            assert restored(copy.dump()) == restored(original.dump()), seed


@pytest.mark.parametrize("first", SEEDS)
def test_restoring_again_changes_nothing(first: int) -> None:
    """However often a state is restored and saved, the screen stays the same, and so do the bytes in the end.

    libghostty numbers styles anew while it decodes; that settles after a restore or two.
    """
    for seed in range(first, first + 10):
        with play(noise(seed)) as original:
            states = [original.encode()]
            for _ in range(4):
                with Emulator.decode(states[-1]) as copy:
                    assert restored(copy.dump()) == restored(original.dump()), seed
                    states.append(copy.encode())
            assert states[-1] == states[-2], seed


def test_a_restored_log_is_saved_to_the_same_bytes() -> None:
    """Ordinary coloured output, history included, encodes to the very bytes that it was decoded from."""
    with Emulator(80, 24) as emulator:
        for number in range(3000):
            emulator.feed(
                f"\x1b[3{number % 8}mline {number}\x1b[0m and \x1b[1;38;5;{number % 256}mmore\x1b[m\r\n".encode()
            )
        state = emulator.encode()
    with Emulator.decode(state) as copy:
        assert copy.encode() == state
        assert copy.scrollback_rows == 2977


@pytest.mark.parametrize("first", SEEDS)
def test_the_restored_terminal_goes_on_alike(first: int) -> None:
    """The same further output leads to the same screen, on the original and on the restored one."""
    for seed in range(first, first + 10):
        more = [operation for operation in noise(seed + 1, resizes=False) if isinstance(operation, bytes)]
        with play(noise(seed)) as original, Emulator.decode(original.encode()) as copy:
            for data in (b"\x1b[m\x1b[1;1H", *more):
                original.feed(data)
                copy.feed(data)
            assert restored(copy.dump()) == restored(original.dump()), seed


@pytest.mark.parametrize("first", SEEDS)
def test_cutting_the_input_elsewhere_changes_nothing(first: int) -> None:
    """It does not matter in what pieces output comes, one byte at a time included."""
    for seed in range(first, first + 10):
        size, *pieces = noise(seed, resizes=False)
        data = b"".join(piece for piece in pieces if isinstance(piece, bytes))
        rng = random.Random(seed)
        cuts = sorted(rng.choices(range(len(data) + 1), k=20))
        parts = [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
        single = [data[index : index + 1] for index in range(len(data))]
        with play([size, data]) as whole, play([size, *parts]) as cut, play([size, *single]) as bytewise:
            assert cut.dump() == bytewise.dump() == whole.dump(), seed


@pytest.mark.parametrize("name", UNFINISHED)
def test_a_state_saved_in_the_middle_of_a_sequence_goes_on_there(name: str) -> None:
    """Whatever was half read when the state was saved is finished by the output that follows the restore."""
    for ending in ENDINGS:
        with Emulator(40, 5) as original:
            original.feed(b"before " + UNFINISHED[name])
            state = original.encode()
            with Emulator.decode(state) as copy:
                assert copy.encode() == state
                for emulator in (original, copy):
                    emulator.feed(ending)
                assert copy.dump() == original.dump()


def test_everything_that_a_screen_is_survives() -> None:
    """Both screens, history, styles, links, margins, tab stops, charsets, modes, keyboard, colours, title, folder."""
    with Emulator(40, 6) as original:
        original.feed(b"".join(b"line %d\r\n" % number for number in range(100)))
        original.feed(
            b"\x1b]2;title\x07\x1b]7;file://host/home\x07\x1b]4;3;#123456\x07\x1b]11;#010203\x07"
            b"\x1b[?2004h\x1b[?1002h\x1b[?1006h\x1b[?1h\x1b[>5u\x1b[3g\x1b[7G\x1bH\x1b[2;5r\x1b)0"
            b"\x1b[4;5H\x1b[1;4:3;38;5;9;48;2;1;2;3;58:2::9:8:7mX\x1b]8;;http://a/\x07link\x1b]8;;\x07\x1b7"
            b"\x1b[?1049hfull\x1b[4 q\x1b[?25l\x0e"
        )
        with Emulator.decode(original.encode()) as copy:
            for further in (b"", b"\x1b[?1049l", b"\x1b8\x1b[<u", b"\tafter\x1b[?1049h\x1b[?47h"):
                original.feed(further)
                copy.feed(further)
                assert copy.dump() == original.dump()
                assert copy.history() == original.history()
                assert copy.repaint(50) == original.repaint(50)


def test_a_damaged_state_is_refused() -> None:
    """A state that was cut or changed is never half restored: it raises StateCorrupt."""
    with Emulator(40, 5) as emulator:
        emulator.feed(b"some text")
        state = emulator.encode()
    rng = random.Random(7)
    damaged = [b"", b"x", b"\0" * 500, state[:-1], state[: len(state) // 2], rng.randbytes(2000)]
    for _ in range(50):
        position = rng.randrange(len(state))
        damaged.append(state[:position] + bytes([state[position] ^ 0x41]) + state[position + 1 :])
    for data in damaged:
        with pytest.raises(StateCorrupt):
            Emulator.decode(data)


def test_an_endless_control_string_cannot_be_saved_but_does_no_harm() -> None:
    """Beyond 16 MiB of one string, saving says that it is busy; it works again once the string has ended."""
    with Emulator(40, 5) as emulator:
        emulator.feed(b"\x1b]52;c;" + b"A" * (17 << 20))
        with pytest.raises(StateBusy):
            emulator.encode()
        assert emulator.repaint() == Emulator(40, 5).repaint()
        emulator.feed(b"\x07done")
        with Emulator.decode(emulator.encode()) as copy:
            assert copy.screen() == b"done\n"


def test_a_save_encodes_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The state that is saved is the one that the portable bytes are drawn from."""
    calls, encode = list[None](), Library.encode

    def counted(library: Library, terminal: object) -> bytes:
        calls.append(None)
        return encode(library, terminal)

    monkeypatch.setattr(Library, "encode", counted)
    with Emulator(40, 5) as emulator:
        emulator.feed(b"shell\r\n" * 20 + b"\x1b7\x1b[?1049hfull screen")
        state, portable = emulator.save()
        assert len(calls) == 1
        assert portable == emulator.repaint()
        with Emulator.decode(state) as copy:
            assert copy.dump() == emulator.dump()


@pytest.mark.parametrize("error", [StateBusy("too long"), TerminalError("libghostty: encoding a snapshot failed")])
def test_a_terminal_that_is_not_encoded_is_saved_as_portable_bytes(
    error: TerminalError, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the library's reason to refuse, the portable bytes hold the screen and the whole history."""

    def refuse(*_: object) -> bytes:
        raise error

    with Emulator(40, 5) as emulator, Emulator(40, 5) as copy:
        emulator.feed(b"".join(b"\x1b[31mline %d\x1b[m\r\n" % number for number in range(300)) + b"\x1b[?2004h")
        monkeypatch.setattr(Library, "encode", refuse)
        state, portable = emulator.save()
        assert state == b""
        assert portable == emulator.repaint(1000)
        copy.feed(portable)
        assert (copy.history(), copy.dump()) == (emulator.history(), emulator.dump())
        emulator.feed(b"\x1b[?1049hfull screen")
        copy.feed(b"\x18\x1bc" + emulator.save()[1])
        assert copy.screen() == emulator.screen() == b"\n\n\n\nfull screen\n"


def test_a_repaint_does_without_a_copy_that_cannot_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """A state that the library encodes, but does not decode, keeps no repaint from being drawn."""

    def refuse(*_: object, **__: object) -> object:
        raise StateCorrupt("libghostty cannot read the saved terminal (-2)")

    with Emulator(40, 5) as emulator:
        emulator.feed(b"text\x1b[3;3H")
        expected = emulator.repaint()
        monkeypatch.setattr(Library, "decode", refuse)
        assert emulator.repaint() == expected


def test_the_envelope_keeps_the_journal_position() -> None:
    """What is stored tells how far in the journal it reaches, and refuses what is no saved state."""
    saved = SavedState(native=b"native", position=(1 << 63) + 5)
    data = saved.to_bytes()
    assert SavedState.from_bytes(data) == saved
    for wrong in (b"", data[:10], b"X" + data[1:], data[:9] + b"\xff" + data[10:], b"ORBITS\x02\n" + data[8:]):
        with pytest.raises(StateCorrupt):
            SavedState.from_bytes(wrong)


def test_a_wide_character_that_a_narrower_window_cuts_can_be_saved() -> None:
    """Libghostty cannot encode half a character, which an alternate screen that gets narrower would leave."""
    for enter in (b"\x1b[?1049h", b"\x1b[?47h", b"\x1b[?7l", b"\x1b[?47h\x1bV"):
        for leave in (b"", b"\x1b[?1049l", b"\x1b[?47l"):
            with Emulator(10, 3) as emulator:
                emulator.feed(enter + "12345678你".encode() + leave)
                emulator.resize(9, 3)
                emulator.resize(5, 3)
                emulator.resize(30, 3)
                with Emulator.decode(emulator.encode()) as copy:
                    assert copy.dump() == emulator.dump()


def test_a_cut_wide_character_is_mended_once_a_half_read_sequence_has_ended() -> None:
    """What a narrower window cuts in the middle of a sequence is put right behind it, wherever it stands by then."""
    with Emulator(10, 3) as emulator:
        emulator.feed("\x1b[?1049h\x1b[4h12345678你\x1b[2".encode())
        emulator.resize(9, 3)
        emulator.resize(30, 3)
        emulator.feed(b"Jtext")
        with Emulator.decode(emulator.encode()) as copy:
            assert copy.dump() == emulator.dump()


ICONS = {
    "OSC 1": (b"\x1b]1;icon\x07", "icon"),
    "OSC 0 sets both": (b"\x1b]1;icon\x07\x1b]0;both\x1b\\", "both"),
    "the window's title alone": (b"\x1b]1;icon\x07\x1b]2;title\x07", "icon"),
    "taken back": (b"\x1b]1;icon\x07\x1b]1;\x07", ""),
    "reset with the terminal": (b"\x1b]1;icon\x07\x1bc", ""),
    "set after a reset": (b"\x1bc\x1b]1;icon\x07", "icon"),
    "aborted": (b"\x1b]1;icon\x07\x1b]1;other\x18", "icon"),
    "controls are no part": (b"\x1b]1;i\x00co\x01n\x1b\\", "icon"),
    "not UTF-8": (b"\x1b]1;icon\x07\x1b]1;\xff\x07", "icon"),
    "in the middle of another string": (b"\x1bP$q\x1b]1;icon\x07", "icon"),
    "too long": (b"\x1b]1;icon\x07\x1b]1;" + b"x" * 3000 + b"\x07", "icon"),
}


@pytest.mark.parametrize("name", ICONS)
def test_the_icons_name_is_followed(name: str) -> None:
    """OSC 0 and 1 set it, however the output is cut, and a state that was saved anywhere has it."""
    data, icon = ICONS[name]
    for cut in range(len(data)):
        with Emulator(40, 5) as whole:
            whole.feed(data[:cut])
            with Emulator.decode(whole.encode()) as copy:
                for emulator in (whole, copy):
                    emulator.feed(data[cut:])
                    assert emulator.icon == icon, cut


def test_progress_is_saved() -> None:
    """The progress that a program reports outlives a restore until the program removes it or resets the terminal."""
    for end in (b"\x1b]9;4;0\x07", b"\x1bc"):
        with Emulator(40, 5) as original:
            original.feed(b"\x1b]9;4;1;200\x07")
            with Emulator.decode(original.encode()) as copy:
                assert copy.progress == (1, 100)
                copy.feed(end)
                assert copy.progress is None


def test_the_header_of_a_state_grows() -> None:
    """States without a header, and with fields of later versions, are read; a damaged header is refused."""
    with Emulator(40, 5) as original:
        original.feed(b"text")
        snapshot = original.encode()
        assert StateHeader.split(snapshot) == (StateHeader(), snapshot)
        original.feed(b"\x1b]1;icon\x07")
        state = original.encode()
    fields = msgspec.msgpack.encode({"icon": "icon", "later": [1]})
    later = b"ORBIT\x01" + len(fields).to_bytes(4, "big") + fields + snapshot
    for one in (state, later):
        with Emulator.decode(one) as copy:
            assert (copy.icon, copy.screen()) == ("icon", b"text\n")
    for end in (6, 9, 10, 15, 40):
        with pytest.raises(StateCorrupt):
            Emulator.decode(state[:end])
    with pytest.raises(StateCorrupt):
        Emulator.decode(state[:10] + b"\xc1" + state[11:])
