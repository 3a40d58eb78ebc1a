"""The fixture of an earlier Orbit."""

from __future__ import annotations

import pytest

from upgrades.old_release import COMMITS, OldRelease, install


@pytest.fixture(scope="session", params=COMMITS, ids=[commit[:7] for commit in COMMITS])
def old_release(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> OldRelease:
    """An earlier Orbit, installed outside of the checkout; see `old_release`."""
    return install(request.param, tmp_path_factory)
