"""The units as systemd sees them: valid, and no hindrance to the shells that run below them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

NOBODY = 65534
ROOT = Path(__file__).resolve().parents[2]

# What a program inherits and cannot change back, written to the file named by $1.
PROBE = """[Service]
Type=oneshot
Restart=no
WatchdogSec=0
ExecStart=
ExecStart=/bin/sh -c 'cat /proc/self/status /proc/self/limits > $1; readlink /proc/self/ns/* >> $1' sh {out}
{extra}
"""
FIELDS = ("NoNewPrivs", "Seccomp", "Seccomp_filters", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "Uid", "Gid",
          "Groups", "Max ")  # fmt: skip
"""Lines of /proc/self/status and limits that have to be as without the unit."""

FILTERS = [
    "LockPersonality=yes",
    "MemoryDenyWriteExecute=yes",
    "ProtectHostname=yes",
    "ProtectKernelTunables=yes",
    "RestrictAddressFamilies=AF_UNIX",
    "RestrictNamespaces=yes",
    "RestrictRealtime=yes",
    "RestrictSUIDSGID=yes",
    "SystemCallArchitectures=native",
    "SystemCallFilter=@system-service",
]
CAPABILITIES = [
    "CapabilityBoundingSet=",
    "PrivateDevices=yes",
    "ProtectClock=yes",
    "ProtectKernelLogs=yes",
    "ProtectKernelModules=yes",
]


def inherited(manager, unit: str, extra: str = "") -> list[str]:
    """Run the probe as a unit's program, and return what it inherited."""
    out = manager.home / f"{unit}.out"
    manager.drop_in(unit, PROBE.format(out=out, extra=extra))
    manager.systemctl("start", unit)
    lines = out.read_text().splitlines()
    return [line for line in lines if line.startswith(FIELDS) or re.match(r"(mnt|user|net|pid|ipc|uts|time):", line)]


def write_units(manager) -> list[Path]:
    """Put the units as orbitctl prints them in their place."""
    manager.units.mkdir(parents=True)
    paths = []
    for kind in ("socket", "service"):
        text = manager.orbitctl("service", "print", kind).stdout
        paths.append(manager.units / f"orbitd.{kind}")
        paths[-1].write_text(text)
    manager.systemctl("daemon-reload")
    return paths


def test_systemd_finds_nothing_to_say_about_the_units(manager):
    """`systemd-analyze verify --user` is clean."""
    done = manager.run("systemd-analyze", "verify", "--user", *map(str, write_units(manager)))
    assert done.stdout + done.stderr == ""


def test_the_exposure_is_written_down(manager):
    """docs/service.md has the figure that `systemd-analyze security --user` gives for the unit."""
    path = write_units(manager)[1]
    said = manager.run("systemd-analyze", "security", "--user", "--offline=true", str(path)).stdout
    exposure = re.search(r"exposure level for orbitd.service: ([0-9.]+)", said).group(1)
    assert f"exposure level **{exposure}**" in (ROOT / "docs" / "service.md").read_text()


@pytest.mark.parametrize("uid", [None, NOBODY], ids=["own", "unprivileged"])
def test_a_shell_below_the_unit_has_all_that_it_would_have_elsewhere(user_manager_of, uid):
    """Privileges, capabilities, filters, limits and namespaces are those of a service without any option."""
    manager = user_manager_of(uid)
    write_units(manager)
    (manager.units / "plain.service").write_text("[Unit]\nDescription=nothing set\n")
    ours = inherited(manager, "orbitd.service")
    assert "NoNewPrivs:\t0" in ours
    assert ours == inherited(manager, "plain.service")


def test_each_filter_that_is_left_out_would_take_sudo_away(unprivileged):
    """In an unprivileged user manager every seccomp option forbids new privileges to all below it."""
    write_units(unprivileged)
    seen = {option: "NoNewPrivs:\t1" in inherited(unprivileged, "orbitd.service", option) for option in FILTERS}
    assert seen == dict.fromkeys(FILTERS, True)


def test_each_option_that_drops_capabilities_would_fail_the_start(unprivileged):
    """An unprivileged user manager cannot execute a unit that restricts capabilities (218/CAPABILITIES)."""
    write_units(unprivileged)
    for option in CAPABILITIES:
        with pytest.raises(AssertionError, match=r"Job for orbitd\.service failed"):
            inherited(unprivileged, "orbitd.service", option)
        assert unprivileged.show("orbitd.service", "ExecMainStatus") == "218", option


def test_a_user_namespace_would_hide_root(unprivileged):
    """PrivateUsers puts what is below the unit into a user namespace, where sudo's owner is nobody."""
    write_units(unprivileged)
    plain = inherited(unprivileged, "orbitd.service")
    private = inherited(unprivileged, "orbitd.service", "PrivateUsers=yes")
    assert [line for line in private if line.startswith("user:")] != [
        line for line in plain if line.startswith("user:")
    ]


def test_a_pipe_that_is_closed_ends_its_writer(manager):
    """SIGPIPE is not ignored in what the unit starts."""
    write_units(manager)
    manager.drop_in(
        "orbitd.service",
        "[Service]\nType=oneshot\nRestart=no\nWatchdogSec=0\nExecStart=\n"
        f"ExecStart=/bin/sh -c 'grep SigIgn /proc/self/status > {manager.home}/out'\n",
    )
    manager.systemctl("start", "orbitd.service")
    ignored = int((manager.home / "out").read_text().split()[1], 16)
    assert ignored & (1 << (13 - 1)) == 0
