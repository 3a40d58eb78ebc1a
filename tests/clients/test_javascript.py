"""The client of examples/javascript, stock JSON-RPC libraries and generated types: node's tests at the real daemon."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from needs import program, require, require_that
from support import clean_environment

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "javascript"
PATIENCE_SECS = 300.0


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the example with its packages, and an orbitctl on the PATH that is this one."""
    require("node", "npm")
    folder = tmp_path_factory.mktemp("example") / "javascript"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("node_modules"))
    command = [program("npm"), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    require_that(ended.returncode == 0, f"an npm registry: {ended.stderr.strip()[-300:]}")
    (folder / "bin").mkdir()
    script = folder / "bin" / "orbitctl"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m orbitctl "$@"\n')
    script.chmod(0o755)
    return folder


@pytest.fixture
def homes() -> Iterator[Path]:
    """A short folder for the homes of daemons; what a suite that was ended has left in it is ended, too."""
    folder = Path(tempfile.mkdtemp(prefix="orbit-", dir="/tmp"))
    yield folder
    for home in folder.iterdir():
        for words in (["start"], ["stop", "--all"]):  # a daemon that was killed does not end its programs
            command = [sys.executable, "-m", "orbitctl", "daemon", *words]
            subprocess.run(command, env=clean_environment(home), check=False, capture_output=True)
    shutil.rmtree(folder)


@pytest.mark.parametrize("suite", sorted(path.name for path in EXAMPLE.glob("test/*.test.js")))
def test_the_javascript_client(example: Path, homes: Path, suite: str) -> None:
    """Each of node's tests passes; what one of them leaves behind ends with it."""
    # A group of its own: a test that hangs has children, and is ended with them.
    node = subprocess.Popen(
        [program("node"), "--test", f"test/{suite}"],
        cwd=example,
        env={**os.environ, "PATH": f"{example / 'bin'}:{os.environ['PATH']}", "ORBIT_TEST_HOMES": str(homes)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = node.communicate(timeout=PATIENCE_SECS)
    except subprocess.TimeoutExpired:
        os.killpg(node.pid, signal.SIGKILL)
        said, _ = node.communicate()
    assert node.returncode == 0, said
    assert list(homes.iterdir()) == []
