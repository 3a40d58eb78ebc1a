"""Names: one spelling of each, and its bounds."""

from __future__ import annotations

from unicodedata import is_normalized, normalize

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orbit_protocol.params import ByRef, SessionCreate, SessionRename, WorkspaceCreate, WorkspaceRename
from orbit_protocol.types import MAX_NAME_LENGTH, check_name, normal_name

COMBINING = st.text(
    st.sampled_from("aeé日e\u0301\u0323\u0307각가ᄀ\u1100\u1161\u11a8\u212bΩ\u2126ﬁ\u0958"), max_size=40
)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40) | COMBINING)
def test_all_spellings_of_a_name_are_one(text: str) -> None:
    """Composed, decomposed and mixed spellings become the same text, which stays what it is."""
    spellings = [text, normalize("NFC", text), normalize("NFD", text), normalize("NFD", text[:3]) + text[3:]]
    if not text:
        with pytest.raises(ValueError, match="`name` must have 1 to 256 characters"):
            normal_name(text)
        return
    name = normal_name(text)
    assert {normal_name(one) for one in spellings} == {name}
    assert is_normalized("NFC", name)
    assert normal_name(name) == name


@given(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=200, max_size=400) | COMBINING.map(lambda one: one * 12)
)
def test_the_length_counts_in_nfc(text: str) -> None:
    """A name is as long as its composed form, however it was written."""
    fits = 1 <= len(normalize("NFC", text)) <= MAX_NAME_LENGTH
    for spelling in (text, normalize("NFD", text)):
        try:
            assert normal_name(spelling) == normalize("NFC", text)
        except ValueError:
            assert not fits
        else:
            assert fits


@pytest.mark.parametrize("character", ["e\u0301", "\u1100\u1161\u11a8", "\u03b1\u0313\u0300\u0345", "x"])
def test_256_characters_are_a_name_and_257_are_not(character: str) -> None:
    """The bound holds for letters that are decomposed into two, three and four, too."""
    assert normal_name(character * 256) == normalize("NFC", character) * 256
    with pytest.raises(ValueError, match="1 to 256"):
        normal_name(character * 257)
    with pytest.raises(ValueError, match="1 to 256"):
        normal_name("a" + "\u0301\u0323" * 1_000_000)  # refused without normalizing it


@pytest.mark.parametrize("text", ["\ud800", "a\udcff", "\udfff\u0301"])
def test_a_lone_surrogate_is_no_name(text: str) -> None:
    """Bytes that are not UTF-8 come as surrogates from the command line, and are refused by name."""
    with pytest.raises(ValueError, match="`name` is not UTF-8"):
        normal_name(text)


@pytest.mark.parametrize("text", ["a\nb", "\x1b[31m", "\x00", "\x9b", "e\u0301\x7f"])
def test_a_new_name_has_no_control_characters(text: str) -> None:
    """Names are shown on terminals, which they may not steer."""
    with pytest.raises(ValueError, match="`name` may not hold control characters"):
        check_name(text)


def test_every_name_and_reference_in_params_is_taken_in_nfc() -> None:
    """Names and references of all methods are in NFC once they are decoded or made."""
    nfd, nfc = "cafe\u0301", "caf\u00e9"
    config, layout = '{"session_type":"local"}', '{"layout_type":"x","config":{}}'
    texts = {
        SessionCreate: f'{{"name":"{nfd}","config":{config}}}',
        SessionRename: f'{{"name":"{nfd}","id":"x"}}',
        WorkspaceCreate: f'{{"name":"{nfd}","layout":{layout}}}',
        WorkspaceRename: f'{{"name":"{nfd}","id":"x"}}',
    }
    assert {msgspec.json.decode(text, type=kind).name for kind, text in texts.items()} == {nfc}
    assert msgspec.json.decode(f'{{"ref":"{nfd}"}}', type=ByRef).ref == nfc
    assert ByRef(ref=nfd) == ByRef(ref=nfc)
    assert SessionRename(id="x", name=None).name is None
