"""`orbitctl service`: install orbitd as a service of systemd or launchd, and remove it.

Install and uninstall check first and write afterwards: if a file is not ours, or no service manager
answers, nothing has been changed.
"""

from __future__ import annotations

from dataclasses import asdict

import click

from orbit_protocol.jsonrpc import encode_message
from orbit_protocol.methods import DAEMON_INFO
from orbit_protocol.params import Params
from orbitctl.app import App
from orbitctl.service.manager import ServiceManager, UnitStatus, manager_for
from orbitctl.service.units import (
    TEMPLATES,
    read,
    refuse_foreign,
    remove,
    render_plist,
    render_service,
    render_socket,
    this_installation,
    write,
)
from orbitctl.ui.output import Column, Formatter

RENDERERS = {"service": render_service, "socket": render_socket, "plist": render_plist}


@click.group()
def service() -> None:
    """Run orbitd as a service of systemd or launchd.

    A service starts at login (at boot, where lingering is on), on the first call, and again
    after a crash. It belongs to your user and needs no root.
    """


@service.command()
@click.option("--no-start", is_flag=True, help="Start it at the next login, not now.")
@click.pass_obj
def install(app: App, no_start: bool) -> None:
    """Write the units of this installation, enable and start them.

    Repeated, it changes nothing, or updates the units after an upgrade or a move.
    A running orbitd is replaced by the service; sessions go on. Files that `orbitctl service`
    did not write are never touched.
    """
    manager = manager_for(app.environ)
    units = manager.units(this_installation(app.paths))
    app.paths.check()
    manager.check()
    refuse_foreign([unit.path for unit in units])
    if not no_start:
        _stop_unsupervised(app)
    written = [unit for unit in units if write(unit)]
    for unit in written:
        _note(app, f"wrote {unit.path}")
    manager.activate(changed=bool(written), start=not no_start)
    state = "is enabled" if no_start else "is enabled and serves"
    _note(app, f"orbitd {state} under {manager.name}{'' if written else '; its units were up to date'}")
    _print_hints(app, manager)


@service.command()
@click.pass_obj
def uninstall(app: App) -> None:
    """Stop the service and remove its units.

    The database stays, and programs go on in their sessions. Drop-ins that you made with
    `systemctl --user edit` stay too.
    """
    manager = manager_for(app.environ)
    refuse_foreign(list(manager.paths))
    if not any(read(path) for path in manager.paths):
        _note(app, "no service is installed")
        return
    manager.check()
    manager.deactivate()
    for path in manager.paths:
        if remove(path):
            _note(app, f"removed {path}")
    manager.clean_up()


@service.command()
@click.pass_obj
def status(app: App) -> None:
    """Show the units, whether they are enabled, and whether they run."""
    manager = manager_for(app.environ)
    manager.check()
    found = manager.status()
    if app.json:
        app.out.json(encode_message([asdict(unit) for unit in found]))
    elif app.quiet:
        for unit in found:
            app.out.line(unit.unit)
    else:
        app.out.table(COLUMNS, found)
        _print_hints(app, manager)


@service.command("print")
@click.argument("units", metavar="[service|socket|plist]...", nargs=-1, type=click.Choice(list(TEMPLATES)))
@click.pass_obj
def print_units(app: App, units: tuple[str, ...]) -> None:
    """Print the units as install would write them, and write nothing."""
    usual = ("plist",) if manager_for(app.environ).name == "launchd" else ("service", "socket")
    installation = this_installation(app.paths)
    texts = [RENDERERS[kind](installation) for kind in units or usual]
    app.out.bytes("\n".join(texts).encode())


FILE_STATES = {"ours": "installed", "missing": "not installed", "foreign": "not ours"}


def _file(unit: UnitStatus, _: Formatter) -> str:
    return FILE_STATES[unit.file]


COLUMNS: tuple[Column[UnitStatus], ...] = (
    Column("UNIT", lambda unit, _: unit.unit),
    Column("FILE", _file),
    Column("ENABLED", lambda unit, _: unit.enabled),
    Column("STATE", lambda unit, _: unit.active, lambda unit: "green" if unit.active.startswith("active") else ""),
    Column("PATH", lambda unit, _: unit.path),
)


def _stop_unsupervised(app: App) -> None:
    """Stop an orbitd that runs without a supervisor, so that the service finds socket and database free.

    systemd would bind over its socket, and the service would find the database locked.
    """
    client = app.find_client()
    if client is not None and client.call(DAEMON_INFO, Params()).supervisor == "none":
        pid = app.stop_daemon()
        _note(app, f"stopped the orbitd that ran by itself (pid {pid})")


def _note(app: App, text: str) -> None:
    if not app.quiet:
        app.out.note(text)


def _print_hints(app: App, manager: ServiceManager) -> None:
    for hint in () if app.quiet else manager.hints():
        app.out.problem("hint", hint, "36")
