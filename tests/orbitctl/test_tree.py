"""The command tree: help, documentation, common options, usage errors, and what is imported."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from commands_page import commands_markdown, walk
from ctl_support import Orbitctl
from needs import needs
from orbitctl.cli import cli
from orbitctl.commands.group import common_options
from orbitctl.commands.help import SUGGESTIONS

ROOT = Path(__file__).resolve().parents[2]
TREE = list(walk(cli, click.Context(cli, info_name="orbitctl")))
PATHS = [context.command_path for _, context in TREE]
CONTRACT = {
    "": "new run open attach a ls kill rm undelete logs prune label resume help status stats doctor version completion",
    "session": "create run start attach list show rename move label send screen logs export wait signal detach "
    "terminate delete undelete prune resume set-status restore snapshot",
    "snapshot": "save list show delete",
    "workspace": "create list show open park rename set-layout set-active export import delete",
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


@needs("man")
def test_the_manual_page_is_shown_by_man() -> None:
    """docs/orbitctl.1 has every command, and man(1) draws it without a warning, examples line by line."""
    command = ["man", "--warnings", "-l", str(ROOT / "docs" / "orbitctl.1")]
    shown = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "MANWIDTH": "80", "LC_ALL": "C"}
    )
    assert shown.stderr == ""
    text = re.sub(".\x08", "", shown.stdout)
    assert [path for path in PATHS if f"   {path}\n" not in text] == []
    assert "\n           orbitctl kill web\n           orbitctl kill web api\n" in text


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
        (["integration"], "Missing argument '{bash|zsh|fish}'. Choose from: bash, zsh, fish"),
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
        (["maintenance", "archive", "--before", "soon"], "'soon' is no moment; 2h"),
        (["rpc", "call", "daemon.ping", "{}}"], "not JSON"),
        (["new", "work", "htop", "-d", "--", "-x"], "the program stands after `--`: `orbitctl new work -- htop -x`"),
        (["new", "work", "--name", "other", "-d"], "NAME and --name are one"),
        (["new", "-A", "-d"], "-A needs the NAME"),
        (["run", "-d"], "Missing argument 'COMMAND'; `orbitctl new` starts a shell"),
        (["kill"], "Missing argument 'SESSION...'"),
        (["rm"], "Missing argument 'SESSION...'"),
        (["logs"], "Missing argument 'SESSION'."),
        (["session", "detach"], "Missing argument 'SESSION'."),
        (["resume"], "Missing argument 'SESSION'."),
        (["resume", "a", "b", "--", "c"], "before `--` stands the SESSION alone"),
        (["resume", "--clear", "a", "b"], "give a COMMAND or --clear"),
        (["session", "list", "--label", "x"], "'x' is not KEY=VALUE"),
        (["session", "list", "--deleted", "--watch"], "--deleted stands alone"),
        (["prune", "--older", "soon"], "'soon' is no moment; 2h"),
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


def test_help_without_words_is_one_screen(offline: Orbitctl) -> None:
    """`orbitctl` alone fits 24 rows and 80 columns, its prompt included, and begins with what is typed most."""
    lines = offline().err.splitlines()
    assert len(lines) < 24
    assert max(map(len, lines)) <= 80
    commands = [line.split()[0] for line in lines[lines.index("Commands:") + 1 :] if line.startswith("  ")]
    assert commands[:3] == ["new", "a", "ls"]
    assert all(f"orbitctl {name}" in PATHS for name in commands)


def test_help_describes_a_command(offline: Orbitctl) -> None:
    """`help COMMAND` prints what `COMMAND --help` does, `help` what `--help` does, and neither asks the daemon."""
    for words in ([], ["kill"], ["session", "rename"], ["session"]):
        assert offline.ok("help", *words).text == offline.ok(*words, "--help").text
    assert offline("help", "stop").err.startswith("error: No such command 'stop'. `orbitctl kill NAME` does this\n")
    assert "`orbitctl kill` has no commands below it" in offline("help", "kill", "x").err


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("stop", "orbitctl kill NAME"),
        ("kill-session", "orbitctl kill NAME"),
        ("delete", "orbitctl rm NAME"),
        ("exec", "orbitctl run COMMAND"),
        ("list-sessions", "orbitctl ls"),
        ("ps", "orbitctl ls"),
        ("attach-session", "orbitctl a NAME"),
        ("new-session", "orbitctl new NAME"),
        ("inspect", "orbitctl session show NAME"),
        ("detach", "orbitctl session detach NAME"),
        ("backup", "orbitctl maintenance backup"),
        ("session kill", "orbitctl session terminate"),
        ("daemon kill", "orbitctl daemon stop"),
        ("workspace ls", "orbitctl workspace list"),
    ],
)
def test_words_of_other_programs_are_answered_with_ours(offline: Orbitctl, words: str, meant: str) -> None:
    """A word of tmux, docker, gh or systemctl gets exit code 2 and the command that does it."""
    ended = offline(*words.split(), "-t", "work")
    assert (ended.code, ended.out) == (2, b"")
    assert f"`{meant}` does this" in ended.err


def test_suggestions_are_commands() -> None:
    """No suggestion names a command that there is not, and no word of them is a command itself."""
    for word, line in SUGGESTIONS.items():
        assert f"orbitctl {word}" not in PATHS
        for one in line.split(" && "):
            assert re.sub(r"( [A-Z=-]+| --\w+)+$", "", one) in PATHS, line


@pytest.mark.parametrize(
    ("line", "keys", "params"),
    [
        ("new work", 18, {"called": "work"}),
        ("new work -- htop", 26, {"called": "work", "command": ("htop",)}),
        ("new work -d -- htop -d", 32, {"called": "work", "detach": True, "command": ("htop", "-d")}),
        ("new -- htop", 21, {"called": None, "command": ("htop",)}),
        ("run htop -d 10", 24, {"command": ("htop", "-d", "10"), "detach": False}),
        ("run -d --rm -- htop --json", 36, {"command": ("htop", "--json"), "detach": True, "auto_remove": True}),
        ("a", 11, {"session": None}),
        ("a work", 16, {"session": "work"}),
        ("a -c work", 19, {"session": "work", "create": True}),
        ("ls", 12, {"ended": False}),
        ("ls -a", 15, {"ended": True}),
        ("kill work", 19, {"sessions": ("work",)}),
        ("rm work other", 23, {"sessions": ("work", "other")}),
        ("logs work -f", 22, {"session": "work", "follow": True}),
        ("prune", 15, {"older": None}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_typed_most_costs_few_keys(line: str, keys: int, params: dict[str, object]) -> None:
    """The lines that are typed fifty times a day are read as they are meant, at so many keys with Enter."""
    assert len(f"orbitctl {line}\r") == keys
    words = line.split()
    root = click.Context(cli, info_name="orbitctl")
    command = cli.get_command(root, words[0])
    assert command is not None
    read = command.make_context(words[0], words[1:], parent=root).params
    assert {name: read[name] for name in params} == params


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
    shared = {
        f"orbitctl.commands.{name}" for name in ("arguments", "group", "list_options", "session_ls", "session_table")
    }
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
