"""`orbitctl open` and `orbitctl workspace park`."""

from __future__ import annotations

import json

from ctl_support import InProcess, Orbitctl
from live_support import Viewer, encoded
from needs import needs
from support import DaemonProcess, RawClient

pytestmark = needs(linux=True)


def create(ctl: Orbitctl, name: str, *arguments: str) -> str:
    """Return the id of a new session of the workspace `shop`."""
    return ctl.id("session", "create", "--workspace", "shop", "--name", name, *arguments)


def test_what_was_started_and_what_failed(ctl: Orbitctl) -> None:
    """Each session that was started is named, so is each that failed with its reason, and how to attach."""
    ctl.ok("workspace", "create", "shop")
    assert ctl.ok("open", "shop").err == (
        "workspace shop has no sessions; `orbitctl new --workspace shop` starts one\n"
    )
    web, api = create(ctl, "web", "--", "cat"), create(ctl, "api", "--cwd", str(ctl.home / "gone"), "--", "cat")
    hosted = create(ctl, "hosted")
    ctl.ok("snapshot", "save", "hosted", "-", stdin=b"its screen")
    opened = ctl("open", "shop", MARK="from the client")
    assert (opened.code, opened.out) == (1, b"")
    assert opened.err.splitlines() == [
        f"web ({web[:8]}) has been started",
        f"error: api ({api[:8]}): The program cannot start in {ctl.home}/gone: No such file or directory",
        opened.err.splitlines()[2],
        f"hosted ({hosted[:8]}) is left to the app that hosts it",
        "`orbitctl a web` attaches",
    ]
    (ctl.home / "gone").mkdir()
    again = ctl.ok("workspace", "open", "shop")
    assert again.err.splitlines()[:2] == [f"api ({api[:8]}) has been started", "1 session ran already"]
    assert ctl.ok("open", "shop").err.splitlines()[0] == "2 sessions ran already"
    ctl.ok("workspace", "set-active", "shop", "api")
    assert ctl.ok("open", "shop").err.splitlines()[-1] == "`orbitctl a api` attaches"


def test_what_programs_get(ctl: Orbitctl) -> None:
    """They get the environment and the umask of this command, as from `session start`."""
    ctl.ok("workspace", "create", "shop")
    create(ctl, "one", "--", "sh", "-c", 'echo "<$MARK-$(umask)>"')
    ctl.ok("open", "shop", MARK="from the client")
    ctl.ok("session", "wait", "one")
    umask = ctl.shell("umask").text.strip()
    assert f"<from the client-{umask}>" in ctl.ok("session", "screen", "one").text


def test_for_scripts(ctl: Orbitctl) -> None:
    """-q prints the ids of what was started or ended, and --json the answer; what failed is told all the same."""
    ctl.ok("workspace", "create", "shop")
    web, api = create(ctl, "web", "--", "cat"), create(ctl, "api", "--cwd", "/none", "--", "cat")
    opened = ctl("-q", "open", "shop")
    assert (opened.code, opened.lines) == (1, [web])
    assert "error: api" in opened.err
    opened = ctl("--json", "open", "shop")
    assert opened.code == 1
    assert [(one["session_id"], one["error"]["code"]) for one in opened.json["failed"]] == [(api, 1005)]
    assert [one["live"] for one in opened.json["sessions"]] == [True, False]
    assert ctl.ok("-q", "workspace", "park", "shop").lines == [web]
    assert ctl.ok("--json", "workspace", "park", "shop").json["changed"] == []


def test_park(ctl: Orbitctl) -> None:
    """Its programs are ended and named; what brings them back is told. It does not ask, as `kill` does not."""
    ctl.ok("workspace", "create", "shop")
    web = create(ctl, "web", "--", "cat")
    assert ctl.ok("workspace", "park", "shop").err == "nothing runs in workspace shop\n"
    ctl.ok("open", "shop")
    assert ctl.ok("workspace", "park", "shop").err.splitlines() == [
        f"web ({web[:8]}) has ended",
        "`orbitctl open shop` starts its sessions again",
    ]
    assert ctl.ok("session", "show", "web", "--json").json["status"] == "terminated"


def test_a_file_in_the_place_of_a_name(ctl: Orbitctl) -> None:
    """A file that no workspace has the name of is to be imported first; without one it is a name that is unknown."""
    (ctl.home / "orbit.json").write_text("{}")
    refused = ctl("open", "orbit.json")
    assert refused.code == 4
    assert "`orbitctl workspace import orbit.json` makes a workspace of the file" in refused.err
    refused = ctl("open", "none")
    assert (refused.code, "import" in refused.err) == (4, False)


def test_open_and_attach(process_ctl: Orbitctl) -> None:
    """With --attach the active session is shown, or the first that runs; without a terminal nothing is started."""
    process_ctl.ok("workspace", "create", "shop")
    create(process_ctl, "web", "--", "cat")
    create(process_ctl, "api", "--", "sh", "-c", "echo re''ady; read line; exit 7")
    process_ctl.ok("workspace", "set-active", "shop", "api")
    assert process_ctl("open", "shop", "--attach").code == 2
    assert process_ctl.ok("session", "list", "--json").json["sessions"][0]["live"] is False
    shown = process_ctl.on_terminal("open", "shop", "-a", prompt=b"ready", typed=b"\r")
    assert shown.code == 7
    assert b"[api ended: exit 7]" in shown.out


def test_everything_comes_back_after_a_reboot(daemon: DaemonProcess, client: RawClient) -> None:
    """One command brings back each pane's program, size, folder and picture; one whose folder is gone is named."""
    ctl = InProcess(daemon.home, daemon.environment)
    ctl.ok("workspace", "create", "shop", "--layout-type", "splits", "--config", '{"ratio": 0.50}')
    folders = {name: daemon.home / name for name in ("web", "api", "shell", "lost")}
    programs = {
        "web": ["--", "sh", "-c", 'echo "web in $PWD"; read line'],
        "api": ["--resume", "sh -c 'echo resumed in $PWD; read line'", "--", "sh", "-c", "echo first; read line"],
        "shell": ["--", "sh"],
        "lost": ["--", "sh", "-c", "echo lost; read line"],
    }
    ids = {}
    for place, (name, program) in enumerate(programs.items()):
        folders[name].mkdir()
        ids[name] = create(ctl, name, "--cwd", str(folders[name]), *program)
        client.call("session.start", id=ids[name], cols=100 + place, rows=30 + place)
    client.call("session.send", id=ids["shell"], data=encoded("cd /; echo sh''ell\r"))
    marks = {"web": f"web in {folders['web']}", "api": "first", "shell": "shell", "lost": "lost"}
    for place, (name, mark) in enumerate(marks.items()):
        with daemon.client() as window:
            Viewer(window, ids[name], (100 + place, 30 + place)).read_until(mark)
    daemon.kill()
    daemon.end_keeper()
    folders["lost"].rmdir()
    config = daemon.home / "config.toml"
    config.write_text("[session]\nrestore_sessions_on_startup = false\n")
    daemon.environment["ORBITD_CONFIG"] = str(config)
    daemon.start()
    assert {one["live"] for one in ctl.ok("session", "list", "--json").json["sessions"]} == {False}
    opened = ctl("open", "shop", "--json")
    assert opened.code == 1
    answer = json.loads(opened.out)
    assert answer["changed"] == [ids["web"], ids["api"], ids["shell"]]
    (failed,) = answer["failed"]
    assert failed["session_id"] == ids["lost"]
    assert str(folders["lost"]) in failed["error"]["message"]
    found = {one["name"]: one for one in answer["sessions"]}
    for place, name in enumerate(programs):
        assert (found[name]["cols"], found[name]["rows"]) == (100 + place, 30 + place)
        assert found[name]["live"] == (name != "lost")
        assert marks[name] in ctl.ok("session", "screen", name, "--scrollback").text
    assert found["web"]["cwd"] == str(folders["web"])
    assert found["shell"]["cwd"] == "/"
    with daemon.client() as again:
        again.call("session.send", id=ids["shell"], data=encoded("echo sh''ell\r"))
        for name, mark in {**marks, "api": f"resumed in {folders['api']}"}.items():
            if name != "lost":
                viewer = Viewer(again, ids[name], (found[name]["cols"], found[name]["rows"]))
                while mark.encode() not in viewer.output.partition(b"started again")[2]:
                    viewer.step()
                again.call("session.leave", attachment_id=viewer.id)
    folders["lost"].mkdir()
    assert ctl.ok("open", "shop", "-q").lines == [ids["lost"]]
