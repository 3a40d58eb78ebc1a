"""The documents as somebody reads them: their blocks, and a reader who does what each block says, as it is written.

A reader has a home of its own, where Orbit is installed. Programs that no test can run, or not every machine has, are
played by small ones on the PATH (`PLAYED`); ssh reaches other machines, which are other homes.
"""

from __future__ import annotations

import configparser
import functools
import json
import os
import pty
import re
import select
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import jsonschema
from markdown_it import MarkdownIt

from ctl_support import ON_TERMINAL, Orbitctl
from needs import program, require
from orbit_protocol.openrpc import document as openrpc
from orbit_protocol.settings import parse_settings
from orbitctl.cli import cli
from orbitctl.commands.group import common_options
from support import WAIT_SECS, RawClient, clean_environment

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted(
    str(path.relative_to(ROOT))
    for pattern in ("*.md", "docs/**/*.md", "examples/**/*.md", "benchmarks/**/*.md")
    for path in ROOT.glob(pattern)
    if "node_modules" not in path.parts
)
REASONS = ("a picture", "words of ssh", "by .ci/run")
"""Why a block may not be run; it says so before its fence: `<!-- not run: REASON -->`."""


@dataclass(frozen=True)
class Block:
    """A block of a document.

    Args:
        document: The document's path in the repository.
        line: Where its fence is.
        language: The fence's word; "indented" where there is no fence.
        text: What is in it.
        heading: The heading that it is below.
        file: The file that the paragraph before names last, as `~/...`; "" if none.
        not_run: Why it is not to be run; "" if it is.
    """

    document: str
    line: int
    language: str
    text: str
    heading: str
    file: str
    not_run: str

    def __str__(self) -> str:
        return f"{self.document}:{self.line} ({self.language})"


def blocks(document: str) -> list[Block]:
    """Return the blocks of a document, in order."""
    return list(_blocks(document))


def _blocks(document: str) -> Iterator[Block]:
    heading = file = mark = ""
    tokens = MarkdownIt().enable("table").parse((ROOT / document).read_text())
    for before, token in zip([None, *tokens], tokens, strict=False):
        if token.type == "inline" and before is not None:
            heading = token.content if before.type == "heading_open" else heading
            named = [one.content for one in token.children or () if one.type == "code_inline"]
            file = next((name for name in reversed(named) if name.startswith("~/")), "")
            mark = ""
        elif token.type == "html_block" and (found := re.search(r"<!-- not run: (.*?) -->", token.content)):
            mark = found[1]
        elif token.type in ("fence", "code_block"):
            language = token.info.strip() if token.type == "fence" else "indented"
            assert token.map is not None
            yield Block(document, token.map[0] + 1, language, token.content, heading, file, mark)
            file = mark = ""


def inline_code(document: str) -> list[str]:
    """Return what stands between backquotes in a document's prose and tables."""
    tokens = MarkdownIt().enable("table").parse((ROOT / document).read_text())
    return [one.content for token in tokens for one in token.children or () if one.type == "code_inline"]


def wrong_with_command(text: str) -> str:
    """Return what `orbitctl WORDS...` names that is not there, "" if all is: a command, or an option of it.

    Words in capitals, brackets or braces and `...` stand for others; `a|b` for either.
    """
    (_, *words), command, path = re.findall(r"'[^']*'|\S+", text), cli, "orbitctl"
    options = {name: option for option in common_options() for name in option.opts}
    options |= dict.fromkeys(("-h", "--help"), click.Option(["--help"], is_flag=True))
    while words:
        word = words.pop(0).strip("[].,")
        if word == "--":
            break
        if word.startswith("-"):
            name = word.partition("=")[0]
            if name not in options:
                return f"{path} has no option {name}"
            takes_value = not options[name].is_flag and "=" not in word
            words = words[1:] if takes_value else words
        elif isinstance(command, click.Group) and re.fullmatch(r"[a-z|-]+", word):
            context = click.Context(command)
            for name in word.split("|"):
                if (below := command.get_command(context, name)) is None:
                    return f"{path} has no command {name}"
            command, path = below, f"{path} {name}"
            own = [each for each in below.params if isinstance(each, click.Option)]
            options |= {name: each for each in own for name in (*each.opts, *each.secondary_opts)}
    return ""


PYTHON = f"#!{sys.executable} -IS\n"
PLAYED = {
    "orbitctl": f'#!/bin/sh\nexec {sys.executable} -m orbitctl "$@"\n',
    "orbitd": f'#!/bin/sh\nexec {sys.executable} -m orbitd "$@"\n',
    "pip": '#!/bin/sh\n[ "$1" = install ]\n',
    "npm": "#!/bin/sh\necho ready\nexec cat\n",
    "make": "#!/bin/sh\necho ready\nexec cat\n",
    "htop": "#!/bin/sh\necho ready\nexec cat\n",
    "less": "#!/bin/sh\nexec cat\n",
    # OpenBSD's, as far as `-NU SOCKET` goes: what comes in is sent as it comes, then the end, and what comes back is
    # printed.
    "nc": PYTHON
    + """
import os, socket, sys
assert sys.argv[1] == "-NU"
with socket.socket(socket.AF_UNIX) as peer:
    peer.connect(sys.argv[2])
    while line := os.read(0, 65536):
        peer.sendall(line)
    peer.shutdown(socket.SHUT_WR)
    while data := peer.recv(65536):
        sys.stdout.buffer.write(data)
""",
    "tmux": '#!/bin/sh\n[ "$1" = capture-pane ] && echo screen\n',
    "vim": '#!/bin/sh\nprintf \'"%s" [New]\\n\' "$1"\nwhile read -r typed; do case $typed in :q) exit ;; esac; done\n',
    # As sshd does: the words behind the host go to a shell there, and without any a login shell runs.
    "ssh": """#!/bin/sh
printf '%s\\n' "$*" >>"$0.calls"
while [ "$1" ]; do
  case $1 in
  --) shift; break ;;
  -[elop]) shift 2 ;;
  -*) shift ;;
  *) break ;;
  esac
done
host=${1#*@}
shift
machine=$(dirname "$0")/../machines/$host
mkdir -p -m 700 "$machine" "$machine/run"
export HOME="$machine" XDG_RUNTIME_DIR="$machine/run"
cd
if [ $# = 0 ]; then exec sh -l; fi
exec sh -c "$*"
""",
    # Runs what units say, with their variables and umask, and waits for READY=1 where they have Type=notify.
    "systemctl": PYTHON
    + """
import os, select, shlex, signal, socket, subprocess, sys, tempfile
home = os.environ["HOME"]
folder = os.environ.get("XDG_CONFIG_HOME", home + "/.config") + "/systemd/user/"
def values(unit, key):
    with open(folder + unit) as file:
        return [line[len(key) + 1:].strip() for line in file if line.startswith(key + "=")]
def pid_file(unit):
    return f"{sys.argv[0]}.{unit}.pid"
def running(unit):
    try:
        with open(pid_file(unit)) as file:
            process = os.pidfd_open(int(file.read()))
    except OSError:
        return None
    return None if select.select([process], [], [], 0)[0] else process  # it may have ended, and not been reaped
def start(unit):
    if running(unit) is not None or not unit.endswith(".service"):
        return
    (command,) = values(unit, "ExecStart")
    words = shlex.split(command.lstrip(":").replace("%h", home))
    given = dict(pair.split("=", 1) for line in values(unit, "Environment") for pair in shlex.split(line))
    with tempfile.TemporaryDirectory() as place, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
        ready.bind(place + "/notify")
        ready.settimeout(20)
        notifies = values(unit, "Type") == ["notify"]
        if notifies:
            given["NOTIFY_SOCKET"] = place + "/notify"
        with open(f"{sys.argv[0]}.{unit}.log", "ab") as log:
            started = subprocess.Popen(
                words, env={**os.environ, **given}, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, umask=int((values(unit, "UMask") or ["022"])[0], 8))
        with open(pid_file(unit), "w") as file:
            file.write(str(started.pid))
        while notifies and b"READY=1" not in ready.recv(4096).split(b"\\n"):
            pass
def stop(unit):
    if (process := running(unit)) is not None:
        signal.pidfd_send_signal(process, signal.SIGTERM)
        select.select([process], [], [], 20)
words = [word for word in sys.argv[1:] if not word.startswith("-")]
verb, units = words[0], words[1:]
missing = [unit for unit in units if not os.path.exists(folder + unit)]
if missing and verb in ("start", "restart", "enable"):
    sys.exit(f"Unit {missing[0]} not found.")
if verb in ("stop", "restart") or (verb == "disable" and "--now" in sys.argv):
    for unit in units:
        stop(unit)
if verb in ("start", "restart") or (verb == "enable" and "--now" in sys.argv):
    for unit in units:
        start(unit)
if verb == "show":
    for unit in units:
        active = running(unit) is not None
        print("UnitFileState=enabled", f"ActiveState={'active' if active else 'inactive'}", sep="\\n")
        print(f"SubState={'running' if active else 'dead'}", "Result=success", sep="\\n")
""",
    "loginctl": "#!/bin/sh\necho Linger=yes\n",
}
"""Programs that stand first on the reader's PATH."""

MODULES = {
    # A terminal that draws nothing, whose user types as soon as somebody listens.
    "@xterm/xterm": """
export class Terminal {
  constructor(options) { Object.assign(this, options); }
  write(bytes, done) { setImmediate(done); }
  onData(listener) { setImmediate(() => listener("exit 0\\r")); }
  onResize() {}
}
""",
}
"""Packages of Node.js that documents use."""

LEAVES: tuple[tuple[str, bytes, bytes], ...] = (
    (r"--detach-key 'C-a d'", b"ready", b"\x01d"),
    (r"orbitctl (session )?(attach|a)\b", b"ready", b"\x1c"),
    (r"orbitctl open\b.*--attach", b"ready", b"\x1c"),
    (r"orbitctl run htop", b"ready", b"\x1c"),  # what follows it is htop's
    (r"orbitctl (session run|new|run)\b(?!.* (-d|--detach)\b)", b"ready", b"\x1c"),
    (r"orbitctl logs\b.*(--follow|-f\b)", b"ready", b"\x03"),
    (r"orbitctl events\b.*(--follow|-f\b)", b"created", b"\x03"),
    (r"orbitctl daemon logs\b.*(--follow|-f\b)", b"serving", b"\x03"),
    (r"orbitctl daemon run\b", b"serving", b"\x03"),
    (r"orbitctl (maintenance restore|rm|prune|session forget)\b(?!.*--yes)", b"[y/N]", b"y\n"),
    (r"orbitctl session replay\b", b"[space", b"q"),
)
"""Commands that do not end by themselves: what shows that they are there, and what the reader types then."""

KEYS = {"Ctrl-\\": b"\x1c", ":q": b":q\r"}
"""What the reader of a transcript types where a comment ends in it, or has it before the word "detaches"."""


class Reader:
    """Somebody who follows documents on a machine of their own.

    Args:
        home: Their home.
        replaced: Places of the documents that this machine has elsewhere.
        runtime: The runtime folder.
        real: A program that this machine has itself.
    """

    def __init__(
        self, home: Path, replaced: dict[str, str] | None = None, *, runtime: Path | None = None, real: str = ""
    ) -> None:
        self.home = home
        self.folder = home / "played"
        self.folder.mkdir()
        for name, script in PLAYED.items():
            if name == real:
                continue
            (self.folder / name).write_text(script)
            (self.folder / name).chmod(0o755)
        self.replaced = replaced or {}
        self.environment = clean_environment(
            home, PATH=f"{self.folder}:{os.environ['PATH']}", SHELL="/bin/sh", ENV=f"{home}/.shrc", LANG="C.UTF-8"
        )
        self.environment["XDG_RUNTIME_DIR"] = str(runtime or home / "run")
        self.ctl = Orbitctl(home, self.environment)
        self.ctl.command = [str(self.folder / "orbitctl")]
        self.database = home / ".local" / "share" / "orbit" / "sessions.db"
        (home / ".shrc").write_text("echo ready\n")  # an interactive sh reads it, on the other machines too
        self._answer: Any = None  # to the last request of a document

    def client(self) -> RawClient:
        """Connect to the daemon, which is started if none runs."""
        path = Path(self.environment["XDG_RUNTIME_DIR"], "orbit", "orbitd.sock")
        try:
            return RawClient(path)
        except OSError:
            self.ctl.ok("daemon", "start")
            return RawClient(path)

    def close(self) -> None:
        """End what the documents have started, on the other machines too."""
        units = [path.name.removeprefix("systemctl.") for path in self.folder.glob("systemctl.*.pid")]
        ending = [f"systemctl --user stop {unit.removesuffix('.pid')}" for unit in units]
        ending += ["orbitctl daemon stop --all"] if self.database.parent.exists() else []
        ending += [f"ssh {machine.name} orbitctl daemon stop --all" for machine in self.home.glob("machines/*")]
        failed = [command for command in ending if self.ctl.shell(command).code != 0]
        assert failed == []

    def follow(self, block: Block) -> None:
        """Do what a block says; fail where something of it is not as it is written."""
        todo = {
            "sh": self._commands,
            "bash": self._commands,
            "console": self._transcript,
            "json": self._message,
            "toml": self._configuration,
            "ini": self._unit,
            "yaml": self._file,
            "python": self._python,
            "js": self._javascript,
            "text": self._usage,
        }
        assert block.language in todo, f"{block}: nobody knows what to do with it"
        text = functools.reduce(lambda done, pair: done.replace(*pair), self.replaced.items(), block.text)
        todo[block.language](block, text)

    def sh(self, script: str, *, shell: str = "sh") -> str:
        """Run a script, stop at the first command that fails, and return what it printed."""
        done = subprocess.run(
            [shell, "-ec", script],
            env=self.environment,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=3 * WAIT_SECS,
            check=False,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}exit code {done.returncode}"
        return done.stdout

    def type(self, command: str) -> None:
        """Run a command of one line; one that does not end by itself is left by its keys, on a terminal."""
        for pattern, shown, typed in LEAVES:
            if re.search(pattern, command):
                shell = Orbitctl(self.home, self.environment)
                shell.command = ["/bin/sh", "-c"]
                ended = shell.on_terminal(command, prompt=shown, typed=typed)
                assert ended.code in (0, 128 + 2, -2), f"{command}\n{ended.text}exit code {ended.code}"
                return
        self.sh(command)

    def _commands(self, block: Block, text: str) -> None:
        if any(re.search(pattern, text) for pattern, _, _ in LEAVES):
            for line in commands(text):
                self.type(line)
        else:
            self.sh(text, shell=block.language)

    def _transcript(self, block: Block, text: str) -> None:
        is_inside = False  # of a session, whose prompt has a name before the dollar sign
        with Terminal(self) as terminal:
            for line in text.splitlines():
                command = re.fullmatch(
                    r"(\w+\$ )(.*?)(?:  +# (.*))?" if is_inside else r"(\$ )(.*?)(?:  +# (.*))?", line
                )
                if command is None:
                    terminal.wait_for(as_pattern(line))
                    continue
                prompt, typed, comment = command.groups(default="")
                terminal.wait_for(rf"(?:^|[\r\n]){re.escape(prompt)}$")
                terminal.type(typed.encode() + b"\r")
                pressed = [name for name in KEYS if name in comment.split()]
                for name in pressed:
                    terminal.wait_for(r"\[New\]")
                    terminal.type(KEYS[name])
                if is_inside:
                    is_inside = not (typed.startswith("exit") or "Ctrl-\\" in pressed)
                else:
                    is_inside = re.search(r"orbitctl (session )?(new|run|attach|a)\b", typed) is not None
            terminal.wait_for(r"[\r\n]\$ $")

    def _message(self, block: Block, text: str) -> None:
        for line in text.splitlines():
            message = json.loads(line)
            if "id" not in message:
                named = {each["name"]: each for each in openrpc()["x-notifications"]}[message["method"]]
                fields = {param["name"]: param["schema"] for param in named["params"]}
                wanted = [param["name"] for param in named["params"] if param["required"]]
                schema = {"type": "object", "properties": fields, "required": wanted, "additionalProperties": False}
                jsonschema.validate(message["params"], {**schema, "components": openrpc()["components"]})
            elif "method" in message:
                with self.client() as client:
                    self._answer = client.ask(line)
                assert self._answer["id"] == message["id"]
                assert "result" in self._answer, f"{block}: {self._answer}"
            else:
                assert differences(message, self._answer) == [], f"{block}"

    def _configuration(self, block: Block, text: str) -> None:
        assert tomllib.loads(text)
        parse_settings(text.encode(), block.file or "config.toml")
        self._file(block, text)

    def _unit(self, block: Block, text: str) -> None:
        unit = configparser.ConfigParser(strict=False, interpolation=None)
        unit.read_string(text)
        assert "Unit" in unit
        if words := unit.get("Service", "ExecStart", fallback="").replace("%h", str(self.home)).split():
            self._install(Path(words[0]))
        self._file(block, text)

    def _install(self, path: Path) -> None:
        """Put a program where a document says that it is."""
        real = program(path.name)
        assert real, path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(real)

    def _file(self, block: Block, text: str) -> None:
        assert block.file, f"{block}: the paragraph before does not say which file this is"
        path = Path(block.file.replace("~", str(self.home), 1))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def _python(self, block: Block, text: str) -> None:
        script = self.home / "block.py"
        script.write_text(text)
        self.sh(f"{sys.executable} {script}")

    def _javascript(self, block: Block, text: str) -> None:
        require("node")
        for name, module in MODULES.items():
            package = self.home / "node_modules" / name
            package.mkdir(parents=True, exist_ok=True)
            (package / "package.json").write_text('{"type": "module", "exports": "./index.js"}')
            (package / "index.js").write_text(module)
        script = Path(block.file.replace("~", str(self.home), 1)) if block.file else self.home / "block.mjs"
        script.write_text(text)
        self.sh(f"{program('node')} {script}")

    def _usage(self, block: Block, text: str) -> None:
        for line in text.splitlines():
            assert line.startswith("orbitctl "), f"{block}: {line}"
            assert wrong_with_command(line) == "", f"{block}: {line}"


class Terminal:
    """A terminal of 100 columns and 30 rows with an interactive bash, and what has been shown on it.

    Args:
        reader: Who sits at it.
    """

    def __init__(self, reader: Reader) -> None:
        (reader.home / ".bashrc").write_text("PS1='work$ '\n")  # a shell in the session reads it, this one does not
        (reader.home / ".inputrc").write_text("set enable-bracketed-paste off\n")
        self._master, terminal = pty.openpty()
        subprocess.run(["stty", "rows", "30", "cols", "100"], stdin=terminal, check=True)
        bash = program("bash")
        self._shell = subprocess.Popen(
            [sys.executable, "-c", ON_TERMINAL, bash, "--noprofile", "--norc", "-i"],
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            env={**reader.environment, "PS1": "$ ", "HISTFILE": "/dev/null", "BASH_SILENCE_DEPRECATION_WARNING": "1"},
            cwd=reader.home,
            start_new_session=True,
        )
        os.close(terminal)
        self._shown = "\n"

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self._shell.kill()
        self._shell.wait(WAIT_SECS)
        os.close(self._master)

    def type(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def wait_for(self, pattern: str) -> None:
        """Wait until the pattern is in what has been shown, and forget all up to its end."""
        while (found := re.search(pattern, plain(self._shown))) is None:
            assert select.select([self._master], [], [], WAIT_SECS)[0], f"no {pattern} in {plain(self._shown)!r}"
            self._shown += os.read(self._master, 65_536).decode(errors="replace")
        self._shown = plain(self._shown)[found.end() :]


def plain(shown: str) -> str:
    """Return what was shown without its control sequences (ECMA-48, sections 5.3 and 5.4; XTerm's OSC) and controls."""
    shown = re.sub(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_].*?(?:\x07|\x1b\\)|[ -/]*[0-~])", "", shown, flags=re.DOTALL)
    return re.sub(r"[^\n\r\x1b -~\x80-\U0010ffff]", "", shown)


FORMS = {
    r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}": None,
    r"\d{4}-\d\d-\d\dT[\d:.]+Z": None,
    r"\b[0-9a-f]{8}\b": None,
    r"\b\d+s\b(?: ago)?": r"(?:\d+s(?: ago)?|just now|now|-)",
    r" +": r"\s+",
}
"""What may be another one of its form, and that form's expression where it is another: ids, times, spans, blanks."""


def as_pattern(text: str) -> str:
    """Return an expression for a text of a document, whose ids, times, spans and blanks may be others."""
    done, parts = 0, []
    for found in re.finditer("|".join(f"({form})" for form in FORMS), text):
        form, other = list(FORMS.items())[next(n for n, part in enumerate(found.groups()) if part is not None)]
        parts += [re.escape(text[done : found.start()]), other or form]
        done = found.end()
    return "".join([*parts, re.escape(text[done:])])


def differences(documented: Any, answered: Any, where: str = "$") -> list[str]:
    """Return where an answer is not as documented: values may be others of their form, and fields may be added."""
    if isinstance(documented, dict) and isinstance(answered, dict):
        missing = [f"{where}.{name} is missing" for name in documented.keys() - answered.keys()]
        both = documented.keys() & answered.keys()
        return missing + [one for n in both for one in differences(documented[n], answered[n], f"{where}.{n}")]
    if isinstance(documented, str) and isinstance(answered, str):
        return [] if re.fullmatch(as_pattern(documented), answered) else [f"{where} is {answered}"]
    return [] if documented == answered else [f"{where} is {answered}"]


def commands(text: str) -> list[str]:
    """Return the commands of a block, a line each: what ends in a backslash goes on in the next."""
    lines = text.replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]
