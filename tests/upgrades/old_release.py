"""Orbit as it was at an earlier commit, to be run before, after and beside today's.

The fixture `old_release` gives one for each of `COMMITS`. It is made once a test run: the commit's files come from
git, they are built into a wheel as pip builds it, and the wheel is unpacked into a virtual environment outside of the
checkout. What Orbit depends on is taken from the environment that runs the tests, so that nothing is downloaded. The
old packages come first on that environment's path, and an editable installation of today's does not reach it.

A test replaces one release by the other in the same home:

    old_release.replace(daemon)     # a `DaemonProcess` that does not run: its next start runs the old orbitd
    daemon.start()
    ...                             # put in whatever the change that is tested has to take over
    daemon.stop()
    replace_by_today(daemon)        # and its next start today's
    daemon.start()

A change of schema, of journals or of the keeper is covered by the tests of `test_old_release` as they are, and so is
one that adds fields to what is compared there: every field that the old release has is compared, and no other. A commit
that users have run for a while is added to `COMMITS`; every test then runs for each of them.
"""

from __future__ import annotations

import fcntl
import io
import os
import site
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from msgspec import Struct

from ctl_support import Orbitctl
from needs import require, require_that
from support import DaemonProcess, build

ROOT = Path(__file__).resolve().parents[2]
COMMITS = ("5c9d1113ff1e594299a0befb760976cbfc723384",)
"""The releases that have to be taken over: schema 2, journals of version 1, keepers of version 1."""


class OldRelease(Struct, frozen=True, kw_only=True):
    """An installation of an earlier Orbit.

    Args:
        commit: What it was made of.
        folder: The virtual environment.
    """

    commit: str
    folder: Path

    @property
    def python(self) -> list[str]:
        """The command that runs its Python; isolated, so that no PYTHONPATH leads to today's."""
        return [str(self.folder / "bin" / "python"), "-I"]

    def replace(self, daemon: DaemonProcess) -> DaemonProcess:
        """Make a daemon's next start one of this release."""
        daemon.command = [*self.python, "-m", "orbitd"]
        return daemon

    def orbitctl(self, home: Path) -> Orbitctl:
        """Return this release's orbitctl in a home."""
        ctl = Orbitctl(home)
        ctl.command = [*self.python, "-m", "orbitctl"]
        return ctl


def replace_by_today(daemon: DaemonProcess) -> DaemonProcess:
    """Make a daemon's next start one of this checkout."""
    daemon.command = [sys.executable, "-m", "orbitd"]
    return daemon


def install(commit: str, tmp_path_factory: pytest.TempPathFactory) -> OldRelease:
    """Return the release of a commit, which the first of all workers makes."""
    require("git")
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent  # each worker has a folder of its own in the run's
    folder = shared / f"orbit-{commit[:7]}"
    with (shared / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "done").exists():
            _install(_wheel(commit, folder), folder)
            (folder / "done").touch()
    return OldRelease(commit=commit, folder=folder)


def _wheel(commit: str, folder: Path) -> Path:
    """Build the wheel of a commit; skip the test where this is no clone that has it."""
    # A checkout that belongs to another user is no danger here: nothing that it configures runs while git archives.
    command = ["git", "-c", "safe.directory=*", "-C", str(ROOT), "archive", "--format=zip", commit]
    archived = subprocess.run(command, capture_output=True, check=False)
    why = archived.stderr.decode(errors="replace").strip()
    require_that(
        archived.returncode == 0,
        f"commit {commit[:7]} of Orbit's history, which an sdist and a shallow clone lack"
        f" (git fetch --unshallow gets it): {why}",
    )
    with zipfile.ZipFile(io.BytesIO(archived.stdout)) as files:
        files.extractall(folder / "source")
    return build("wheel", folder / "source", folder)


def _install(wheel: Path, folder: Path) -> None:
    """Install a wheel of pure Python, and lend it the packages that it requires."""
    venv.create(folder, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as files:
        files.extractall(packages)
    # site(3): a path file's folders come behind the folder that it is in, and path files in them are not read.
    lent = [*site.getsitepackages(), site.getusersitepackages()]
    (packages / "requirements.pth").write_text("".join(f"{path}\n" for path in lent))
