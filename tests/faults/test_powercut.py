"""Nothing acknowledged is lost to a power cut: replayed from a log of every write and sync."""

from __future__ import annotations

from pathlib import Path

import pytest

from faults.powercut import Recording

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_acknowledged_is_lost_to_a_power_cut(home: Path, seed: int) -> None:
    """Whatever a disk keeps of what was not synced, every answered write is there and no other half there."""
    recording = Recording(home, clients=4, seed=seed)
    recording.write(calls=40)
    outcome = recording.cut(chance=0.15)
    assert outcome.cuts > 20
    assert outcome.wrong == []


def test_a_film_has_all_that_its_snapshot_has(home: Path) -> None:
    """Whatever a disk keeps of what was not synced, a film has each line once, as far as the newest snapshot goes."""
    recording = Recording(home, clients=0, seed=4)
    session_id = recording.film(saves=12)
    outcome = recording.cut_film(session_id, chance=0.3)
    assert outcome.answered > 0
    assert outcome.wrong == []


def test_a_power_cut_is_noticed_where_nothing_is_synced(home: Path) -> None:
    """With synchronous=OFF the same test fails, so that it can be believed."""
    recording = Recording(home, clients=4, seed=3, careless=True)
    recording.write(calls=40)
    outcome = recording.cut(chance=0.5)
    assert outcome.cuts > 0
    assert outcome.wrong != []
