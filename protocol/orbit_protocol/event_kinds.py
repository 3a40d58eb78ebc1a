"""The kinds of events, and how clients name them: a kind (`session.exited`) or a group (`session.*`)."""

from __future__ import annotations

from collections.abc import Sequence

from orbit_protocol.errors import InvalidParams

STORED_KINDS: dict[str, str] = {
    "session.created": "A session was recorded.",
    "session.started": "Its program was started.",
    "session.exited": "Its program has ended: by itself, or, as `reason` says then, by a request.",
    "session.disconnected": "Its program was lost, as by a reboot, or the connection of its ssh was.",
    "session.reconnected": "Its program was started again after that.",
    "session.attached": "A client has attached.",
    "session.detached": "A client has left.",
    "session.terminated": "It was ended by a request.",
    "session.updated": "Its name, labels, workspace, `resume` command or configuration has changed.",
    "session.deleted": "It was put into the trash, or deleted for good.",
    "session.undeleted": "It was taken out of the trash.",
    "session.archived": "It was moved into the archive.",
    "session.restored": "It was taken out of the archive.",
    "workspace.created": "A workspace was made.",
    "workspace.updated": "Its name, layout or active session has changed.",
    "workspace.opened": "Its sessions were started.",
    "workspace.parked": "The programs of its sessions were ended.",
    "workspace.deleted": "It was deleted.",
    "snapshot.saved": "A screen was saved; only for those who ask for it by `kinds`.",
    "terminal.bell": "The bell rang while no client that may type was attached.",
    "terminal.notification": "A program wants the user to read something.",
    "terminal.dropped": "A program has said more than is kept; `count` is how much was left out.",
    "command.finished": "A command of a shell that prints OSC 133 has finished.",
    "daemon.started": "The daemon serves.",
    "daemon.stopping": "The daemon begins to stop.",
    "daemon.warning": "There is a problem that lasts; `daemon.info` has it too.",
    "daemon.cleared": "Such a problem is over.",
}
"""What each stored kind says."""

LIVE_KINDS: dict[str, str] = {
    "session.title": "Its title has changed.",
    "session.cwd": "Its folder has changed.",
    "session.progress": "The progress that it shows has changed.",
    "session.silent": "It has printed nothing for `silence_secs` after it had printed.",
    "session.active": "It prints again after it was silent.",
    "session.output_seen": "It has printed; at most one a second.",
}
"""What each kind says that is sent to subscribers only, and never stored."""

ON_REQUEST = frozenset({"snapshot.saved"})
"""The kinds that are left out where none are named."""

GROUPS = tuple(dict.fromkeys(f"{kind.partition('.')[0]}.*" for kind in STORED_KINDS))
"""What stands for all kinds that begin alike."""


def expand_kinds(names: Sequence[str] | None, field: str = "kinds") -> frozenset[str]:
    """Return the kinds that names and groups stand for; without any, all but those of `ON_REQUEST`.

    Args:
        names: As a client has given them.
        field: What an error calls them.

    Raises:
        InvalidParams: One of them is neither a kind nor a group.
    """
    every = STORED_KINDS.keys() | LIVE_KINDS.keys()
    if names is None:
        return frozenset(every - ON_REQUEST)
    found: set[str] = set()
    for name in names:
        group = {kind for kind in every if name.endswith(".*") and kind.startswith(name[:-1])}
        if name not in every and not group:
            raise InvalidParams(
                f"`{field}`: there is no event {name!r}",
                hint=f"There are the groups {', '.join(GROUPS)}, and in them {', '.join(sorted(every))}.",
            )
        found |= group or {name}
    return frozenset(found)
