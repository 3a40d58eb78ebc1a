"""Which words can be meant at the cursor: the hidden command `orbitctl _complete SHELL ...`.

    orbitctl _complete bash LINE COMP_WORDBREAKS      the line up to the cursor
    orbitctl _complete zsh|fish WORD...               the words up to the cursor, without quotes and `orbitctl`

The first line of the answer says what the shell has to do:

| line | what is offered |
|---|---|
| `words` | the following lines: for bash what is inserted, quoted; for others a word, and behind a tab what it is |
| `files`, `folders` | files or folders of this machine |
| `command N` | what another command takes, whose name is word N (from 0); for bash, the one at character N |

Whatever fails is an empty answer: an error would be printed into the line that the user is editing. No daemon is
started, and after `TIMEOUT` seconds there is none, either.
"""

from __future__ import annotations

import os
import sys

from orbit_protocol.visible import visible
from orbitctl.client.light import SOCKET_VARIABLE, LightConnection, Unusual
from orbitctl.completion.bash_words import Line
from orbitctl.completion.table import COMMANDS, COMMON_OPTIONS, KEYS, METHODS
from orbitctl.ui import listing

TYPE_CHECKING = False
if TYPE_CHECKING:  # as typing has it, which is not imported here
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from typing import Any

TIMEOUT = 1.0
"""Seconds for an answer."""
MAX_NAMES = 1_000
WORDS, FILES, FOLDERS, COMMAND = "words", "files", "folders", "command"

Candidate = tuple[str, str]
"""A word, and what it is."""

_STATES = ("live", "kept", "ended")
SESSIONS: dict[str, tuple[tuple[str, ...], ...]] = {
    **dict.fromkeys(("attach", "a"), (("live",), ("kept", "ended"))),
    **dict.fromkeys(("send", "signal"), (("live",),)),
    "wait": (("live",), ("ended",)),
    **dict.fromkeys(("kill", "terminate", "detach"), (("live", "kept"),)),
    "start": (("kept", "ended"),),
    **dict.fromkeys(("rm", "delete"), (("ended", "kept", "live"),)),
    "restore": (("archived",),),
    "undelete": (("deleted",),),
}
"""The sessions that a command can mean, in the order in which they are offered; a later group where no other fits.

`kept` is what has not ended and does not run. Other commands take any session, live ones first.
"""
COMMAND_BEHIND_DASHES = ("new", "resume")
"""Commands that take whatever follows `--` for another command: their first argument may be left out."""
_FIRST_SIGNALS = ("INT", "TERM", "HUP", "KILL", "QUIT", "USR1", "USR2", "STOP", "CONT", "WINCH")


class Place:
    """What is to be completed.

    Attributes:
        kind: What can stand there, as the table names it; "" for nothing that is known.
        path: The command that it belongs to.
        current: The word, up to the cursor; without `--option=` before a value.
        prefix: That `--option=`.
        given: The arguments before it.
        command_at: Where another command begins among the words, for the kind `command`.
        is_argument: Whether it stands behind `--`, so that it may begin with `-`.
        settings: The values of common options before it.
    """

    def __init__(self, words: Sequence[str], current: str) -> None:
        self.kind, self.path, self.current, self.prefix = "", "", current, ""
        self.given: list[str] = []
        self.command_at = 0
        self.is_argument = False
        self.settings: dict[str, list[str]] = {}
        self._find(words)

    def _find(self, words: Sequence[str]) -> None:
        waiting = ""  # the option whose value comes next
        for at, word in enumerate(words):
            if waiting:
                self._set(waiting, word)
                waiting = ""
            elif not self.is_argument and word.startswith("-") and word != "-":
                waiting = self._pass_option(word)
                if self.is_argument and self.path.rpartition(" ")[2] in COMMAND_BEHIND_DASHES:
                    self.kind, self.command_at = "command", at + 1
                    return
            elif self._is_group():
                self.path = f"{self.path} {word}".lstrip()
                if self.path not in COMMANDS:
                    return
            else:
                self.given.append(word)
                if self._argument(len(self.given) - 1) == "command" and (self.is_argument or not self._is_mixed()):
                    self.kind, self.command_at = "command", at
                    return
        self._find_kind(waiting, len(words))

    def _pass_option(self, word: str) -> str:
        """Read a word that begins with `-`; return the option whose value is the next word, "" for none."""
        if word == "--":
            self.is_argument = True
            return ""
        if not word.startswith("--"):
            return self._waiting_letter(word)
        name, equals, value = word.partition("=")
        if equals:
            self._set(name, value)
        return name if self._option(name) and not equals else ""

    def _find_kind(self, waiting: str, count: int) -> None:
        """Find what the word at the cursor is, behind `count` words."""
        if waiting:
            self.kind = self._option(waiting) or ""
        elif not self.is_argument and self.current.startswith("-"):
            name, equals, value = self.current.partition("=")
            if equals and name.startswith("--"):
                self.kind, self.prefix, self.current = self._option(name) or "", name + equals, value
            else:
                self.kind = "option"
        elif self._is_group():
            self.kind = "subcommand"
        else:
            self.kind = self._argument(len(self.given))
            if self.kind == "command":
                self.command_at = count
                if self._is_mixed() and not self.is_argument:  # `new NAME`: a command stands behind `--` alone
                    self.kind = "option"
            elif not self.kind:
                self.kind = "option"  # nothing else is left

    def _waiting_letter(self, word: str) -> str:
        """Return the option of a group of letters, `-qn`, whose value is the next word; "" for none."""
        for at in range(1, len(word)):
            if kind := self._option(f"-{word[at]}"):
                return f"-{word[at]}" if kind and at == len(word) - 1 else ""
        return ""

    def _set(self, name: str, value: str) -> None:
        if name not in _options(self.path):
            self.settings.setdefault(name, []).append(value)

    def _option(self, name: str) -> str | None:
        """Return the kind of an option's value, "" for a flag, None for what is no option here."""
        found = _options(self.path).get(name) or _options(None).get(name)
        return found[0] if found else None

    def _argument(self, number: int) -> str:
        """Return the kind of an argument; "" where the command takes no more."""
        kinds = COMMANDS[self.path][1]
        if number < len(kinds):
            return kinds[number].removesuffix("...")
        return kinds[-1].removesuffix("...") if kinds and kinds[-1].endswith("...") else ""

    def _is_group(self) -> bool:
        return not COMMANDS[self.path][1] and any(True for _ in _children(self.path))

    def _is_mixed(self) -> bool:
        """Whether options may stand behind arguments."""
        return COMMANDS[self.path][2]


def _children(path: str) -> Iterator[Candidate]:
    """Yield the commands of a group."""
    for each, (about, _, _, _) in COMMANDS.items():
        group, _, name = each.rpartition(" ")
        if each and group == path:
            yield name, about


def _options(path: str | None) -> dict[str, tuple[str, str]]:
    """Return a command's options without the common ones, or those alone: each with the kind of its value, and help."""
    found = {}
    for row in COMMON_OPTIONS if path is None else COMMANDS[path][3]:
        names, kind, about = row.split("|", 2)
        for name in names.split():
            found[name] = (kind, about)
    return found


def candidates(place: Place) -> list[Candidate]:
    """Return the words that can be meant, best first; which of them the typed word begins, the shell sees to."""
    kind, _, detail = place.kind.partition(":")
    source = _SOURCES.get(kind)
    return source(place, detail) if source else []


def _workspaces(place: Place, _: str) -> list[Candidate]:
    found = _ask(place, "workspace.list", {"limit": MAX_NAMES})["workspaces"]
    return [_named(one, place, visible(one["layout"]["layout_type"])) for one in found]


def _list_items(place: Place, detail: str) -> list[Candidate]:
    """Return what may follow the items of a list with commas that are there; `-` before one is a part of it."""
    done, comma, last = place.current.rpartition(",")
    before = f"{done}{comma}{'-' if last.startswith('-') else ''}"
    taken = done.split(",")
    return [(before + word, "") for word in detail.split(",") if word not in taken]


def _option_names(place: Place, _: str) -> list[Candidate]:
    """Return the long options, and the short ones that have no long name; the common ones last."""
    found: dict[str, str] = {}
    for path in (place.path, None):
        for row in COMMON_OPTIONS if path is None else COMMANDS[path][3]:
            names, _, about = row.split("|", 2)
            long = [name for name in names.split() if name.startswith("--")]
            for name in long or names.split():
                found.setdefault(name, about)
    return list(found.items())


def _keys(place: Place, _: str) -> list[Candidate]:
    """Return the names of keys, with the modifiers that were typed."""
    rest, modifiers = place.current, ""
    while len(rest) > 1 and rest[0] in "CMSAcmsa" and rest[1] == "-":
        modifiers, rest = modifiers + rest[:2], rest[2:]
    names = [f"{modifiers}{name}" for name in KEYS]
    letters = [f"{modifiers or 'C-'}{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]
    return [(name, "") for name in (*names, *letters)]


def _signals(place: Place, _: str) -> list[Candidate]:
    """Return the names of signals, spelt as the word was begun: `SIGINT`, `INT` or `int`."""
    import _signal  # type: ignore[import-not-found]  # typeshed has `signal` alone

    known: dict[int, str] = {}  # by number: of two names for one signal the first counts, as in `signal.Signals`
    for name in dir(_signal):
        if name.startswith("SIG") and name[3] != "_":
            known.setdefault(getattr(_signal, name), name[3:])
    names = [name for name in _FIRST_SIGNALS if name in known.values()]
    names += [name for name in known.values() if name not in names]
    if place.current.upper().startswith("SIG"):
        names = [f"SIG{name}" for name in names]
    return [(name.lower() if place.current.islower() else name, "") for name in names]


def _sessions(place: Place, _: str) -> list[Candidate]:
    """Return the sessions that a command can mean; by its id what has no name, or one that cannot be typed here."""
    groups = SESSIONS.get(place.path.rpartition(" ")[2], (_STATES,))
    wanted = {state for group in groups for state in group}
    if "deleted" in wanted:
        found = _ask(place, "session.list_deleted", {"limit": MAX_NAMES})["sessions"]
        by_state = {"deleted": found}
    else:
        statuses = ["archived"] if "archived" in wanted else ["active", "detached"]
        statuses += ["terminated"] if "ended" in wanted else []
        found = _ask(place, "session.list", {"status": statuses, "limit": MAX_NAMES})["sessions"]
        found.sort(key=_last_used, reverse=True)
        by_state = {}
        for one in found:
            by_state.setdefault(_state(one), []).append(one)
    found = [one for state in dict.fromkeys((*_STATES, *wanted)) for one in by_state.get(state, ())]
    # A name that several have means the one that has not ended, else the newest.
    owners: dict[str, Any] = {}
    for one in found:
        owners.setdefault(one["name"], one)
    taken = set(place.given)
    offered: list[Candidate] = []
    for group in groups:
        for one in (one for state in group for one in by_state.get(state, ())):
            if one["name"] is None or owners[one["name"]] is one:
                word, about = _named(one, place, _about(one))
                if taken.isdisjoint((word, one["id"])):
                    offered.append((word, about))
        if any(_fits(word, place.current) for word, _ in offered):
            return offered
    # An id may have been begun.
    begun = [one for one in found if place.current and _fits(one["id"], place.current)]
    return offered + [(one["id"], _described(one)) for one in begun]


def _labels(place: Place, _: str) -> list[Candidate]:
    statuses = ["active", "detached", "terminated"]
    found = _ask(place, "session.list", {"status": statuses, "limit": MAX_NAMES})["sessions"]
    pairs = {f"{key}={value}" for one in found for key, value in one.get("labels", {}).items()}
    return [(pair, "") for pair in sorted(pairs) if _is_plain(pair)]


def _named(one: Mapping[str, Any], place: Place, about: str) -> Candidate:
    """Return the name of a session or workspace, and what it is; its id where a name cannot be typed or shown."""
    name = one["name"]
    if name is not None and _is_plain(name) and (place.is_argument or not name.startswith("-")):
        return name, about
    return one["id"], about if name is None else f"{visible(name)}: {about}"


def _described(one: Mapping[str, Any]) -> str:
    return _about(one) if one["name"] is None else f"{visible(one['name'])}: {_about(one)}"


def _about(one: Mapping[str, Any]) -> str:
    """Return what a session is, in a few words: its status as `ls` has it, and what it runs."""
    command = visible(one["config"].get("command") or one["config"].get("host") or "shell")
    return f"{listing.state(one)}, {command if len(command) <= 50 else command[:49] + '…'}"


def _state(one: Mapping[str, Any]) -> str:
    if one["status"] == "archived":
        return "archived"
    return "live" if one.get("live") else "ended" if one["status"] == "terminated" else "kept"


def _last_used(one: Mapping[str, Any]) -> str:
    return max(one.get(key) or "" for key in ("last_active", "last_output_at", "last_input_at"))


def _fits(word: str, current: str) -> bool:
    """Whether a word begins as what was typed; in any case, which some shells are set to."""
    return word.casefold().startswith(current.casefold())


def _is_plain(text: str) -> bool:
    """Whether a terminal shows a text as it is."""
    return visible(text) == text


def _ask(place: Place, method: str, params: Mapping[str, Any]) -> Any:
    """Return a method's result. Raises: an exception of any kind where there is none."""
    environ = dict(os.environ)
    if sockets := place.settings.get("--socket"):
        environ[SOCKET_VARIABLE] = sockets[-1]
    if not place.settings.get("--host"):
        try:
            return LightConnection(environ).call(method, params).value
        except Unusual:
            pass
    return _ask_as_others_do(place, environ, method, params)


def _ask_as_others_do(place: Place, environ: Mapping[str, str], method: str, params: Mapping[str, Any]) -> Any:
    """Return a method's result as any command asks for it: where a configuration or another machine has a say."""
    from orbit_protocol.json_text import decode_any
    from orbitctl.app import App
    from orbitctl.client.ssh import parse_host

    app = App(environ)
    app.autostart, app.completing, app.timeout = False, True, TIMEOUT
    app.named_hosts = tuple(map(parse_host, place.settings.get("--host", ())))
    app.remote_command = place.settings.get("--remote-command", [None])[-1]
    try:
        return decode_any(app.client.ask_raw(method, params))
    finally:
        app.close()


_SOURCES: dict[str, Callable[[Place, str], list[Candidate]]] = {
    "session": _sessions,
    "workspace": _workspaces,
    "label": _labels,
    "choice": lambda _, detail: [(word, "") for word in detail.split(",")],
    "list": _list_items,
    "subcommand": lambda place, _: list(_children(place.path)),
    "subcommands": lambda place, _: list(_children(" ".join(place.given))),  # of `help`
    "option": _option_names,
    "key": _keys,
    "signal": _signals,
    "method": lambda _place, _detail: [(name, "") for name in METHODS],
}


def answer(shell: str, arguments: Sequence[str]) -> list[str]:
    """Return the lines of the answer to a shell. Raises: an exception of any kind where there is none."""
    line = Line(*arguments) if shell == "bash" else None
    words, current = (line.words[1:], line.current) if line else (arguments[:-1], arguments[-1])
    if line and line.is_file:
        return [FILES]
    place = Place(words, current)
    if place.kind == "command":
        return [f"{COMMAND} {line.starts[place.command_at + 1] if line else place.command_at}"]
    if place.kind in ("file", "folder"):
        return [FILES if place.kind == "file" else FOLDERS]
    found = [(place.prefix + word, about) for word, about in candidates(place)]
    if line:
        fitting: Iterable[str | None] = (line.insertion(word) for word, _ in found)
        return [WORDS, *dict.fromkeys(word for word in fitting if word)]
    return [WORDS, *(f"{word}\t{about}".rstrip("\t") for word, about in found)]


def main(arguments: Sequence[str]) -> int:
    """Print the answer to a shell, or nothing; return the exit code."""
    import _signal

    # No daemon, and no ssh, keeps the user's shell waiting for longer.
    _signal.signal(_signal.SIGALRM, lambda *_: os._exit(0))
    _signal.setitimer(_signal.ITIMER_REAL, TIMEOUT)
    try:
        text = "".join(f"{line}\n" for line in answer(arguments[0], arguments[1:]))
        sys.stdout.buffer.write(text.encode(errors="surrogateescape"))
        sys.stdout.flush()
    except Exception:  # noqa: BLE001  # whatever it is, it would be printed into the line that the user is editing
        return 0
    finally:
        _signal.setitimer(_signal.ITIMER_REAL, 0)  # the interpreter takes our handler away at its end
    return 0
