"""The daemon and a plain model of the contract side by side, through restarts and kills.

In the suite the examples are few and always the same. The long mode multiplies them and draws
new ones: `ORBIT_FUZZ_FACTOR=50 pytest tests/model`, or `python -m benchmarks.soak --fuzz N`.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from fuzz.target import bounded
from model.machine import Machine
from support import DaemonProcess

pytestmark = pytest.mark.slow

EXAMPLES, STEPS = 40, 40
CONFIG = "[session]\nauto_save_interval_secs = 86400\n"  # what is saved when is the model's to say


@pytest.fixture
def served() -> Iterator[None]:
    home = Path(tempfile.mkdtemp(prefix="orbit-", dir="/tmp"))
    config = home / "config.toml"
    config.write_text(CONFIG)
    Machine.daemon = DaemonProcess(home, "--config", str(config)).start()
    try:
        yield
    finally:
        Machine.daemon.end()
        shutil.rmtree(home)


@pytest.mark.usefixtures("served")
def test_the_daemon_does_what_the_model_says() -> None:
    """Whatever is called in whatever order, through restarts and kills, daemon and model agree."""
    run_state_machine_as_test(Machine, settings=settings(bounded(EXAMPLES), stateful_step_count=STEPS))
