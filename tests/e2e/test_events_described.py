"""Every event that a real daemon sends holds what `rpc.discover` says of its kind, and nothing else."""

from __future__ import annotations

import base64
from typing import Any

import jsonschema

from support import DaemonProcess

SAYS = r"printf '\033]2;title\007\033]9;note\007\033]9;4;1;40\007\a\033]133;C\007\033]133;D;2\007sa%s\n' id"


def closed(schema: Any) -> Any:
    """Return a schema in which no object has a field that is not described."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: closed(value) for name, value in schema.items()}
    return {**found, "additionalProperties": False} if "properties" in found else found


def state(session: Any) -> tuple[Any, ...]:
    """Return what a session's example may not say otherwise than the session itself."""
    is_there = (session.get(name) is not None for name in ("pid", "cols", "exit_code", "deleted_at"))
    return session.get("status"), session.get("live"), session.get("clients"), *is_there


def test_what_events_hold_is_described(daemon: DaemonProcess) -> None:
    """Of whatever happens to sessions and workspaces, and of what programs say, the data keeps its closed schema.

    The example of each change of a session is one that could have been sent.
    """
    with daemon.client() as client, daemon.client() as other:
        document = client.call("rpc.discover")
        kinds = {each["kind"]: each for each in document["x-events"]}
        components = closed(document["components"])
        since = other.call("events.list", limit=0)["cursor"]
        other.call("events.subscribe", since=since, kinds=[*{f"{kind.split('.')[0]}.*" for kind in kinds}])
        space = client.call("workspace.create", name="w", layout={"layout_type": "x", "config": {}})["id"]
        session = client.call("session.create", config={"session_type": "local", "command": "sh"}, name="s")["id"]
        client.call("session.start", id=session)
        client.call("session.send", id=session, data=base64.b64encode(f"{SAYS}\r".encode()).decode())
        client.call("session.wait", id=session, **{"for": "text", "pattern": "said"}, timeout_secs=20)
        left = client.call("session.attach", id=session, cols=70, rows=20)["attachment_id"]
        client.call("session.leave", attachment_id=left)
        client.call("session.rename", id=session, name="t")
        client.call("session.move", id=session, workspace_id=space)
        client.call("workspace.park", id=space)
        client.call("workspace.open", id=space)
        client.call("session.terminate", id=session)
        client.call("session.delete", id=session)
        client.call("session.undelete", id=session)
        client.call("session.delete", id=session, purge=True)
        client.call("workspace.delete", id=space)
        heard: dict[str, list[Any]] = {}
        while "workspace.deleted" not in heard:
            notice = other.notice()
            if notice["method"] == "event":
                heard.setdefault(notice["params"]["kind"], []).append(notice["params"])
    for kind, events in heard.items():
        for event in events:
            schema = {**closed(kinds[kind]["data"]), "components": components}
            jsonschema.Draft202012Validator(schema).validate(event["data"])
            assert (event["seq"] is not None) == kinds[kind]["stored"]
    for kind in heard.keys() & {"session.created", "session.started", "session.attached", "session.detached"}:
        assert state(kinds[kind]["example"]["params"]["data"]) in [state(each["data"]) for each in heard[kind]]
    said = {"command.finished", "session.progress", "session.title", "terminal.bell"}
    changed = {f"session.{what}" for what in ("attached", "created", "deleted", "detached", "exited", "updated")}
    assert heard.keys() >= said | changed | {"terminal.notification", "workspace.opened", "workspace.parked"}
