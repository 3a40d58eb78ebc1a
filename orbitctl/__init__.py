"""Orbit's command line: a blocking client of the daemon's socket, and the commands over it.

    cli        the root of the command tree, and how a run ends     app      what every command is given
    commands/  one module for each group of commands                errors   exit codes and messages
    attach/    a session on the user's terminal                     ui/      text, tables, spinner
    client/    the connection: socket or ssh, start and stop of orbitd, paging
    service/   units of systemd and launchd

Calls go downwards: cli, commands, attach, app, client, service, ui. A command's process lives for
milliseconds, so what a module imports counts: a group's module is imported when the group is called,
and rich only when a table is drawn on a terminal. Nothing here imports `orbitd`.
"""
