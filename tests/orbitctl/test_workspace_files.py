"""`orbitctl workspace export` and `import`: a workspace as a file that a project keeps."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from ctl_support import Orbitctl

ODD = '{ "b":1.0,  "a":[1e3, "\\u00e9"], "b":12345678901234567890, "id": "%s" }'
FIRST = "0b8a1a4e-6f0f-4a57-9a53-2f2d0a1b3c4d"


@pytest.fixture
def project(ctl: Orbitctl) -> Path:
    """A folder of a project, which commands run in, below HOME."""
    ctl.environment["HOME"] = str(ctl.home)
    project = ctl.home / "src" / "shop"
    (project / "api").mkdir(parents=True)
    return project


def create(ctl: Orbitctl, *arguments: str) -> str:
    """Return the id of a new session of the workspace `shop`."""
    return ctl.id("session", "create", "--workspace", "shop", *arguments)


def write(file: Path, *sessions: dict[str, Any], **fields: Any) -> Path:
    """Write a document."""
    layout = {"layout_type": "tabs", "config": {}}
    file.write_text(
        json.dumps({"orbit_workspace": 1, "name": "shop", "layout": layout, "sessions": sessions, **fields})
    )
    return file


def folder(cwd: Any) -> dict[str, Any]:
    """Return a session of a document that starts in a folder."""
    return {"id": "web", "config": {"session_type": "local", "cwd": cwd}}


def test_a_workspace_as_a_file(ctl: Orbitctl, project: Path) -> None:
    """It is laid out for people and for diff, says nothing that goes without saying, and keeps the layout's letters."""
    ctl.ok("workspace", "create", "shop", "--layout-type", "grid", "--config", ODD % FIRST)
    web = create(ctl, "--name", "web", "--cwd", str(project / "api"), "--", "npm", "run", "dev")
    db = create(ctl, "--host", "db.example", "--user", "ada", "--port", "2222", "--reconnect", "--cwd", str(project))
    root = create(ctl, "--cwd", "/", "--env", "B=2", "--env", "A=1")
    here = create(ctl, "--cwd", str(project), "--restart")
    elsewhere = create(ctl, "--cwd", str(ctl.home / "src"))
    ctl.ok("session", "label", "web", "env=prod", "a=b")
    ctl.ok("workspace", "set-active", "shop", "web")
    file = project / "orbit.json"
    written = ctl.ok("workspace", "export", "shop", "-o", str(file))
    assert written.err == (
        f"wrote 5 sessions of workspace shop to {file}\n"
        f"warning: it has variables with their values: A, B (of {root[:8]})\n"
    )
    assert file.read_text() == (
        f"""{{
  "orbit_workspace": 1,
  "name": "shop",
  "layout": {{
    "layout_type": "grid",
    "config": {ODD % FIRST}
  }},
  "active_session_id": "{web}",
  "sessions": [
    {{
      "id": "{web}",
      "name": "web",
      "config": {{
        "session_type": "local",
        "command": "npm run dev",
        "cwd": "./api"
      }},
      "labels": {{
        "a": "b",
        "env": "prod"
      }}
    }},
    {{
      "id": "{db}",
      "name": null,
      "config": {{
        "session_type": "ssh",
        "host": "db.example",
        "port": 2222,
        "username": "ada",
        "cwd": "{project}",
        "reconnect": true
      }}
    }},
    {{
      "id": "{root}",
      "name": null,
      "config": {{
        "session_type": "local",
        "cwd": "/",
        "env": {{
          "A": "1",
          "B": "2"
        }}
      }}
    }},
    {{
      "id": "{here}",
      "name": null,
      "config": {{
        "session_type": "local",
        "cwd": ".",
        "restart": true
      }}
    }},
    {{
      "id": "{elsewhere}",
      "name": null,
      "config": {{
        "session_type": "local",
        "cwd": "~/src"
      }}
    }}
  ]
}}
"""
    )
    ctl.ok("-q", "workspace", "export", "shop", "-o", str(file))
    assert [each.name for each in project.iterdir() if each.is_file()] == ["orbit.json"]


def test_a_file_becomes_the_workspace_again(ctl: Orbitctl, project: Path) -> None:
    """A round trip keeps all, in another folder too: ids, the layout's letters, and folders below the file's."""
    web = ctl.id("workspace", "create", "shop") and create(ctl, "--name", "web", "--cwd", str(project / "api"))
    ctl.ok("workspace", "set-layout", "shop", "--config", ODD % web)
    create(ctl, "--cwd", str(ctl.home / "src"), "--", "vim")
    ctl.ok("workspace", "set-active", "shop", "web")
    file = project / "orbit.json"
    ctl.ok("workspace", "export", "shop", "-o", str(file))
    before = ctl.ok("workspace", "export", "shop", "--json").json
    first = file.read_bytes()
    ctl.ok("workspace", "delete", "shop", "--delete-sessions", "--yes")
    ctl.ok("session", "delete", "--purge", "--yes", *[one["id"] for one in before["sessions"]])
    other = ctl.home / "other"
    (other / "api").mkdir(parents=True)
    moved = other / "renamed.json"
    moved.write_bytes(first)
    made = ctl.ok("workspace", "import", str(moved))
    assert made.err.splitlines()[-1] == "`orbitctl open shop` starts 2 sessions"
    after = ctl.ok("workspace", "export", "shop", "--json").json
    assert after["sessions"][0]["config"]["cwd"] == str(other / "api")
    after["sessions"][0]["config"]["cwd"] = str(project / "api")
    ids = {old["id"]: new["id"] for old, new in zip(before["sessions"], after["sessions"], strict=True)}
    text = json.dumps(before)
    for old, new in ids.items():  # ids of sessions that were just purged may not be free yet
        text = text.replace(old, new)
    assert after == json.loads(text)
    ctl.ok("workspace", "export", "shop", "-o", str(moved))
    for old, new in ids.items():
        first = first.replace(old.encode(), new.encode())
    assert moved.read_bytes() == first


def test_a_second_import(ctl: Orbitctl, project: Path) -> None:
    """The name that is taken is refused with what can be done; under another one, what differs is told."""
    ctl.ok("workspace", "create", "shop")
    create(ctl, "--name", "web")
    file = project / "orbit.json"
    ctl.ok("workspace", "export", "shop", "-o", str(file))
    refused = ctl("workspace", "import", str(file))
    assert refused.code == 5
    assert f"`orbitctl workspace import {file} --name NAME` gives this one another name" in refused.err
    assert "`orbitctl open shop` opens the one that is there" in refused.err
    made = ctl.ok("workspace", "import", str(file), "--name", "shop two")
    assert "is not named web, which another session is" in made.err
    assert "1 session got a new id, in the layout too, as another has theirs" in made.err
    assert "`orbitctl open 'shop two'` starts 1 session" in made.err
    quiet = ctl.ok("-q", "workspace", "import", str(file), "--name", "three")
    assert (len(quiet.lines), quiet.err) == (1, "")
    assert ctl.ok("--json", "workspace", "import", str(file), "--name", "four").json["name"] == "four"


def test_stdout_and_stdin(ctl: Orbitctl, project: Path) -> None:
    """What is printed may be put anywhere, so no folder of it is relative but to HOME; stdin's are in this folder."""
    ctl.ok("workspace", "create", "shop")
    create(ctl, "--cwd", str(ctl.home), "--", "vim")
    create(ctl, "--cwd", "/tmp")
    printed = ctl.ok("workspace", "export", "shop")
    assert [one["config"]["cwd"] for one in printed.json["sessions"]] == ["~", "/tmp"]
    ctl.ok("workspace", "import", "-", "--name", "two", stdin=printed.out)
    given = write(ctl.home / "x.json", folder("./src"), name="three").read_bytes()
    ctl.ok("workspace", "import", "-", stdin=given)
    shown = ctl.ok("workspace", "export", "three", "--json").json
    assert shown["sessions"][0]["config"]["cwd"] == str(ctl.home / "src")
    shown = ctl.ok("workspace", "export", "two", "--json").json
    assert [one["config"]["cwd"] for one in shown["sessions"]] == [str(ctl.home), "/tmp"]


def test_folders_that_are_not_utf8(ctl: Orbitctl, project: Path) -> None:
    """Below the file's folder and below HOME they are written short, too, and come back byte for byte."""
    odd = os.fsencode(project) + b"/\xff"
    os.mkdir(odd)
    ctl.ok("workspace", "create", "shop")
    create(ctl, "--cwd", os.fsdecode(odd))
    create(ctl, "--cwd", os.fsdecode(odd), "--", os.fsdecode(b"cat \xfe"))
    for file in (project / "orbit.json", Path(os.fsdecode(odd)) / "orbit.json"):
        ctl.ok("workspace", "export", "shop", "-o", str(file))
        ctl.ok("workspace", "import", str(file), "--name", f"from {'odd' if odd in os.fsencode(file) else 'even'}")
    first = ctl.ok("workspace", "export", "shop", "--json").json["sessions"]
    assert json.loads((project / "orbit.json").read_text())["sessions"][0]["config"]["cwd"] == "./\\xff"
    assert json.loads(file.read_text())["sessions"][0]["config"] == {"session_type": "local", "cwd": "."}
    for name in ("from odd", "from even"):
        sessions = ctl.ok("workspace", "export", name, "--json").json["sessions"]
        assert [one["config"] for one in sessions] == [one["config"] for one in first]


@pytest.mark.parametrize(
    ("cwd", "words"),
    [
        ("api", "'sessions[0].config.cwd' is no folder of a file: those are absolute, or begin with ./"),
        ("~ada/x", "is no folder of a file"),
        ("../x", "is no folder of a file"),
        ("./../x", "leads out of the file's folder"),
        ("~/..", "leads out of HOME"),
        (7, "'sessions[0].config.cwd' must be text"),
        ("/a\0b", "may not hold a NUL"),
        ("./" + "x" * 5000, "may have 4096 characters at most"),
    ],
)
def test_folders_that_are_refused(ctl: Orbitctl, project: Path, cwd: Any, words: str) -> None:
    """A folder that would depend on where the daemon runs, or leads out of the file's, is named with what is taken."""
    refused = ctl("workspace", "import", str(write(project / "orbit.json", folder(cwd))))
    assert refused.code == 2
    assert words in refused.err
    assert f"{project}/orbit.json: " in refused.err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "it is not JSON: it is empty"),
        ("[1]", "it is no JSON object"),
        ("{", "it is not JSON"),
        ('{"a": 1}', "it has no 'orbit_workspace'"),
        (
            '{"orbit_workspace": 2, "name": "x", "layout": {"layout_type": "x", "config": 1}, "sessions": []}',
            "of version 2",
        ),
        ('{"orbit_workspace": 1, "name": "x", "layout": {"layout_type": "x", "config": 1}}', "'sessions' is missing"),
        (
            '{"orbit_workspace": 1, "name": "x", "layout": {"layout_type": "x"}, "sessions": []}',
            "'layout.config' is miss",
        ),
        ('{"orbit_workspace": 1, "nam": "x"}', "there is no 'nam'"),
        ('{"orbit_workspace": 1, "sessions": 7}', "'sessions' must be a list"),
        ('{"orbit_workspace": 1, "sessions": [{"id": "a", "config": {"session_type": "x"}}]}', "config.session_type"),
        (
            '{"orbit_workspace": 1, "sessions": [{"id": "a", "config": {"session_type": "ssh", "host": "-x"}}]}',
            "'sessions[0].config.host' may not begin with '-'",
        ),
    ],
)
def test_files_that_are_refused(ctl: Orbitctl, project: Path, text: str, words: str) -> None:
    """What is no export, or has a mistake, is refused with the file, the place and what is wrong there."""
    (project / "orbit.json").write_text(text)
    refused = ctl("workspace", "import", str(project / "orbit.json"))
    assert refused.code == 2
    assert words in refused.err


def test_what_the_daemon_alone_can_see(ctl: Orbitctl, project: Path) -> None:
    """Ids that are there twice, and an active session that is none of them, are named in the daemon's words."""
    one = {"id": FIRST, "config": {"session_type": "local"}}
    for given, words in (((one, one), "sessions[1].id"), ((one,), "active_session_id")):
        refused = ctl("workspace", "import", str(write(project / "x.json", *given, active_session_id="other")))
        assert refused.code == 1
        assert words in refused.err
    assert ctl.ok("workspace", "list", "--json").json["workspaces"] == []


def test_a_file_that_is_something_else(ctl: Orbitctl, project: Path) -> None:
    """An export replaces an earlier one in one step, with its mode and through a link, and nothing else."""
    ctl.ok("workspace", "create", "shop")
    for name, text in (("package.json", '{"name": "shop"}'), ("notes", "text")):
        (project / name).write_text(text)
        refused = ctl("workspace", "export", "shop", "-o", str(project / name))
        assert refused.code == 5
        assert "is no exported workspace" in refused.err
        assert (project / name).read_text() == text
    (project / "orbit.json").touch(0o600)
    (project / "link.json").symlink_to("orbit.json")
    ctl.ok("workspace", "export", "shop", "-o", str(project / "link.json"))
    ctl.ok("workspace", "export", "shop", "-o", str(project / "link.json"))
    assert (project / "link.json").is_symlink()
    assert (project / "orbit.json").stat().st_mode & 0o777 == 0o600
    missing = ctl("workspace", "export", "shop", "-o", str(project / "none" / "x.json"))
    assert (missing.code, "No such file" in missing.err) == (2, True)
    assert sorted(each.name for each in project.iterdir()) == [
        "api",
        "link.json",
        "notes",
        "orbit.json",
        "package.json",
    ]


def test_a_layout_at_its_limits(ctl: Orbitctl, project: Path) -> None:
    """What is nested as deep as a layout may be, and large, goes through a file and back."""
    deep = "[" * 500 + '"' + "x" * 1_000_000 + '"' + "]" * 500
    ctl.ok("workspace", "create", "shop", "--config", "-", stdin=deep.encode())
    ctl.ok("workspace", "export", "shop", "-o", str(project / "orbit.json"))
    ctl.ok("workspace", "import", str(project / "orbit.json"), "--name", "two")
    assert f'"config":{deep}}}'.encode() in ctl.ok("workspace", "show", "two", "--json").out.replace(
        b'"config": ', b'"config":'
    )
    deeper = (project / "orbit.json").read_text().replace(deep, f"[{deep}]")
    (project / "orbit.json").write_text(deeper)
    refused = ctl("workspace", "import", str(project / "orbit.json"), "--name", "three")
    assert (refused.code, "nested deeper than 500" in refused.err) == (2, True)
