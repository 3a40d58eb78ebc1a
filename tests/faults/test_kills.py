"""Nothing acknowledged is lost to kill -9, wherever it hits."""

from __future__ import annotations

from pathlib import Path

import pytest

from faults.kills import Siege

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_acknowledged_is_lost_to_kill_9(home: Path, seed: int) -> None:
    """Killed at random moments under six writing clients, every answered write is there and no other half there."""
    counts = Siege(home, clients=6, seed=seed).run(kills=8)
    assert counts.kills >= 8
    assert counts.answered > 0
