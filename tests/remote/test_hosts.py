"""What `--host` takes and refuses, and the ssh command that it becomes."""

from __future__ import annotations

import pytest

from orbitctl.cli import run
from orbitctl.client.ssh import Dial, Host, command_line, parse_host
from orbitctl.errors import CommandError
from ssh_support import Near


@pytest.mark.parametrize(
    ("text", "address", "user", "port"),
    [
        ("ssh://box", "box", None, None),
        ("ssh://box/", "box", None, None),
        ("ssh://ada@box.example:2222", "box.example", "ada", 2222),
        ("ssh://ada@corp.example@box", "box", "ada@corp.example", None),
        ("ssh://[::1]:22", "::1", None, 22),
        ("ssh://[fe80::1%eth0]", "fe80::1%eth0", None, None),
        ("ssh://10.0.0.7:1", "10.0.0.7", None, 1),
        ("ssh://bücher.example", "bücher.example", None, None),
        ("local", "", None, None),
    ],
)
def test_a_host_is_read(text: str, address: str, user: str | None, port: int | None) -> None:
    """User, host and port are taken apart; what is not given is left to ssh."""
    assert parse_host(text) == Host(name=text, address=address, user=user, port=port)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "box",
        "ssh://",
        "ssh://@box",
        "ssh:///",
        "ssh://-oProxyCommand=id",
        "ssh://-l@box",
        "ssh://a@-box",
        "ssh://box -v",
        "ssh://a b@box",
        "ssh://box\n",
        "ssh://bo\x1bx",
        "ssh://a\x00@box",
        "ssh://a\x9b@box",
        "ssh://$(id)@box",
        "ssh://`id`",
        "ssh://box;id",
        "ssh://a|b@box",
        "ssh://ada:secret@box",
        "ssh://box:0",
        "ssh://box:65536",
        "ssh://box:+22",
        "ssh://box:٢٢",
        "ssh://box:",
        "ssh://box/path",
        "ssh://[::1",
        "ssh://::1",
        "http://box",
        "SSH://box",
    ],
)
def test_what_ssh_must_not_be_given_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An option, a control character, a blank, a shell's word or a broken URL is a usage error, and nothing runs."""
    with pytest.raises(ValueError, match=r"."):
        parse_host(text)
    assert run(["--host", text, "session", "list"]) == 2
    assert "error: Invalid value for '--host': " in capsys.readouterr().err


def test_the_command_line_ends_its_options() -> None:
    """Port and user are options, `--` ends them, and the far command is one word that the far shell reads."""
    words = command_line(parse_host("ssh://ada@box:2222"), Dial(), {})
    assert words[:2] == ["ssh", "-T"]
    assert words[-7:] == ["-p", "2222", "-l", "ada", "--", "box", "orbitctl dial-stdio"]
    assert "BatchMode=yes" not in words  # ssh may ask for a password


def test_what_was_chosen_reaches_the_far_side_quoted() -> None:
    """The socket is quoted for the far shell; the remote command is the user's own words."""
    dial = Dial(remote_command="~/bin/orbitctl", socket="/a b/$x", autostart=False, quiet=True)
    words = command_line(parse_host("ssh://box"), dial, {})
    assert words[-1] == "~/bin/orbitctl dial-stdio '--socket=/a b/$x' --no-autostart"
    assert "BatchMode=yes" in words


def test_another_ssh_can_be_named() -> None:
    """ORBITCTL_SSH is a command with options, split as a shell would."""
    words = command_line(parse_host("ssh://box"), Dial(), {"ORBITCTL_SSH": "my-ssh -F '/a b/config'"})
    assert words[:4] == ["my-ssh", "-F", "/a b/config", "-T"]


def test_an_unbalanced_quote_in_the_ssh_command_is_told() -> None:
    """ORBITCTL_SSH that is no command line is a usage error."""
    with pytest.raises(CommandError, match="ORBITCTL_SSH is no command"):
        command_line(parse_host("ssh://box"), Dial(), {"ORBITCTL_SSH": "ssh '"})


@pytest.mark.parametrize(
    "command",
    ["daemon stop", "service install", "config show", "doctor", "maintenance backup", "completion bash", "dial-stdio"],
)
def test_what_is_about_its_own_machine_takes_no_host(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Commands that work on files and processes refuse --host, wherever it stands."""
    for words in (["--host", "ssh://box", *command.split()], [*command.split(), "--host", "ssh://box"]):
        assert run(words) == 2
        assert "is about the machine that it runs on" in capsys.readouterr().err


def test_the_host_of_a_new_ssh_session_is_another_option(capsys: pytest.CaptureFixture[str]) -> None:
    """`session create --host` is still the host of the session, so the machine is named before the command."""
    assert run(["session", "create", "--host", "db.example", "--type", "local"]) == 2
    assert "are for --type ssh" in capsys.readouterr().err


def test_other_commands_talk_to_one_host(capsys: pytest.CaptureFixture[str]) -> None:
    """Anything but `session list` refuses several hosts before any of them is reached."""
    assert run(["--host", "ssh://a", "--host", "ssh://b", "session", "show", "x"]) == 2
    assert "only `orbitctl session list` takes more than one --host" in capsys.readouterr().err


def test_this_machine_alone_is_no_other_machine(near: Near) -> None:
    """`--host local` is as no --host: what is about this machine is allowed, and the daemon is the near one."""
    assert near.ctl("--host", "local", "config", "path").code == 0
    assert near.ctl("--host", "local", "status").text.startswith("orbitd:")
