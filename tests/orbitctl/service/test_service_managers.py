"""The launchd side of `orbitctl service` against a launchctl that plays its part, and hints."""

from __future__ import annotations

import os
import plistlib
import stat
from pathlib import Path

import pytest

from needs import needs
from orbit_os.sockets import fitting_socket_path
from orbitctl.client.paths import ClientPaths
from orbitctl.errors import CommandError, ExitCode
from orbitctl.service import manager
from orbitctl.service.manager import Launchd, SystemdUser, manager_for, run
from orbitctl.service.units import this_installation, write

# Remembers each call, and whether the job is loaded.
LAUNCHCTL = """#!/bin/sh
echo "$*" >> "$0.calls"
job="gui/$(id -u)/dev.orbit.orbitd"
case "$1 $2" in
"print $job")
  # A job that is being unloaded is there for as many looks as the file says.
  if read left < "$0.leaving" && [ "$left" -gt 0 ]; then echo $((left - 1)) > "$0.leaving"; exit 0; fi
  test -e "$0.loaded" || exit 113; printf '\\tpid = 7\\n\\tstate = running\\n' ;;
"bootstrap "*)
  if read left < "$0.late" && [ "$left" -gt 0 ]; then echo $((left - 1)) > "$0.late"; exit 5; fi
  test -f "$3" && test -d "$(dirname "$SOCKET")" && : > "$0.loaded" ;;
"bootout $job") rm "$0.loaded"; test ! -e "$0.leaving" || exit 36 ;;
"kickstart $job") test -e "$0.loaded" || exit 113; test ! -e "$0.leaving" || exit 37 ;;
esac
"""
UID = os.getuid()


class Mac:
    """A home and a launchctl."""

    def __init__(self, folder: Path) -> None:
        self.home = folder
        self.program = folder / "bin" / "launchctl"
        self.program.parent.mkdir()
        self.program.write_text(LAUNCHCTL)
        self.program.chmod(0o755)
        self.environ = {
            "HOME": str(folder),
            "PATH": f"{self.program.parent}:/usr/bin:/bin",
            "SOCKET": f"{folder}/.local/state/orbit/orbitd.sock",
        }
        self.manager = Launchd(self.environ)

    @property
    def plist(self) -> Path:
        return self.home / "Library" / "LaunchAgents" / "dev.orbit.orbitd.plist"

    def calls(self) -> list[str]:
        """Return what launchctl was asked to change since the last look."""
        log = self.program.with_suffix(".calls")
        asked = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return [call.replace(f"gui/{UID}", "gui/UID") for call in asked if not call.startswith("print ")]

    def install(self, *, start: bool = True) -> bool:
        """Do what `service install` does."""
        units = self.manager.units(this_installation(ClientPaths(self.environ, None)))
        written = [unit for unit in units if write(unit)]
        self.manager.activate(changed=bool(written), start=start)
        return bool(written)


@pytest.fixture
def mac(tmp_path):
    """A home with a launchctl of its own."""
    return Mac(tmp_path)


def test_each_platform_has_its_manager():
    """Launchd is macOS's; everything else has systemd."""
    names = [manager_for({"HOME": "/home/u"}, platform).name for platform in ("darwin", "linux")]
    assert names == ["launchd", "systemd"]


def test_a_first_install_enables_loads_and_starts(mac):
    """The job is loaded into the login session once its folders are there, for the user alone."""
    mac.manager.check()
    assert mac.install() is True
    assert mac.calls() == [
        "enable gui/UID/dev.orbit.orbitd",
        f"bootstrap gui/UID {mac.plist}",
        "kickstart gui/UID/dev.orbit.orbitd",
    ]
    assert stat.S_IMODE((mac.home / ".local/state/orbit").stat().st_mode) == 0o700
    job = plistlib.loads(mac.plist.read_bytes())
    socket = fitting_socket_path(str(mac.home / ".local/state/orbit/orbitd.sock"))  # the folder of a test may be deep
    assert job["Sockets"]["orbitd"]["SockPathName"] == socket


def test_installing_again_loads_nothing_anew(mac):
    """An unchanged job is only made sure to run."""
    mac.install()
    mac.calls()
    assert mac.install() is False
    assert mac.calls() == ["enable gui/UID/dev.orbit.orbitd", "kickstart gui/UID/dev.orbit.orbitd"]


def test_a_changed_job_is_loaded_anew(mac):
    """A loaded job stays as it was loaded, so a changed property list is unloaded first."""
    mac.install()
    mac.calls()
    mac.plist.write_text(mac.plist.read_text().replace("<integer>30</integer>", "<integer>31</integer>"))
    assert mac.install() is True
    assert mac.calls()[1:] == [
        "bootout gui/UID/dev.orbit.orbitd",
        f"bootstrap gui/UID {mac.plist}",
        "kickstart gui/UID/dev.orbit.orbitd",
    ]


@needs(linux=True)
def test_a_service_is_started_without_a_runtime_folder(home, monkeypatch):
    """Under cron and su there is no XDG_RUNTIME_DIR, by which systemctl finds the manager: the usual one is tried."""
    program = home / "systemctl"
    program.write_text('#!/bin/sh\necho "$XDG_RUNTIME_DIR $*" >> "$0.calls"\n')
    program.chmod(0o755)
    environ = {"HOME": str(home), "PATH": f"{home}:/usr/bin:/bin"}
    systemd = SystemdUser(environ)
    for unit in systemd.units(this_installation(ClientPaths(environ, None))):
        write(unit)
    usual = f"/run/user/{UID}"
    monkeypatch.setattr(manager.os.path, "isdir", lambda path: path == usual or os.path.exists(f"{path}/."))
    assert manager.start_if_installed(environ)
    calls = Path(f"{program}.calls").read_text().splitlines()
    assert calls[-1] == f"{usual} --user start orbitd.socket orbitd.service"
    assert all(call.startswith(f"{usual} ") for call in calls)


def test_a_job_that_takes_a_while_to_end_is_waited_for(mac, monkeypatch):
    """`bootout` only begins it: the job is loaded anew once launchd has forgotten it, and no refusal is an error."""
    mac.install()
    mac.calls()
    monkeypatch.setattr(manager, "PAUSE_SECS", 0)
    mac.program.with_suffix(".leaving").write_text("3\n")
    mac.program.with_suffix(".late").write_text("2\n")
    mac.plist.write_text(mac.plist.read_text().replace("<integer>30</integer>", "<integer>31</integer>"))
    assert mac.install() is True
    assert mac.calls()[1:] == [
        "bootout gui/UID/dev.orbit.orbitd",
        *[f"bootstrap gui/UID {mac.plist}"] * 3,
        "kickstart gui/UID/dev.orbit.orbitd",
    ]


def test_a_job_that_does_not_end_is_an_error(mac, monkeypatch):
    """Launchd kills a job after its ExitTimeOut; one that is there still is told, and not loaded a second time."""
    mac.install()
    mac.calls()
    monkeypatch.setattr(manager, "PAUSE_SECS", 0)
    monkeypatch.setattr(manager, "UNLOAD_SECS", 0)
    mac.program.with_suffix(".leaving").write_text("1000000\n")
    with pytest.raises(CommandError, match="has not ended dev"):
        mac.manager.deactivate()
    assert mac.calls() == ["bootout gui/UID/dev.orbit.orbitd"]


def test_without_start_the_job_waits_for_the_next_login(mac):
    """With --no-start nothing is loaded."""
    mac.install(start=False)
    assert mac.calls() == ["enable gui/UID/dev.orbit.orbitd"]
    assert mac.manager.status()[0].active == "inactive"


def test_status_and_end_of_a_job(mac):
    """A loaded job shows launchd's own word for its state; deactivated, it is unloaded."""
    mac.install()
    [status] = mac.manager.status()
    assert (status.unit, status.file, status.enabled, status.active) == (
        "dev.orbit.orbitd",
        "ours",
        "loaded",
        "running",
    )
    mac.calls()
    mac.manager.deactivate()
    mac.manager.deactivate()
    assert mac.calls() == ["bootout gui/UID/dev.orbit.orbitd"]


def test_an_installed_job_can_be_started(mac):
    """The autostart loads the job where it is not loaded, and tells when launchd does not start it."""
    mac.install(start=False)
    assert mac.manager.start() is True
    mac.program.write_text("#!/bin/sh\nexit 5\n")
    assert mac.manager.start() is False


def test_no_login_session_is_said_before_anything_is_written(mac):
    """Over ssh to a Mac where nobody is logged in, the next step is named."""
    mac.program.write_text("#!/bin/sh\nexit 125\n")
    with pytest.raises(CommandError, match=f"launchd has no login session for you \\(gui/{UID}\\)"):
        mac.manager.check()
    assert not mac.plist.exists()


def test_a_refusal_is_told_in_launchctls_words(mac):
    """When launchctl fails, its message is the error."""
    mac.program.write_text("#!/bin/sh\necho 'Bootstrap failed: 5: Input/output error' >&2\nexit 5\n")
    with pytest.raises(CommandError, match="Bootstrap failed: 5: Input/output error"):
        mac.install()


def test_the_log_of_a_job_is_its_file(mac):
    """`daemon logs` reads the file that launchd sends stderr to."""
    mac.install(start=False)
    log = str(mac.home / ".local/state/orbit/orbitd.log")
    assert mac.manager.log_command(20, follow=True) == ["tail", "-n", "20", "-F", log]


def test_the_log_of_a_unit_is_in_the_journal():
    """`daemon logs` asks the journal for the user's unit."""
    command = SystemdUser({"HOME": "/home/u"}).log_command(20, follow=False)
    assert command == ["journalctl", "--user-unit=orbitd.service", "--lines=20"]


@pytest.mark.parametrize(("linger", "count"), [("no", 1), ("yes", 0)])
def test_lingering_that_is_off_is_pointed_out(tmp_path, linger, count):
    """Without lingering sessions end with the last login: status and install say so."""
    program = tmp_path / "loginctl"
    program.write_text(f"#!/bin/sh\necho Linger={linger}\n")
    program.chmod(0o755)
    hints = SystemdUser({"HOME": str(tmp_path), "PATH": f"{tmp_path}:/usr/bin:/bin"}).hints()
    assert len(hints) == count
    assert all("loginctl enable-linger" in hint for hint in hints)


def test_a_machine_without_loginctl_gets_no_hint(tmp_path):
    """Where nobody can tell about lingering, nothing is claimed."""
    assert SystemdUser({"HOME": str(tmp_path), "PATH": str(tmp_path)}).hints() == []


def test_a_command_that_hangs_is_given_up_on():
    """No service manager can hold orbitctl up for ever."""
    with pytest.raises(CommandError, match=r"took longer than 0\.1 s") as raised:
        run(["tail", "-f", "/dev/null"], os.environ, 0.1)
    assert raised.value.exit_code == ExitCode.TIMEOUT
