"""What `--host` takes and refuses, and the ssh command that it becomes."""

from __future__ import annotations

import shlex
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orbit_protocol.types import SessionConfigInput
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
        ("ssh://CORP\\ada@box", "box", "CORP\\ada", None),
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
        "ssh://ada\\@box",
        "ssh://[a b]",
        "ssh://a@[-v]",
        "ssh://[a]b]",
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


HOSTS = {
    "box": True,
    "box.example": True,
    "b\u00fccher.example": True,
    "10.0.0.7": True,
    "::1": True,
    "fe80::1%eth0": True,
    "my_alias+1,x=y#~": True,
    "h" * 255: True,
    "h" * 256: False,
    "": False,
    "-box": False,
    "-oProxyCommand=id": False,
    "a b": False,
    "a\tb": False,
    "a\u00a0b": False,
    "a\nb": False,
    "a\x00b": False,
    "a\x7fb": False,
    "a\u202eb": False,
    "a\u200bb": False,
    "\udcff": False,
    "a\\b": False,
    "a\\": False,
    "u@box": True,
    "DOMAIN\\u@corp.example@box": True,
    "u@": False,
    "@box": False,
    "u@-oProxyCommand=id": False,
    "-l@box": False,
    "$(id)@box": False,
    "u\\@box": False,
    "[::1]": False,
    "work/box": True,
    "ssh://box": False,
    "ssh://u@box": False,
    "$(id)": False,
    "box$": False,
    **{f"a{sign}b": False for sign in "'\"`$;&<>|(){}"},
}
USERS = {
    "ada": True,
    "a-d.a_1%": True,
    "DOMAIN\\ada": True,
    "ada@corp.example": True,
    "\u00e4da": True,
    "u" * 256: True,
    "u" * 257: False,
    "": False,
    "-l": False,
    "a b": False,
    "a -l": False,
    "a\nb": False,
    "a\x00b": False,
    "a\x9bb": False,
    "a\u2028b": False,
    "ada\\": False,
    "ada/admin": True,
    "ssh://ada": False,
    "MACHINE$": True,
    "$HOME": False,
    "a$$": False,
    **{f"a{sign}b": False for sign in "'\"`$;&<>|(){}"},
}


def is_taken(work: Callable[[], object]) -> bool:
    try:
        work()
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("host", HOSTS)
def test_one_rule_for_hosts(host: str) -> None:
    """A host that a session may have may stand in --host, and none else may."""
    assert is_taken(lambda: SessionConfigInput(session_type="ssh", host=host)) == HOSTS[host]
    url = f"ssh://[{host}]" if ":" in host else f"ssh://{host}"
    if not {"@", "[", "/"} & set(host):  # a URL's own signs
        assert is_taken(lambda: parse_host(url)) == HOSTS[host]


@pytest.mark.parametrize("user", USERS)
def test_one_rule_for_users(user: str) -> None:
    """A user that a session may have may stand in --host, and none else may; a password is for neither."""
    assert is_taken(lambda: SessionConfigInput(session_type="ssh", host="h", username=user)) == USERS[user]
    if "/" not in user:  # a URL's own sign
        assert is_taken(lambda: parse_host(f"ssh://{user}@box")) == USERS[user]


@given(st.text(max_size=12) | st.text("a-@%\\'\"`$;&<>|(){}[] \t\n\x00.", max_size=6))
def test_no_word_that_is_taken_steers_a_shell_or_ssh(word: str) -> None:
    """Whatever is taken as a host or user is one word for a shell that reads it unquoted, and no option."""
    user = word.replace("\\", "").removesuffix("$")  # the signs of a shell that a user may hold
    for host, username in ((word, None), ("h", user)):
        if host and "\\" in host.rpartition("@")[0]:
            continue
        if is_taken(lambda: SessionConfigInput(session_type="ssh", host=host, username=username)):  # noqa: B023  # called at once
            given = username or host
            assert shlex.split(given) == [given]
            assert given.isprintable()
            assert not given.startswith("-")


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


def test_variables_of_blanks_name_nothing() -> None:
    """ORBITCTL_SSH and ORBITCTL_REMOTE_COMMAND with blanks alone count as not set."""
    words = command_line(parse_host("ssh://box"), Dial(), {"ORBITCTL_SSH": " ", "ORBITCTL_REMOTE_COMMAND": " "})
    assert words == command_line(parse_host("ssh://box"), Dial(), {})


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
    assert "only `orbitctl ls` and `session list` take more than one --host" in capsys.readouterr().err


def test_this_machine_alone_is_no_other_machine(near: Near) -> None:
    """`--host local` is as no --host: what is about this machine is allowed, and the daemon is the near one."""
    assert near.ctl("--host", "local", "config", "path").code == 0
    assert near.ctl("--host", "local", "status").text.startswith("orbitd:")
