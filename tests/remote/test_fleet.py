"""`session list` with several --host: the sessions of several machines in one table."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ssh_support import Machine, Near

pytestmark = pytest.mark.slow


@pytest.fixture
def pair(near: Near, new_machine: Callable[[], Machine]) -> tuple[Machine, Machine]:
    """Two machines that serve, with one session each: `one` and `two`."""
    machines = (new_machine(), new_machine())
    for machine, name in zip(machines, ("one", "two"), strict=True):
        machine.daemon.start()
        machine.ctl.ok("session", "create", "--name", name)
    return machines


def both(pair: tuple[Machine, Machine]) -> list[str]:
    return [word for machine in pair for word in ("--host", machine.url)]


def test_the_sessions_of_several_machines_are_listed(near: Near, pair: tuple[Machine, Machine]) -> None:
    """The table has a HOST column, and each machine's sessions in the order of the options."""
    title, first, second = near.ctl.ok(*both(pair), "session", "list").lines
    assert title.split()[:3] == ["HOST", "ID", "NAME"]
    assert (first.split()[0], first.split()[2]) == (f"127.0.0.1:{pair[0].port}", "one")
    assert (second.split()[0], second.split()[2]) == (f"127.0.0.1:{pair[1].port}", "two")


def test_json_and_ids_of_several_machines(near: Near, pair: tuple[Machine, Machine]) -> None:
    """--json gives each session as it came, with its host; -q prints every id."""
    printed = near.ctl.ok(*both(pair), "session", "list", "--json").json
    assert [(one["host"], one["name"]) for one in printed["sessions"]] == [(pair[0].url, "one"), (pair[1].url, "two")]
    assert printed["failed"] == []
    assert near.ctl.ok("-q", *both(pair), "session", "list").lines == [one["id"] for one in printed["sessions"]]


def test_this_machine_may_stand_among_others(near: Near, pair: tuple[Machine, Machine]) -> None:
    """`--host local` is the daemon of this machine."""
    try:
        near.ctl.ok("session", "create", "--name", "here")
        listed = near.ctl.ok("--host", "local", "--host", pair[0].url, "session", "list").lines[1:]
        assert [(line.split()[0], line.split()[2]) for line in listed] == [
            ("local", "here"),
            (f"127.0.0.1:{pair[0].port}", "one"),
        ]
    finally:
        near.ctl("daemon", "stop")


def test_a_host_that_fails_does_not_hide_the_others(near: Near, pair: tuple[Machine, Machine]) -> None:
    """The others are shown; which one failed and why is on stderr, and in the exit code."""
    (pair[0].home / "authorized_keys").write_text("")
    ended = near.ctl(*both(pair), "session", "list")
    assert ended.code == 3
    assert [line.split()[2] for line in ended.lines[1:]] == ["two"]
    assert "Permission denied (publickey)" in ended.err
    assert f"error: 127.0.0.1:{pair[0].port}: ssh could not reach" in ended.err
    printed = near.ctl(*both(pair), "session", "list", "--json").json
    assert [failed["host"] for failed in printed["failed"]] == [pair[0].url]


def test_workspaces_are_looked_up_on_each_machine(near: Near, pair: tuple[Machine, Machine]) -> None:
    """--workspace is found by name on each machine; where there is none, that machine fails with exit 4."""
    pair[1].ctl.ok("workspace", "create", "shop")
    pair[1].ctl.ok("session", "move", "two", "shop")
    ended = near.ctl(*both(pair), "session", "list", "--workspace", "shop")
    assert ended.code == 4
    assert [line.split()[2] for line in ended.lines[1:]] == ["two"]
    assert "shop" in ended.lines[1]
    assert f"error: 127.0.0.1:{pair[0].port}: " in ended.err


def test_the_same_host_twice_is_asked_once(near: Near, far: Machine) -> None:
    """A host that is named twice counts once, as any single one."""
    far.ctl.ok("session", "create", "--name", "one")
    assert len(near.ctl.ok("--host", far.url, "session", "list", "--host", far.url, "-q").lines) == 1
