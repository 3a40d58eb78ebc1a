"""Every block of every document runs as it is written, and every command that is named is there."""

from __future__ import annotations

import ast
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from jsonschema import ValidationError

from documents_support import (
    DOCUMENTS,
    REASONS,
    ROOT,
    Block,
    Reader,
    blocks,
    commands,
    inline_code,
    wrong_with_command,
)
from needs import require
from orbit_protocol.errors import ALL_ERRORS
from orbit_protocol.methods import METHODS
from orbit_protocol.settings import SettingsError
from orbitctl.cli import cli
from orbitctl.errors import in_commands

APART = ("docs/commands.md", "docs/replication.md")
"""Documents with tests of their own: one of separate examples, and one of another program's."""

READY = "sh -c 'echo ready; exec cat'"
SEARCHED = "sh -c 'echo error: web.py: TODO: panic on connection refused; echo ready; exec cat'"


@pytest.fixture
def reader(home: Path) -> Iterator[Reader]:
    """Somebody with a machine of their own, who is reached by no network."""
    require(linux=True)  # systemd's units are run
    reader = Reader(home)
    yield reader
    reader.close()


def prepare_remote(reader: Reader) -> None:
    """Have a session on another machine, as the page takes for granted."""
    reader.sh(f"ssh build.example orbitctl session run --detach --name api -- {READY!r}")
    reader.sh("echo screen | ssh build.example orbitctl snapshot save api")


PREPARED: dict[str, Callable[[Reader], None]] = {"docs/remote.md": prepare_remote}


@pytest.mark.parametrize("document", [name for name in DOCUMENTS if name not in APART])
def test_the_blocks_of_a_document_run(reader: Reader, document: str) -> None:
    """Who follows a document from its first block to its last finds everything as it is written."""
    PREPARED.get(document, lambda _: None)(reader)
    for block in blocks(document):
        if not block.not_run:
            reader.follow(block)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_what_is_not_run_says_why(document: str) -> None:
    """A block is fenced and has a language; one that cannot run has a reason of the short list."""
    wrong = [str(each) for each in blocks(document) if each.language in ("", "indented")]
    wrong += [str(each) for each in blocks(document) if each.not_run and each.not_run not in REASONS]
    assert wrong == []
    assert (ROOT / document).read_text().count("<!-- not run: ") == sum(bool(each.not_run) for each in blocks(document))


def test_ssh_is_run_as_the_page_says(reader: Reader) -> None:
    """What docs/remote.md shows of ssh is what orbitctl runs, with a port and a user and without."""
    (shown,) = [block.text for block in blocks("docs/remote.md") if block.not_run == "words of ssh"]
    for port, user in ((True, True), (False, False)):
        url = f"ssh://{'ada@' * user}build.example{':2222' * port}"
        reader.ctl.ok("--host", url, "session", "list")
        words = shown.removeprefix("ssh ").strip().replace("'", "").replace("HOST", "build.example")
        words = words.replace("[-p PORT] ", "-p 2222 " * port).replace("[-l USER] ", "-l ada " * user)
        assert (reader.folder / "ssh.calls").read_text().splitlines()[-1] == words


WRONG = {
    "a command that fails": ("sh", "false\ntrue"),
    "a pipe into a command that fails": ("sh", "echo x | false"),
    "a command that is not there": ("sh", "orbitctl sesion list"),
    "a usage with an option that is not there": ("text", "orbitctl session list --newest"),
    "something that is no usage": ("text", "+---+"),
    "a request with a field that is not there": (
        "json",
        '{"jsonrpc": "2.0", "method": "daemon.ping", "params": {"x": 1}, "id": 1}',
    ),
    "another answer": (
        "json",
        '{"jsonrpc": "2.0", "method": "daemon.ping", "id": 1}\n{"jsonrpc": "2.0", "result": {"pong": false}, "id": 1}',
    ),
    "a notification that lacks a field": ("json", '{"jsonrpc": "2.0", "method": "session.output", "params": {}}'),
    "a notification that is not there": ("json", '{"jsonrpc": "2.0", "method": "session.input_", "params": {}}'),
    "a key of the configuration that is not there": ("toml", "[session]\nauto_save = 1\n"),
    "a file without a name": ("yaml", "dbs: []\n"),
    "a program that raises": ("python", "1 / 0"),
    "a module that throws": ("js", "await Promise.reject(new Error());"),
    "a language that nobody knows": ("cobol", "STOP RUN."),
}
"""Blocks that are not right: their language and text."""


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_block_is_noticed(reader: Reader, what: str) -> None:
    """No block passes that does not work, or is not answered, as it is written."""
    language, text = WRONG[what]
    with pytest.raises((AssertionError, KeyError, SettingsError, ValidationError)):
        reader.follow(Block("a document", 1, language, text, "", "", ""))


NAMED: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"session (create|run).*--workspace shop", ("shop",)),
    (r"session (create|run)|orbitctl (new|run)\b|workspace create|rpc call workspace.create", ()),
    (r"session rename web api", ("web",)),
    (r"session start web", ("web",)),
    (r"workspace import", ()),
    (r"orbitctl open shop|events .*--workspace|workspace (export|park|set-layout)|session list", ("shop",)),
    (r"\bapi\b.*\bshop\b", ("api", "shop")),
    (r"\bweb api\b", ("web", "api")),
    (r"undelete web", ("web", "deleted")),
    (r"session wait web$", ("web", "running", "ended")),
    (r"orbitctl prune", ("web", "running", "ended")),
    (r"orbitctl a$", ("web", "running")),
    (r"\bweb\b|snapshot show|orbitctl search", ("web", "running")),
    (r"", ("backups",)),
)
"""What has to be there before an example is run, by the first expression that is in it."""

BECOMES: dict[str, tuple[str, dict[str, int]]] = {
    "running": ("session.start", {"cols": 80, "rows": 24}),
    "ended": ("session.terminate", {}),
    "deleted": ("session.delete", {}),
}
"""What is called for a session that is to be so, and with what beside its id."""

FILES = {
    "answers.txt": "yes\n",
    "history.bin": "line\n" * 100,
    "layout.json": '{\n  "ratio": 0.5\n}\n',
    "orbit.json": '{"orbit_workspace": 1, "name": "shop", "sessions": [], "layout": {"layout_type": "x", "config": 1}}'
    "\n",
    "screen.bin": "screen\n",
    "workspace.json": '{\n  "name": "shop",\n  "layout": {"layout_type": "splits", "config": {}}\n}\n',
}
"""Files of the user's that examples read."""


def prepare_example(reader: Reader, example: str) -> str:
    """Have what an example takes for granted; return the example with ids that are there."""
    for name, text in FILES.items():
        (reader.home / name).write_text(text)
    with reader.client() as client:
        client.empty()
        needed = next(things for pattern, things in NAMED if re.search(pattern, example))
        if "shop" in needed:
            client.call("workspace.create", name="shop", layout={"layout_type": "grid", "config": {}})
        for name in ("web", "api"):
            if name in needed:
                config = {"session_type": "local", "command": SEARCHED}
                session = client.call("session.create", name=name, config=config)["id"]
                saved = client.call("snapshot.save", session_id=session, terminal_buffer="c2NyZWVuCg==")["id"]
                example = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", saved, example)
                for method, params in (BECOMES[thing] for thing in needed if thing in BECOMES):
                    client.call(method, id=session, **params)
        if "backups" in needed:
            for path in re.findall(r"restore.*?(~\S+)", example):
                copy = Path(path.replace("~", str(reader.home)))
                copy.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                client.call("maintenance.backup", path=str(reader.home / "made.db"))
                (reader.home / "made.db").rename(copy)
    # No film is as old as in the examples.
    example = re.sub(r"--(at|from|before) '[^']* ago'", r"--\1 0s", example)
    if "daemon run" in example:
        reader.sh("orbitctl daemon stop")
    return example


@pytest.fixture(scope="module")
def example_reader() -> Iterator[Reader]:
    """A reader who tries one example after the other."""
    home = Path(tempfile.mkdtemp(prefix="orbit-", dir="/tmp"))
    reader = Reader(home)
    yield reader
    reader.close()
    shutil.rmtree(home, ignore_errors=True)


@pytest.mark.parametrize(
    "block", [one for one in blocks("docs/commands.md") if one.language != "text"], ids=lambda block: block.heading
)
def test_the_examples_of_a_command_run(example_reader: Reader, block: Block) -> None:
    """Each example of the help of a command does something that ends well, beside what it names."""
    assert block.language == "sh"
    if "asciinema play" in block.text:
        require("asciinema")
    for example in commands(block.text):
        example_reader.type(prepare_example(example_reader, example))


def test_every_usage_is_one(reader: Reader) -> None:
    """Every other block of the reference is the usage of a command that is there."""
    for block in blocks("docs/commands.md"):
        if block.language == "text":
            reader.follow(block)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_prose_names_commands_that_exist(document: str) -> None:
    """Where a document names a command of orbitctl, it has it, with the options."""
    named = [text for text in inline_code(document) if text.startswith("orbitctl ")]
    assert [f"{text}: {wrong}" for text in named if (wrong := wrong_with_command(text))] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_prose_names_files_that_exist(document: str) -> None:
    """Where a document leads to a file of the repository, by a link or by its path, it is there."""
    text = (ROOT / document).read_text()
    linked = [(ROOT / document).parent / path for path in re.findall(r"\]\(([^)#:]+)\)", text)]
    folders = "benchmarks|docs|launchd|orbit_os|orbit_protocol|orbitctl|orbitd|systemd|tests"
    named = [code for code in inline_code(document) if re.fullmatch(rf"({folders})/[\w./-]+", code)]
    named = [f"protocol/{path}" if path.startswith(("orbit_os/", "orbit_protocol/")) else path for path in named]
    assert [str(path) for path in (*linked, *(ROOT / path for path in named)) if not path.exists()] == []


@pytest.mark.parametrize("package", ["orbitctl", "orbitd", "protocol"])
def test_a_package_lists_its_modules(package: str) -> None:
    """Each package says in its `__init__` what each of its modules is for, as docs/architecture.md promises."""
    missing = []
    for init in (ROOT / package).rglob("__init__.py"):
        listed = set(re.findall(r"\w+", ast.get_docstring(ast.parse(init.read_text())) or ""))
        modules = {path.stem for path in init.parent.glob("[!_]*.py")}
        missing += [f"{init.parent.name}: {name}" for name in sorted(modules - listed)]
    assert missing == []


def strings(path: Path) -> Iterator[str]:
    """Yield the texts of a module, docstrings too, with X for what is put in when it runs.

    A command that `typed` makes, which quotes its arguments, is yielded as it is shown.
    """
    inner = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.JoinedStr):
            inner |= set(map(id, node.values))
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inner:
            yield node.value
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "typed":
            words = [*node.args[:1], *(keyword.value for keyword in node.keywords)]
            yield f"`{' X '.join(str(word.value) for word in words if isinstance(word, ast.Constant))}`"


def named_commands(text: str) -> list[str]:
    """Return the commands that a text of ours names between backquotes, those without the word orbitctl too."""
    words = [" ".join(named.split()) for named in re.findall(r"`([^`]+)`", text)]
    groups = tuple(f"{name} " for name, command in cli.commands.items() if isinstance(command, click.Group))
    return [
        one if one.startswith("orbitctl ") else f"orbitctl {one}"
        for one in words
        if one.startswith(("orbitctl ", *groups))
    ]


@pytest.mark.parametrize("package", ["orbitctl", "orbitd", "protocol", "systemd", "launchd"])
def test_hints_name_commands_that_exist(package: str) -> None:
    """What a message, a hint, a help text or a comment in a unit tells a person to run is there, with its options."""
    texts = {
        path: list(strings(path)) if path.suffix == ".py" else [path.read_text()]
        for path in (ROOT / package).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    named = [(path, command) for path, found in texts.items() for text in found for command in named_commands(text)]
    assert named
    assert [f"{path.name}: {each}: {wrong}" for path, each in named if (wrong := wrong_with_command(each))] == []


def hints(path: Path) -> Iterator[str]:
    """Yield the texts of a module that are given as hints."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.keyword) and node.arg == "hint":
            yield from (
                part.value
                for part in ast.walk(node.value)
                if isinstance(part, ast.Constant) and isinstance(part.value, str)
            )


def test_methods_in_hints_have_commands() -> None:
    """Each method that a hint of the daemon names becomes a command that is there, where orbitctl shows it."""
    given = [hint for path in (ROOT / "orbitd").rglob("*.py") for hint in hints(path)]
    texts = [in_commands(hint) for hint in (*given, *(error.default_hint for error in ALL_ERRORS))]
    assert [method for method in METHODS if any(method in text for text in texts)] == []
    assert any("orbitctl session" in text for text in texts)
    named = [each for text in texts for each in named_commands(text)]
    assert [f"{each}: {wrong}" for each in named if (wrong := wrong_with_command(each))] == []
