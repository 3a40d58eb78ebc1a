"""The command tree: help, documentation, common options, usage errors, and what is imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest

from commands_page import commands_markdown, walk
from ctl_support import Orbitctl
from orbitctl.cli import cli
from orbitctl.commands.group import common_options

ROOT = Path(__file__).resolve().parents[2]
TREE = list(walk(cli, click.Context(cli, info_name="orbitctl")))
PATHS = [context.command_path for _, context in TREE]
CONTRACT = {
    "": "status stats doctor version completion",
    "session": "create list show rename move set-status detach terminate restore delete snapshot",
    "snapshot": "save list show delete",
    "workspace": "create list show rename set-layout set-active delete",
    "maintenance": "auto-save cleanup archive vacuum check backup",
    "daemon": "run start stop restart logs",
    "service": "install uninstall status print",
    "config": "path show check",
    "rpc": "call discover",
}


@pytest.mark.parametrize("group", CONTRACT)
def test_the_contract_of_commands_is_there(group: str) -> None:
    """Every command that programs and people rely on exists."""
    wanted = {f"orbitctl {group} {name}".replace("  ", " ") for name in CONTRACT[group].split()}
    assert wanted <= set(PATHS)


@pytest.mark.parametrize(("command", "context"), TREE, ids=PATHS)
def test_every_command_is_documented(command: click.Command, context: click.Context) -> None:
    """Each command has help text, each of its options too, and docs/commands.md has its section."""
    assert (command.help or "").strip().endswith((".", ":"))
    undocumented = [p.name for p in command.params if isinstance(p, click.Option) and not p.help]
    assert undocumented == []
    page = (ROOT / "docs" / "commands.md").read_text()
    assert f"# {context.command_path}\n" in page


def test_the_reference_is_current() -> None:
    """docs/commands.md is what the command tree says now."""
    assert (ROOT / "docs" / "commands.md").read_text() == commands_markdown()


@pytest.mark.parametrize(("command", "context"), TREE, ids=PATHS)
def test_every_command_takes_the_common_options(command: click.Command, context: click.Context) -> None:
    """--json, -q, --socket, --timeout and --no-autostart stand after every command."""
    taken = {name for param in command.params for name in param.opts}
    assert {name for option in common_options() for name in option.opts} <= taken, context.command_path


@pytest.mark.parametrize(("command", "context"), TREE, ids=PATHS)
def test_help_fits_a_terminal(command: click.Command, context: click.Context) -> None:
    """Help has no line beyond 100 columns, and begins with the usage."""
    text = command.get_help(click.Context(command, info_name=context.command_path, max_content_width=100))
    assert text.startswith("Usage: orbitctl ")
    assert [line for line in text.splitlines() if len(line) > 100] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sesion"], "No such command 'sesion'. Did you mean 'session'?"),
        (["session", "list", "--foo"], "No such option '--foo'."),
        (["session", "show"], "Missing argument 'SESSION'."),
        (["session", "list", "--limit", "0"], "Invalid value for '--limit': 0 is not in the range"),
        (["session", "list", "--timeout", "0"], "Invalid value for '--timeout': 0 is not between"),
        (["session", "list", "--timeout", "31536001"], "31536001 is not between 0 and 31536000 seconds"),
        (["session", "rename", "x"], "give a NAME or --none"),
        (["session", "move", "x", "y", "--none"], "give a WORKSPACE or --none"),
        (["session", "create", "--type", "ssh"], "an ssh session needs --host"),
        (["session", "create", "--type", "local", "--host", "h"], "are for --type ssh"),
        (["session", "create", "--host", "-oProxyCommand=x"], "--host may not begin with '-'"),
        (["session", "create", "--name", "\x1b[2J"], "the name may not hold control characters"),
        (["workspace", "create", "a\nb"], "the name may not hold control characters"),
        (["snapshot", "show"], "give a SNAPSHOT or --latest SESSION"),
        (["snapshot", "save", "x", "/nowhere/at/all"], "cannot read /nowhere/at/all: No such file or directory"),
        (["workspace", "set-layout", "x"], "give --layout-type, --config or both"),
        (["workspace", "create", "x", "--config", "{"], "Invalid value for '--config': not JSON"),
        (["session", "create", "--name", ""], "the name must have 1 to 256 characters"),
        (["session", "create", "--name", "e\u0301" * 257], "the name must have 1 to 256 characters"),
        (["session", "create", "--name", "a\udcff"], "the name is not UTF-8"),
        (["session", "create", "--cwd", "x" * 5000], "--cwd may have 4096 characters at most"),
        (["session", "create", "--", "x" * 70_000], "the command may have 65536 characters at most"),
        (["session", "create", "--host", "h" * 256], "--host must have 1 to 255 characters"),
        (["session", "create", "--host", "h", "--user", "a b"], "--user may not hold blanks or control characters"),
        (["session", "create", "--reconnect"], "--reconnect is for --type 'ssh' only"),
        (["snapshot", "show", "a\udcff"], "this is not UTF-8: a\\xff"),
        (["workspace", "create", "x", "--layout-type", "\udcff"], "this is not UTF-8: \\xff"),
        (["session", "show", ""], "Invalid value for 'SESSION': it must have 1 to 256 characters"),
        (["session", "attach", "x" * 257], "Invalid value for 'SESSION': it must have 1 to 256 characters"),
        (["session", "list", "--workspace", "\udcff"], "Invalid value for '--workspace': it is not UTF-8: \\xff"),
        (["workspace", "create", ""], "the name must have 1 to 256 characters"),
        (["workspace", "create", "x", "--layout-type", ""], "--layout-type may not be empty"),
        (["workspace", "create", "x", "--layout-type", "x" * 257], "--layout-type must have at most 256 characters"),
        (["snapshot", "show", ""], "the id may not be empty"),
        (["snapshot", "delete", "x" * 257, "--yes"], "the id must have at most 256 characters"),
        (["--host", "ssh://a b", "session", "list"], "--host may not hold blanks or control characters"),
        (["maintenance", "archive", "--before", "soon"], "'soon' is no time, date or span"),
        (["rpc", "call", "daemon.ping", "{}}"], "not JSON"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_usage_errors_exit_with_2(offline: Orbitctl, arguments: list[str], message: str) -> None:
    """What cannot be meant is told on stderr with exit code 2, and no daemon is asked or started."""
    ended = offline(*arguments)
    assert (ended.code, ended.out) == (2, b""), ended
    assert ended.err.startswith("error: ")
    assert message in ended.err


def test_a_group_alone_shows_its_help(offline: Orbitctl) -> None:
    """Without a command the help goes to stderr, with exit code 2."""
    for words in ([], ["session"]):
        ended = offline(*words)
        assert (ended.code, ended.out) == (2, b"")
        assert ended.err.startswith("Usage: orbitctl ")
        assert "\nCommands:\n" in ended.err


def test_help_of_a_group_cuts_no_sentence(offline: Orbitctl) -> None:
    """The first sentence of each command fits beside its name."""
    pages = [offline.ok(*words, "--help").text for words in ([], *([group] for group in CONTRACT if group))]
    assert [
        line for page in pages for line in page.splitlines() if line.startswith("  ") and line.endswith("...")
    ] == []


def test_only_what_a_command_needs_is_imported() -> None:
    """`session list` imports neither rich nor asyncio, nor the modules of other groups."""
    code = (
        "import sys; from orbitctl.cli import run; run(['--no-autostart', '--socket', '/none', 'session', 'list']); "
        "print(*sorted(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(run.stdout.split())
    unwanted = {"rich", "asyncio", "subprocess", "tomllib", "urllib.parse", "unicodedata", "tempfile"}
    assert loaded & unwanted == set()
    groups = {name for name in loaded if name.startswith("orbitctl.commands.")}
    shared = {f"orbitctl.commands.{name}" for name in ("arguments", "group", "session_table")}
    assert groups == {"orbitctl.commands.session", *shared}
    assert not any(name.startswith(("orbitd", "orbitctl.service")) for name in loaded)


def test_ctrl_c_is_not_lost_in_an_import(tmp_path: Path) -> None:
    """While a module is imported, Ctrl-C ends the process with 130 and no word, though importlib drops exceptions."""
    (tmp_path / "dropping.py").write_text(
        "import signal\ntry:\n    signal.raise_signal(signal.SIGINT)\nexcept KeyboardInterrupt:\n    print('dropped')\n"
    )
    program = (
        "import sys; from orbitctl.__main__ import handle_interrupts; handle_interrupts(); "
        f"sys.path.insert(0, {str(tmp_path)!r}); import dropping"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False, timeout=30)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, b"", b"")


@pytest.mark.parametrize("handler", ["SIG_DFL", "SIG_IGN"])
def test_an_ignored_ctrl_c_stays_ignored(handler: str) -> None:
    """As in a background job of a script: only Python's own handler is replaced."""
    program = (
        "import signal; from orbitctl.__main__ import handle_interrupts; "
        f"signal.signal(signal.SIGINT, signal.{handler}); "
        "handle_interrupts(); print(signal.getsignal(signal.SIGINT).name)"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False, timeout=30, text=True)
    assert (ended.stdout, ended.stderr) == (f"{handler}\n", "")
