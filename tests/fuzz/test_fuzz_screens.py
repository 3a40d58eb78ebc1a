"""What programs print hurts nothing but their own picture: seeded output through a real daemon."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fuzz.screens import Fed, case
from fuzz.target import FACTOR
from support import DaemonProcess

pytestmark = pytest.mark.slow

SEEDS_EACH = 4


@pytest.fixture
def fed() -> Iterator[Fed]:
    home = Path(tempfile.mkdtemp(prefix="orbit-", dir="/tmp"))
    daemon = DaemonProcess(home).start()
    try:
        fed = Fed(daemon)
        yield fed
        fed.close()
    finally:
        daemon.end()
        shutil.rmtree(home)


def test_the_cases_of_a_seed_are_always_the_same() -> None:
    """A seed that a failure names brings the same case back, and no two of the suite's are equal."""
    cases = [case(seed) for seed in range(50)]
    assert cases == [case(seed) for seed in range(50)]
    assert len({(one.size, one.steps) for one in cases}) == 50


@pytest.mark.parametrize("first", range(0, 5 * SEEDS_EACH * FACTOR, SEEDS_EACH))
def test_output_hurts_nothing_but_its_own_picture(fed: Fed, first: int) -> None:
    """Other sessions echo and pings are answered after every step; the next start finds every program alive."""
    seeds = range(first, first + SEEDS_EACH)
    for seed in seeds:
        fed.feed(case(seed))
    fed.restart(seeds)
