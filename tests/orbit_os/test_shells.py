"""Which commands are shells that come back by themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from orbit_os.shells import is_interactive_shell, login_shells


@pytest.mark.parametrize(
    ("command", "is_shell"),
    [
        ("bash", True),
        ("/usr/bin/zsh -l", True),
        ("bash --norc --noprofile", True),
        ("bash -i -o vi --rcfile '/a b'", True),
        ("sh -c 'make all'", False),
        ("bash -lc top", False),
        ("zsh script.sh", False),
        ("bash -- script.sh", False),
        ("bash --rcfile", True),
        ("python3", False),
        ("bash 'unfinished", False),
        ("", False),
    ],
)
def test_a_shell_without_a_script_is_known(command: str, is_shell: bool) -> None:
    """One that would run a script, or commands of its argument, is none: it does something by itself."""
    assert is_interactive_shell(command, frozenset({"bash", "sh", "zsh"})) is is_shell


def test_the_shells_are_those_of_the_machine(tmp_path: Path) -> None:
    """Comments and relative names are left out; without a file there are those of getusershell(3)."""
    path = tmp_path / "shells"
    path.write_bytes(b"# comment\n/bin/bash # mine\n\nfish\n/opt/\xff/nu\n")
    assert login_shells(str(path)) == {"bash", "nu"}
    assert login_shells(str(tmp_path / "none")) == {"sh", "csh"}
