"""A program of the machine that Orbit needs and that is missing: an error that names it and the next step."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctl_support import Ended, Orbitctl
from needs import needs
from orbitctl.client.paths import ClientPaths
from orbitctl.errors import CommandError, ExitCode
from orbitctl.service.manager import SystemdUser, run
from orbitctl.service.units import this_installation, write
from support import DaemonProcess, clean_environment


@pytest.fixture
def bare(home: Path) -> Orbitctl:
    """The command line on a machine whose PATH leads to no program at all."""
    (home / "nothing").mkdir()
    return Orbitctl(home, clean_environment(home, PATH=str(home / "nothing")))


def says(ended: Ended, code: ExitCode, error: str, hint: str) -> None:
    """Check that a command ended with an exit code, an error and a hint, and with nothing more."""
    assert (ended.code, ended.out) == (code, b""), ended
    first, second = ended.err.splitlines()
    assert (first, hint in second) == (f"error: {error}", True), ended.err
    assert second.startswith("hint: ")


@pytest.mark.parametrize("words", ["session list", "session create -- bash", "session show x", "status"])
def test_another_machine_needs_ssh(bare: Orbitctl, words: str) -> None:
    """Without ssh no other machine is reached: exit 3, and the package that has it."""
    ended = bare("--host", "ssh://example.org", *words.split())
    says(ended, ExitCode.UNREACHABLE, "cannot run ssh: No such file or directory", "openssh-client")


def test_another_ssh_that_is_named_is_needed(bare: Orbitctl) -> None:
    """An ssh that ORBITCTL_SSH names and that is not there is named as it was written, with the variable."""
    ended = bare("--host", "ssh://example.org", "session", "list", ORBITCTL_SSH="/opt/ssh -v")
    says(ended, ExitCode.UNREACHABLE, "cannot run /opt/ssh: No such file or directory", "ORBITCTL_SSH")


@needs(linux=True)
@pytest.mark.parametrize("words", ["install", "install --no-start", "status"])
def test_a_service_needs_its_manager(bare: Orbitctl, words: str) -> None:
    """Without systemctl there is no service: what runs orbitd without one, and the package, and nothing is written."""
    ended = bare("service", *words.split())
    error = "systemctl is not installed here, so there is no service manager to run orbitd"
    says(ended, ExitCode.ERROR, error, "`orbitctl daemon start` runs it without one")
    assert "the package systemd" in ended.err
    assert not (bare.home / ".config").exists()


@needs(linux=True)
def test_the_log_of_a_service_needs_the_journal(bare: Orbitctl) -> None:
    """Where a service is installed and journalctl is missing, the unit and the package are named."""
    for unit in SystemdUser(bare.environment).units(this_installation(ClientPaths(bare.environment, None))):
        write(unit)
    ended = bare("daemon", "logs")
    says(ended, ExitCode.ERROR, "cannot run journalctl: No such file or directory", "the unit orbitd.service")
    assert "(Debian: systemd)" in ended.err


@needs(linux=True)
def test_an_installed_service_without_its_manager_keeps_nobody_waiting(bare: Orbitctl) -> None:
    """Where units are installed and systemctl is missing, a command says so and starts orbitd by itself."""
    for unit in SystemdUser(bare.environment).units(this_installation(ClientPaths(bare.environment, None))):
        write(unit)
    try:
        ended = bare("session", "list")
        assert ended.code == 0, ended
        assert "the installed service did not start: systemctl is not installed here" in ended.err
    finally:
        bare("daemon", "stop")


@pytest.mark.parametrize("more", [(), ("--follow",)])
def test_the_log_file_needs_tail(bare: Orbitctl, more: tuple[str, ...]) -> None:
    """Without tail the log's path is named, so that any other program can show it."""
    log = Path(ClientPaths(bare.environment, None).log_file)
    log.parent.mkdir(parents=True)
    log.write_text("one line\n")
    ended = bare("daemon", "logs", *more)
    says(ended, ExitCode.ERROR, "cannot run tail: No such file or directory", f"with another program: {log}")
    assert "coreutils" in ended.err


def test_completion_needs_no_shell(bare: Orbitctl) -> None:
    """The script for a shell is printed where that shell is not installed, too."""
    for shell in ("bash", "zsh", "fish"):
        ended = bare("completion", shell)
        assert (ended.code, b"_complete" in ended.out, "Traceback" in ended.err) == (0, True, False), ended


def test_a_manager_that_cannot_be_executed_is_an_error(tmp_path: Path) -> None:
    """A systemctl without permission to execute it is named, with the system's words."""
    (tmp_path / "systemctl").write_text("")
    with pytest.raises(CommandError, match="cannot run systemctl: Permission denied"):
        run(["systemctl", "--user", "show"], {"PATH": str(tmp_path)})


@pytest.mark.parametrize(
    ("words", "program", "hint"),
    [
        ("--host example.org", "ssh", "Debian: openssh-client"),
        ("", "/bin/no-such-shell", "set SHELL to a shell that this machine has"),
        ("-- no-such-program", "no-such-program", "Check the command and that it can be executed."),
    ],
)
def test_a_sessions_program_is_needed(
    stopped_daemon: DaemonProcess, bare: Orbitctl, words: str, program: str, hint: str
) -> None:
    """A live session whose program is missing on the daemon's machine does not start, with the next step."""
    stopped_daemon.environment |= {"PATH": bare.environment["PATH"], "SHELL": "/bin/no-such-shell"}
    stopped_daemon.start()
    bare.ok("session", "create", "--name", "web", *words.split())
    ended = bare("session", "start", "web", SHELL="/bin/no-such-shell")
    says(ended, ExitCode.ERROR, f"{program}: No such file or directory", hint)
