"""The page of `orbitctl web` in a real headless Chromium, before a real daemon and real programs."""

from __future__ import annotations

import json
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from live_support import encoded
from needs import needs
from support import DaemonProcess, RawClient
from web_support import TERMINAL, Browser, WebProcess, token_of

Serve = Callable[..., WebProcess]
SHELL = "bash --norc --noprofile"
LOADED = "document.body.classList.contains('loaded')"


def started(client: RawClient, command: str = SHELL, name: str | None = None, **more: Any) -> str:
    """Record and start a session; return its id."""
    config = {"session_type": "local", "command": command, "env": {"PS1": "$ ", "TERM": "xterm-256color"}, **more}
    session: str = client.call("session.create", name=name, config=config)["id"]
    client.call("session.start", id=session)
    return session


def card(name: str) -> str:
    """Return an expression for the card of a session."""
    return f"[...document.querySelectorAll('.card')].find((one) => one.innerText.includes({json.dumps(name)}))"


STATES = """
addEventListener("DOMContentLoaded", () => {
  const pane = document.getElementById("pane");
  globalThis.states = [];
  new MutationObserver(() => states.push(pane.dataset.state)).observe(pane, { attributeFilter: ["data-state"] });
});
"""


@needs("vim")
def test_vim_over_a_killed_orbitd(daemon: DaemonProcess, client: RawClient, browser: Browser, serve: Serve) -> None:
    """Vim is typed into, orbitd is killed with -9 and starts by itself, and the typing goes on in the same vim."""
    session = started(client, "vim -n -u NONE", "editor")
    web = serve(daemon)
    with browser.page(web.url, watch=STATES) as page:
        page.wait(LOADED)
        page.click(".card")
        page.wait_for_text("~")
        page.wait_until_attached()
        page.type("ione two")
        page.wait_for_text("one two")
        pid = client.call("session.get", id=session)["pid"]
        daemon.kill()
        # The bridge has had another orbitd started, as an attached client does.
        page.wait("states.includes('lost') && states.at(-1) === 'attached'")
        page.wait_for_text("one two")
        page.type(" three")
        page.wait_for_text("one two three")
        page.press("Escape")
        page.type(":set number\n")
        page.wait_for_text("  1 one two three")
        page.wait("document.getElementById('state').dataset.state === 'connected'")
        assert page.screen()[1].startswith("~")
        assert not [one for one in page.problems() if "WebSocket" not in one and "ERR_" not in one]
    with daemon.client() as again:
        assert again.call("session.get", id=session)["pid"] == pid
        again.call("daemon.shutdown")


def test_a_reload_keeps_the_place(shared_daemon: DaemonProcess, browser: Browser, serve: Serve) -> None:
    """After a reload the same session is shown with its history; the token is in no URL, and another tab has none."""
    with shared_daemon.client() as client:
        session = started(client, name="work")
        web = serve(shared_daemon)
        with browser.page(web.url) as page:
            page.show(session)
            assert page.evaluate("location.hash") == f"#session={session}"
            assert token_of(web.url) not in page.evaluate("JSON.stringify([location.href, document.referrer])")
            page.type("for i in {1..100}; do echo line-$i; done\n")
            page.wait_for_text("line-100")
            page.reload()
            page.wait_until_attached()
            page.wait_for_text("line-100")
            lines = [line for line in page.lines() if line.startswith("line-")]
            assert lines == [f"line-{number}" for number in range(1, 101)]
            assert page.problems() == []
        with browser.page(f"http://{web.host}/#session={session}") as page:
            page.wait("document.body.innerText.includes('not valid')")
            assert page.lines() == []


NUMBERS = f"""(() => {{
  const buffer = {TERMINAL}.buffer.active;
  return Array.from({{length: buffer.length}}, (_, row) => buffer.getLine(row).translateToString(true))
    .filter((line) => /^n-\\d+$/.test(line)).map((line) => Number(line.slice(2)));
}})()"""
COUNT = "bash -c 'for ((i = 1; i <= 3000; i++)); do echo n-$i; ((i % 20)) || sleep 0.01; done; echo finished; cat'"


def test_a_storm_of_resizes_loses_no_line(shared_daemon: DaemonProcess, browser: Browser, serve: Serve) -> None:
    """A program counts while its window is resized all the time: in the end each number is there once, in order."""
    with shared_daemon.client() as client:
        web = serve(shared_daemon)
        with browser.page(web.url) as page:
            page.wait(LOADED)
            session = started(client, COUNT)
            page.show(session)
            for step in range(40):
                page.size(500 + 37 * (step * 7 % 20), 300 + 29 * (step * 3 % 15))
            page.size(1000, 600)
            page.wait_for_text("finished")
            page.wait(f"{NUMBERS}.length === 3000")  # the history is drawn again once the sizes have settled
            assert page.evaluate(NUMBERS) == list(range(1, 3001))
            size = page.evaluate(f"[{TERMINAL}.cols, {TERMINAL}.rows]")
            shown = client.call("session.get", id=session)
            assert [shown["cols"], shown["rows"]] == size


def test_two_windows_of_different_size(shared_daemon: DaemonProcess, browser: Browser, serve: Serve) -> None:
    """The window that types has the size; the other shows a part of the picture, says so, and takes over by typing."""
    with shared_daemon.client() as client:
        session = started(client)
        web = serve(shared_daemon)
        with browser.page(web.url, size=(1100, 700)) as large, browser.page(web.url, size=(700, 420)) as small:
            large.show(session)
            small.show(session)
            large.type("stty size\n")
            size = large.evaluate(f"`${{{TERMINAL}.rows}} ${{{TERMINAL}.cols}}`")
            large.wait_for_text(size)
            small.wait("document.getElementById('terminal-state').textContent.includes('another window')")
            small.wait_for_text("stty size")
            assert "another window" not in large.evaluate("document.getElementById('terminal-state').textContent")
            small.type("stty size\n")
            size = small.evaluate(f"`${{{TERMINAL}.rows}} ${{{TERMINAL}.cols}}`")
            small.wait_for_text(size)
            large.wait("document.getElementById('terminal-state').textContent.includes('another window')")
            large.wait_for_text(size)
            small.wait("document.getElementById('terminal-state').textContent === ''")
            small.wait_for_text("$ stty size")


CLIPBOARD = """
globalThis.copied = [];
navigator.clipboard.writeText = async (text) => void copied.push(text);
"""


def test_a_guest_only_watches(shared_daemon: DaemonProcess, browser: Browser, serve: Serve) -> None:
    """A guest sees what is typed elsewhere, and its keys, pastes and clipboard do nothing; it is told so."""
    with shared_daemon.client() as client:
        session = started(client, name="shown")
        workspace = client.call("workspace.create", name="shop", layout={"layout_type": "tabs", "config": {}})["id"]
        client.call(
            "session.create", name="idle", config={"session_type": "local", "command": "cat", "workspace_id": workspace}
        )
        web = serve(shared_daemon, "--read-only")
        with (
            browser.page(web.guests_url, watch=CLIPBOARD) as guest,
            browser.page(web.url, watch=CLIPBOARD) as owner,
        ):
            guest.show(session)
            owner.show(session)
            assert guest.evaluate("document.getElementById('read-only').checkVisibility()")
            assert not guest.evaluate("document.getElementById('new').checkVisibility()")
            assert guest.evaluate("document.querySelectorAll('.section-head button').length") == 0
            guest.type("echo from the guest\n")
            guest.evaluate(f"{TERMINAL}.paste('pasted'); {TERMINAL}.input('raw')")
            refused = guest.evaluate(call_of("session.send", {"id": session, "data": encoded("sent")}))
            assert refused == "read_only"
            owner.type("printf '\\033]52;c;%s\\a' $(printf text | base64); echo d''one\n")
            for page in (owner, guest):
                page.wait_for_text("done")
            owner.wait("copied.length === 1")
            assert (owner.evaluate("copied"), guest.evaluate("copied")) == (["text"], [])
            assert guest.evaluate("document.querySelector('#terminal textarea').readOnly !== undefined")
            for page in (owner, guest):
                assert not [line for line in page.lines() if re.search("guest|pasted|raw|sent", line)]
            assert guest.problems() == []


def call_of(method: str, params: dict[str, Any]) -> str:
    """Return a script that calls a method over a WebSocket of its own, and returns the kind of its error."""
    return f"""new Promise((resolve) => {{
      const words = ["orbit", `token.${{sessionStorage.getItem("token")}}`];
      const socket = new WebSocket(`ws://${{location.host}}/socket`, words);
      const request = {json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})};
      socket.onopen = () => socket.send(JSON.stringify(request));
      socket.onmessage = ({{ data }}) => {{ resolve(JSON.parse(data).error?.data.kind ?? ""); socket.close(); }};
    }})"""


def test_the_list_follows_what_happens(shared_daemon: DaemonProcess, browser: Browser, serve: Serve) -> None:
    """Sessions that others start, rename, end and delete are in the list at once, with previews and marks."""
    with shared_daemon.client() as client:
        web = serve(shared_daemon)
        with browser.page(web.url) as page:
            page.wait("document.body.innerText.includes('No sessions yet')")
            session = started(client, "bash -c 'echo hello; read; exit 3'", "first")
            page.wait(f"{card('first')}?.querySelector('img')?.src.includes('hello')")
            client.call("session.rename", id=session, name="other")
            page.wait(card("other"))
            client.call("session.send", id=session, data=encoded("\n"))
            page.wait(f"{card('other')}.innerText.includes('exit 3')")
            client.call("session.delete", id=session, purge=True)
            page.wait(f"!{card('other')}")
            assert page.problems() == []


def test_a_preview_shows_the_end_of_a_screen(shared_daemon: DaemonProcess, browser: Browser, serve: Serve) -> None:
    """A card has all of a screen, whose last line is where a shell's news is, and says how a program was ended."""
    with shared_daemon.client() as client:
        session = started(client, "bash -c 'seq 100; echo last; kill -9 $$'", "full")
        client.call("session.wait", id=session)
        web = serve(shared_daemon)
        with browser.page(web.url) as page:
            page.wait(f"{card('full')}?.querySelector('img')?.src.includes('last')")
            for width in (1200, 700, 320):
                page.size(width, 700)
                wanted = page.evaluate(f"getComputedStyle({card('full')}.querySelector('img')).objectFit")
                assert wanted == "contain", "the picture is cut"
            assert "signal KILL" in page.evaluate(f"{card('full')}.innerText")


def test_a_narrow_window_has_every_button(shared_daemon: DaemonProcess, browser: Browser, serve: Serve) -> None:
    """Nothing at the top is cut off, not even in a window that is narrower than a phone."""
    right = "Math.max(...[...document.querySelectorAll('.top button')].map((one) => one.getBoundingClientRect().right))"
    web = serve(shared_daemon)
    with browser.page(web.url, size=(320, 600)) as page:
        page.wait(LOADED)
        for width in (320, 240, 160):
            page.size(width, 600)
            page.wait(f"innerWidth === {width}")
            assert page.evaluate(right) <= width


def test_a_workspace_is_opened(shared_daemon: DaemonProcess, browser: Browser, serve: Serve) -> None:
    """Its button starts each session of a workspace, and says which one did not start."""
    with shared_daemon.client() as client:
        workspace = client.call("workspace.create", name="shop", layout={"layout_type": "tabs", "config": {}})["id"]
        for name, command in (("one", "cat"), ("two", "sh -c 'echo up; cat'"), ("broken", "/nowhere/program")):
            config = {"session_type": "local", "command": command, "workspace_id": workspace}
            client.call("session.create", name=name, config=config)
        web = serve(shared_daemon)
        with browser.page(web.url) as page:
            page.wait(card("two"))
            page.click("button[aria-label='Open shop']")
            page.wait("document.getElementById('toasts').innerText.includes('broken did not start')")
            page.wait("document.querySelectorAll('.card.live').length === 2")
            page.wait(f"{card('two')}.querySelector('img')?.src.includes('up')")
            live = {one["name"] for one in client.call("session.list")["sessions"] if one["live"]}
            assert live == {"one", "two"}


NOTIFICATIONS = """
globalThis.notified = [];
globalThis.Notification = class {
  static permission = "granted";
  constructor(title, { body }) { notified.push([title, body]); }
};
document.hasFocus = () => false;
"""


def test_a_notification_is_shown(shared_daemon: DaemonProcess, browser: Browser, serve: Serve) -> None:
    """What a program says to its user is a notification of the desktop where that is allowed, else one on the page."""
    with shared_daemon.client() as client:
        session = started(client, name="build")
        web = serve(shared_daemon)
        with browser.page(web.url, watch=NOTIFICATIONS) as allowed, browser.page(web.url) as other:
            for page in (allowed, other):
                page.wait("document.getElementById('state').textContent === 'connected'")
            data = encoded("printf '\\033]777;notify;Deploy;It is <b>out</b>\\a'\n")
            client.call("session.send", id=session, data=data)
            allowed.wait("notified.length > 0")
            assert allowed.evaluate("notified[0]") == ["Deploy", "It is <b>out</b> (build)"]
            other.wait("document.getElementById('toasts').innerText.includes('It is <b>out</b> (build)')")
            other.wait(f"{card('build')}.innerText.includes('message')")


def test_a_flood_does_not_drown_the_page(shared_daemon: DaemonProcess, browser: Browser, serve: Serve) -> None:
    """Output faster than a browser draws is left out, and keys get through: Ctrl-C ends the program."""
    with shared_daemon.client() as client:
        session = started(client)
        web = serve(shared_daemon)
        with browser.page(web.url) as page:
            page.show(session)
            page.type("yes abcdefghijklmnopqrstuvwxyz\n")
            page.wait(f"{TERMINAL}.buffer.active.length > 1000")
            page.press("Control+C")
            page.type("echo sti''ll here\n")
            page.wait_for_text("still here")


def test_keys_alone_are_enough(shared_daemon: DaemonProcess, browser: Browser, serve: Serve) -> None:
    """Without a mouse a session is chosen, typed into, left and another one chosen; the size fits 400 pixels."""
    with shared_daemon.client() as client:
        for name in ("one", "two"):
            started(client, name=name)
        web = serve(shared_daemon)
        with browser.page(web.url, size=(400, 700)) as page:
            page.wait(card("one"))
            assert page.evaluate("document.documentElement.scrollWidth") <= 400
            page.press("Tab", "Enter", "ArrowDown", "Enter")
            page.wait_until_attached()
            assert page.evaluate("document.getElementById('name').textContent") == "one"
            page.type("tput cols\n")
            cols = page.evaluate(f"{TERMINAL}.cols")
            page.wait(f"{json.dumps(str(cols))} && document.querySelector('.xterm-rows').innerText.includes('{cols}')")
            assert page.evaluate("document.documentElement.scrollWidth") <= 400
            page.press("Control+Shift+L")
            page.wait("!document.getElementById('pane').checkVisibility()")
            assert page.evaluate("location.hash") == ""


def test_a_program_that_ends_is_started_again(shared_daemon: DaemonProcess, browser: Browser, serve: Serve) -> None:
    """Its last screen stays, with how it ended, and a button starts it again."""
    with shared_daemon.client() as client:
        session = started(client, "bash -c 'echo ready; read; exit 7'")
        web = serve(shared_daemon)
        with browser.page(web.url) as page:
            page.show(session)
            page.wait_for_text("ready")
            page.type("\n")
            page.wait("document.getElementById('terminal-state').textContent === 'ended: exit 7'")
            page.reload()
            page.wait("document.getElementById('pane').dataset.state === 'stopped'")
            page.wait_for_text("ready")
            page.click("#notice-button")
            page.wait_until_attached()
            assert client.call("session.get", id=session)["live"]


def test_the_end_of_orbitctl_web_is_seen(shared_daemon: DaemonProcess, browser: Browser, serve: Serve) -> None:
    """Ctrl-C ends it with 0, SIGTERM with 143; the page says that it is not connected, and its link is of that run."""
    web = serve(shared_daemon)
    with browser.page(web.url) as page:
        page.wait(LOADED)
        assert web.end() == (0, "ended; sessions go on\n")
        page.wait("document.getElementById('state').dataset.state === 'lost'")
        again = serve(shared_daemon, "--port", str(web.port))
        page.wait("document.body.innerText.includes('not valid')")
        assert again.end(signal.SIGTERM)[0] == 143


def test_sessions_of_another_machine(
    shared_daemon: DaemonProcess, browser: Browser, serve: Serve, tmp_path: Path
) -> None:
    """With --host the page has the sessions of the daemon at the other end of ssh."""
    ssh = tmp_path / "ssh"
    ssh.write_text(f"#!/bin/sh\nexec {sys.executable} -m orbitctl dial-stdio\n")
    ssh.chmod(0o700)
    with shared_daemon.client() as client:
        session = started(client, "sh -c 'echo remote; cat'")
        web = serve(shared_daemon, "--host", "ssh://there", ORBITCTL_SSH=str(ssh))
        with browser.page(web.url) as page:
            page.show(session)
            page.wait_for_text("remote")
            page.type("typed\n")
            page.wait_for_text("typed")


def test_nothing_is_loaded_from_elsewhere(
    shared_daemon: DaemonProcess, browser: Browser, serve: Serve, tmp_path: Path
) -> None:
    """The page asks for nothing but its own files, in light and dark, and its console has no error."""
    with shared_daemon.client() as client:
        session = started(client)
        web = serve(shared_daemon)
        with browser.page(web.url) as page:
            for scheme in ("light", "dark"):
                page.scheme(scheme)
                page.show(session)
                page.wait_for_text("$")
                page.shot(tmp_path / f"{scheme}.png")
            assert page.problems() == []
