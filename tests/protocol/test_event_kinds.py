"""Kinds of events as clients name them."""

from __future__ import annotations

import pytest

from orbit_protocol.errors import InvalidParams
from orbit_protocol.event_kinds import GROUPS, LIVE_KINDS, STORED_KINDS, expand_kinds


def test_without_kinds_all_but_saved_screens_are_meant() -> None:
    """Who names nothing hears everything, stored and live, but not each snapshot."""
    assert expand_kinds(None) == (STORED_KINDS.keys() | LIVE_KINDS.keys()) - {"snapshot.saved"}


def test_a_group_stands_for_its_kinds() -> None:
    """`snapshot.*` names what is left out otherwise; groups and names may be mixed."""
    assert expand_kinds(["snapshot.*", "workspace.opened"]) == {"snapshot.saved", "workspace.opened"}
    assert set().union(*(expand_kinds([group]) for group in GROUPS)) == STORED_KINDS.keys() | LIVE_KINDS.keys()


@pytest.mark.parametrize("name", ["session.exploded", "nothing.*", "*", "session.", ".*", "session.e*", "session"])
def test_what_cannot_happen_is_refused_by_name(name: str) -> None:
    """A kind or group that does not exist is refused, with what there is."""
    with pytest.raises(InvalidParams, match=r"`handles`: there is no event") as refused:
        expand_kinds(["session.*", name], "handles")
    assert name in refused.value.message
    assert "command.finished" in refused.value.hint
