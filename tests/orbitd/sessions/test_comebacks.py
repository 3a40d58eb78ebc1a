"""Which sessions come back after a reboot without being asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from orbit_os import shells as system_shells
from orbit_protocol.types import SessionConfig
from orbitd.sessions.restore import comes_back

SHELLS = """
bash
/bin/bash
bash -l
bash -il
bash --login --norc
bash --rcfile ~/rc
bash --rcfile=x -i
bash -o vi
bash +o history
bash -O extglob -i
bash -eo pipefail
bash -
bash --
bash -s
'bash'
zsh -i
zsh -o extendedglob
zsh -oextendedglob
/opt/strange/fish
fish -C 'cd /x'
fish --init-command 'cd /x' -l
strange
strange -l -i
own
"""

OTHERS = """
bash -c x
bash -lc x
bash -xec 'make all'
bash script.sh
bash -l script.sh
bash -o vi script.sh
bash --rcfile rc script.sh
bash -s < file
bash - script
bash -- script
zsh -oextendedglob x
fish -c x
fish -ic x
fish --command x
fish --command=x
fish x
strange --run x
strange -x
env -i bash
sudo bash
vim
bashful
'unclosed
""
"""


@pytest.fixture(autouse=True)
def shells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system with these shells, and a user with another one."""
    file = tmp_path / "shells"
    file.write_text("# Shells of this system\n\n/bin/bash\n/usr/bin/zsh # the newer one\n/usr/bin/fish\n/x/strange\n")
    monkeypatch.setattr(system_shells, "SHELLS_FILE", str(file))
    monkeypatch.setenv("SHELL", "/home/me/bin/own")


def local(command: str | None, **fields: object) -> SessionConfig:
    """Return the configuration of a local session."""
    return SessionConfig(session_type="local", command=command, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("command", SHELLS.strip().splitlines())
def test_a_shell_comes_back(command: str) -> None:
    """However it is spelled: a shell of this system or the user's own that is there to be typed into."""
    assert comes_back(local(command))


@pytest.mark.parametrize("command", OTHERS.strip().splitlines())
def test_what_is_no_shell_does_not(command: str) -> None:
    """A command is run again by nobody but who wishes it."""
    assert not comes_back(local(command))
    assert comes_back(local(command, restart=True))
    assert comes_back(local(command, resume="vim -r"))


def test_a_login_shell_comes_back() -> None:
    """So does a session without a command, but no ssh without a wish: it may ask for a password."""
    assert comes_back(local(None))
    assert not comes_back(SessionConfig(session_type="ssh", host="h"))
    assert comes_back(local("other -l", env={"SHELL": "/opt/other"}))


def test_a_system_without_a_list_of_shells(monkeypatch: pytest.MonkeyPatch) -> None:
    """The usual names are shells there."""
    monkeypatch.setattr(system_shells, "SHELLS_FILE", "/nonexistent")
    assert comes_back(local("/usr/local/bin/bash -l"))
    assert not comes_back(local("vim"))
