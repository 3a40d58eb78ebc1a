"""Tab in real shells on a terminal: what the shell passes to orbitctl afterwards is the name."""

from __future__ import annotations

import os
import sys

import pytest

from attach_support import Window
from ctl_support import Orbitctl
from needs import program, require, require_that
from support import RawClient

# A busy machine needs longer for an answer than a person waits.
ORBITCTL = f"""#!{sys.executable}
from orbitctl.__main__ import main
from orbitctl.completion import answer
answer.TIMEOUT = 20.0
main()
"""
STARTS = {
    "bash": ("bash --norc --noprofile -i", 'eval "$(orbitctl completion bash)"'),
    "bash with bash-completion": (
        "bash --norc --noprofile -i",
        '. "$BASH_COMPLETION"; eval "$(orbitctl completion bash)"',
    ),
    "zsh": ("zsh -f -i", 'eval "$(orbitctl completion zsh)"'),
    "zsh after compinit": ("zsh -f -i", 'autoload -Uz compinit; compinit -i -D; eval "$(orbitctl completion zsh)"'),
    "fish": ("fish --no-config -i", "orbitctl completion fish | source"),
}
SHOW = {"fish": "function show; printf '<%s>' $argv; echo; end; echo re''ady"}
BASH_COMPLETION = "/usr/share/bash-completion/bash_completion"
NAMES = ("two words", "a,b", "it's", "x:y", "$HOME", "back\\slash", "-dash", "ünï")
LINES = (
    ("session attach tw", "<two words>"),
    ("session attach 'tw", "<two words>"),
    ('session attach "tw', "<two words>"),
    ("session attach a,", "<a,b>"),
    ("session attach it", "<it's>"),
    ('session attach "it', "<it's>"),
    ("session attach x:", "<x:y>"),
    ("session attach '$", "<$HOME>"),
    ("session attach back", "<back\\slash>"),
    ("session attach -- -", "<--><-dash>"),
    ("session attach ün", "<ünï>"),
    ("workspace show sh", "<shop a>"),
    ("session signal x:y sigki", "<x:y><sigkill>"),
    ("session send a,b --key C-PageU", "<--key><C-PageUp>"),
    ("session create --workspace=sh", "<--workspace=shop a>"),
    ("session run -d -- only-he", "<--><only-here>"),
    ("session run --name x:y ls two\\ f", "<ls><two files>"),
    ("snapshot save a,b two", "<a,b><two files>"),
)
"""What is typed behind `orbitctl` before Tab, and how the words end that the shell passes then."""


DELEGATED = LINES[:1] + LINES[-3:]


@pytest.fixture
def place(process_ctl: Orbitctl, shared_client: RawClient) -> Orbitctl:
    """A folder with a file and a command in it, and a daemon with sessions and a workspace."""
    for name in NAMES:
        shared_client.call("session.create", config={"session_type": "local", "command": "cat"}, name=name)
    shared_client.call("workspace.create", name="shop a", layout={"layout_type": "tabs", "config": {}})
    folder = process_ctl.home / "bin"
    folder.mkdir()
    for name, text in (("orbitctl", ORBITCTL), ("only-here", "#!/bin/sh\n")):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    (process_ctl.home / "two files").touch()
    return process_ctl


@pytest.mark.parametrize("start", STARTS)
def test_a_shell_completes_what_was_begun(place: Orbitctl, start: str) -> None:
    """Whatever is in a name, and in whatever quotes it was begun; also values, files and another command's words."""
    shell = start.partition(" ")[0]
    require(shell)
    if "bash-completion" in start:
        require_that(os.path.exists(BASH_COMPLETION), "bash-completion (Debian: bash-completion)")
    command, setup = STARTS[start]
    environment = {
        "PATH": f"{place.home}/bin:{os.environ['PATH']}",
        "PS1": "$ ",
        "LC_ALL": "C.UTF-8",
        "BASH_COMPLETION": BASH_COMPLETION,
    }
    there = Orbitctl(place.home, {**place.environment, **environment})
    there.command = [program(shell), *command.split()[1:]]
    with Window(there, size=(200, 50)) as window:
        window.type(f"{setup}\r")
        window.type(SHOW.get(shell, "show() { printf '<%s>' \"$@\"; echo; }; echo re''ady") + "\r")
        window.until(rb"[^']ready[\r\n]")
        for typed, passed in LINES if start in ("bash", "zsh", "fish") else DELEGATED:
            # At the beginning of the line then stands `show`, which prints the words that it is given.
            window.type(f"orbitctl {typed}\t\x01show \r")
            window.until(f"{passed}\r\n")
