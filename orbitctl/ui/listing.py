"""Lay out tables, and the sessions in them: plain dicts in, text out.

The entry of `ls` and `session list` that needs neither click nor msgspec decodes sessions with the standard library;
the click commands draw every table of theirs with the same functions. So nothing is imported here that takes
milliseconds (typing, dataclasses, re, datetime), and rows of sessions are the JSON of `Session`.

On a terminal a table is as wide as the terminal at most:

1. Columns of a high rank are left out, the highest first, and elastic ones are cut, until the column that one types
   next (rank 0: the name) has its longest cell whole.
2. Where that is not enough, the name is cut, but not below its floor.
3. Where that leaves no room for COMMAND either, this and then IDLE and ID are left out, so that the name is whole if it
   can be; then STATUS, so that it keeps its floor; at last it stands alone.

What is cut ends in an ellipsis: the text before it is a prefix, which can be typed where it is unique. Where two cells
would read the same they are cut in the middle. In a pipe nothing is cut and no column is left out.
"""

from __future__ import annotations

from orbit_protocol.visible import visible
from orbitctl.ui.text import duration, span_ago, take, take_end, width

TYPE_CHECKING = False
if TYPE_CHECKING:  # as typing has it, which is not imported here
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any

    Row = Mapping[str, Any]

EMPTY = "-"
ELLIPSIS = "…"
MIN_COLUMNS = 20
"""Tables are not laid out for less: what a terminal wraps can still be read."""
MIN_CELLS = 8
"""What an elastic column keeps, before it is left out."""
NAME_CELLS = 24
"""A name is not cut below this, as long as the terminal has so many columns."""
EXTRA_RANK, MAX_RANK = 5, 20
"""Columns of the first rank and above are left out before a name is cut."""
NARROW = 46
"""On fewer columns id, name and status do not fit beside one another: a session without a name shows its id there."""
SHORT_ID_LENGTHS = (8, 13, 18, 23)
"""Where an id may end on a terminal: at its hyphens."""

ESCAPES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}


class View:
    """What a table is drawn for.

    Args:
        terminal: Whether it is a terminal; else a pipe.
        width: The terminal's columns.
        colour: Whether colours and bold type may be used.
        now: The time, in seconds since the epoch.
        encoding: That of stdout; what it has no character for is written as an escape.
        workspaces: The names of workspaces by id.
        here: The id of the session that this process runs in.
    """

    def __init__(
        self,
        *,
        terminal: bool,
        width: int = 80,
        colour: bool = False,
        now: float = 0.0,
        encoding: str = "utf-8",
        workspaces: Mapping[str, str] | None = None,
        here: str | None = None,
    ) -> None:
        self.terminal = terminal
        self.width = max(MIN_COLUMNS, width)
        self.colour = colour and terminal
        self.now = now
        self.encoding = encoding
        self.workspaces = workspaces or {}
        self.here = here
        self.id_length = SHORT_ID_LENGTHS[0]

    def short_id(self, value: str) -> str:
        """Return an id; on a terminal its first characters."""
        return value[: self.id_length] if self.terminal else value

    def text(self, value: str | None, empty: str = EMPTY) -> str:
        """Return what a cell shows: nothing in it is obeyed by a terminal, and stdout can encode all of it."""
        shown = visible(value) if value else empty
        if shown.isascii() or self.encoding == "utf-8":
            return shown
        return shown.encode(self.encoding, "backslashreplace").decode(self.encoding)


class Column:
    """One column of a table.

    Args:
        title: What stands above it.
        cell: Its text for a row and a `View`.
        style: How it looks on a terminal: a key of ESCAPES, or "".
        right: Whether it is aligned to the right there.
        rank: When it is left out on a narrow terminal: the highest first, and 0 never.
        floor: Where it may be cut, the cells that it keeps until others have been left out; None: it is never cut.
        optional: Whether it is left out on a terminal if no row has a value.
        empty: What a cell without a value shows.
        gap: The blanks after it.
    """

    __slots__ = ("cell", "empty", "floor", "gap", "optional", "rank", "right", "style", "title")

    def __init__(
        self,
        title: str,
        cell: Callable[[Any, Any], str | None],
        style: Callable[[Any], str] | None = None,
        *,
        right: bool = False,
        rank: int = 0,
        floor: int | None = None,
        optional: bool = False,
        empty: str = EMPTY,
        gap: int = 2,
    ) -> None:
        self.title = title
        self.cell = cell
        self.style = style
        self.right = right
        self.rank = rank
        self.floor = floor
        self.optional = optional
        self.empty = empty
        self.gap = gap


def table(columns: Sequence[Column], rows: Sequence[Any], view: View, *, chosen: bool = False) -> str:
    """Return a table with a header; each line ends in a newline.

    Args:
        columns: The columns.
        rows: What their `cell` takes.
        view: What it is drawn for.
        chosen: Whether the user has named the columns: then none is left out, and lines may be too long.
    """
    cells = [_cells_of(column, rows, view) for column in columns]
    shown = list(range(len(columns)))
    if view.terminal and not chosen:
        shown = [i for i in shown if not columns[i].optional or any(cell != columns[i].empty for cell in cells[i])]
    # In a pipe nothing is padded to the width of the last column, whose texts may be thousands of characters long.
    measured = shown if view.terminal else shown[:-1]
    natural = {i: max(map(width, [columns[i].title, *cells[i]])) if i in measured else 0 for i in shown}
    widths = _fit(columns, natural, view.width, chosen) if view.terminal else natural
    drawn = []
    for i, columns_wide in widths.items():
        column = columns[i]
        texts = cells[i] if natural[i] <= columns_wide else _cut(cells[i], columns_wide, view)
        title = take(column.title, columns_wide) if view.terminal else column.title
        if view.colour:
            styles = ["bold", *map(column.style, rows)] if column.style else ["bold", *[""] * len(rows)]
        else:
            styles = [""] * (len(rows) + 1)
        if i == max(widths) and not column.right:
            drawn.append([_styled(text, style) for text, style in zip([title, *texts], styles, strict=True)])
            continue
        gap = " " * column.gap
        drawn.append(
            [
                _padded(text, columns_wide, style, right=column.right and view.terminal) + gap
                for text, style in zip([title, *texts], styles, strict=True)
            ]
        )
    return "".join("".join(line).rstrip() + "\n" for line in zip(*drawn, strict=True))


def _cells_of(column: Column, rows: Sequence[Any], view: View) -> list[str]:
    """Return what a column shows for each row, not yet cut, but for what can never be seen of a title of 4 kB."""
    values = [column.cell(row, view) for row in rows]
    if view.terminal and column.rank and column.floor is not None:
        most = 4 * view.width  # so many characters are wider than the terminal, unless most of them are combined
        values = [value[:most] if value else value for value in values]
    return [view.text(value, column.empty) for value in values]


def _styled(text: str, style: str) -> str:
    return f"\x1b[{ESCAPES[style]}m{text}\x1b[0m" if style and text else text


def _padded(text: str, columns_wide: int, style: str, *, right: bool) -> str:
    blanks = " " * (columns_wide - width(text))
    return blanks + _styled(text, style) if right else _styled(text, style) + blanks


class _Fit:
    """The widths of columns while they are fitted into a terminal.

    Args:
        columns: All columns.
        natural: The width of the longest cell of each, by index; without those that are not drawn.
        limit: The terminal's columns.
    """

    def __init__(self, columns: Sequence[Column], natural: Mapping[int, int], limit: int) -> None:
        self.columns = columns
        self.natural = natural
        self.limit = limit
        self.widths: dict[int, int] = dict(natural)
        self.elastic = [i for i in natural if columns[i].floor is not None]
        self.others = sorted((i for i in natural if columns[i].rank), key=lambda i: -columns[i].rank)

    def is_too_wide(self) -> int:
        """Return by how many columns it is too wide; less than 1 if it is not."""
        used = sum(wide + self.columns[i].gap for i, wide in self.widths.items())
        return used - self.columns[max(self.widths)].gap - self.limit

    def squeeze(self, i: int, least: int) -> None:
        """Cut an elastic column to `least`, unless it is no wider."""
        if i in self.widths and self.columns[i].floor is not None:
            self.widths[i] = min(self.widths[i], least)

    def concede(self, lowest_rank: int) -> bool:
        """Cut the other columns and leave them out, down to a rank, until all fit; return whether they do."""
        for i in self.others:
            if self.is_too_wide() > 0:
                self.squeeze(i, MIN_CELLS)
            if self.is_too_wide() > 0 and self.columns[i].rank >= lowest_rank:
                del self.widths[i]
        return self.is_too_wide() <= 0

    def use_floors(self, elastic: Iterable[int]) -> None:
        """Cut columns to their floors."""
        for i in elastic:
            self.squeeze(i, self.columns[i].floor or 0)

    def grow(self) -> dict[int, int]:
        """Give what is left to the columns that are cut, the lowest rank first; return the widths."""
        for i in sorted(self.elastic, key=lambda i: self.columns[i].rank):
            if i in self.widths:
                self.widths[i] += max(0, min(self.natural[i] - self.widths[i], -self.is_too_wide()))
        return self.widths


def _fit(columns: Sequence[Column], natural: Mapping[int, int], limit: int, chosen: bool) -> dict[int, int]:
    """Return the widths of the columns that are drawn, by index, in order; the module's docstring has the rules."""
    fit = _Fit(columns, natural, limit)
    if chosen:
        fit.use_floors(fit.elastic)
        fit.concede(MAX_RANK + 1)
        return fit.grow()
    fit.use_floors(i for i in fit.elastic if columns[i].rank)
    if fit.concede(EXTRA_RANK):
        return fit.grow()
    core = {i: wide for i, wide in natural.items() if columns[i].rank < EXTRA_RANK}
    for is_whole, lowest_rank in ((False, EXTRA_RANK), (True, 2), (False, 1)):
        fit = _Fit(columns, core, limit)
        for i in fit.others:
            fit.squeeze(i, MIN_CELLS)
        if not is_whole:
            fit.use_floors(fit.elastic)
        if fit.concede(lowest_rank):
            return fit.grow()
    for i in fit.elastic:
        if i in fit.widths:
            fit.squeeze(i, max(1, fit.widths[i] - max(0, fit.is_too_wide())))
    return fit.grow()


def _cut(cells: Sequence[str], columns_wide: int, view: View) -> list[str]:
    """Return cells cut to a width: at the end, and in the middle those that would read the same then."""
    mark = view.text(ELLIPSIS)
    room = max(0, columns_wide - width(mark))
    cut = [cell if width(cell) <= columns_wide else take(take(cell, room) + mark, columns_wide) for cell in cells]
    meant: dict[str, set[str]] = {}
    for cell, short in zip(cells, cut, strict=True):
        meant.setdefault(short, set()).add(cell)
    for number, cell in enumerate(cells):
        if len(meant[cut[number]]) > 1 and room >= 2:
            tail = take_end(cell, room // 2)
            cut[number] = take(cell, room - width(tail)) + mark + tail
    return cut


def timestamp(text: str) -> float:
    """Return a time of the protocol (RFC 3339) in seconds since the epoch."""
    year, month, day = int(text[:4]), int(text[5:7]), int(text[8:10])
    # Days since 1970-01-01 in the Gregorian calendar; years begin in March, so that the leap day is their last.
    if month < 3:
        year, month = year - 1, month + 12
    days = 365 * year + year // 4 - year // 100 + year // 400 + (153 * month - 457) // 5 + day - 719_469
    moment = days * 86_400.0 + int(text[11:13]) * 3600 + int(text[14:16]) * 60
    rest = text[17:]
    if rest[-1] in "Zz":
        return moment + float(rest[:-1])
    sign = -1 if rest[-6] == "+" else 1
    return moment + float(rest[:-6]) + sign * (int(rest[-5:-3]) * 3600 + int(rest[-2:]) * 60)


# Sessions


def state(row: Row) -> str:
    """Return what `ls` shows as a session's status.

    `attached` and `detached` are live; `exit 1`, `signal KILL` and `ended` have ended. `lost` has run here and does
    not now, since the machine started again or its connection broke; `recorded` has never run here.
    """
    if row["status"] == "archived":
        return "archived"
    if row.get("live"):
        return "attached" if row["status"] == "active" else "detached"
    if row["status"] != "terminated":
        # One that has run and does not is never active; an imported one has a size before it has run.
        return "recorded" if row.get("cols") is None or row["status"] == "active" else "lost"
    if row.get("exit_signal") is not None:
        return f"signal {_signal_name(row['exit_signal'])}"
    return "ended" if row.get("exit_code") is None else f"exit {row['exit_code']}"


def _signal_name(number: int) -> str:
    import signal  # not at the top: it needs enum, and few sessions end by a signal

    try:
        return signal.Signals(number).name.removeprefix("SIG")
    except ValueError:  # a real-time signal
        return str(number)


def idle_seconds(row: Row, now: float) -> float:
    """Return the seconds since the last output or key; since the last change where neither has a time."""
    times = [moment for field in ("last_output_at", "last_input_at") if (moment := row.get(field))]
    return max(0.0, now - max(map(timestamp, times or [row["last_active"]])))


def host_of(row: Row) -> str | None:
    """Return `user@host:port`, without the parts that are not set."""
    config = row["config"]
    if config.get("host") is None:
        return None
    user = f"{config['username']}@" if config.get("username") else ""
    port = f":{config['port']}" if config.get("port") else ""
    return f"{user}{config['host']}{port}"


def _shell(row: Row) -> str | None:
    """Return what stands in COMMAND for a session without one, if it has ever run here."""
    return "(login shell)" if row.get("cols") is not None and row["session_type"] == "local" else None


def _private(row: Row) -> str | None:
    """Return what stands in COMMAND for a private session, whose command is kept nowhere; None for any other."""
    if row["config"].get("record") != "none":
        return None
    return f"(private) {(row.get('title') or '').strip()}".rstrip()


def _command(row: Row, _: View) -> str | None:
    what: str | None = _private(row) or row["config"].get("command") or row.get("title")
    return what or _shell(row)


def _running(row: Row, _: View) -> str | None:
    """Return what a session is about: the title that its program has set, else what runs, or would."""
    if private := _private(row):
        return private
    command: str | None = row["config"].get("command")
    title = (row.get("title") or "").strip()
    if host := host_of(row):
        command = f"ssh {host} {command or ''}".rstrip()
    return (title or command if row.get("live") else command or title) or _shell(row)


def _mark(row: Row, view: View) -> str | None:
    if row["id"] == view.here:
        return "*"
    wants_a_look = row.get("notification") or row.get("bell") or row.get("screen") == "damaged"
    return "!" if wants_a_look else None


def news(row: Row) -> str | None:
    """Return what has happened since the last client left that may type, and how far the program says it is.

    One word, as the others go without saying: who has said something has printed, too.
    """
    words = [word for word in (_seen_of(row), progress(row)) if word]
    return ",".join(words) or None


def _seen_of(row: Row) -> str | None:
    for field, word in (("notification", "notification"), ("bell", "bell"), ("unseen_output", "output")):
        if row.get(field):
            return word
    return None


def progress(row: Row) -> str | None:
    """Return the progress that a program shows, as `45%`, `error`, `paused` or `busy`."""
    found = row.get("progress")
    if not found:
        return None
    if found["state"] == "normal" and found.get("percent") is not None:
        return f"{found['percent']}%"
    return {"error": "error", "paused": "paused"}.get(found["state"], "busy")


def _news_style(row: Row) -> str:
    return "yellow" if row.get("notification") or row.get("bell") else ""


def _exit(row: Row, _: View) -> str | None:
    if row.get("exit_signal") is not None:
        return _signal_name(int(row["exit_signal"]))
    return None if row.get("exit_code") is None else str(row["exit_code"])


def size_of(row: Row) -> str | None:
    """Return the columns and rows of a session, now or when it was live: `80x24`."""
    return f"{row['cols']}x{row['rows']}" if row.get("cols") and row.get("rows") else None


def workspace_of(row: Row, view: View) -> str | None:
    """Return the name of a session's workspace, or its id."""
    found: str | None = row["workspace_id"]
    return view.workspaces.get(found or "", found)


def moment_cell(field: str) -> Callable[[Row, View], str | None]:
    """Return the cell of a column for a time: `3m ago` on a terminal, else as it came."""

    def cell(row: Row, view: View) -> str | None:
        moment: str | None = row.get(field)
        return moment if not moment or not view.terminal else span_ago(view.now - timestamp(moment))

    return cell


def _field(name: str) -> Callable[[Row, View], str | None]:
    def cell(row: Row, _: View) -> str | None:
        value = row.get(name)
        return None if value is None else str(value)

    return cell


def _labels(row: Row, _: View) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted((row.get("labels") or {}).items()))


STATUS_STYLES = {"active": "green", "detached": "yellow", "terminated": "dim", "archived": "dim"}
_STATE_STYLES = {"attached": "green", "detached": "yellow", "lost": "red"}


def _bold(_: object) -> str:
    return "bold"


def _green(_: object) -> str:
    return "green"


def _cyan(_: object) -> str:
    return "cyan"


# By the names that --columns takes.
SESSION_COLUMNS: dict[str, Column] = {
    "mark": Column("", _mark, optional=True, empty="", gap=1, rank=2),
    "machine": Column("HOST", _field("machine"), _cyan, rank=2, floor=16),  # of a list of several machines
    "id": Column("ID", lambda row, view: view.short_id(row["id"]), rank=2),
    "name": Column("NAME", lambda row, view: row["name"], _bold, floor=NAME_CELLS),
    "name-or-id": Column("NAME", lambda row, view: row["name"] or view.short_id(row["id"]), _bold, floor=NAME_CELLS),
    "status": Column("STATUS", _field("status"), lambda row: STATUS_STYLES.get(row["status"], ""), rank=1),
    "state": Column("STATUS", lambda row, _: state(row), lambda row: _STATE_STYLES.get(state(row), "dim"), rank=1),
    "exit": Column("EXIT", _exit, right=True, rank=5),
    "type": Column("TYPE", _field("session_type"), rank=9),
    "host": Column("HOST", lambda row, _: host_of(row), floor=16, optional=True, rank=5),
    "ssh-host": Column("SSH HOST", lambda row, _: host_of(row), floor=16, optional=True, rank=5),
    "workspace": Column("WORKSPACE", workspace_of, floor=12, optional=True, rank=6),
    "live": Column("LIVE", lambda row, _: "live" if row.get("live") else None, _green, optional=True, rank=7),
    "size": Column("SIZE", lambda row, _: size_of(row) if row.get("live") else None, optional=True, rank=11),
    "clients": Column(
        "CLIENTS", lambda row, _: str(row["clients"]) if row.get("live") else None, right=True, optional=True, rank=8
    ),
    "idle": Column("IDLE", lambda row, view: duration(idle_seconds(row, view.now)), right=True, rank=3),
    "news": Column("NEWS", lambda row, _: news(row), _news_style, optional=True, rank=5),
    "saved": Column("SAVED", moment_cell("last_saved_at"), optional=True, rank=10),
    "created": Column("CREATED", moment_cell("created_at"), rank=6),
    "deleted": Column("DELETED", moment_cell("deleted_at"), rank=3),
    "title": Column("TITLE", _field("title"), floor=20, rank=4),
    "folder": Column("FOLDER", _field("cwd"), floor=20, rank=4),
    "pid": Column("PID", _field("pid"), right=True, rank=7),
    "labels": Column("LABELS", _labels, floor=16, rank=5),
    "command": Column("COMMAND", _command, floor=20, rank=4),
    "running": Column("COMMAND", _running, floor=20, rank=4),
}

LIST_COLUMNS = (
    *("id", "name", "status", "type", "host", "workspace", "live", "size", "clients", "idle", "saved", "news"),
    "command",
)
"""Of `session list`."""
LIST_COLUMNS_OF_HOSTS = ("machine", *("ssh-host" if name == "host" else name for name in LIST_COLUMNS))
"""Of `session list` with several machines."""
LS_COLUMNS = ("mark", "name-or-id", "state", "idle", "news", "running")
LS_ALL_COLUMNS = ("mark", "name-or-id", "state", "exit", "idle", "news", "running")
LS_DELETED_COLUMNS = ("id", "name", "deleted", "running")
"""Of `ls`, `ls -a` and `ls --deleted`."""


def sessions_table(rows: Sequence[Row], names: Iterable[str], view: View, *, chosen: bool = False) -> str:
    """Return a table of sessions.

    Args:
        rows: The JSON of each session; with `machine` in a list of several.
        names: Keys of SESSION_COLUMNS.
        view: What it is drawn for.
        chosen: Whether the user has named the columns.
    """
    names = list(names)
    if view.terminal:
        view.id_length = _short_id_length(rows)
        if view.width < NARROW and not chosen and "name" in names:
            names = ["name-or-id" if name == "name" else name for name in names if name != "id"]
        given = [(row.get("machine"), row["name"]) for row in rows if row["name"]]
        if "name-or-id" in names and not chosen and len(set(given)) < len(given):
            names.insert(names.index("name-or-id"), "id")  # a name alone does not say which one is meant
    elif not chosen:
        # The first word of a line of `ls` is the name; `session list` has the columns there that it has always had.
        left_out = "mark" if "mark" in names else "news"
        names = [name for name in names if name != left_out]
    return table([SESSION_COLUMNS[name] for name in names], rows, view, chosen=chosen)


def _short_id_length(rows: Sequence[Row]) -> int:
    """Return how many characters of their ids tell the sessions apart."""
    for length in SHORT_ID_LENGTHS:
        if len({row["id"][:length] for row in rows}) == len(rows):
            return length
    return max((len(row["id"]) for row in rows), default=0)
