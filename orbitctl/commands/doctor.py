"""`orbitctl doctor`: check everything that could be wrong; each finding has a remedy."""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Iterator
from datetime import UTC, datetime

import click
import msgspec

from orbit_os.python import python_command
from orbit_os.shell import command_line
from orbit_protocol import PROTOCOL_VERSION, VERSION
from orbit_protocol.errors import Busy, InvalidParams, StorageCorrupt
from orbit_protocol.jsonrpc import encode_message
from orbit_protocol.methods import DAEMON_INFO, MAINTENANCE_CHECK, STATS_GET
from orbit_protocol.params import Check, Params
from orbit_protocol.paths import backups_folder
from orbit_protocol.results import CheckReport, DaemonInfo
from orbit_protocol.visible import seconds
from orbitctl.app import App
from orbitctl.client.transport import Unreachable
from orbitctl.commands import doctor_checks
from orbitctl.commands.doctor_checks import Finding
from orbitctl.commands.status import explained, limit_wait, warnings_of
from orbitctl.errors import CommandError, ExitCode
from orbitctl.ui.text import ago, plural

_CHECK_SECS = 5.0
"""How long the database is checked: enough for some 100,000 snapshots."""
_RESTORE = "`orbitctl maintenance restore BACKUP` restores a backup; the line 'backup' above names the newest."
_HISTORIES_ONLY = (
    "Sessions go on, no backup is needed, and what is damaged is missing from searches and films. Check the disk."
)
_DATABASE_SECS = 30.0
"""How long the daemon has for a first look into its database."""


@click.command(epilog="Exits with 1 if a check fails; warnings alone do not count.")
@click.pass_context
def doctor(ctx: click.Context) -> None:
    """Check everything, and print what is wrong and what to do.

    Checks the configuration, the folders and their owners, the disk, the daemon and its
    version, overdue saves, and the database, for some seconds. Changes nothing, and starts no daemon.
    """
    app: App = ctx.obj
    findings: list[Finding] = []
    for finding in map(_without_doctor, examine(app)):
        findings.append(finding)
        if not app.json and not (app.quiet and finding.state == "ok"):
            _print_finding(app, finding)
    failed = sum(finding.state == "fail" for finding in findings)
    if app.json:
        app.out.json(encode_message({"ok": not failed, "checks": findings}))
    elif not app.quiet:
        warned = sum(finding.state == "warn" for finding in findings)
        app.out.line(f"{plural(len(findings), 'check')}: {failed} failed, {plural(warned, 'warning')}")
    if failed:
        ctx.exit(ExitCode.ERROR)


def _without_doctor(finding: Finding) -> Finding:
    """Return a finding in which no advice that is meant for other commands sends the reader to this one."""
    advice = StorageCorrupt.default_hint
    return msgspec.structs.replace(
        finding,
        message=finding.message.replace(advice, "").strip(),
        remedy=finding.remedy.replace(advice, _RESTORE),
    )


def _print_finding(app: App, finding: Finding) -> None:
    app.out.line(f"{finding.state:<4}  {finding.check}: {finding.message}")
    if finding.remedy:
        app.out.line(f"      -> {finding.remedy}")


def examine(app: App) -> Iterator[Finding]:
    """Yield every finding; a check comes after those that it depends on."""
    yield _program()
    try:
        paths = app.paths.resolved
        app.paths.socket_path  # noqa: B018  # reading it can raise
    except CommandError as error:
        yield Finding(check="configuration", state="fail", message=error.message, remedy=error.hint)
        return
    there = "" if os.path.exists(paths.config_path) else " (missing; the defaults are used)"
    yield Finding(check="configuration", state="ok", message=paths.config_path + there)
    try:
        app.paths.check()  # a socket that is named needs none of the folders that a start makes
    except CommandError as error:
        yield Finding(check="home", state="fail", message=error.message, remedy=error.hint)
    yield doctor_checks.folder("database folder", os.path.dirname(paths.database_path))
    yield doctor_checks.folder("state folder", paths.state_folder)
    yield doctor_checks.folder("socket folder", os.path.dirname(app.paths.socket_path))
    yield doctor_checks.regular_file("database file", paths.database_path)
    for name, path in (
        ("lock file", app.paths.lock_file),
        ("lock of starts", app.paths.start_lock_file),
        ("log", app.paths.log_file),
    ):
        if (found := doctor_checks.regular_file(name, path)).state == "fail":
            yield found
    yield doctor_checks.disk_room(paths.database_path)
    yield doctor_checks.local_disk(paths.database_path)
    yield _newest_backup(paths.database_path)
    yield doctor_checks.desktop_notifications(paths.settings.notifications, app.environ)
    yield from _examine_daemon(app)


def _program() -> Finding:
    program = python_command("orbitd")
    return Finding(check="program", state="ok", message=f"orbitctl {VERSION}; orbitd is {command_line(program)}")


def _newest_backup(database: str) -> Finding:
    """Return the newest file in the folder of backups, the one to restore."""
    folder = backups_folder(database)
    try:
        with os.scandir(folder) as entries:
            # One that begins with a dot is being written; histories come back with the backup that they lie beside.
            names = [each for each in entries if each.name[0] != "." and not each.name.endswith(".history.db")]
            found = [(each.stat().st_mtime, each.path) for each in names if each.is_file()]
    except OSError:
        found = []
    if not found:
        return Finding(check="backup", state="ok", message="none yet; `orbitctl maintenance backup` makes one")
    moment, path = max(found)
    return Finding(check="backup", state="ok", message=f"{path}, {ago(datetime.fromtimestamp(moment, UTC))}")


def _examine_daemon(app: App) -> Iterator[Finding]:
    chosen = app.timeout
    limit_wait(app)
    try:
        client = app.running_client()
        try:
            info = client.call(DAEMON_INFO, Params())
        except CommandError as error:
            yield _unreachable(explained(app, client, error))
            return
    except CommandError as error:
        yield _unreachable(error)
        return
    finally:
        app.timeout = chosen
    yield Finding(check="daemon", state="ok", message=f"orbitd {info.version}, pid {info.pid}, {info.socket_path}")
    yield _same_protocol(info)
    yield doctor_checks.file("socket", info.socket_file)
    yield doctor_checks.live_sessions(info.features)
    # Lingering matters only for a daemon of the user manager, which systemd ends with the last login.
    if info.supervisor == "systemd":
        with contextlib.suppress(KeyError):  # a user without a passwd entry, whom logind cannot keep either
            yield doctor_checks.lingering(pwd.getpwuid(os.getuid()).pw_name)
    warnings = warnings_of(info)
    for warning in warnings:
        yield Finding(check="daemon", state="warn", message=warning, remedy="`orbitctl daemon logs` has the details.")
    if not warnings:
        yield Finding(check="saving", state="ok", message="nothing has failed, nothing is overdue")
    if (stuck := _stuck_database(app)) is not None:
        yield stuck
        return
    yield _integrity(app)


def _unreachable(error: CommandError) -> Finding:
    """Return why the daemon does not answer; that none runs is only a warning."""
    is_stopped = isinstance(error, Unreachable) and error.no_daemon
    remedy = error.hint
    if "orbitctl doctor" in remedy:
        remedy = "`orbitctl daemon logs` may show why; `orbitctl daemon restart` starts it again."
        if error.exit_code == ExitCode.PROTOCOL:
            remedy = "Another program seems to serve this socket: name your daemon's with --socket or ORBITD_SOCKET."
    return Finding(check="daemon", state="warn" if is_stopped else "fail", message=error.message, remedy=remedy)


def _same_protocol(info: DaemonInfo) -> Finding:
    if info.protocol_version == PROTOCOL_VERSION:
        return Finding(check="protocol", state="ok", message=f"both speak {PROTOCOL_VERSION}")
    return Finding(
        check="protocol",
        state="fail",
        message=f"orbitd speaks {info.protocol_version}, orbitctl {PROTOCOL_VERSION}",
        remedy="Install one version of both, then `orbitctl daemon restart`.",
    )


def _stuck_database(app: App) -> Finding | None:
    """Return why the database cannot be checked: its reads hang where the disk does."""
    secs = _DATABASE_SECS if app.timeout is None else app.timeout
    try:
        app.client.ask(STATS_GET, Params(), secs)
    except CommandError as error:
        if error.exit_code == ExitCode.TIMEOUT:
            remedy = (
                "Look whether its disk answers (dmesg; a network file system), then `orbitctl daemon restart --force`."
            )
            message = f"orbitd answers, but no read of the database within {seconds(secs)}"
            return Finding(check="database", state="fail", message=message, remedy=remedy)
    return None


def _integrity(app: App) -> Finding:
    try:
        report = _check_for_a_while(app)
    except CommandError as error:
        # Busy: checks and backups that others have begun are going on.
        is_busy = isinstance(error.__cause__, Busy)
        return Finding(check="database", state="warn" if is_busy else "fail", message=error.message, remedy=error.hint)
    if report.ok and report.complete:
        return Finding(check="database", state="ok", message="no damage, in no snapshot either")
    if report.ok and not report.total_snapshots:  # they are counted when their turn has come
        return Finding(
            check="database",
            state="warn",
            message=f"not checked: {seconds(_CHECK_SECS)} are not enough for any snapshot",
            remedy="`orbitctl maintenance check` checks everything.",
        )
    if report.ok:
        return Finding(
            check="database",
            state="ok",
            message=f"no damage in what {seconds(_CHECK_SECS)} are enough for, {report.checked_snapshots:,} of "
            f"{report.total_snapshots:,} snapshots; `orbitctl maintenance check` checks everything",
        )
    findings = [*report.integrity, *report.foreign_keys, *report.rows, *(f"snapshot {one}" for one in report.snapshots)]
    return Finding(
        check="database",
        state="fail",
        message=f"{plural(len(findings) + report.more_snapshots, 'finding')}: {'; '.join(findings[:5])}",
        remedy=_HISTORIES_ONLY if all(_is_of_histories(each) for each in findings) else _RESTORE,
    )


def _is_of_histories(finding: str) -> bool:
    """Return whether a finding is about what sessions have shown, which is in a file of its own."""
    return finding.startswith("The database of histories") or ".history.db" in finding or "/history.db" in finding


def _check_for_a_while(app: App) -> CheckReport:
    """Have the daemon check its database for as long as a reader waits. Raises: CommandError."""
    what = "checking the database"
    try:
        return app.ask_long(MAINTENANCE_CHECK, Check(limit_secs=_CHECK_SECS), what).value
    except CommandError as error:
        if not isinstance(error.__cause__, InvalidParams):
            raise
    return app.ask_long(MAINTENANCE_CHECK, Check(), what).value  # a daemon that is older knows no limit
