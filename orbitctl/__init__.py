"""Orbit's command line: a blocking client of the daemon's socket, and the commands over it.

    __main__   the program; isolates itself from the user's project     cli      root of the commands, exit codes
    fast       `ls`, `session list` and `a` without click               completion/  what a shell offers at a Tab
    app        what every command is given                              errors   exit codes and messages
    moments    `10 minutes ago` and `yesterday 15:10`               replay/  a session's film, played on the terminal
    commands/  one module for each group of commands                    ui/      output, text, spinner
    attach/    a session on the user's terminal                         client/  sockets, ssh, start and stop of orbitd
    service/   units of systemd and launchd                             web/     the page of `orbitctl web`

Calls go from cli to commands, to attach, to app, to client; `client.daemon` starts an installed service, and any of
them calls ui. A command's process lives for milliseconds, so every import counts: a group's module is imported when the
group is called. Nothing here imports `orbitd`.
"""
