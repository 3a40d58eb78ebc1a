"""The command line with arguments, folders, variables and a HOME that are not UTF-8."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from commands_page import walk
from ctl_support import InProcess, Orbitctl
from orbitctl.cli import cli
from orbitctl.errors import ExitCode
from support import clean_environment

CAFE = os.fsdecode(b"caf\xe9")
SHOWN = r"caf\xe9"
ASCII_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
LEFT_OUT = {
    *(f"orbitctl daemon {name}" for name in ("run", "logs", "start", "restart")),  # become or leave another program
    *(f"orbitctl service {name}" for name in ("install", "uninstall")),  # act on this machine's service manager
}
COMMANDS = [
    (command, context.command_path)
    for command, context in walk(cli, click.Context(cli, info_name="orbitctl"))
    if not isinstance(command, click.Group) and context.command_path not in LEFT_OUT
]

ASKING = [each for each in COMMANDS if each[1].split()[1] in ("session", "snapshot", "workspace", "rpc", "maintenance")]


def b64(text: str) -> str:
    return base64.b64encode(os.fsencode(text)).decode()


@pytest.fixture
def odd_ctl(home: Path) -> Iterator[Orbitctl]:
    """`python -m orbitctl` in a home that is not UTF-8, without a daemon; one that it starts is stopped in the end."""
    odd_home = home / CAFE
    odd_home.mkdir(mode=0o700)
    ctl = Orbitctl(odd_home)
    yield ctl
    InProcess(odd_home)("daemon", "stop", "--all")


def odd_values(command: click.Command) -> list[str]:
    """Return a command line that has a value that is not UTF-8 wherever one can stand."""
    line: list[str] = []
    for param in command.params:
        takes_any = isinstance(param.type, click.types.StringParamType | click.Path | click.types.UnprocessedParamType)
        if isinstance(param, click.Argument):
            line.append(CAFE if takes_any or not isinstance(param.type, click.Choice) else param.type.choices[0])
        elif takes_any and not param.is_flag and not set(param.opts) & {"--socket", "--host", "--remote-command"}:
            line += [param.opts[-1], CAFE]
    return line


@pytest.mark.parametrize(("command", "path"), COMMANDS, ids=[path for _, path in COMMANDS])
def test_no_command_raises(offline: Orbitctl, command: click.Command, path: str) -> None:
    """Every command ends with one of the exit codes and a sentence, whatever bytes it is given."""
    ended = offline(*path.split()[1:], *odd_values(command))
    assert ended.code in set(ExitCode)
    assert "\udce9" not in ended.err


@pytest.mark.parametrize(("command", "path"), ASKING, ids=[path for _, path in ASKING])
def test_no_call_raises(ctl: Orbitctl, command: click.Command, path: str) -> None:
    """Nor does one that reaches the daemon, which goes on."""
    ended = ctl(*path.split()[1:], *odd_values(command))
    assert ended.code in set(ExitCode)
    assert "Internal error" not in ended.err
    ctl.ok("session", "list")


@pytest.mark.parametrize(
    "arguments",
    [
        ("session", "create", "--name", CAFE),
        ("session", "show", CAFE),
        ("session", "rename", CAFE, "x"),
        ("session", "create", "--host", CAFE),
        ("session", "create", "--workspace", CAFE),
        ("workspace", "create", CAFE),
        ("snapshot", "delete", "--yes", CAFE),
        ("session", "attach", CAFE),
        ("rpc", "call", CAFE),
    ],
)
def test_names_are_text(ctl: Orbitctl, process_ctl: Orbitctl, arguments: tuple[str, ...]) -> None:
    """A name, and what refers to one, that is not UTF-8 is a usage error that shows it."""
    run = (lambda *words: process_ctl.on_terminal(*words)) if "attach" in arguments else ctl
    ended = run(*arguments)
    assert ended.code == ExitCode.USAGE
    assert f"is not UTF-8: {SHOWN}" in ended.err + ended.text


@pytest.mark.parametrize("arguments", [(CAFE,), ("session", CAFE), ("session", "create", "--env", CAFE)])
def test_usage_errors_show_what_was_typed(offline: Orbitctl, arguments: tuple[str, ...]) -> None:
    """A command or a value that cannot be is quoted with its bytes as everywhere."""
    ended = offline(*arguments)
    assert (ended.code, f"'{SHOWN}'" in ended.err) == (ExitCode.USAGE, True)


def test_a_path_of_the_configuration_is_utf8_in_every_locale(lonely: Orbitctl) -> None:
    """The database that the file names is the same where the locale knows ASCII only."""
    config = lonely.home / ".config" / "orbit" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(f'[session]\ndatabase_path = "{lonely.home}/ü/x.db"\n', encoding="utf-8")
    lonely.ok("session", "list", **ASCII_LOCALE)
    assert (lonely.home / "ü" / "x.db").exists()
    assert r"\xc3\xbc/x.db" in lonely.ok("doctor", **ASCII_LOCALE).text
    lonely.ok("daemon", "stop", **ASCII_LOCALE)


def test_a_name_is_text_in_every_locale(process_ctl: Orbitctl) -> None:
    """UTF-8 is taken where the locale knows ASCII only, and what is not is refused there too."""
    created = process_ctl.ok("session", "create", "--json", "--name", "café", **ASCII_LOCALE)
    assert created.json["name"] == "café"
    assert process_ctl.ok("session", "show", "-q", "café", **ASCII_LOCALE).lines == [created.json["id"]]
    assert process_ctl("session", "create", "--name", CAFE, **ASCII_LOCALE).code == ExitCode.USAGE


@pytest.mark.parametrize("locale", [{}, ASCII_LOCALE], ids=["utf8", "ascii"])
def test_a_session_has_the_words_that_were_typed(process_ctl: Orbitctl, locale: dict[str, str]) -> None:
    """Command, folder and variables are sent in bytes where they are not UTF-8, and as text where they are."""
    (process_ctl.home / CAFE).mkdir()
    arguments = ("--cwd", CAFE, "--env", f"A={CAFE}", "--", "ls", CAFE, "ü")
    config = process_ctl.ok("session", "create", "--json", *arguments, **locale).json["config"]
    assert config["command_bytes"] == b64(f"ls '{CAFE}' 'ü'")
    assert (config["command"], config["env"]) == (f"ls '{SHOWN}' 'ü'", {"A": SHOWN})
    assert config["cwd_bytes"] == b64(f"{process_ctl.home}/{CAFE}")
    assert config["env_bytes"] == [[b64("A"), b64(CAFE)]]
    text = process_ctl.ok("session", "create", "--json", "--cwd", "ü", "--env", "A=ü", "--", "ü", **locale).json[
        "config"
    ]
    assert (text["command"], text["cwd"], text["env"]) == ("'ü'", f"{process_ctl.home}/ü", {"A": "ü"})
    assert not any(name.endswith("_bytes") for name in text)


def test_run_has_this_folder_and_this_environment(process_ctl: Orbitctl) -> None:
    """A program runs in the folder that the user stands in, with the variables that the user has."""
    process_ctl.home /= CAFE
    process_ctl.home.mkdir()
    script = 'pwd > told; printf %s "$ODD" >> told'
    ran = process_ctl.ok("session", "run", "-q", "-d", "--", "sh", "-c", script, ODD=os.fsdecode(b"\xff\xe9"))
    process_ctl.ok("session", "wait", ran.lines[0])
    assert (process_ctl.home / "told").read_bytes() == os.fsencode(process_ctl.home) + b"\n\xff\xe9"
    shown = process_ctl.ok("session", "show", ran.lines[0])
    assert f"/{SHOWN}\n" in shown.text


def test_files_are_found_by_their_bytes(ctl: Orbitctl) -> None:
    """FILE arguments, and @FILE of JSON, may have any name."""
    (ctl.home / CAFE).write_bytes(b'{"a": 1}')
    session = ctl.id("session", "create")
    snapshot = ctl.id("snapshot", "save", session, CAFE)
    assert ctl.ok("snapshot", "show", snapshot).out == b'{"a": 1}'
    created = ctl.ok("workspace", "create", "w", "--json", "--config", f"@{CAFE}")
    assert created.json["layout"]["config"] == {"a": 1}
    copied = ctl.ok("maintenance", "backup", "--json", f"{CAFE}.db").json
    assert base64.b64decode(copied["path_bytes"]) == os.fsencode(ctl.home / f"{CAFE}.db")
    missing = ctl("snapshot", "save", session, f"no-{CAFE}")
    assert (missing.code, f"no-{SHOWN}" in missing.err) == (ExitCode.USAGE, True)


def test_a_home_that_is_not_utf8(odd_ctl: Orbitctl) -> None:
    """Start, run, status, doctor, logs, configuration, backup, restore and stop work there, as text and as JSON."""
    odd_ctl.ok("daemon", "start")
    session = odd_ctl.ok("session", "run", "-q", "-d", "--", "sleep", "1000").lines[0]
    assert f"/{SHOWN}/.local/share/orbit/sessions.db" in odd_ctl.ok("status").text
    status = odd_ctl.ok("status", "--json").json
    assert base64.b64decode(status["info"]["database_path_bytes"]).startswith(os.fsencode(odd_ctl.home))
    assert "0 failed" in odd_ctl.ok("doctor").text
    assert any(SHOWN in check["message"] for check in odd_ctl.ok("doctor", "--json").json["checks"])
    assert SHOWN in odd_ctl.ok("daemon", "logs").text
    for command in (("config", "path"), ("config", "show"), ("config", "check")):
        assert SHOWN in odd_ctl.ok(*command).text.replace("\\\\", "\\")  # a string of TOML has it escaped once more
        odd_ctl.ok(*command, "--json")
    odd_ctl.ok("daemon", "restart")
    assert odd_ctl.ok("session", "show", "--json", session).json["live"] is True
    backup = odd_ctl.ok("maintenance", "backup").text.split("  ")[0].rsplit("/", 1)[1]
    folder = odd_ctl.home / ".local" / "share" / "orbit" / "backups"
    restored = odd_ctl.ok("maintenance", "restore", "--yes", "--json", str(folder / backup))
    assert restored.json["database_path"].endswith(f"/{SHOWN}/.local/share/orbit/sessions.db")
    assert [one["id"] for one in odd_ctl.ok("session", "list", "--json").json["sessions"]] == [session]
    odd_ctl.ok("daemon", "stop", "--all")
    assert odd_ctl("status", "--json").json["running"] is False
    assert SHOWN in odd_ctl("status").text


@pytest.mark.parametrize("variable", ["ORBITD_SOCKET", "ORBITD_DATABASE", "ORBITD_CONFIG"])
def test_variables_name_files_by_their_bytes(lonely: Orbitctl, variable: str) -> None:
    """A socket, a database or a configuration that is not UTF-8 is used, and shown."""
    folder = lonely.home / CAFE
    folder.mkdir(mode=0o700)
    if variable == "ORBITD_CONFIG":
        (folder / "x").touch()
    lonely.environment[variable] = str(folder / "x")
    lonely.ok("session", "list")
    shown = lonely.ok(*(("config", "path") if variable == "ORBITD_CONFIG" else ("status",)))
    assert f"{SHOWN}/x" in shown.text
    lonely.ok("daemon", "stop")


def test_a_daemon_of_such_a_socket_is_named(lonely: Orbitctl) -> None:
    """A daemon of another socket is found by the lock of its database; who names a third one is shown its path."""
    socket = str(lonely.home / f"{CAFE}.sock")
    lonely.ok("--socket", socket, "daemon", "start")
    lonely.ok("session", "list")
    refused = lonely("session", "list", "--socket", str(lonely.home / "other.sock"))
    assert (refused.code, f"{SHOWN}.sock" in refused.err) == (ExitCode.UNREACHABLE, True)
    assert f"{SHOWN}.sock" in json.dumps(lonely("doctor", "--json").json).replace("\\\\", "\\")
    lonely.ok("--socket", socket, "daemon", "stop")


@pytest.mark.parametrize("kind", ["service", "socket", "plist"])
def test_a_unit_for_such_a_path_is_refused(home: Path, kind: str) -> None:
    """Unit files are UTF-8: a path that is not is named, and nothing is written."""
    odd_home = home / CAFE
    odd_home.mkdir()
    environment = clean_environment(odd_home, ORBITCTL_NO_AUTOSTART="1", ORBITD_SOCKET=str(odd_home / "s"))
    ended = InProcess(odd_home, environment)("service", "print", kind)
    assert (ended.code, SHOWN in ended.err) == (ExitCode.ERROR, True)
